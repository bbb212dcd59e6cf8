"""The array's runs for one output row of one pass of a `Conv`."""

from __future__ import annotations

from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.shared import Shared
from celosia.hw.nano.instructions import In, Op, Out

__all__ = ["RUN_FIRST", "TAPS_OF_ROWS", "RowRuns"]

TAPS_OF_ROWS = 3
RUN_FIRST, RUN_ROW_EXISTS = 1 << 14, 1 << 15


class RowRuns:
    """Emits what a row takes: a run of all its taps, or one for each.

    Parameters
    ----------
    shared : Shared

    Attributes
    ----------
    fields : dict of str to Word
        Of the command; to be set before anything is emitted.
    taps, tap_step : Word
        Weight rows of a pass, and bytes from the window of one to that of the next.
    wraps, whole : Word
        Whether taps lie beyond the end of a row, and how many outputs' do not, by tap.
    row_address, row, ic_x : Word
        Byte address, number and byte in the row of the first window.
    vector, weight : Word
        Where the sums go; line of the first weights.
    first_now : Word
        RUN_FIRST in the first pass, if it overwrites, else 0.
    """

    def __init__(self, shared: Shared) -> None:
        self.s, self.a = shared, shared.a
        a = shared.a
        self.fields: dict[str, Word] = {}
        self.taps, self.tap_step = a.word("conv.taps"), a.word("conv.tap_step")
        self.wraps = a.word("conv.wraps")
        self.whole = a.word("conv.whole", count=shared.config.rows)
        self.weight, self.first_now = a.word("conv.weight"), a.word("conv.first_now")
        self.ic_x, self.row_address = a.word("conv.ic_x"), a.word("conv.row_address")
        self.row, self.vector = a.word("conv.row"), a.word("conv.vector")
        self.tap, self.tap_offset = a.word("conv.tap"), a.word("conv.tap_offset")
        self.wrapped, self.position = a.word("conv.wrapped"), a.word("conv.position")
        self.far_address, self.far_row = a.word("conv.far_address"), a.word("conv.far_row")

    def find_wraps(self) -> None:
        """Word `whole[tap]` = outputs of a row whose tap lies in the row itself."""
        a, f = self.a, self.fields
        a.move(self.tap, 0)
        a.label("whole.tap")
        a.move(self.wrapped, f["out_w"])
        a.add(-1)
        a.multiply(None, f["stride_x"], In.PRODUCT_LOW)
        a.add(self.tap)
        a.sub(f["row_len"])
        a.store(self.position)
        a.label("whole.output")
        a.emit(Op.JUMP_NEGATIVE, "whole.found")
        a.increase(self.wrapped, -1)
        a.emit(Op.JUMP_ZERO, "whole.found")
        a.load(self.position)
        a.sub(f["stride_x"])
        a.store(self.position)
        a.jump("whole.output")
        a.label("whole.found")
        a.load(self.tap)
        a.add(self.whole.address)
        a.emit(Op.INDEX)
        a.load(self.wrapped)
        a.emit(Op.STORE_INDEXED)
        a.sub(f["out_w"])
        with a.unless(Op.JUMP_ZERO):
            a.move(self.wraps, 1)
        a.increase(self.tap, 1)
        a.sub(self.taps)
        a.emit(Op.JUMP_NONZERO, "whole.tap")

    def _flags(self, row: Word) -> None:
        """A = RUN_ROW_EXISTS if the input row exists, else 0."""
        a, in_h = self.a, self.fields["in_h"]
        none, end = a.new_label("no_row"), a.new_label("row")
        a.load(row)
        a.emit(Op.JUMP_NEGATIVE, none)
        a.sub(in_h)
        a.emit(Op.JUMP_POSITIVE, none)
        a.load(RUN_ROW_EXISTS)
        a.jump(end)
        a.label(none)
        a.load(0)
        a.label(end)

    def whole_row(self) -> None:
        """A row in one run: no tap lies beyond its end."""
        a = self.a
        a.emit(Op.WAIT)
        a.write(Out.ARRAY_ADDRESS, self.row_address)
        a.write(Out.ARRAY_X, self.ic_x)
        a.write(Out.ARRAY_VECTOR, self.vector)
        a.write(Out.ARRAY_WEIGHTS, self.weight)
        self._flags(self.row)
        a.add(self.first_now)
        a.add(self.taps)
        a.write(Out.ARRAY_RUN)

    def taps_apart(self) -> None:
        """A row whose taps are runs of their own, because some outputs' lie in the next row."""
        a, f = self.a, self.fields
        a.move(self.tap, 0)
        a.move(self.tap_offset, 0)
        a.label("conv.tap")
        a.look_up(self.whole, self.tap)
        a.store(self.wrapped)
        a.emit(Op.JUMP_ZERO, "conv.far")
        a.emit(Op.WAIT)
        a.write(Out.ARRAY_COUNT)
        self._tap_run(self.row_address, self.row, self.tap_offset, self.vector)
        # The outputs that are left, one by one.
        a.label("conv.far")
        a.load(self.wrapped)
        a.sub(f["out_w"])
        a.emit(Op.JUMP_ZERO, "conv.next_tap")
        a.multiply(self.wrapped, f["stride_x"], In.PRODUCT_LOW)
        a.add(self.tap)
        a.store(self.position)
        a.move(self.far_address, self.row_address)
        a.move(self.far_row, self.row)
        a.label("conv.far_row")
        a.load(self.position)
        a.sub(f["row_len"])
        with a.unless(Op.JUMP_NEGATIVE):
            a.store(self.position)
            a.increase(self.far_address, f["step_y"])
            a.increase(self.far_row, f["stride_y"])
            a.jump("conv.far_row")
        a.multiply(self.position, f["step_x"], In.PRODUCT_LOW)
        a.store(self.position)
        a.emit(Op.WAIT)
        a.write(Out.ARRAY_COUNT, 1)
        a.load(self.vector)
        a.add(self.wrapped)
        a.store(self.s.scratch[1])
        self._tap_run(self.far_address, self.far_row, self.position, self.s.scratch[1])
        a.increase(self.wrapped, 1)
        a.jump("conv.far")
        a.label("conv.next_tap")
        a.increase(self.tap_offset, self.tap_step)
        a.increase(self.tap, 1)
        a.sub(self.taps)
        a.emit(Op.JUMP_NONZERO, "conv.tap")

    def _tap_run(self, address: Word, row: Word, offset: Word, vector: Word) -> None:
        """A run of one tap; the count is written, and the array stands still."""
        a = self.a
        a.load(address)
        a.add(offset)
        a.write(Out.ARRAY_ADDRESS)
        a.load(self.ic_x)
        a.add(offset)
        a.write(Out.ARRAY_X)
        a.write(Out.ARRAY_VECTOR, vector)
        a.load(self.weight)
        a.add(self.tap)
        a.write(Out.ARRAY_WEIGHTS)
        self._flags(row)
        a.store(self.s.scratch[0])
        a.load(self.tap)
        with a.unless(Op.JUMP_NONZERO):
            a.increase(self.s.scratch[0], self.first_now)
        a.load(self.s.scratch[0])
        a.add(1)
        a.write(Out.ARRAY_RUN)
