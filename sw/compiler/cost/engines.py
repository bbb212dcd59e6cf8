"""Predicts cycles: what each command takes, and when each ends if the engines run side by side.

The model is deliberately small: the array streams a window a cycle, the vector engine works a
vector in a fixed number of cycles, transfers move a bus word a cycle after a latency, commands wait
for their engine, their tokens and their place in the queue. It is compared with the RTL by the
reports; the constants below are where it is adjusted.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from operator import itemgetter

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    ACC_HALVES,
    COMMAND_BITS,
    COMMAND_BYTES,
    FETCH_REST_WORDS,
    Command,
    Conv,
    Engine,
    Load,
    Mode,
    Softmax,
    Store,
    Transfer,
    Vector,
    VectorOp,
    fields_of,
)
from celosia.hw.contract.parts import Part
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.cost.firmware import predict_firmware
from celosia.sw.compiler.cost.times import CommandTimes, MemoryTiming, Prediction

__all__ = ["CommandTimes", "MemoryTiming", "Prediction", "predict"]

FIRST_COMMAND_CYCLES = 28
"""From the doorbell to the first command at its engine."""
TRANSFER_SETUP_CYCLES = 12
PLACE_CYCLES = 6
"""One engine for loads and stores has a place for each word that may be unanswered, and one more:
a place is taken for so many cycles beside the memory's latency."""
ARRAY_SETUP_CYCLES = 5
NEXT_COMMAND_CYCLES = 1
"""From the end of a command of the array to the beginning of the next."""
VECTOR_SETUP_CYCLES = 11
VECTOR_PIPELINE_CYCLES = 15
ACCUMULATOR_CYCLES = 6
"""From a window's way through the rows of the array to the read of its sums."""
REQUANT_PIPELINE_CYCLES = VECTOR_PIPELINE_CYCLES - ACCUMULATOR_CYCLES
GROUP_BEATS = 16
"""Beats that go through the phases of an operation together."""
PHASE_CYCLES = 14
"""From a beat to the first one that may use its result in the next phase."""
REFUSED_CYCLES = 1
"""That a line of a tensor which is added is refused: the array reads the same bank, often for a
whole pass."""
PHASE_WAITS = {
    VectorOp.ADD: 1,
    VectorOp.REQUANT_ADD: 2,
    VectorOp.MUL: 2,
    VectorOp.SQUARED_DIFFERENCE: 3,
}
"""Phases that use what the one before them has written."""
TOKEN_CYCLES = 2
QUEUE_BITS = 64
"""Of a command that goes into its engine's queue, a cycle."""
PART_BITS = 32
"""The same of shared queues, and of a command that is put together from them."""
SHARED_STORE_FACTOR = 1.6
"""A store waits where the array reads the same bank of the activation SRAM, mostly beside it."""
PARTS_SETUP_CYCLES = 3
"""With shared queues a command is put together, 32 bits a cycle, when its engine is free."""
SOFTMAX_ROW_CYCLES = 75
SOFTMAX_PASSES = 3


