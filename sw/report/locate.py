"""From a wrong element back to the command that computed it, by reading the command stream.

A kept tensor lies in system memory. The last `Store` that covers an element's address says where
it was on chip; the last command before it that wrote there computed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from celosia.hw.contract.isa import (
    ADDRESS_MASK,
    Command,
    Conv,
    Load,
    Region,
    Softmax,
    Space,
    Store,
    Transfer,
    Vector,
)
from celosia.sw.program.file import Program
from celosia.sw.program.segments import HostSegment, LayerInfo, NpuSegment, Segment
from celosia.sw.program.tensors import PlacedTensor
from celosia.sw.report.labels import command_label, layer_label

__all__ = ["Origin", "find_origin"]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an element of a tensor comes from.

    Attributes
    ----------
    layer : LayerInfo or None
        The layer that writes the tensor; of one on the host nothing else is known.
    tile, tiles : int or None
        Accumulator tile, counted from 0, and how many the command has; only for convolutions.
    command : int or None
        Index of the command that computed the element.
    kind : str
        That command's name, for example ``Vector REQUANT``.
    conv : int or None
        Index of the `Conv` that filled the tile.
    store : int or None
        Index of the `Store` that moved the element to system memory.
    """

    layer: LayerInfo | None = None
    tile: int | None = None
    tiles: int | None = None
    command: int | None = None
    kind: str = ""
    conv: int | None = None
    store: int | None = None

    def __str__(self) -> str:
        parts = []
        if self.layer is not None:
            where = " on the host" if self.layer.runs_on == "host" else ""
            parts.append(f"layer {layer_label(self.layer)}{where}")
        if self.tile is not None:
            parts.append(f"tile {self.tile} of {self.tiles}")
        if self.command is not None:
            parts.append(f"command {self.command} ({self.kind})")
        if self.conv is not None:
            parts.append(f"fed by command {self.conv} (Conv)")
        if self.store is not None:
            parts.append(f"stored by command {self.store}")
        if self.layer is not None and self.layer.first_tag >= 0:
            parts.append(
                f"the layer's first command is {self.layer.first_tag}, its last"
                f" {self.layer.last_tag}"
            )
        return ", ".join(parts)


