"""What lies in the on-chip memories, and when.

Tensors and stripe buffers of the activation SRAM are those of the compiler's plan: from the first
to the last command that touches them. The other memories are filled by LOADs alone: what one has
brought lies there until the last command that reads it before something else is written over it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.isa import Command, Engine, Space
from celosia.sw.profile.attribute import engine_commands
from celosia.sw.profile.profile import Profile, SegmentView
from celosia.sw.profile.spans import CommandSpan
from celosia.sw.program.footprint import Access, accesses, memory_bytes
from celosia.sw.program.segments import NpuSegment

__all__ = ["Block", "Occupancy", "occupancies"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Bytes of an on-chip memory that hold one thing for a time.

    Attributes
    ----------
    what : str
        Names of the tensors, or the kind of the contents.
    first_layer, last_layer : int
        Indices among all layers of the program: the first and the last that use it.
    address, size_bytes : int
        Place in the memory.
    begin, end : int
        Cycles from the first doorbell.
    """

    what: str
    first_layer: int
    last_layer: int
    address: int
    size_bytes: int
    begin: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """One on-chip memory.

    Attributes
    ----------
    memory : str
        Name of a `Space`.
    size_bytes : int
        That it has.
    blocks : list of Block
        By their begin.
    at, used_bytes : ndarray of int64, shape [changes]
        From each cycle on so many bytes hold something; the first is cycle 0.
    """

    memory: str
    size_bytes: int
    blocks: list[Block]
    at: Ints
    used_bytes: Ints

    @property
    def peak_bytes(self) -> int:
        """The most bytes that hold something at one time."""
        return int(self.used_bytes.max(initial=0))

    def mean_bytes(self, cycles: int) -> float:
        """Return the mean over all cycles of the inference."""
        lasts = np.diff(np.append(self.at, cycles))
        return float((self.used_bytes * lasts).sum() / cycles) if cycles else 0.0


def occupancies(profile: Profile) -> list[Occupancy]:
    """Return what the on-chip memories hold in an inference, in the order of `Space`.

    Parameters
    ----------
    profile : Profile
        Measured or predicted.
    """
    config = profile.program.config
    blocks: dict[str, list[Block]] = {space.name: [] for space in Space}
    for view, segment in zip(profile.segments, profile.program.segments, strict=True):
        if not isinstance(segment, NpuSegment):
            continue
        commands = engine_commands(segment)
        touched = [accesses(command, config) for command in commands]
        blocks[Space.ACT.name] += _planned(segment, view, touched)
        for memory, block in _loaded(view, commands, touched):
            blocks[memory].append(block)
    return [
        _occupancy(name, size, sorted(blocks[name], key=lambda block: (block.begin, block.address)))
        for name, size in memory_bytes(config).items()
    ]


def _planned(
    segment: NpuSegment, view: SegmentView, touched: Sequence[Sequence[Access]]
) -> Iterator[Block]:
    """Yield what the compiler has placed in the activation SRAM."""
    by_layer: list[list[int]] = [[] for _ in segment.layers]
    for span in view.commands:
        by_layer[span.layer].append(span.index)
    for entry in segment.memory.plan:
        if entry["memory"] != Space.ACT.name or "first_layer" not in entry:
            continue
        first, last = int(entry["first_layer"]), int(entry["last_layer"])
        address, size = int(entry["address"]), int(entry["bytes"])
        place = Access(
            Space.ACT.name, False, np.array([address], np.int64), np.array([address + size])
        )
        users = [
            view.commands[index]
            for layer in range(first, last + 1)
            for index in by_layer[layer]
            if any(a.memory == Space.ACT.name and a.overlaps(place) for a in touched[index])
        ]
        if users:
            yield Block(
                what=str(entry["what"]),
                first_layer=view.first_layer + first,
                last_layer=view.first_layer + last,
                address=address,
                size_bytes=size,
                begin=view.begin + min(span.start for span in users),
                end=view.begin + max(span.end for span in users),
            )


@dataclass
class _Load:
    """What a LOAD has brought, and the commands that use it so far."""

    access: Access
    spans: list[CommandSpan] = field(default_factory=list)


CONTENTS = {Space.WGT.name: "weights", Space.PARAM.name: "parameters", Space.TABLE.name: "table"}


def _loaded(
    view: SegmentView, commands: Sequence[Command], touched: Sequence[Sequence[Access]]
) -> Iterator[tuple[str, Block]]:
    """Yield what LOADs bring into the memories that nothing else writes."""
    held: dict[str, list[_Load]] = {name: [] for name in CONTENTS}

    def block(load: _Load) -> Block:
        first, end = load.access.bounds
        return Block(
            what=CONTENTS[load.access.memory],
            first_layer=view.first_layer + min(span.layer for span in load.spans),
            last_layer=view.first_layer + max(span.layer for span in load.spans),
            address=first,
            size_bytes=end - first,
            begin=view.begin + load.spans[0].start,
            end=view.begin + max(span.end for span in load.spans),
        )

    for span, command, own in zip(view.commands, commands, touched, strict=True):
        for access in own:
            name = access.memory
            if name not in held:
                continue
            if command.engine is not Engine.LOAD:
                for load in held[name]:
                    if load.access.overlaps(access):
                        load.spans.append(span)
                continue
            left = [_Load(access, [span])]
            for load in held[name]:
                if load.access.overlaps(access):
                    yield name, block(load)
                else:
                    left.append(load)
            held[name] = left
    for name, loads in held.items():
        yield from ((name, block(load)) for load in loads)


def _occupancy(name: str, size: int, blocks: list[Block]) -> Occupancy:
    """Count the bytes in use after each change; two things at one place count once."""
    changes = sorted(
        (time, sign, block.address, block.address + block.size_bytes)
        for block in blocks
        for time, sign in ((block.begin, 1), (block.end, -1))
    )
    held = np.zeros(size, np.int16)
    at, used = [0], [0]
    for time, sign, first, end in changes:
        held[first:end] += sign
        if time != at[-1]:
            at.append(time)
            used.append(0)
        used[-1] = int(np.count_nonzero(held))
    return Occupancy(
        memory=name,
        size_bytes=size,
        blocks=blocks,
        at=np.array(at, np.int64),
        used_bytes=np.array(used, np.int64),
    )
