"""The array of the firmware machine: one weight row at a time, over a row of windows."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import ADDRESS_BITS
from celosia.hw.nano.columns import BYTE_BITS, WORD_BITS, Columns
from celosia.hw.nano.instructions import Out as OutPort

__all__ = ["ArrayRuns"]

X_BITS = 20
STEP_BITS = 20
LIMIT_BITS = 17
COUNT_BITS = 12
TAPS_BITS = 14
DRAIN_CYCLES = 4


class ArrayRuns(Component):
    """A multiplier and an accumulator for each column.

    A run adds, for each of `taps` weight rows, the products of that row with the bytes of a row of
    windows to as many vectors of the accumulator: a window a cycle. Which byte of a window the
    columns get is up to the mode: all the one at the window's address (WINDOW; the next row gets
    the one after it), or each its own of a line.

    Parameters
    ----------
    config : NpuConfig
        ``cols`` columns of 32 bits.

    Members
    -------
    port : In(8), write : In(1), write_data : In(32)
        The processor's OUT: ports ``ARRAY_*``.
    busy : Out(1)
        A run is under way; nothing may be written.
    local_address : Out(20)
        Of a word in local memory, while `busy`.
    local_data : In(32)
    beyond : Out(1)
        Since the last SETUP a byte was read beyond the activation SRAM, at `beyond_address`.
    beyond_address : Out(20)
    acc_load, acc_next : In(1)
        `write_data` is the address of a sum (vector * cols + column); go on to the next vector's.
    acc_data : Out(32)
        The sum, two cycles later.

    Raises
    ------
    ValueError
        If the weight SRAM has more rows than a run can count.
    """

    def __init__(self, config: NpuConfig) -> None:
        most_bytes = ((1 << TAPS_BITS) - 1) * config.line_bytes
        if config.wgt_bytes > most_bytes:
            raise ValueError(
                f"wgt_bytes of a machine with firmware must be {most_bytes} at most, not"
                f" {config.wgt_bytes}"
            )
        self._config = config
        super().__init__(
            {
                "port": In(8),
                "write": In(1),
                "write_data": In(WORD_BITS),
                "busy": Out(1),
                "local_address": Out(ADDRESS_BITS),
                "local_data": In(WORD_BITS),
                "beyond": Out(1),
                "beyond_address": Out(ADDRESS_BITS),
                "acc_load": In(1),
                "acc_next": In(1),
                "acc_data": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.columns = columns = Columns(self._config)
        line_bits = (self._config.line_bytes - 1).bit_length()
        # What a run is told.
        step, tap_step = Signal(STEP_BITS), Signal(STEP_BITS)
        limit, count = Signal(LIMIT_BITS), Signal(COUNT_BITS)
        first_x, first_address = Signal(signed(X_BITS)), Signal(ADDRESS_BITS)
        first_vector = Signal.like(columns.vector)
        weight_address = Signal(ADDRESS_BITS)
        zero_point, same_byte = Signal(BYTE_BITS), Signal()
        taps, overwrites, exists = Signal(TAPS_BITS), Signal(), Signal()
        written = {}
        for port, target in (
            (OutPort.ARRAY_STEP, step),
            (OutPort.ARRAY_TAP, tap_step),
            (OutPort.ARRAY_LIMIT, limit),
            (OutPort.ARRAY_COUNT, count),
            (OutPort.ARRAY_X, first_x),
            (OutPort.ARRAY_ADDRESS, first_address),
            (OutPort.ARRAY_VECTOR, first_vector),
            (OutPort.ARRAY_WEIGHTS, weight_address),
            (OutPort.ARRAY_SETUP, Cat(zero_point, same_byte)),
            (OutPort.ARRAY_RUN, Cat(taps, overwrites, exists)),
        ):
            written[port] = Signal(name=f"written_{port.name.lower()}")
            m.d.comb += written[port].eq(self.write & (self.port == port))
            with m.If(written[port]):
                m.d.sync += target.eq(self.write_data)

        # One window after another.
        x, address = Signal(signed(X_BITS)), Signal(ADDRESS_BITS)
        vector, left = Signal.like(columns.vector), Signal(COUNT_BITS)
        weights, loads_weights = Signal(WORD_BITS), Signal()
        drain = Signal(range(DRAIN_CYCLES))
        m.d.comb += [
            columns.vector.eq(vector),
            columns.inside.eq(exists & (x >= 0) & (x < limit)),
            columns.lane.eq(address),
            columns.same_byte.eq(same_byte),
            columns.zero_point.eq(zero_point),
            columns.overwrites.eq(overwrites),
            columns.weights.eq(weights),
            columns.local_data.eq(self.local_data),
            self.local_address.eq(Mux(loads_weights, weight_address, address[line_bits:])),
        ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(written[OutPort.ARRAY_RUN]):
                    m.next = "WEIGHTS"
            with m.State("WEIGHTS"):
                m.d.comb += loads_weights.eq(1)
                m.d.sync += [
                    x.eq(first_x),
                    address.eq(first_address),
                    vector.eq(first_vector),
                    left.eq(count),
                    first_x.eq(first_x + tap_step),
                    first_address.eq(first_address + tap_step),
                    weight_address.eq(weight_address + 1),
                    taps.eq(taps - 1),
                ]
                m.next = "KEEP"
            with m.State("KEEP"):
                m.d.sync += weights.eq(self.local_data)
                m.next = "ISSUE"
            with m.State("ISSUE"):
                m.d.comb += columns.valid.eq(1)
                m.d.sync += [
                    x.eq(x + step),
                    address.eq(address + step),
                    vector.eq(vector + 1),
                    left.eq(left - 1),
                    drain.eq(DRAIN_CYCLES - 1),
                ]
                with m.If(left == 1):
                    m.next = "DRAIN"
            with m.State("DRAIN"):
                m.d.sync += drain.eq(drain - 1)
                with m.If(drain == 0):
                    m.d.sync += overwrites.eq(0)
                    m.next = "IDLE"
                    with m.If(taps != 0):
                        m.next = "WEIGHTS"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        self._range(m, columns, address, written[OutPort.ARRAY_SETUP])
        self._read(m, columns)
        return m

    def _range(self, m: Module, columns: Columns, address: Signal, clear: Signal) -> None:
        """Remember the first byte beyond the activation SRAM."""
        with m.If(clear):
            m.d.sync += self.beyond.eq(0)
        outside = address >= self._config.act_bytes
        with m.If(columns.valid & columns.inside & outside & ~self.beyond):
            m.d.sync += [
                self.beyond.eq(1),
                self.beyond_address.eq(address & ~(self._config.line_bytes - 1)),
            ]

    def _read(self, m: Module, columns: Columns) -> None:
        """Sums for the processor."""
        address = Signal(len(columns.read_column) + len(columns.read_vector))
        with m.If(self.acc_load):
            m.d.sync += address.eq(self.write_data)
        with m.Elif(self.acc_next):
            m.d.sync += address.eq(address + self._config.cols)
        m.d.comb += [
            Cat(columns.read_column, columns.read_vector).eq(address),
            self.acc_data.eq(columns.sum),
        ]
