"""Weights that stay on chip: a program that loads all of them, and one that finds them there.

Made from a compiled program, for networks whose weights fit the weight SRAM. Every load of weights
and parameters gets a place of its own; the program with these loads fills the memories, the one
without them is what a second inference runs. Both are checked for faults, deadlocks and races like
any program of the compiler.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, Conv, Engine, Load, Space, Vector
from celosia.quantities import KIB
from celosia.sw.compiler.cost.engines import predict
from celosia.sw.profile.attribute import command_layers
from celosia.sw.program.file import Program
from celosia.sw.program.footprint import Access, accesses
from celosia.sw.program.segments import NO_LAYER, LayerInfo
from celosia.sw.program.verify import check_program

__all__ = ["NotResidentError", "ResidentPrograms", "make_resident"]

ALIGNMENT_LINES = 8
"""Of each load's place: no command needs more of its weights."""
SPACES = {Space.WGT: "weights", Space.PARAM: "parameters"}


class NotResidentError(CelosiaError):
    """The weights of a network cannot stay on chip; the cause says why."""


@dataclass(frozen=True)
class ResidentPrograms:
    """The two programs of a network that stays on chip.

    Attributes
    ----------
    filling : Program
        Loads all weights; to run once.
    resident : Program
        Without these loads.
    """

    filling: Program
    resident: Program


def make_resident(program: Program) -> ResidentPrograms:
    """Return a program's two variants.

    Parameters
    ----------
    program : Program
        From the compiler.

    Raises
    ------
    NotResidentError
        If the weights or parameters do not fit, or a command reads what several loads brought.
    """
    if len(program.segments) > 1:
        raise NotResidentError(
            f"program {program.model!r}",
            f"it has {len(program.segments)} segments, each of which brings its own weights",
            "leave --resident out",
        )
    commands = [command for command in program.npu.decode() if command.engine is not None]
    placed = _placed(commands, program.config)
    layers = command_layers(program.npu).tolist()
    filling = _with_commands(program, placed, layers)
    kept, kept_layers = [], []
    for command, layer in zip(_without_loads(placed), layers, strict=True):
        if command is not None:
            kept.append(command)
            kept_layers.append(layer)
    resident = _with_commands(program, kept, kept_layers)
    for made in (filling, resident):
        check_program(made)
    return ResidentPrograms(filling, resident)


def _is_weights(command: Command) -> bool:
    return isinstance(command, Load) and command.space in SPACES


def _interval(command: Command, space: Space, config: NpuConfig) -> tuple[int, int] | None:
    """Return the bytes of a memory that a command touches."""
    found: list[Access] = [a for a in accesses(command, config) if a.memory == space.name]
    return found[0].bounds if found else None


