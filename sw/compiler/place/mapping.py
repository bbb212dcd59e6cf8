"""How a convolution is laid onto the array: mode, passes and the order of the weights.

Four ways (see docs/machine.md):

* ``WINDOW``: dense convolutions. A pass takes `rows` bytes of every window. In a packed tensor,
  whose pixels follow one another without padding, a kernel row is one run of bytes and a pass
  takes any `rows` of them; otherwise a pass takes `rows` channels of one tap.
* ``JOINED``: as ``WINDOW`` with packed tensors, but a pass takes bytes of two kernel rows, so that
  27 bytes of a 3x3 kernel of three channels are four passes of 8, not six.
* ``TAPS``: depthwise, `rows` taps along the stream at a time.
* ``ROWS``: depthwise, up to three taps along the stream of up to three kernel rows at a time. The
  stream may go by strides, in a pass for each *phase*: the even pixels meet taps 0 and 2 of a
  kernel row, the odd ones tap 1, and no position is streamed that is no output.

Depthwise streams run along the image's rows, or (*swapped*) along its columns: a 15 x 1 kernel
has its taps there, and a long narrow image wastes less on padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Mode
from celosia.sw.compiler.arithmetic.whole import ceil_div, round_up
from celosia.sw.compiler.ir import ConvOp, MatmulOp
from celosia.sw.compiler.place.layout import ActLayout, joins
from celosia.sw.compiler.place.limits import MAX_STRIDE, most

__all__ = [
    "Axis",
    "ConvMapping",
    "ROWS_TAPS",
    "conv_axes",
    "joined_passes",
    "joined_run",
    "map_conv",
    "pack_parameters",
    "shared_requantisation",
    "pack_weights",
]

ROWS_TAPS = 3
"""Taps of a segment in mode ROWS."""
STREAM_POSITIONS = 64
"""What a command costs, in positions of a stream; only to choose a mapping."""
LEAST_TILES = 4
"""As many tiles' weights fit on chip at least where rows are joined."""
FAR_STREAM = 1000
"""How much worse a stream is whose positions are too far apart for commands."""


@dataclass(frozen=True)
class Axis:
    """One direction of a convolution, in pixels."""

    kernel: int
    stride: int
    pad_before: int
    size: int
    out_size: int

    def stream(self, first: int, count: int) -> tuple[int, int]:
        """Return positions to stream for outputs `first` to ``first + count - 1``.

        Returns
        -------
        length : int
            Positions of a row that its successor does not share.
        extra : int
            Positions that a row shares with the next: its last ones and the next row's first
            ones are all padding. They are streamed once more after the last row.
        """
        start = first * self.stride - self.pad_before
        full = (count - 1) * self.stride + self.kernel
        before = max(0, -start)
        after = max(0, start + full - self.size)
        shared = min(before, after, full - 1, 15)
        # The last output must begin inside the row.
        shared = min(shared, full - 1 - (count - 1) * self.stride)
        return full - shared, shared

    def of_taps(self, count: int, taps: int) -> int:
        """Return the positions that some of the kernel's taps need for `count` outputs."""
        return (count - 1) * self.stride + taps

    def of_pass(self, first: int, count: int, taps: int) -> tuple[int, int]:
        """Return what a pass over `taps` of the kernel's taps streams, as `stream` does.

        Where the kernel takes several passes, each streams what its own taps need if that is no
        more; rows then share nothing.
        """
        length, extra = self.stream(first, count)
        own = self.of_taps(count, taps)
        return (own, 0) if self.kernel > taps and own <= length else (length, extra)


