"""Cutting a work into stripes of rows and groups of channels when its tensors are in memory.

A *stripe* is a range of output rows, a *group* a range of output channel tiles. For each group, for
each stripe: load the rows of the inputs that it needs, compute, store. Stripe buffers come in pairs
where there is room, so that the next stripe is loaded while this one is computed.

Operators that treat channels alone load only a group's channels. Dense convolutions load all
input channels for every group: with few groups the input is read again and again, with few
stripes the weights are; which costs less is a matter of sizes, so candidates are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, round_up, split
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.place.layout import ActLayout, act_layout
from celosia.sw.compiler.place.mapping import ConvMapping
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
    cost_bytes : float
        Estimated traffic.
    """

    stripes: tuple[Range, ...]
    groups: tuple[Range, ...]
    buffers: int
    in_layouts: tuple[ActLayout, ...]
    out_layout: ActLayout
    in_bytes: tuple[int, ...]
    out_bytes: int
    mapping: ConvMapping | None
    phases: PhaseMapping | None
    cost_bytes: float

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
    return sorted(candidates, key=lambda tiling: tiling.cost_bytes)


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
) -> Tiling:
    line = config.line_bytes
    channels = output.layout.channels
    n_oc = ceil_div(channels, line)
    stripes, groups = split(output.height, rows), split(n_oc, tiles)
    group_channels = min(tiles * line, round_up(channels, line))
    # A streamed operand has the channels of a group, unless it is what a dense kernel sums over.
    in_layouts, in_bytes = [], []
    traffic = 0.0
    for operand, tensor in enumerate(inputs):
        alone = work.per_channel or operand > 0
        if resident[operand]:
            in_layouts.append(tensor.layout)
            in_bytes.append(0)
            continue
        layout = _stripe_layout(tensor.layout, group_channels if alone else None, config)
        ranges = [work.input_rows(operand, tensor.height, stripe) for stripe in stripes]
        height = max(end - first for first, end in ranges)
        in_layouts.append(layout)
        in_bytes.append(round_up(layout.size_bytes(height), line))
        loaded = sum(end - first for first, end in ranges) * tensor.layout.row_pitch
        traffic += loaded * (1 if alone else len(groups))
    out_layout, out_bytes = output.layout, 0
    if not resident[-1]:
        out_layout = _stripe_layout(output.layout, group_channels, config)
        out_bytes = round_up(out_layout.size_bytes(rows), line)
        traffic += output.height * output.layout.row_pitch
    mapping = phases = None
    # What is loaded may be all constants, without an input.
    in_height = inputs[0].height if inputs else 0
    image = in_height, (output.height, output.layout.width)
    if work.kind.phases is not None:
        phases = work.kind.phases(work.op, in_layouts[0], *image, config)
        traffic += n_oc * phases.tile_weight_bytes(config) * len(stripes)
    if work.kind.map is not None:
        mapping = work.kind.map(work.op, in_layouts[0], *image, config)
        weight_bytes = mapping.tile_weight_bytes(config)
        kept = tiles * weight_bytes <= config.wgt_bytes
        traffic += n_oc * weight_bytes * (1 if kept else len(stripes))
    units = len(stripes) * len(groups)
    if buffers == 1 and units > 1:
        traffic *= SINGLE_BUFFER_FACTOR
    return Tiling(
        stripes=stripes,
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


def _stripe_layout(tensor: ActLayout, group_channels: int | None, config: NpuConfig) -> ActLayout:
    packed = tensor.pixel_pitch % config.line_bytes != 0
    if packed:
        return tensor
    channels = tensor.channels if group_channels is None else min(group_channels, tensor.channels)
    odd = tensor.row_pitch > tensor.width * tensor.pixel_pitch
    wants_odd = odd or tensor.row_pitch // config.line_bytes % 2 == 1
    return act_layout(
        tensor.width,
        channels,
        config.line_bytes,
        odd_rows=wants_odd,
        element_bytes=tensor.element_bytes,
    )
