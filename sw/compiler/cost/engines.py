"""Predicts cycles: what each command takes, and when each ends if the engines run side by side.

The model is deliberately small: the array streams a window a cycle, the vector engine works a
vector in a fixed number of cycles, transfers move a bus word a cycle after a latency, commands wait
for their engine, their tokens and their place in the queue. It is compared with the RTL by the
reports; the constants below are where it is adjusted.
"""

from __future__ import annotations

from bisect import bisect_right
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
    MAX_BURST_WORDS,
    MAX_LOADS,
    Command,
    Conv,
    Engine,
    Load,
    Mode,
    Softmax,
    Space,
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
FIRST_WORD_CYCLES = 8
"""Of the setup: until the first word is asked for."""
LOAD_CHECK_CYCLES = 9
"""Until a load's last run may have been checked; then the next load begins."""
END_UNKNOWN = 1 << 62
"""Of a command whose end is not predicted yet."""
PLACE_CYCLES = 6
"""One engine for loads and stores has a place for each word that may be unanswered, and one more:
a place is taken for so many cycles beside the memory's latency."""
ARRAY_SETUP_CYCLES = 5
WALKED_CYCLES = 2
"""From the beginning of a command's last pass to the beginning of the array's next command."""
CHECKED_CYCLES = 3
"""From a command's last position to its end."""
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
REFUSING = (Mode.ROWS, Mode.JOINED)
"""How the array is fed where it reads so many banks that a load beside it, with the same ports,
gets every other cycle. What reads one or two of them and a load soon take turns without a wait."""
REFUSED_WORD_CYCLES = 2
"""Cycles of a word of such a load, at least."""
PARTS_SETUP_CYCLES = 3
"""With shared queues a command is put together, 32 bits a cycle, when its engine is free."""
SOFTMAX_ROW_CYCLES = 75
SOFTMAX_PASSES = 3


def transfer_cycles(transfer: Transfer, config: NpuConfig, memory: MemoryTiming) -> int:
    """Cycles of a transfer on a bus that it has for itself: runs without gaps."""
    words_cycles = int(_words(transfer, config) * _word_cycles(config, memory))
    return TRANSFER_SETUP_CYCLES + memory.latency_cycles + words_cycles


