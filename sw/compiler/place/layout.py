"""Where the bytes of a tensor are, on chip and in system memory.

On chip a tensor is NHWC. Its pixels take whole lines (channels padded to a multiple of the array's
size; what the padding holds does not matter, since the weights for it are zero), except for
*packed* tensors, which only convolutions in mode WINDOW read, at any byte address. Rows may be a
line further apart than their pixels need: mode ROWS reads three rows at once from different banks,
which takes a row pitch of an odd number of lines. In mode JOINED a window has bytes of two rows of
a packed tensor; for that they are two lines further apart than a kernel row is long, modulo four.

A `Slab` is the part of a tensor that is on chip: a range of rows, where rows are too long a range
of columns, and for operators that treat every channel alone a range of channel tiles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from celosia.hw.contract.config import ACT_BANKS
from celosia.hw.contract.isa import Load, Region, Space, Store
from celosia.sw.compiler.arithmetic.whole import round_up
from celosia.sw.compiler.steps import Footprint, Part, Place, Step

__all__ = ["ActLayout", "Grid", "MemoryHome", "Slab", "act_layout", "joins", "transfer_step"]


@dataclass(frozen=True)
class ActLayout:
    """Pitches of a tensor on chip, in bytes; all but packed ones are whole lines.

    Attributes
    ----------
    width, channels : int
        Pixels of a row, channels of a pixel.
    pixel_pitch, row_pitch : int
        Bytes from pixel to pixel and from row to row.
    element_bytes : int
        Bytes of a channel of a pixel.
    """

    width: int
    channels: int
    pixel_pitch: int
    row_pitch: int
    element_bytes: int = 1

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel without what pads it."""
        return self.channels * self.element_bytes

    def size_bytes(self, rows: int) -> int:
        """Bytes from the first to behind the last pixel of `rows` rows."""
        return (rows - 1) * self.row_pitch + self.width * self.pixel_pitch

    @property
    def is_dense(self) -> bool:
        """Whether nothing lies between the rows."""
        return self.row_pitch == self.width * self.pixel_pitch


def act_layout(
    width: int,
    channels: int,
    line_bytes: int,
    *,
    packed: bool = False,
    odd_rows: bool = False,
    odd_pixels: bool = False,
    joined_bytes: int = 0,
    element_bytes: int = 1,
) -> ActLayout:
    """Return the layout of a tensor on chip.

    Parameters
    ----------
    width, channels : int
        Pixels of a row, channels of a pixel.
    line_bytes : int
        The array's size.
    packed : bool
        Pixels follow one another without padding.
    odd_rows : bool
        The row pitch shall be an odd number of lines: for mode ROWS along the image's rows.
    odd_pixels : bool
        The pixel pitch shall be an odd number of lines: for mode ROWS along its columns.
    joined_bytes : int
        Bytes of the kernel rows for which a packed tensor's rows shall be apart; 0: for none.
    element_bytes : int
        Bytes of a channel of a pixel.
    """
    pixel_bytes = channels * element_bytes
    if packed:
        row_pitch = width * pixel_bytes
        if joined_bytes:
            row_pitch = max(row_pitch, joined_bytes)
            row_pitch += -(row_pitch - joined_gap(joined_bytes, line_bytes)) % _turn(line_bytes)
        return ActLayout(width, channels, pixel_bytes, row_pitch, element_bytes)
    pixel_pitch = round_up(pixel_bytes, line_bytes)
    if odd_pixels and pixel_pitch // line_bytes % 2 == 0:
        pixel_pitch += line_bytes
    row_pitch = width * pixel_pitch
    if odd_rows and row_pitch // line_bytes % 2 == 0:
        row_pitch += line_bytes
    return ActLayout(width, channels, pixel_pitch, row_pitch, element_bytes)


def _turn(line_bytes: int) -> int:
    """Return the bytes after which a row begins in the same bank again."""
    return ACT_BANKS * line_bytes


