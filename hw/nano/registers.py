"""The registers of the firmware machine: most of them words of the processor's data memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.csr import csr_signature
from celosia.hw.contract.isa import Engine
from celosia.hw.contract.regs import ACCESS, REGISTERS, address_of, register
from celosia.hw.nano.instructions import DATA_ADDRESS_BITS

__all__ = ["Registers"]

WORD_BITS = 32
WORD_BYTES = 4

IN_LOGIC = ("control", "status", "doorbell", "irq_enable", "irq_pending", "count_total")
"""Registers with flip-flops of their own."""


def _word(name: str) -> int:
    return address_of(name) // WORD_BYTES


class Registers(Component):
    """The Wishbone target: the map of :mod:`celosia.hw.contract.regs`.

    The answer comes four or five cycles after the request. Reads go through the processor's data
    memory in cycles in which it does not use it, writes likewise.

    Members
    -------
    bus : In(Wishbone)
    irq : Out(1)
    host_turn : In(1), host_address : Out(9), host_data : In(32)
    host_write : Out(4), host_write_data : Out(32)
        The processor's data memory (:class:`celosia.hw.nano.processor.Processor`).
    running : Out(1)
        From the doorbell to the end or the error.
    reset : Out(1)
        Soft reset; one cycle.
    start : Out(1)
        The doorbell that begins a program; one cycle.
    asleep : Out(1)
        No program runs, and the sleep bit is set.
    finish, fail : In(1)
        The program has ended, or an error has stopped it; one cycle.
    active : In(4)
        Engines that have a command.
    cycles : Out(32)
        Since the doorbell.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "bus": In(csr_signature()),
                "irq": Out(1),
                "host_turn": In(1),
                "host_address": Out(DATA_ADDRESS_BITS),
                "host_data": In(WORD_BITS),
                "host_write": Out(WORD_BYTES),
                "host_write_data": Out(WORD_BITS),
                "running": Out(1),
                "reset": Out(1),
                "start": Out(1),
                "asleep": Out(1),
                "finish": In(1),
                "fail": In(1),
                "active": In(len(Engine)),
                "cycles": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        adr = Signal.like(bus.adr, reset_less=True)
        data = Signal(WORD_BITS, reset_less=True)
        select = Signal(WORD_BYTES, reset_less=True)
        writes = Signal()
        mapped, memory_writes = Signal(), Signal()
        own = Signal(WORD_BITS)
        is_own = Signal()
        writes_own = Signal()
        answers, unmapped = Signal(), Signal()
        with m.Switch(adr):
            for entry in REGISTERS:
                with m.Case(entry.address // WORD_BYTES):
                    m.d.comb += mapped.eq(1)
                    if entry.name in IN_LOGIC:
                        m.d.comb += is_own.eq(1)
                    elif any(field.access is ACCESS.RW for field in entry.fields):
                        m.d.comb += memory_writes.eq(1)
        m.d.comb += [
            bus.stall.eq(1),
            # Whoever has given up is not answered.
            bus.ack.eq(bus.cyc & answers & ~unmapped),
            bus.err.eq(bus.cyc & answers & unmapped),
            self.host_address.eq(adr),
            self.host_write_data.eq(data),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += bus.stall.eq(0)
                m.d.sync += [
                    adr.eq(bus.adr),
                    data.eq(bus.dat_w),
                    select.eq(bus.sel),
                    writes.eq(bus.we),
                ]
                with m.If(bus.cyc & bus.stb):
                    m.next = "ACCESS"
            with m.State("ACCESS"):
                # A read's address in the host's turn, a write in the processor's.
                with m.If(~bus.cyc):
                    m.next = "IDLE"
                with m.Elif(self.host_turn != (writes & ~is_own)):
                    m.d.comb += [
                        self.host_write.eq(
                            Mux(writes & memory_writes & ~self.host_turn, select, 0)
                        ),
                        writes_own.eq(writes & is_own),
                    ]
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.sync += [
                    bus.dat_r.eq(Mux(is_own, own, Mux(mapped, self.host_data, 0))),
                    answers.eq(bus.cyc),
                    unmapped.eq(~mapped),
                ]
                m.next = "ANSWER"
            with m.State("ANSWER"):
                m.d.sync += [answers.eq(0), bus.dat_r.eq(0)]
                m.next = "IDLE"
        self._flags(m, adr, own, writes_own, data, select)
        return m

    def _flags(
        self,
        m: Module,
        adr: Signal,
        own: Signal,
        writes_own: Signal,
        data: Signal,
        select: Signal,
    ) -> None:
        """Registers that are not in memory."""
        sleep, done, failed = Signal(), Signal(), Signal()
        enable, pending = Signal(2), Signal(2)
        low = Signal(8)
        m.d.comb += low.eq(Mux(writes_own & select[0], data[:8], 0))

        def at(name: str) -> Signal:
            return adr == _word(name)

        assert [field.name for field in register("irq_pending").fields] == ["done", "error"]
        m.d.comb += [
            self.asleep.eq(sleep & ~self.running),
            self.reset.eq(at("control") & low[0]),
            self.start.eq(at("doorbell") & low[0] & ~self.running & ~failed),
        ]
        with m.If(writes_own & select[0]):
            with m.If(at("control")):
                m.d.sync += sleep.eq(data[1])
            with m.If(at("irq_enable")):
                m.d.sync += enable.eq(data)
        clears = Mux(at("irq_pending"), low[:2], 0)
        stops = self.running & ~self.reset
        sets = Cat(self.finish & stops, self.fail & stops)
        m.d.sync += [pending.eq((pending & ~clears) | sets), self.irq.eq((pending & enable).any())]
        with m.If(self.running):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        with m.If(self.reset):
            m.d.sync += Cat(self.running, done, failed).eq(0)
        with m.Elif(self.running & self.fail):
            m.d.sync += [self.running.eq(0), failed.eq(1)]
        with m.Elif(self.running & self.finish):
            m.d.sync += [self.running.eq(0), done.eq(1)]
        with m.Elif(self.start):
            m.d.sync += [self.running.eq(1), done.eq(0), self.cycles.eq(0)]
        with m.Switch(adr):
            for name, value in (
                ("control", Cat(0, sleep)),
                ("status", Cat(self.running, done, failed, 0, self.active)),
                ("irq_enable", enable),
                ("irq_pending", pending),
                ("count_total", self.cycles),
            ):
                with m.Case(_word(name)):
                    m.d.comb += own.eq(value)
