"""The register shell: start and end of a program, errors, interrupt, watchdog, counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from celosia.hw import parts
from celosia.hw.bus.csr import WORD_BYTES, csr_signature
from celosia.hw.bus.ports import REGION_TABLE
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine, Region
from celosia.hw.contract.regs import (
    COUNTERS,
    IDENTITY,
    VERSION,
    address_of,
    capability_words,
)
from celosia.hw.control.counters import Counters
from celosia.hw.control.errors import ErrorLatch
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
        Where regions are in a memory, all of `regions` is the entry of this region.
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
            {
                "bus": In(csr_signature()),
                "irq": Out(1),
                "start": Out(1),
                "done": In(1),
                "halt": Out(1),
                "sleep": Out(1),
                "regions": Out(REGION_TABLE),
                "region_select": In(range(len(Region))),
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
        self._csr = csr = parts.shell_registers(self._config)
        errors = parts.error_latch(self._config)
        m.submodules.counters = counters = parts.counters(self._config)
        fields = csr.fields
        pending = fields["irq_pending"].values()
        # What the registers show, and what starts and ends a program, changes rarely: the error
        # latch needs two cycles, its tag one more, this here two more.
        sets = (flag.set for flag in pending)
        wakes = Cat(csr.clearing, self.bus.cyc, self.done, errors.seen, *sets).any()
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
        self._count(m, fields, counters, running, rung)
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
        m.d.comb += [
            self._csr.region_select.eq(self.region_select),
            self.regions.eq(self._csr.regions),
            self.bus_timeout.eq(self._csr.bus_timeout),
        ]
        m.d[clock("csr", platform)] += self.irq.eq(
            (pending["done"].value & enable["done"]) | (pending["error"].value & enable["error"])
        )

    def _errors(
        self,
        m: Module,
        fields: dict[str, dict[str, Any]],
        errors: ErrorLatch,
        counters: Counters,
        counting: Value,
    ) -> None:
        """`counting`: a program runs, and its cycles are being counted, not those of the last."""
        for unit in Unit:
            for name in ("valid", "cause", "address"):
                m.d.comb += getattr(errors.faults[unit], name).eq(getattr(self.faults[unit], name))
            m.d.comb += errors.tags[unit].eq(self.tags[unit])
        for name in ("valid", "cause", "address"):
            m.d.comb += getattr(errors.bus_fault, name).eq(getattr(self.bus_fault, name))
        # The limit may be out of sight while a register is read: it is seen a cycle later then.
        total, limit = counters.values[0], self._csr.limit
        seen = self._csr.limit_seen & counting
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
        counters: Counters,
        running: Signal,
        rung: Signal,
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
        first = address_of(f"count_{COUNTERS[0][0]}") // WORD_BYTES
        m.d.comb += [
            counters.read.eq(self.bus.cyc & self.bus.stb & ~self.bus.stall),
            counters.select.eq(self.bus.adr - first),
        ]
        for value, (name, _) in zip(counters.values, COUNTERS, strict=True):
            m.d.comb += fields[f"count_{name}"]["value"].eq(value)