@dataclass(frozen=True, kw_only=True)
class ConvMapping:
    """The passes of one convolution.

    Attributes
    ----------
    op : ConvOp
        The convolution.
    mode : Mode
        How the array's rows are fed.
    packed : bool
        A kernel row is one run of bytes (WINDOW, JOINED).
    swapped : bool
        The stream runs along the columns (TAPS, ROWS).
    n_ky, n_kx, n_ic : int
        Loops of passes.
    ky_rows : int
        Rows of the input from pass to pass of the kernel's rows; in mode ROWS kernel rows of a
        pass.
    reach_bytes : int
        Bytes of a row of the input from the first to the last that a window takes.
    run_bytes : int
        Bytes of the kernel that a pass takes (JOINED).
    phases : int
        Passes along the stream (ROWS): each takes pixels that are so many apart; 1: all of them.
    """

    op: ConvOp
    mode: Mode
    packed: bool = False
    swapped: bool = False
    n_ky: int
    n_kx: int
    n_ic: int
    ky_rows: int = 1
    reach_bytes: int = 0
    run_bytes: int = 0
    phases: int = 1

    @property
    def passes(self) -> int:
        """Weight matrices of a tile of output channels."""
        return self.n_ky * self.n_kx * self.n_ic

    @property
    def fits_command(self) -> bool:
        """Whether one `Conv` can count its passes, and reach what an output takes."""
        loops = {
            "n_ky": self.n_ky,
            "n_kx": self.n_kx,
            "n_ic": self.n_ic,
            "ky_rows": self.ky_rows,
        }
        reaches = self.reach_bytes <= most(Conv, "x0") and (self.n_ky - 1) * self.ky_rows <= most(
            Conv, "y0"
        )
        return reaches and all(count <= most(Conv, name) for name, count in loops.items())

    def tile_weight_bytes(self, config: NpuConfig) -> int:
        """Bytes of the weights of a tile of output channels."""
        return self.passes * config.rows * config.cols

    def describe(self, *, folded_input: bool) -> str:
        """Say it in words, for reports."""
        op = self.op
        kernel = f"{op.kernel_h}x{op.kernel_w}"
        if not folded_input and max(op.dilation_h, op.dilation_w) > 1:
            kernel += f" dilated {op.dilation_h}x{op.dilation_w}"
        if self.mode == Mode.JOINED:
            how = f"window {kernel}, rows joined"
        elif self.mode == Mode.WINDOW:
            folded = " of the folded input" if folded_input else ""
            how = f"window {kernel}{folded}, {'packed kx*C' if self.packed else 'channels'}"
        else:
            kind = f"rows x{self.ky_rows}" if self.mode == Mode.ROWS else "taps"
            kind += f" by {self.phases} phases" if self.phases > 1 else ""
            how = f"depthwise {kernel}, {kind}{', along columns' if self.swapped else ''}"
        return f"{how}, {self.passes} passes"


def conv_axes(op: ConvOp, in_size: tuple[int, int], out_size: tuple[int, int]) -> tuple[Axis, Axis]:
    """Return the axes along height and width."""
    return (
        Axis(op.kernel_h, op.stride_h, op.pad_top, in_size[0], out_size[0]),
        Axis(op.kernel_w, op.stride_w, op.pad_left, in_size[1], out_size[1]),
    )


