"""The vector engine against a model written from docs/arithmetic.md and the docstring of Vector."""

from __future__ import annotations

import functools
import random
import re
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Const, ResetInserter, Signal
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Command, Conv, Rounding, Softmax, Vector, VectorOp
from celosia.hw.contract.legal import field_problem
from celosia.hw.contract.needed import FLAGS
from celosia.hw.contract.operations import OPERATIONS, Operation
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.vector.engine import VectorEngine
from celosia.sim.emulator.machine import Emulator
from celosia.sim.emulator.vector import vector_whole
from celosia.sim.golden import fixed as golden_fixed
from celosia.sim.golden import softmax as golden_softmax
from celosia.sw.compiler.cost.engines import vectors_cycles

from tests.kit.reused import ReusedDesign

Int64 = npt.NDArray[np.int64]

# --------------------------------------------------------------------------------------------
# The model: docs/arithmetic.md, line by line.


def wrap32(x: Int64) -> Int64:
    return ((x + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


def requantise(x: Int64, m: Any, shift: Any, rounding: Rounding) -> Int64:
    x, m, shift = np.broadcast_arrays(
        np.asarray(x, np.int64), np.asarray(m, np.int64), np.asarray(shift, np.int64)
    )
    x = wrap32(x << np.maximum(shift, 0))
    rs = np.maximum(-shift, 0)
    t = (x * m) >> 30
    if rounding == Rounding.SINGLE:
        single: Int64 = (t + (np.int64(1) << rs)) >> (rs + 1)
        return single
    v = (t + 1) >> 1
    half = np.where(rs == 0, 0, (np.int64(1) << np.maximum(rs - 1, 0)) - (v < 0))
    double: Int64 = (v + half) >> rs
    return double


def clamp(x: Int64, low: int, high: int) -> Int64:
    return np.where(x < low, low, np.where(x > high, high, x))


@dataclass
class Machine:
    """What a command sees: memories as arrays of lines, and the accumulator's tiles to come."""

    config: NpuConfig
    act: npt.NDArray[np.int8]
    param: npt.NDArray[np.uint8]
    table: npt.NDArray[np.uint8]
    tiles: list[Int64] = field(default_factory=list)

    @classmethod
    def random(cls, config: NpuConfig, rng: np.random.Generator) -> Machine:
        n = config.line_bytes
        act = rng.integers(-128, 128, (config.act_lines, n)).astype(np.int8)
        param = rng.integers(0, 256, (config.param_lines, n)).astype(np.uint8)
        return cls(config, act, param, rng.integers(0, 256, (256, n)).astype(np.uint8))

    def block(self, c: Vector, oc: int) -> tuple[Int64, Int64, Int64]:
        line = c.param_addr + c.block_lines * oc
        raw = self.param[line : line + c.block_lines]
        bias = np.frombuffer(raw[0:4].tobytes(), "<i4").astype(np.int64)
        if c.shared:
            return bias, np.full_like(bias, c.mult_a), np.full_like(bias, -c.shift_a)
        mult = np.frombuffer(raw[4:8].tobytes(), "<i4").astype(np.int64)
        return bias, mult, raw[8].view(np.int8).astype(np.int64)

    def set_block(self, line: int, bias: Int64, mult: Int64, shift: Int64) -> None:
        n = self.config.line_bytes
        self.param[line : line + 4] = np.frombuffer(bias.astype("<i4").tobytes(), np.uint8).reshape(
            4, n
        )
        self.param[line + 4 : line + 8] = np.frombuffer(
            mult.astype("<i4").tobytes(), np.uint8
        ).reshape(4, n)
        self.param[line + 8] = shift.astype(np.int8).view(np.uint8)

    def execute(self, c: Vector, accumulators: Int64 | None) -> None:
        """`accumulators`: int64[n_oc, out_h, out_w, N] for REQUANT and REQUANT_ADD."""
        double = Rounding.DOUBLE
        for oc in range(c.n_oc):
            for y in range(c.out_h):
                for x in range(c.out_w):
                    a = np.array(
                        [
                            self.act[
                                c.a_addr + oc + y * c.a_y + x * c.a_x + ky * c.a_ky + kx * c.a_kx
                            ]
                            for ky in range(c.n_ky)
                            for kx in range(c.n_kx)
                        ]
                        if accumulators is None
                        else [],
                        np.int64,
                    )
                    b_oc = 0 if c.b_oc else oc
                    b = self.act[(c.b_addr + b_oc + y * c.b_y + x * c.b_x) % len(self.act)]
                    if c.b_oc:
                        b = np.full_like(b, b[0])
                    if c.op in (VectorOp.REQUANT, VectorOp.REQUANT_ADD):
                        assert accumulators is not None
                        bias, mult, shift = self.block(c, oc)
                        value = wrap32(accumulators[oc, y, x] + bias)
                        value = requantise(value, mult, shift, Rounding(c.rounding)) + c.zero_a
                        if c.op == VectorOp.REQUANT:
                            q = clamp(value, c.act_min, c.act_max)
                        else:
                            a = clamp(value, c.mid_min, c.mid_max)[None]
                    if c.op in (VectorOp.ADD, VectorOp.REQUANT_ADD):
                        sa = requantise((a[0] - c.zero_a) << 20, c.mult_a, -c.shift_a, double)
                        sb = requantise(
                            (b.astype(np.int64) - c.zero_b) << 20, c.mult_b, -c.shift_b, double
                        )
                        s = requantise(wrap32(sa + sb), c.mult_o, -c.shift_o, double)
                        q = clamp(s + c.zero_out, c.act_min, c.act_max)
                    elif c.op == VectorOp.MUL:
                        sb = requantise(
                            (b.astype(np.int64) - c.zero_b) << 20, c.mult_b, -c.shift_b, double
                        )
                        product = (((a[0] - c.zero_a) << 20) * sb) >> 31 >> c.shift_a
                        s = requantise(product, c.mult_o, -c.shift_o, double)
                        q = clamp(s + c.zero_out, c.act_min, c.act_max)
                    elif c.op == VectorOp.SQUARED_DIFFERENCE:
                        sa = requantise((a[0] - c.zero_a) << 7, c.mult_a, -c.shift_a, double)
                        sb = requantise(
                            (b.astype(np.int64) - c.zero_b) << 7, c.mult_b, -c.shift_b, double
                        )
                        s = ((sa + sb + 32768) & 65535) - 32768
                        s = requantise(s * s, c.mult_o, -c.shift_o, double)
                        q = clamp(s + c.zero_out, c.act_min, c.act_max)
                    elif c.op == VectorOp.AVERAGE:
                        s = a.sum(axis=0)
                        magnitude = ((abs(s) + c.half) * c.mult_o) >> (30 + c.shift_o)
                        # A sum of 0 is not negative; it shows where `half` is large.
                        s = np.where(s < 0, -magnitude, magnitude)
                        q = clamp(s, c.act_min, c.act_max)
                    elif c.op == VectorOp.MAX:
                        if c.pair:
                            a = np.stack((a[0], b.astype(np.int64)))
                        s = a.min(axis=0) if c.least else a.max(axis=0)
                        q = clamp(s, c.act_min, c.act_max)
                    elif c.op == VectorOp.TABLE:
                        q = np.array(
                            [self.table[a[0, j] & 255, j] for j in range(len(b))], np.uint8
                        ).view(np.int8)
                    self.act[c.d_addr + oc + y * c.d_y + x * c.d_x] = q


# --------------------------------------------------------------------------------------------
# The bench: models of the memories around one engine.


@dataclass
class Result:
    cycles: list[int]
    """Of each command, from valid to ready."""
    busy: list[int]
    wait_acc: int
    wait_act: int
    first_issue_to_write: int
    fault: tuple[int, int] | None


def to_int(values: npt.NDArray[Any]) -> int:
    return int.from_bytes(values.tobytes(), "little")


@dataclass(frozen=True)
class Made:
    """An engine that benches of one configuration share."""

    engine: VectorEngine
    reset: Signal
    design: ReusedDesign


@functools.lru_cache(maxsize=4)
def made(config: NpuConfig) -> Made:
    engine, reset = VectorEngine(config), Signal()
    return Made(engine, reset, ReusedDesign(ResetInserter(reset)(engine)))


class Bench:
    """One engine, with random refusals and random delays of the accumulator's halves."""

    def __init__(
        self, machine: Machine, *, seed: int, grant: float = 1.0, avail: float = 1.0
    ) -> None:
        self.machine = machine
        self.random = random.Random(seed)
        self.grant, self.avail = grant, avail
        shared = made(machine.config)
        self.engine, self.reset, self.design = shared.engine, shared.reset, shared.design

    async def _load_table(self, ctx: Any) -> None:
        port, config = self.engine.table, self.machine.config
        raw = self.machine.table.tobytes()
        for addr in range(0, len(raw), config.bus_bytes):
            ctx.set(port.req, 1)
            ctx.set(port.space, 3)
            ctx.set(port.addr, addr)
            word = raw[addr : addr + config.bus_bytes]
            ctx.set(port.data, int.from_bytes(word, "little"))
            ctx.set(port.mask, (1 << config.bus_bytes) - 1)
            assert ctx.get(port.gnt)
            await ctx.tick()
        ctx.set(port.req, 0)

    def run(
        self, commands: list[Command], *, load_table: bool = False, limit_cycles: int = 20_000
    ) -> Result:
        result = Result([], [], 0, 0, 0, None)

        async def testbench(ctx: Any) -> None:
            if load_table:
                await self._load_table(ctx)
            await self._execute(ctx, commands, result, limit_cycles)

        self.design.run(testbench)
        return result

    async def _execute(
        self, ctx: Any, commands: list[Command], result: Result, limit_cycles: int
    ) -> None:
        e, machine, rnd = self.engine, self.machine, self.random
        n = machine.config.line_bytes
        lanes, beats = machine.config.vector_lanes, machine.config.vector_beats
        act_bits, acc_bits = 8 * n, 32 * lanes
        pending = list(commands)
        act_next: int | None = None
        acc_next: int | None = None
        param_next: int | None = None
        tile = released = False
        cycles = busy = 0
        issued_at = -1
        now = 0
        ctx.set(e.param.gnt, 1)
        ctx.set(e.cmd.valid, 1)
        ctx.set(e.cmd.payload, int.from_bytes(pending[0].encode(), "little"))
        for now in range(limit_cycles):
            granted = rnd.random() < self.grant
            # A half that is there stays there until it is released.
            if released or not tile:
                tile = bool(machine.tiles) and rnd.random() < self.avail
                released = False
            # Each `set` is a step of the whole design: one for all that changes together.
            ctx.set(Cat(e.act.gnt, e.acc.avail), granted | tile << 1)
            _, _, *sample = await ctx.tick().sample(
                e.cmd.ready,
                e.fault.valid,
                e.busy,
                e.wait_acc,
                e.wait_act,
                e.act.bank.any() & e.act.gnt,
                e.act.line,
                e.acc.req,
                e.acc.index,
                e.acc.release,
                e.acc.avail,
                e.param.req,
                e.param.line,
                e.dst.req & ~e.dst.outside,
                e.dst.line,
                e.dst.data,
                e.acc.beat if beats > 1 else Const(0),
            )
            ready, fault, is_busy, wait_acc, wait_act = (int(v) for v in sample[:5])
            (act_hit, act_line, acc_req, acc_index, release, avail, param_req, param_line) = (
                int(v) for v in sample[5:13]
            )
            write, write_line, write_data, beat = (int(v) for v in sample[13:])
            cycles += 1
            busy += is_busy
            result.wait_acc += wait_acc
            result.wait_act += wait_act
            if is_busy and issued_at < 0:
                issued_at = now

            # Data of what was asked for one cycle before this one; garbage else.
            act_data = rnd.getrandbits(act_bits) if act_next is None else act_next
            acc_data = rnd.getrandbits(acc_bits) if acc_next is None else acc_next
            param_data = rnd.getrandbits(act_bits) if param_next is None else param_next
            read = param_data << acc_bits | acc_data
            ctx.set(Cat(e.act.data, e.acc.data, e.param.data), read << act_bits | act_data)
            act_next = to_int(machine.act[act_line]) if act_hit else None
            param_next = to_int(machine.param[param_line]) if param_req else None
            acc_next = None
            if acc_req:
                assert avail, "read of a half that is not the reader's"
                part = machine.tiles[0][acc_index][beat * lanes : (beat + 1) * lanes]
                acc_next = to_int(part.astype("<i4"))
            if release:
                machine.tiles.pop(0)
                released = True
            if write:
                data = write_data.to_bytes(n, "little")
                machine.act[write_line] = np.frombuffer(data, np.int8)
                if not result.first_issue_to_write:
                    result.first_issue_to_write = now - issued_at
            if fault:
                result.fault = (ctx.get(e.fault.cause), ctx.get(e.fault.address))
                return
            if ready:
                result.cycles.append(cycles)
                result.busy.append(busy)
                cycles = busy = 0
                pending.pop(0)
                if not pending:
                    return
                ctx.set(e.cmd.payload, int.from_bytes(pending[0].encode(), "little"))
        raise AssertionError(f"not done after {now + 1} cycles: {pending[0]}")


# --------------------------------------------------------------------------------------------
# Random commands. A and B come from the lower half of the SRAM, D goes to the upper half.


def random_q31(rng: np.random.Generator, size: int | None = None) -> Any:
    """Multipliers as a compiler makes them; one in eight negative."""
    values = rng.integers(1 << 30, 1 << 31, size) * rng.choice([1] * 7 + [-1], size)
    return int(values) if size is None else values


def random_vector(config: NpuConfig, op: VectorOp, rng: np.random.Generator) -> Vector:
    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    def flag(name: str, *, there: bool) -> int:
        return pick(0, 1) if there and config.can(FLAGS[name]) else 0

    pair = flag("pair", there=op == VectorOp.MAX)
    windowed = op in (VectorOp.AVERAGE, VectorOp.MAX) and not pair
    n_ky, n_kx = (pick(1, 4), pick(1, 4)) if windowed else (1, 1)
    # A vector is a window's elements: few of them where windows are large.
    most_w, most_h = (5, 3) if windowed else (9, 7)
    out_w, out_h, n_oc = pick(1, most_w), pick(1, most_h), pick(1, 3)
    low, high = sorted((pick(-128, 127), pick(-128, 127)))
    n = n_ky * n_kx
    shift_o = (n - 1).bit_length()
    mult_o = -(-(1 << (30 + shift_o)) // n)
    strides = {f"{t}_{axis}": pick(0, 12) for t in "abd" for axis in "xy"}
    half_lines = config.act_lines // 2
    return Vector(
        op=op,
        rounding=Rounding(pick(0, 1)),
        shared=pick(0, 1) if op == VectorOp.REQUANT else 0,
        n_oc=n_oc,
        out_h=out_h,
        out_w=out_w,
        tile_rows=pick(1, out_h),
        n_ky=n_ky,
        n_kx=n_kx,
        a_addr=pick(0, 50),
        a_ky=pick(0, 9),
        a_kx=pick(0, 3),
        b_addr=pick(0, 50),
        d_addr=half_lines + pick(0, 50),
        param_addr=pick(0, 5),
        zero_a=pick(-128, 127),
        zero_b=pick(-128, 127),
        zero_out=pick(-128, 127),
        mid_min=-128 if pick(0, 1) else -100,
        mid_max=127 if pick(0, 1) else 90,
        act_min=-128 if pick(0, 1) else low,
        act_max=127 if pick(0, 1) else high,
        mult_a=random_q31(rng),
        shift_a=pick(0, 6),
        mult_b=random_q31(rng),
        shift_b=pick(0, 31) if pick(0, 3) == 0 else pick(0, 6),
        mult_o=mult_o if windowed else random_q31(rng),
        shift_o=shift_o if windowed else pick(14, 22),
        half=n // 2,
        least=flag("least", there=op == VectorOp.MAX),
        pair=pair,
        b_oc=flag("b_oc", there=op.has_b or bool(pair)),
        **strides,
    )


def random_accumulators(
    machine: Machine, command: Vector, rng: np.random.Generator
) -> tuple[Int64, list[Int64]]:
    """Return the accumulators of a command, and the same cut into tiles."""
    shape = (command.n_oc, command.out_h, command.out_w, machine.config.cols)
    scale = rng.integers(0, 32, shape)
    acc = rng.integers(-(1 << 31), 1 << 31, shape) >> scale
    extreme = rng.random(shape) < 0.1
    acc = np.where(extreme, rng.choice([-(1 << 31), (1 << 31) - 1, 0, -1, 1], shape), acc)
    tiles = [
        np.concatenate(list(acc[oc, y : y + command.tile_rows]))
        for oc in range(command.n_oc)
        for y in range(0, command.out_h, command.tile_rows)
    ]
    return acc, tiles


def random_blocks(machine: Machine, command: Vector, rng: np.random.Generator) -> None:
    n = machine.config.cols
    for oc in range(command.n_oc):
        bias = rng.integers(-(1 << 31), 1 << 31, n) >> rng.integers(0, 31, n)
        mult = np.where(rng.random(n) < 0.1, 0, random_q31(rng, n))
        line = command.param_addr + command.block_lines * oc
        machine.set_block(line, bias, mult, rng.integers(-31, 9, n))


def check(
    config: NpuConfig,
    ops: list[VectorOp],
    *,
    seed: int,
    grant: float,
    avail: float,
) -> None:
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    machine = Machine.random(config, rng)
    commands = [random_vector(config, op, rng) for op in ops]
    # The parameters of all commands at different lines.
    line = 0
    expected = replace(machine, act=machine.act.copy())
    for index, command in enumerate(commands):
        accumulators = None
        if command.op in (VectorOp.REQUANT, VectorOp.REQUANT_ADD):
            commands[index] = command = replace(command, param_addr=line)
            line += 9 * command.n_oc  # room for whole blocks, also when they are shorter
            assert line <= config.param_lines
            random_blocks(machine, command, rng)
            accumulators, tiles = random_accumulators(machine, command, rng)
            machine.tiles += tiles
        expected.execute(command, accumulators)
    bench = Bench(machine, seed=seed, grant=grant, avail=avail)
    result = bench.run(list(commands), load_table=VectorOp.TABLE in ops)
    assert result.fault is None
    assert machine.tiles == []
    np.testing.assert_array_equal(machine.act, expected.act)


SMALL = preset("nano").with_(
    act_bytes=8192, param_bytes=4096, operations=OPERATIONS, firmware=False
)
SMALLEST = SMALL.with_(lanes=1, compact=True)
EIGHT = preset("base").with_(act_bytes=16384, compact=False)
LEAN_EIGHT = preset("base").with_(act_bytes=16384)


@pytest.mark.parametrize("op", list(VectorOp), ids=lambda op: op.name)
@pytest.mark.parametrize(
    ("config", "count", "grant", "avail"),
    [
        (SMALL, 4, 1.0, 1.0),
        (SMALL, 4, 0.5, 0.2),
        (EIGHT, 2, 0.7, 0.6),
        (SMALLEST, 3, 1.0, 1.0),
        (EIGHT.with_(lanes=2, compact=True), 2, 0.7, 0.6),
        (EIGHT.with_(lanes=4), 2, 1.0, 0.6),
        (EIGHT.with_(lanes=1), 2, 0.7, 1.0),
        (LEAN_EIGHT, 2, 0.7, 0.6),
    ],
    ids=[
        *("n4", "n4_refused", "n8_refused", "n4_l1", "n8_l2_refused", "n8_l4", "n8_l1"),
        "n8_lean_refused",
    ],
)
def test_random_commands(
    op: VectorOp, config: NpuConfig, count: int, grant: float, avail: float
) -> None:
    check(config, [op] * count, seed=100 + op + count, grant=grant, avail=avail)


PARTS_OF_THE_ENGINE = [
    ("SINGLE_STEPS",),
    ("MEMORY_DELAYS",),
    ("PLAIN_LOOPS",),
    ("SMALL_LANES",),
    ("SMALL_LANES", "LENT_SOFTMAX"),
    ("SHIFTS_BY_BEATS",),
    ("COMMAND_IN_PLACE",),
    ("PLAIN_TABLE_WRITES",),
]


@pytest.mark.parametrize("lanes", [2, None])
@pytest.mark.parametrize("names", PARTS_OF_THE_ENGINE, ids="_".join)
def test_a_part_alone_changes_no_result(names: tuple[str, ...], lanes: int | None) -> None:
    config = SMALL.with_(lanes=lanes, compact=names)
    check(config, list(VectorOp), seed=31, grant=0.8, avail=0.7)
    softmax_between_vector_commands(config)


def test_commands_of_all_kinds_follow_one_another() -> None:
    check(SMALL, [*VectorOp, *reversed(VectorOp)], seed=7, grant=0.8, avail=0.5)
    check(SMALLEST, list(reversed(VectorOp)), seed=7, grant=0.8, avail=0.5)


def test_sixteen_lanes() -> None:
    config = preset("large").with_(act_bytes=16384, param_bytes=4096)
    check(config, [VectorOp.REQUANT_ADD, VectorOp.TABLE], seed=8, grant=0.9, avail=0.9)


def plain(op: VectorOp, **changes: Any) -> Vector:
    """A command over contiguous lines."""
    values: dict[str, Any] = dict(
        op=op,
        n_oc=1,
        out_h=8,
        out_w=8,
        tile_rows=8,
        a_x=1,
        a_y=8,
        b_addr=64,
        b_x=1,
        b_y=8,
        d_addr=1024,
        d_x=1,
        d_y=8,
        act_min=-128,
        act_max=127,
        mid_min=-128,
        mid_max=127,
        mult_a=1 << 30,
        mult_b=1 << 30,
        mult_o=1 << 30,
        shift_o=19,
    )
    return Vector(**(values | changes))


@pytest.mark.parametrize(
    ("op", "cycles_per_vector"),
    [
        (VectorOp.REQUANT, 1),
        (VectorOp.TABLE, 1),
        (VectorOp.ADD, 3),
        (VectorOp.REQUANT_ADD, 4),
        (VectorOp.MUL, 3),
        (VectorOp.SQUARED_DIFFERENCE, 5),
        (VectorOp.AVERAGE, 4),
        (VectorOp.MAX, 4),
    ],
    ids=lambda value: value.name if isinstance(value, VectorOp) else str(value),
)
def test_throughput(op: VectorOp, cycles_per_vector: int) -> None:
    rng = np.random.default_rng(1)
    machine = Machine.random(SMALL, rng)
    window = {"n_ky": 2, "n_kx": 2, "a_kx": 1, "a_ky": 8} if cycles_per_vector == 4 else {}
    command = plain(op, **(window if op in (VectorOp.AVERAGE, VectorOp.MAX) else {}))
    random_blocks(machine, command, rng)
    if op in (VectorOp.REQUANT, VectorOp.REQUANT_ADD):
        machine.tiles = random_accumulators(machine, command, rng)[1]
    result = Bench(machine, seed=1).run([command])
    vectors = command.out_h * command.out_w
    overhead = result.cycles[0] - cycles_per_vector * vectors
    print(
        f"{op.name}: {result.busy[0] / vectors} cycles a vector, {overhead} more a command,"
        f" latency {result.first_issue_to_write}"
    )
    assert result.busy[0] == cycles_per_vector * vectors
    assert overhead <= (28 if machine.config and op.name.startswith("REQUANT") else 19)
    if op in (VectorOp.REQUANT, VectorOp.TABLE):
        assert result.first_issue_to_write == 15


@pytest.mark.parametrize("config", [SMALL, SMALLEST, EIGHT], ids=["n4", "n4_compact", "n8"])
@pytest.mark.parametrize("half", [3, 4, 65535])
@pytest.mark.parametrize("limits", [(-128, 127), (20, -20)], ids=str)
def test_averages_are_the_emulators_for_every_half(
    config: NpuConfig, half: int, limits: tuple[int, int]
) -> None:
    """Windows whose sum is 0 among them, and limits the wrong way round."""
    machine = Machine.random(config, np.random.default_rng(half))
    machine.act[:256] = 0
    # Sums of 0 from what is not 0, and sums around it.
    machine.act[100:200:2] = 7
    machine.act[101:201:2] = -7
    machine.act[200:240] %= 3
    command = plain(
        VectorOp.AVERAGE,
        out_h=12,
        out_w=10,
        n_ky=2,
        n_kx=2,
        a_x=2,
        a_y=20,
        a_kx=1,
        a_ky=2,
        d_y=10,
        half=half,
        mult_o=1 << 30,
        shift_o=2,
        act_min=limits[0],
        act_max=limits[1],
    )
    emulator = Emulator(config)
    emulator.act[:] = machine.act.reshape(-1).view(np.uint8)
    vector_whole(emulator, command)
    result = Bench(machine, seed=half).run([command])
    assert result.fault is None
    np.testing.assert_array_equal(machine.act.reshape(-1).view(np.uint8), emulator.act)


@pytest.mark.parametrize(
    "op",
    [VectorOp.ADD, VectorOp.MUL, VectorOp.SQUARED_DIFFERENCE, VectorOp.REQUANT_ADD],
    ids=lambda op: op.name,
)
@pytest.mark.parametrize("count", [1, 3, 9, 16, 20])
def test_short_groups_wait_as_predicted(op: VectorOp, count: int) -> None:
    """What a line of channels more takes, with a last group of any length."""
    rng = np.random.default_rng(1)
    cycles = []
    for n_oc in (2, 5):
        machine = Machine.random(SMALL, rng)
        command = plain(op, n_oc=n_oc, out_h=1, out_w=count, tile_rows=1, d_y=32)
        if op == VectorOp.REQUANT_ADD:
            random_blocks(machine, command, rng)
            machine.tiles = random_accumulators(machine, command, rng)[1]
        cycles += Bench(machine, seed=1).run([command]).cycles
    assert cycles[1] - cycles[0] == 3 * vectors_cycles(command, count, SMALL)


def test_channel_tiles_follow_without_draining() -> None:
    """With 10 vectors a tile the next block of parameters is there in time."""
    rng = np.random.default_rng(2)
    machine = Machine.random(SMALL, rng)
    command = plain(VectorOp.REQUANT, n_oc=8, out_h=1, out_w=10, tile_rows=1, d_y=16)
    random_blocks(machine, command, rng)
    machine.tiles = random_accumulators(machine, command, rng)[1]
    result = Bench(machine, seed=2).run([command])
    assert result.busy[0] == 80
    assert result.cycles[0] <= 80 + 28


def fault_of(command: Command, config: NpuConfig = SMALL) -> tuple[int, int] | None:
    rng = np.random.default_rng(3)
    machine = Machine.random(config, rng)
    if isinstance(command, Vector):
        machine.tiles = [np.zeros((64, config.cols), np.int64)] * 2
    return Bench(machine, seed=3).run([command], limit_cycles=2000).fault


LAST = SMALL.act_lines - 1


@pytest.mark.parametrize(
    ("command", "cause", "address"),
    [
        (plain(VectorOp.TABLE, a_addr=LAST), ErrorCause.ACT_RANGE, 4 * (LAST + 1)),
        (plain(VectorOp.TABLE, a_addr=LAST - 7), ErrorCause.ACT_RANGE, 4 * (LAST + 1)),
        (plain(VectorOp.TABLE, a_y=65535), ErrorCause.ACT_RANGE, 4 * 65535),
        (plain(VectorOp.ADD, b_addr=60000), ErrorCause.ACT_RANGE, 4 * 60000),
        (plain(VectorOp.MAX, n_ky=2, a_ky=65000), ErrorCause.ACT_RANGE, 4 * 65000),
        (plain(VectorOp.REQUANT, d_addr=LAST), ErrorCause.ACT_RANGE, 4 * (LAST + 1)),
        (
            plain(VectorOp.REQUANT, param_addr=SMALL.param_lines - 8),
            ErrorCause.PARAM_RANGE,
            4 * SMALL.param_lines,
        ),
        (plain(VectorOp.REQUANT, n_oc=0), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.REQUANT, tile_rows=0), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.TABLE, out_w=0), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.TABLE, out_h=0), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.MAX, n_ky=0), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.AVERAGE, n_kx=0), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.TABLE, n_kx=2), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.REQUANT, n_ky=0), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.ADD, shared=1), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.MAX, pair=1, b_addr=60000), ErrorCause.ACT_RANGE, 4 * 60000),
        (plain(VectorOp.MUL, b_addr=60000), ErrorCause.ACT_RANGE, 4 * 60000),
        (plain(VectorOp.MUL, a_addr=60000), ErrorCause.ACT_RANGE, 4 * 60000),
        (plain(VectorOp.MAX, pair=1, n_kx=2), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.ADD, pair=1), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.AVERAGE, least=1), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.MAX, b_oc=1), ErrorCause.ILLEGAL_FIELD, 0),
        (plain(VectorOp.REQUANT, b_oc=1), ErrorCause.ILLEGAL_FIELD, 0),
        (Softmax(channels=0, n_rows=1), ErrorCause.ILLEGAL_FIELD, 0),
        (Softmax(channels=1, n_rows=0), ErrorCause.ILLEGAL_FIELD, 0),
        (Softmax(channels=5, n_rows=1, a_addr=LAST), ErrorCause.ACT_RANGE, 4 * (LAST + 1)),
        (Softmax(channels=5, n_rows=1, d_addr=LAST), ErrorCause.ACT_RANGE, 4 * (LAST + 1)),
        (Conv(), ErrorCause.ILLEGAL_OPCODE, 0),
    ],
)
def test_fault(command: Command, cause: ErrorCause, address: int) -> None:
    assert fault_of(command) == (cause, address)


