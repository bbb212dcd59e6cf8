"""The arithmetic of one lane, stages 2 to 15 (see :mod:`celosia.hw.vector.uop`)."""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, enum
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.vector.multiplier import Multiplier, add_with_carry
from celosia.hw.vector.uop import Source

__all__ = ["Kind", "Lane", "LANE_CONTROL_LAYOUT", "RoundMode"]

MAGNITUDE_BITS = 24
"""Of the sum of 255 x 255 int8 values, half of their number included."""


class Kind(enum.Enum, shape=unsigned(2)):
    """Which value is multiplied."""

    SUM = 0
    AVERAGE = 1
    MAX = 2
    TABLE = 3


class RoundMode(enum.Enum, shape=unsigned(2)):
    """How the product is brought back: ``docs/arithmetic.md``, "Requantise"."""

    DOUBLE = 0
    SINGLE = 1
    FLOOR = 2


LANE_CONTROL_LAYOUT = data.StructLayout(
    {
        "source_2": Source,
        # Added to int8 values: the zero point, negated.
        "offset_2": signed(9),
        "valid_3": 1,
        # Not the first of its window.
        "accumulate_3": 1,
        # Use the left shift of the parameter block, not `left_3`.
        "channel_3": 1,
        "left_3": 5,
        "half_4": 16,
        "kind_4": Kind,
        "kind_5": Kind,
        # Use the multiplier, the right shift of the parameter block.
        "channel_5": 1,
        "mult_5": signed(32),
        "channel_9": 1,
        "right_9": 5,
        "mode_10": RoundMode,
        "mode_11": RoundMode,
        "zero_13": signed(8),
        "min_14": signed(8),
        "max_14": signed(8),
    }
)
"""What all lanes are told, each member in the stage that its name ends in."""


