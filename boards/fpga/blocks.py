"""Hard blocks of an ECP5, multipliers and memories: where they are, what the NPU calls its own."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "ACC",
    "ACT",
    "GRIDS",
    "LANE",
    "MEMORIES",
    "MIRRORED",
    "MULTIPLIERS",
    "PARAM",
    "PARTIAL_PRODUCTS",
    "PER_BLOCK",
    "PRODUCT",
    "SOFTMAX",
    "TABLE",
    "WGT",
    "BlockGrid",
]

MULTIPLIERS = "MULT18X18D"
MEMORIES = "DP16KD"
PER_BLOCK = 4
"""Multipliers in a DSP block, and block memories in the columns below it."""
DSP_PLACES = ((0, 0), (1, 1), (4, 4), (5, 5))
"""Offset in x and number of each multiplier in its DSP block."""
EBR_PITCH = 2
PARTIAL_PRODUCTS = ("low_low", "low_high", "high_low", "high_high")

PRODUCT = re.compile(r"\bgrid\.product_(\d+)_(\d+)_")
LANE = re.compile(r"\blane_(\d+)\.multiplier\.([a-z]+_[a-z]+)_")
SOFTMAX = re.compile(r"\bsoftmax\.multiplier\.([a-z]+_[a-z]+)_")
_SLICE = r"(?:\.memory)+\.(\d+)\.(\d+)$"
ACT = re.compile(r"\bact\.bank_(\d+)" + _SLICE)
ACC = re.compile(r"\baccumulator\.half_(\d+)" + _SLICE)
MIRRORED = re.compile(r"\baccumulator\.of_(?:adder|reader)" + _SLICE)
WGT = re.compile(r"\bwgt\.bank_(\d+)" + _SLICE)
PARAM = re.compile(r"\bparam" + _SLICE)
TABLE = re.compile(r"\btable_(\d+)" + _SLICE)


@dataclass(frozen=True)
class BlockGrid:
    """Where an FPGA has DSP blocks and block memories, in tiles.

    Attributes
    ----------
    columns : tuple of int
        x of the first multiplier of each DSP block, and of the first memory below it.
    multiplier_rows, memory_rows : tuple of int
        y of their rows.
    """

    columns: tuple[int, ...]
    multiplier_rows: tuple[int, ...]
    memory_rows: tuple[int, ...]

    def multiplier(self, column: int, row: int, place: int) -> str:
        """Return the name of a multiplier, by place in its DSP block."""
        x, number = DSP_PLACES[place]
        return f"X{self.columns[column] + x}/Y{self.multiplier_rows[row]}/MULT18_{number}"

    def memory(self, column: int, row: int, place: int) -> str:
        """Return the name of a block memory, by place in its group of four."""
        x = self.columns[column] + EBR_PITCH * place
        return f"X{x}/Y{self.memory_rows[row]}/EBR{place}"


GRIDS = {
    "LFE5U-85F": BlockGrid(
        columns=(4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114),
        multiplier_rows=(10, 34, 58),
        memory_rows=(22, 46, 70, 82),
    )
}
"""By device; from nextpnr's list of its cells."""