LACKING = (
    ("REQUANT", "TABLE"),
    ("REQUANT", "ADD", "SOFTMAX"),
    ("REQUANT", "MAX"),
    ("REQUANT", "MUL", "SPREAD"),
    ("REQUANT", "MAX", "SQUARED_DIFFERENCE", "MIN", "PAIR"),
)


@pytest.mark.parametrize("config", [SMALL, SMALLEST], ids=["n4", "n4_compact"])
@pytest.mark.parametrize("operations", LACKING, ids="_".join)
def test_what_the_machine_lacks_is_a_fault(config: NpuConfig, operations: tuple[str, ...]) -> None:
    """The engine refuses what the contract's legality refuses, with the same cause."""
    config = config.with_(operations=operations)
    commands = [
        *(plain(op) for op in VectorOp),
        plain(VectorOp.MAX, least=1),
        plain(VectorOp.MAX, pair=1),
        plain(VectorOp.MUL if "MUL" in operations else VectorOp.ADD, b_oc=1),
        Softmax(channels=5, n_rows=1, d_addr=40),
    ]
    refused = 0
    for command in commands:
        problem = field_problem(command, config)
        fault = fault_of(command, config)
        assert (fault and fault[0]) == (problem and problem[0]), command
        refused += problem is not None
    assert refused == len(Operation) - len(operations)


