"""The first error of a program: which one, of which command."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.isa import Engine
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.fabric.ports import FaultPort, Unit

__all__ = ["DirectErrorLatch", "ErrorLatch"]

ENGINES = len(Engine)

Held = tuple[Signal, Signal, Signal]
"""Cause, unit and address of an error."""


class ErrorLatch(Component):
    """Keeps the first error while it is armed.

    Errors are registered as they come, and chosen from in the next cycle, so that the choice does
    not lengthen the engines' paths.

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

    CAUGHT_IN = "sync"
    """Domain in which errors are caught before one is chosen."""

    def __init__(self) -> None:
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
        caught = [Signal(name=f"caught_{place}") for place in range(len(sources))]
        m.d.comb += self.error.eq(self.armed & Cat(caught).any())
        held = []
        for place, (valid, cause, unit, address) in enumerate(sources):
            cause_now = Signal(8, name=f"cause_{place}")
            unit_now = Signal(range(len(Unit)), name=f"unit_{place}")
            address_now = Signal(32, name=f"address_{place}")
            # A token that is too many comes of a long way through the gates.
            m.d["sync" if cause is ErrorCause.TOKEN_OVERFLOW else self.CAUGHT_IN] += [
                caught[place].eq(valid & self.armed),
                cause_now.eq(cause),
                unit_now.eq(unit),
                address_now.eq(address),
            ]
            held.append((cause_now, unit_now, address_now))
        chosen = Signal(range(len(Unit)))
        cause, address = Signal(8), Signal(32)
        self._choose(m, caught, held, (cause, chosen, address))
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

    def _choose(
        self, m: Module, caught: list[Signal], held: list[Held], results: tuple[Signal, ...]
    ) -> None:
        """Drive cause, unit and address of the first of the errors that are caught."""
        for place, values in enumerate(held):
            with m.If(caught[place]) if place == 0 else m.Elif(caught[place]):
                m.d.comb += [
                    result.eq(value) for result, value in zip(results, values, strict=True)
                ]


class DirectErrorLatch(ErrorLatch):
    """Chooses among errors in the cycle in which they come.

    The address of a fault of LOAD is taken for one of STORE, too: there is one engine for both.
    """

    CAUGHT_IN = "comb"

    def _choose(
        self, m: Module, caught: list[Signal], held: list[Held], results: tuple[Signal, ...]
    ) -> None:
        """Choose by sums of products: fewer tables than a chain of choices."""
        *narrow, address = results
        first = Cat(seen & ~Cat(caught[:place]).any() for place, seen in enumerate(caught))
        for column, result in enumerate(narrow):
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
