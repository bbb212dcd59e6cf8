"""The static check: what it refuses, and that it agrees with the emulator about the rest."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from celosia.errors import ProgramError
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
from celosia.sim.emulator.machine import Emulator, EmulatorError
from celosia.sw.program.file import Program
from celosia.sw.program.segments import MemoryPlan, NpuSegment
from celosia.sw.program.tensors import PlacedTensor, TensorInfo
from celosia.sw.program.verify import check_commands, check_program

from tests.kit.commands import ARRAY, CONV, LOAD, REQUANT, STORE, VECTOR

BASE = preset("base")
SIZES = {Region.CODE: 1 << 16, Region.CONST: 4096, Region.IO: 8192, Region.SCRATCH: 4096}

TABLE = Vector(op=VectorOp.TABLE, n_oc=1, out_h=1, out_w=8, a_x=1, d_addr=64, d_x=1)
MOVE_IN = Load(region=Region.IO, space=Space.ACT, row_bytes=64)
MOVE_OUT = Store(region=Region.IO, space=Space.ACT, mem_addr=4096, sram_addr=512, row_bytes=64)


def numbered(commands: Sequence[Command]) -> list[Command]:
    return [replace(c, tag=i) for i, c in enumerate([*commands, End()])]


def check(*commands: Command) -> None:
    check_commands(numbered(commands), BASE, SIZES)


def refused(*commands: Command) -> str:
    with pytest.raises(ProgramError) as caught:
        check(*commands)
    return str(caught.value)


GOOD = [
    replace(MOVE_IN, signal=ARRAY),
    replace(CONV, wait=LOAD, signal=LOAD),
    replace(REQUANT, signal=STORE),
    replace(MOVE_OUT, wait=VECTOR, signal=VECTOR),
    replace(MOVE_IN, wait=ARRAY, signal=ARRAY),
    replace(CONV, wait=LOAD),
    replace(REQUANT, wait=STORE, signal=STORE),
    replace(MOVE_OUT, mem_addr=6000, wait=VECTOR),
]


def test_a_program_with_its_tokens_passes() -> None:
    check(*GOOD)


def test_every_single_token_of_it_is_needed() -> None:
    for index, command in enumerate(GOOD):
        for bit in (LOAD, STORE, ARRAY, VECTOR):
            if command.wait & bit:
                fewer = list(GOOD)
                fewer[index] = replace(command, wait=command.wait & ~bit)
                assert "nothing orders them" in refused(*fewer)
            if command.signal & bit:
                fewer = list(GOOD)
                fewer[index] = replace(command, signal=command.signal & ~bit)
                assert "gets stuck" in refused(*fewer) or "nothing orders" in refused(*fewer)


def test_a_race_names_both_commands_and_the_memory() -> None:
    text = refused(MOVE_IN, TABLE)
    assert "command 0 (Load) and command 1 (Vector)" in text
    assert "writes bytes of ACT that the second reads" in text
    assert "of IO" in refused(MOVE_OUT, replace(MOVE_IN, mem_addr=4159, sram_addr=2048))
    check(MOVE_OUT, replace(MOVE_IN, mem_addr=4160, sram_addr=2048))
    weights = Load(region=Region.CONST, space=Space.WGT, sram_addr=0, row_bytes=64)
    assert "of WGT" in refused(CONV, REQUANT, weights)
    check(CONV, REQUANT, replace(weights, sram_addr=64))
    parameters = replace(weights, space=Space.PARAM, row_bytes=72)
    assert "of PARAM" in refused(CONV, REQUANT, parameters)
    check(CONV, REQUANT, replace(parameters, sram_addr=72))
    assert "of TABLE" in refused(TABLE, replace(parameters, space=Space.TABLE))


def test_bytes_of_one_line_are_told_apart() -> None:
    """Row y of the image is bytes 0 to 4 of line y; the gaps may be written at any time."""
    narrow = replace(CONV, row_bytes=5)
    gaps = Load(region=Region.IO, space=Space.ACT, sram_addr=5, row_bytes=3, n1=8, sram_stride1=8)
    check(narrow, REQUANT, gaps)
    refused(narrow, REQUANT, replace(gaps, sram_addr=4))


def test_accumulator_halves_order_array_and_vector() -> None:
    in_place = replace(REQUANT, d_addr=0)
    assert "nothing orders" in refused(CONV, in_place)
    # With one tile the array has read everything before the vector engine begins.
    one = replace(CONV, tile_rows=8)
    check(one, replace(in_place, tile_rows=8))
    # The second of two tensors is complete in the array before the third one's first tile is.
    check(one, replace(REQUANT, tile_rows=8), one, replace(in_place, tile_rows=8))
    assert "nothing orders" in refused(
        one, replace(in_place, tile_rows=8), one, replace(REQUANT, tile_rows=8)
    )


def test_held_halves() -> None:
    one = replace(CONV, out_h=2)
    take = replace(REQUANT, out_h=2)
    check(replace(one, hold=1), replace(one, accumulate=1), take)
    assert "hold must be followed" in refused(replace(one, hold=1), one, take, take)
    assert "hold must be followed" in refused(replace(one, accumulate=1), take)
    assert "no Conv goes on" in refused(replace(one, hold=1), take)
    assert "n_oc is 1 and 2" in refused(one, replace(take, n_oc=2))
    assert "1 tensors go into the accumulator, 0" in refused(one)


def test_a_deadlock_is_explained() -> None:
    text = refused(replace(MOVE_IN, wait=VECTOR), replace(TABLE, wait=LOAD, a_addr=100, signal=1))
    assert "LOAD waits for tokens from VECTOR before command 0 (Load)" in text
    assert "VECTOR waits for tokens from LOAD before command 1 (Vector)" in text


def test_a_full_queue_can_be_the_deadlock() -> None:
    stuck = replace(MOVE_IN, wait=STORE)
    give = replace(MOVE_OUT, signal=LOAD)
    check(stuck, *[MOVE_IN] * (BASE.queue_depth - 1), give)
    text = refused(stuck, *[MOVE_IN] * BASE.queue_depth, give)
    assert "STORE never gets command 17 (Store)" in text


def test_tokens_may_not_overflow() -> None:
    give = replace(MOVE_IN, signal=VECTOR)
    take = replace(TABLE, wait=LOAD, a_addr=100, d_addr=200)
    check(*[give] * 255, *[take] * 255)
    check(*[give, take] * 200)
    assert "more than 255 tokens from LOAD to VECTOR" in refused(*[give] * 256)
    # With the token back, the counter never holds more than one.
    first = replace(give, signal=VECTOR)
    again = replace(give, wait=VECTOR)
    check(first, *[replace(take, signal=LOAD), again] * 300, take)


def test_tokens_may_not_be_left_for_the_next_run() -> None:
    assert "leaves 2 tokens from LOAD to ARRAY" in refused(*[replace(MOVE_IN, signal=ARRAY)] * 2)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (replace(MOVE_IN, row_bytes=0), "ILLEGAL_FIELD: Load.row_bytes is 0"),
        (replace(MOVE_IN, mem_addr=8130), "MEM_WINDOW: bytes 8130 to 8193 of region IO"),
        (replace(MOVE_IN, mem_addr=9, n1=2, mem_stride1=-10), "MEM_WINDOW: bytes -1"),
        (replace(MOVE_OUT, region=Region.CONST, mem_addr=0), "writes region CONST"),
        (replace(MOVE_IN, sram_addr=65530), "writes ACT up to byte 65594"),
        (replace(MOVE_IN, space=Space.TABLE, sram_addr=2040), "TABLE up to byte 2104"),
        (replace(CONV, wgt_addr=4090), "reads WGT up to byte 32784"),
        (replace(CONV, act_addr=65512), "reads ACT"),
        (replace(CONV, mode=Mode.TAPS, act_addr=4), "does not begin on a line"),
        (replace(CONV, mode=Mode.ROWS, row_pitch=32, ky_rows=2), "BANK_CONFLICT"),
        (replace(CONV, mode=Mode.JOINED, row_pitch=32), "JOINED needs"),
        (replace(CONV, tile_rows=600, out_h=600), "ACC_OVERFLOW"),
        (replace(REQUANT, param_addr=1020), "reads PARAM up to byte 8232"),
        (replace(TABLE, d_addr=8190), "writes ACT up to byte 65584"),
        (replace(TABLE, d_addr=1), "reads lines of A that it has written before"),
        (Softmax(channels=9, n_rows=2, a_y=2, d_addr=1, d_y=2), "it has written before"),
    ],
)
def test_commands_that_would_fault_are_refused(command: Command, reason: str) -> None:
    assert reason in refused(command)


def test_results_in_place_are_allowed() -> None:
    check(replace(TABLE, d_addr=0))
    check(replace(TABLE, a_addr=1, d_addr=0))
    check(Softmax(channels=9, n_rows=2, a_y=2, d_y=2))


def test_a_wrong_tag_or_a_signal_of_end_is_refused() -> None:
    commands = numbered([MOVE_IN])
    with pytest.raises(ProgramError, match="its tag is 7"):
        check_commands([replace(commands[0], tag=7), commands[1]], BASE, SIZES)
    assert "token of its own engine" in refused(replace(MOVE_IN, signal=LOAD))
    with pytest.raises(ProgramError, match="End takes and gives no tokens"):
        check_commands([commands[0], replace(commands[1], wait=1)], BASE, SIZES)


def test_a_whole_program_and_its_tensors_are_checked() -> None:
    code = b"".join(command.encode() for command in numbered(GOOD))
    info = TensorInfo(name="t", shape=(1, 8))
    tensor = PlacedTensor(info=info, offset=8185, row_pitch=8, pixel_pitch=8)
    plan = MemoryPlan(region_bytes={"IO": 8192})
    check_program(Program.of(NpuSegment(commands=code, memory=plan), BASE))
    with pytest.raises(ProgramError, match="tensor 't': it ends at byte 8193"):
        NpuSegment(commands=code, memory=plan, inputs=(tensor,))
    with pytest.raises(ProgramError, match="MEM_WINDOW"):
        check_program(Program.of(NpuSegment(commands=code), BASE))


def chain(turns: int) -> list[Command]:
    """An image after the other through one place, every engine waiting for the next one."""
    commands: list[Command] = []
    for turn in range(turns):
        back = {"wait": ARRAY} if turn else {}, {"wait": STORE} if turn else {}
        more = turn < turns - 1
        commands += [
            replace(MOVE_IN, signal=ARRAY, **back[0]),
            replace(CONV, wait=LOAD, signal=LOAD if more else 0),
            replace(REQUANT, signal=STORE, **back[1]),
            replace(MOVE_OUT, wait=VECTOR, signal=VECTOR if more else 0),
        ]
    return commands


def test_a_long_program_is_checked_in_seconds(tmp_path: Path) -> None:
    """And a token that is missing far behind is found."""
    commands = numbered(chain(5000))
    assert len(commands) == 20_001
    code = b"".join(command.encode() for command in commands)
    plan = MemoryPlan(region_bytes={"IO": SIZES[Region.IO]})
    program = Program.of(NpuSegment(commands=code, memory=plan), BASE)
    program.save(tmp_path / "long.celosia")
    started = time.monotonic()
    assert Program.load(tmp_path / "long.celosia").npu.decode() == commands
    # 5 s on a slow processor; a table of all pairs took gigabytes.
    assert time.monotonic() - started < 30
    late = 4 * 4990
    commands[late] = replace(commands[late], wait=0)
    commands[late - 3] = replace(commands[late - 3], signal=0)
    with pytest.raises(ProgramError, match=r"command 19960 \(Load\) and command 19957 \(Conv\)"):
        check_commands(commands, BASE, SIZES)


def test_accesses_that_nothing_orders_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = [MOVE_OUT, replace(MOVE_IN, mem_addr=0, sram_addr=2048)] * 50
    check(*apart)
    monkeypatch.setattr("celosia.sw.program.verify.MAX_PAIRS", 1000)
    assert "IO: more than 1000 pairs of accesses that nothing orders" in refused(*apart)
    check_commands(numbered(apart), BASE, SIZES, limits=False)
    comb = replace(MOVE_OUT, row_bytes=1, n1=32, mem_stride1=2, sram_stride1=1)
    teeth = replace(MOVE_IN, mem_addr=4097, row_bytes=1, n1=32, mem_stride1=2, sram_addr=2048)
    check(comb, teeth)
    monkeypatch.setattr("celosia.sw.program.verify.MAX_PAIR_EFFORT", 100)
    assert "more than 100 steps to tell accesses apart" in refused(comb, teeth)


@pytest.mark.parametrize("low", ["act_min", "mid_min"])
def test_bounds_that_leave_no_value_are_refused(low: str) -> None:
    """The engine lets the lower bound win, the firmware of ``nano`` the upper one."""
    high = low.replace("min", "max")
    check(replace(TABLE, **{low: 7, high: 7}))
    text = refused(replace(TABLE, **{low: 8, high: 7}))
    assert f"{low} is 8, {high} is 7" in text


def random_program(draw: random.Random) -> list[Command]:
    """Commands in small memories with random tokens, most of them given before they are taken."""
    commands: list[Command] = []
    given: dict[tuple[int, int], int] = {}
    for _ in range(draw.randrange(2, 9)):
        place = 64 * draw.randrange(4)
        kind = draw.randrange(4)
        parts: list[Command] = [
            replace(MOVE_IN, sram_addr=place, mem_addr=draw.randrange(4) * 64),
            replace(MOVE_OUT, sram_addr=place, mem_addr=draw.randrange(4) * 64),
            replace(TABLE, a_addr=place // 8, d_addr=8 * draw.randrange(4)),
        ][kind : kind + 1]
        if kind == 2 and commands and place == 0:
            parts = [replace(TABLE, a_addr=place // 8, d_addr=place // 8)]
        if kind == 3:
            rows = draw.choice((2, 8))
            parts = [
                replace(CONV, act_addr=place, tile_rows=rows),
                replace(REQUANT, d_addr=8 * draw.randrange(4), tile_rows=rows),
            ]
        for part in parts:
            engine = (part.OPCODE >> 4) - 1
            wait = signal = 0
            for other in {0, 1, 2, 3} - {engine}:
                waiting = given.get((other, engine), 0)
                if (waiting and draw.random() < 0.8) or draw.random() < 0.02:
                    wait |= 1 << other
                    given[other, engine] = waiting - 1
                if draw.random() < 0.5:
                    signal |= 1 << other
                    given[engine, other] = given.get((engine, other), 0) + 1
            commands.append(replace(part, wait=wait, signal=signal))
    # Tokens that nobody takes are refused whatever else is right: drop the last ones.
    for index in reversed(range(len(commands))):
        engine = (commands[index].OPCODE >> 4) - 1
        for other in range(4):
            if commands[index].signal >> other & 1 and given[engine, other] > 0:
                given[engine, other] -= 1
                signal = commands[index].signal & ~(1 << other)
                commands[index] = replace(commands[index], signal=signal)
    return commands


def outcome(commands: list[Command], seed: int) -> bytes:
    emulator = Emulator(BASE, 1 << 14)
    noise = np.random.default_rng(0)
    emulator.memory[:] = noise.integers(0, 256, 1 << 14)
    emulator.act[:1024] = noise.integers(0, 256, 1024)
    emulator.wgt[:8] = noise.integers(-128, 128, (8, 8))
    emulator.table[:] = noise.integers(0, 256, emulator.table.shape)
    emulator.param[32:64] = np.full(8, 1 << 30, "<i4").view(np.uint8)
    emulator.param[64:72] = 0xF9
    emulator.load_code(b"".join(c.encode() for c in numbered(commands)), 8192)
    emulator.set_region(Region.IO, 0, 8192)
    emulator.run("random", seed)
    return emulator.act[:1024].tobytes() + emulator.memory[:8192].tobytes()


def test_the_check_and_the_emulator_agree_on_random_programs() -> None:
    """What passes gives one result in all orders; what is called stuck, and only that, is."""
    passed = stuck = races = seen = 0
    for seed in range(400):
        commands = random_program(random.Random(seed))
        try:
            check(*commands)
            verdict = "passes"
        except ProgramError as error:
            verdict = "stuck" if "stuck" in str(error) else error.cause
        if verdict == "stuck":
            stuck += 1
            with pytest.raises(EmulatorError, match="deadlock"):
                outcome(commands, 0)
            continue
        results = {outcome(commands, order) for order in range(6)}
        passed += verdict == "passes"
        if verdict == "passes":
            assert len(results) == 1, seed
        elif "nothing orders" in verdict:
            races += 1
            seen += len(results) > 1
    # The programs are varied enough for the test to mean something.
    assert passed > 30
    assert stuck > 15
    assert seen > races / 4 > 10


def test_a_long_program_is_checked_fast() -> None:
    commands: list[Command] = []
    for turn in range(450):
        first, last = turn == 0, turn == 449
        commands += [
            replace(MOVE_IN, wait=0 if first else ARRAY, signal=ARRAY),
            replace(CONV, wait=LOAD, signal=0 if last else LOAD),
            replace(REQUANT, wait=0 if first else STORE, signal=STORE),
            replace(MOVE_OUT, wait=VECTOR, signal=0 if last else VECTOR),
        ]
    start = time.perf_counter()
    check(*commands)
    # About a second; the bound is wide because the machine may be busy.
    assert time.perf_counter() - start < 15