@pytest.mark.parametrize("config", [SMALL, SMALLEST], ids=["n4", "n4_compact"])
@pytest.mark.parametrize("operations", LACKING, ids="_".join)
def test_what_the_machine_has_is_right(config: NpuConfig, operations: tuple[str, ...]) -> None:
    ops = [VectorOp[name] for name in operations if name in VectorOp.__members__]
    check(config.with_(operations=operations), ops * 3, seed=21, grant=0.8, avail=0.7)


@pytest.mark.parametrize("config", [SMALL, SMALLEST], ids=["n4", "n4_compact"])
def test_what_nothing_needs_is_left_out(config: NpuConfig) -> None:
    def has(*operations: str) -> list[bool]:
        """Return whether there are the softmax unit, the tables, and what additions keep."""
        engine = VectorEngine(config.with_(operations=("REQUANT", *operations)))
        modules = set(re.findall(r"^module \\(\S+)", rtlil.convert(engine), re.MULTILINE))
        names = ("softmax.reciprocal", "table_ram.table_0", "pipeline.scratch_a")
        walks_b = "top.sequencer.planner.walker_b.x" in modules
        assert walks_b == ("top.pipeline.scratch_a" in modules or "PAIR" in operations)
        return [f"top.{name}" in modules for name in names]

    assert has("ADD", "TABLE", "SOFTMAX") == [True, True, True]
    assert has("TABLE") == [False, True, False]
    assert has("SOFTMAX") == [True, True, False]
    assert has("REQUANT_ADD") == [False, False, True]
    assert has("MUL") == [False, False, True]
    assert has("MAX", "AVERAGE", "PAIR") == [False, False, False]