def transfer_cycles(transfer: Transfer, config: NpuConfig, memory: MemoryTiming) -> int:
    """Cycles of a transfer on a bus that it has for itself: runs without gaps."""
    bus_bytes = config.bus_bytes
    first = transfer.mem_addr
    if transfer.row_bytes % bus_bytes == 0 and first % bus_bytes == 0:
        words = transfer.n1 * transfer.n2 * (transfer.row_bytes // bus_bytes)
    else:
        inner = np.arange(transfer.n1) * transfer.mem_stride1
        outer = np.arange(transfer.n2) * transfer.mem_stride2
        inside = (first + inner[None, :] + outer[:, None]) % bus_bytes
        words = int(((inside + transfer.row_bytes + bus_bytes - 1) // bus_bytes).sum())
    word_cycles = memory.word_cycles(config.max_outstanding)
    if Part.SINGLE_TRANSFERS in config.parts:
        places = config.max_outstanding + 1
        word_cycles = max(word_cycles, (memory.latency_cycles + PLACE_CYCLES) / places)
    return TRANSFER_SETUP_CYCLES + memory.latency_cycles + int(words * word_cycles)


def conv_tile_positions(conv: Conv) -> list[int]:
    """Windows that a pass takes, for each tile of one tile of output channels."""
    extra = conv.extra if conv.mode != Mode.WINDOW else 0
    return [
        min(conv.tile_rows, conv.out_h - first) * conv.row_len + extra
        for first in range(0, conv.out_h, conv.tile_rows)
    ]


def pass_count(conv: Conv) -> int:
    """Passes over the windows of a tile."""
    return conv.n_ky * conv.n_kx * conv.n_ic


def conv_tile_cycles(conv: Conv, config: NpuConfig) -> list[int]:
    """Cycles of the array for each tile of one tile of output channels."""
    return [
        pass_count(conv) * max(positions, config.min_pass_cycles)
        for positions in conv_tile_positions(conv)
    ]


def vectors_cycles(vector: Vector, count: int, config: NpuConfig) -> int:
    """Cycles of the vector engine for vectors of a tile, or of a line of channels.

    Those that go through phases do so in groups. The last group may be shorter than the pipeline;
    then a phase waits for what the one before it has written.
    """
    beats = count * config.vector_beats
    wait = max(0, PHASE_CYCLES - beats % GROUP_BEATS) if beats % GROUP_BEATS else 0
    waits = PHASE_WAITS.get(VectorOp(vector.op), 0) * wait
    if vector.op == VectorOp.REQUANT_ADD:
        # Between its first two phases there is another one, which waits for nothing.
        waits -= min(wait, beats % GROUP_BEATS)
    return beats * vector.beats + waits


def vector_cycles(vector: Vector, config: NpuConfig) -> int:
    """Cycles of the vector engine for all vectors of a command that reads no accumulator."""
    count = vector.out_h * vector.out_w * vector.n_ky * vector.n_kx
    return vector.n_oc * vectors_cycles(vector, count, config)


def predict(
    commands: Sequence[Command], config: NpuConfig, *, memory: MemoryTiming | None = None
) -> Prediction:
    """Simulate a program's commands, each a single event.

    Parameters
    ----------
    commands : sequence of Command
        With their tokens, in program order; without `End`.
    config : NpuConfig
        The machine.
    memory : MemoryTiming, optional
        System memory; by default the one that programs are made for.
    """
    if config.firmware:
        return predict_firmware(commands, config, memory or MemoryTiming())
    return _Simulation(config, memory or MemoryTiming()).run(commands)


def _fetched_ahead(commands: Sequence[Command], room: int) -> list[int]:
    """Return, for each command, how many are fetched when it is the oldest one unfinished."""
    counts = dict.fromkeys(Engine, 0)
    ahead: list[int] = []
    end = 0
    for index, command in enumerate(commands):
        while end < len(commands):
            engine = commands[end].engine
            assert engine is not None, "End is not simulated"
            if counts[engine] == room and end > index:
                break
            counts[engine] += 1
            end += 1
        ahead.append(end)
        assert command.engine is not None
        counts[command.engine] -= 1
    return ahead


def _over_after(intervals: Sequence[tuple[int, int]], time: int) -> Iterator[tuple[int, int]]:
    """Yield those of intervals in order, apart from one another, that are not over at `time`."""
    for index in range(bisect_right(intervals, time, key=itemgetter(1)), len(intervals)):
        yield intervals[index]


class _Simulation:
    """All commands depend on earlier ones only (and a Conv on its Vector), so one walk will do."""

    def __init__(self, config: NpuConfig, memory: MemoryTiming) -> None:
        self.config = config
        self.memory = memory
        word_cycles = memory.word_cycles(config.max_outstanding)
        self.fetch_cycles = int(COMMAND_BYTES // config.bus_bytes * word_cycles)
        # From one command to the next that are fetched beside a load.
        self.beside_cycles = int(FETCH_REST_WORDS * word_cycles) + self.fetch_cycles
        # For commands of an engine: the one that it has, and those that wait.
        self.room = config.queue_depth + 1
        shared_queues = Part.SHARED_QUEUES in config.parts
        self.dispatch_cycles = COMMAND_BITS // (PART_BITS if shared_queues else QUEUE_BITS)
        self.free = dict.fromkeys(Engine, 0)
        self.tokens: dict[tuple[int, Engine], deque[int]] = {}
        self.queues: dict[Engine, deque[int]] = {engine: deque() for engine in Engine}
        # The first command takes its latency and its words, and is counted with those that follow.
        waiting = memory.latency_cycles - MemoryTiming().latency_cycles
        words = COMMAND_BYTES // config.bus_bytes
        self.dispatched = FIRST_COMMAND_CYCLES - words + waiting
        self.convs: list[tuple[int, int, Conv]] = []
        self.halves: deque[int] = deque([0] * ACC_HALVES)
        self.times: list[CommandTimes] = []
        self.fetched = 0
        self.ahead: list[int] = []
        # When words of loads are on the bus, from and to.
        self.loading: list[tuple[int, int]] = []
        # What one engine for loads and stores does, from and to; what two do.
        self.transfers: list[tuple[int, int]] = []
        self.on_bus: dict[Engine, list[tuple[int, int]]] = {Engine.LOAD: [], Engine.STORE: []}

    def run(self, commands: Sequence[Command]) -> Prediction:
        self.ahead = _fetched_ahead(commands, self.room)
        for index, command in enumerate(commands):
            engine = command.engine
            assert engine is not None, "End is not simulated"
            self.fetched = max(self.fetched, index + 1)
            self.dispatched = max(self._fetched_after(self.dispatched), self._queue_space(engine))
            shown = max(self.dispatched, self.free[engine]) + self._parts_cycles(command)
            start = max(shown, self._tokens(command, engine))
            self.times.append(CommandTimes(start, start))
            if isinstance(command, Conv):
                self.convs.append((index, start, command))
                if command.hold:
                    cycles = ARRAY_SETUP_CYCLES + sum(conv_tile_cycles(command, self.config))
                    self._complete(index, command, start, start + cycles)
                continue
            if isinstance(command, Vector) and command.reads_acc:
                self._requantise(index, command, start)
            else:
                cycles = self._cycles(index, command)
                if isinstance(command, Transfer):
                    if Part.SINGLE_TRANSFERS in self.config.parts:
                        start = self._transfer_start(start, cycles)
                    else:
                        cycles = self._shared_cycles(engine, start, cycles)
                    if engine is Engine.LOAD:
                        words_end = start + cycles - self.memory.latency_cycles
                        self.loading.append((start + TRANSFER_SETUP_CYCLES, words_end))
                self._complete(index, command, start, start + cycles)
        end = max((times.end for times in self.times), default=0)
        return Prediction(self.times, end + self.fetch_cycles)

    def _fetched_after(self, time: int) -> int:
        """Return when the next command is there that is fetched from `time` on.

        Loads have the bus for a while after each command that is fetched beside them.
        """
        end = time + max(self.fetch_cycles, self.dispatch_cycles)
        for begin, over in _over_after(self.loading, time):
            if begin < end:
                end = min(max(end, time + self.beside_cycles), over + self.fetch_cycles)
            break
        return end

    def _queue_space(self, engine: Engine) -> int:
        queue = self.queues[engine]
        return queue.popleft() if len(queue) >= self.room else 0

    def _parts_cycles(self, command: Command) -> int:
        if Part.SHARED_QUEUES not in self.config.parts:
            return 0
        bits = sum(spec.width_bits for spec in fields_of(type(command)))
        return PARTS_SETUP_CYCLES + ceil_div(bits, PART_BITS)

    def _transfer_start(self, start: int, cycles: int) -> int:
        """Return when a transfer that may begin at `start` finds the engine free for so long.

        One that comes later in the program may go first: the other one waits for its tokens.
        """
        for begin, end in _over_after(self.transfers, start):
            if start + cycles <= begin:
                break
            start = max(start, end)
        insort(self.transfers, (start, start + cycles))
        return start

    def _shared_cycles(self, engine: Engine, start: int, cycles: int) -> int:
        """Return what a transfer takes beside those of the other engine: they share the bus.

        What the other one moves meanwhile is added; its own end, found before, stays.
        """
        others = self.on_bus[Engine.STORE if engine is Engine.LOAD else Engine.LOAD]
        end = start + cycles
        for begin, other_end in _over_after(others, start):
            if begin >= end:
                break
            end += min(other_end, end) - max(begin, start)
        self.on_bus[engine].append((start, end))
        return end - start

    def _tokens(self, command: Command, engine: Engine) -> int:
        ready = 0
        for other in Engine:
            if command.wait >> other & 1:
                ready = max(ready, self.tokens[other, engine].popleft() + TOKEN_CYCLES)
        return ready

    def _complete(self, index: int, command: Command, start: int, end: int) -> None:
        engine = command.engine
        assert engine is not None
        self.times[index] = CommandTimes(start, end)
        self.free[engine] = end + (NEXT_COMMAND_CYCLES if engine is Engine.ARRAY else 0)
        self.queues[engine].append(end)
        for other in Engine:
            if command.signal >> other & 1:
                self.tokens.setdefault((engine, other), deque()).append(end)

    def _cycles(self, index: int, command: Command) -> int:
        if isinstance(command, Load):
            # Commands are fetched over the same bus, beside the load's words, as far ahead as the
            # queues have room.
            cycles = transfer_cycles(command, self.config, self.memory)
            fetched = min(max(0, self.ahead[index] - self.fetched), cycles // self.beside_cycles)
            self.fetched += fetched
            return cycles + fetched * self.fetch_cycles
        if isinstance(command, Store):
            cycles = transfer_cycles(command, self.config, self.memory)
            shared = Part.SHARED_ACT_PORTS in self.config.parts
            return int(SHARED_STORE_FACTOR * cycles) if shared else cycles
        if isinstance(command, Softmax):
            lines = ceil_div(command.channels, self.config.line_bytes)
            per_row = SOFTMAX_ROW_CYCLES + SOFTMAX_PASSES * (command.channels + 3 * lines)
            return VECTOR_SETUP_CYCLES + command.n_rows * per_row
        assert isinstance(command, Vector)
        return VECTOR_SETUP_CYCLES + VECTOR_PIPELINE_CYCLES + vector_cycles(command, self.config)

    def _early_cycles(self, vector: Vector, count: int) -> int:
        """Return how long before a tile's last vector is through its half may be filled again."""
        mirrored = Part.MIRRORED_ACCUMULATOR in self.config.parts
        if vector.op == VectorOp.REQUANT and not mirrored:
            # Before the last reads: waves go through the rows first.
            return self.config.rows
        # The last group has been read when it goes on to its other phases.
        group = count * self.config.vector_beats % GROUP_BEATS or GROUP_BEATS
        return (vector.beats - 1) * group

    def _requantise(self, index: int, vector: Vector, start: int) -> None:
        """Let the array fill halves and the vector engine empty them, tile by tile."""
        conv_index, conv_start, conv = self.convs[-1]
        per_oc = conv_tile_cycles(conv, self.config)
        array = conv_start + ARRAY_SETUP_CYCLES
        drain = start + VECTOR_SETUP_CYCLES
        for _ in range(conv.n_oc):
            for tile, tile_cycles in enumerate(per_oc):
                rows = min(conv.tile_rows, conv.out_h - tile * conv.tile_rows)
                # A half that is held has been waited for already.
                array = max(array, self.halves.popleft()) + tile_cycles
                count = rows * conv.out_w
                first = max(drain, array + self.config.rows + ACCUMULATOR_CYCLES)
                drain = first + vectors_cycles(vector, count, self.config)
                if vector.op == VectorOp.REQUANT_ADD:
                    drain += REFUSED_CYCLES * count
                self.halves.append(max(first + 1, drain - self._early_cycles(vector, count)))
        self._complete(conv_index, conv, conv_start, array)
        self._complete(index, vector, start, drain + REQUANT_PIPELINE_CYCLES)
        self.convs.clear()
