"""The reciprocal of softmax's sum of exponentials, by Newton-Raphson steps in Q2.29.

Source: ``GetReciprocal`` and ``one_over_one_plus_x_for_x_in_0_1`` of gemmlowp's fixed-point
library, as TensorFlow Lite's reference softmax uses them; ``docs/arithmetic.md``, "SOFTMAX".
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.vector.multiplier import add_with_carry

__all__ = ["HighMul", "Reciprocal"]

Q2_ONE = 1 << 29
Q2_48_OVER_17 = 1515870810
Q2_MINUS_32_OVER_17 = -1010580540
STEPS = 3


class HighMul(Component):
    """``srdhm``: product of two Q31 numbers, rounded half up; one a cycle, latency 2 cycles
    after the :class:`Multiplier` whose `t` it is given.

    Members
    -------
    t : In(signed(33))
        ``(x * m) >> 30``.
    high : Out(signed(32))
        ``(x * m + 2^30) >> 31``, one cycle later.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "t": In(signed(33)),
                "high": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.high.eq(add_with_carry(self.t[1:].as_signed(), Const(0, 1), self.t[0], 32))
        return m


class Reciprocal(Component):
    """About 50 cycles from `start` to `done`.

    The multiplier is the caller's: `x` and `m` are registered there. Seven products, one after
    another.

    Parameters
    ----------
    latency_cycles : int
        From operands that are put out to `high`.
    slow : bool
        The sum is normalised by one bit a cycle, not by four where it can be: a few cycles more.

    Members
    -------
    start : In(1)
        `sum` is there.
    sum : In(32)
        Q12.19, at least 2^19 (the largest element contributes that much).
    x : Out(signed(32)), m : Out(31)
        Operands.
    high : In(signed(32))
        Their rounded high product.
    nearly : Out(1)
        One cycle, `latency_cycles` and two before `done`.
    done : Out(1)
        One cycle; `scale` and `leading_zeros` are valid and stay.
    scale : Out(31)
        Q0.31.
    leading_zeros : Out(5)
        Of the sum, in 32 bits.
    """

    def __init__(self, *, latency_cycles: int = 5, slow: bool = False) -> None:
        self._slow = slow
        self._latency_cycles = latency_cycles
        super().__init__(
            {
                "start": In(1),
                "sum": In(32),
                "x": Out(signed(32)),
                "m": Out(unsigned(31)),
                "high": In(signed(32)),
                "nearly": Out(1),
                "done": Out(1),
                "scale": Out(unsigned(31)),
                "leading_zeros": Out(unsigned(5)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shifted = Signal(32, reset_less=True)
        estimate = Signal(signed(32), reset_less=True)
        residue = Signal(signed(32), reset_less=True)
        wait = Signal(range(self._latency_cycles + 1))
        step = Signal(range(STEPS))

        # Half of 1 + f, which is the normalised sum itself.
        half_denominator = shifted[1:]
        m.d.comb += [self.x.eq(estimate), self.m.eq(half_denominator)]
        next_estimate = Signal(signed(32))
        m.d.comb += next_estimate.eq(estimate + (self.high << 2))

        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        again = wait.eq(self._latency_cycles)
        m.d.sync += self.nearly.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [shifted.eq(self.sum), self.leading_zeros.eq(0), step.eq(0)]
                    m.next = "NORMALISE"
            with m.State("NORMALISE"):
                # A sum too small to come from a softmax must not hang the machine.
                by_four = ~shifted[28:].any() & (self.leading_zeros < 24)
                with m.If(Const(0) if self._slow else by_four):
                    m.d.sync += [
                        shifted.eq(shifted << 4),
                        self.leading_zeros.eq(self.leading_zeros + 4),
                    ]
                with m.Elif(~shifted[-1] & (self.leading_zeros < 31)):
                    m.d.sync += [
                        shifted.eq(shifted << 1),
                        self.leading_zeros.eq(self.leading_zeros + 1),
                    ]
                with m.Else():
                    m.d.sync += [estimate.eq(Q2_MINUS_32_OVER_17), again]
                    m.next = "FIRST_ESTIMATE"
            with m.State("FIRST_ESTIMATE"):
                with m.If(wait == 0):
                    m.d.sync += [estimate.eq(Q2_48_OVER_17 + self.high), again]
                    m.next = "RESIDUE"
            with m.State("RESIDUE"):
                with m.If(wait == 0):
                    m.d.sync += [
                        residue.eq(Q2_ONE - self.high),
                        self.nearly.eq(step == STEPS - 1),
                        again,
                    ]
                    m.next = "CORRECT"
            with m.State("CORRECT"):
                m.d.comb += [self.x.eq(residue), self.m.eq(estimate)]
                with m.If(wait == 0):
                    m.d.sync += [estimate.eq(next_estimate), again, step.eq(step + 1)]
                    m.next = "RESIDUE"
                    with m.If(step == STEPS - 1):
                        m.next = "SCALE"
            with m.State("SCALE"):
                # From Q2.29 to Q0.31 of half the value; exactly one half saturates.
                m.d.sync += self.scale.eq(
                    Mux(estimate[30], Const(-1, 31), Cat(Const(0, 1), estimate[:30]))
                )
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m
