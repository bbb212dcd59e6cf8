"""The walk of a `Load` or `Store` over memory: runs, and the bus words of each run."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import word_addr_bits
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Space
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.dma.ports import TransferPort, word_layout
from celosia.hw.fabric.buffer import StreamBuffer, StreamWire
from celosia.hw.memory.ports import ADDR_BITS, bank_of

__all__ = ["RunSequencer", "Stage"]

Stage = type[StreamBuffer | StreamWire]
"""What is between the stages of a walk."""

OFFSET = signed(34)
"""Shape of a byte offset in a region: one step from a 32-bit one leaves it by at most 24 bits."""


_RUN = {"offset": OFFSET, "sram": ADDR_BITS, "final": 1}


class _RunLoop(Component):
    """The two loops: one run a cycle.

    Members
    -------
    transfer : In(TransferPort)
    o : Out(stream)
        ``offset`` of the run in the region, ``sram`` address, ``final``: the last one.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "transfer": In(TransferPort()),
                "o": Out(stream.Signature(data.StructLayout(_RUN))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        command = self.transfer.command
        run = self.o.payload
        outer_offset = Signal(OFFSET)
        outer_sram = Signal(ADDR_BITS)
        left1 = Signal(16)
        left2 = Signal(12)
        last1 = Signal()
        last2 = Signal()
        next_offset = Signal(OFFSET)
        next_sram = Signal(ADDR_BITS)
        m.d.comb += [
            run.final.eq(last1 & last2),
            next_offset.eq(
                Mux(last1, outer_offset, run.offset)
                + Mux(last1, command.mem_stride2, command.mem_stride1)
            ),
            next_sram.eq(
                Mux(last1, outer_sram, run.sram)
                + Mux(last1, command.sram_stride2, command.sram_stride1)
            ),
        ]
        with m.If(self.transfer.start):
            m.d.sync += [
                self.o.valid.eq(1),
                run.offset.eq(command.mem_addr),
                run.sram.eq(command.sram_addr),
                outer_offset.eq(command.mem_addr),
                outer_sram.eq(command.sram_addr),
                left1.eq(command.n1),
                left2.eq(command.n2),
                last1.eq(command.n1 == 1),
                last2.eq(command.n2 == 1),
            ]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [
                self.o.valid.eq(~run.final),
                run.offset.eq(next_offset),
                run.sram.eq(next_sram),
            ]
            with m.If(last1):
                m.d.sync += [
                    outer_offset.eq(next_offset),
                    outer_sram.eq(next_sram),
                    left1.eq(command.n1),
                    last1.eq(command.n1 == 1),
                    left2.eq(left2 - 1),
                    last2.eq(left2 == 2),
                ]
            with m.Else():
                m.d.sync += [left1.eq(left1 - 1), last1.eq(left1 == 2)]
        return m


def _checked_layout(config: NpuConfig) -> data.StructLayout:
    lane_bits = config.bus_bytes.bit_length() - 1
    return data.StructLayout(
        {
            "adr": word_addr_bits(config),
            "sram": ADDR_BITS,
            "words_less_1": ADDR_BITS + 1 - lane_bits,
            "first_lane": lane_bits,
            "last_lane": lane_bits,
            "final": 1,
            "space": 2,
            "bad_mem": 1,
            "bad_sram": 1,
        }
    )


class _RunCheck(Component):
    """Checks runs against the region and the on-chip memory; two stages, one run a cycle.

    The second stage has a spare entry, so that no ready goes through from the words to the loops.
    With a wire for a buffer there is no second stage.

    Parameters
    ----------
    config : NpuConfig
    stage : type of StreamBuffer or StreamWire
        What is between the stages.

    Members
    -------
    transfer : In(TransferPort)
    i : In(stream)
        Runs.
    o : Out(stream)
        Runs that are in range, as bus words.
    fault : Out(1)
        The run is out of range; it and what follows it are held back.
    cause : Out(8)
    address : Out(32)
        Where the run starts: byte address in system memory (MEM_WINDOW) or on chip.
    """

    def __init__(self, config: NpuConfig, *, stage: Stage = StreamBuffer) -> None:
        self._config = config
        self._stage = stage
        super().__init__(
            {
                "transfer": In(TransferPort()),
                "i": In(stream.Signature(data.StructLayout(_RUN))),
                "o": Out(stream.Signature(_checked_layout(config))),
                "fault": Out(1),
                "cause": Out(8),
                "address": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        command = self.transfer.command
        lane_bits = config.bus_bytes.bit_length() - 1
        run = self.i.payload

        # Stage 1: the sums. The last byte's place, from lane 0 of the first word, gives the
        # number of words and the last lane.
        valid = Signal()
        row_less_1 = Signal(ADDR_BITS)
        begin = Signal(OFFSET)
        end = Signal(OFFSET)
        address = Signal(32)
        sram_word = Signal(ADDR_BITS)
        sram_end = Signal(ADDR_BITS + 1)
        span = Signal(ADDR_BITS + 1)
        final = Signal()
        # Stage 2: the verdict, with the run.
        m.submodules.verdicts = verdicts = self._stage(_checked_layout(config))
        entering, checked = verdicts.i.payload, verdicts.o.payload
        bad = Signal()
        lane = run.offset[:lane_bits]

        m.d.comb += [
            self.i.ready.eq(~valid | verdicts.i.ready),
            verdicts.i.valid.eq(valid),
            entering.bad_mem.eq((begin < 0) | (end > self.transfer.region_size)),
            entering.bad_sram.eq(sram_end > self._space_bytes(m, command.space)),
            entering.adr.eq(address[lane_bits:]),
            entering.sram.eq(sram_word),
            entering.words_less_1.eq(span[lane_bits:]),
            entering.first_lane.eq(address[:lane_bits]),
            entering.last_lane.eq(span[:lane_bits]),
            entering.final.eq(final),
            entering.space.eq(command.space),
            bad.eq(checked.bad_mem | checked.bad_sram),
            verdicts.o.ready.eq(self.o.ready & ~bad),
            self.o.valid.eq(verdicts.o.valid & ~bad),
            self.o.payload.eq(checked),
            self.fault.eq(verdicts.o.valid & bad),
            self.cause.eq(
                Mux(
                    checked.bad_mem,
                    ErrorCause.MEM_WINDOW,
                    self._range_cause(m, command.space),
                )
            ),
            # The word's lane 0 was taken from both addresses.
            self.address.eq(
                Mux(
                    checked.bad_mem,
                    Cat(checked.first_lane, checked.adr),
                    (checked.sram + checked.first_lane)[:ADDR_BITS],
                )
            ),
        ]
        m.d.sync += row_less_1.eq(command.row_bytes - 1)
        with m.If(self.i.ready):
            m.d.sync += [
                valid.eq(self.i.valid),
                begin.eq(run.offset),
                end.eq(run.offset + command.row_bytes),
                address.eq(self.transfer.region_base + run.offset),
                sram_word.eq(run.sram - lane),
                sram_end.eq(run.sram + command.row_bytes),
                span.eq(row_less_1 + lane),
                final.eq(run.final),
            ]
        return m

    def _space_bytes(self, m: Module, space: object) -> Signal:
        size = Signal(ADDR_BITS + 1)
        config = self._config
        with m.Switch(space):
            for value, size_bytes in (
                (Space.ACT, config.act_bytes),
                (Space.WGT, config.wgt_bytes),
                (Space.PARAM, config.param_bytes),
                (Space.TABLE, 256 * config.line_bytes),
            ):
                with m.Case(int(value)):
                    m.d.comb += size.eq(size_bytes)
        return size

    def _range_cause(self, m: Module, space: object) -> Signal:
        cause = Signal(8, init=ErrorCause.PARAM_RANGE)
        with m.Switch(space):
            with m.Case(int(Space.ACT)):
                m.d.comb += cause.eq(ErrorCause.ACT_RANGE)
            with m.Case(int(Space.WGT)):
                m.d.comb += cause.eq(ErrorCause.WGT_RANGE)
        return cause


class _WordLoop(Component):
    """The words of each run: one a cycle, no gap between runs.

    Members
    -------
    i : In(stream)
        Checked runs.
    o : Out(stream of word_layout)
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(_checked_layout(config))),
                "o": Out(stream.Signature(word_layout(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes = self._config.bus_bytes
        offset_bits = self._config.line_bytes.bit_length() - 1
        run = self.i.payload
        word = self.o.payload
        first_bank = Signal(self._config.act_banks)
        left = Signal(ADDR_BITS + 1)
        tail = Signal(lanes)
        final = Signal()
        from_first = Signal(lanes)
        to_last = Signal(lanes)
        m.d.comb += [
            first_bank.eq(bank_of(word.sram[offset_bits:])),
            # A line from the middle of one on is in the next bank as well.
            word.banks.eq(
                first_bank | Mux(word.sram[:offset_bits].any(), first_bank.rotate_left(1), 0)
            ),
            from_first.eq(Cat(run.first_lane <= lane for lane in range(lanes))),
            to_last.eq(Cat(run.last_lane >= lane for lane in range(lanes))),
            word.final.eq(final & word.last),
            self.i.ready.eq(~self.o.valid | (self.o.ready & word.last)),
        ]
        with m.If(self.i.ready):
            single = run.words_less_1 == 0
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                word.adr.eq(run.adr),
                word.sram.eq(run.sram),
                word.mask.eq(from_first & Mux(single, to_last, ~0)),
                word.last.eq(single),
                word.space.eq(run.space),
                left.eq(run.words_less_1),
                tail.eq(to_last),
                final.eq(run.final),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += [
                word.adr.eq(word.adr + 1),
                word.sram.eq(word.sram + lanes),
                word.mask.eq(Mux(left == 1, tail, ~0)),
                word.last.eq(left == 1),
                left.eq(left - 1),
            ]
        return m


class RunSequencer(Component):
    """All bus words of a `Load` or `Store`, one a cycle, every run checked before its first word.

    A run starts at byte d of memory and byte s on chip. Its word k is at the aligned address
    ``(d & -B) + k*B`` and its byte 0 belongs to byte ``s - d % B + k*B`` on chip. The first word
    comes six cycles after the start, or four with wires for buffers. The next transfer may start
    when all runs of one have been checked: its words come behind those of the last run.

    Parameters
    ----------
    config : NpuConfig
    stage : type of StreamBuffer or StreamWire
        What is between the stages.

    Members
    -------
    transfer : In(TransferPort)
    o : Out(stream of word_layout)
    empty : Out(1)
        No word is on its way.
    fault : Out(1)
        A run is out of range; no word of it comes.
    cause : Out(unsigned(8))
    address : Out(unsigned(32))
        Where the run starts: byte address in system memory (MEM_WINDOW, looked at first) or on
        chip.
    """

    def __init__(self, config: NpuConfig, *, stage: Stage = StreamBuffer) -> None:
        self._config = config
        self._stage = stage
        super().__init__(
            {
                "transfer": In(TransferPort()),
                "o": Out(stream.Signature(word_layout(config))),
                "empty": Out(1),
                "fault": Out(1),
                "cause": Out(unsigned(8)),
                "address": Out(unsigned(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.loop = loop = _RunLoop()
        m.submodules.check = check = _RunCheck(self._config, stage=self._stage)
        m.submodules.words = words = _WordLoop(self._config)
        # With a spare entry, where there is an entry at all: the bus and the SRAM, which grant late
        # in their cycle, move on nothing but this.
        last = StreamWire if self._stage is StreamWire else StreamBuffer
        m.submodules.buffer = buffer = last(word_layout(self._config))
        for part in (loop, check):
            for name in ("command", "region_base", "region_size", "start"):
                m.d.comb += getattr(part.transfer, name).eq(getattr(self.transfer, name))
        for source, sink in (
            (loop.o, check.i),
            (check.o, words.i),
            (words.o, buffer.i),
            (buffer.o, self.o),
        ):
            m.d.comb += [
                sink.valid.eq(source.valid),
                sink.payload.eq(source.payload),
                source.ready.eq(sink.ready),
            ]
        m.d.comb += [
            self.empty.eq(~words.o.valid & ~buffer.o.valid),
            self.fault.eq(check.fault),
            self.cause.eq(check.cause),
            self.address.eq(check.address),
        ]
        with m.If(self.transfer.start):
            m.d.sync += self.transfer.busy.eq(1)
        with m.Elif(check.o.valid & check.o.ready & check.o.payload.final):
            m.d.sync += self.transfer.busy.eq(0)
        return m