class Lane(Component):
    """One lane: a value a cycle, never held up.

    Parameters
    ----------
    beats : int
        Beats of a vector, one for each of the lane's channels. The sums of their windows take
        turns.
    lends : bool
        Its multiplier also serves others, by the ports `borrow` to `product`.

    Members
    -------
    control : In(LANE_CONTROL_LAYOUT)
        The same for all lanes.
    acc, act, middle, term_a, term_b : In
        The possible sources, in stage 2.
    bias, left, mult, right : In
        Parameters of the lane's channel, in stages 2, 3, 5 and 9.
    table_index : Out(8)
        In stage 3; `table_value` answers in stage 5.
    term : Out(signed(32))
        Rescaled value, in stage 13.
    result : Out(signed(8))
        With zero point, clamped, in stage 15.
    borrow : In(1), borrow_x : In(signed(32)), borrow_m : In(signed(32))
        The operands are these, not the lane's.
    product : Out(signed(33))
        The multiplier's.
    """

    def __init__(self, *, beats: int = 1, lends: bool = False) -> None:
        if beats < 1:
            raise ValueError(f"beats must be at least 1, not {beats!r}")
        self._beats = beats
        self._lends = lends
        lending = {
            "borrow": In(1),
            "borrow_x": In(signed(32)),
            "borrow_m": In(signed(32)),
            "product": Out(signed(33)),
        }
        super().__init__(
            (lending if lends else {})
            | {
                "control": In(LANE_CONTROL_LAYOUT),
                "acc": In(signed(32)),
                "act": In(signed(8)),
                "middle": In(signed(8)),
                "term_a": In(signed(32)),
                "term_b": In(signed(32)),
                "bias": In(signed(32)),
                "left": In(unsigned(5)),
                "mult": In(signed(32)),
                "right": In(unsigned(5)),
                "table_index": Out(unsigned(8)),
                "table_value": In(signed(8)),
                "term": Out(signed(32)),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiplier = multiplier = Multiplier()
        self._elaborate_operands(m, multiplier)
        self._elaborate_rounding(m, multiplier)
        return m

    def _elaborate_operands(self, m: Module, multiplier: Multiplier) -> None:
        c = self.control

        # Stage 2: operands of the first sum.
        augend = Signal(signed(32), reset_less=True)
        addend = Signal(signed(32), reset_less=True)
        m.d.sync += [augend.eq(self.act), addend.eq(c.offset_2)]
        with m.Switch(c.source_2):
            with m.Case(Source.ACC):
                m.d.sync += [augend.eq(self.acc), addend.eq(self.bias)]
            with m.Case(Source.MIDDLE):
                m.d.sync += augend.eq(self.middle)
            with m.Case(Source.TERMS):
                m.d.sync += [augend.eq(self.term_a), addend.eq(self.term_b)]

        # Stage 3: the sum, of a window too, and the maximum.
        totals = [
            Signal(signed(32), name=f"total_{beat}", reset_less=True) for beat in range(self._beats)
        ]
        bests = [
            Signal(signed(8), name=f"best_{beat}", reset_less=True) for beat in range(self._beats)
        ]
        total, best = totals[0], bests[0]
        left = Signal(5, reset_less=True)
        value = augend[:8].as_signed()
        m.d.comb += self.table_index.eq(value)
        m.d.sync += left.eq(Mux(c.channel_3, self.left, c.left_3))
        # What this channel had a vector ago has gone round.
        with m.If(c.valid_3):
            m.d.sync += total.eq(augend + Mux(c.accumulate_3, totals[-1], addend))
            for older, newer in zip(totals[1:], totals, strict=False):
                m.d.sync += older.eq(newer)
            keeps = c.accumulate_3 & (bests[-1] > value)
            m.d.sync += best.eq(Mux(keeps, bests[-1], value))
            for older, newer in zip(bests[1:], bests, strict=False):
                m.d.sync += older.eq(newer)

        # Stage 4. The left shift wraps at 32 bits, as the reference does.
        negative = total[-1] & (c.kind_4 == Kind.AVERAGE)
        shifted = Signal(signed(32), reset_less=True)
        magnitude = Signal(MAGNITUDE_BITS, reset_less=True)
        best_5 = Signal(signed(8), reset_less=True)
        self._negative_5 = Signal(reset_less=True)
        flipped = total[:MAGNITUDE_BITS] ^ total[-1].replicate(MAGNITUDE_BITS)
        m.d.sync += [
            shifted.eq((total << left)[:32].as_signed()),
            magnitude.eq(add_with_carry(flipped, c.half_4, total[-1], MAGNITUDE_BITS)),
            best_5.eq(best),
            self._negative_5.eq(negative),
        ]

        # Stage 5. What is only rounded down comes doubled, since one bit is always rounded off.
        x = Signal(signed(32), reset_less=True)
        mult = Signal(signed(32), reset_less=True)
        with m.Switch(c.kind_5):
            with m.Case(Kind.SUM):
                m.d.sync += x.eq(shifted)
            with m.Case(Kind.AVERAGE):
                m.d.sync += x.eq(magnitude << 1)
            with m.Case(Kind.MAX):
                m.d.sync += x.eq(best_5 << 1)
            with m.Case(Kind.TABLE):
                m.d.sync += x.eq(self.table_value << 1)
        m.d.sync += mult.eq(Mux(c.channel_5, self.mult, c.mult_5))
        if self._lends:
            m.d.comb += [
                multiplier.x.eq(Mux(self.borrow, self.borrow_x, x)),
                multiplier.m.eq(Mux(self.borrow, self.borrow_m, mult)),
                self.product.eq(multiplier.t),
            ]
        else:
            m.d.comb += [multiplier.x.eq(x), multiplier.m.eq(mult)]

    def _elaborate_rounding(self, m: Module, multiplier: Multiplier) -> None:
        c = self.control

        right_10 = Signal(5, reset_less=True)
        right_11 = Signal(5, reset_less=True)
        right_12 = Signal(5, reset_less=True)
        m.d.sync += [
            right_10.eq(Mux(c.channel_9, self.right, c.right_9)),
            right_11.eq(right_10),
            right_12.eq(right_11),
        ]

        # Stage 10: the first rounding (SINGLE: only if there is no right shift after it).
        high = Signal(signed(32), reset_less=True)
        mask = Signal(31, reset_less=True)
        round_up = multiplier.t[0] & (
            (c.mode_10 == RoundMode.DOUBLE) | ((c.mode_10 == RoundMode.SINGLE) & ~right_10.any())
        )
        m.d.sync += [
            high.eq(add_with_carry(multiplier.t[1:].as_signed(), Const(0, 1), round_up, 32)),
            mask.eq(
                Mux(c.mode_10 == RoundMode.FLOOR, 0, ~(Const(0xFFFFFFFF, 32) << right_10)[1:32])
            ),
        ]

        # Stage 11: half of what is shifted out, less one if halves go down (below zero, DOUBLE).
        rounded = Signal(signed(33), reset_less=True)
        half_up = right_11.any() & (
            (c.mode_11 == RoundMode.SINGLE) | ((c.mode_11 == RoundMode.DOUBLE) & ~high[-1])
        )
        m.d.sync += rounded.eq(add_with_carry(high, mask, half_up, 33).as_signed())

        # Stage 12.
        m.d.sync += self.term.eq(rounded >> right_12)

        # Stage 13: the sign of an average; the zero point.
        negative = self._negative_5
        for stage in range(6, 14):
            following = Signal(reset_less=True, name=f"negative_{stage}")
            m.d.sync += following.eq(negative)
            negative = following
        signed_term = (self.term[:32] ^ negative.replicate(32)).as_signed()
        output = Signal(signed(33), reset_less=True)
        m.d.sync += output.eq(add_with_carry(signed_term, c.zero_13, negative, 33).as_signed())

        # Stage 14.
        m.d.sync += self.result.eq(output)
        with m.If(output < c.min_14):
            m.d.sync += self.result.eq(c.min_14)
        with m.Elif(output > c.max_14):
            m.d.sync += self.result.eq(c.max_14)
