"""Everything between the command stream in memory and the engines."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw import parts
from celosia.hw.bus.ports import REGION_TABLE, MemPort
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine
from celosia.hw.control.dispatch import Dispatcher
from celosia.hw.fabric.ports import CommandPort, FaultPort

__all__ = ["FrontEnd"]

ENGINES = len(Engine)


class FrontEnd(Component):
    """Fetch, dispatcher, queues and token gates.

    Parameters
    ----------
    config : NpuConfig

    Members
    -------
    start : In(1)
        Run the program at offset 0 of region CODE.
    done : Out(1)
        It has run to its `End`; one cycle.
    regions : In(REGION_TABLE)
    rested : In(2)
        See :class:`celosia.hw.bus.arbiter.BusArbiter`.
    mem : Out(MemPort)
    commands : Out(CommandPort).array(4)
        By :class:`Engine`.
    loaded, streamed : In(1)
        See :class:`TokenGates`.
    fault : Out(FaultPort)
        FETCH_WINDOW, ILLEGAL_OPCODE or ILLEGAL_FIELD.
    tag : Out(16)
        Tag of the command that was dispatched last.
    tags : Out(16).array(4)
        Tag of each engine's command.
    moves : Out(1)
        Anything changes here. While it is low, all stays as it is.
    active, busy, wake, wait_token, overflow : Out(4)
        See :class:`TokenGates`.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "done": Out(1),
                "regions": In(REGION_TABLE),
                "rested": In(2, init=0b11),
                "mem": Out(MemPort(config)),
                "loaded": In(1),
                "streamed": In(1),
                "commands": Out(CommandPort()).array(ENGINES),
                "fault": Out(FaultPort()),
                "tag": Out(16),
                "tags": Out(16).array(ENGINES),
                "moves": Out(1),
                "active": Out(ENGINES),
                "busy": Out(ENGINES),
                "wake": Out(ENGINES),
                "wait_token": Out(ENGINES),
                "overflow": Out(ENGINES),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fetch = fetch = parts.command_fetch(self._config)
        m.submodules.dispatch = dispatch = Dispatcher(self._config)
        m.submodules.gates = gates = parts.token_gates(self._config)
        queues = parts.command_queues(self._config)
        queues.add_to(m)
        connect(m, fetch.words, dispatch.words)
        connect(m, fetch.mem, flipped(self.mem))
        m.d.comb += [
            queues.begun.eq(gates.begun),
            gates.loaded.eq(self.loaded),
            gates.streamed.eq(self.streamed),
        ]
        for engine in Engine:
            connect(m, dispatch.queues[engine], queues.i[engine])
            connect(m, queues.o[engine], gates.i[engine])
            m.d.comb += [
                self.commands[engine].valid.eq(gates.o[engine].valid & queues.whole[engine]),
                self.commands[engine].payload.eq(gates.o[engine].payload),
                gates.o[engine].ready.eq(self.commands[engine].ready & queues.whole[engine]),
                self.tags[engine].eq(gates.tags[engine]),
            ]
        provided = Signal()
        moving = Cat(fetch.active, dispatch.active, gates.moves.any(), queues.active)
        m.d.comb += [
            fetch.start.eq(self.start),
            dispatch.start.eq(self.start),
            fetch.regions.eq(self.regions),
            # What array and vector engine do next is wanted as soon as data is.
            provided.eq(queues.waiting[Engine.ARRAY] & queues.waiting[Engine.VECTOR]),
            fetch.rested.eq(self.rested.bit_select(provided, 1)),
            fetch.stop.eq(dispatch.stop),
            fetch.starved.eq(dispatch.starved),
            dispatch.idle.eq(queues.empty.all() & ~gates.under_way & fetch.idle),
            self.done.eq(dispatch.done),
            self.fault.valid.eq(dispatch.fault.valid | fetch.fault.valid),
            self.fault.cause.eq(dispatch.fault.cause),
            self.fault.address.eq(0),
            self.tag.eq(dispatch.tag),
            self.moves.eq(moving.any()),
            self.active.eq(gates.active),
            self.busy.eq(gates.busy),
            self.wake.eq(gates.wake),
            self.wait_token.eq(gates.wait_token),
            self.overflow.eq(gates.overflow),
        ]
        with m.If(~dispatch.fault.valid):
            m.d.comb += [
                self.fault.cause.eq(fetch.fault.cause),
                self.fault.address.eq(fetch.fault.address),
            ]
        return m
