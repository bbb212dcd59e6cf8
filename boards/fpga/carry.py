"""The adders of table products on an ECP5: the table before each bit of a carry chain adds."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Instance, Module, Signal
from celosia.hw.array.products import AndAdder

__all__ = ["CarryAndAdder"]

AND_SUM = 0x7888
"""Table of ``(a & b) ^ (c & d)``. Its first four entries, ``a & b``, are the carry where both
numbers have the same bit."""
NAND_SUM = 0x8777
"""The same with ``~(a & b)``."""


class CarryAndAdder(AndAdder):
    """Two bits a CCU2C, whose tables would be in front of it otherwise (Lattice FPGA-TN-02205)."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        assert not self.first_flips & self.second_flips
        carry: Any = Const(0, 1)
        sums = Signal(self.width_bits + self.width_bits % 2)
        for low in range(0, self.width_bits, 2):
            following = Signal(name=f"carry_{low}")
            ports: dict[str, Any] = {"i_CIN": carry, "o_COUT": following}
            for half in (0, 1):
                inputs, table = self._bit(low + half)
                for name, value in zip("ABCD", inputs, strict=True):
                    ports[f"i_{name}{half}"] = value
                ports[f"p_INIT{half}"] = Const(table, 16)
                ports[f"p_INJECT1_{half}"] = "NO"
                ports[f"o_S{half}"] = sums[low + half]
            m.submodules[f"bits_{low}"] = Instance("CCU2C", **ports)
            carry = following
        m.d.comb += self.sum.eq(sums)
        return m

    def _bit(self, bit: int) -> tuple[list[Any], int]:
        """Return the inputs A to D and the table of a bit."""
        if bit >= self.width_bits:
            return [Const(0, 1)] * 4, AND_SUM
        first, second = [self.a[bit], self.b[bit]], [self.c[bit], self.d[bit]]
        if self.second_flips >> bit & 1:
            # The first four entries take no second number: a bit that is complemented is the first.
            return second + first, NAND_SUM
        return first + second, NAND_SUM if self.first_flips >> bit & 1 else AND_SUM
