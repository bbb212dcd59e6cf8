"""The multiplier of the firmware machine."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, signed
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Multiplier"]

WORD_BITS = 32
FRACTION_BITS = 31


class Multiplier(Component):
    """32 x 32 bits, signed; the product is there two cycles after a factor.

    Members
    -------
    factor : In(32)
    load_a, load_b : In(1)
        `factor` is the first or the second factor.
    low : Out(32)
        Bits 31:0 of the product.
    high : Out(32)
        Bits 62:31.
    rounded : Out(32)
        Bits 62:31 of the product + 2^30.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "factor": In(WORD_BITS),
                "load_a": In(1),
                "load_b": In(1),
                "low": Out(WORD_BITS),
                "high": Out(WORD_BITS),
                "rounded": Out(WORD_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b = (Signal(signed(WORD_BITS), name=f"factor_{name}", reset_less=True) for name in "ab")
        product = Signal(signed(2 * WORD_BITS), reset_less=True)
        with m.If(self.load_a):
            m.d.sync += a.eq(self.factor)
        with m.If(self.load_b):
            m.d.sync += b.eq(self.factor)
        m.d.sync += product.eq(a * b)
        high = product[FRACTION_BITS : FRACTION_BITS + WORD_BITS]
        m.d.comb += [
            self.low.eq(product),
            self.high.eq(high),
            self.rounded.eq(high + product[FRACTION_BITS - 1]),
        ]
        return m
