"""Broken programs on the machine with firmware: cause, unit, tag and address as the emulator's.

All of it on one machine: whatever a broken program leaves behind, the next one meets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import (
    COMMAND_BITS,
    COMMAND_BYTES,
    COMMANDS,
    Command,
    Conv,
    End,
    Engine,
    IsaError,
    Load,
    Mode,
    Region,
    Softmax,
    Space,
    Store,
    Vector,
    VectorOp,
    counts_of,
    fields_of,
    whole_words_of,
)
from celosia.hw.contract.legal import field_problem
from celosia.sim.emulator.machine import EmulatorError
from celosia.sim.rtl.rtl import MemoryModel

pytestmark = pytest.mark.xdist_group("rtl-nano")

CONFIG = preset("nano")
LINE = CONFIG.line_bytes
FETCH = 4
TAG = 7
IO_BYTES = 0x1_0000
WATCHDOG_CYCLES = 60_000
BUS_TIMEOUT_CYCLES = 500
MUST_STOP_CYCLES = 5000
"""What may pass between the moment in which a limit is reached and the interrupt."""
START_CYCLES = 1500
"""From the doorbell to the first command."""
BEYOND = CONFIG.act_lines - 2
"""An activation line after which there is only one more."""

LOAD = Load(region=Region.IO, row_bytes=64, tag=TAG)
STORE = Store(region=Region.IO, row_bytes=64, tag=TAG)
CONV = Conv(
    in_h=4, row_bytes=4 * LINE, row_pitch=4 * LINE, out_w=4, out_h=4, tile_rows=4, row_len=4,
    stride_x=1, stride_y=1, step_x=LINE, step_y=4 * LINE, n_ky=1, n_kx=1, n_ic=1, n_oc=1, tag=TAG,
)  # fmt: skip
REQUANT = Vector(
    op=VectorOp.REQUANT, shared=1, mult_a=1 << 30, n_oc=1, out_h=4, out_w=4, tile_rows=4,
    d_addr=64, d_y=4, d_x=1, act_min=-128, act_max=127, tag=TAG,
)  # fmt: skip
ADD = Vector(
    op=VectorOp.ADD, n_oc=1, out_h=4, out_w=4, a_y=4, a_x=1, b_addr=32, b_y=4, b_x=1, d_addr=64,
    d_y=4, d_x=1, mult_a=1 << 30, mult_b=1 << 30, mult_o=1 << 30, act_min=-128, act_max=127,
    tag=TAG,
)  # fmt: skip
MAX = replace(ADD, op=VectorOp.MAX, n_ky=2, n_kx=2, a_ky=4, a_kx=1)
SOFTMAX = Softmax(channels=10, n_rows=2, a_y=3, d_addr=64, d_y=3, tag=TAG)
TAPS = replace(CONV, mode=Mode.TAPS, row_len=7)
TO_STORE, TO_LOAD = 1 << Engine.STORE, 1 << Engine.LOAD
SOUND: tuple[Command, ...] = (LOAD, STORE, CONV, ADD, SOFTMAX, End(tag=TAG))

Stream = list[Command | bytes]
Case = tuple[str, Stream, str, int]


def with_field(command: Command, name: str, value: int) -> bytes:
    """Encode a value that the schema would refuse."""
    spec = next(spec for spec in fields_of(type(command)) if spec.name == name)
    mask = ((1 << spec.width_bits) - 1) << spec.offset_bits
    word = int.from_bytes(command.encode(), "little") & ~mask | value << spec.offset_bits
    return word.to_bytes(COMMAND_BYTES, "little")


def used_bits(command: Command) -> int:
    return sum(spec.width_bits for spec in fields_of(type(command)))


def assert_works(machine: Any) -> None:
    """A program of all engines, with inputs that differ from time to time."""
    rng = np.random.default_rng(machine.read("count_total"))
    machine.shuffle(rng)
    convs = (replace(CONV, zero_point=5, x0=-4, in_h=3), replace(REQUANT, d_addr=256))
    machine.both(
        machine.fill(Space.ACT, 2048),
        machine.fill(Space.WGT, 256),
        machine.fill(Space.PARAM, 64),
        convs,
        ADD,
        MAX,
        machine.drain(2048),
    )


# Commands that are illegal


def illegal_streams() -> Iterator[Case]:
    for opcode in (0x00, 0x02, 0x0F, 0x11, 0x21, 0x31, 0x3F, 0x42, 0x50, 0x77, 0xFF):
        data = bytes([opcode, 0, TAG, 0]) + bytes(COMMAND_BYTES - 4)
        yield f"opcode {opcode:#04x}", [data], "ILLEGAL_OPCODE", FETCH
    for command in SOUND:
        kind = type(command).__name__
        for bit in sorted({used_bits(command), COMMAND_BITS - 1, (used_bits(command) | 31) + 1}):
            whole = int.from_bytes(command.encode(), "little") | 1 << min(bit, COMMAND_BITS - 1)
            data = whole.to_bytes(COMMAND_BYTES, "little")
            yield f"{kind}: reserved bit {bit}", [data], "ILLEGAL_FIELD", FETCH
        for field in ("wait", "signal"):
            own = 1 << command.engine if command.engine is not None else 4
            stream: Stream = [replace(command, **{field: own})]
            yield f"{kind}: own token in {field}", stream, "ILLEGAL_FIELD", FETCH
    counts: list[tuple[Command, tuple[str, ...]]] = [
        *((sound, counts_of(type(sound))) for sound in (LOAD, STORE, CONV, ADD, MAX, SOFTMAX)),
        (REQUANT, ("tile_rows",)),
    ]
    for sound, names in counts:
        for name in names:
            data = with_field(sound, name, 0)
            unit = int(sound.engine or 0)
            kind = VectorOp(sound.op).name if isinstance(sound, Vector) else type(sound).__name__
            yield f"{kind}: {name} is 0", [data], "ILLEGAL_FIELD", unit
    yield "Conv: unknown mode", [with_field(CONV, "mode", 3)], "ILLEGAL_FIELD", 2
    wide = replace(CONV, out_w=200, row_len=200)
    # What is illegal comes before what is too much.
    yield "Conv: unknown mode of a large tile", [with_field(wide, "mode", 3)], "ILLEGAL_FIELD", 2
    for op in (6, 7):
        data = with_field(ADD, "op", op)
        yield f"Vector: unknown operation {op}", [data], "ILLEGAL_FIELD", 3
    for windowed in (replace(ADD, n_kx=2), replace(REQUANT, n_ky=2),
                     replace(ADD, op=VectorOp.TABLE, n_ky=2)):  # fmt: skip
        name = f"{VectorOp(windowed.op).name}: a window where none is"
        yield name, [windowed], "ILLEGAL_FIELD", 3
    yield "Conv: odd line of weights", [replace(CONV, wgt_addr=1)], "ILLEGAL_FIELD", 2
    for op in VectorOp:
        if op != VectorOp.REQUANT:
            shared = replace(ADD, op=op, shared=1, tile_rows=4)
            yield f"{op.name}: shared multiplier", [shared], "ILLEGAL_FIELD", 3
    for space in (Space.WGT, Space.PARAM, Space.TABLE):
        yield f"Store from {space.name}", [replace(STORE, space=space)], "ILLEGAL_FIELD", 1
        for field in whole_words_of(Load):
            odd = replace(LOAD, space=space, **{field: getattr(LOAD, field) + 2})
            yield f"Load to {space.name}: odd {field}", [odd], "ILLEGAL_FIELD", 0


def streams_out_of_range() -> Iterator[Case]:
    for space, size, cause in (
        (Space.ACT, CONFIG.act_bytes, "ACT_RANGE"),
        (Space.WGT, CONFIG.wgt_bytes, "WGT_RANGE"),
        (Space.PARAM, CONFIG.param_bytes, "PARAM_RANGE"),
        (Space.TABLE, 256 * LINE, "PARAM_RANGE"),
    ):
        load = replace(LOAD, space=space)
        yield f"Load to {space.name}", [replace(load, sram_addr=size - 60)], cause, 0
        runs = replace(load, n1=3, sram_stride1=(size // 2) & ~63)
        yield f"third run to {space.name}", [replace(runs, sram_addr=64)], cause, 0
        back = replace(load, n2=2, sram_stride2=(1 << 20) - 64)
        yield f"below {space.name}", [back], cause, 0
    stored = replace(STORE, sram_addr=CONFIG.act_bytes - 63)
    yield "Store from ACT", [stored], "ACT_RANGE", 1
    yield "Conv: windows", [replace(CONV, act_addr=BEYOND * LINE)], "ACT_RANGE", 2
    yield "Conv: pixels", [replace(TAPS, act_addr=BEYOND * LINE)], "ACT_RANGE", 2
    far = replace(CONV, act_addr=1 << 19)
    yield "Conv: far beyond", [far], "ACT_RANGE", 2
    for line in (CONFIG.wgt_lines - 2, CONFIG.wgt_lines, (1 << 16) - 2):
        yield f"Conv: weights at {line}", [replace(CONV, wgt_addr=line)], "WGT_RANGE", 2
    many = replace(CONV, n_ic=CONFIG.wgt_lines // LINE, n_oc=2, out_h=1, out_w=1, row_len=1)
    short = replace(REQUANT, n_oc=2, out_h=1, out_w=1)
    yield "Conv: weights of the second tile", [many, short], "WGT_RANGE", 2
    huge = replace(CONV, n_ic=4095, n_kx=255, n_ky=255)
    yield "Conv: more weights than 2^30 bytes", [huge], "WGT_RANGE", 2
    last = CONFIG.param_lines - 8
    for line in (last, CONFIG.param_lines, (1 << 14) - 1):
        stream: Stream = [CONV, replace(REQUANT, shared=0, param_addr=line)]
        yield f"REQUANT: parameters at {line}", stream, "PARAM_RANGE", 3
    stream = [CONV, replace(REQUANT, param_addr=CONFIG.param_lines - 3)]
    yield "REQUANT: biases", stream, "PARAM_RANGE", 3
    stream = [replace(CONV, n_oc=2), replace(REQUANT, n_oc=2, param_addr=CONFIG.param_lines - 5)]
    yield "REQUANT: biases of the second tile", stream, "PARAM_RANGE", 3
    yield "REQUANT: result", [CONV, replace(REQUANT, d_addr=BEYOND)], "ACT_RANGE", 3
    params = replace(LOAD, region=Region.CONST, space=Space.PARAM, row_bytes=9 * LINE)
    params = replace(params, signal=1 << Engine.VECTOR)
    fused = replace(REQUANT, op=VectorOp.REQUANT_ADD, shared=0, b_addr=BEYOND, b_y=4, b_x=1)
    stream = [params, CONV, replace(fused, wait=TO_LOAD)]
    yield "REQUANT_ADD: second operand", stream, "ACT_RANGE", 3
    for name in ("a", "b", "d"):
        for what, fields in (
            ("first line", {"addr": BEYOND + 5}),
            ("third of a row", {"addr": BEYOND}),
            ("second row", {"addr": BEYOND - 5}),
            ("last line", {"addr": BEYOND - 13}),
            ("far rows", {"y": 65535}),
            ("far columns", {"x": 4095, "addr": 9000 % CONFIG.act_lines}),
        ):
            changes = {f"{name}_{field}": value for field, value in fields.items()}
            yield f"ADD: {name}, {what}", [replace(ADD, **changes)], "ACT_RANGE", 3
    for what, fields in (
        ("last of a window", {"a_addr": BEYOND - 18}),
        ("window rows", {"a_ky": 65535}),
        ("window columns", {"a_kx": 4095, "a_addr": BEYOND - 200}),
        ("result", {"d_addr": BEYOND}),
    ):
        yield f"MAX: {what}", [replace(MAX, **fields)], "ACT_RANGE", 3
    for name in ("a", "d"):
        for what, fields in (
            ("row within", {"addr": BEYOND}),
            ("second row", {"y": 65535}),
            ("first line", {"addr": BEYOND + 40}),
        ):
            changes = {f"{name}_{field}": value for field, value in fields.items()}
            yield f"Softmax: {name}, {what}", [replace(SOFTMAX, **changes)], "ACT_RANGE", 3


def streams_of_other_faults() -> Iterator[Case]:
    for rows, width in ((5, 32), (33, 4), (1, 129), (4095, 4095)):
        tile = replace(CONV, out_w=width, row_len=width, out_h=rows, tile_rows=rows)
        yield f"a tile of {rows} x {width}", [tile], "ACC_OVERFLOW", 2
    given = [replace(LOAD, row_bytes=4, signal=TO_STORE)] * 256
    yield "256 tokens", [*given], "TOKEN_OVERFLOW", 0
    vector = [replace(MAX, out_h=1, out_w=1, n_kx=1, n_ky=1, signal=1 << Engine.ARRAY)] * 256
    yield "256 tokens for the array", [*vector], "TOKEN_OVERFLOW", 3
    for name, command, unit in (
        ("Load beyond IO", replace(LOAD, mem_addr=IO_BYTES - 63), 0),
        ("Load far beyond IO", replace(LOAD, mem_addr=0xFFFF_FFFF), 0),
        ("Load at the end of 2 GiB", replace(LOAD, mem_addr=0x7FFF_FFFF), 0),
        ("Load of more than the region, at the end of 2 GiB",
         replace(LOAD, region=Region.SCRATCH, mem_addr=0x7FFF_FFFF, row_bytes=0x2000), 0),
        ("Load below CONST", replace(LOAD, region=Region.CONST, mem_addr=64, n1=3,
                                     mem_stride1=-64), 0),
        ("Load beyond CODE", replace(LOAD, region=Region.CODE, row_bytes=192), 0),
        ("Store beyond SCRATCH", replace(STORE, region=Region.SCRATCH, mem_addr=0x1000,
                                         row_bytes=1), 1),
        ("Store: third turn", replace(STORE, mem_addr=IO_BYTES - 2000, n2=3, mem_stride2=1000), 1),
    ):  # fmt: skip
        yield name, [command], "MEM_WINDOW", unit


CASES = [*illegal_streams(), *streams_out_of_range(), *streams_of_other_faults()]


@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_bad_commands_stop_rtl_and_emulator_alike(machine: Any, case: Case) -> None:
    name, stream, cause, unit = case
    # What becomes parameters: shifts that are in range.
    machine.const(Space.ACT, 64)[:] = 0
    found, expected = machine.faults([*stream, End(tag=TAG + 1)], watchdog=3_000_000)
    assert (expected.cause, expected.unit, expected.tag) == (cause, unit, TAG)
    if name.startswith("Conv: ") and cause == "ACT_RANGE":
        # The array goes tap by tap, not window by window: another line may be the first.
        assert found.address % LINE == 0
        assert found.address >= CONFIG.act_bytes
        expected = replace(expected, address=found.address)
    assert found == expected


def test_all_of_a_region_can_be_reached(machine: Any) -> None:
    rng = np.random.default_rng(0)
    machine.shuffle(rng)
    edges = [
        kind(region=Region.IO, mem_addr=place, sram_addr=3 + place % 5, row_bytes=length)
        for place, length in ((0, 7), (IO_BYTES - 7, 7), (IO_BYTES - 64, 64), (IO_BYTES - 1, 1))
        for kind in (Load, Store)
    ]
    edges.append(replace(LOAD, sram_addr=CONFIG.act_bytes - 64))
    edges.append(replace(STORE, sram_addr=CONFIG.act_bytes - 61, row_bytes=61, mem_addr=256))
    machine.both(machine.fill(Space.ACT, 256), *edges)


def test_it_works_after_errors(machine: Any) -> None:
    for _, stream, cause, _ in CASES[:: len(CASES) // 12]:
        found, _ = machine.faults([*stream, End()])
        assert found.cause == cause
        # The doorbell alone does not help, the soft reset does.
        machine.write("doorbell", 1)
        machine.rtl.step(200)
        assert machine.read("status") == 0b100
        assert_works(machine)


@pytest.mark.parametrize("cut", [0, 1, 63, 64])
def test_stream_without_end(machine: Any, cut: int) -> None:
    """The region ends after a command, or within the End."""
    code = LOAD.encode() + End(tag=1).encode()
    stream: Stream = [code[: len(code) - cut]] if cut else [LOAD, LOAD]
    found, expected = machine.faults(stream)
    assert expected.cause == "FETCH_WINDOW"
    assert (found.cause, found.unit, found.address) == ("FETCH_WINDOW", FETCH, expected.address)


# Time


DEADLOCKS: dict[str, Stream] = {
    "a token that nobody gives": [replace(STORE, wait=TO_LOAD)],
    "two engines that wait for each other": [
        replace(LOAD, wait=TO_STORE, signal=TO_STORE),
        replace(STORE, wait=TO_LOAD, signal=TO_LOAD),
    ],
    "a tile that nobody fills": [REQUANT],
    "one tile too few": [CONV, replace(REQUANT, n_oc=2)],
    "tiles that nobody empties": [CONV, CONV, CONV],
    "a queue that is full": [
        *[replace(LOAD, wait=TO_STORE)] * 9,
        replace(STORE, signal=TO_LOAD),
    ],
}


@pytest.mark.parametrize("name", DEADLOCKS)
def test_deadlock_is_stopped_by_the_watchdog(machine: Any, name: str) -> None:
    code = b"".join(c if isinstance(c, bytes) else c.encode() for c in [*DEADLOCKS[name], End()])
    machine.start(code, watchdog=WATCHDOG_CYCLES)
    found = machine.finish()
    assert (found.cause, found.unit, found.address) == ("WATCHDOG", FETCH, 0)
    assert WATCHDOG_CYCLES <= machine.read("count_total") < WATCHDOG_CYCLES + MUST_STOP_CYCLES
    with pytest.raises(EmulatorError, match="deadlock"):
        machine.emulate()
    assert_works(machine)


@pytest.mark.parametrize(
    ("command", "late_cycles"),
    [
        (replace(LOAD, row_bytes=20_000), 8_000),
        (replace(LOAD, row_bytes=20_000, mem_addr=1), 20_000),
        (replace(STORE, row_bytes=20_000), 8_000),
        (replace(STORE, row_bytes=20_000, mem_addr=1), 20_000),
        (replace(CONV, n_ic=1000), 2_000),
        # A row of elements.
        (replace(ADD, n_oc=10, out_h=40, out_w=40), 20_000),
        (replace(MAX, n_ky=100, n_kx=10), 40_000),
        (replace(SOFTMAX, channels=16_000), 2_000),
    ],
)
def test_watchdog_stops_a_command_that_takes_too_long(
    machine: Any, command: Command, late_cycles: int
) -> None:
    machine.start(command.encode() + End().encode(), watchdog=WATCHDOG_CYCLES)
    found = machine.finish()
    assert (found.cause, found.unit, found.address) == ("WATCHDOG", FETCH, 0)
    assert WATCHDOG_CYCLES <= machine.read("count_total") < WATCHDOG_CYCLES + late_cycles


LEFTOVERS: dict[str, Stream] = {
    "a token": [replace(LOAD, signal=TO_STORE)],
    "tokens of every pair": [
        replace(command, signal=0xF & ~(1 << int(command.engine or 0)))
        for command in (LOAD, STORE, CONV, REQUANT)
    ],
    "a full accumulator half": [CONV],
    "two full halves": [CONV, CONV],
    "a half that is held": [replace(CONV, hold=1)],
    "half of the tiles": [replace(CONV, tile_rows=2), replace(REQUANT, out_h=2, tile_rows=2)],
    "a sum that nothing began": [replace(CONV, accumulate=1), REQUANT],
}


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_a_program_leaves_behind_is_gone_for_the_next_one(machine: Any, name: str) -> None:
    code = b"".join(c if isinstance(c, bytes) else c.encode() for c in [*LEFTOVERS[name], End()])
    machine.start(code)
    assert machine.finish() is None
    # Without a soft reset in between: a token that was left would let this one go through.
    starved = replace(STORE, wait=TO_LOAD).encode() + End().encode()
    base = machine.read("region0_base")
    machine.rtl.memory[base : base + len(starved)] = np.frombuffer(starved, np.uint8)
    machine.write("region0_size", len(starved))
    machine.write("watchdog", WATCHDOG_CYCLES)
    machine.write("irq_pending", 3)
    machine.write("doorbell", 1)
    assert machine.finish().cause == "WATCHDOG"
    assert_works(machine)


# Memory


@pytest.mark.parametrize(
    ("stream", "region", "offset", "unit"),
    [
        ([LOAD], Region.CODE, 0, FETCH),
        ([LOAD], Region.CODE, 60, FETCH),
        ([LOAD], Region.CODE, 64, FETCH),
        ([LOAD], Region.CODE, 124, FETCH),
        ([LOAD], Region.IO, 20, 0),
        ([replace(LOAD, mem_addr=21)], Region.IO, 20, 0),
        ([replace(LOAD, mem_addr=21)], Region.IO, 84, 0),
        ([STORE], Region.IO, 20, 1),
        ([replace(STORE, mem_addr=21)], Region.IO, 20, 1),
        ([replace(STORE, mem_addr=21)], Region.IO, 84, 1),
    ],
)
@pytest.mark.parametrize("latency", [1, 60])
def test_bus_error_is_reported_with_its_address(
    machine: Any, stream: Stream, region: Region, offset: int, unit: int, latency: int
) -> None:
    code = b"".join(c if isinstance(c, bytes) else c.encode() for c in [*stream, End(tag=TAG)])
    machine.emulator.load_code(code, 0x1000)
    machine.start(code)
    bad = machine.emulator.regions[region][0] + offset
    machine.rtl.set_memory_model(MemoryModel(error_range=(bad, bad + 4), latency_cycles=latency))
    found = machine.finish()
    machine.rtl.set_memory_model(MemoryModel())
    assert (found.cause, found.unit, found.address) == ("BUS_ERROR", unit, bad)
    assert unit == FETCH or found.tag == TAG
    assert_works(machine)


@pytest.mark.parametrize("limit", [BUS_TIMEOUT_CYCLES, 0])
@pytest.mark.parametrize("how", ["never answers", "never accepts"])
@pytest.mark.parametrize("wait_cycles", [0, 3000, 6000])
def test_memory_that_is_dead(machine: Any, limit: int, how: str, wait_cycles: int) -> None:
    """Found by the bus's time-out; where that is switched off, by the watchdog."""
    stream = [replace(LOAD, row_bytes=4000, signal=TO_STORE), replace(STORE, wait=TO_LOAD), End()]
    code = b"".join(command.encode() for command in stream)
    machine.start(code, watchdog=WATCHDOG_CYCLES, bus_timeout=limit)
    machine.rtl.step(wait_cycles)
    machine.rtl.set_memory_model(
        MemoryModel(dead=True)
        if how == "never answers"
        else MemoryModel(stall_probability=1 - 2**-40)
    )
    found = machine.finish()
    total = machine.read("count_total")
    machine.rtl.set_memory_model(MemoryModel())
    if limit:
        assert found.cause == "BUS_TIMEOUT"
        assert found.unit == (FETCH if not wait_cycles else 0)
        assert found.address % 4 == 0
        assert limit < total - wait_cycles < limit + START_CYCLES
    else:
        assert (found.cause, found.unit) == ("WATCHDOG", FETCH)
        assert WATCHDOG_CYCLES <= total < WATCHDOG_CYCLES + 500
    assert_works(machine)