def _words(transfer: Transfer, config: NpuConfig) -> int:
    """Bus words of a transfer."""
    bus_bytes = config.bus_bytes
    first = transfer.mem_addr
    if transfer.row_bytes % bus_bytes == 0 and first % bus_bytes == 0:
        return transfer.n1 * transfer.n2 * (transfer.row_bytes // bus_bytes)
    inner = np.arange(transfer.n1) * transfer.mem_stride1
    outer = np.arange(transfer.n2) * transfer.mem_stride2
    inside = (first + inner[None, :] + outer[:, None]) % bus_bytes
    return int(((inside + transfer.row_bytes + bus_bytes - 1) // bus_bytes).sum())


def _word_cycles(config: NpuConfig, memory: MemoryTiming) -> float:
    """Cycles from one word of a transfer to the next."""
    word_cycles = memory.word_cycles(config.max_outstanding)
    if Part.SINGLE_TRANSFERS in config.parts:
        places = config.max_outstanding + 1
        word_cycles = max(word_cycles, (memory.latency_cycles + PLACE_CYCLES) / places)
    return word_cycles


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
    memory = memory or MemoryTiming()
    if config.firmware:
        return predict_firmware(commands, config, memory)
    first = _Simulation(config, memory)
    prediction = first.run(commands)
    if Part.SHARED_ACT_PORTS not in config.parts or not first.may_be_refused:
        return prediction
    spans = zip(commands, prediction.commands, strict=True)
    busy = [
        (times.start, times.end)
        for command, times in spans
        if isinstance(command, Conv) and command.mode in REFUSING
    ]
    return _Simulation(config, memory, array_busy=busy).run(commands)


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


def _other(engine: Engine) -> Engine:
    return Engine.STORE if engine is Engine.LOAD else Engine.LOAD


def _over_after(intervals: Sequence[tuple[int, int]], time: int) -> Iterator[tuple[int, int]]:
    """Yield those of intervals in order, apart from one another, that are not over at `time`."""
    for index in range(bisect_right(intervals, time, key=itemgetter(1)), len(intervals)):
        yield intervals[index]


class _Simulation:
    """All commands depend on earlier ones only (and a Conv on its Vector), so one walk will do."""

    def __init__(
        self,
        config: NpuConfig,
        memory: MemoryTiming,
        *,
        array_busy: Sequence[tuple[int, int]] = (),
    ) -> None:
        """`array_busy`: when the array reads several banks, by an earlier prediction."""
        self.config = config
        self.array_busy = array_busy
        # A load writes activations that is not the first one.
        self.may_be_refused = False
        self.memory = memory
        word_cycles = memory.word_cycles(config.max_outstanding)
        self.fetch_cycles = int(COMMAND_BYTES // config.bus_bytes * word_cycles)
        # Loads have the bus for so long after a command that was fetched beside them.
        self.rest_cycles = int(FETCH_REST_WORDS * word_cycles)
        self.short_rest_cycles = int(MAX_BURST_WORDS * word_cycles)
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
        self.command_there = self.dispatched
        self.room_at = self.dispatched
        self.convs: list[tuple[int, int, Conv]] = []
        # Of the commands of these engines: when they end, and where they stand in the program.
        self.ends: dict[Engine, list[int]] = {Engine.ARRAY: [], Engine.VECTOR: []}
        self.places: dict[Engine, list[int]] = {}
        self.halves: deque[int] = deque([0] * ACC_HALVES)
        self.times: list[CommandTimes] = []
        self.fetched = 0
        self.ahead: list[int] = []
        # When words of loads and of stores are on the bus, from and to.
        self.on_bus: dict[Engine, list[tuple[int, int]]] = {Engine.LOAD: [], Engine.STORE: []}
        # When they are under way, in order, where one engine does either.
        self.single = Part.SINGLE_TRANSFERS in config.parts
        self.under_way: dict[Engine, list[tuple[int, int]]] = {Engine.LOAD: [], Engine.STORE: []}
        # Ends of loads.
        self.loaded: deque[int] = deque([0] * MAX_LOADS, maxlen=MAX_LOADS)

    def run(self, commands: Sequence[Command]) -> Prediction:
        self.ahead = _fetched_ahead(commands, self.room)
        self.places = {
            engine: [index for index, command in enumerate(commands) if command.engine is engine]
            for engine in self.ends
        }
        for index, command in enumerate(commands):
            engine = command.engine
            assert engine is not None, "End is not simulated"
            self.fetched = max(self.fetched, index + 1)
            self._fetch()
            self.dispatched = max(self.dispatched, self._queue_space(engine))
            shown = max(self.dispatched, self.free[engine]) + self._parts_cycles(command)
            start = max(shown, self._tokens(command, engine))
            self.times.append(CommandTimes(start, start))
            if isinstance(command, Conv):
                self.convs.append((index, start, command))
                if command.hold:
                    cycles = sum(conv_tile_cycles(command, self.config))
                    self._end_conv(index, command, start, self._first_window(start) + cycles)
                continue
            if isinstance(command, Vector) and command.reads_acc:
                self._requantise(index, command, start)
            elif isinstance(command, Load):
                self._load(index, command, start)
            elif isinstance(command, Store):
                self._store(index, command, start)
            else:
                self._complete(index, command, start, start + self._cycles(command))
        end = max((times.end for times in self.times), default=0)
        return Prediction(self.times, end + self.fetch_cycles)

    def _fetch(self) -> None:
        """Let the next command come, and be dispatched: one is fetched ahead.

        Loads have the bus for a while after each command that is fetched beside them, longer while
        commands wait for array and vector engine.
        """
        time = max(self.command_there, self.room_at)
        self.room_at = self.dispatched
        provided = min(
            [0, 0, *self.ends[Engine.ARRAY][-2:], *(END_UNKNOWN for _ in self.convs)][-2],
            [0, 0, *self.ends[Engine.VECTOR][-2:]][-2],
        )
        rest = min(self.rest_cycles, max(self.short_rest_cycles, provided - time))
        for begin, over in _over_after(self.on_bus[Engine.LOAD], time):
            if begin > time:
                break
            waited = min(rest, over - time)
            time, rest = time + waited, rest - waited
            if rest == 0:
                break
        self.command_there = time + self.fetch_cycles
        self.dispatched = max(self.command_there, self.dispatched + self.dispatch_cycles)

    def _queue_space(self, engine: Engine) -> int:
        queue = self.queues[engine]
        return queue.popleft() if len(queue) >= self.room else 0

    def _parts_cycles(self, command: Command) -> int:
        if Part.SHARED_QUEUES not in self.config.parts:
            return 0
        bits = sum(spec.width_bits for spec in fields_of(type(command)))
        return PARTS_SETUP_CYCLES + ceil_div(bits, PART_BITS)

    def _load(self, index: int, load: Load, start: int) -> None:
        """Words of a load follow those of the one before it."""
        memory = self.memory
        word_cycles = _word_cycles(self.config, memory)
        words_cycles = int(_words(load, self.config) * word_cycles)
        words_cycles += self._fetched_beside(index, words_cycles, start) * self.fetch_cycles
        whole = TRANSFER_SETUP_CYCLES + memory.latency_cycles + words_cycles
        start = self._alone(Engine.LOAD, max(start, self.loaded[0]), whole)
        before = self.on_bus[Engine.LOAD]
        first = max(start + FIRST_WORD_CYCLES, before[-1][1] if before else 0)
        if load.space == Space.ACT and before:
            self.may_be_refused = True
            # Words that come slowly anyway are not held up.
            more = max(0, REFUSED_WORD_CYCLES / word_cycles - 1)
            for begin, over in _over_after(self.array_busy, first):
                if begin >= first + words_cycles:
                    break
                words_cycles += int(more * (min(over, first + words_cycles) - max(begin, first)))
        last = self._beside_others(Engine.LOAD, first, words_cycles)
        end = last + memory.latency_cycles + TRANSFER_SETUP_CYCLES - FIRST_WORD_CYCLES
        run_cycles = words_cycles // (load.n1 * load.n2)
        checked = max(start + LOAD_CHECK_CYCLES, last - run_cycles)
        self._finish(index, load, max(start, self.loaded[-1]), end, free=checked)
        self.loaded.append(end)
        if self.single:
            self.under_way[Engine.LOAD].append((start, end))

    def _fetched_beside(self, index: int, words_cycles: int, start: int) -> int:
        """Return how many commands are fetched over the bus between the words of a load.

        There may be as many as the queues have room for. They come sooner as long as no command
        waits for the array, or none for the vector engine.
        """
        waited = 0
        for engine, places in self.places.items():
            place = bisect_right(self.ends[engine], start) + 1
            waited = max(waited, places[place] if place < len(places) else 0)
        soon = min(max(0, waited + 1 - self.fetched), words_cycles // self.short_rest_cycles)
        left = max(0, words_cycles - soon * self.short_rest_cycles)
        fetched = soon + left // (self.rest_cycles + self.fetch_cycles)
        fetched = min(fetched, max(0, self.ahead[index] - self.fetched))
        self.fetched += fetched
        return fetched

    def _store(self, index: int, store: Store, start: int) -> None:
        cycles = transfer_cycles(store, self.config, self.memory)
        if Part.SHARED_ACT_PORTS in self.config.parts:
            cycles = int(SHARED_STORE_FACTOR * cycles)
        start = self._alone(Engine.STORE, start, cycles)
        end = self._beside_others(Engine.STORE, start, cycles)
        self._complete(index, store, start, end)
        if self.single:
            self.under_way[Engine.STORE].append((start, end))

    def _alone(self, engine: Engine, start: int, cycles: int) -> int:
        """Return when a transfer that may begin at `start` finds a single engine free for so long.

        One that comes later in the program may go first: the other one waits for its tokens.
        """
        if self.single:
            for begin, end in _over_after(self.under_way[_other(engine)], start):
                if start + cycles <= begin:
                    break
                start = max(start, end)
        return start

    def _beside_others(self, engine: Engine, begin: int, cycles: int) -> int:
        """Return when the words of a transfer have been asked for, which begins to ask at `begin`.

        What the other engine moves meanwhile is added; its own end, found before, stays.
        """
        end = begin + cycles
        for other_begin, other_end in _over_after(self.on_bus[_other(engine)], begin):
            if other_begin >= end:
                break
            end += min(other_end, end) - max(other_begin, begin)
        self.on_bus[engine].append((begin, end))
        return end

    def _tokens(self, command: Command, engine: Engine) -> int:
        ready = 0
        for other in Engine:
            if command.wait >> other & 1:
                ready = max(ready, self.tokens[other, engine].popleft() + TOKEN_CYCLES)
        return ready

    def _array_end(self) -> int:
        """Return when the array's commands so far have ended."""
        ends = self.ends[Engine.ARRAY]
        return ends[-1] if ends else 0

    def _first_window(self, start: int) -> int:
        """Return when a convolution's windows begin: behind those of the one before it."""
        return max(start + ARRAY_SETUP_CYCLES, self._array_end() - CHECKED_CYCLES)

    def _end_conv(self, index: int, conv: Conv, start: int, end: int) -> None:
        """Note a convolution's times: the next one is walked while its last pass streams."""
        last = max(conv_tile_positions(conv)[-1], self.config.min_pass_cycles)
        walked = end - last + WALKED_CYCLES
        start = max(start, self._array_end())
        self._finish(index, conv, start, end + CHECKED_CYCLES, free=walked)

    def _complete(self, index: int, command: Command, start: int, end: int) -> None:
        self._finish(index, command, start, end, free=end)

    def _finish(self, index: int, command: Command, start: int, end: int, *, free: int) -> None:
        """Note a command's times; at `free` its engine is ready for the next one."""
        engine = command.engine
        assert engine is not None
        self.times[index] = CommandTimes(start, end)
        self.free[engine] = free
        self.queues[engine].append(free)
        if engine in self.ends:
            self.ends[engine].append(end)
        for other in Engine:
            if command.signal >> other & 1:
                self.tokens.setdefault((engine, other), deque()).append(end)

    def _cycles(self, command: Command) -> int:
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
        array = self._first_window(conv_start)
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
        self._end_conv(conv_index, conv, conv_start, array)
        self._complete(index, vector, start, drain + REQUANT_PIPELINE_CYCLES)
        self.convs.clear()
