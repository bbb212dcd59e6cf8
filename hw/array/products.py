"""Products of two bytes out of carry chains, for an FPGA that has too few multipliers."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Value, signed
from amaranth.lib.wiring import Component, In, Out

__all__ = ["NO_TABLES", "AndAdder", "TableProduct", "TableRows"]

BYTE_BITS = 8
PAIR_BITS = BYTE_BITS + 2
"""Of the sum of two rows, one of them shifted by a bit."""


class AndAdder(Component):
    """Adds two numbers whose bits are the AND of two bits each.

    An FPGA with a table of four inputs before each bit of an adder does it in one carry chain.

    Parameters
    ----------
    width_bits : int
    first_flips, second_flips : int
        Bits of the first and of the second number that are complemented; no bit of both.

    Members
    -------
    a, b : In(width_bits)
        The first number is ``a & b``.
    c, d : In(width_bits)
        The second one is ``c & d``.
    sum : Out(width_bits)
        Without the carry.
    """

    def __init__(self, *, width_bits: int, first_flips: int = 0, second_flips: int = 0) -> None:
        self.width_bits = width_bits
        self.first_flips, self.second_flips = first_flips, second_flips
        super().__init__({**{name: In(width_bits) for name in "abcd"}, "sum": Out(width_bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        assert not self.first_flips & self.second_flips
        first = (self.a & self.b) ^ Const(self.first_flips, self.width_bits)
        second = (self.c & self.d) ^ Const(self.second_flips, self.width_bits)
        m.d.comb += self.sum.eq(first + second)
        return m


class TableProduct(Component):
    """Product of two signed bytes in the same cycle: four sums of two rows, then two, then one.

    ::

        bit j of b:    0 1    2 3    4 5    6 7
                       AND    AND    AND    AND     and add: 10 bits each
                         `--+--'      `--+--'       12 bits each
                            `-----+------'
                               product

    Row j is ``a`` where bit j of ``b`` is set, with its sign in the bits above. Row 7 counts
    negative. Its bits are complemented, which is 2^7 too little; and so is the sign of row 0 (in
    place of those above it), which is 2^7 too much.

    Parameters
    ----------
    adder : type of AndAdder

    Members
    -------
    a, b : In(signed(8))
    product : Out(signed(16))
    """

    def __init__(self, adder: type[AndAdder] = AndAdder) -> None:
        self._adder = adder
        super().__init__({"a": In(signed(8)), "b": In(signed(8)), "product": Out(signed(16))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pairs = [self._pair(m, row) for row in range(0, BYTE_BITS, 2)]
        low, high = (_sum(pairs[i], pairs[i + 1], 2) for i in (0, 2))
        m.d.comb += self.product.eq(_sum(low, high, 4))
        return m

    def _pair(self, m: Module, row: int) -> Value:
        """Return the sum of a row, which is even, and of twice the next one."""
        above = PAIR_BITS - BYTE_BITS
        first = Cat(self.a, self.a[-1].replicate(above))
        flips = [0, 0]
        if row == 0:
            first = Cat(self.a, Const(0, above))
            flips[0] = 1 << BYTE_BITS - 1
        if row + 1 == BYTE_BITS - 1:
            flips[1] = (1 << PAIR_BITS) - 2
        m.submodules[f"rows_{row}"] = adder = self._adder(
            width_bits=PAIR_BITS, first_flips=flips[0], second_flips=flips[1]
        )
        m.d.comb += [
            adder.a.eq(first),
            adder.b.eq(self.b[row].replicate(PAIR_BITS)),
            adder.c.eq(Cat(Const(0, 1), self.a, self.a[-1].replicate(above - 1))),
            adder.d.eq(self.b[row + 1].replicate(PAIR_BITS)),
        ]
        return adder.sum.as_signed()


def _sum(low: Value, high: Value, shift_bits: int) -> Value:
    """Return ``low + (high << shift_bits)``; the sum has as many bits as the shifted number."""
    upper = (low[shift_bits:].as_signed() + high)[: len(high)]
    return Cat(low[:shift_bits], upper).as_signed()


@dataclass(frozen=True)
class TableRows:
    """Rows of the array whose products are made of tables; results are the same.

    Which ones is a matter of the FPGA, not of the machine.

    Attributes
    ----------
    count : int
        How many. They lie evenly among the others.
    adder : type of AndAdder
        What the FPGA has for it.
    """

    count: int = 0
    adder: type[AndAdder] = AndAdder

    def has(self, row: int, rows: int) -> bool:
        """Return whether a row, of so many rows, is one of them."""
        return row * self.count // rows != (row + 1) * self.count // rows


NO_TABLES = TableRows()
"""Every product has a multiplier."""