@pytest.mark.parametrize("seed", range(4))
def test_slow_memory_changes_nothing(machine: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine.rtl.set_memory_model(
        MemoryModel(
            latency_cycles=int(rng.integers(1, 60)),
            stall_probability=float(rng.choice([0.0, 0.6])),
            delay_probability=float(rng.choice([0.0, 0.6])),
            seed=seed + 1,
        )
    )
    assert_works(machine)
    machine.rtl.set_memory_model(MemoryModel())


@pytest.mark.parametrize("seed", range(6))
def test_soft_reset_at_any_time(machine: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine.rtl.set_memory_model(MemoryModel(latency_cycles=30))
    for _ in range(4):
        stream = [LOAD, CONV, REQUANT, ADD, STORE, End()]
        machine.start(b"".join(command.encode() for command in stream))
        machine.rtl.step(int(rng.integers(0, 20_000)))
        machine.write("control", 1)
        machine.rtl.step(5)
        assert machine.read("status") & 1 == 0
    machine.rtl.set_memory_model(MemoryModel())
    assert_works(machine)


# Random damage


DAMAGED: tuple[Command, ...] = (
    replace(LOAD, signal=1 << Engine.ARRAY),
    replace(CONV, wait=TO_LOAD),
    replace(REQUANT, d_addr=512),
    replace(ADD, d_addr=600),
    replace(MAX, d_addr=700),
    replace(SOFTMAX, d_addr=800, signal=TO_STORE),
    replace(STORE, mem_addr=5, wait=1 << Engine.VECTOR),
    End(),
)
DAMAGED_SEEDS = 60
NOT_LOOKED_AT = ("WINDOW needs", "row_len positions", "hold and accumulate")
"""Rules that no machine looks at (docs/machine.md)."""


def damaged(seed: int) -> tuple[bytes, bytes]:
    """Flip one or two bits of one command; return the program, and the command."""
    rng = np.random.default_rng(seed)
    commands = [bytearray(replace(c, tag=tag).encode()) for tag, c in enumerate(DAMAGED)]
    index = int(rng.integers(len(commands)))
    limit = used_bits(DAMAGED[index]) if rng.random() < 0.9 else COMMAND_BITS
    for bit in rng.integers(0, limit, int(rng.integers(1, 3))):
        commands[index][int(bit) // 8] ^= 1 << int(bit) % 8
    return b"".join(commands), bytes(commands[index])


def work(command: Command) -> int:
    """Return about how many bytes a command moves."""
    if isinstance(command, Load | Store):
        return command.n1 * command.n2 * command.row_bytes
    if isinstance(command, Conv):
        passes = command.n_ky * command.n_kx * command.n_ic * command.n_oc
        return max(command.out_w, command.row_len) * command.out_h * passes * LINE
    if isinstance(command, Vector):
        window = command.n_ky * command.n_kx
        return command.out_w * command.out_h * window * command.n_oc * LINE
    return command.channels * command.n_rows if isinstance(command, Softmax) else 0


def is_defined(data: bytes) -> bool:
    """Whether the emulator can say, in good time, how a program with this command ends."""
    if data[0] not in COMMANDS or data[0] == End.OPCODE:
        return True
    try:
        command = Command.decode(data)
    except IsaError:
        # Found when the command is dispatched or when it begins: others may come first.
        return False
    problem = field_problem(command, CONFIG)
    return work(command) < 1 << 20 and not (problem and problem[1].startswith(NOT_LOOKED_AT))


def test_random_damage_never_hangs_or_harms(machine: Any) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(DAMAGED_SEEDS):
        code, command = damaged(seed)
        machine.shuffle(np.random.default_rng(seed))
        machine.start(code, watchdog=5 * WATCHDOG_CYCLES)
        found = machine.finish()
        changed = np.flatnonzero(machine.rtl.memory != machine.emulator.memory)
        for region in (Region.IO, Region.SCRATCH):
            base, size = machine.emulator.regions[region]
            changed = changed[(changed < base) | (changed >= base + size)]
        assert not changed.size, f"seed {seed}: byte {changed[0]:#x} was written"
        outcome = "END" if found is None else found.cause
        if is_defined(command) and outcome != "WATCHDOG":
            try:
                expected = machine.emulate()
            except EmulatorError:
                outcome += ", not defined"
            else:
                if found is not None and expected is not None:
                    # Addresses have tests of their own.
                    found, expected = (replace(fault, address=0) for fault in (found, expected))
                    if outcome == "FETCH_WINDOW":
                        found = replace(found, tag=expected.tag)
                assert found == expected, f"seed {seed}"
                outcome += ", as on the emulator"
        outcomes[outcome] += 1
        if seed % 6 == 0:
            assert_works(machine)
    print(f"seeds 0 to {DAMAGED_SEEDS - 1}: {dict(outcomes)}")
    assert len(outcomes) >= 6
    assert sum(count for name, count in outcomes.items() if "emulator" in name) > 30
