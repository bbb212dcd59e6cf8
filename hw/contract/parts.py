"""The parts of a machine that there are in two variants: a fast one and a small one.

A machine with engines is the same set of parts whatever its sizes. For each :class:`Part` there is
a class of hardware that is fast, and one that does the same with fewer flip-flops, tables or block
RAMs and takes more cycles or a longer path for it. ``NpuConfig.compact`` names those that are
small, and :mod:`celosia.hw.parts` picks the classes.

Pure standard library: compiler, emulator and documentation read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["COMPACT", "FULL", "LEAN", "Part", "Variant"]


@dataclass(frozen=True)
class Variant:
    """What the small variant of a part is.

    Parameters
    ----------
    does : str
        What there is, in place of the fast variant.
    saves, costs : str
    needs : tuple of str
        Names of the parts that have to be small as well.
    """

    does: str
    saves: str
    costs: str
    needs: tuple[str, ...] = ()


class Part(Enum):
    """A saving that a machine may be made with; its value says what it is.

    The parts that a configuration has are in ``NpuConfig.parts``.
    """

    SINGLE_TRANSFERS = Variant(
        does="One DMA engine executes loads and stores, one command at a time; the token gates let"
        " one of both pass. Their commands are put together in the registers that show them.",
        saves="The registers, adders and queues of a second DMA engine, a port of the bus arbiter,"
        " and a second set of registers for commands of both kinds.",
        costs="A load and a store never overlap. One follows another of its kind some cycles later,"
        " a cycle for each 64 bits.",
    )
    SHARED_QUEUES = Variant(
        does="The commands of all engines wait in one block memory, and are put together in the"
        " registers that show them to their engine.",
        saves="Three block RAMs, and a second set of registers for each engine's command.",
        costs="A command follows the one before it some cycles later, a cycle for each 32 bits.",
        needs=("SINGLE_TRANSFERS",),
    )
    SINGLE_BUFFERS = Variant(
        does="Stream buffers of the command fetch and between stages have one entry, not two, and"
        " the arbiter's queue of owners is as long as the bus has words in flight. With"
        " PLAIN_STAGES also those of the bus, and of words on their way to it.",
        saves="A copy of each buffer's payload.",
        costs="No cycles; a combinational path from a buffer's output to its input.",
    )
    SINGLE_STEPS = Variant(
        does="The buffer between the planner of the vector engine and what issues its steps has one"
        " entry, not two.",
        saves="A copy of a step.",
        costs="No cycles; a long path, from a grant through all loops of the planner.",
    )
    PLAIN_STAGES = Variant(
        does="Nothing is between the stages of the dispatcher and of a transfer's walk.",
        saves="Two copies of the payload of each stage.",
        costs="A longer path; a transfer's first word comes two cycles earlier.",
    )
    FETCH_ON_DEMAND = Variant(
        does="The command fetch has room for one command and asks for the next when it is empty.",
        saves="Half of the fetch queue.",
        costs="Memory latency between commands, where the queues run empty.",
    )
    DIRECT_WEIGHTS = Variant(
        does="Rows of the array take their weights from the weight memory as a pass reaches them;"
        " there are no shadow weights.",
        saves="Eight flip-flops of each cell of the array, and the weight loader's own loops.",
        costs="A pass takes as many cycles as the array has rows, at least, where it takes half as"
        " many and one.",
    )
    COMBINATIONAL_PRODUCTS = Variant(
        does="A product of the array has no register before it is added.",
        saves="Sixteen flip-flops of each cell of the array.",
        costs="A longer path. (A wave takes one cycle less.)",
    )
    MEMORY_DELAYS = Variant(
        does="What waits for a fixed number of cycles (bytes of a window, tags of sums, the"
        " destination of a vector) does so in a small memory made of tables.",
        saves="The flip-flops of the delays.",
        costs="Tables, of which there are fewer than the flip-flops they replace.",
    )
    MIRRORED_ACCUMULATOR = Variant(
        does="Two memories hold both halves of the accumulator: the array reads one of them, the"
        " vector engine the other.",
        saves="The choice between the halves for either reader, and two registers of a vector.",
        costs="Twice the depth: more block RAM where both halves do not fit the depth of one. A"
        " half is free when its last vector is read, not before.",
    )
    ONE_SEGMENT = Variant(
        does="A pass of a depthwise convolution covers one kernel row, and no window ends in the"
        " next one (mode JOINED).",
        saves="The ways of the second and third kernel row into the array, and their delays; the"
        " bounds of a window's second row.",
        costs="Depthwise convolutions take up to three times as many passes, first layers of three"
        " channels one and a half times.",
    )
    PLAIN_LOOPS = Variant(
        does="Whether a loop of the vector engine is in its last turn is seen from its count.",
        saves="A flip-flop and a comparison of each loop.",
        costs="A longer path.",
    )
    SHARED_ACT_PORTS = Variant(
        does="The vector engine and the DMA read the activation SRAM through the array's ways out"
        " of the banks, and one register feeds the writes of all banks.",
        saves="The ways of two readers out of four banks, and the write registers of three banks.",
        costs="The vector engine waits while the array reads three lines; a store waits while it"
        " reads a window, unless the word is in a line of another bank.",
    )
    PLAIN_OUTPUTS = Variant(
        does="The output registers of the weight and parameter memories have no reset.",
        saves="These registers, as they can be those inside a block RAM.",
        costs="Nothing: what they hold is not looked at after a reset.",
    )
    SMALL_LANES = Variant(
        does="A lane of the vector engine shifts to the left in three steps, registers its operands"
        " once, has a multiplier of three cycles, and keeps the sums of a window in a memory.",
        saves="Registers of operands, of products and of the sums of windows in each lane.",
        costs="A longer path. The pipeline is as long as it is.",
    )
    LENT_SOFTMAX = Variant(
        does="Softmax multiplies and rounds with the vector engine's first lane, and its lines are"
        " taken apart and put together by the vector engine's pipeline.",
        saves="A multiplier of 32 bits with its DSP blocks, the rounding behind it, and two lines"
        " of flip-flops.",
        costs="A few cycles of each row.",
        needs=("SMALL_LANES",),
    )
    SHIFTS_BY_BEATS = Variant(
        does="The line of shifts of a parameter block is read once for each beat of a vector, and"
        " each beat's shifts are in a word of their own.",
        saves="The choice of a beat's shifts, behind a memory as wide as a vector.",
        costs="As many cycles of each block as a vector has beats, less one.",
    )
    COMMAND_IN_PLACE = Variant(
        does="The vector engine looks at its command where the queue shows it.",
        saves="A register of all fields of the command.",
        costs="A longer path from the queue.",
    )
    PLAIN_TABLE_WRITES = Variant(
        does="What is loaded goes into the look-up tables without a register between them.",
        saves="Registers of the address and of an enable for each channel.",
        costs="A longer path.",
    )
    PLAIN_ERRORS = Variant(
        does="The first error is chosen in the cycle in which errors come.",
        saves="A register for each source of errors: 32 bits of address, cause and unit.",
        costs="A longer path.",
        needs=("SINGLE_TRANSFERS",),
    )
    MEMORY_COUNTERS = Variant(
        does="The performance counters are words of a small memory; a few bits beside it count what"
        " came since a counter's last turn.",
        saves="Most of 512 flip-flops and sixteen adders.",
        costs="Nothing: what is read is exact.",
    )
    MEMORY_REGISTERS = Variant(
        does="Regions, limits and the scratch register are words of a small memory, of which the"
        " region in use is shown.",
        saves="The flip-flops of ten registers of 32 bits, and the choice between regions.",
        costs="The registers stall for 16 cycles after a reset; the watchdog is looked at while no"
        " register is read.",
        needs=("SINGLE_TRANSFERS",),
    )
    NO_ENABLES = Variant(
        does="The engines have no clock enables.",
        saves="One more wire, or table, at each register.",
        costs="Power: engines without work run on.",
    )


FULL: frozenset[Part] = frozenset()
"""No saving: the fastest machine of its sizes."""

COMPACT: frozenset[Part] = frozenset(Part)
"""All of them: the smallest machine with engines."""

LEAN: frozenset[Part] = frozenset(
    {
        Part.SINGLE_TRANSFERS,
        Part.SINGLE_BUFFERS,
        Part.MEMORY_DELAYS,
        Part.MIRRORED_ACCUMULATOR,
        Part.PLAIN_LOOPS,
        Part.SHARED_ACT_PORTS,
        Part.PLAIN_OUTPUTS,
        Part.SMALL_LANES,
        Part.LENT_SOFTMAX,
        Part.SHIFTS_BY_BEATS,
        Part.COMMAND_IN_PLACE,
        Part.PLAIN_TABLE_WRITES,
        Part.MEMORY_COUNTERS,
        Part.MEMORY_REGISTERS,
        Part.NO_ENABLES,
    }
)
"""What `base` saves: together less than half a per cent of the cycles of any MLPerf Tiny network.

SHARED_QUEUES, DIRECT_WEIGHTS, ONE_SEGMENT and FETCH_ON_DEMAND cost more of them; SINGLE_STEPS,
PLAIN_STAGES, PLAIN_ERRORS and COMBINATIONAL_PRODUCTS make paths that would be the longest of all.
"""