def test_reset_recovers_from_a_fault() -> None:
    """Whatever was in the pipeline is gone; the next command runs as the first one does."""
    rng = np.random.default_rng(4)
    machine = Machine.random(SMALL, rng)
    good = plain(VectorOp.MAX, n_kx=2, a_kx=1)
    expected = replace(machine, act=machine.act.copy())
    expected.execute(good, None)
    bench = Bench(machine, seed=4)
    outcome = Result([], [], 0, 0, 0, None)

    async def testbench(ctx: Any) -> None:
        bad = plain(VectorOp.ADD, a_addr=LAST - 20, d_addr=1500)
        await bench._execute(ctx, [bad], outcome, 2000)
        assert outcome.fault == (ErrorCause.ACT_RANGE, 4 * (LAST + 1))
        await ctx.tick().repeat(30)
        assert not ctx.get(bench.engine.busy)
        ctx.set(bench.reset, 1)
        ctx.set(bench.engine.cmd.valid, 0)
        await ctx.tick()
        ctx.set(bench.reset, 0)
        await ctx.tick()
        outcome.fault = None
        await bench._execute(ctx, [good], outcome, 2000)

    bench.design.run(testbench)
    assert outcome.fault is None
    first, count = good.d_addr, good.out_h * good.out_w
    np.testing.assert_array_equal(
        machine.act[first : first + count], expected.act[first : first + count]
    )


