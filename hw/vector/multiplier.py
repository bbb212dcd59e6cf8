"""The 32-bit multiplier of a lane, made for 18 x 18-bit DSP blocks."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Multiplier", "ShortMultiplier", "add_with_carry"]


def add_with_carry(a: Value, b: Value, carry: Value, width_bits: int) -> Value:
    """Return the low `width_bits` bits of ``a + b + carry`` as one adder, not two.

    The carry enters through one more bit below the others.
    """
    left = Cat(Const(1, 1), _extended(a, width_bits))
    right = Cat(carry, _extended(b, width_bits))
    return (left + right)[1 : width_bits + 1]


def _extended(value: Value, width_bits: int) -> Value:
    """Return `value` brought to exactly `width_bits` bits by its own signedness."""
    if len(value) >= width_bits:
        return value[:width_bits]
    missing_bits = width_bits - len(value)
    if value.shape().signed:
        return Cat(value, value[-1].replicate(missing_bits))
    return Cat(value, Const(0, missing_bits))


class Multiplier(Component):
    """Product of two signed 32-bit numbers, not both -2^31, without its low 30 bits.

    Latency 4 cycles; one product a cycle. The operands are registered, as it is far to the DSP
    blocks; four partial products of at most 17 x 17 bits, registered, two sums, registered.

    Members
    -------
    x : In(signed(32))
        Multiplicand.
    m : In(signed(32))
        Multiplier, Q31.
    t : Out(signed(33))
        ``(x * m) >> 30``.
    """

    SUMS_IN = "sync"
    """Domain of the sums of partial products that are added up last."""

    def __init__(self) -> None:
        super().__init__({"x": In(signed(32)), "m": In(signed(32)), "t": Out(signed(33))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        x = Signal(signed(32), reset_less=True)
        multiplier = Signal(signed(32), reset_less=True)
        m.d.sync += [x.eq(self.x), multiplier.eq(self.m)]
        x_low, x_high = x[:16], x[16:].as_signed()
        m_low, m_high = multiplier[:16], multiplier[16:].as_signed()

        low_low = Signal(32, reset_less=True)
        low_high = Signal(signed(32), reset_less=True)
        high_low = Signal(signed(32), reset_less=True)
        # One bit short for -2^15 * -2^15; the whole product fits again.
        high_high = Signal(signed(31), reset_less=True)
        m.d.sync += [
            low_low.eq(x_low * m_low),
            low_high.eq(x_low * m_high),
            high_low.eq(x_high * m_low),
            high_high.eq(x_high * m_high),
        ]

        # Bits 16 and up: the outer products side by side, the inner ones added to them.
        inner = Signal(signed(33), reset_less=True)
        outer = Signal(signed(47), reset_less=True)
        upper = Signal(signed(47), reset_less=True)
        m.d[self.SUMS_IN] += [
            inner.eq(high_low + low_high),
            outer.eq(Cat(low_low[16:], high_high)),
        ]
        m.d.sync += upper.eq(self._sum(outer, inner, len(upper)))
        m.d.comb += self.t.eq(upper[14:].as_signed())
        return m

    def _sum(self, outer: Signal, inner: Signal, width_bits: int) -> Value:
        return outer + inner


class ShortMultiplier(Multiplier):
    """Both sums in one cycle: latency 3 cycles, and no registers that only wait for a sum."""

    SUMS_IN = "comb"

    def _sum(self, outer: Signal, inner: Signal, width_bits: int) -> Value:
        # The sign is written out, or synthesis would make one sum of three of it, which takes two
        # tables more a bit.
        missing_bits = width_bits - len(inner)
        return outer.as_unsigned() + Cat(inner, inner[-1].replicate(missing_bits))
