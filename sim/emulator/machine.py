"""The emulator: runs a command stream from the instruction set's definition, without timing.

Results are equal to the hardware's bit by bit. Engines take their commands in order and wait for
tokens and accumulator halves as the hardware's do; between those constraints the order in which
they move is free, and can be drawn at random, so that a token which a program forgot shows as a
wrong result.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    COMMAND_BYTES,
    COMMANDS,
    MAX_TOKENS,
    Command,
    Engine,
    IsaError,
    Region,
    fields_of,
)
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.contract.units import Unit
from celosia.sim.emulator.jobs import Job, RunStats
from celosia.sim.emulator.state import (
    EmulatorError,
    EmulatorFault,
    EngineFault,
    MachineState,
)

__all__ = ["Emulator", "EmulatorError", "EmulatorFault", "Order", "RunStats"]

Order = Literal["program", "random"]
CommandHook = Callable[[int, Command], None]

_RESHUFFLE_PROBABILITY = 0.2


@dataclass
class _EngineState:
    """The queue of an engine; its first entry stays there until it is complete."""

    queue: deque[tuple[int, Command]] = field(default_factory=deque)
    job: Job | None = None


class Emulator(MachineState):
    """One emulated NPU with its system memory.

    Parameters
    ----------
    config : NpuConfig
        The machine.
    memory_bytes : int
        Size of system memory.

    Attributes
    ----------
    memory, regions, act, wgt, param, table, own_memory
        See :class:`celosia.sim.emulator.state.MachineState`; free to read and write between runs.
    """

    def __init__(self, config: NpuConfig, memory_bytes: int = 1 << 20) -> None:
        super().__init__(config, np.zeros(memory_bytes, np.uint8))

    def for_samples(self, samples: int, own: range) -> Emulator:
        """Return a machine that runs a program for several samples at once.

        What it does for each is what this one would do: it is this one, with more than one entry
        along the last axis of its memories.

        Parameters
        ----------
        samples : int
            How many.
        own : range
            Bus addresses that each sample has for itself (`own_memory`), zero at first. The rest
            of system memory is this machine's, and is only read.
        """
        machine = Emulator(self.config, 0)
        MachineState.__init__(machine, self.config, self.memory, samples, own)
        machine.regions = dict(self.regions)
        return machine

    def set_region(self, region: Region, base: int, size: int) -> None:
        """Place a region in system memory.

        Raises
        ------
        ValueError
            If the base is no multiple of the bus word, or base or size does not fit its register.
        """
        if base % self.config.bus_bytes:
            raise ValueError(
                f"the base of region {region.name} must be a multiple of"
                f" {self.config.bus_bytes}, not {base}"
            )
        if not 0 <= base < 1 << 32 or not 0 <= size < 1 << 32:
            raise ValueError(f"region {region.name} at {base} with {size} bytes: 32 bits each")
        self.regions[region] = (base, size)

    def load_code(self, commands: bytes, base: int = 0) -> None:
        """Copy a command stream to `base` in system memory and make it region CODE."""
        self.memory[base : base + len(commands)] = np.frombuffer(commands, np.uint8)
        self.set_region(Region.CODE, base, len(commands))

    def run(
        self,
        order: Order = "program",
        seed: int = 0,
        on_complete: CommandHook | None = None,
        work_limit: int | None = None,
    ) -> RunStats:
        """Run the program in region CODE to its End. On-chip memories keep their contents.

        Parameters
        ----------
        order : "program" or "random"
            Which of the engines that can move does: the one with the oldest command, or one
            drawn at random.
        seed : int
            Of the random order.
        on_complete : callable, optional
            Called with index and command after each command is complete.
        work_limit : int, optional
            Cycles that an engine may take at least (`MachineState.charge`); by default any number.

        Raises
        ------
        EmulatorFault
            The fault that stops the hardware.
        EmulatorError
            A deadlock, naming what every engine waits for, or tiles that do not match.
        """
        self.tiles.clear()
        self.held = None
        self.work_limit = work_limit
        self.work = dict.fromkeys(Engine, 0)
        return _Run(self, order, seed, on_complete).run()


def _has_illegal_value(data: bytes) -> bool:
    """Whether bytes that are no command are a sound one but for an enumeration.

    The dispatcher looks at opcodes, tokens and reserved bits; values are the engine's business.
    """
    kind = COMMANDS.get(data[0])
    engine_bit = 1 << (data[0] >> 4) >> 1
    if kind is None or (data[1] | data[1] >> 4) & engine_bit:
        return False
    used_bits = sum(spec.width_bits for spec in fields_of(kind))
    return int.from_bytes(data, "little") >> used_bits == 0


class _Run:
    """Queues, tokens and engines during one program."""

    def __init__(
        self, state: MachineState, order: Order, seed: int, on_complete: CommandHook | None
    ) -> None:
        self._state = state
        self._stats = RunStats()
        self._random = random.Random(seed) if order == "random" else None
        self._on_complete = on_complete
        self._engines = {engine: _EngineState() for engine in Engine}
        self._tokens = {(source, to): 0 for source in Engine for to in Engine}
        self._next_index = 0
        self._stalled: tuple[int, Command] | None = None
        self._ended: tuple[int, Command] | None = None
        self._priority = list(Engine)

    def run(self) -> RunStats:
        while True:
            self._dispatch()
            movable = [engine for engine in Engine if self._can_move(engine)]
            if not movable:
                break
            self._move(self._choose(movable))
        if self._ended is None or any(entry.queue for entry in self._engines.values()):
            raise EmulatorError(self._describe_deadlock())
        if self._state.tiles or self._state.held is not None:
            raise EmulatorError("End was reached with an accumulator half that nobody emptied")
        self._completed(*self._ended)
        return self._stats

    def _fetch(self, index: int) -> Command:
        base, size = self._state.regions[Region.CODE]
        address = base + index * COMMAND_BYTES
        if (index + 1) * COMMAND_BYTES > size:
            raise EmulatorFault(ErrorCause.FETCH_WINDOW, Unit.FETCH, 0, address)
        if address + COMMAND_BYTES > len(self._state.memory):
            raise EmulatorFault(ErrorCause.BUS_ERROR, Unit.FETCH, 0, address)
        data = self._state.memory[address : address + COMMAND_BYTES].tobytes()
        tag = int.from_bytes(data[2:4], "little")
        try:
            command = Command.decode(data)
        except IsaError as error:
            known = data[0] in COMMANDS
            cause = ErrorCause.ILLEGAL_FIELD if known else ErrorCause.ILLEGAL_OPCODE
            unit = (data[0] >> 4) - 1 if _has_illegal_value(data) else Unit.FETCH
            raise EmulatorFault(cause, unit, tag, 0, error.cause) from None
        tokens = command.wait | command.signal
        own = tokens if command.engine is None else tokens >> command.engine & 1
        if own:
            raise EmulatorFault(
                ErrorCause.ILLEGAL_FIELD, Unit.FETCH, tag, 0, "a token of the command's own engine"
            )
        return command

    def _dispatch(self) -> None:
        """Hand commands to the queues until one is full or the program is at its End."""
        while self._ended is None:
            if self._stalled is None:
                self._stalled = self._next_index, self._fetch(self._next_index)
                self._next_index += 1
            index, command = self._stalled
            engine = command.engine
            if engine is None:
                self._ended = index, command
            elif len(self._engines[engine].queue) < self._state.config.queue_depth:
                self._engines[engine].queue.append((index, command))
            else:
                return
            self._stalled = None

    def _missing_tokens(self, engine: Engine) -> list[Engine]:
        command = self._engines[engine].queue[0][1]
        return [
            source
            for source in Engine
            if command.wait >> source & 1 and not self._tokens[source, engine]
        ]

    def _can_move(self, engine: Engine) -> bool:
        entry = self._engines[engine]
        if entry.job is None and entry.queue and not self._missing_tokens(engine):
            command = entry.queue[0][1]
            for source in Engine:
                self._tokens[source, engine] -= command.wait >> source & 1
            try:
                entry.job = Job(self._state, command, self._stats)
            except EngineFault as fault:
                raise self._fault(fault, engine, command) from None
        return entry.job is not None and not entry.job.waits_for

    def _choose(self, movable: list[Engine]) -> Engine:
        if self._random is None:
            return min(movable, key=lambda engine: self._engines[engine].queue[0][0])
        # Priorities that last for some steps let an engine run far ahead or starve.
        if self._random.random() < _RESHUFFLE_PROBABILITY:
            self._random.shuffle(self._priority)
        return min(movable, key=self._priority.index)

    def _move(self, engine: Engine) -> None:
        entry = self._engines[engine]
        assert entry.job is not None, "an engine without a job cannot move"
        index, command = entry.queue[0]
        try:
            complete = entry.job.step()
        except EngineFault as fault:
            raise self._fault(fault, engine, command) from None
        if not complete:
            return
        entry.job = None
        entry.queue.popleft()
        for to in Engine:
            self._tokens[engine, to] += command.signal >> to & 1
            if self._tokens[engine, to] > MAX_TOKENS:
                overflow = EngineFault(
                    ErrorCause.TOKEN_OVERFLOW, 0, f"tokens from {engine.name} to {to.name}"
                )
                raise self._fault(overflow, engine, command)
        self._completed(index, command)

    def _completed(self, index: int, command: Command) -> None:
        self._stats.commands += 1
        self._stats.order.append(index)
        if self._on_complete is not None:
            self._on_complete(index, command)

    @staticmethod
    def _fault(fault: EngineFault, engine: Engine, command: Command) -> EmulatorFault:
        return EmulatorFault(fault.cause, int(engine), command.tag, fault.address, fault.detail)

    def _describe_deadlock(self) -> str:
        reasons = []
        for engine, entry in self._engines.items():
            if not entry.queue:
                reasons.append(f"{engine.name} is idle")
                continue
            index, command = entry.queue[0]
            if entry.job is None:
                needs = "tokens from " + ", ".join(s.name for s in self._missing_tokens(engine))
            else:
                needs = entry.job.waits_for
            reasons.append(
                f"{engine.name} is at command {index} ({type(command).__name__}) and waits for"
                f" {needs}"
            )
        if self._stalled is not None:
            reasons.append(f"the dispatcher is at command {self._stalled[0]}, whose queue is full")
        return "deadlock: " + "; ".join(reasons)
