"""Broken programs on the machine with firmware: cause, unit, tag and address as the emulator's.

All of it on one machine: whatever a broken program leaves behind, the next one meets it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import (
    COMMAND_BITS,
    COMMANDS,
    Command,
    End,
    Engine,
    IsaError,
    Load,
    Region,
    Space,
    Store,
)
from celosia.hw.contract.legal import field_problem
from celosia.sim.emulator.machine import EmulatorError
from celosia.sim.rtl.rtl import MemoryModel

from tests.kit.both_machines import REGIONS
from tests.kit.broken_streams import (
    FETCH,
    TAG,
    BrokenStreams,
    Case,
    Stream,
    bad,
    used_bits,
    work_bytes,
)

pytestmark = pytest.mark.xdist_group("rtl-nano")

CONFIG = preset("nano")
LINE = CONFIG.line_bytes
IO_BYTES, SCRATCH_BYTES = (REGIONS[region][1] for region in (Region.IO, Region.SCRATCH))
WATCHDOG_CYCLES = 60_000
BUS_TIMEOUT_CYCLES = 500
MUST_STOP_CYCLES = 5000
"""What may pass between the moment in which a limit is reached and the interrupt."""
START_CYCLES = 1500
"""From the doorbell to the first command."""
STREAMS = BrokenStreams(CONFIG, io_bytes=IO_BYTES, scratch_bytes=SCRATCH_BYTES)
LOAD, STORE, CONV, REQUANT = STREAMS.load, STREAMS.store, STREAMS.conv, STREAMS.requant
ADD, MAX, SOFTMAX = STREAMS.add, STREAMS.max, STREAMS.softmax
TO_STORE, TO_LOAD = 1 << Engine.STORE, 1 << Engine.LOAD
CASES = STREAMS.cases()


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


DEADLOCKS = STREAMS.deadlocks()


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


LEFTOVERS = STREAMS.leftovers()


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
        ([bad(LOAD)], Region.CODE, 0, FETCH),
        ([bad(LOAD)], Region.CODE, 60, FETCH),
        ([bad(LOAD)], Region.CODE, 64, FETCH),
        ([bad(LOAD)], Region.CODE, 124, FETCH),
        ([bad(LOAD)], Region.IO, 20, 0),
        ([bad(LOAD, mem_addr=21)], Region.IO, 20, 0),
        ([bad(LOAD, mem_addr=21)], Region.IO, 84, 0),
        ([bad(STORE)], Region.IO, 20, 1),
        ([bad(STORE, mem_addr=21)], Region.IO, 20, 1),
        ([bad(STORE, mem_addr=21)], Region.IO, 84, 1),
    ],
)
@pytest.mark.parametrize("latency", [1, 60])
def test_bus_error_is_reported_with_its_address(
    machine: Any, stream: Stream, region: Region, offset: int, unit: int, latency: int
) -> None:
    code = b"".join(c if isinstance(c, bytes) else c.encode() for c in [*stream, End(tag=TAG)])
    machine.emulator.load_code(code, 0x1000)
    machine.start(code)
    word = machine.emulator.regions[region][0] + offset
    machine.rtl.set_memory_model(MemoryModel(error_range=(word, word + 4), latency_cycles=latency))
    found = machine.finish()
    machine.rtl.set_memory_model(MemoryModel())
    assert (found.cause, found.unit, found.address) == ("BUS_ERROR", unit, word)
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
    return work_bytes(command, LINE) < 1 << 20 and not (
        problem and problem[1].startswith(NOT_LOOKED_AT)
    )


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
