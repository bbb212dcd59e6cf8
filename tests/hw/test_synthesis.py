"""Memories stay memories: what synthesis for an ECP5 makes of every memory of the machine.

Synthesis is stopped before what is left of memories would become flip-flops. Everything that is
counted is worked out here from the configuration, so that a memory that no longer fits a block
memory, or an array of registers that should have been one, is seen at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Array, Module, Signal
from amaranth.lib.memory import Memory
from celosia.boards.fpga import resources
from celosia.boards.fpga.tools import YOSYS, FpgaToolError, find_tool
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.contract.isa import MAX_LOADS
from celosia.hw.contract.parts import Part
from celosia.hw.memory.lines import LineMemory
from celosia.hw.nano.instructions import DATA_WORDS, INSTRUCTION_BITS
from celosia.hw.nano.layout import LocalMap
from celosia.hw.nano.processor import CODE_PARTS
from celosia.hw.npu import Npu

MAP_MEMORIES = "synth_ecp5 -top top -run begin:map_ffram"
TIME_OUT_S = 600

GEOMETRIES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
"""Words and bits that a DP16KD can have."""

FIXED_FF = 5_300
FF_A_LANE = 1_350
"""Flip-flops of an NPU that do not depend on its width, and those of a lane."""

FIRMWARE_FF = 1_000
"""The same of a machine with firmware."""

BLOCK_WORDS = 64
"""Memories with fewer words are better off in tables."""

Memories = list[tuple[int, int, bool]]
"""Words, bits of a word, whether single bytes are written."""


def setup_module() -> None:
    try:
        find_tool(YOSYS, task="synthesis")
    except FpgaToolError as error:
        pytest.skip(str(error))


def memories_of(config: NpuConfig) -> Memories:
    """Return every memory of an NPU: on-chip memories, queues, buffers."""
    if config.firmware:
        return [
            # Of a depth that is no power of two Yosys makes halves of a word, which take one more.
            *[(LocalMap(config).bytes // config.line_bytes, 4 * config.line_bytes, True)] * 2,
            *[(2 * config.acc_depth, 32, False)] * config.cols,
            (DATA_WORDS, 32, True),
            *((words, INSTRUCTION_BITS, False) for words in CODE_PARTS),
        ]
    line, bus = 8 * config.line_bytes, config.bus_bits
    word_address_bits = 32 - (config.bus_bytes - 1).bit_length()
    command_bytes, group, store_words = 64, 16, 8
    bank_words = config.act_lines // config.act_banks
    on_chip = [(bank_words, line, True)] * config.act_banks
    on_chip += [(config.wgt_lines // 2, line, True)] * 2
    on_chip += [(config.param_lines, line, True)]
    # The halves of the accumulator; or both of them, twice.
    mirrored = Part.MIRRORED_ACCUMULATOR in config.parts
    acc_depth = 2 * config.acc_depth if mirrored else config.acc_depth
    on_chip += [(acc_depth, 32 * config.cols, False)] * 2
    lanes, beats = config.vector_lanes, config.vector_beats
    on_chip += [(256, 8 * beats, beats > 1)] * lanes
    if Part.SHARED_QUEUES in config.parts:
        queues = [(4 * 16 * config.queue_depth, 32, False)]
    else:
        queues = [(8 * config.queue_depth, 64, False)] * 4
    if Part.MEMORY_COUNTERS in config.parts:
        queues.append((16, 32, False))
    if Part.MEMORY_REGISTERS in config.parts:
        queues += [(16, 8, False)] * 4 + [
            (4, 8, False)
        ] * 8  # registers; bases and sizes of regions
    single = Part.SINGLE_TRANSFERS in config.parts
    place_bits = word_address_bits + config.bus_bytes + 1
    # Of a load also its memory and whether it is the last word.
    if single:
        transfers = [(config.max_outstanding, bits, False) for bits in (place_bits + 3, bus)]
    else:
        transfers = [
            (2 * config.max_outstanding, 20 + config.bus_bytes + 3, False),  # load: places
            (2 * config.max_outstanding, bus, False),  # load: answers
            (store_words, place_bits, False),  # store: places
            (store_words, bus, False),  # store: bytes
        ]
    owners = config.max_outstanding * (1 if Part.SINGLE_BUFFERS in config.parts else 2)
    buffers = [
        *transfers,
        (MAX_LOADS, 4 + 16, False),  # loads under way: tokens and tag
        (owners, word_address_bits + (2 if single else 3), False),  # arbiter: who asked
        (2 * command_bytes // config.bus_bytes, bus, False),  # fetch
        (group, 8 * lanes, False),  # vector engine: between the phases of an addition
        (group, 32 * lanes, False),
        (group, 32 * lanes, False),
    ]
    if beats > 1:
        # Biases and multipliers, in as many memories as a beat needs lines; shifts, left and right.
        lines = max(1, 4 * lanes // config.cols)
        buffers += [(2 * 4 // lines, line, False)] * (2 * lines) + [(2, 5 * config.cols, False)] * 2
    if Part.MEMORY_DELAYS in config.parts:
        buffers += [(row, 8, False) for row in range(3, config.rows)]  # array: skewed windows
        buffers += [(3 * s, line, False) for s in range(1, config.dw_segments)]  # pixels
        # Tags, all the way from the address to the accumulator.
        buffers += [(config.rows + 4, (config.acc_depth - 1).bit_length() + 2, False)]
        buffers += [(10, 8, False)]  # vector engine: what a result waits for in the pipeline
        buffers += [(7, lanes, False)]  # signs of averages
        ends = 4 if config.joins_rows else 2  # of the bytes of a wave that are no padding
        buffers += [(2, ends * config.line_bytes.bit_length(), False)]
    return on_chip + queues + buffers


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def expected_cells(memories: Memories) -> tuple[int, int]:
    """Return the cells DP16KD and TRELLIS_DPR16X4 that hold `memories`."""
    blocks = small = 0
    for words, bits, by_bytes in memories:
        if words < BLOCK_WORDS:
            small += ceil_div(words, 16) * ceil_div(bits, 4)
            continue
        # The ninth bit of a byte is of no use where bytes are written.
        blocks += min(
            ceil_div(words, depth) * ceil_div(bits, width * 8 // 9 if by_bytes else width)
            for depth, width in GEOMETRIES
            if width >= 9 or not by_bytes
        )
    return blocks, small


def flip_flop_bound(config: NpuConfig) -> int:
    """Return what the flip-flops of an NPU must stay below.

    A cell of the array has two weights, an operand, a product and a sum. Everything else grows
    with the width of a line or not at all; its two figures were measured, with a margin that is
    smaller than the smallest block memory.
    """
    if config.firmware:
        return FIRMWARE_FF
    cell = 8 + 8 + 8 + 16 + 16 + (config.rows - 1).bit_length()
    return FIXED_FF + FF_A_LANE * config.cols + cell * config.rows * config.cols


def violations(cells: dict[str, int], memories: Memories, flip_flops: int) -> list[str]:
    """Return what is wrong with a design that should have these memories."""
    found = [f"{kind} is left" for kind in cells if kind.startswith("$mem")]
    for kind, expected in zip(("DP16KD", "TRELLIS_DPR16X4"), expected_cells(memories), strict=True):
        if cells.get(kind, 0) != expected:
            found.append(f"{cells.get(kind, 0)} {kind} instead of {expected}")
    count = register_bits(cells)
    if count > flip_flops:
        found.append(f"{count} flip-flops, more than {flip_flops}")
    return found


def register_bits(cells: dict[str, int]) -> int:
    """Return the bits of all flip-flops; their width ends their type's name."""
    widths = ((re.fullmatch(r"\$\w*dff\w*?_(\d+)", kind), count) for kind, count in cells.items())
    return sum(int(match[1]) * count for match, count in widths if match)


