"""`Softmax`: three passes over each row, as docs/arithmetic.md has it."""

from __future__ import annotations

from celosia.hw.contract.isa import Softmax, Space
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.shared import LINE_BIT, Shared
from celosia.hw.nano.instructions import In, Op, Out

__all__ = ["Softmaxes"]

SIGN = 1 << 31
HALF_SIGN = 1 << 30
FORTY_EIGHT_OVER_17 = 1515870810
MINUS_32_OVER_17 = -1010580540
NEWTON_STEPS = 3
ACCUMULATION_INTEGER_BITS = 12
RESULT_SHIFT = ACCUMULATION_INTEGER_BITS + 31 - 8
MOST_ZEROS = 31


class Softmaxes:
    """Emits the handler of `Softmax`, ``softmax``.

    Parameters
    ----------
    shared : Shared
    """

    def __init__(self, shared: Shared) -> None:
        self.s, self.a = shared, shared.a
        a = shared.a
        self.source, self.target = a.word("softmax.source"), a.word("softmax.target")
        self.rows, self.left = a.word("softmax.rows"), a.word("softmax.left")
        self.at = a.word("softmax.at")
        self.highest, self.value = a.word("softmax.highest"), a.word("softmax.value")
        self.total, self.leading = a.word("softmax.total"), a.word("softmax.leading")
        self.half, self.estimate = a.word("softmax.half"), a.word("softmax.estimate")
        self.factor = a.word("softmax.factor")
        self.back = a.word("softmax.back")

    def emit(self) -> None:
        """Emit the handler and its routine."""
        a, s = self.a, self.s
        a.label("softmax")
        f = s.unpack(Softmax, "softmax")
        s.refuse_zero_counts(Softmax, f)
        a.move(self.rows, f["n_rows"])
        for target, name in ((self.source, "a_addr"), (self.target, "d_addr")):
            a.move(target, f[name])
        with a.repeat(self.rows):
            a.call("check_watchdog")
            for line in (self.source, self.target):
                self._check(f["channels"], line)
            self._maximum(f["channels"])
            self._sum(f["channels"])
            self._reciprocal()
            self._results(f["channels"])
            a.increase(self.source, f["a_y"])
            a.increase(self.target, f["d_y"])
        a.jump("VECTOR.done")
        with a.routine("softmax.exponential", self.back):
            # Word `value` = exp(the element at `at` - the highest), Q0.31.
            a.call("check_watchdog")
            a.write(Out.LOCAL_ADDRESS, self.at)
            a.read(In.LOCAL_BYTE)
            a.store(self.value)
            a.load(self.highest)
            a.sub(self.value)
            s.shift_left(None, LINE_BIT)
            a.add(s.local.base_of(Space.TABLE))
            a.write(Out.LOCAL_ADDRESS)
            a.read(In.LOCAL_WORD)
            a.store(self.value)
            a.increase(self.at, 1)

    def _check(self, channels: Word, line: Word) -> None:
        a, s = self.a, self.s
        a.load(channels)
        a.add(-1)
        s.shift_right(None, LINE_BIT)
        a.add(line)
        a.sub(s.config.act_lines)
        with a.unless(Op.JUMP_NEGATIVE):
            s.fail_lines(line, s.config.act_lines, ErrorCause.ACT_RANGE)

    def _begin(self, channels: Word) -> None:
        a, s = self.a, self.s
        s.shift_left(self.source, LINE_BIT)
        a.store(self.at)
        a.move(self.left, channels)

    def _maximum(self, channels: Word) -> None:
        a = self.a
        self._begin(channels)
        a.write(Out.LOCAL_ADDRESS, self.at)
        a.write(Out.LOCAL_STEP, 1)
        a.move(self.highest, -128)
        with a.repeat(self.left):
            a.call("check_watchdog")
            a.read(In.LOCAL_BYTE)
            a.store(self.value)
            a.sub(self.highest)
            with a.unless(Op.JUMP_NEGATIVE):
                a.move(self.highest, self.value)

    def _sum(self, channels: Word) -> None:
        a, s = self.a, self.s
        self._begin(channels)
        a.move(self.total, 0)
        with a.repeat(self.left):
            a.call("softmax.exponential")
            # Half away from zero; exponentials are not negative.
            s.shift_right(self.value, ACCUMULATION_INTEGER_BITS - 1)
            a.add(1)
            s.shift_right(None, 1)
            a.add(self.total)
            a.store(self.total)

    def _reciprocal(self) -> None:
        """Word `estimate` = 1 / total, normalised, in Q0.31; `leading`: total's leading zeros."""
        a, s = self.a, self.s
        a.move(self.leading, 0)
        a.label("softmax.normalise")
        a.load(self.total)
        with a.unless(Op.JUMP_NEGATIVE):
            a.add(self.total)
            a.store(self.total)
            a.increase(self.leading, 1)
            a.add(-MOST_ZEROS)
            a.emit(Op.JUMP_NEGATIVE, "softmax.normalise")
        # The denominator between 1 and 2, halved.
        s.shift_right(self.total, 1)
        a.bits_and(SIGN - 1)
        a.store(self.half)
        a.multiply(None, MINUS_32_OVER_17, In.PRODUCT_ROUNDED)
        a.add(FORTY_EIGHT_OVER_17)
        a.store(self.estimate)
        for _ in range(NEWTON_STEPS):
            a.multiply(self.half, self.estimate, In.PRODUCT_ROUNDED)
            a.store(s.scratch[0])
            a.load(1 << 29)
            a.sub(s.scratch[0])
            a.multiply(None, self.estimate, In.PRODUCT_ROUNDED)
            s.shift_left(None, 2)
            a.add(self.estimate)
            a.store(self.estimate)
        a.sub(HALF_SIGN)
        with a.unless(Op.JUMP_NEGATIVE):
            a.move(self.estimate, SIGN - 1)
            a.jump("softmax.saturated")
        a.increase(self.estimate, self.estimate)
        a.label("softmax.saturated")

    def _results(self, channels: Word) -> None:
        a, s = self.a, self.s
        self._begin(channels)
        # A result's last shift is by RESULT_SHIFT - leading, 23 to 35; all but one bit of it by
        # multiplication. From 32 on nothing is left of it.
        a.load(self.leading)
        a.add(32 - RESULT_SHIFT)
        with a.unless(Op.JUMP_POSITIVE):
            a.load(0)
        a.look_up(s.power)
        a.store(self.factor)
        s.shift_left(self.target, LINE_BIT)
        a.store(s.scratch[2])
        with a.repeat(self.left):
            a.call("softmax.exponential")
            a.multiply(self.value, self.estimate, In.PRODUCT_ROUNDED)
            a.multiply(None, self.factor, In.PRODUCT_Q31)
            a.add(1)
            s.shift_right(None, 1)
            a.add(-128)
            a.store(self.value)
            a.write(Out.LOCAL_ADDRESS, s.scratch[2])
            a.load(self.value)
            a.add(-127)
            with a.unless(Op.JUMP_NEGATIVE):
                a.load(0)
            a.add(127)
            a.write(Out.LOCAL_BYTE)
            a.increase(s.scratch[2], 1)
