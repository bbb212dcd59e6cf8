"""The static check of a program: legality, ranges, deadlocks and races, before it is run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.errors import ModelError, ProgramError
from celosia.hw.contract.addresses import softmax_lines, vector_lines
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    Command,
    End,
    Engine,
    Load,
    Region,
    Softmax,
    Space,
    Transfer,
    Vector,
    VectorOp,
)
from celosia.hw.contract.legal import LACKING_REMEDY, field_problem, lacking
from celosia.hw.contract.needed import operations_of
from celosia.sw.program.contents import Contents
from celosia.sw.program.footprint import Access, OutOfRangeError, accesses
from celosia.sw.program.limits import MAX_PAIR_EFFORT, MAX_PAIRS, MAX_SYSTEM_BYTES, check_limits
from celosia.sw.program.order import CommandOrder, command_name
from celosia.sw.program.remedies import REBUILD
from celosia.sw.program.segments import ONNXRUNTIME, HostSegment

__all__ = ["check_commands", "check_program"]

Ints = npt.NDArray[np.int64]

BLOCK_PAIRS = 1 << 18
"""Accesses held against others at a time."""
PAIR_EFFORT = 100
"""Of telling two accesses apart, in intervals."""
STAYING = (Space.WGT, Space.PARAM)
"""Memories whose contents may stay from run to run."""
_REMEDY = "this is a defect of the compiler that wrote the program: report it"


def check_program(program: Contents, *, limits: bool = True) -> None:
    """Refuse a program that could fault, get stuck, or give a result that depends on timing.

    Bus errors and time-outs are the system's, and the contents of constants are not looked at.

    Parameters
    ----------
    program : Contents
        What to check.
    limits : bool
        Also refuse what takes long or much memory to check or to run (`check_limits`): for files
        that anybody may have written. What the compiler has just made is as large as its model.

    Raises
    ------
    ProgramError
        Naming the command or the two commands in question, and the reason.
    """
    for part in program.host_segments:
        _check_model(part)
    for segment in program.npu_segments:
        sizes = {region: segment.region_bytes(region) for region in Region}
        if limits and sum(sizes.values()) > MAX_SYSTEM_BYTES:
            raise ProgramError(
                "the program",
                f"needs {sum(sizes.values())} bytes of system memory, at most {MAX_SYSTEM_BYTES}"
                " are given",
                "make the model smaller",
            )
        commands = segment.decode()
        check_commands(commands, program.config, sizes, limits=limits)
        if segment.setup:
            setup = segment.decode_setup()
            check_commands(setup, program.config, sizes, limits=limits)
            _check_setup(setup, commands, program.config)


def _check_setup(setup: list[Command], commands: list[Command], config: NpuConfig) -> None:
    """Refuse a program whose runs overwrite what stays on chip, or whose setup does more."""
    brought: dict[str, list[tuple[int, int]]] = {}
    for index, command in enumerate(setup):
        if isinstance(command, End):
            continue
        if not isinstance(command, Load) or command.space not in STAYING:
            raise ProgramError(
                f"{command_name(index, command)} of the setup", "it loads no weights", _REMEDY
            )
        for access in accesses(command, config):
            if access.write:
                brought.setdefault(access.memory, []).append(access.bounds)
    for index, command in enumerate(commands):
        for access in accesses(command, config):
            if access.write and any(
                access.bounds[0] < end and first < access.bounds[1]
                for first, end in brought.get(access.memory, ())
            ):
                raise ProgramError(
                    command_name(index, command),
                    f"writes bytes of {access.memory} that stay from run to run",
                    _REMEDY,
                )


def _check_model(segment: HostSegment) -> None:
    """Refuse a host's segment whose model cannot be read, or has another interface."""
    # Late: programs without such a segment are read and checked without the reader of models.
    if segment.kernels == ONNXRUNTIME:
        from celosia.sw.compiler.frontends.onnx.ends import ends_of

        _compare_ends(segment, *ends_of(segment.model, segment.name))
        return
    from celosia.sw.compiler.frontends.tflite.convert import load

    what = f"the host's segment {segment.name!r}"
    try:
        graph = load(segment.model, anything=True, follow=False)
    except ModelError as error:
        raise ProgramError(what, f"its model is damaged: {error.cause}", REBUILD) from None
    _compare_ends(
        segment,
        *(
            [(graph.tensors[name].shape, graph.tensors[name].dtype.value) for name in names]
            for names in (graph.inputs, graph.outputs)
        ),
    )


_Ends = list[tuple[tuple[int, ...], str]]


def _compare_ends(segment: HostSegment, inputs: _Ends, outputs: _Ends) -> None:
    for kind, found, infos in (
        ("input", inputs, segment.inputs),
        ("output", outputs, segment.outputs),
    ):
        wanted = [(info.shape, info.dtype) for info in infos]
        if found != wanted:
            raise ProgramError(
                f"the host's segment {segment.name!r}",
                f"its model's {kind}s are {found}, the program's {wanted}",
                REBUILD,
            )


