"""Array engine: runs Conv commands."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.data import View
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw import parts
from celosia.hw.array.feed import Feed
from celosia.hw.array.passes import PassWalker
from celosia.hw.array.products import NO_TABLES, TableRows
from celosia.hw.array.streamer import Streamer
from celosia.hw.array.weights import WeightLoader
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Mode, counts_of
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.control.decode import command_layout
from celosia.hw.fabric.delay import delays
from celosia.hw.fabric.ports import CommandPort, FaultPort
from celosia.hw.memory.act import ArrayRead
from celosia.hw.memory.ports import LINES_A_CYCLE, AccRead, WeightRead

__all__ = ["ArrayEngine"]


class ArrayEngine(Component):
    """Convolutions and fully connected layers, a window a cycle.

    ::

        cmd --> passes --> streamer --> feed --> systolic array --> accumulator --> vector engine
                  weights -----------------------^

    The next command is walked, and its first weights are loaded, while the one before it streams:
    waves of one follow those of the other without a gap. There are two at most.

    Parameters
    ----------
    config : NpuConfig
    tables : TableRows
        Rows of the array without multipliers.

    Members
    -------
    cmd : In(CommandPort)
        `ready` when a command has been walked and the one before it is done.
    done : Out(1)
        The oldest command is done: it reads nothing more, and was in order.
    fault : Out(FaultPort)
        About the oldest command; it is not `done` any more then.
    act : Out(ArrayRead)
        Activation SRAM, never refused.
    wgt : Out(WeightRead)
        Weight SRAM.
    acc : In(AccRead)
        The vector engine reads accumulator halves here.
    working : Out(1)
        A command, a wave or a read of the accumulator is under way: the clock is needed, in the
        next cycle too.
    busy, wait_weights, wait_acc, starting : Out(1)
        For the performance counters; at most one is high.
    """

    def __init__(self, config: NpuConfig, *, tables: TableRows = NO_TABLES) -> None:
        self._config = config
        self._tables = tables
        super().__init__(
            {
                "cmd": In(CommandPort()),
                "done": Out(1),
                "fault": Out(FaultPort()),
                "act": Out(ArrayRead(config)),
                "wgt": Out(WeightRead(config)),
                "acc": In(AccRead(config)),
                "working": Out(1),
                "busy": Out(1),
                "wait_weights": Out(1),
                "wait_acc": Out(1),
                "starting": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.walker = walker = PassWalker(config)
        m.submodules.streamer = streamer = Streamer(config)
        m.submodules.weights = weights = parts.weight_loader(config)
        m.submodules.grid = grid = parts.systolic_array(config, self._tables)
        sum_bits = grid.sums[0].shape().width
        accumulator = parts.accumulator(config, sum_bits=sum_bits)
        # The accumulator wants the tag before the sums.
        tag_delay_cycles = grid.latency_cycles - accumulator.LEAD_CYCLES
        m.submodules.feed = feed = parts.feed(config, tag_delay_cycles=tag_delay_cycles)
        m.submodules.accumulator = accumulator

        conv = View(command_layout(Conv), self.cmd.payload)
        started, start, walked = Signal(), Signal(), Signal()
        passes, moves = walker.passes, Signal()
        # A command has given way to the next, and is not done; its last position was streamed.
        previous, streamed = Signal(), Signal()
        illegal = Signal()
        connect(m, flipped(self.act), feed.act)
        connect(m, flipped(self.wgt), weights.wgt)
        connect(m, flipped(self.acc), accumulator.reader)
        m.d.comb += [
            walker.conv.eq(conv),
            streamer.conv.eq(conv),
            streamer.passes.valid.eq(passes.valid & ~illegal),
            streamer.passes.payload.eq(passes.payload),
            streamer.announced.eq(weights.announced),
            moves.eq(streamer.passes.valid & streamer.passes.ready),
            passes.ready.eq(moves),
            walker.start.eq(start),
            streamer.weights_ready.eq(weights.ready),
            streamer.acc_free.eq(accumulator.free),
            weights.offered.eq(streamer.passes.valid),
            weights.offered_line.eq(passes.payload.line),
            weights.moves.eq(moves),
            weights.line.eq(streamer.line),
            weights.take.eq(streamer.take_weights),
            weights.accepted.eq(self.cmd.ready),
            accumulator.take.eq(streamer.take_acc),
            feed.wave.eq(streamer.wave),
            feed.zero_point.eq(streamer.zero_point),
            grid.swap.eq(feed.swap),
            grid.mode.eq(feed.mode),
            grid.window.eq(feed.window),
            grid.pixels.eq(feed.pixels),
            grid.load_en.eq(weights.load_en),
            grid.load_pair.eq(weights.load_pair),
            *(grid.load_data[i].eq(weights.load_data[i]) for i in range(LINES_A_CYCLE)),
            accumulator.tag.eq(feed.tag),
            accumulator.sums.eq(grid.sums),
        ]

        # Looked at once a command, and one cycle late, so that it is on the way to nothing: it is
        # known before the command's first pass is there.
        refused = conv.mode > Mode.ROWS
        if config.joins_rows:
            # The four lines of a joined window are in different banks; it is known how long it is.
            lines = conv.row_pitch[: (config.act_banks * config.line_bytes - 1).bit_length()]
            apart = lines == config.act_banks * config.line_bytes // 2
            refused &= ~(apart & conv.step_kx.any())
        with m.If(start):
            m.d.sync += illegal.eq(
                refused
                | conv.wgt_addr[0]
                | ~Cat(getattr(conv, name).any() for name in counts_of(Conv)).all()
            )
        m.d.comb += [
            start.eq(self.cmd.valid & ~started),
            self.working.eq(self.cmd.valid | previous | ~feed.idle | ~accumulator.idle),
            self.busy.eq(streamer.busy),
            self.wait_weights.eq(streamer.wait_weights),
            self.wait_acc.eq(streamer.wait_acc),
            self.starting.eq(
                self.working & ~(streamer.busy | streamer.wait_weights | streamer.wait_acc)
            ),
        ]
        with m.If(start):
            m.d.sync += started.eq(1)
        with m.If(moves & passes.payload.last):
            m.d.sync += walked.eq(1)
        with m.If(walked & weights.walked & ~previous):
            m.d.comb += self.cmd.ready.eq(1)
            m.d.sync += [started.eq(0), walked.eq(0), previous.eq(1)]
        # With fewer positions than rows its last pass's weights are still being read when the last
        # position is streamed. The next command's waves wait for that, too; what is wrong with them
        # is known three cycles after a position, and a command gives its tokens with the last one.
        over = Signal()
        m.d.comb += over.eq(streamed & weights.settled & previous)
        with m.If(streamer.last):
            m.d.sync += streamed.eq(1)
        with m.Elif(over):
            m.d.sync += streamed.eq(0)
        ends = delays(m, over, 2, name="over")
        with m.If(self.done):
            m.d.sync += previous.eq(0)
        failed = Signal()
        with m.If(self.fault.valid):
            m.d.sync += failed.eq(1)
        wrong = self._elaborate_faults(m, illegal & ~previous, previous, weights, streamer, feed)
        m.d.comb += self.done.eq(ends[-1] & ~wrong & ~failed)
        return m

    def _elaborate_faults(
        self,
        m: Module,
        illegal: Value,
        previous: Signal,
        weights: WeightLoader,
        streamer: Streamer,
        feed: Feed,
    ) -> Value:
        """Report what is wrong; return whether something is that may come with the last position.

        The last line of weights has been asked for a cycle before a command can be done.
        """
        line_bytes = self._config.line_bytes
        overflow = delays(m, streamer.acc_overflow, 3, name="overflow")[-1]
        beyond = weights.out_of_range & ~(weights.out_ahead & previous)
        for condition, cause, address in (
            (illegal, ErrorCause.ILLEGAL_FIELD, 0),
            (overflow, ErrorCause.ACC_OVERFLOW, 0),
            (beyond, ErrorCause.WGT_RANGE, weights.wgt.line * line_bytes),
            (feed.bank_conflict, ErrorCause.BANK_CONFLICT, feed.conflict_addr),
            (feed.act_range, ErrorCause.ACT_RANGE, feed.fault_line * line_bytes),
        ):
            with m.If(condition):
                m.d.comb += [
                    self.fault.valid.eq(1),
                    self.fault.cause.eq(cause),
                    self.fault.address.eq(address),
                ]
        return Cat(overflow, feed.bank_conflict, feed.act_range).any()
