"""What travels down the vector engine's pipeline with each vector.

Stages are counted from the cycle in which the vector's read is asked for (stage 0):

===== ==================================================================================
stage what happens, ending in registers of the next stage
===== ==================================================================================
0     read of the accumulator or of the activation SRAM is granted
2     its data is there; scratch memories are read; both operands of the first sum
3     first sum (bias, zero point, sum of the terms, window) or maximum; table is read
4     left shift; magnitude of a window's sum
5     multiplicand and multiplier are chosen; a term that multiplies is read
6-9   32 x 31-bit product (:mod:`celosia.hw.vector.multiplier`)
10    its bits 31 and up, rounded
11    right shift, by a multiple of 4
12    right shift, by the rest; rounding up
13    terms go to the scratch memories; sign and zero point
14    clamp
15    line is written; requantised values go to the scratch memory
===== ==================================================================================

With small lanes the left shift takes stages 4 to 6, with the magnitude in the last of them,
operands are chosen in stage 7, and the product takes stages 7 to 9; the table is read in stage 5.
"""

from __future__ import annotations

from amaranth.hdl import unsigned
from amaranth.lib import data, enum
from celosia.hw.contract.config import MAX_BEATS, NpuConfig

__all__ = [
    "GROUP",
    "GROUP_BITS",
    "HAZARD",
    "LINE_SUM_BITS",
    "STAGE_RESULT",
    "STAGE_TERM",
    "Constants",
    "Dest",
    "Source",
    "beat_bits",
    "uop_layout",
]

GROUP_BITS = 4
GROUP = 1 << GROUP_BITS
"""Beats that the scratch memories hold between the phases of an addition."""

assert GROUP >= MAX_BEATS

STAGE_SCRATCH = 2
STAGE_TERM = 13
"""Stage in which a term is written to its scratch memory."""

STAGE_RESULT = 15
"""Stage in which a clamped vector is written, to the SRAM or to its scratch memory."""

HAZARD = STAGE_RESULT + 1 - STAGE_SCRATCH
"""Cycles from a beat's issue to the first one in which its result can be asked for again."""

LINE_SUM_BITS = 17
"""A line address and one carry: the sum of a legal line and any stride does not wrap."""


class Source(enum.Enum, shape=unsigned(2)):
    """Where a vector comes from."""

    ACC = 0
    ACT = 1
    MIDDLE = 2
    """Requantised values of REQUANT_ADD, from the scratch memory."""
    TERMS = 3
    """Both scaled terms of an addition, from the scratch memories."""


class Dest(enum.Enum, shape=unsigned(3)):
    """Where its result goes."""

    LINE = 0
    MIDDLE = 1
    TERM_A = 2
    TERM_B = 3
    TERMS = 4
    """To both scratch memories."""


class Constants(enum.Enum, shape=unsigned(3)):
    """Which multiplier, shifts and zero point it gets."""

    CHANNEL = 0
    """Those of the parameter block, one for each lane."""
    TERM_A = 1
    TERM_B = 2
    OUTPUT = 3
    PASS = 4
    """A product that leaves the value as it is."""
    PRODUCT = 5
    """The second term is the multiplier; the product is rounded down."""


def beat_bits(config: NpuConfig) -> int:
    """Return the width of a beat's number: 0 if a vector takes one cycle."""
    return (config.vector_beats - 1).bit_length()


def uop_layout(config: NpuConfig) -> data.StructLayout:
    """Return what describes a beat of a vector, or of an element of a window, on its way."""
    return data.StructLayout(
        {
            "source": Source,
            "dest": Dest,
            "constants": Constants,
            # Place in the scratch memories; before the vector is issued, in vectors.
            "index": GROUP_BITS,
            # First of its window: starts the sum or the maximum.
            "first": 1,
            # Last of its window: has a result.
            "emit": 1,
            # First one that uses the next parameter block.
            "new_oc": 1,
            # Last line written of the command.
            "last": 1,
            # Which of the vector's channels: lanes * beat and up.
            "beat": beat_bits(config),
            # Which half of the memories of parameters, where there are two.
            "params_half": int(config.vector_beats > 1),
        }
    )
