"""value * multiplier * 2^(shift - 31), rounded: docs/arithmetic.md."""

from __future__ import annotations

from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.shared import FRACTION_BITS, Shared
from celosia.hw.nano.instructions import In, Op, Out

__all__ = ["Rescale"]

LARGEST = 1 << 30


class Rescale:
    """A routine with a multiplier and a shift of its own.

    Parameters
    ----------
    shared : Shared
    name : str
        Of the routine.
    left : bool
        Whether the shift may be to the left, and rounding SINGLE.

    Attributes
    ----------
    multiplier, single : Word
        Q31; whether rounding is SINGLE.
    """

    def __init__(self, shared: Shared, name: str, *, left: bool = False) -> None:
        self.s, self.a, self._name, self._left = shared, shared.a, name, left
        a = shared.a
        self.multiplier = a.word(f"{name}.multiplier")
        self.single = a.word(f"{name}.single") if left else None
        self.left_factor = a.word(f"{name}.left_factor") if left else None
        self.right = a.word(f"{name}.right")
        self.right_factor = a.word(f"{name}.right_factor")
        self.value = a.word(f"{name}.value")

    def set(self, multiplier: Word, right: Word) -> None:
        """Take a multiplier and a shift to the right from words."""
        a = self.a
        a.move(self.multiplier, multiplier)
        if self.left_factor is not None:
            a.move(self.left_factor, 1)
        a.load(right)
        self._set_right()

    def _set_right(self) -> None:
        """From A, 0 to 31: all but the last bit is shifted by multiplication, if there is more."""
        a = self.a
        a.store(self.right)
        # 2^(31 - (right - 1)); right = 0 and 1 do without.
        a.bits_xor(-1)
        a.add(FRACTION_BITS + 2)
        a.bits_and(FRACTION_BITS)
        a.look_up(self.s.power)
        a.store(self.right_factor)

    def set_signed_shift(self) -> None:
        """Take the shift from A: to the left if it is positive."""
        a = self.a
        assert self.left_factor is not None
        end, right = a.new_label("shift"), a.new_label("right")
        a.emit(Op.JUMP_NEGATIVE, right)
        a.look_up(self.s.power)
        a.store(self.left_factor)
        a.move(self.right, 0)
        a.jump(end)
        a.label(right)
        a.store(self.value)
        a.move(self.left_factor, 1)
        a.load(0)
        a.sub(self.value)
        self._set_right()
        a.label(end)

    def decide(self, usual: Word) -> None:
        """Word `usual` = whether the shift is what networks have: to the right, by 2 at least.

        And rounding is DOUBLE. :meth:`apply_usual` is for such ones.
        """
        a = self.a
        assert self.single is not None, "of others there are too few"
        a.move(usual, 0)
        a.load(self.single)
        with a.unless(Op.JUMP_NONZERO):
            a.load(self.right)
            a.add(-2)
            with a.unless(Op.JUMP_NEGATIVE):
                a.move(usual, 1)

    def apply_usual(self) -> None:
        """A = the rescaled A, without a call and without asking."""
        a = self.a
        a.multiply(None, self.multiplier, In.PRODUCT_ROUNDED)
        # Half away from zero.
        with a.unless(Op.JUMP_POSITIVE):
            a.add(-1)
        a.multiply(None, self.right_factor, In.PRODUCT_Q31)
        a.add(1)
        self.s.shift_right(None, 1)

    def apply(self) -> None:
        """A = the rescaled A."""
        self.a.call(self._name)

    def shift_down(self) -> None:
        """A = A >> right, of a number that is not negative, rounded down."""
        a = self.a
        end = a.new_label("shifted")
        a.store(self.value)
        a.load(self.right)
        with a.unless(Op.JUMP_NONZERO):
            a.load(self.value)
            a.jump(end)
        self._shift_all_but_one(self.value)
        self.s.shift_right(None, 1)
        a.label(end)

    def _limit(self) -> None:
        """A = A, between -2^30 and 2^30, so that zero points and bounds can be added to it.

        Any shift to the right does as much; in between, nothing depends on larger values.
        """
        a = self.a
        negative, end = a.new_label("negative"), a.new_label("limited")
        a.emit(Op.JUMP_NEGATIVE, negative)
        a.sub(LARGEST)
        with a.unless(Op.JUMP_NEGATIVE):
            a.load(0)
        a.add(LARGEST)
        a.jump(end)
        a.label(negative)
        a.add(LARGEST)
        with a.unless(Op.JUMP_POSITIVE):
            a.load(0)
        a.sub(LARGEST)
        a.label(end)

    def _shift_all_but_one(self, value: Word) -> None:
        """A = value >> (right - 1); right is not 0."""
        a = self.a
        end = a.new_label("shifted")
        a.load(self.right)
        a.add(-1)
        with a.unless(Op.JUMP_NONZERO):
            a.load(value)
            a.jump(end)
        a.multiply(value, self.right_factor, In.PRODUCT_Q31)
        a.label(end)

    def emit(self) -> None:
        """Emit the routine."""
        a = self.a
        name = self._name
        with a.routine(name):
            a.write(Out.FACTOR_A)
            if self.left_factor is not None and self.single is not None:
                a.emit(Op.FACTOR_B, self.left_factor.address)
                a.read(In.PRODUCT_LOW)
                a.write(Out.FACTOR_A)
            a.emit(Op.FACTOR_B, self.multiplier.address)
            a.load(self.right)
            with a.unless(Op.JUMP_NONZERO):
                a.read(In.PRODUCT_ROUNDED)
                if self._left:
                    self._limit()
                a.leave()
            if self.single is not None:
                a.load(self.single)
                with a.unless(Op.JUMP_ZERO):
                    a.read(In.PRODUCT_Q31)
                    a.jump(f"{name}.shift")
            a.read(In.PRODUCT_ROUNDED)
            # Half away from zero.
            with a.unless(Op.JUMP_POSITIVE):
                a.add(-1)
            a.label(f"{name}.shift")
            a.store(self.value)
            self._shift_all_but_one(self.value)
            a.add(1)
            self.s.shift_right(None, 1)
