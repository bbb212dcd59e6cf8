"""The array of the firmware machine: one weight row at a time, over a row of windows."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.config import NpuConfig
from celosia.hw.memory.block import BlockMemory
from celosia.hw.micro.instructions import Out as OutPort

__all__ = ["ArrayRuns"]

WORD_BITS = 32
BYTE_BITS = 8
ADDRESS_BITS = 20
X_BITS = 20
STEP_BITS = 20
LIMIT_BITS = 17
COUNT_BITS = 12
TAPS_BITS = 14
ACC_HALVES = 2
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
        config = self._config
        columns = config.cols
        line_bits = (config.line_bytes - 1).bit_length()
        vectors = ACC_HALVES * config.acc_depth

        # What a run is told.
        step, tap_step = Signal(STEP_BITS), Signal(STEP_BITS)
        limit, count = Signal(LIMIT_BITS), Signal(COUNT_BITS)
        first_x, first_address = Signal(signed(X_BITS)), Signal(ADDRESS_BITS)
        first_vector = Signal(range(vectors))
        weight_address = Signal(ADDRESS_BITS)
        zero_point, same_byte = Signal(BYTE_BITS), Signal()
        taps, overwrites, exists = Signal(TAPS_BITS), Signal(), Signal()

        def written(port: OutPort) -> Signal:
            flag = Signal(name=f"written_{port.name.lower()}")
            m.d.comb += flag.eq(self.write & (self.port == port))
            return flag

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
            with m.If(written(port)):
                m.d.sync += target.eq(self.write_data)

        # One window after another.
        x, address = Signal(signed(X_BITS)), Signal(ADDRESS_BITS)
        vector, left = Signal(range(vectors)), Signal(COUNT_BITS)
        weights = Signal(WORD_BITS)
        issues = Signal()
        drain = Signal(range(DRAIN_CYCLES))
        # Local memory answers in the next cycle: the lane and what else is known of a window goes
        # along.
        inside = Signal()
        lane = Signal(line_bits)
        lane_1, inside_1, valid_1, vector_1 = (
            Signal.like(lane),
            Signal(),
            Signal(),
            Signal.like(vector),
        )
        valid_2, vector_2 = Signal(), Signal.like(vector)
        m.d.comb += [
            inside.eq(exists & (x >= 0) & (x < limit)),
            lane.eq(address),
        ]
        loads_weights = Signal()
        m.d.comb += self.local_address.eq(Mux(loads_weights, weight_address, address[line_bits:]))
        with m.FSM():
            with m.State("IDLE"):
                with m.If(written(OutPort.ARRAY_RUN)):
                    m.next = "WEIGHTS"
            with m.State("WEIGHTS"):
                m.d.comb += [self.busy.eq(1), loads_weights.eq(1)]
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
                m.d.comb += self.busy.eq(1)
                m.d.sync += weights.eq(self.local_data)
                m.next = "ISSUE"
            with m.State("ISSUE"):
                m.d.comb += [self.busy.eq(1), issues.eq(1)]
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
                m.d.comb += self.busy.eq(1)
                m.d.sync += drain.eq(drain - 1)
                with m.If(drain == 0):
                    m.d.sync += overwrites.eq(0)
                    m.next = "IDLE"
                    with m.If(taps != 0):
                        m.next = "WEIGHTS"
        with m.If(written(OutPort.ARRAY_SETUP)):
            m.d.sync += self.beyond.eq(0)
        with m.If(issues & inside & (address >= config.act_bytes) & ~self.beyond):
            m.d.sync += [
                self.beyond.eq(1),
                self.beyond_address.eq(address & ~(config.line_bytes - 1)),
            ]
        m.d.sync += [
            valid_1.eq(issues),
            inside_1.eq(inside),
            lane_1.eq(lane),
            vector_1.eq(vector),
            valid_2.eq(valid_1),
            vector_2.eq(vector_1),
        ]
        # Products, then sums. The accumulator's word is read while the product is formed.
        acc_address = Signal(range(vectors * columns))
        acc_column = acc_address[: (columns - 1).bit_length()]
        with m.If(self.acc_load):
            m.d.sync += acc_address.eq(self.write_data)
        with m.Elif(self.acc_next):
            m.d.sync += acc_address.eq(acc_address + columns)
        byte = self.local_data.word_select(lane_1, BYTE_BITS)
        sums = []
        for column in range(columns):
            memory = BlockMemory(width_bits=WORD_BITS, depth=vectors)
            m.submodules[f"sums_{column}"] = memory
            value = Signal(signed(BYTE_BITS), name=f"value_{column}")
            product = Signal(signed(2 * BYTE_BITS), name=f"product_{column}")
            own = self.local_data.word_select(column, BYTE_BITS)
            m.d.comb += value.eq(Mux(inside_1, Mux(same_byte, byte, own), zero_point))
            weight = weights.word_select(column, BYTE_BITS).as_signed()
            m.d.sync += product.eq(value * weight)
            before = Mux(overwrites, 0, memory.read_data)
            m.d.comb += [
                memory.read_addr.eq(
                    Mux(self.busy, vector_1, acc_address[(columns - 1).bit_length() :])
                ),
                memory.write_addr.eq(vector_2),
                memory.write_en.eq(valid_2),
                memory.write_data.eq(before + product),
            ]
            sums.append(memory.read_data)
        with m.Switch(acc_column):
            for column, word in enumerate(sums):
                with m.Case(column):
                    m.d.comb += self.acc_data.eq(word)
        return m
