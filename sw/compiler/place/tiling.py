"""Cutting a work into stripes of rows and groups of channels when its tensors are in memory.

A *stripe* is a range of output rows, a *group* a range of output channel tiles. For each group, for
each stripe: load the rows of the inputs that it needs, compute, store. Stripe buffers come in pairs
where there is room, so that the next stripe is loaded while this one is computed.

Where not even one row fits, stripes are cut into ranges of columns as well. Where the window of one
output does not fit, the array sums it up in *parts* of the kernel: for each part, load what it
needs of the input and go on in the same accumulators.

Operators that treat channels alone load only a group's channels. Dense convolutions load all
input channels for every group: with few groups the input is read again and again, with few
stripes the weights are; which costs less is a matter of sizes, so candidates are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, round_up, sparse_sizes, split
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.place.layout import ActLayout, act_layout
from celosia.sw.compiler.place.mapping import ConvMapping
from celosia.sw.compiler.place.parts import KernelPart, kernel_parts
from celosia.sw.compiler.place.phases import PhaseMapping
from celosia.sw.compiler.place.storage import TensorLayout
from celosia.sw.compiler.place.works import Work

__all__ = ["Tiling", "tilings"]

UNIT_OVERHEAD_BYTES = 400
"""What a unit costs beside its data, in bytes of bus traffic: fetching commands, start-up."""
SINGLE_BUFFER_FACTOR = 1.5
"""How much worse traffic is that no computing hides."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How a work is cut.

    Attributes
    ----------
    stripes : tuple of (int, int)
        Output rows of each stripe.
    columns : tuple of (int, int)
        Output columns of the pieces of each stripe.
    groups : tuple of (int, int)
        Output channel tiles of each group.
    buffers : int
        Buffers of every streamed operand, 1 or 2.
    in_layouts, out_layout
        Layouts on chip: of the whole tensor for a resident operand, else of its stripes.
    in_bytes, out_bytes
        Bytes of one buffer; 0 for a resident operand.
    mapping : ConvMapping or None
        How the array computes it, if it does.
    phases : PhaseMapping or None
        Likewise, if it is several convolutions.
    parts : tuple of KernelPart
        Parts in which the window is summed up; none: at once.
    cost_bytes : float
        Estimated traffic.
    """

    stripes: tuple[Range, ...]
    columns: tuple[Range, ...]
    groups: tuple[Range, ...]
    buffers: int
    in_layouts: tuple[ActLayout, ...]
    out_layout: ActLayout
    in_bytes: tuple[int, ...]
    out_bytes: int
    mapping: ConvMapping | None
    phases: PhaseMapping | None
    cost_bytes: float
    parts: tuple[KernelPart, ...] = ()

    @property
    def units(self) -> int:
        """How many times something is loaded, computed and stored."""
        return len(self.stripes) * len(self.columns) * len(self.groups)

    @property
    def buffer_sizes(self) -> list[int]:
        """Bytes of all buffers: those of input 0, input 1, the output; resident ones have none."""
        return [size for size in (*self.in_bytes, self.out_bytes) if size] * self.buffers


def tilings(
    work: Work,
    inputs: list[TensorLayout],
    output: TensorLayout,
    resident: list[bool],
    config: NpuConfig,
) -> list[Tiling]:
    """Return the ways to cut a work, the cheapest first.

    Parameters
    ----------
    work : Work
        What is cut.
    inputs, output : TensorLayout
        Its tensors.
    resident : list of bool
        Whether each input, and last the output, is on chip as a whole.
    config : NpuConfig
        The machine.
    """
    if work.kind.placement is Placement.VIEW or work.kind.packed:
        return []
    if work.kind.placement is Placement.LOADED:
        resident = [True] * len(inputs) + resident[-1:]  # or rather: never on their way
    for operand in work.in_memory:
        resident = [*resident[:operand], True, *resident[operand + 1 :]]
    line = config.line_bytes
    n_oc = ceil_div(output.layout.channels, line)
    candidates = []
    if all(resident):
        return [_tiling(work, inputs, output, resident, config, output.height, n_oc, 1)]
    for tiles in _group_sizes(work, n_oc):
        for rows in _stripe_heights(output.height):
            for buffers in (1, 2):
                candidates.append(
                    _tiling(work, inputs, output, resident, config, rows, tiles, buffers)
                )
    if work.kind.columns is not None and not _any_fits(candidates, config):
        candidates += _with_columns(work, inputs, output, resident, config)
    if work.kind.map is not None and not resident[0] and not _any_fits(candidates, config):
        candidates += _with_parts(work, inputs, output, resident, config)
    return sorted(candidates, key=lambda tiling: tiling.cost_bytes)


def _any_fits(candidates: list[Tiling], config: NpuConfig) -> bool:
    return any(sum(tiling.buffer_sizes) <= config.act_bytes for tiling in candidates)


def _with_columns(
    work: Work,
    inputs: list[TensorLayout],
    output: TensorLayout,
    resident: list[bool],
    config: NpuConfig,
) -> list[Tiling]:
    """Return the ways to cut a work whose rows do not fit."""
    n_oc = ceil_div(output.layout.channels, config.line_bytes)
    return [
        _tiling(work, inputs, output, resident, config, rows, tiles, buffers, columns)
        for tiles in _group_sizes(work, n_oc)
        for rows in sparse_sizes(output.height)
        for columns in sparse_sizes(output.layout.width)
        for buffers in (1, 2)
    ]


def _with_parts(
    work: Work,
    inputs: list[TensorLayout],
    output: TensorLayout,
    resident: list[bool],
    config: NpuConfig,
) -> list[Tiling]:
    """Return the ways to sum the windows of single outputs up in parts."""
    width, n_oc = output.layout.width, ceil_div(output.layout.channels, config.line_bytes)
    found = []
    for columns in dict.fromkeys((width, 1)):
        for tiles in _group_sizes(work, n_oc):
            one = _tiling(work, inputs, output, resident, config, 1, tiles, 1, columns)
            one = replace(one, mapping=_dense_mapping(work, inputs[0], output, columns, config))
            assert one.mapping is not None, "the array computes it"
            for parts in kernel_parts(one.mapping, inputs[0].layout.pixel_pitch, config):
                found.append(_in_parts(inputs[0], one, parts, config))
    return found


def _dense_mapping(
    work: Work, source: TensorLayout, output: TensorLayout, columns: int, config: NpuConfig
) -> ConvMapping:
    """Return the mapping of a kernel that comes in parts: its rows are not joined."""
    layout = source.layout
    if layout.pixel_pitch % config.line_bytes:
        layout = replace(layout, row_pitch=layout.width * layout.pixel_pitch)
    assert work.kind.map is not None, "the array computes it"
    mapping: ConvMapping = work.kind.map(
        work.op, layout, source.height, (output.height, columns), config
    )
    return mapping


def _in_parts(
    source: TensorLayout,
    whole: Tiling,
    parts: tuple[KernelPart, ...],
    config: NpuConfig,
) -> Tiling:
    """Return a tiling whose input comes in parts."""
    assert whole.mapping is not None, "the array computes it"
    op = whole.mapping.op
    height = width = channels = 1
    for part in parts:
        height = max(height, (part.rows[1] - part.rows[0] - 1) * op.dilation_h + 1)
        width = max(width, (part.columns[1] - part.columns[0] - 1) * op.dilation_w + 1)
        channels = max(channels, part.channels[1] - part.channels[0])
    outputs = max(end - first for first, end in whole.columns)
    layout = whole.in_layouts[0]
    packed = layout.pixel_pitch % config.line_bytes != 0
    layout = act_layout(
        min(layout.width, width + (outputs - 1) * op.stride_w),
        min(layout.channels, channels),
        config.line_bytes,
        packed=packed,
    )
    size = round_up(layout.size_bytes(min(height, source.height)), config.line_bytes)
    loads = len(parts) * len(whole.groups) * len(whole.stripes) * len(whole.columns)
    return replace(
        whole,
        in_layouts=(layout, *whole.in_layouts[1:]),
        in_bytes=(size, *whole.in_bytes[1:]),
        parts=parts,
        cost_bytes=whole.cost_bytes + loads * UNIT_OVERHEAD_BYTES,
    )


def _stripe_heights(height: int) -> Iterator[int]:
    last = 0
    for count in range(1, height + 1):
        rows = ceil_div(height, count)
        if rows != last:
            yield rows
            last = rows


def _group_sizes(work: Work, n_oc: int) -> list[int]:
    if not work.kind.grouped:
        return [n_oc]
    sizes = {ceil_div(n_oc, 1 << k) for k in range(n_oc.bit_length() + 1)}
    return sorted(sizes, reverse=True)


def _tiling(
    work: Work,
    inputs: list[TensorLayout],
    output: TensorLayout,
    resident: list[bool],
    config: NpuConfig,
    rows: int,
    tiles: int,
    buffers: int,
    columns: int | None = None,
) -> Tiling:
    line = config.line_bytes
    channels = output.layout.channels
    n_oc = ceil_div(channels, line)
    stripes, groups = split(output.height, rows), split(n_oc, tiles)
    width = output.layout.width
    piece = width if columns is None else columns
    pieces = split(width, piece)
    group_channels = min(tiles * line, round_up(channels, line))
    # A streamed operand has the channels of a group, unless it is what a dense kernel sums over.
    in_layouts, in_bytes = [], []
    traffic = 0.0
    for operand, tensor in enumerate(inputs):
        alone = work.per_channel or operand > 0
        if operand in work.in_memory:
            traffic += tensor.height * tensor.layout.row_pitch * len(stripes)
        if resident[operand]:
            in_layouts.append(tensor.layout)
            in_bytes.append(0)
            continue
        widest, loaded_columns = _needed(
            work, operand, tensor.layout.width, (width, piece), along_rows=True
        )
        layout = _stripe_layout(
            tensor.layout,
            group_channels if alone else None,
            config,
            width=tensor.layout.width if len(pieces) == 1 else widest,
        )
        height, loaded_rows = _needed(
            work, operand, tensor.height, (output.height, rows), along_rows=False
        )
        in_layouts.append(layout)
        in_bytes.append(round_up(layout.size_bytes(height), line))
        loaded = loaded_rows * tensor.layout.row_pitch
        if len(pieces) > 1:
            loaded = loaded * loaded_columns // tensor.layout.width
        traffic += loaded * (1 if alone else len(groups))
    out_layout, out_bytes = output.layout, 0
    if not resident[-1]:
        out_layout = _stripe_layout(output.layout, group_channels, config, width=piece)
        out_bytes = round_up(out_layout.size_bytes(rows), line)
        traffic += output.height * output.layout.row_pitch
    mapping = phases = None
    # What is made of constants alone has no input.
    height, size = inputs[0].height if inputs else 0, (output.height, piece)
    if work.kind.phases is not None:
        phases = work.kind.phases(work.op, in_layouts[0], height, size, config)
        traffic += n_oc * phases.tile_weight_bytes(config) * len(stripes)
    if work.kind.map is not None:
        mapping = work.kind.map(work.op, in_layouts[0], height, size, config)
        weight_bytes = mapping.tile_weight_bytes(config)
        kept = tiles * weight_bytes <= config.wgt_bytes
        traffic += n_oc * weight_bytes * (1 if kept else len(stripes) * len(pieces))
    units = len(stripes) * len(pieces) * len(groups)
    if buffers == 1 and units > 1:
        traffic *= SINGLE_BUFFER_FACTOR
    return Tiling(
        stripes=stripes,
        columns=pieces,
        groups=groups,
        buffers=min(buffers, units),
        in_layouts=tuple(in_layouts),
        out_layout=out_layout,
        in_bytes=tuple(in_bytes),
        out_bytes=out_bytes,
        mapping=mapping,
        phases=phases,
        cost_bytes=traffic + units * UNIT_OVERHEAD_BYTES,
    )


@lru_cache(maxsize=256)
def _needed(
    work: Work, operand: int, size: int, outputs: tuple[int, int], *, along_rows: bool
) -> tuple[int, int]:
    """Return the most columns (or rows) of an input that a part needs, and their sum.

    Parameters
    ----------
    work, operand
        Which input.
    size : int
        Its columns (or rows).
    outputs : (int, int)
        Those of the output, and of a part of these.
    along_rows : bool
        Columns, not rows.
    """
    needed = work.input_columns if along_rows else work.input_rows
    ranges = [needed(operand, size, part) for part in split(*outputs)]
    lengths = [end - first for first, end in ranges]
    return max(lengths), sum(lengths)


def _stripe_layout(
    tensor: ActLayout, group_channels: int | None, config: NpuConfig, *, width: int
) -> ActLayout:
    packed = tensor.pixel_pitch % config.line_bytes != 0
    if packed:
        # Rows that are apart for windows that join them stay so, modulo a line of each bank.
        apart = 0 if tensor.is_dense else tensor.row_pitch - width * tensor.pixel_pitch
        apart %= config.act_banks * config.line_bytes
        return replace(tensor, width=width, row_pitch=width * tensor.pixel_pitch + apart)
    channels = tensor.channels if group_channels is None else min(group_channels, tensor.channels)
    odd = tensor.row_pitch > tensor.width * tensor.pixel_pitch
    wants_odd = odd or tensor.row_pitch // config.line_bytes % 2 == 1
    return act_layout(
        width,
        channels,
        config.line_bytes,
        odd_rows=wants_odd,
        element_bytes=tensor.element_bytes,
    )
