"""The register shell: start and end of a program, errors, interrupt, watchdog, counters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from celosia.hw.bus.csr import WORD_BYTES, RegisterFile, csr_signature
from celosia.hw.bus.ports import REGION_TABLE
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine, Region
from celosia.hw.contract.regs import (
    COUNTERS,
    IDENTITY,
    VERSION,
    ErrorCause,
    address_of,
    capability_words,
)
from celosia.hw.control.counters import Counters, MemoryCounters
from celosia.hw.control.regions import STORED, WATCHED, RegionMemory
from celosia.hw.fabric.gating import clock, idles
from celosia.hw.fabric.ports import FaultPort, Unit

__all__ = ["EVENTS", "Control"]

ENGINES = len(Engine)

_FROM_GATES = (
    ("array_wait_token", "wait_token", Engine.ARRAY),
    ("vector_wait_token", "wait_token", Engine.VECTOR),
    ("load_wait_token", "wait_token", Engine.LOAD),
    ("load_busy", "busy", Engine.LOAD),
    ("store_busy", "busy", Engine.STORE),
)

EVENTS = tuple(
    name
    for name, _ in COUNTERS
    if name not in {"total", "idle", *(entry[0] for entry in _FROM_GATES)}
)
"""Counters whose pulses come from outside; the others are counted from the ports of the gates."""


class _ErrorLatch(Component):
    """Keeps the first error while it is armed.

    Parameters
    ----------
    compact : bool
        Choose among errors in the cycle in which they come, not in the one after it. The address of
        a fault of LOAD is taken for one of STORE, too: there is one engine for both.

    Members
    -------
    faults : In(FaultPort).array(5)
        By :class:`Unit`; of several errors in one cycle the first in this order counts, then
        `overflow`, `bus_fault`, `watchdog`.
    tags : In(16).array(5)
        Tag of each unit's command.
    overflow : In(4)
        TOKEN_OVERFLOW, by :class:`Engine`.
    bus_fault : In(FaultPort)
    bus_unit : In(3)
        :class:`Unit` that the bus fault belongs to.
    watchdog : In(1)
        WATCHDOG, of unit FETCH.
    armed : In(1)
    clear : In(1)
    seen : Out(1)
        There is one among the inputs.
    error : Out(1)
        There is an error in this cycle; the registers follow in the next one, the tag after that.
    cause, unit : Out(8)
    tag : Out(16)
    address : Out(32)
    """

    def __init__(self, *, compact: bool) -> None:
        self._compact = compact
        super().__init__(
            {
                "faults": In(FaultPort()).array(len(Unit)),
                "tags": In(16).array(len(Unit)),
                "overflow": In(ENGINES),
                "bus_fault": In(FaultPort()),
                "bus_unit": In(range(len(Unit))),
                "watchdog": In(1),
                "armed": In(1),
                "clear": In(1),
                "seen": Out(1),
                "error": Out(1),
                "cause": Out(8),
                "unit": Out(8),
                "tag": Out(16),
                "address": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sources: list[tuple[Value, Any, Any, Any]] = []
        for unit in Unit:
            fault = self.faults[unit]
            sources.append((fault.valid, fault.cause, int(unit), fault.address))
        for engine in Engine:
            sources.append((self.overflow[engine], ErrorCause.TOKEN_OVERFLOW, int(engine), 0))
        sources.append(
            (
                self.bus_fault.valid,
                self.bus_fault.cause,
                self.bus_unit,
                self.bus_fault.address,
            )
        )
        sources.append((self.watchdog, ErrorCause.WATCHDOG, int(Unit.FETCH), 0))

        m.d.comb += self.seen.eq(Cat(valid for valid, *_ in sources).any())
        # Two steps, so that the choice does not lengthen the engines' paths; in a compact machine
        # one.
        step = m.d.comb if self._compact else m.d.sync
        caught = [Signal(name=f"caught_{place}") for place in range(len(sources))]
        m.d.comb += self.error.eq(self.armed & Cat(caught).any())
        held = []
        for place, (valid, cause, unit, address) in enumerate(sources):
            cause_now = Signal(8, name=f"cause_{place}")
            unit_now = Signal(range(len(Unit)), name=f"unit_{place}")
            address_now = Signal(32, name=f"address_{place}")
            step += [
                caught[place].eq(valid & self.armed),
                cause_now.eq(cause),
                unit_now.eq(unit),
                address_now.eq(address),
            ]
            held.append((cause_now, unit_now, address_now))
        chosen = Signal(range(len(Unit)))
        cause, address = Signal(8), Signal(32)
        if self._compact:
            # As sums of products: fewer tables than a chain of choices.
            first = Cat(seen & ~Cat(caught[:place]).any() for place, seen in enumerate(caught))
            for result, column in ((cause, 0), (chosen, 1)):
                terms = [Mux(first[place], entry[column], 0) for place, entry in enumerate(held)]
                m.d.comb += result.eq(reduce(or_, terms))
            # One for both, which is a term less of each bit.
            transfers = first[Unit.LOAD] | first[Unit.STORE]
            terms = [Mux(transfers, self.faults[Unit.LOAD].address, 0)]
            terms += [
                Mux(first[place], entry[2], 0)
                for place, entry in enumerate(held)
                if place not in (Unit.LOAD, Unit.STORE)
            ]
            m.d.comb += address.eq(reduce(or_, terms))
        else:
            for place, (cause_now, unit_now, address_now) in enumerate(held):
                with m.If(caught[place]) if place == 0 else m.Elif(caught[place]):
                    m.d.comb += [
                        chosen.eq(unit_now),
                        cause.eq(cause_now),
                        address.eq(address_now),
                    ]
        with m.If(self.error):
            m.d.sync += [self.cause.eq(cause), self.unit.eq(chosen), self.address.eq(address)]
        # The tag comes a cycle later. Until then the queues have not been reset, and no command
        # follows the one that is to blame.
        latched = Signal()
        m.d.sync += latched.eq(self.error)
        with m.If(latched):
            with m.Switch(self.unit):
                for unit in Unit:
                    with m.Case(int(unit)):
                        m.d.sync += self.tag.eq(self.tags[unit])
        with m.If(self.clear):
            m.d.sync += [self.cause.eq(0), self.unit.eq(0), self.tag.eq(0), self.address.eq(0)]
        return m


class Control(Component):
    """Registers and what hangs on them. Not part of what `halt` resets.

    The rest of the machine is wrapped in :func:`celosia.hw.fabric.gating.resets`, so that `halt`
    resets it even while it stands still; that it does so on `sleep` is its own affair.

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    bus : In(Wishbone)
        The register bus.
    irq : Out(1)
        An enabled interrupt is pending.
    start : Out(1)
        Doorbell, two cycles later; one cycle.
    done : In(1)
        The program has run to its End; one cycle.
    halt : Out(1)
        Reset of everything else: from an error to the soft reset, and for one cycle by the soft
        reset itself and by the doorbell, before `start`.
    sleep : Out(1)
        No program runs and the sleep bit is set; the doorbell wakes.
    regions : Out(REGION_TABLE)
    region_select : In(2)
        Of a compact machine: all of `regions` is the entry of this region.
    bus_timeout : Out(32)
    faults : In(FaultPort).array(5), tags : In(16).array(5)
        By :class:`Unit`.
    overflow, active, busy, wait_token : In(4)
        From :class:`TokenGates`.
    bus_fault : In(FaultPort), bus_unit : In(3)
        From the arbiter, with the :class:`Unit` that it belongs to.
    events : In(Signature)
        One pulse for each of :data:`EVENTS`, by name.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            ({"region_select": In(range(len(Region)))} if config.compact else {})
            | {
                "bus": In(csr_signature()),
                "irq": Out(1),
                "start": Out(1),
                "done": In(1),
                "halt": Out(1),
                "sleep": Out(1),
                "regions": Out(REGION_TABLE),
                "bus_timeout": Out(32),
                "faults": In(FaultPort()).array(len(Unit)),
                "tags": In(16).array(len(Unit)),
                "overflow": In(ENGINES),
                "active": In(ENGINES),
                "busy": In(ENGINES),
                "wait_token": In(ENGINES),
                "bus_fault": In(FaultPort()),
                "bus_unit": In(range(len(Unit))),
                "events": In(Signature({name: Out(1) for name in EVENTS})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        compact = self._config.compact
        memory: dict[str, Any] = {"stored": STORED, "watched": WATCHED} if compact else {}
        self._csr = csr = RegisterFile(**memory)
        errors = _ErrorLatch(compact=compact)
        counters = MemoryCounters() if compact else Counters()
        m.submodules.counters = counters
        fields = csr.fields
        pending = fields["irq_pending"].values()
        # What the registers show, and what starts and ends a program, changes rarely: the error
        # latch needs two cycles, its tag one more, this here two more.
        clearing = csr.clearing if compact else Const(0)
        sets = (flag.set for flag in pending)
        wakes = Cat(clearing, self.bus.cyc, self.done, errors.seen, *sets).any()
        for name, part, active, tail_cycles in (
            ("csr", csr, wakes, 4),
            ("errors", errors, errors.clear | errors.seen, 3),
        ):
            m.submodules[name] = idles(
                m, part, active, domain=name, platform=platform, tail_cycles=tail_cycles
            )
        registers = m.d[clock("csr", platform)]
        connect(m, flipped(self.bus), csr.bus)
        self._constants(m, fields)
        running = Signal()
        done = Signal()
        failed = Signal()
        ended = Signal()
        doorbell = Signal()
        rung = Signal()
        soft_reset = Signal()
        registers += soft_reset.eq(fields["control"]["soft_reset"])
        m.d.comb += [
            doorbell.eq(fields["doorbell"]["start"] & ~running & ~failed),
            self.sleep.eq(fields["control"]["sleep"] & ~running),
            errors.armed.eq(running),
            errors.clear.eq(rung),
        ]
        registers += [
            rung.eq(doorbell),
            self.start.eq(rung),
            # A program may end with tokens or full accumulator halves left over, and still run to
            # its End: the next one begins with none.
            self.halt.eq(failed | errors.error | soft_reset | doorbell),
            # As late as an error is, so that an error in the last cycle is not lost.
            ended.eq(self.done & running),
        ]
        with m.If(soft_reset):
            registers += [running.eq(0), done.eq(0), failed.eq(0), ended.eq(0)]
        with m.Elif(errors.error):
            registers += [running.eq(0), failed.eq(1)]
            m.d.comb += fields["irq_pending"]["error"].set.eq(1)
        with m.Elif(ended & running):
            registers += [running.eq(0), done.eq(1)]
            m.d.comb += fields["irq_pending"]["done"].set.eq(1)
        with m.Elif(doorbell):
            registers += [running.eq(1), done.eq(0)]
        self._status(m, platform, fields, running, done, failed)
        self._errors(m, fields, errors, counters, running & ~rung)
        self._count(m, fields, counters, running, rung, registers)
        return m

    def _constants(self, m: Module, fields: dict[str, dict[str, Any]]) -> None:
        words = capability_words(self._config)
        for register, value in (
            ("identity", IDENTITY),
            ("version", VERSION),
            ("config_hash", self._config.hash),
        ):
            m.d.comb += fields[register]["value"].eq(value)
        for index, word in enumerate(words):
            ports: Sequence[Any] = list(fields[f"capability{index}"].values())
            # The fields of these registers follow one another without a gap.
            m.d.comb += Cat(*ports).eq(word)

    def _status(
        self,
        m: Module,
        platform: object,
        fields: dict[str, dict[str, Any]],
        running: Signal,
        done: Signal,
        failed: Signal,
    ) -> None:
        pending, enable = fields["irq_pending"], fields["irq_enable"]
        m.d.comb += [
            fields["status"]["busy"].eq(running),
            fields["status"]["done"].eq(done),
            fields["status"]["error"].eq(failed),
        ]
        for engine in Engine:
            m.d.comb += fields["status"][f"{engine.name.lower()}_active"].eq(self.active[engine])
        if self._config.compact:
            memory = RegionMemory()
            m.submodules.regions = DomainRenamer(clock("csr", platform))(memory)
            m.d.comb += [
                memory.written.eq(self._csr.written),
                memory.select.eq(self.region_select),
                self.regions.eq(memory.regions),
                self.bus_timeout.eq(memory.bus_timeout),
            ]
        else:
            m.d.comb += self.bus_timeout.eq(fields["bus_timeout"]["value"])
            for region in Region:
                for part in ("base", "size"):
                    value = fields[f"region{region}_{part}"]["value"]
                    m.d.comb += self.regions[region][part].eq(value)
        m.d[clock("csr", platform)] += self.irq.eq(
            (pending["done"].value & enable["done"]) | (pending["error"].value & enable["error"])
        )

    def _errors(
        self,
        m: Module,
        fields: dict[str, dict[str, Any]],
        errors: _ErrorLatch,
        counters: Counters | MemoryCounters,
        counting: Value,
    ) -> None:
        """`counting`: a program runs, and its cycles are being counted, not those of the last."""
        for unit in Unit:
            for name in ("valid", "cause", "address"):
                m.d.comb += getattr(errors.faults[unit], name).eq(getattr(self.faults[unit], name))
            m.d.comb += errors.tags[unit].eq(self.tags[unit])
        for name in ("valid", "cause", "address"):
            m.d.comb += getattr(errors.bus_fault, name).eq(getattr(self.bus_fault, name))
        if isinstance(counters, MemoryCounters):
            # The limit is seen while no register is read: at the latest a cycle later.
            total, limit, seen = counters.total, self._csr.shown, self._csr.shows & counting
        else:
            total, limit, seen = counters.values[0], fields["watchdog"]["value"], counting
        m.d.sync += errors.watchdog.eq((total >= limit) & (limit != 0) & seen)
        m.d.comb += [
            errors.overflow.eq(self.overflow),
            errors.bus_unit.eq(self.bus_unit),
            fields["error_cause"]["cause"].eq(errors.cause),
            fields["error_cause"]["unit"].eq(errors.unit),
            fields["error_cause"]["tag"].eq(errors.tag),
            fields["error_address"]["value"].eq(errors.address),
        ]

    def _count(
        self,
        m: Module,
        fields: dict[str, dict[str, Any]],
        counters: Counters | MemoryCounters,
        running: Signal,
        rung: Signal,
        registers: Any,
    ) -> None:
        events: dict[str, Value] = {name: getattr(self.events, name) for name in EVENTS}
        for name, port, engine in _FROM_GATES:
            events[name] = getattr(self, port)[engine]
        events["total"] = running
        events["idle"] = ~self.busy.any()
        m.d.comb += [
            counters.events.eq(Cat(events[name] for name, _ in COUNTERS)),
            counters.count.eq(running),
            counters.clear.eq(rung),
        ]
        if isinstance(counters, Counters):
            values = list(counters.values)
        else:
            # All of them show the one that is being read.
            values = [counters.total] + [counters.value] * (len(COUNTERS) - 1)
            first = address_of(f"count_{COUNTERS[0][0]}") // WORD_BYTES
            # The registers look at their values in the cycle after a request.
            registers += [
                counters.read.eq(self.bus.cyc & self.bus.stb & ~self.bus.stall),
                counters.select.eq(self.bus.adr - first),
            ]
        for value, (name, _) in zip(values, COUNTERS, strict=True):
            m.d.comb += fields[f"count_{name}"]["value"].eq(value)
