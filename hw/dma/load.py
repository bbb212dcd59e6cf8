"""The load engine: system memory to on-chip memories."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import REGION_TABLE, MemPort
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Space
from celosia.hw.control.decode import command_layout
from celosia.hw.dma.runs import Stage
from celosia.hw.dma.transfer import TransferWalk
from celosia.hw.fabric.buffer import StreamBuffer, StreamQueue
from celosia.hw.fabric.ports import CommandPort, FaultPort
from celosia.hw.memory.ports import ADDR_BITS, WindowWrite

__all__ = ["LoadEngine"]


class LoadEngine(Component):
    """Executes `Load`: one bus word a cycle as long as memory and the write port keep up.

    Every bus word is one window write. Reads are asked for only while there is room for their
    answers: twice ``max_outstanding`` words, which covers the way through the arbiter and back.
    ``command.ready`` comes when all runs have been checked, and the words of the next command
    follow those of this one; `done` comes in the cycle after the last write was granted. One that
    fills tables has the engine for itself.

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
    write : Out(WindowWrite)
    done : Out(1)
        All of the oldest command that was not done is written.
    busy : Out(1)
        Words are on their way.
    fault : Out(FaultPort)
        ILLEGAL_FIELD, MEM_WINDOW, ACT_RANGE, WGT_RANGE or PARAM_RANGE (also for TABLE).
    """

    def __init__(self, config: NpuConfig, *, stage: Stage = StreamBuffer) -> None:
        self._config = config
        self._stage = stage
        super().__init__(
            {
                "command": In(CommandPort()),
                "regions": In(REGION_TABLE),
                "mem": Out(MemPort(config)),
                "write": Out(WindowWrite(config)),
                "done": Out(1),
                "busy": Out(1),
                "fault": Out(FaultPort()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        depth = 2 * config.max_outstanding
        place = data.StructLayout(
            {"sram": ADDR_BITS, "mask": config.bus_bytes, "space": 2, "final": 1}
        )
        m.submodules.walk = walk = TransferWalk(config, kind=Load, stage=self._stage)
        m.submodules.places = places = StreamQueue(place, depth=depth)
        m.submodules.answers = answers = StreamQueue(config.bus_bits, depth=depth)

        in_use = Signal(range(depth + 1))
        room = Signal(init=1)  # in_use is not depth
        drained = Signal(init=1)  # in_use is 0
        asked, asked_before = Signal(), Signal()
        place_asked = Signal(place, reset_less=True)
        written = Signal()
        word = walk.words.payload
        command = data.View(command_layout(Load), self.command.payload)
        request = self.mem.request
        m.d.comb += [
            walk.command.valid.eq(self.command.valid),
            walk.command.payload.eq(self.command.payload),
            self.command.ready.eq(walk.command.ready),
            walk.regions.eq(self.regions),
            walk.drained.eq(drained),
            walk.followed.eq(command.space != Space.TABLE),
            self.busy.eq(~walk.empty | ~drained | self.done),
        ]
        # A cycle late: the loads before it are done then. The walk stands still meanwhile.
        m.d.sync += [
            self.fault.valid.eq(walk.fault.valid),
            self.fault.cause.eq(walk.fault.cause),
            self.fault.address.eq(walk.fault.address),
        ]
        # Requests.
        m.d.comb += [
            request.valid.eq(walk.words.valid & room),
            request.payload.adr.eq(word.adr),
            request.payload.sel.eq(~0),
            request.payload.last.eq(word.last),
            walk.words.ready.eq(request.ready & room),
            asked.eq(request.valid & request.ready),
            # A turn on the bus comes late in its cycle, too late for the queue.
            places.i.valid.eq(asked_before),
            places.i.payload.eq(place_asked),
        ]
        m.d.sync += [
            asked_before.eq(asked),
            place_asked.sram.eq(word.sram),
            place_asked.mask.eq(word.mask),
            place_asked.space.eq(word.space),
            place_asked.final.eq(word.final),
        ]
        # Answers.
        m.d.comb += [
            answers.i.valid.eq(self.mem.ack),
            answers.i.payload.eq(self.mem.dat_r),
            self.write.req.eq(answers.o.valid & places.o.valid),
            self.write.space.eq(places.o.payload.space),
            self.write.addr.eq(places.o.payload.sram),
            self.write.data.eq(answers.o.payload),
            self.write.mask.eq(places.o.payload.mask),
            written.eq(self.write.req & self.write.gnt),
            answers.o.ready.eq(written),
            places.o.ready.eq(written),
        ]
        # From a register: the arbiter, and with it the other ports, wait for the request.
        m.d.sync += [
            self.done.eq(written & places.o.payload.final),
            in_use.eq(in_use + asked - written),
            drained.eq(~asked & ((in_use == 0) | ((in_use == 1) & written))),
            room.eq(written | ~((in_use == depth) | ((in_use == depth - 1) & asked))),
        ]
        return m
