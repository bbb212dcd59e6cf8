"""The arithmetic of one lane, stages 2 to 15 (see :mod:`celosia.hw.vector.uop`)."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, enum
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.vector.multiplier import Multiplier, ShortMultiplier, add_with_carry
from celosia.hw.vector.uop import Source

__all__ = ["LANE_CONTROL", "Kind", "Lane", "RoundMode", "SmallLane"]

MAGNITUDE_BITS = 24
"""Of the sum of 255 x 255 int8 values, half of their number included."""


NEAR_BITS = 10
"""Of a term that may be a byte when a zero point is added: all others are beyond any limit."""


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
    # Halves up, both times.
    UP = 3


LANE_CONTROL = data.StructLayout(
    {
        "source_2": Source,
        # It is ACT.
        "act_2": 1,
        # Added to int8 values: the zero point, negated.
        "offset_2": signed(9),
        # Add it to the first term as well, not the second term.
        "alone_2": 1,
        "valid_3": 1,
        # Not the first of its window.
        "accumulate_3": 1,
        # The least value of a window, not the greatest.
        "least": 1,
        # Use the left shift of the parameter block, not `left_3`.
        "channel_3": 1,
        "left_3": 5,
        "half": 16,
        "kind": Kind,
        # Use the multiplier, the right shift of the parameter block.
        "channel_operands": 1,
        # Use the second term, as multiplier.
        "term_operands": 1,
        "mult_operands": signed(32),
        "channel_9": 1,
        "right_9": 5,
        "mode_10": RoundMode,
        "mode_11": RoundMode,
        "zero_13": signed(8),
        "min_14": signed(8),
        "max_14": signed(8),
    }
)
"""What all lanes are told, each member in the stage that its name ends in.