def joined_gap(joined_bytes: int, line_bytes: int) -> int:
    """Return how far rows are apart for windows that join them, modulo a line of each bank."""
    return (joined_bytes + _turn(line_bytes) // 2) % _turn(line_bytes)


def joins(layout: ActLayout, joined_bytes: int, line_bytes: int) -> bool:
    """Whether a window may join kernel rows of so many bytes of a packed tensor."""
    apart = layout.row_pitch % _turn(line_bytes) == joined_gap(joined_bytes, line_bytes)
    return apart and layout.row_pitch > joined_bytes


@dataclass(frozen=True)
class Grid:
    """The pixels of a tensor, or of a storage that windows are cut from, in bytes.

    Attributes
    ----------
    row_pitch, pixel_pitch : int
        Those of the largest tensor.
    line_bytes : int
        What commands read and write as a whole.
    base : int
        Byte address of its first pixel.
    """

    row_pitch: int
    pixel_pitch: int
    line_bytes: int
    base: int = 0


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Rows ``y_first`` to ``y_end - 1`` of channels from ``channel_first`` on, on chip.

    Attributes
    ----------
    base : int
        Byte address of channel `channel_first` of pixel (y_first, 0).
    y_first, y_end : int
        Rows of the tensor that are here.
    channel_first : int
        First channel that is here, a multiple of the line.
    layout : ActLayout
        Pitches; its columns and channels are those of the slab.
    x_first : int
        First column that is here.
    grid : Grid or None
        What tells its bytes from those of other parts of the same tensor; None for what is not
        there as a whole, and where pixels are no whole lines.
    """

    base: int
    y_first: int
    y_end: int
    channel_first: int
    layout: ActLayout
    x_first: int = 0
    grid: Grid | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes it covers."""
        return self.layout.size_bytes(self.y_end - self.y_first)

    @property
    def x_end(self) -> int:
        """The first column behind those that are here."""
        return self.x_first + self.layout.width

    def address(self, y: int, x: int | None = None, channel: int | None = None) -> int:
        """Byte address of a tensor's pixel; also outside the slab, where it may be negative."""
        channel = self.channel_first if channel is None else channel
        x = self.x_first if x is None else x
        return (
            self.base
            + (y - self.y_first) * self.layout.row_pitch
            + (x - self.x_first) * self.layout.pixel_pitch
            + (channel - self.channel_first) * self.layout.element_bytes
        )

    def rows(self, y_first: int, y_end: int) -> Slab:
        """Return the part with fewer rows."""
        assert self.y_first <= y_first < y_end <= self.y_end, "rows that are not on chip"
        return replace(self, base=self.address(y_first), y_first=y_first, y_end=y_end)

    def channels(self, first: int, end: int) -> Slab:
        """Return the part with fewer channels; those behind the last one are left out."""
        end = min(end, self.channel_first + self.layout.channels)
        assert self.channel_first <= first < end, "channels that are not on chip"
        layout = replace(self.layout, channels=end - first)
        base = self.address(self.y_first, self.x_first, first)
        return replace(self, base=base, channel_first=first, layout=layout)

    @property
    def footprint(self) -> Footprint:
        """The bytes it covers, up to the end of the last line."""
        if self.grid is None:
            return Footprint(Place.ACT, self.base, self.base + self.size_bytes)
        # Behind the channels of the last pixel is what belongs to others.
        last = self.address(self.y_end - 1, self.x_end - 1)
        end = last + round_up(self.layout.pixel_bytes, self.grid.line_bytes)
        return Footprint(Place.ACT, self.base, end, self._part(self.grid))

    def _part(self, grid: Grid) -> Part | None:
        """Return its place on the grid; None if its pixels are not in straight rows there."""
        layout, height = self.layout, self.y_end - self.y_first
        y, rest = divmod(self.base - grid.base, grid.row_pitch)
        x, byte = divmod(rest, grid.pixel_pitch)
        rows, odd_row = divmod(layout.row_pitch if height > 1 else 0, grid.row_pitch)
        columns, odd_pixel = divmod(layout.pixel_pitch if layout.width > 1 else 0, grid.pixel_pitch)
        rows, columns = rows * (height - 1), columns * (layout.width - 1)
        end = round_up(byte + layout.pixel_bytes, grid.line_bytes)
        if odd_row or odd_pixel or rest + columns * grid.pixel_pitch >= grid.row_pitch:
            return None
        if end > grid.pixel_pitch:
            return None  # several of the grid's pixels are one of its own
        return Part(
            (grid.base, grid.row_pitch, grid.pixel_pitch),
            ((y, y + rows + 1), (x, x + columns + 1), (byte, end)),
        )


@dataclass(frozen=True, kw_only=True)
class MemoryHome:
    """A tensor in system memory, rows one after the other without gaps.

    Attributes
    ----------
    region, offset : Region, int
        Where its first byte is.
    width : int
        Pixels of a row.
    pixel_bytes : int
        Bytes of a pixel's channels.
    pixel_pitch : int
        Bytes from pixel to pixel: `pixel_bytes` (dense), or padded to whole lines.
    own_bytes : int, optional
        How many of them may be overwritten; all, unless it is a part of a larger tensor.
    """

    region: Region
    offset: int
    width: int
    pixel_bytes: int
    pixel_pitch: int
    own_bytes: int | None = None

    @property
    def row_pitch(self) -> int:
        """Bytes from row to row."""
        return self.width * self.pixel_pitch

    def size_bytes(self, height: int) -> int:
        """Bytes of `height` rows."""
        return height * self.row_pitch


def transfer_step(kind: type[Load] | type[Store], slab: Slab, home: MemoryHome, layer: int) -> Step:
    """Return the command that moves a slab's bytes from (`Load`) or to (`Store`) memory.

    Runs are as long as the two layouts allow: all rows, a row, or the channels of a pixel.
    """
    layout = slab.layout
    height, width = slab.y_end - slab.y_first, layout.width
    first_byte = slab.channel_first * layout.element_bytes
    mem_addr = home.offset + slab.y_first * home.row_pitch + first_byte
    mem_addr += slab.x_first * home.pixel_pitch
    # Padded channels are copied along where both sides have them: whole lines are faster.
    own_bytes = home.pixel_pitch if home.own_bytes is None else home.own_bytes
    run = min(layout.pixel_pitch, own_bytes - first_byte)
    if width == 1 or run == layout.pixel_pitch == home.pixel_pitch:
        run *= width
        span = run
        if height == 1 or layout.row_pitch == home.row_pitch == run:
            fields = {"row_bytes": run * height}
        else:
            fields = {
                "row_bytes": run,
                "n1": height,
                "mem_stride1": home.row_pitch,
                "sram_stride1": layout.row_pitch,
            }
    else:
        span = (width - 1) * home.pixel_pitch + run
        fields = {
            "row_bytes": run,
            "n1": width,
            "mem_stride1": home.pixel_pitch,
            "sram_stride1": layout.pixel_pitch,
            "n2": height,
            "mem_stride2": home.row_pitch,
            "sram_stride2": layout.row_pitch,
        }
    command = kind(
        region=int(home.region),
        space=int(Space.ACT),
        mem_addr=mem_addr,
        sram_addr=slab.base,
        **fields,
    )
    mem_end = mem_addr + (height - 1) * home.row_pitch + span
    memory = Footprint(Place.of_region(home.region), mem_addr, mem_end)
    chip = slab.footprint
    if kind is Load:
        return Step(command=command, reads=(memory,), writes=(chip,), layer=layer)
    return Step(command=command, reads=(chip,), writes=(memory,), layer=layer)