def check_commands(
    commands: Sequence[Command],
    config: NpuConfig,
    region_bytes: dict[Region, int],
    *,
    limits: bool = True,
) -> None:
    """Check a command stream; `region_bytes` has the size of every region.

    Raises
    ------
    ProgramError
        As `check_program`.
    """
    reach: list[_Use] = []
    for index, command in enumerate(commands):
        _check_fields(index, command, config)
    if limits:
        check_limits(commands, config)
    for index, command in enumerate(commands):
        try:
            found = accesses(command, config)
        except OutOfRangeError as error:
            raise ProgramError(command_name(index, command), str(error), _REMEDY) from None
        if isinstance(command, Transfer):
            _check_window(index, command, found, region_bytes)
        if isinstance(command, Vector):
            _check_vector_order(index, command)
        if isinstance(command, Softmax):
            _check_softmax_order(index, command, config)
        reach += [_Use(index, access) for access in found]
    order = CommandOrder(commands, config.queue_depth)
    for first, second in _races(reach, commands, order, limits=limits):
        writer, other = (first, second) if first.access.write else (second, first)
        verb = "writes" if other.access.write else "reads"
        raise ProgramError(
            f"{command_name(writer.index, commands[writer.index])} and"
            f" {command_name(other.index, commands[other.index])}",
            f"the first writes bytes of {writer.access.memory} that the second {verb}, and nothing"
            " orders them",
            _REMEDY,
        )
    for giver, taker, count in order.tokens_left():
        raise ProgramError(
            "the program",
            f"leaves {count} tokens from {giver.name} to {taker.name}, which would still be there"
            " in the next run",
            _REMEDY,
        )


def _check_fields(index: int, command: Command, config: NpuConfig) -> None:
    name = command_name(index, command)
    if command.tag != index:
        raise ProgramError(name, f"its tag is {command.tag}", _REMEDY)
    tokens = command.wait | command.signal
    if isinstance(command, End) and tokens:
        raise ProgramError(name, "End takes and gives no tokens", _REMEDY)
    if command.engine is not None and tokens >> command.engine & 1:
        raise ProgramError(name, "takes or gives a token of its own engine", _REMEDY)
    for operation in operations_of(command):
        if not config.can(operation):
            raise ProgramError(name, lacking(operation, config), LACKING_REMEDY)
    problem = field_problem(command, config)
    if problem:
        raise ProgramError(name, f"{problem[0].name}: {problem[1]}", _REMEDY)
    if isinstance(command, Vector):
        _check_clamps(name, command)
    if isinstance(command, Vector) and command.op == VectorOp.AVERAGE:
        divisor = command.n_ky * command.n_kx
        if command.half >= divisor:
            raise ProgramError(
                name, f"half is {command.half}, the window has {divisor} elements", _REMEDY
            )


def _check_clamps(name: str, vector: Vector) -> None:
    """Refuse bounds that leave no value: machines differ in which of the two wins."""
    for low, high in (("act_min", "act_max"), ("mid_min", "mid_max")):
        if getattr(vector, low) > getattr(vector, high):
            raise ProgramError(
                name,
                f"{low} is {getattr(vector, low)}, {high} is {getattr(vector, high)}",
                _REMEDY,
            )


def _check_window(
    index: int, transfer: Transfer, found: list[Access], region_bytes: dict[Region, int]
) -> None:
    region = Region(transfer.region)
    memory = found[0]
    low, high = memory.bounds
    name = command_name(index, transfer)
    if low < 0 or high > region_bytes[region]:
        raise ProgramError(
            name,
            f"MEM_WINDOW: bytes {low} to {high - 1} of region {region.name}, which has"
            f" {region_bytes[region]}",
            _REMEDY,
        )
    if memory.write and region in (Region.CODE, Region.CONST):
        raise ProgramError(name, f"writes region {region.name}", _REMEDY)


def _check_vector_order(index: int, vector: Vector) -> None:
    """Refuse a command that reads a line after it has written it: its pipeline decides."""
    operands = [] if vector.reads_acc else ["a"]
    if vector.has_b:
        operands.append("b")
    written = vector_lines(vector, "d").ravel()
    # When each line is first written, counted in vectors.
    when = np.full(1 << 16, len(written), np.int64)
    when[written[::-1]] = np.arange(len(written))[::-1]
    for operand in operands:
        lines = vector_lines(vector, operand)
        read = lines.reshape(len(written), -1)
        if (when[read] < np.arange(len(written))[:, None]).any():
            raise ProgramError(
                command_name(index, vector),
                f"reads lines of {operand.upper()} that it has written before",
                _REMEDY,
            )