``operands`` is the stage in which multiplicand and multiplier are chosen, `Lane.OPERAND_STAGE`;
``kind`` and ``half`` are those of the command, in any stage.
"""


class Lane(Component):
    """One lane: a value a cycle, never held up.

    Parameters
    ----------
    beats : int
        Beats of a vector, one for each of the lane's channels. The sums of their windows take
        turns.

    Members
    -------
    control : In(LANE_CONTROL)
        The same for all lanes.
    beat : In
        In stage 3; of no width where there is one.
    acc, act, middle, term_a, term_b : In
        The possible sources, in stage 2; `term_b` in :attr:`OPERAND_STAGE` where it multiplies.
    bias, left, mult, right : In
        Parameters of the lane's channel, in stages 2, 3, :attr:`OPERAND_STAGE` and 9.
    table_index : Out(8)
        Two stages before :attr:`OPERAND_STAGE`, in which `table_value` answers.
    negative : Out(1)
        The sum of an average is below zero, in stage 5.
    negative_late : In(1)
        The same in stage 13: lanes have it delayed together.
    term : Out(signed(32))
        Rescaled value, in stage 13.
    result : Out(signed(8))
        With zero point, clamped, in stage 15.
    borrow : In(1), borrow_x : In(signed(32)), borrow_m : In(signed(32))
    high : Out(signed(32))
        Not used: see :class:`SmallLane`.
    """

    OPERAND_STAGE = 5
    """Stage in which multiplicand and multiplier are chosen."""

    MULTIPLIER: type[Multiplier] = Multiplier

    def __init__(self, *, beats: int = 1) -> None:
        if beats < 1:
            raise ValueError(f"beats must be at least 1, not {beats!r}")
        self._beats = beats
        super().__init__(
            {
                "borrow": In(1),
                "borrow_x": In(signed(32)),
                "borrow_m": In(signed(32)),
                "high": Out(signed(32)),
                "beat": In(range(beats)),
                "control": In(LANE_CONTROL),
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
                "negative": Out(1),
                "negative_late": In(1),
                "term": Out(signed(32)),
                "result": Out(signed(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.multiplier = multiplier = self.MULTIPLIER()
        self._elaborate_sum(m)
        self._elaborate_operands(m, multiplier)
        self._elaborate_rounding(m, multiplier)
        return m

    def _elaborate_sum(self, m: Module) -> None:
        """Stages 2 and 3: a sum, or the greatest value of a window."""
        c = self.control

        # Stage 2: operands of the first sum. Bytes come late, and their sign would go to many
        # places: it gets there in stage 3. Those of the SRAM come last, from the other end of it.
        other, other_negative = Signal(8), Signal()
        low = Signal(8, reset_less=True)
        high = Signal(24, reset_less=True)
        negative = Signal(reset_less=True)
        addend = Signal(signed(32), reset_less=True)
        m.d.sync += [
            low.eq(Mux(c.act_2, self.act, 0) | other),
            high.eq(0),
            negative.eq(Mux(c.act_2, self.act[-1], 0) | other_negative),
            addend.eq(c.offset_2),
        ]
        with m.Switch(c.source_2):
            with m.Case(Source.ACC):
                m.d.comb += other.eq(self.acc[:8])
                m.d.sync += [high.eq(self.acc[8:]), addend.eq(self.bias)]
            with m.Case(Source.MIDDLE):
                m.d.comb += [other.eq(self.middle), other_negative.eq(self.middle[-1])]
            with m.Case(Source.TERMS):
                m.d.comb += other.eq(self.term_a[:8])
                m.d.sync += high.eq(self.term_a[8:])
                with m.If(~c.alone_2):
                    m.d.sync += addend.eq(self.term_b)
        augend = Signal(signed(32))
        m.d.comb += augend.eq(Cat(low, high | negative.replicate(len(high))))

        # Stage 3: the sum, of a window too, and the maximum.
        self._left = Signal(5, reset_less=True)
        self._value = low.as_signed()
        m.d.sync += self._left.eq(Mux(c.channel_3, self.left, c.left_3))
        self._elaborate_window(m, augend, addend)

    def _elaborate_window(self, m: Module, augend: Signal, addend: Signal) -> None:
        """What this channel had a vector ago has gone round."""
        c, value = self.control, self._value
        totals = [
            Signal(signed(32), name=f"total_{beat}", reset_less=True) for beat in range(self._beats)
        ]
        bests = [
            Signal(signed(8), name=f"best_{beat}", reset_less=True) for beat in range(self._beats)
        ]
        self._total, self._best = totals[0], bests[0]
        with m.If(c.valid_3):
            m.d.sync += totals[0].eq(augend + Mux(c.accumulate_3, totals[-1], addend))
            for older, newer in zip(totals[1:], totals, strict=False):
                m.d.sync += older.eq(newer)
            keeps = c.accumulate_3 & ((bests[-1] > value) ^ c.least)
            m.d.sync += bests[0].eq(Mux(keeps, bests[-1], value))
            for older, newer in zip(bests[1:], bests, strict=False):
                m.d.sync += older.eq(newer)

    def _elaborate_operands(self, m: Module, multiplier: Multiplier) -> None:
        c, total = self.control, self._total
        m.d.comb += self.table_index.eq(self._value)

        # Stage 4. The left shift wraps at 32 bits, as the reference does.
        shifted = Signal(signed(32), reset_less=True)
        magnitude = Signal(MAGNITUDE_BITS, reset_less=True)
        best_5 = Signal(signed(8), reset_less=True)
        m.d.sync += [
            shifted.eq((total << self._left)[:32].as_signed()),
            magnitude.eq(self._magnitude(total)),
            best_5.eq(self._best),
            self.negative.eq(total[-1] & (c.kind == Kind.AVERAGE)),
        ]

        # Stage 5.
        x = Signal(signed(32), reset_less=True)
        mult = Signal(signed(32), reset_less=True)
        m.d.sync += [
            x.eq(self._multiplicand(m, shifted, magnitude, best_5)),
            mult.eq(self._multiplier()),
        ]
        m.d.comb += [multiplier.x.eq(x), multiplier.m.eq(mult)]

    def _multiplier(self) -> Value:
        c = self.control
        fixed = Mux(c.channel_operands, self.mult, c.mult_operands)
        return Mux(c.term_operands, self.term_b, fixed)

    def _magnitude(self, total: Signal) -> Value:
        """Return the absolute value of a sum, half of its number added."""
        flipped = total[:MAGNITUDE_BITS] ^ total[-1].replicate(MAGNITUDE_BITS)
        return add_with_carry(flipped, self.control.half, total[-1], MAGNITUDE_BITS)

    def _multiplicand(self, m: Module, shifted: Signal, magnitude: Signal, best: Value) -> Signal:
        """Choose it; what is only rounded down comes doubled, since one bit is always rounded."""
        chosen = Signal(signed(32))
        with m.Switch(self.control.kind):
            with m.Case(Kind.SUM):
                m.d.comb += chosen.eq(shifted)
            with m.Case(Kind.AVERAGE):
                m.d.comb += chosen.eq(magnitude << 1)
            with m.Case(Kind.MAX):
                m.d.comb += chosen.eq(best << 1)
            with m.Case(Kind.TABLE):
                m.d.comb += chosen.eq(self.table_value << 1)
        return chosen

    def _elaborate_rounding(self, m: Module, multiplier: Multiplier) -> None:
        c = self.control

        right_10 = Signal(5, reset_less=True)
        right_11 = Signal(5, reset_less=True)
        right_12 = Signal(2, reset_less=True)
        m.d.sync += [
            right_10.eq(Mux(c.channel_9, self.right, c.right_9)),
            right_11.eq(right_10),
            right_12.eq(right_11),
        ]

        # Stage 10: the first rounding (SINGLE: only if there is no right shift after it). Halves
        # below zero that the second one is to round down (DOUBLE) are the halves that are rounded
        # up of what is less by one. A zero that was rounded up becomes -1, and zero again.
        high = Signal(signed(32), reset_less=True)
        shifts = right_10.any()
        round_up = multiplier.t[0] & (
            (c.mode_10 == RoundMode.DOUBLE)
            | (c.mode_10 == RoundMode.UP)
            | ((c.mode_10 == RoundMode.SINGLE) & ~shifts)
        )
        less = (c.mode_10 == RoundMode.DOUBLE) & shifts & multiplier.t[-1]
        m.d.sync += high.eq(
            add_with_carry(multiplier.t[1:].as_signed(), less.replicate(32), round_up, 32)
        )

        self._lend(m, high)
        # Stages 11 and 12: the right shift, by a multiple of 4 and by the rest; the highest bit
        # that is shifted out, below the others, says whether it rounds up.
        by_fours = Signal(signed(33), reset_less=True)
        rounds = Signal(reset_less=True)
        m.d.sync += [
            by_fours.eq(Cat(Const(0, 1), high).as_signed() >> Cat(Const(0, 2), right_11[2:])),
            rounds.eq(c.mode_11 != RoundMode.FLOOR),
        ]
        shifted = Signal(signed(33))
        m.d.comb += shifted.eq(by_fours >> right_12)
        m.d.sync += self.term.eq(
            add_with_carry(shifted[1:].as_signed(), Const(0, 1), shifted[0] & rounds, 32)
        )

        # Stage 13: the sign of an average; the zero point.
        negative = self.negative_late
        low = (self.term[:NEAR_BITS] ^ negative.replicate(NEAR_BITS)).as_signed()
        # More by 128: bytes are compared without signs, and have no more bits.
        zero = Cat(c.zero_13[:7], ~c.zero_13[7])
        output = Signal(signed(NEAR_BITS + 1), reset_less=True)
        near, minus = Signal(reset_less=True), Signal(reset_less=True)
        above_low = self.term[NEAR_BITS - 1 :]
        m.d.sync += [
            output.eq(add_with_carry(low, zero, negative, NEAR_BITS + 1).as_signed()),
            near.eq(~above_low.any() | above_low.all()),
            minus.eq(self.term[-1] ^ negative),
        ]

        # Stage 14. The comparisons are of a byte: what does not fit into one is beyond any limit.
        low_byte = output[:8]
        fits = near & ~output[8:].any()
        is_below = Mux(near, output[-1], minus)
        least, most = (Cat(limit[:7], ~limit[7]) for limit in (c.min_14, c.max_14))
        below = Mux(fits, low_byte < least, is_below)
        above = Mux(fits, low_byte > most, ~is_below)
        m.d.sync += self.result.eq(Cat(low_byte[:7], ~low_byte[7]))
        with m.If(below):
            m.d.sync += self.result.eq(c.min_14)
        with m.Elif(above):
            m.d.sync += self.result.eq(c.max_14)

    def _lend(self, m: Module, high: Signal) -> None:
        """Show what the first rounding gives to who has borrowed the multiplier."""


class SmallLane(Lane):
    """A lane for as few places as possible, in the same stages but for the operands'.

    What waits for its next beat is in a memory, of sums and of maxima alike. The left shift takes
    three cycles, and operands have one register, not two. What multiplies and rounds also serves
    others:

    Members
    -------
    borrow : In(1), borrow_x : In(signed(32)), borrow_m : In(signed(32))
        The operands in stage 7 are these, not the lane's.
    high : Out(signed(32))
        The high half of their product, rounded, in stage 11.
    """

    OPERAND_STAGE = 7
    MULTIPLIER = ShortMultiplier

    def _elaborate_window(self, m: Module, augend: Signal, addend: Signal) -> None:
        """Give each beat a word, of a sum or, in its low byte, of a maximum."""
        c, value = self.control, self._value
        self._total = Signal(signed(32), reset_less=True)
        self._best = self._total[:8].as_signed()
        total, earlier = Signal(signed(32)), Signal(signed(32))
        best = earlier[:8].as_signed()
        if self._beats == 1:
            # The register is the word, which stays until the next vector comes.
            m.d.comb += earlier.eq(self._total)
            with m.If(c.valid_3):
                m.d.sync += self._total.eq(total)
        else:
            m.submodules.totals = memory = Memory(shape=signed(32), depth=self._beats, init=[])
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                read.addr.eq(self.beat),
                earlier.eq(read.data),
                write.addr.eq(self.beat),
                write.data.eq(total),
                write.en.eq(c.valid_3),
            ]
            m.d.sync += self._total.eq(total)
        m.d.comb += total.eq(augend + Mux(c.accumulate_3, earlier, addend))
        with m.If(c.kind == Kind.MAX):
            keeps = c.accumulate_3 & ((best > value) ^ c.least)
            m.d.comb += total[:8].eq(Mux(keeps, best, value))

    def _elaborate_operands(self, m: Module, multiplier: Multiplier) -> None:
        """Choose them with no register but those behind a table, which take no place.

        A maximum is shifted by 1, as it comes doubled. No other value that is not a sum is shifted,
        so the table is read for the low byte.
        """
        c, total = self.control, self._total

        # Stages 4 to 6: the left shift, by a multiple of 8, of 2, and by 1. What is not wanted of a
        # command is zero, so that its values need not be chosen from.
        by_eights = Signal(signed(32), reset_less=True)
        by_twos = Signal(signed(32), reset_less=True)
        # The low bits have a byte, doubled.
        low = Signal(9, reset_less=True)
        high = Signal(32 - len(low), reset_less=True)
        magnitude = Signal(MAGNITUDE_BITS, reset_less=True)
        left_5 = Signal(3, reset_less=True)
        left_6 = Signal(1, reset_less=True)
        m.d.sync += [
            by_eights.eq(total << Cat(Const(0, 3), self._left[3:])),
            left_5.eq(self._left),
            self.negative.eq(total[-1] & (c.kind == Kind.AVERAGE)),
            by_twos.eq(by_eights << Cat(Const(0, 1), left_5[1:])),
            left_6.eq(left_5),
            low.eq(Mux((c.kind == Kind.SUM) | (c.kind == Kind.MAX), by_twos << left_6, 0)),
            high.eq(Mux(c.kind == Kind.SUM, (by_twos << left_6)[len(low) :], 0)),
            magnitude.eq(Mux(c.kind == Kind.AVERAGE, self._magnitude(by_twos), 0)),
        ]
        m.d.comb += self.table_index.eq(by_eights)

        # Stage 7. What is only rounded down comes doubled, since one bit is always rounded.
        byte = Signal(signed(9))
        x = Signal(32)
        m.d.comb += [
            byte.eq(Mux(c.kind == Kind.TABLE, self.table_value << 1, 0)),
            x.eq(
                Cat(low, high | (low[-1] & (c.kind == Kind.MAX)).replicate(len(high)))
                | (magnitude << 1)
                | byte
            ),
            multiplier.x.eq(Mux(self.borrow, self.borrow_x, x)),
            multiplier.m.eq(Mux(self.borrow, self.borrow_m, self._multiplier())),
        ]

    def _lend(self, m: Module, high: Signal) -> None:
        m.d.comb += self.high.eq(high)