def map_conv(
    op: ConvOp,
    layout: ActLayout,
    in_height: int,
    out_size: tuple[int, int],
    config: NpuConfig,
) -> ConvMapping:
    """Choose the mapping with the fewest array cycles for an input of a given layout.

    Parameters
    ----------
    op : ConvOp
        The convolution.
    layout : ActLayout
        The input on chip.
    in_height : int
        Rows of the input.
    out_size : tuple of int
        Rows and columns of the output.
    config : NpuConfig
        The machine.
    """
    size = config.rows
    if not op.depthwise:
        packed = layout.pixel_pitch % size != 0
        row_bytes = op.kernel_w * layout.pixel_pitch
        passes = joined_passes(op, layout.pixel_pitch, config)
        if passes is not None and _fits_joined(layout, row_bytes, in_height, config):
            return ConvMapping(
                op=op,
                mode=Mode.JOINED,
                packed=True,
                n_ky=1,
                n_kx=1,
                n_ic=passes,
                reach_bytes=row_bytes,
                run_bytes=joined_run(op.kernel_h, row_bytes, size),
            )
        if packed:
            return ConvMapping(
                op=op,
                mode=Mode.WINDOW,
                packed=True,
                n_ky=op.kernel_h,
                n_kx=1,
                n_ic=ceil_div(row_bytes, size),
                ky_rows=op.dilation_h if op.kernel_h > 1 else 1,
                reach_bytes=row_bytes,
            )
        return ConvMapping(
            op=op,
            mode=Mode.WINDOW,
            n_ky=op.kernel_h,
            n_kx=op.kernel_w,
            n_ic=ceil_div(op.cin, size),
            ky_rows=op.dilation_h if op.kernel_h > 1 else 1,
            reach_bytes=op.reach_w * layout.pixel_pitch,
        )
    axes = conv_axes(op, (in_height, layout.width), out_size)
    candidates = []
    # Kernel rows that are apart can be counted (ky_rows) across the stream, not along it.
    for swapped in (False, True) if op.dilation_h == 1 else (False,):
        lines, stream = (axes[1], axes[0]) if swapped else axes
        pitch = layout.pixel_pitch if swapped else layout.row_pitch
        length, extra = stream.stream(0, stream.out_size)
        positions = lines.out_size * length + extra
        length, extra = stream.of_pass(0, stream.out_size, size)
        of_taps = lines.out_size * length + extra
        stream_pitch = layout.row_pitch if swapped else layout.pixel_pitch
        if stream.stride > MAX_STRIDE and stream.out_size > 1:
            # A stream for each output.
            alone = lines.out_size * stream.out_size * (stream.kernel + STREAM_POSITIONS)
            positions = of_taps = alone
        if size * stream_pitch > most(Conv, "x0"):
            positions, of_taps = positions * FAR_STREAM, of_taps * FAR_STREAM
        taps = ConvMapping(
            op=op,
            mode=Mode.TAPS,
            swapped=swapped,
            n_ky=lines.kernel,
            n_kx=ceil_div(stream.kernel, size),
            n_ic=1,
            ky_rows=op.dilation_h if lines.kernel > 1 else 1,
            reach_bytes=ceil_div(stream.kernel, size) * size * stream_pitch,
        )
        cycles = taps.passes * max(of_taps, config.min_pass_cycles)
        candidates.append((cycles, swapped, 1, taps))
        if lines.kernel == 1 or op.dilation_h > 1 or pitch // size % 2 == 0:
            continue
        for phases in dict.fromkeys((1, stream.stride)):
            of_phase = ceil_div(stream.kernel, phases)
            segments = range(config.dw_segments)
            ky_rows = sum(config.segment_taps(segment) >= of_phase for segment in segments)
            far = phases * stream_pitch > most(Conv, "step_x")
            if of_phase > ROWS_TAPS or ky_rows < 2 or (far and phases > 1):
                continue
            if phases > 1:
                positions = lines.out_size * (stream.out_size - 1 + of_phase)
            rows = ConvMapping(
                op=op,
                mode=Mode.ROWS,
                swapped=swapped,
                n_ky=ceil_div(lines.kernel, ky_rows),
                n_kx=phases,
                n_ic=1,
                ky_rows=ky_rows,
                reach_bytes=ROWS_TAPS * phases * stream_pitch,
                phases=phases,
            )
            candidates.append(
                (rows.passes * max(positions, config.min_pass_cycles), swapped, 0, rows)
            )
    return min(candidates, key=lambda candidate: candidate[:3])[3]


def joined_run(kernel_h: int, row_bytes: int, size: int) -> int:
    """Return how many bytes of a kernel a pass can take that has bytes of two kernel rows.

    Parameters
    ----------
    kernel_h, row_bytes : int
        Rows of the kernel, and bytes of one.
    size : int
        Rows of the array.
    """
    whole = kernel_h * row_bytes

    def reaches(run: int) -> bool:
        return all(
            2 * row_bytes - at % row_bytes >= min(run, whole - at) for at in range(0, whole, run)
        )

    return next(run for run in range(size, 0, -1) if reaches(run))


def joined_passes(op: ConvOp, pixel_bytes: int, config: NpuConfig) -> int | None:
    """Return the passes of a dense convolution in mode JOINED, if its tensor is packed for that.

    Parameters
    ----------
    op : ConvOp
        The convolution.
    pixel_bytes : int
        Of a pixel of its input, one after the other.
    config : NpuConfig
        The machine.

    Returns
    -------
    int or None
        None where there cannot be or need not be joined rows: others take as few.
    """
    row_bytes = op.kernel_w * pixel_bytes
    packs = config.joins_rows and not op.depthwise and pixel_bytes % config.rows != 0
    if not packs or op.kernel_h == 1 or max(op.dilation_h, op.dilation_w) > 1:
        return None
    plain = op.kernel_h * ceil_div(row_bytes, config.rows)
    passes = ceil_div(op.kernel_h * row_bytes, joined_run(op.kernel_h, row_bytes, config.rows))
    # The weights of a tile are loaded as a whole, by one command.
    kept = passes * config.rows * config.cols <= config.wgt_bytes // LEAST_TILES
    return passes if passes < plain and passes <= most(Conv, "n_ic") and kept else None


