"""One engine for loads and stores."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import REGION_TABLE, MemPort, word_addr_bits
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Region, Space
from celosia.hw.control.decode import command_layout
from celosia.hw.dma.runs import Stage
from celosia.hw.dma.store import READ_LATENCY_CYCLES
from celosia.hw.dma.transfer import TransferWalk
from celosia.hw.fabric.buffer import StreamBuffer, StreamQueue, StreamWire
from celosia.hw.fabric.count import count
from celosia.hw.fabric.ports import CommandPort, FaultPort
from celosia.hw.memory.ports import ADDR_BITS, WindowRead, WindowWrite

__all__ = ["TransferEngine"]


class TransferEngine(Component):
    """Executes `Load` and `Store`: one bus word a cycle.

    The words of either go the same way: the walk asks for them, where they go to waits in one
    queue, what comes in another, and both are taken at its end. What differs is which of memory
    and SRAM is at which end. Words are asked for only while the first queue has room: the other
    one never has more in it.

    Parameters
    ----------
    config : NpuConfig
    stage : type of StreamBuffer or StreamWire
        What is between the stages of the walk.

    Members
    -------
    load, store : In(CommandPort)
        At most one is valid, and a store only when all loads are done. ``ready`` of a load comes
        when all of its runs have been checked, and words of the next load follow its own; that of a
        store, and of a load that fills tables, in the cycle after all was written.
    done : Out(1)
        All of the oldest load that was not done is written.
    busy : Out(1)
        Words are on their way.
    regions : In(REGION_TABLE)
    region : Out(2)
        The one whose entry is used, while there is a command; else CODE.
    mem : Out(MemPort)
    write : Out(WindowWrite)
    read : Out(WindowRead)
    load_fault : Out(FaultPort)
        ILLEGAL_FIELD, MEM_WINDOW, ACT_RANGE, WGT_RANGE or PARAM_RANGE (also for TABLE).
    store_fault : Out(FaultPort)
        ILLEGAL_FIELD, MEM_WINDOW or ACT_RANGE.
    """

    def __init__(self, config: NpuConfig, *, stage: Stage = StreamBuffer) -> None:
        self._config = config
        self._stage = stage
        super().__init__(
            {
                "load": In(CommandPort()),
                "store": In(CommandPort()),
                "regions": In(REGION_TABLE),
                "region": Out(range(len(Region))),
                "done": Out(1),
                "busy": Out(1),
                "mem": Out(MemPort(config)),
                "write": Out(WindowWrite(config)),
                "read": Out(WindowRead(config)),
                "load_fault": Out(FaultPort()),
                "store_fault": Out(FaultPort()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        depth = config.max_outstanding
        place_bits = max(ADDR_BITS, word_addr_bits(config))
        place = data.StructLayout(
            {"address": place_bits, "mask": config.bus_bytes, "last": 1, "final": 1, "space": 2}
        )
        m.submodules.walk = walk = TransferWalk(config, kind=None, stage=self._stage)
        m.submodules.places = places = StreamQueue(place, depth=depth, spare=False)
        m.submodules.words = words = StreamQueue(config.bus_bits, depth=depth, spare=False)

        # Next to the SRAM, as in the store engine: its grant moves on nothing but this.
        window = data.StructLayout({"addr": ADDR_BITS, "banks": config.act_banks})
        beside = StreamWire if self._stage is StreamWire else StreamBuffer
        m.submodules.windows = windows = beside(window)

        # A cycle late, near to what it chooses between: nothing is on its way in a command's first
        # cycle, nor in that after a store's last one.
        stores = Signal()
        command = data.View(command_layout(Load), walk.command.payload)
        load = data.View(command_layout(Load), self.load.payload)
        m.d.sync += stores.eq(self.store.valid)
        m.d.comb += [
            walk.command.valid.eq(self.load.valid | self.store.valid),
            walk.command.payload.eq(Mux(self.store.valid, self.store.payload, self.load.payload)),
            self.load.ready.eq(walk.command.ready & ~stores),
            self.store.ready.eq(walk.command.ready & stores),
            walk.stores.eq(self.store.valid),
            walk.regions.eq(self.regions),
            self.region.eq(Mux(walk.command.valid, command.region, Region.CODE)),
        ]
        # A cycle late: the walk stands still meanwhile, and it is a long way to the registers.
        for fault, of_it in ((self.load_fault, ~stores), (self.store_fault, stores)):
            m.d.sync += [
                fault.valid.eq(walk.fault.valid & of_it),
                fault.cause.eq(walk.fault.cause),
                fault.address.eq(walk.fault.address),
            ]

        # Asked for and not written: in the queues, or, of a store, on the bus.
        # What has been asked for is known late in its cycle, and counts a cycle later: nothing is
        # written sooner than that.
        in_use = Signal(range(4 * depth))
        counted, drained = Signal(init=1), Signal()  # in_use is 0; and will be
        room = places.i.ready
        asked, arrived, leaves, finished = Signal(), Signal(), Signal(), Signal()
        was_asked = Signal()
        reading = Signal(READ_LATENCY_CYCLES)
        word, end = walk.words.payload, places.o.payload
        request = self.mem.request
        # The beginning: a word is asked for, of memory or of the SRAM.
        m.d.comb += [
            windows.i.valid.eq(stores & walk.words.valid & room),
            windows.i.payload.addr.eq(word.sram),
            windows.i.payload.banks.eq(word.banks),
            self.read.req.eq(windows.o.valid),
            self.read.addr.eq(windows.o.payload.addr),
            self.read.banks.eq(windows.o.payload.banks),
            windows.o.ready.eq(self.read.gnt),
            walk.words.ready.eq(room & Mux(stores, windows.i.ready, request.ready)),
            asked.eq(walk.words.valid & walk.words.ready),
            places.i.valid.eq(asked),
            places.i.payload.address.eq(Mux(stores, word.adr, word.sram)),
            places.i.payload.mask.eq(word.mask),
            places.i.payload.last.eq(word.last),
            places.i.payload.final.eq(word.final),
            places.i.payload.space.eq(word.space),
        ]
        # It comes.
        m.d.comb += [
            words.i.valid.eq(Mux(stores, reading[-1], self.mem.ack)),
            words.i.payload.eq(Mux(stores, self.read.data[: config.bus_bits], self.mem.dat_r)),
            arrived.eq(places.o.valid & words.o.valid),
        ]
        m.d.sync += reading.eq(Cat(self.read.req & self.read.gnt, reading[:-1]))
        # The end: it is written.
        m.d.comb += [
            self.write.req.eq(arrived & ~stores),
            self.write.space.eq(end.space),
            self.write.addr.eq(end.address),
            self.write.data.eq(words.o.payload),
            self.write.mask.eq(end.mask),
            request.valid.eq(Mux(stores, arrived, walk.words.valid & room)),
            request.payload.we.eq(stores),
            request.payload.adr.eq(Mux(stores, end.address, word.adr)),
            request.payload.sel.eq(Mux(stores, end.mask, ~0)),
            request.payload.last.eq(Mux(stores, end.last, word.last)),
            request.payload.dat_w.eq(words.o.payload),
            leaves.eq(arrived & Mux(stores, request.ready, self.write.gnt)),
            places.o.ready.eq(leaves),
            words.o.ready.eq(leaves),
            finished.eq(Mux(stores, self.mem.ack, leaves)),
            walk.drained.eq(drained),
            walk.followed.eq(~stores & (load.space != Space.TABLE)),
            self.busy.eq(~walk.empty | ~drained | self.done),
        ]
        count(m, in_use, was_asked, finished)
        m.d.comb += drained.eq(counted & ~was_asked)
        m.d.sync += [
            was_asked.eq(asked),
            self.done.eq(leaves & end.final & ~stores),
            counted.eq(~was_asked & ((in_use == 0) | ((in_use == 1) & finished))),
        ]
        return m
