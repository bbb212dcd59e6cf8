"""One word at a time on the register bus or the memory bus."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.lanes import memory_signature

__all__ = ["BusAccess"]


class BusAccess(Component):
    """Does one access, and gives up when nothing answers.

    ``cyc`` falls after every access, so that an answer that comes too late finds nobody. The
    answer may come in the cycle in which the request is accepted, or later. What is read is on the
    bus in the cycle before `done`.

    Members
    -------
    start : In(1)
        While not `busy`.
    registers : In(1), write : In(1), address : In(32), data : In(32), sel : In(4)
        Which bus, and what; constant while `busy`. The address is of bytes, a multiple of 4.
    outside : In(1)
        With `start` and `registers`: the address has more bits than those of registers.
    tick : In(1)
        An answer may take from one to the next, and what is left of the one that is running.
    busy : Out(1)
    done : Out(1)
        For one cycle, the last of `busy`, with the following.
    error : Out(1), timeout : Out(1)
    csr : Out(Wishbone), mem : Out(Wishbone)
    """

    start: In(1)
    registers: In(1)
    write: In(1)
    address: In(32)
    data: In(32)
    sel: In(4)
    outside: In(1)
    tick: In(1)
    busy: Out(1)
    done: Out(1)
    error: Out(1)
    timeout: Out(1)
    csr: Out(csr_signature())
    mem: Out(memory_signature())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        csr, mem = self.csr, self.mem
        strobe = Signal()
        ticked = Signal()
        stall, ack, err = Signal(), Signal(), Signal()
        for bus, chosen in ((csr, self.registers), (mem, ~self.registers)):
            m.d.comb += [
                bus.cyc.eq(self.busy & ~self.done & chosen),
                bus.stb.eq(strobe & ~self.done & chosen),
                bus.we.eq(self.write),
                bus.adr.eq(self.address[2:]),
                bus.dat_w.eq(self.data),
                bus.sel.eq(self.sel),
            ]
        m.d.comb += [
            stall.eq(Mux(self.registers, csr.stall, mem.stall)),
            ack.eq(Mux(self.registers, csr.ack, mem.ack)),
            err.eq(Mux(self.registers, csr.err, mem.err)),
        ]
        nowhere = self.registers & self.outside
        with m.If(~self.busy):
            m.d.sync += [
                self.busy.eq(self.start),
                self.error.eq(nowhere),
                self.timeout.eq(0),
                self.done.eq(self.start & nowhere),
                strobe.eq(1),
                ticked.eq(0),
            ]
        with m.Elif(self.done):
            m.d.sync += [self.busy.eq(0), self.done.eq(0)]
        with m.Else():
            m.d.sync += ticked.eq(ticked | self.tick)
            with m.If(~stall):
                m.d.sync += strobe.eq(0)
            with m.If(ack | err):
                m.d.sync += [
                    self.done.eq(1),
                    self.error.eq(err),
                ]
            with m.Elif(ticked & self.tick):
                m.d.sync += [self.done.eq(1), self.timeout.eq(1)]
        return m
