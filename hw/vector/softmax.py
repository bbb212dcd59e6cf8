"""Softmax, an element at a time: ``docs/arithmetic.md``, "SOFTMAX"."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Opcode, Softmax
from celosia.hw.control.decode import command_layout
from celosia.hw.memory.ports import BankRead
from celosia.hw.vector.lent import LENT_STAGES, lent_layout
from celosia.hw.vector.multiplier import Multiplier
from celosia.hw.vector.reader import ElementReader, PlaceReader
from celosia.hw.vector.reciprocal import HighMul, Reciprocal
from celosia.hw.vector.uop import LINE_SUM_BITS

__all__ = ["LentSoftmax", "NoSoftmax", "SoftmaxUnit"]

ACCUMULATION_INTEGER_BITS = 12
"""The sum is Q12.19."""

TABLE_STAGE = 4
"""Stage, counted from an element's arrival, in which its exponential is there."""

LENT_LATENCY_CYCLES = 4
"""From operands to the high half of their product in the pipeline's first lane."""

PRODUCT_FLOOR_BITS = 22
"""Bits that the last right shift (23 to 35) always drops."""


class SoftmaxUnit(Component):
    """Three passes over each row: maximum, sum of exponentials, results.

    About ``3 * (channels + 3 * lines) + 75`` cycles a row.

    Members
    -------
    command : In
        Stable from `start` to `done`.
    start : In(1), done : Out(1)
        `done` comes after the last write.
    halt : In(1)
        Ask for nothing more: there was an error.
    act : Out(BankRead)
    table_index : Out(8)
        Entry wanted.
    table_data : In(signed(32))
        The entry, 2 cycles later.
    active : In(1)
        There is a command for it, from the cycle before `start` to the one after `done`.
    lent : Out(lent_layout), high : In(signed(32)), element : In(8), packed : In
        Not used, and always 0: see :class:`LentSoftmax`.
    writes : Out(1)
        There is a `write` in the next cycle.
    write : Out(1), dst_line : Out(17), result : Out
        Lines of the result.
    outside : Out(1)
        Line `line` is to be read and does not exist.
    busy, wait_act : Out(1)
        An element is taken; a read is refused.
    """

    BYTE_STAGE = 11
    """Stage in which an element's result is there."""

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "active": In(1),
                "lent": Out(lent_layout(config)),
                "high": In(signed(32)),
                "element": In(8),
                "packed": In(8 * config.line_bytes),
                "result": Out(8 * config.line_bytes),
                "command": In(command_layout(Softmax)),
                "start": In(1),
                "halt": In(1),
                "done": Out(1),
                "act": Out(BankRead(config)),
                "table_index": Out(8),
                "table_data": In(signed(32)),
                "writes": Out(1),
                "write": Out(1),
                "dst_line": Out(LINE_SUM_BITS),
                "outside": Out(1),
                "line": Out(LINE_SUM_BITS),
                "busy": Out(1),
                "wait_act": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reader = self._reader = self._make_reader()
        m.submodules.reciprocal = self._reciprocal = self._make_reciprocal()

        reader = self._reader
        connect(m, reader.act, flipped(self.act))
        m.d.comb += [
            reader.halt.eq(self.halt),
            self.outside.eq(reader.outside),
            self.line.eq(reader.line),
            self.busy.eq(reader.valid),
            self.wait_act.eq(self.act.bank.any() & ~self.act.gnt),
        ]
        self._sum_pass = Signal()
        self._result_pass = Signal()
        self._sum = Signal(32, reset_less=True)
        self._dst_row = Signal(LINE_SUM_BITS, reset_less=True)
        self._elaborate_stages(m)
        self._elaborate_sum(m)
        self._elaborate_results(m)
        self._elaborate_passes(m)
        return m

    def takes(self, opcode: Value) -> Value:
        """Return whether a command with this opcode is for the unit."""
        return opcode == Opcode.SOFTMAX.value

    def _make_reader(self) -> ElementReader:
        return ElementReader(self._config)

    def _make_reciprocal(self) -> Reciprocal:
        return Reciprocal()

    def _element(self) -> Value:
        """Return the element that the reader is at."""
        value: Value = self._reader.value
        return value

    def _elaborate_stages(self, m: Module) -> None:
        """Carry along with each element whether it is one, and the last one."""
        layout = data.StructLayout({"valid": 1, "last": 1})
        first = Signal(layout, name="stage_0")
        m.d.comb += [first.valid.eq(self._reader.valid), first.last.eq(self._reader.last)]
        self._stages = [first]
        for number in range(1, self.BYTE_STAGE + 2):
            stage = Signal(layout, name=f"stage_{number}")
            m.d.sync += stage.eq(self._stages[-1])
            self._stages.append(stage)

    def _elaborate_sum(self, m: Module) -> None:
        stages = self._stages

        # First pass. An element is chosen of a line, which takes most of a cycle. The others change
        # nothing: they see the same elements.
        maximum = Signal(signed(8), reset_less=True)
        value = Signal(signed(8), reset_less=True)
        begin = Signal()
        self._begin_row = begin
        m.d.sync += value.eq(self._element().as_signed())
        with m.If(begin):
            m.d.sync += maximum.eq(-128)
        with m.Elif(stages[1].valid & (value > maximum)):
            m.d.sync += maximum.eq(value)

        # The difference is 0 to 255.
        m.d.sync += self.table_index.eq(maximum - value)

        # Second pass. Exponentials are not negative, so half away from zero is half up.
        term = Signal(20, reset_less=True)
        m.d.sync += term.eq(
            (self.table_data[:31] + (1 << (ACCUMULATION_INTEGER_BITS - 1)))
            >> ACCUMULATION_INTEGER_BITS
        )
        with m.If(begin):
            m.d.sync += self._sum.eq(0)
        with m.Elif(self._sum_pass & stages[TABLE_STAGE + 1].valid):
            m.d.sync += self._sum.eq(self._sum + term)

        m.d.comb += self._reciprocal.sum.eq(self._sum)

    def _operands(self) -> tuple[Value, Value]:
        """Return multiplicand and multiplier, which serve the reciprocal between the passes."""
        reciprocal = self._reciprocal
        return (
            Mux(self._result_pass, self.table_data, reciprocal.x),
            Mux(self._result_pass, reciprocal.scale, reciprocal.m),
        )

    def _elaborate_results(self, m: Module) -> None:
        """Third pass, with a multiplier of its own. Of the last shift 22 bits are wires."""
        reciprocal = self._reciprocal
        m.submodules.multiplier = unit = Multiplier()
        m.submodules.high_mul = high_mul = HighMul()
        x, multiplier = self._operands()
        m.d.comb += [
            unit.x.eq(x),
            unit.m.eq(multiplier),
            high_mul.t.eq(unit.t),
            reciprocal.high.eq(high_mul.high),
        ]

        # Rounding right shift by 23 + k.
        k = Signal(range(ACCUMULATION_INTEGER_BITS + 1))
        half = Signal(ACCUMULATION_INTEGER_BITS + 1)
        shift = Signal(range(ACCUMULATION_INTEGER_BITS + 2))
        rounded = Signal(14, reset_less=True)
        byte = Signal(8, reset_less=True)
        m.d.sync += [
            k.eq(ACCUMULATION_INTEGER_BITS - reciprocal.leading_zeros),
            half.eq(1 << k),
            shift.eq(k + 1),
            rounded.eq(high_mul.high[PRODUCT_FLOOR_BITS:31] + half),
        ]
        probability = rounded >> shift
        m.d.sync += byte.eq(Mux(probability[8:].any(), 0x7F, probability[:8] ^ 0x80))

        # Pack. What is left of a last line stays zero.
        at_byte = self._stages[self.BYTE_STAGE]
        lanes = self._config.line_bytes
        place = Signal(range(lanes))
        with m.If(at_byte.valid):
            m.d.sync += place.eq(Mux(at_byte.last, 0, place + 1))
        packed = [Signal(8, name=f"packed_{j}", reset_less=True) for j in range(lanes)]
        for j, entry in enumerate(packed):
            with m.If(at_byte.valid & (place == j)):
                m.d.sync += entry.eq(byte)
            with m.Elif(at_byte.valid & (place == 0)):
                m.d.sync += entry.eq(0)
        m.d.comb += self.result.eq(Cat(*packed))
        # Decided in the stage before: a write is what others must wait for.
        last_of_line = (place == lanes - 1) | at_byte.last
        m.d.comb += self.writes.eq(self._result_pass & at_byte.valid & last_of_line)
        m.d.sync += self.write.eq(self.writes)
        written = self._stages[self.BYTE_STAGE + 1]
        self._row_written = written.valid & written.last

    def _elaborate_passes(self, m: Module) -> None:
        command, reader, stages = self.command, self._reader, self._stages
        src_row = Signal(LINE_SUM_BITS, reset_less=True)
        rows_left = Signal(12, reset_less=True)
        # In a register: the reader's enables wait for it, and are anywhere on the chip. The first
        # exponential is there when the reciprocal is.
        begins = Signal()
        m.d.comb += [
            reader.base.eq(src_row),
            reader.count.eq(command.channels),
            reader.start.eq(begins | self._reciprocal.nearly),
        ]
        m.d.sync += begins.eq(0)
        with m.If(self.write):
            m.d.sync += self.dst_line.eq(self.dst_line + 1)

        summed = stages[TABLE_STAGE + 2]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [
                    src_row.eq(command.a_addr),
                    self._dst_row.eq(command.d_addr),
                    rows_left.eq(command.n_rows - 1),
                ]
                with m.If(self.start):
                    m.d.sync += begins.eq(1)
                    m.next = "BEGIN_ROW"
            with m.State("BEGIN_ROW"):
                m.d.comb += self._begin_row.eq(1)
                m.d.sync += self.dst_line.eq(self._dst_row)
                m.next = "MAXIMUM"
            with m.State("MAXIMUM"):
                with m.If(reader.valid & reader.last):
                    m.d.sync += begins.eq(1)
                    m.next = "BEGIN_SUM"
            with m.State("BEGIN_SUM"):
                m.next = "DRAIN_MAXIMUM"
            with m.State("DRAIN_MAXIMUM"):
                # The line is still on its way; the last element of the first pass must be past.
                with m.If(summed.valid & summed.last):
                    m.next = "SUM"
            with m.State("SUM"):
                m.d.comb += self._sum_pass.eq(1)
                with m.If(summed.valid & summed.last):
                    m.d.sync += self._reciprocal.start.eq(1)
                    m.next = "RECIPROCAL"
            with m.State("RECIPROCAL"):
                m.d.sync += self._reciprocal.start.eq(0)
                with m.If(self._reciprocal.done):
                    m.next = "RESULTS"
            with m.State("RESULTS"):
                m.d.comb += self._result_pass.eq(1)
                with m.If(self._row_written):
                    m.d.sync += [
                        src_row.eq(src_row + command.a_y),
                        self._dst_row.eq(self._dst_row + command.d_y),
                        rows_left.eq(rows_left - 1),
                    ]
                    with m.If(rows_left == 0):
                        m.next = "DONE"
                    with m.Else():
                        m.d.sync += begins.eq(1)
                        m.next = "BEGIN_ROW"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"