def find_origin(program: Program, name: str, index: Sequence[int], op_index: int = -1) -> Origin:
    """Return what computed one element of a tensor that a program leaves to be looked at.

    Parameters
    ----------
    program : Program
        The program that was run.
    name : str
        Of a tensor among its outputs and intermediates.
    index : sequence of int
        The element, in the tensor's shape.
    op_index : int
        Number of the operator in the model that writes the tensor, to find its layer; -1: unknown.
    """
    # What the host made of a tensor is located where that was made.
    name = next((source for source, target in program.conversions if target == name), name)
    if name in {info.name for info in program.inputs}:
        return Origin(layer=None)
    for part in program.host_segments:
        if name in {info.name for info in part.outputs}:
            return Origin(layer=_layer(part, op_index, None))
    segment, tensor = _writer(program, name)
    commands = segment.decode()
    if program.runs > 1:  # the place of the element in its own sample
        index = (index[0] % tensor.info.shape[0], *index[1:])
    address = _memory_address(tensor, index)
    store, sram = _last_transfer(commands, Store, Region[tensor.region], address)
    if store is None or sram is None:
        return Origin(layer=_layer(segment, op_index, None))
    line_bytes = program.config.line_bytes
    for position in range(store - 1, -1, -1):
        command = commands[position]
        tile = _written_tile(command, sram, line_bytes)
        if tile is None:
            continue
        found = Origin(
            layer=_layer(segment, op_index, position),
            command=position,
            kind=command_label(command),
            store=store,
        )
        if isinstance(command, Vector) and command.reads_acc:
            per_channel_tile = -(-command.out_h // command.tile_rows)
            return Origin(
                layer=found.layer,
                command=found.command,
                kind=found.kind,
                store=found.store,
                tile=tile,
                tiles=command.n_oc * per_channel_tile,
                conv=_feeding_conv(commands, position),
            )
        return found
    return Origin(layer=_layer(segment, op_index, store), store=store)


def _writer(program: Program, name: str) -> tuple[NpuSegment, PlacedTensor]:
    """Return the last segment that leaves a tensor in system memory, and its place there."""
    for segment in reversed(program.npu_segments):
        for tensor in (*segment.outputs, *segment.intermediates):
            if tensor.name == name:
                return segment, tensor
    raise KeyError(f"no segment writes {name!r}")


def _memory_address(tensor: PlacedTensor, index: Sequence[int]) -> int:
    flat = 0
    for size, position in zip(tensor.info.shape, index, strict=True):
        flat = flat * size + position
    _, pixels, channels = tensor.info.extents
    pixel, channel = divmod(flat, channels)
    row, column = divmod(pixel, pixels)
    return (
        tensor.offset
        + row * tensor.row_pitch
        + column * tensor.pixel_pitch
        + channel * tensor.info.item.itemsize
    )


def _last_transfer(
    commands: Sequence[Command], kind: type[Transfer], region: Region, address: int
) -> tuple[int | None, int | None]:
    """Return the last transfer that touches a byte of memory, and that byte's place on chip."""
    for position in range(len(commands) - 1, -1, -1):
        command = commands[position]
        if not isinstance(command, kind) or command.region != region:
            continue
        for outer in range(command.n2):
            for inner in range(command.n1):
                start = command.mem_addr + inner * command.mem_stride1 + outer * command.mem_stride2
                if start <= address < start + command.row_bytes:
                    on_chip = (
                        command.sram_addr
                        + inner * command.sram_stride1
                        + outer * command.sram_stride2
                    )
                    return position, (on_chip + address - start) & ADDRESS_MASK
    return None, None


def _written_tile(command: Command, sram: int, line_bytes: int) -> int | None:
    """Return the tile in which a command writes a byte of ACT (0 without tiles), or None."""
    line = sram // line_bytes
    if isinstance(command, Vector):
        tile_rows = command.tile_rows if command.reads_acc else command.out_h
        tiles_of_oc = -(-command.out_h // max(tile_rows, 1))
        for oc in range(command.n_oc):
            for y in range(command.out_h):
                first = command.d_addr + oc + y * command.d_y
                x, rest = divmod(line - first, command.d_x) if command.d_x else (0, line - first)
                if rest == 0 and 0 <= x < command.out_w:
                    return oc * tiles_of_oc + y // max(tile_rows, 1)
    elif isinstance(command, Softmax):
        lines = -(-command.channels // line_bytes)
        for row in range(command.n_rows):
            if 0 <= line - command.d_addr - row * command.d_y < lines:
                return 0
    elif isinstance(command, Load) and command.space == Space.ACT:
        for outer in range(command.n2):
            for inner in range(command.n1):
                start = (
                    command.sram_addr + inner * command.sram_stride1 + outer * command.sram_stride2
                )
                if (sram - start) & ADDRESS_MASK < command.row_bytes:
                    return 0
    return None


def _feeding_conv(commands: Sequence[Command], position: int) -> int | None:
    """Return the `Conv` whose tiles the accumulator operation at `position` empties.

    Both sides work in program order, one accumulator operation for each `Conv` that hands over.
    """
    turn = sum(command.reads_acc for command in commands[:position])
    handing_over = [
        index
        for index, command in enumerate(commands)
        if isinstance(command, Conv) and not command.hold
    ]
    return handing_over[turn] if turn < len(handing_over) else None


def _layer(segment: Segment, op_index: int, position: int | None) -> LayerInfo | None:
    for layer in segment.layers:
        if op_index >= 0 and layer.origin.index == op_index:
            return layer
    if position is None or isinstance(segment, HostSegment):
        return None
    return segment.layer_of(position)