@pytest.mark.parametrize("config", [SMALL, SMALLEST], ids=["n4", "n4_l1"])
def test_softmax_between_vector_commands(config: NpuConfig) -> None:
    softmax_between_vector_commands(config)


def softmax_between_vector_commands(config: NpuConfig) -> None:
    rng = np.random.default_rng(5)
    machine = Machine.random(config, rng)
    table = golden_softmax.softmax_exp_table(0.07, 1.0)
    machine.table[:, :4] = table.astype("<i4").view(np.uint8).reshape(256, 4)
    logits = rng.integers(-128, 128, (2, 10)).astype(np.int8)
    padded = np.zeros((2, 12), np.int8)
    padded[:, :10] = logits
    machine.act[10:13], machine.act[20:23] = padded.reshape(2, 3, 4)
    before = plain(VectorOp.TABLE, d_addr=1024)
    after = plain(VectorOp.TABLE, a_addr=100, d_addr=1200)
    expected = replace(machine, act=machine.act.copy())
    expected.execute(before, None)
    expected.execute(after, None)
    softmax = Softmax(channels=10, n_rows=2, a_addr=10, a_y=10, d_addr=1100, d_y=5)
    wanted = np.zeros((2, 12), np.int8)
    wanted[:, :10] = golden_softmax.softmax(logits, x_scale=0.07)
    expected.act[1100:1103], expected.act[1105:1108] = wanted.reshape(2, 3, 4)

    result = Bench(machine, seed=5, grant=0.6).run([before, softmax, after], load_table=True)
    assert result.fault is None
    np.testing.assert_array_equal(machine.act, expected.act)