def mapped(top: Any) -> dict[str, int]:
    text = rtlil.convert(top, name="top", emit_src=False)
    return resources.cell_counts(text, MAP_MEMORIES, timeout_s=TIME_OUT_S)


@pytest.mark.parametrize("name", ["nano", "base"])
def test_memories_are_mapped_as_intended(name: str) -> None:
    config = PRESETS[name]
    cells = mapped(Npu(config))
    assert violations(cells, memories_of(config), flip_flop_bound(config)) == []
    # The bound is near enough to see the smallest block memory turn into flip-flops.
    smallest = min(words * bits for words, bits, _ in memories_of(config) if words >= BLOCK_WORDS)
    assert flip_flop_bound(config) - register_bits(cells) < smallest


# ---------------------------------------------------------------------- what the check must see

LINES = 256


def line_memory() -> LineMemory:
    return LineMemory(PRESETS["nano"], lines=LINES, reader="vector")


class Asynchronous(LineMemory):
    """The same, with a read port that does not wait for the clock."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=len(self.read.data), depth=LINES, init=[])
        write_port, read_port = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write_port.addr.eq(self.write.addr[2:]),
            write_port.data.eq(self.write.data),
            write_port.en.eq(self.write.req),
            read_port.addr.eq(self.read.line),
            # Through no register: Yosys would make it part of the memory.
            self.read.data.eq(read_port.data),
        ]
        return m


class Registers(LineMemory):
    """The same, out of registers."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lines = Array(Signal(len(self.read.data), name=f"line_{i}") for i in range(LINES))
        with m.If(self.write.req):
            m.d.sync += lines[self.write.addr[2 : 2 + 8]].eq(self.write.data)
        m.d.sync += self.read.data.eq(lines[self.read.line[:8]])
        return m


