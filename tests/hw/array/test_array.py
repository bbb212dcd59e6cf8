"""The array engine with the activation SRAM, in all modes, against the golden operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Cat, Elaboratable, Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from celosia.hw import parts
from celosia.hw.array.engine import ArrayEngine
from celosia.hw.array.products import NO_TABLES, TableRows
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.contract.isa import Conv, Mode
from celosia.hw.contract.regs import ErrorCause

from tests.kit.layers import Layer, assemble, convolution, depthwise, joined, phased


class ArrayTop(Elaboratable):
    """Array engine, activation SRAM and a weight memory."""

    def __init__(self, config: NpuConfig, tables: TableRows) -> None:
        self.config = config
        self.engine = ArrayEngine(config, tables=tables)
        self.act = parts.act_sram(config)
        self.weights = [
            Memory(shape=8 * config.line_bytes, depth=config.wgt_lines // 2, init=[])
            for _ in range(2)
        ]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = self.engine
        m.submodules.act = self.act
        connect(m, self.engine.act, self.act.array)
        for parity, memory in enumerate(self.weights):
            m.submodules[f"weights_{parity}"] = memory
            port = memory.read_port()
            m.d.comb += port.addr.eq(self.engine.wgt.line >> 1)
            m.d.sync += self.engine.wgt.data[parity].eq(port.data)
        return m


def lines_of(data: np.ndarray, line_bytes: int) -> list[int]:
    return [
        int.from_bytes(data[at : at + line_bytes].tobytes(), "little")
        for at in range(0, len(data), line_bytes)
    ]


def simulate(
    config: NpuConfig,
    commands: list[Conv],
    layer: Layer,
    rng: np.random.Generator,
    pause: int,
    tables: TableRows = NO_TABLES,
    blamed: int = 0,
) -> tuple[list[np.ndarray], int, int]:
    """Run commands; return the accumulator tiles, the cycles and the error cause.

    When an error is reported, the commands before number `blamed` are done, and no other one.
    """
    top = ArrayTop(config, tables)
    size = config.cols
    tiles: list[np.ndarray] = []
    cycles, cause, done = 0, 0, 0

    async def watch(ctx: Any) -> None:
        """Count the commands that are done, and note the first error."""
        nonlocal cause, done
        engine = top.engine
        async for _, _, valid, first, ends in ctx.tick().sample(
            engine.fault.valid, engine.fault.cause, engine.done
        ):
            assert not (cause and ends), "a command is done after an error"
            cause, done = cause or (first if valid else 0), done + ends

    async def host(ctx: Any) -> None:
        nonlocal cycles
        for line, value in enumerate(lines_of(layer.act, size)):
            ctx.set(top.act.result.req, 1)
            ctx.set(top.act.result.line, line)
            ctx.set(top.act.result.data, value)
            await ctx.tick()
        ctx.set(top.act.result.req, 0)
        for line, value in enumerate(lines_of(layer.wgt, size)):
            ctx.set(top.weights[line % 2].data[line // 2], value)
        await ctx.tick()
        for command in commands:
            ctx.set(top.engine.cmd.payload, int.from_bytes(command.encode(), "little"))
            ctx.set(top.engine.cmd.valid, 1)
            taken = False
            while not taken and not cause:
                cycles += 1
                assert cycles < 100_000, "the engine hangs"
                taken = ctx.get(top.engine.cmd.ready)
                await ctx.tick()
            ctx.set(top.engine.cmd.valid, 0)
        while done < len(commands) and not cause:
            cycles += 1
            assert cycles < 100_000, "the engine hangs"
            await ctx.tick()
        assert done == blamed if cause else done == len(commands)
        for _ in range(4 * size + 20):
            await ctx.tick()

    async def reader(ctx: Any) -> None:
        port = top.engine.acc
        for command in commands:
            if command.hold:
                continue
            for _ in range(command.n_oc):
                for row in range(0, command.out_h, command.tile_rows):
                    rows = min(command.tile_rows, command.out_h - row)
                    while not ctx.get(port.avail):
                        if cause:
                            return
                        await ctx.tick()
                    for _ in range(int(rng.integers(0, pause + 1))):
                        await ctx.tick()
                    # A read a cycle, and the half may be filled again meanwhile.
                    ctx.set(Cat(port.steady, port.req), 0b11)
                    asked = [
                        (index, beat)
                        for index in range(rows * command.out_w)
                        for beat in range(config.vector_beats)
                    ]
                    parts_read = []
                    for turn in range(len(asked) + 2):
                        if turn < len(asked):
                            index, beat = asked[turn]
                            ctx.set(port.index, index)
                            if config.vector_beats > 1:
                                ctx.set(port.beat, beat)
                            ctx.set(port.release, turn == len(asked) - 1)
                        else:
                            ctx.set(Cat(port.req, port.release), 0)
                        if turn >= 2:
                            part = ctx.get(port.data)
                            parts_read.append(part.to_bytes(4 * config.vector_lanes, "little"))
                        await ctx.tick()
                    tiles.append(np.frombuffer(b"".join(parts_read), "<i4").reshape(-1, size))

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(watch, background=True)
    simulator.add_testbench(host)
    simulator.add_testbench(reader)
    simulator.run()
    return tiles, cycles, cause


CONFIGS = [
    PRESETS["nano"].with_(firmware=False, compact=True, lanes=1, act_bytes=8192),
    PRESETS["base"].with_(act_bytes=8192, wgt_bytes=16384),
    PRESETS["large"].with_(act_bytes=8192, wgt_bytes=32768),
]


JOINING = [
    CONFIGS[0].with_(compact=False, lanes=None),
    *CONFIGS[1:],
    CONFIGS[1].with_(compact=("MEMORY_DELAYS", "SHARED_ACT_PORTS")),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.rows}x{c.cols}")
@pytest.mark.parametrize("seed", range(5))
def test_convolution_equals_the_definition(config: NpuConfig, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stride = int(rng.integers(1, 3))
    layer = convolution(
        config,
        rng,
        size=(
            int(rng.integers(3, 7)),
            int(rng.integers(3, 7)),
            int(rng.integers(1, 2 * config.rows + 2)),
        ),
        out_channels=int(rng.integers(1, 2 * config.cols + 2)),
        kernel=(int(rng.integers(1, 4)), int(rng.integers(1, 4))),
        strides=(stride, stride),
        padding=int(rng.integers(0, 2)),
        packed=bool(rng.integers(0, 2)),
    )
    tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
    assert cause == 0
    got = assemble(tiles, layer.command, layer.expected.shape[2])
    np.testing.assert_array_equal(got, layer.expected)


@pytest.mark.parametrize("config", JOINING, ids=["4x4", "8x8", "16x16", "8x8 with small parts"])
@pytest.mark.parametrize("seed", range(5))
def test_joined_rows_equal_the_definition(config: NpuConfig, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layer = joined(
        config,
        rng,
        size=(int(rng.integers(5, 8)), int(rng.integers(5, 9)), int(rng.integers(1, 6))),
        out_channels=int(rng.integers(1, 2 * config.cols + 2)),
        kernel=(int(rng.integers(1, 6)), int(rng.integers(1, 6))),
        strides=(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
        padding=int(rng.integers(0, 3)),
    )
    tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
    assert cause == 0
    got = assemble(tiles, layer.command, layer.expected.shape[2])
    np.testing.assert_array_equal(got, layer.expected)


def _convolution_of(config: NpuConfig, rng: np.random.Generator) -> Layer:
    return convolution(
        config,
        rng,
        size=(5, 4, config.rows + 2),
        out_channels=config.cols + 1,
        kernel=(2, 2),
        strides=(1, 1),
        padding=1,
        packed=False,
    )


def _depthwise_of(config: NpuConfig, rng: np.random.Generator) -> Layer:
    size = (4, 5, config.cols)
    return depthwise(
        config, rng, size=size, kernel=(3, 3), strides=(1, 1), padding=1, mode=Mode.TAPS
    )


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda c: f"{c.rows}x{c.cols}")
@pytest.mark.parametrize("layer_of", [_convolution_of, _depthwise_of])
def test_products_of_tables_change_no_result_and_no_cycle(
    config: NpuConfig, layer_of: Callable[[NpuConfig, np.random.Generator], Layer]
) -> None:
    taken = []
    for tables in (NO_TABLES, TableRows(config.rows // 2 + 1)):
        rng = np.random.default_rng(3)
        layer = layer_of(config, rng)
        tiles, cycles, cause = simulate(config, [layer.command], layer, rng, 0, tables)
        assert cause == 0
        got = assemble(tiles, layer.command, layer.expected.shape[2])
        np.testing.assert_array_equal(got, layer.expected)
        taken.append(cycles)
    assert taken[0] == taken[1]


PARTS_OF_THE_ENGINE = [
    "DIRECT_WEIGHTS",
    "COMBINATIONAL_PRODUCTS",
    "MEMORY_DELAYS",
    "MIRRORED_ACCUMULATOR",
    "ONE_SEGMENT",
    "SHARED_ACT_PORTS",
    "PLAIN_OUTPUTS",
]


@pytest.mark.parametrize("name", PARTS_OF_THE_ENGINE)
def test_a_part_alone_changes_no_result(name: str) -> None:
    config = CONFIGS[0].with_(compact=(name,))
    rng = np.random.default_rng(17)
    for stride in (1, 2):
        layer = convolution(
            config,
            rng,
            size=(6, 5, 6),
            out_channels=6,
            kernel=(3, 2),
            strides=(stride, stride),
            padding=1,
            packed=False,
        )
        tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
        assert cause == 0
        got = assemble(tiles, layer.command, layer.expected.shape[2])
        np.testing.assert_array_equal(got, layer.expected)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.rows}x{c.cols}")
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [((3, 3), 1, 1), ((3, 3), 2, 1), ((5, 5), 1, 2), ((1, 11), 1, 0), ((2, 3), 2, 0)],
)
def test_depthwise_equals_the_definition(
    config: NpuConfig, kernel: tuple[int, int], stride: int, pad: int
) -> None:
    rng = np.random.default_rng(sum(kernel) + stride)
    several_rows = kernel[0] > 1 and kernel[1] <= 3 and config.dw_segments > 1
    layer = depthwise(
        config,
        rng,
        size=(6, 12, config.cols + 3),
        kernel=kernel,
        strides=(stride, stride),
        padding=pad,
        mode=Mode.ROWS if several_rows else Mode.TAPS,
    )
    tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
    assert cause == 0
    got = assemble(tiles, layer.command, layer.expected.shape[2])
    np.testing.assert_array_equal(got, layer.expected)


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda c: f"{c.rows}x{c.cols}")
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [((3, 3), 2, 1), ((5, 5), 2, 2), ((3, 4), 3, 0), ((3, 2), 1, 0)]
)
def test_depthwise_by_phases_equals_the_definition(
    config: NpuConfig, kernel: tuple[int, int], stride: int, pad: int
) -> None:
    rng = np.random.default_rng(sum(kernel) + stride)
    layer = phased(
        config,
        rng,
        size=(7, 11, config.cols + 3),
        kernel=kernel,
        strides=(stride, stride),
        padding=pad,
    )
    tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
    assert cause == 0
    got = assemble(tiles, layer.command, layer.expected.shape[2])
    np.testing.assert_array_equal(got, layer.expected)


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda c: f"{c.rows}x{c.cols}")
def test_the_first_kernel_row_of_a_pass_is_always_read(config: NpuConfig) -> None:
    """Whatever the command says of further ones; so does the emulator (tests/sim/emulator)."""
    rng = np.random.default_rng(3)
    layer = depthwise(
        config, rng, size=(5, 9, config.cols), kernel=(1, 3), strides=(1, 1), padding=1,
        mode=Mode.ROWS,
    )  # fmt: skip
    command = replace(layer.command, ky_rows=0)
    tiles, _, cause = simulate(config, [command], layer, rng, pause=20)
    assert cause == 0
    got = assemble(tiles, command, layer.expected.shape[2])
    np.testing.assert_array_equal(got, layer.expected)


def test_reduction_split_over_commands_accumulates() -> None:
    config = CONFIGS[1]
    rng = np.random.default_rng(5)
    layer = convolution(
        config,
        rng,
        size=(4, 4, 32),
        out_channels=8,
        kernel=(1, 1),
        strides=(1, 1),
        padding="VALID",
        packed=False,
    )
    whole = layer.command
    halves = [
        Conv(**{**whole.__dict__, "opcode": 0, "tile_rows": 4, "n_ic": 2, "hold": 1}),
        Conv(
            **{
                **whole.__dict__,
                "opcode": 0,
                "tile_rows": 4,
                "n_ic": 2,
                "accumulate": 1,
                "act_addr": whole.act_addr + 2 * config.line_bytes,
                "x0": 2 * config.line_bytes,
                "wgt_addr": 2 * config.rows,
            }
        ),
    ]
    tiles, _, cause = simulate(config, halves, layer, rng, pause=0)
    assert cause == 0
    np.testing.assert_array_equal(assemble(tiles, halves[1], 8), layer.expected)


def _pixels(config: NpuConfig) -> tuple[Layer, np.random.Generator]:
    """Return a layer whose kernel is a pixel, of four rows of four, and what made it."""
    rng = np.random.default_rng(2)
    size, channels = (4, 4, 8), 8
    layer = convolution(
        config, rng, size=size, out_channels=channels, kernel=(1, 1), strides=(1, 1),
        padding="VALID", packed=False,
    )  # fmt: skip
    return layer, rng


def test_passes_follow_one_another_without_a_gap() -> None:
    config = CONFIGS[1]
    rng = np.random.default_rng(1)
    layer = convolution(
        config,
        rng,
        size=(6, 6, 16),
        out_channels=8,
        kernel=(3, 3),
        strides=(1, 1),
        padding=1,
        packed=False,
    )
    command = Conv(**{**layer.command.__dict__, "opcode": 0, "tile_rows": 6})
    _, cycles, _ = simulate(config, [command], layer, rng, pause=0)
    assert cycles - layer.pass_cycles < 10, "start-up grew"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"mode": 3, "row_pitch": 32 + 8}, ErrorCause.ILLEGAL_FIELD),
        ({"mode": 3, "row_pitch": 32 + 16, "step_kx": 0}, ErrorCause.ILLEGAL_FIELD),
        ({"n_ic": 0}, ErrorCause.ILLEGAL_FIELD),
        ({"wgt_addr": 1}, ErrorCause.ILLEGAL_FIELD),
        ({"act_addr": 8190}, ErrorCause.ACT_RANGE),
        ({"wgt_addr": 2046}, ErrorCause.WGT_RANGE),
        ({"tile_rows": 500, "out_h": 500, "in_h": 600}, ErrorCause.ACC_OVERFLOW),
        ({"mode": 2, "row_pitch": 64, "ky_rows": 2}, ErrorCause.BANK_CONFLICT),
    ],
)
def test_illegal_commands_are_reported(changes: dict[str, int], cause: ErrorCause) -> None:
    config = CONFIGS[1]
    layer, rng = _pixels(config)
    command = Conv(**{**layer.command.__dict__, "opcode": 0, "tile_rows": 4, **changes})
    _, _, got = simulate(config, [command], layer, rng, pause=0)
    assert ErrorCause(got) is cause


@pytest.mark.parametrize(
    ("config", "pause"), [*((config, 0) for config in CONFIGS), (CONFIGS[1], 20)]
)
def test_commands_follow_one_another_without_a_gap(config: NpuConfig, pause: int) -> None:
    """The next one is walked meanwhile, and its first weights are loaded."""
    rng = np.random.default_rng(4)
    layer = convolution(
        config, rng, size=(5, 6, config.rows), out_channels=2 * config.cols, kernel=(3, 3),
        strides=(1, 1), padding=1, packed=False,
    )  # fmt: skip
    command = replace(layer.command, tile_rows=5)
    tiles, one, _ = simulate(config, [command], layer, rng, pause)
    tiles, several, cause = simulate(config, 3 * [command], layer, rng, pause)
    assert cause == 0
    for turn in range(3):
        got = assemble(tiles[2 * turn : 2 * turn + 2], command, layer.expected.shape[2])
        np.testing.assert_array_equal(got, layer.expected)
    if pause == 0:
        assert several - one <= 2 * layer.pass_cycles + 3, "the array stood still between commands"


_FAULTS: list[tuple[dict[str, int], ErrorCause]] = [
    ({"n_ic": 0}, ErrorCause.ILLEGAL_FIELD),
    ({"wgt_addr": 2046}, ErrorCause.WGT_RANGE),
    ({"act_addr": 8190}, ErrorCause.ACT_RANGE),
    ({"mode": 2, "row_pitch": 64, "ky_rows": 2}, ErrorCause.BANK_CONFLICT),
]


@pytest.mark.parametrize(("lines", "before"), [(1, 2), (4, 1)])
@pytest.mark.parametrize(("changes", "cause"), _FAULTS)
def test_an_error_waits_for_the_commands_before(
    changes: dict[str, int], cause: ErrorCause, lines: int, before: int
) -> None:
    config = CONFIGS[1]
    layer, rng = _pixels(config)
    whole = replace(layer.command, tile_rows=lines, out_h=lines, hold=1)
    wrong = replace(whole, **changes)
    # They add to one half of the accumulator, as nobody reads it.
    commands = [
        replace(command, accumulate=int(turn > 0))
        for turn, command in enumerate([*before * [whole], wrong, whole])
    ]
    _, _, got = simulate(config, commands, layer, rng, pause=0, blamed=before)
    assert ErrorCause(got) is cause


@pytest.mark.parametrize("changes", [changes for changes, _ in _FAULTS])
def test_an_error_of_the_last_position_comes_before_those_of_the_next_command(
    changes: dict[str, int],
) -> None:
    config = CONFIGS[1]
    layer, rng = _pixels(config)
    # Four positions; the line of the last one is the first behind the memory.
    late = replace(
        layer.command, out_h=4, tile_rows=4, out_w=1, row_len=1, hold=1,
        act_addr=config.act_bytes - 3 * layer.command.step_y,
    )  # fmt: skip
    _, _, got = simulate(config, [late, replace(late, **changes)], layer, rng, pause=0)
    assert ErrorCause(got) is ErrorCause.ACT_RANGE
