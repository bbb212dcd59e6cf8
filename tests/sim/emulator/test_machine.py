"""The emulator's DMA, queues, tokens, deadlocks and faults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import (
    Command,
    End,
    Load,
    Mode,
    Region,
    Softmax,
    Space,
    Store,
    Vector,
    VectorOp,
)
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.machine import Emulator, EmulatorError, EmulatorFault, RunStats

from tests.kit.commands import ARRAY, CONV, LOAD, REQUANT, STORE, VECTOR

BASE = preset("base")
IO_BASE, IO_SIZE = 0x8000, 0x2000

TABLE = Vector(op=VectorOp.TABLE, n_oc=1, out_h=1, out_w=4, a_x=1, d_addr=64, d_x=1)
MOVE_IN = Load(region=Region.IO, space=Space.ACT, row_bytes=64)
MOVE_OUT = Store(region=Region.IO, space=Space.ACT, mem_addr=0x1000, row_bytes=64)


def machine(*commands: Command) -> Emulator:
    emulator = Emulator(BASE, 1 << 16)
    emulator.set_region(Region.IO, IO_BASE, IO_SIZE)
    emulator.memory[IO_BASE : IO_BASE + IO_SIZE] = np.arange(IO_SIZE) * 7 % 251
    emulator.load_code(b"".join(command.encode() for command in commands))
    return emulator


def run(*commands: Command, **options: Any) -> RunStats:
    return machine(*commands, End()).run(**options)


def test_transfers_follow_the_strides_in_both_directions() -> None:
    load = Load(
        region=Region.IO,
        space=Space.ACT,
        mem_addr=1003,
        sram_addr=517,
        row_bytes=5,
        n1=3,
        mem_stride1=-11,
        sram_stride1=20,
        n2=2,
        mem_stride2=301,
        sram_stride2=(1 << 20) - 200,
    )
    store = Store(
        region=Region.IO,
        space=Space.ACT,
        mem_addr=0x1801,
        sram_addr=517,
        row_bytes=5,
        n1=2,
        mem_stride1=5,
        sram_stride1=(1 << 20) - 200,
        wait=LOAD,
    )
    emulator = machine(replace(load, signal=STORE), store, End())
    memory = emulator.memory.copy()
    stats = emulator.run()
    for turn in range(2):
        for index in range(3):
            source = IO_BASE + 1003 + 301 * turn - 11 * index
            target = 517 - 200 * turn + 20 * index
            np.testing.assert_array_equal(
                emulator.act[target : target + 5], memory[source : source + 5]
            )
    expected = np.concatenate([emulator.act[517:522], emulator.act[317:322]])
    start = IO_BASE + 0x1801
    np.testing.assert_array_equal(emulator.memory[start : start + 10], expected)
    assert (stats.bytes_loaded, stats.bytes_stored) == (30, 10)


@pytest.mark.parametrize("space", [Space.WGT, Space.PARAM, Space.TABLE])
def test_load_reaches_every_memory(space: Space) -> None:
    emulator = machine(
        Load(region=Region.IO, space=space, mem_addr=64, sram_addr=24, row_bytes=32), End()
    )
    emulator.run()
    memory = {
        Space.WGT: emulator.wgt.view(np.uint8),
        Space.PARAM: emulator.param,
        Space.TABLE: emulator.table,
    }[space].ravel()
    start = IO_BASE + 64
    np.testing.assert_array_equal(memory[24:56], emulator.memory[start : start + 32])
    assert not memory[:24].any()
    assert not memory[56:].any()


def test_a_missing_token_shows_in_some_order() -> None:
    def outcomes(signal: int, wait: int) -> set[bytes]:
        results = set()
        for seed in range(20):
            emulator = machine(replace(MOVE_IN, signal=signal), replace(MOVE_OUT, wait=wait), End())
            emulator.run("random", seed)
            results.add(emulator.memory[IO_BASE + 0x1000 : IO_BASE + 0x1040].tobytes())
        return results

    assert len(outcomes(STORE, LOAD)) == 1
    assert len(outcomes(0, 0)) == 2


def test_random_orders_differ_and_repeat_with_their_seed() -> None:
    commands = [MOVE_IN, MOVE_OUT, TABLE] * 4
    orders = [tuple(run(*commands, order="random", seed=seed).order) for seed in range(5)]
    assert len(set(orders)) > 1
    assert tuple(run(*commands, order="random", seed=3).order) == orders[3]


def test_the_array_is_at_most_two_tiles_ahead() -> None:
    second = replace(REQUANT, d_addr=128)
    for seed in range(10):
        stats = run(CONV, REQUANT, CONV, second, order="random", seed=seed)
        # Whatever the order, a Conv of four tiles cannot end before two have been taken.
        assert stats.order.index(0) < stats.order.index(1) < stats.order.index(3)
        assert stats.tiles == 8


def test_queues_are_bounded() -> None:
    """Nothing behind a full queue is dispatched: here the command that gives the token."""
    stuck = replace(MOVE_IN, wait=STORE)
    fill = [stuck] + [MOVE_IN] * (BASE.queue_depth - 1)
    assert run(*fill, replace(MOVE_OUT, signal=LOAD)).commands == BASE.queue_depth + 2
    with pytest.raises(EmulatorError, match="dispatcher is at command 16, whose queue is full"):
        run(*fill, MOVE_IN, replace(MOVE_OUT, signal=LOAD))


def test_a_deadlock_names_what_each_engine_waits_for() -> None:
    with pytest.raises(EmulatorError) as caught:
        run(replace(MOVE_IN, wait=VECTOR), replace(TABLE, wait=LOAD | ARRAY), CONV)
    text = str(caught.value)
    assert "LOAD is at command 0 (Load) and waits for tokens from VECTOR" in text
    assert "VECTOR is at command 1 (Vector) and waits for tokens from LOAD, ARRAY" in text
    assert "ARRAY is at command 2 (Conv) and waits for a free accumulator half" in text
    assert "STORE is idle" in text


def test_an_accumulator_half_left_full_is_an_error() -> None:
    with pytest.raises(EmulatorError, match="nobody emptied"):
        run(replace(CONV, out_h=1))


def test_a_reduction_can_be_split_over_commands() -> None:
    """Two commands, the second from other weights, equal one command with both passes."""
    rng = np.random.default_rng(1)
    whole = replace(CONV, out_h=2, n_ic=2, step_ic=8, row_bytes=16)
    first = replace(whole, n_ic=1, hold=1)
    second = replace(whole, n_ic=1, act_addr=8, x0=8, wgt_addr=8, accumulate=1)
    other = replace(CONV, out_h=4)
    take = replace(REQUANT, out_h=2)
    results = set()
    values = [rng.integers(0, 256, size) for size in (256, 4096, 72)]
    for commands in ([whole], [first, second]):
        for seed in range(8):
            program = [other, replace(REQUANT, out_h=4), *commands, replace(take, d_addr=128)]
            emulator = machine(*program, End())
            emulator.act[:256] = values[0]
            emulator.wgt.view(np.uint8).reshape(-1)[:4096] = values[1]
            emulator.param[:72] = values[2]
            emulator.param[64:72] = 0xF8
            assert emulator.run("random", seed).tiles == 3
            results.add(emulator.act.tobytes())
    assert len(results) == 1


def test_hold_and_accumulate_must_fit_together() -> None:
    one = replace(CONV, out_h=2)
    with pytest.raises(EmulatorError, match="no half is held"):
        run(replace(one, accumulate=1))
    with pytest.raises(EmulatorError, match="1 rows of 1 vectors onto 2 rows"):
        run(replace(one, hold=1), replace(one, out_h=1, accumulate=1))
    with pytest.raises(EmulatorError, match="nobody emptied"):
        run(replace(one, hold=1))
    with pytest.raises(EmulatorFault, match="Conv of one tile"):
        run(replace(CONV, hold=1))


def test_tiles_that_do_not_match_are_an_error() -> None:
    with pytest.raises(EmulatorError, match="expects a tile of 3 rows"):
        run(CONV, replace(REQUANT, tile_rows=3))


FAULTS: list[tuple[str, Command, ErrorCause, int, int]] = [
    ("row_bytes 0", replace(MOVE_IN, row_bytes=0), ErrorCause.ILLEGAL_FIELD, 0, 0),
    ("n1 0", replace(MOVE_IN, n1=0), ErrorCause.ILLEGAL_FIELD, 0, 0),
    ("store from WGT", replace(MOVE_OUT, space=Space.WGT), ErrorCause.ILLEGAL_FIELD, 1, 0),
    (
        "unaligned WGT",
        replace(MOVE_IN, space=Space.WGT, row_bytes=12),
        ErrorCause.ILLEGAL_FIELD,
        0,
        0,
    ),
    (
        "beyond the region",
        replace(MOVE_IN, mem_addr=IO_SIZE - 60),
        ErrorCause.MEM_WINDOW,
        0,
        IO_BASE + IO_SIZE - 60,
    ),
    (
        "before the region",
        replace(MOVE_OUT, mem_addr=64, n1=2, mem_stride1=-65),
        ErrorCause.MEM_WINDOW,
        1,
        IO_BASE - 1,
    ),
    ("region of size 0", replace(MOVE_IN, region=Region.CONST), ErrorCause.MEM_WINDOW, 0, 0),
    ("beyond ACT", replace(MOVE_IN, sram_addr=65530), ErrorCause.ACT_RANGE, 0, 65530),
    (
        "beyond WGT",
        replace(MOVE_IN, space=Space.WGT, sram_addr=BASE.wgt_bytes),
        ErrorCause.WGT_RANGE,
        0,
        BASE.wgt_bytes,
    ),
    (
        "beyond PARAM",
        replace(MOVE_IN, space=Space.PARAM, sram_addr=BASE.param_bytes - 8),
        ErrorCause.PARAM_RANGE,
        0,
        BASE.param_bytes - 8,
    ),
    (
        "beyond TABLE",
        replace(MOVE_IN, space=Space.TABLE, sram_addr=2048 - 32),
        ErrorCause.PARAM_RANGE,
        0,
        2048 - 32,
    ),
    ("conv without outputs", replace(CONV, out_h=0), ErrorCause.ILLEGAL_FIELD, 2, 0),
    ("conv row_len", replace(CONV, row_len=2), ErrorCause.ILLEGAL_FIELD, 2, 0),
    (
        "row too short",
        replace(CONV, mode=Mode.TAPS, out_w=3, row_len=4, stride_x=2),
        ErrorCause.ILLEGAL_FIELD,
        2,
        0,
    ),
    ("accumulator", replace(CONV, tile_rows=513, out_h=600), ErrorCause.ACC_OVERFLOW, 2, 0),
    ("weights", replace(CONV, wgt_addr=4094), ErrorCause.WGT_RANGE, 2, 4096 * 8),
    ("window", replace(CONV, act_addr=65536 - 12), ErrorCause.ACT_RANGE, 2, 65536),
    (
        "pixel",
        replace(CONV, mode=Mode.TAPS, act_addr=65536 - 8),
        ErrorCause.ACT_RANGE,
        2,
        65536,
    ),
    ("softmax of nothing", Softmax(n_rows=1), ErrorCause.ILLEGAL_FIELD, 3, 0),
    (
        "softmax range",
        Softmax(channels=9, n_rows=1, d_addr=8191),
        ErrorCause.ACT_RANGE,
        3,
        65536,
    ),
    ("vector of nothing", replace(TABLE, out_w=0), ErrorCause.ILLEGAL_FIELD, 3, 0),
    ("window of TABLE", replace(TABLE, n_kx=2), ErrorCause.ILLEGAL_FIELD, 3, 0),
    ("A range", replace(TABLE, a_addr=8190), ErrorCause.ACT_RANGE, 3, 65536),
    ("D range", replace(TABLE, d_addr=8189), ErrorCause.ACT_RANGE, 3, 65536),
]


@pytest.mark.parametrize(
    ("command", "cause", "unit", "address"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_faults(command: Command, cause: ErrorCause, unit: int, address: int) -> None:
    command = replace(command, tag=0x1234)
    with pytest.raises(EmulatorFault) as caught:
        run(command)
    fault = caught.value
    assert (fault.cause, fault.unit, fault.tag) == (cause, unit, 0x1234)
    assert fault.address == address


def test_parameters_beyond_their_memory() -> None:
    with pytest.raises(EmulatorFault) as caught:
        run(CONV, replace(REQUANT, param_addr=BASE.param_lines - 8, tag=9))
    assert caught.value.cause == ErrorCause.PARAM_RANGE
    assert (caught.value.unit, caught.value.tag) == (3, 9)


@pytest.mark.parametrize(
    ("byte", "value", "cause"),
    [(0, 0x77, ErrorCause.ILLEGAL_OPCODE), (63, 1, ErrorCause.ILLEGAL_FIELD)],
)
def test_bytes_that_are_no_command(byte: int, value: int, cause: ErrorCause) -> None:
    emulator = machine(replace(MOVE_IN, tag=0x55AA), End())
    emulator.memory[byte] = value
    with pytest.raises(EmulatorFault) as caught:
        emulator.run()
    fault = caught.value
    assert (fault.cause, fault.unit, fault.tag, fault.address) == (cause, 4, 0x55AA, 0)


def test_an_illegal_value_is_the_engines_fault() -> None:
    emulator = machine(replace(CONV, mode=Mode.JOINED, tag=7), End())
    with pytest.raises(EmulatorFault, match="JOINED needs n_ky = n_kx = ky_rows = 1") as caught:
        emulator.run()
    assert (caught.value.cause, caught.value.unit) == (ErrorCause.ILLEGAL_FIELD, 2)


@pytest.mark.parametrize(
    "command", [replace(MOVE_IN, wait=LOAD), replace(TABLE, signal=VECTOR), End(wait=1)]
)
def test_tokens_of_the_own_engine_are_illegal(command: Command) -> None:
    with pytest.raises(EmulatorFault) as caught:
        run(replace(command, tag=3))
    fault = caught.value
    assert (fault.cause, fault.unit, fault.tag) == (ErrorCause.ILLEGAL_FIELD, 4, 3)


def test_a_program_without_end_leaves_its_window() -> None:
    with pytest.raises(EmulatorFault) as caught:
        machine(MOVE_IN).run()
    assert (caught.value.cause, caught.value.address) == (ErrorCause.FETCH_WINDOW, 64)


def test_a_region_beyond_system_memory_is_a_bus_error() -> None:
    emulator = machine(MOVE_IN, End())
    emulator.set_region(Region.IO, (1 << 16) - 32, 4096)
    with pytest.raises(EmulatorFault) as caught:
        emulator.run()
    assert (caught.value.cause, caught.value.address) == (ErrorCause.BUS_ERROR, 1 << 16)


def test_token_overflow() -> None:
    give = replace(MOVE_IN, signal=STORE)
    assert run(*[give] * 255).commands == 256
    with pytest.raises(EmulatorFault) as caught:
        run(*[give] * 256)
    assert (caught.value.cause, caught.value.unit) == (ErrorCause.TOKEN_OVERFLOW, 0)


def test_masked_bytes_never_fault_and_read_as_the_zero_point() -> None:
    """A window wholly outside the image may be at any address, also beyond the memory."""
    outside = replace(CONV, act_addr=0xFFFF8, y0=-8, zero_point=3)
    emulator = machine(outside, REQUANT, End())
    emulator.wgt[:8] = np.eye(8, dtype=np.int8)
    emulator.param[32:64] = np.full(8, 1 << 30, "<i4").view(np.uint8)
    emulator.param[64:72] = 1
    emulator.run()
    assert (emulator.act[64 * 8 : 72 * 8].view(np.int8) == 3).all()


def test_base_of_a_region_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="multiple of 8, not 4"):
        Emulator(BASE).set_region(Region.IO, 4, 64)
