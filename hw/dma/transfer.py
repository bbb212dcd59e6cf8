"""What the load and the store engine share: checking a command and walking through it."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import REGION_TABLE
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Space, Store, counts_of, whole_words_of
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.control.decode import command_layout
from celosia.hw.dma.ports import word_layout
from celosia.hw.dma.runs import RunSequencer, Stage
from celosia.hw.fabric.buffer import StreamBuffer, StreamWire
from celosia.hw.fabric.ports import CommandPort, FaultPort

__all__ = ["TransferWalk"]


class TransferWalk(Component):
    """Takes a `Load` or `Store`, checks it, yields its bus words and completes it.

    A field of no meaning gives ILLEGAL_FIELD: no bytes or no turns; for spaces other than ACT an
    address, a stride or a length that is no multiple of the bus word; for a `Store` a space other
    than ACT. Ranges are checked run by run (see :class:`RunSequencer`). A fault is reported when
    the words before it have got where they should. After it the walk stands still until it is
    reset.

    A command that may be `followed` is complete when its last run has been checked: its words, of
    which the last one is marked, and what becomes of them are the engine's to watch.

    Parameters
    ----------
    config : NpuConfig
    kind : type or None
        :class:`Load` or :class:`Store`; None: both, `stores` says which.
    stage : type of StreamBuffer or StreamWire
        What is between its stages.

    Members
    -------
    command : In(CommandPort)
    stores : In(1)
        The command is a `Store`; only where `kind` is None.
    regions : In(REGION_TABLE)
    words : Out(stream of word_layout)
    drained : In(1)
        Every word that was taken has got where it should.
    followed : In(1)
        The next command may begin while words of this one are on their way.
    empty : Out(1)
        No word is on its way.
    fault : Out(FaultPort)
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        kind: type[Load] | type[Store] | None,
        stage: Stage = StreamBuffer,
    ) -> None:
        self._config = config
        self._stage = stage
        self._kind = kind
        super().__init__(
            {
                "command": In(CommandPort()),
                "stores": In(1),
                "regions": In(REGION_TABLE),
                "words": Out(stream.Signature(word_layout(config))),
                "drained": In(1),
                "followed": In(1),
                "empty": Out(1),
                "fault": Out(FaultPort()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.runs = runs = RunSequencer(self._config, stage=self._stage)
        command = data.View(command_layout(self._kind or Load), self.command.payload)
        region = Signal.like(self.regions[0])
        bad_field = Signal()
        lane_bits = self._config.bus_bytes.bit_length() - 1
        lanes = region.base[:lane_bits]
        m.d.comb += [
            region.eq(self.regions[command.region]),
            runs.transfer.command.as_value().eq(self.command.payload),
            self.words.valid.eq(runs.o.valid),
            self.words.payload.eq(runs.o.payload),
            runs.o.ready.eq(self.words.ready),
        ]
        # Where there is one engine for both, a memory shows the region that is in use.
        plain = self._kind is None and self._stage is StreamWire
        m.d["comb" if plain else "sync"] += [
            # The low bits of a base would shift the lanes: with one set there is no region.
            runs.transfer.region_base.eq(Cat(lanes & 0, region.base[lane_bits:])),
            runs.transfer.region_size.eq(Mux(lanes.any(), 0, region.size)),
        ]
        m.d.sync += bad_field.eq(self._bad_field(command))
        settled = Signal()
        m.d.comb += [
            self.empty.eq(runs.empty),
            settled.eq(self.empty & self.drained),
        ]
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.command.valid & (self.followed | settled)):
                    m.next = "CHECK"
            with m.State("CHECK"):
                with m.If(bad_field):
                    m.d.comb += [
                        self.fault.valid.eq(settled),
                        self.fault.cause.eq(ErrorCause.ILLEGAL_FIELD),
                    ]
                    with m.If(settled):
                        m.next = "STOPPED"
                with m.Else():
                    m.d.comb += runs.transfer.start.eq(1)
                    m.next = "WALK"
            with m.State("WALK"):
                m.d.comb += [
                    self.command.ready.eq(~runs.transfer.busy & (self.followed | settled)),
                    self.fault.valid.eq(runs.fault & settled),
                    self.fault.cause.eq(runs.cause),
                    self.fault.address.eq(runs.address),
                ]
                with m.If(self.command.ready):
                    m.next = "IDLE"
            with m.State("STOPPED"):
                pass
        return m

    def _bad_field(self, command: data.View) -> Value:
        lane_bits = self._config.bus_bytes.bit_length() - 1
        empty = reduce(or_, (command[name] == 0 for name in counts_of(Load)))
        elsewhere = command.space != Space.ACT
        if self._kind is Store:
            return empty | elsewhere
        lanes = [command[name][:lane_bits] for name in whole_words_of(Load)]
        unaligned = Cat(lanes).any()
        return empty | (elsewhere & (unaligned if self._kind is Load else unaligned | self.stores))
