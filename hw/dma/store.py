"""The store engine: activation SRAM to system memory."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import REGION_TABLE, MemPort, word_addr_bits
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Store
from celosia.hw.dma.runs import Stage
from celosia.hw.dma.transfer import TransferWalk
from celosia.hw.fabric.buffer import StreamBuffer, StreamQueue
from celosia.hw.fabric.ports import CommandPort, FaultPort
from celosia.hw.memory.ports import ADDR_BITS, WindowRead

__all__ = ["StoreEngine"]

READ_LATENCY_CYCLES = 3
"""From the grant of a window read to its data."""

QUEUE_DEPTH = 16
"""Words between the walk and the bus: covers the read's and the queue's latency."""

MAX_UNACKNOWLEDGED_WORDS = 255


class StoreEngine(Component):
    """Executes `Store`: one bus word a cycle as long as memory and the read port keep up.

    ``command.ready`` comes in the cycle after the memory's last acknowledgement. At the edges of
    a run only the bytes that belong to it are written.

    Parameters
    ----------
    config : NpuConfig
    stage : type of StreamBuffer or StreamWire
        What is between the stages of the walk.

    Members
    -------
    command : In(CommandPort)
    regions : In(REGION_TABLE)
    mem : Out(MemPort)
    read : Out(WindowRead)
    fault : Out(FaultPort)
        ILLEGAL_FIELD, MEM_WINDOW or ACT_RANGE.
    """

    def __init__(self, config: NpuConfig, *, stage: Stage = StreamBuffer) -> None:
        self._config = config
        self._stage = stage
        super().__init__(
            {
                "command": In(CommandPort()),
                "regions": In(REGION_TABLE),
                "mem": Out(MemPort(config)),
                "read": Out(WindowRead(config)),
                "fault": Out(FaultPort()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        place = data.StructLayout(
            {"adr": word_addr_bits(config), "mask": config.bus_bytes, "last": 1}
        )
        m.submodules.walk = walk = TransferWalk(config, kind=Store, stage=self._stage)
        m.submodules.places = places = StreamQueue(place, depth=QUEUE_DEPTH)
        m.submodules.bytes = words = StreamQueue(config.bus_bits, depth=QUEUE_DEPTH)

        # Next to the SRAM: its grant comes late in its cycle, and moves on nothing but this.
        window = data.StructLayout({"addr": ADDR_BITS, "banks": config.act_banks})
        m.submodules.windows = windows = StreamBuffer(window)

        queued = Signal(range(QUEUE_DEPTH + 1))
        unacknowledged = Signal(range(MAX_UNACKNOWLEDGED_WORDS + 1))
        reading = Signal(READ_LATENCY_CYCLES)
        # There is room in the queues; one more acknowledgement can be counted.
        queue_room, count_room = Signal(init=1), Signal(init=1)
        drained = Signal(init=1)  # unacknowledged is 0
        asked = Signal()
        granted = Signal()
        sent = Signal()
        word = walk.words.payload
        request = self.mem.request
        m.d.comb += [
            walk.command.valid.eq(self.command.valid),
            walk.command.payload.eq(self.command.payload),
            self.command.ready.eq(walk.command.ready),
            walk.regions.eq(self.regions),
            walk.drained.eq(drained),
            self.fault.valid.eq(walk.fault.valid),
            self.fault.cause.eq(walk.fault.cause),
            self.fault.address.eq(walk.fault.address),
        ]
        # Window reads.
        m.d.comb += [
            asked.eq(walk.words.valid & walk.words.ready),
            walk.words.ready.eq(queue_room & count_room & windows.i.ready),
            windows.i.valid.eq(asked),
            windows.i.payload.addr.eq(word.sram),
            windows.i.payload.banks.eq(word.banks),
            self.read.req.eq(windows.o.valid),
            self.read.addr.eq(windows.o.payload.addr),
            self.read.banks.eq(windows.o.payload.banks),
            windows.o.ready.eq(self.read.gnt),
            granted.eq(self.read.req & self.read.gnt),
            places.i.valid.eq(asked),
            places.i.payload.adr.eq(word.adr),
            places.i.payload.mask.eq(word.mask),
            places.i.payload.last.eq(word.last),
            words.i.valid.eq(reading[-1]),
            words.i.payload.eq(self.read.data[: config.bus_bits]),
        ]
        m.d.sync += reading.eq(Cat(granted, reading[:-1]))
        # Writes to memory.
        m.d.comb += [
            request.valid.eq(places.o.valid & words.o.valid),
            request.payload.we.eq(1),
            request.payload.adr.eq(places.o.payload.adr),
            request.payload.sel.eq(places.o.payload.mask),
            request.payload.last.eq(places.o.payload.last),
            request.payload.dat_w.eq(words.o.payload),
            sent.eq(request.valid & request.ready),
            places.o.ready.eq(sent),
            words.o.ready.eq(sent),
        ]
        m.d.sync += [
            queued.eq(queued + asked - sent),
            unacknowledged.eq(unacknowledged + asked - self.mem.ack),
            drained.eq(~asked & ((unacknowledged == 0) | ((unacknowledged == 1) & self.mem.ack))),
            queue_room.eq(
                sent | ~((queued == QUEUE_DEPTH) | ((queued == QUEUE_DEPTH - 1) & asked))
            ),
            count_room.eq(
                self.mem.ack
                | ~(
                    (unacknowledged == MAX_UNACKNOWLEDGED_WORDS)
                    | ((unacknowledged == MAX_UNACKNOWLEDGED_WORDS - 1) & asked)
                )
            ),
        ]
        return m