@pytest.mark.parametrize(
    "config",
    [SMALLEST, SMALL.with_(compact=True), EIGHT.with_(lanes=2, compact=True)],
    ids=["n4_l1", "n4", "n8_l2"],
)
def test_softmax_in_a_lane(config: NpuConfig) -> None:
    """Rows of whole and of part lines, among them one of so many that all of it rounds to zero."""
    rng = np.random.default_rng(16)
    n, scale = config.line_bytes, 0.07
    machine = Machine.random(config, rng)
    table = golden_softmax.softmax_exp_table(scale, 1.0)
    machine.table[:, :4] = table.astype("<i4").view(np.uint8).reshape(256, 4)
    expected = replace(machine, act=machine.act.copy())
    commands = []
    line = 0
    for channels, spread in ((1, 128), (n, 20), (2, 3), (n + 1, 128), (600, 1)):
        lines = -(-channels // n)
        row = np.zeros((1, lines * n), np.int8)
        row[:, :channels] = rng.integers(-spread, spread, (1, channels))
        machine.act[line : line + lines] = expected.act[line : line + lines] = row.reshape(-1, n)
        wanted = np.zeros_like(row)
        wanted[:, :channels] = golden_softmax.softmax(row[:, :channels], x_scale=scale)
        expected.act[line + lines : line + 2 * lines] = wanted.reshape(-1, n)
        commands.append(Softmax(channels=channels, n_rows=1, a_addr=line, d_addr=line + lines))
        line += 2 * lines
    result = Bench(machine, seed=16, grant=0.8).run(commands, load_table=True)
    assert result.fault is None
    np.testing.assert_array_equal(machine.act, expected.act)


def test_model_agrees_with_the_reference() -> None:
    """The model above and the golden operators were written independently."""
    rng = np.random.default_rng(6)
    shift = rng.integers(-31, 9, 20_000)
    x = rng.integers(-(1 << 31), 1 << 31, 20_000) >> rng.integers(0, 31, 20_000)
    m = random_q31(rng, 20_000)
    np.testing.assert_array_equal(
        requantise(x, m, shift, Rounding.DOUBLE),
        golden_fixed.multiply_by_quantized_multiplier(x, m, shift, "double"),
    )
    # SINGLE: where a left shift overflows 32 bits the reference keeps more of them.
    fits = wrap32(x << np.maximum(shift, 0)) == x << np.maximum(shift, 0)
    np.testing.assert_array_equal(
        requantise(x, m, shift, Rounding.SINGLE)[fits],
        golden_fixed.multiply_by_quantized_multiplier(x, m, shift, "single")[fits],
    )


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_export(name: str) -> None:
    assert "VectorEngine" in rtlil.convert(VectorEngine(preset(name)), name="VectorEngine")
