"""Fetches the command stream from region CODE."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import REGION_TABLE, MemPort
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Region
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.control.queue import WORD_BITS
from celosia.hw.fabric.buffer import StreamQueue
from celosia.hw.fabric.ports import FaultPort

__all__ = ["CommandFetch"]


class _Unpack(Component):
    """Bus words of 32, 64 or 128 bits in, words of 64 bits out.

    Members
    -------
    clear : In(1)
        Forget half a word.
    i : In(stream of bus_bits)
    o : Out(stream of 64)
    """

    def __init__(self, bus_bits: int) -> None:
        self._bus_bits = bus_bits
        super().__init__(
            {
                "clear": In(1),
                "i": In(stream.Signature(bus_bits)),
                "o": Out(stream.Signature(WORD_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        upper = Signal()  # which half is next
        if self._bus_bits == WORD_BITS:
            m.d.comb += [
                self.o.valid.eq(self.i.valid),
                self.o.payload.eq(self.i.payload),
                self.i.ready.eq(self.o.ready),
            ]
        elif self._bus_bits > WORD_BITS:
            m.d.comb += [
                self.o.valid.eq(self.i.valid),
                self.o.payload.eq(self.i.payload.word_select(upper, WORD_BITS)),
                self.i.ready.eq(self.o.ready & upper),
            ]
            with m.If(self.o.valid & self.o.ready):
                m.d.sync += upper.eq(~upper)
        else:
            lower = Signal(self._bus_bits)
            m.d.comb += [
                self.o.valid.eq(self.i.valid & upper),
                self.o.payload.eq(Cat(lower, self.i.payload)),
                self.i.ready.eq(self.o.ready | ~upper),
            ]
            with m.If(self.i.valid & self.i.ready):
                m.d.sync += [upper.eq(~upper), lower.eq(self.i.payload)]
        with m.If(self.clear):
            m.d.sync += upper.eq(0)
        return m


class CommandFetch(Component):
    """Reads commands in order, one burst a command, at most `ahead` commands ahead.

    What is read ahead of an `End` is thrown away. A command is read only if all of it lies in
    the region; if the stream gets to the region's end and the dispatcher still wants a command,
    that is FETCH_WINDOW.

    Parameters
    ----------
    config : NpuConfig
    ahead : int
        With 0 there is room for one command, and the next is asked for when it is empty.
    spare : bool
        Of the queue: see :class:`celosia.hw.fabric.buffer.StreamQueue`.

    Members
    -------
    start : In(1)
        Begin at offset 0 of region CODE; only while idle.
    stop : In(1)
        Ask for no more and drop what comes.
    starved : In(1)
        The dispatcher wants a command and has nothing.
    regions : In(REGION_TABLE)
    rested : In(1)
        A burst may begin: others have had their share of the bus.
    mem : Out(MemPort)
    words : Out(stream of 64)
    fault : Out(FaultPort)
        FETCH_WINDOW with the address of the command that is not there.
    idle : Out(1)
        Stopped, and nothing in flight.
    active : Out(1)
        Something moves or may be asked for.
    """

    def __init__(self, config: NpuConfig, *, ahead: int = 1, spare: bool = True) -> None:
        self._config = config
        self._ahead, self._spare = ahead, spare
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "starved": In(1),
                "regions": In(REGION_TABLE),
                "rested": In(1, init=1),
                "mem": Out(MemPort(config)),
                "words": Out(stream.Signature(WORD_BITS)),
                "fault": Out(FaultPort()),
                "idle": Out(1),
                "active": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        burst = COMMAND_BYTES // self._config.bus_bytes
        lane_bits = self._config.bus_bytes.bit_length() - 1
        command_bits = COMMAND_BYTES.bit_length() - 1
        ahead = self._ahead * burst
        m.submodules.queue = queue = StreamQueue(
            self._config.bus_bits, depth=burst + ahead, spare=self._spare
        )
        m.submodules.unpack = unpack = _Unpack(self._config.bus_bits)

        region = Signal.like(self.regions[Region.CODE])
        request = self.mem.request
        running = Signal()
        bursting = Signal()
        commands_left = Signal(32 - command_bits)
        words_left = Signal(range(burst))
        in_use = Signal(range(burst + ahead + 1))
        asked = Signal()
        taken = Signal()
        exhausted = Signal()
        begins = Signal()
        m.d.comb += [
            region.eq(self.regions[Region.CODE]),
            request.valid.eq(bursting),
            request.payload.sel.eq(~0),
            request.payload.last.eq(words_left == 0),
            asked.eq(request.valid & request.ready),
            queue.i.valid.eq(self.mem.ack),
            queue.i.payload.eq(self.mem.dat_r),
            unpack.clear.eq(~running),
            unpack.i.valid.eq(queue.o.valid & running),
            unpack.i.payload.eq(queue.o.payload),
            queue.o.ready.eq(unpack.i.ready | ~running),
            taken.eq(queue.o.valid & queue.o.ready),
            self.words.valid.eq(unpack.o.valid),
            self.words.payload.eq(unpack.o.payload),
            unpack.o.ready.eq(self.words.ready),
            begins.eq(running & ~bursting & (commands_left != 0) & (in_use <= ahead) & self.rested),
            self.active.eq(
                Cat(
                    self.start,
                    self.stop,
                    self.fault.valid,
                    bursting,
                    begins,
                    self.mem.ack,
                    taken,
                    self.words.valid & self.words.ready,
                ).any()
            ),
            self.idle.eq(~running & ~bursting & (in_use == 0)),
            exhausted.eq(running & ~bursting & (in_use == 0) & (commands_left == 0)),
            self.fault.valid.eq(exhausted & self.starved),
            self.fault.cause.eq(ErrorCause.FETCH_WINDOW),
            self.fault.address.eq(request.payload.adr << lane_bits),
        ]
        m.d.sync += in_use.eq(in_use + asked - taken)
        with m.If(asked):
            m.d.sync += [
                request.payload.adr.eq(request.payload.adr + 1),
                words_left.eq(words_left - 1),
                bursting.eq(words_left != 0),
            ]
        with m.Elif(begins):
            m.d.sync += [
                bursting.eq(1),
                words_left.eq(burst - 1),
                commands_left.eq(commands_left - 1),
            ]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1),
                request.payload.adr.eq(region.base[lane_bits:]),
                # A base that is not aligned: there is no region.
                commands_left.eq(Mux(region.base[:lane_bits].any(), 0, region.size[command_bits:])),
            ]
        with m.Elif(self.stop | self.fault.valid):
            m.d.sync += running.eq(0)
        return m