class LentSoftmax(SoftmaxUnit):
    """A unit without a multiplier: it borrows that of the vector engine's first lane.

    The pipeline multiplies and rounds, keeps the line that is read and puts together the one that
    is written.

    Members
    -------
    lent : Out(lent_layout)
        What it wants of the pipeline, while it is `active`.
    high : In(signed(32))
        The high half of the product, rounded.
    element : In(8)
        The byte at hand of the line that is kept.
    packed : In
        The line of the result, which is `result`.
    """

    BYTE_STAGE = TABLE_STAGE + LENT_STAGES

    def _make_reader(self) -> ElementReader:
        return PlaceReader(self._config)

    def _make_reciprocal(self) -> Reciprocal:
        return Reciprocal(latency_cycles=LENT_LATENCY_CYCLES, slow=True)

    def _element(self) -> Value:
        element: Value = self.element
        return element

    def _elaborate_results(self, m: Module) -> None:
        """Third pass: most of it is done by the pipeline."""
        reader, reciprocal, lent = self._reader, self._reciprocal, self.lent
        ahead = self._stages[self.BYTE_STAGE - 1]
        place = Signal(range(self._config.line_bytes))
        padding, arrives, goes_on, full = Signal(), Signal(), Signal(), Signal()
        self._row_written = Signal()
        # Rounding right shift by 23 + k. One by 32 or more leaves nothing, whatever it is of.
        nothing = Signal()
        x, multiplier = self._operands()
        m.d.comb += [
            self.result.eq(self.packed),
            lent.valid.eq(self.active),
            lent.x.eq(x),
            lent.m.eq(Mux(self._result_pass & nothing, 0, multiplier)),
            lent.keep.eq(reader.take),
            lent.place.eq(reader.place),
            reciprocal.high.eq(self.high),
            arrives.eq(self._result_pass & ahead.valid),
            goes_on.eq(arrives | padding),
            full.eq(place == self._config.line_bytes - 1),
            # Decided in the stage before: a write is what others must wait for.
            self.writes.eq(goes_on & full),
        ]
        most = PRODUCT_FLOOR_BITS + 1 + ACCUMULATION_INTEGER_BITS
        m.d.sync += [
            lent.right.eq(most - reciprocal.leading_zeros),
            nothing.eq(reciprocal.leading_zeros <= most - (1 << len(lent.right))),
            lent.pack.eq(goes_on),
            lent.real.eq(arrives),
            self.write.eq(self.writes),
            self._row_written.eq(goes_on & full & (padding | ahead.last)),
        ]
        # What is left of a last line is filled with zeros.
        with m.If(goes_on):
            m.d.sync += [
                place.eq(place + 1),
                padding.eq((padding | ahead.last) & ~full),
            ]


class NoSoftmax(SoftmaxUnit):
    """The place of the unit in a machine without softmax: it takes no command."""

    def takes(self, opcode: Value) -> Value:
        """Return that no command is for the unit."""
        return Const(0)

    def elaborate(self, platform: object) -> Module:
        return Module()