def seeded(kinds: Iterable[type[LineMemory]]) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("kind", list(kinds), ids=lambda kind: kind.__name__)


def check_of_one(kind: type[LineMemory]) -> list[str]:
    config = PRESETS["nano"]
    line = 8 * config.line_bytes
    cells = mapped(kind(config, lines=LINES, reader="vector"))
    # The register at the output, and those before the write. Yosys would add the last word written
    # and read, if a read in the cycle of a write had to give the old word.
    write = config.bus_bits + config.line_bytes + (LINES - 1).bit_length()
    return violations(cells, [(LINES, line, True)], flip_flops=line + write)


def test_check_accepts_a_line_memory() -> None:
    assert check_of_one(LineMemory) == []


@seeded([Asynchronous, Registers])
def test_check_rejects(kind: type[LineMemory]) -> None:
    found = check_of_one(kind)
    assert any("DP16KD instead of 1" in line for line in found)
    if kind is Registers:
        assert any("flip-flops, more than" in line for line in found)


# ---------------------------------------------------------------------- errors


def test_unknown_family_is_refused() -> None:
    with pytest.raises(FpgaToolError, match="no such family.*ecp5"):
        resources.synthesise(PRESETS["nano"], family="ice40")


def test_time_out_is_reported() -> None:
    with pytest.raises(FpgaToolError, match="did not end within"):
        resources.synthesise(PRESETS["nano"], timeout_s=0.5)


def test_error_of_yosys_is_shown() -> None:
    with pytest.raises(FpgaToolError, match="ERROR.*no_such_command"):
        resources.cell_counts("", "no_such_command", timeout_s=TIME_OUT_S)


def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FpgaToolError, match=r'no-such-yosys is not installed.*"\.\[boards\]"'):
        find_tool(("no-such-yosys",), task="synthesis")


def test_tables_taken() -> None:
    cells = {"LUT4": 100, "CCU2C": 10, "TRELLIS_DPR16X4": 3, "PFUMX": 7, "TRELLIS_FF": 5}
    found = resources.resources_of(PRESETS["nano"], "ecp5", cells)
    assert found.tables == 100 + 2 * 10 + 6 * 3
    assert found.ff == 5
    assert found.use_of(resources.DEVICES[0])["ff"] == 5 / 24288


def test_unmapped_cells_are_an_error() -> None:
    with pytest.raises(FpgaToolError, match=r"\$mem_v2"):
        resources.resources_of(PRESETS["nano"], "ecp5", {"LUT4": 1, "$mem_v2": 1})