def _placed(commands: Sequence[Command], config: NpuConfig) -> list[Command]:
    """Give every weight a place of its own, and tell the commands that read it."""
    line = config.line_bytes
    sizes = {Space.WGT: config.wgt_bytes, Space.PARAM: config.param_bytes}
    next_free = dict.fromkeys(sizes, 0)
    places: dict[tuple[Space, int, int], int] = {}
    # What is where at this point of the program, the latest last: old bytes and new first byte.
    current: dict[Space, list[tuple[int, int, int]]] = {space: [] for space in sizes}
    result: list[Command] = []
    for command in commands:
        if isinstance(command, Load) and command.space in sizes:
            space = Space(command.space)
            bounds = _interval(command, space, config)
            assert bounds is not None
            start, end = bounds
            key = (space, command.mem_addr, end - start)
            if key not in places:
                places[key] = next_free[space]
                next_free[space] += -(-(end - start) // (ALIGNMENT_LINES * line)) * (
                    ALIGNMENT_LINES * line
                )
            current[space].append((start, end, places[key]))
            result.append(replace(command, sram_addr=places[key] + command.sram_addr - start))
        elif isinstance(command, Conv):
            moved = _moved(command, Space.WGT, current, config)
            result.append(replace(command, wgt_addr=command.wgt_addr + moved // line))
        elif isinstance(command, Vector) and command.reads_acc:
            moved = _moved(command, Space.PARAM, current, config)
            result.append(replace(command, param_addr=command.param_addr + moved // line))
        else:
            result.append(command)
    for space, size in sizes.items():
        if next_free[space] > size:
            raise NotResidentError(
                "resident weights",
                f"{SPACES[space]} need {next_free[space] / KIB:.1f} of {size / KIB:g} KiB",
                "use a configuration with larger memories",
            )
    return result


def _moved(
    command: Command,
    space: Space,
    current: dict[Space, list[tuple[int, int, int]]],
    config: NpuConfig,
) -> int:
    """Return by how many bytes what a command reads has moved."""
    bounds = _interval(command, space, config)
    assert bounds is not None
    for start, end, place in reversed(current[space]):
        if start < bounds[1] and bounds[0] < end:
            if start <= bounds[0] and bounds[1] <= end:
                return place - start
            break
    raise NotResidentError(
        "resident weights",
        f"a command reads {SPACES[space]} that several loads brought",
        "measure this network with its loads",
    )


def _without_loads(commands: Sequence[Command]) -> list[Command | None]:
    """Take out the loads of weights, and give their tokens to what they stood for.

    A load that is taken out also stood for every load before it (the engine works in order), so
    who waited for it now waits for the last one before it that stays. Who gave it a token gives
    that to the next one that stays: what a later load overwrites must have been read.
    """
    kept_loads = [
        i
        for i, command in enumerate(commands)
        if command.engine is Engine.LOAD and not _is_weights(command)
    ]
    pairs: set[tuple[int, int]] = set()
    for giver in Engine:
        for taker in Engine:
            found: list[tuple[int, int]] = []
            for signal, wait in _pairs(commands, giver, taker):
                one, other = signal, wait
                if _is_weights(commands[signal]):
                    place = bisect.bisect_left(kept_loads, signal) - 1
                    if place < 0:
                        continue
                    one = kept_loads[place]
                if _is_weights(commands[wait]):
                    place = bisect.bisect_left(kept_loads, wait)
                    if place == len(kept_loads):
                        continue
                    other = kept_loads[place]
                # In order on both sides: of one giver the first taker counts, of one taker the
                # last giver.
                if found and found[-1][0] == one:
                    continue
                if found and found[-1][1] == other:
                    found.pop()
                found.append((one, other))
            pairs |= set(found)
    waits, signals = [0] * len(commands), [0] * len(commands)
    for one, other in pairs:
        source, target = commands[one].engine, commands[other].engine
        assert source is not None
        assert target is not None
        signals[one] |= 1 << target
        waits[other] |= 1 << source
    return [
        None if _is_weights(command) else replace(command, wait=wait, signal=signal)
        for command, wait, signal in zip(commands, waits, signals, strict=True)
    ]


def _pairs(commands: Sequence[Command], giver: Engine, taker: Engine) -> list[tuple[int, int]]:
    """Return giver and taker of each token: the n-th wait takes the n-th signal."""
    signals = [i for i, c in enumerate(commands) if c.engine is giver and c.signal >> taker & 1]
    waits = [i for i, c in enumerate(commands) if c.engine is taker and c.wait >> giver & 1]
    return list(zip(signals, waits, strict=True))


def _with_commands(program: Program, commands: Sequence[Command], layers: list[int]) -> Program:
    """Return a program with other commands; `layers` has the layer of each."""
    tagged = [replace(command, tag=tag) for tag, command in enumerate(commands)]
    prediction = predict(tagged, program.config)
    infos: list[LayerInfo] = []
    done_cycles = 0
    for index, layer in enumerate(program.layers):
        own = [tag for tag, owner in enumerate(layers) if owner == index]
        end_cycles = max((prediction.commands[tag].end for tag in own), default=0)
        infos.append(
            replace(
                layer,
                first_tag=min(own, default=-1),
                last_tag=max(own, default=-1),
                predicted_cycles=max(0, end_cycles - done_cycles),
            )
        )
        done_cycles = max(done_cycles, end_cycles)
    end = replace(program.npu.decode()[-1], tag=len(tagged))
    code = b"".join(command.encode() for command in (*tagged, end))
    return program.with_npu(commands=code, layers=tuple(infos), command_layers=(*layers, NO_LAYER))