def _fits_joined(layout: ActLayout, row_bytes: int, in_height: int, config: NpuConfig) -> bool:
    """Whether rows lie as mode JOINED needs them, and a command has room for any part of them."""
    return (
        joins(layout, row_bytes, config.line_bytes)
        and in_height <= most(Conv, "y0")
        and layout.width * layout.pixel_pitch <= most(Conv, "x0")
        and layout.row_pitch <= most(Conv, "row_pitch")
    )


def pack_weights(mapping: ConvMapping, pixel_pitch: int, size: int) -> npt.NDArray[np.int8]:
    """Return the weights in the order in which the array reads them.

    Parameters
    ----------
    mapping : ConvMapping
        The convolution and its passes.
    pixel_pitch : int
        Bytes from pixel to pixel of the input; for packed windows.
    size : int
        Rows and columns of the array.

    Returns
    -------
    ndarray of int8, shape [tiles of output channels, passes, size, size]
        One matrix a pass: a line for each array row, a byte for each column.
    """
    op = mapping.op
    if op.depthwise:
        return _pack_depthwise(mapping, size)
    kh, kw, cin, cout = op.weights.shape
    n_oc = ceil_div(cout, size)
    if mapping.packed:
        # Kernel rows one by one, or joined; a pass takes so many bytes.
        joined = mapping.mode == Mode.JOINED
        pieces, taken = (1, mapping.run_bytes) if joined else (kh, size)
        padded = np.zeros((kh, kw, pixel_pitch, cout), np.int8)
        padded[:, :, :cin] = op.weights
        kernel = padded.reshape(pieces, -1, cout)
        flat = np.zeros((pieces, mapping.n_ic * taken, n_oc * size), np.int8)
        flat[:, : kernel.shape[1], :cout] = kernel
        runs = np.zeros((mapping.passes, size, n_oc * size), np.int8)
        runs[:, :taken] = flat.reshape(mapping.passes, taken, -1)
    else:
        runs = np.zeros((kh * kw, mapping.n_ic * size, n_oc * size), np.int8)
        runs[:, :cin, :cout] = op.weights.reshape(kh * kw, cin, cout)
    matrices = runs.reshape(-1, size, n_oc, size).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(matrices)


def _pack_depthwise(mapping: ConvMapping, size: int) -> npt.NDArray[np.int8]:
    weights = mapping.op.weights
    kernel = weights.transpose(1, 0, 2) if mapping.swapped else weights
    lines, taps, channels = kernel.shape
    n_oc = ceil_div(channels, size)
    if mapping.mode == Mode.ROWS:
        matrices = np.zeros((mapping.n_ky, mapping.phases, size, n_oc * size), np.int8)
        for line in range(lines):
            for tap in range(taps):
                row = ROWS_TAPS * (line % mapping.ky_rows) + tap // mapping.phases
                place = matrices[line // mapping.ky_rows, tap % mapping.phases, row]
                place[:channels] = kernel[line, tap]
    else:
        matrices = np.zeros((lines, mapping.n_kx * size, n_oc * size), np.int8)
        matrices[:, :taps, :channels] = kernel
    tiles = matrices.reshape(-1, size, n_oc, size).transpose(2, 0, 1, 3)
    return np.ascontiguousarray(tiles)


def shared_requantisation(op: ConvOp | MatmulOp) -> bool:
    """Whether all output channels have one multiplier and one right shift: quantised per tensor."""
    return bool(
        (op.multiplier == op.multiplier[0]).all()
        and (op.shift == op.shift[0]).all()
        and -31 <= op.shift[0] <= 0
    )


def pack_parameters(
    op: ConvOp | MatmulOp, size: int, *, shared: bool = False
) -> npt.NDArray[np.uint8]:
    """Return the parameter blocks, [tiles of output channels, 9 * size] bytes.

    A block holds bias and multiplier (int32) and shift (int8) of `size` channels, with `shared` the
    bias only; channels that do not exist get zeros.
    """
    channels = round_up(op.cout, size)
    n_oc = channels // size

    def padded(values: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.uint8]:
        full = np.zeros(channels, dtype)
        full[: op.cout] = values
        return full.reshape(n_oc, size).view(np.uint8)

    bias = padded(op.bias, "<i4")
    if shared:
        return bias
    return np.concatenate([bias, padded(op.multiplier, "<i4"), padded(op.shift, "i1")], axis=1)