def _check_softmax_order(index: int, softmax: Softmax, config: NpuConfig) -> None:
    """Refuse a result on top of a vector that is still to be read; in place is allowed."""
    source = softmax_lines(softmax, config.line_bytes, "a")
    target = softmax_lines(softmax, config.line_bytes, "d")
    written = np.zeros(1 << 16, np.bool_)
    for row in range(softmax.n_rows):
        in_place = source[row, 0] == target[row, 0]
        if not in_place:
            written[target[row]] = True
        if written[source[row]].any():
            raise ProgramError(
                command_name(index, softmax), "reads lines that it has written before", _REMEDY
            )
        written[target[row]] = True


@dataclass(frozen=True)
class _Use:
    """An access and the command that makes it."""

    index: int
    access: Access


class _Uses:
    """The accesses of one engine to one memory, in the order in which they begin."""

    def __init__(self, uses: list[_Use], order: CommandOrder) -> None:
        # Of one command's accesses those that wait for an accumulator half begin last.
        self.uses = sorted(uses, key=lambda use: (use.index, use.access.after_first))
        begins = [
            (order.first if use.access.after_first else order.start)[use.index] for use in self.uses
        ]
        self.turn = np.array([order.turn[use.index] for use in self.uses])
        self.over_before = order.over_before[begins]
        """How many commands of each engine are over before each access begins; never falls."""
        self.low, self.high = np.array([use.access.bounds for use in self.uses]).T
        self.size = np.array([len(use.access.starts) for use in self.uses])

    def only(self, write: bool) -> Ints:
        """Return the numbers of the accesses that write, or of those that read."""
        return np.flatnonzero([use.access.write is write for use in self.uses])


def _races(
    uses: list[_Use], commands: Sequence[Command], order: CommandOrder, *, limits: bool
) -> Iterator[tuple[_Use, _Use]]:
    """Yield pairs of uses that overlap, one of them a write, and are not ordered."""
    groups: dict[str, dict[Engine, list[_Use]]] = {}
    for use in uses:
        engine = commands[use.index].engine
        assert engine is not None, "only engines use memories"
        groups.setdefault(use.access.memory, {}).setdefault(engine, []).append(use)
    pairs = effort = 0
    for memory, by_engine in groups.items():
        sorted_uses = {engine: _Uses(found, order) for engine, found in by_engine.items()}
        for one, other in itertools.permutations(sorted_uses, 2):
            # Writes of the one against all uses of the other; two writes are met once.
            writes = sorted_uses[one].only(write=True)
            ours, theirs = sorted_uses[one], sorted_uses[other]
            against = np.arange(len(theirs.uses)) if one < other else theirs.only(write=False)
            for mine, yours in _unordered(ours, writes, one, theirs, against, other):
                pairs += len(mine)
                if limits and pairs > MAX_PAIRS:
                    raise _too_many(memory, "pairs of accesses that nothing orders", MAX_PAIRS)
                close = (ours.low[mine] < theirs.high[yours]) & (
                    theirs.low[yours] < ours.high[mine]
                )
                for a, b in zip(mine[close].tolist(), yours[close].tolist(), strict=True):
                    effort += PAIR_EFFORT + int(min(ours.size[a], theirs.size[b]))
                    if limits and effort > MAX_PAIR_EFFORT:
                        raise _too_many(memory, "steps to tell accesses apart", MAX_PAIR_EFFORT)
                    if ours.uses[a].access.overlaps(theirs.uses[b].access):
                        yield ours.uses[a], theirs.uses[b]


def _unordered(
    ours: _Uses, mine: Ints, one: Engine, theirs: _Uses, yours: Ints, other: Engine
) -> Iterator[tuple[Ints, Ints]]:
    """Yield in blocks the pairs of `mine` and `yours` of which neither is over when one begins.

    For each of mine, what the other engine has surely done before comes first in yours, and what
    it surely does after comes last: the others are neighbours.
    """
    first = np.searchsorted(theirs.turn[yours], ours.over_before[mine, other], side="left")
    last = np.searchsorted(theirs.over_before[yours, one], ours.turn[mine], side="right")
    ends = np.cumsum(np.maximum(last - first, 0))
    begin = 0
    while begin < len(mine):
        done = int(ends[begin - 1]) if begin else 0
        # At least one of mine in a block, whatever its number of pairs.
        stop = max(begin + 1, int(np.searchsorted(ends, done + BLOCK_PAIRS, side="right")))
        counts = np.maximum(last[begin:stop] - first[begin:stop], 0)
        steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(np.arange(begin, stop), counts)
        yield mine[rows], yours[first[rows] + steps]
        begin = stop


def _too_many(memory: str, what: str, limit: int) -> ProgramError:
    return ProgramError("the program", f"{memory}: more than {limit} {what}", _REMEDY)
