"""The array engine with the activation SRAM, in all three modes, against numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from celosia.hw import parts
from celosia.hw.array.engine import ArrayEngine
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.contract.isa import Conv, Mode
from celosia.hw.contract.regs import ErrorCause

ADDR_MODULO = 1 << 20


class ArrayTop(Elaboratable):
    """Array engine, activation SRAM and a weight memory."""

    def __init__(self, config: NpuConfig) -> None:
        self.config = config
        self.engine = ArrayEngine(config)
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


@dataclass
class Layer:
    """A convolution: its command, its memories' contents and what must come out."""

    command: Conv
    act: np.ndarray
    wgt: np.ndarray
    expected: np.ndarray  # [out_h, out_w, channels]
    ideal_cycles: int


def lines_of(data: np.ndarray, line_bytes: int) -> list[int]:
    return [
        int.from_bytes(data[at : at + line_bytes].tobytes(), "little")
        for at in range(0, len(data), line_bytes)
    ]


def simulate(
    config: NpuConfig, commands: list[Conv], layer: Layer, rng: np.random.Generator, pause: int
) -> tuple[list[np.ndarray], int, int]:
    """Run commands; return the accumulator tiles, the cycles and the error cause."""
    top = ArrayTop(config)
    size = config.cols
    tiles: list[np.ndarray] = []
    cycles, cause = 0, 0

    async def host(ctx: Any) -> None:
        nonlocal cycles, cause
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
            done = False
            while not done:
                cycles += 1
                assert cycles < 100_000, "the engine hangs"
                done = ctx.get(top.engine.cmd.ready)
                if ctx.get(top.engine.fault.valid):
                    cause = ctx.get(top.engine.fault.cause)
                    return
                await ctx.tick()
            ctx.set(top.engine.cmd.valid, 0)
        for _ in range(4 * size + 20):
            if ctx.get(top.engine.fault.valid):
                cause = ctx.get(top.engine.fault.cause)
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
                    tile = []
                    for index in range(rows * command.out_w):
                        ctx.set(port.index, index)
                        data = b""
                        for beat in range(config.vector_beats):
                            if config.vector_beats > 1:
                                ctx.set(port.beat, beat)
                            await ctx.tick().repeat(2)
                            data += ctx.get(port.data).to_bytes(4 * config.vector_lanes, "little")
                        tile.append(np.frombuffer(data, "<i4"))
                    ctx.set(port.release, 1)
                    await ctx.tick()
                    ctx.set(port.release, 0)
                    tiles.append(np.array(tile))

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.add_testbench(reader)
    simulator.run()
    return tiles, cycles, cause


def assemble(tiles: list[np.ndarray], command: Conv, channels: int) -> np.ndarray:
    """Put accumulator tiles together to [out_h, out_w, channels]."""
    a_channel_tile = -(-command.out_h // command.tile_rows)
    planes = [
        np.concatenate(tiles[at : at + a_channel_tile]).reshape(command.out_h, command.out_w, -1)
        for at in range(0, len(tiles), a_channel_tile)
    ]
    return np.concatenate(planes, axis=2)[:, :, :channels]


def place(
    config: NpuConfig, x: np.ndarray, base: int, packed: bool, rng: np.random.Generator
) -> tuple[np.ndarray, int, int]:
    """Lay an image out in the activation SRAM; return the memory and the two pitches."""
    height, width, channels = x.shape
    line = config.line_bytes
    act = rng.integers(-128, 128, config.act_bytes).astype(np.int8)
    pixel = channels if packed else -(-channels // line) * line
    row = width * pixel
    if not packed and (row // line) % 2 == 0:
        row += line
    for y in range(height):
        for w in range(width):
            at = base + y * row + w * pixel
            act[at : at + channels] = x[y, w]
    return act, pixel, row


def convolution(
    config: NpuConfig,
    rng: np.random.Generator,
    *,
    size: tuple[int, int, int],
    out_channels: int,
    kernel: tuple[int, int],
    stride: int,
    pad: int,
    packed: bool,
) -> Layer:
    """Make a convolution on random data."""
    lanes = config.rows
    height, width, channels = size
    kh, kw = kernel
    x = rng.integers(-128, 128, size).astype(np.int8)
    w = rng.integers(-128, 128, (kh, kw, channels, out_channels)).astype(np.int8)
    zero = int(rng.integers(-128, 128))
    base = int(rng.integers(0, 50)) if packed else lanes * int(rng.integers(0, 9))
    act, pixel, row = place(config, x, base, packed, rng)
    out_h, out_w = (height + 2 * pad - kh) // stride + 1, (width + 2 * pad - kw) // stride + 1
    padded = np.full((height + 2 * pad, width + 2 * pad, channels), zero, np.int64)
    padded[pad : pad + height, pad : pad + width] = x
    expected = sum(
        padded[i : i + out_h * stride : stride, j : j + out_w * stride : stride][:out_h, :out_w]
        @ w[i, j].astype(np.int64)
        for i in range(kh)
        for j in range(kw)
    )
    # Weights as a run of bytes a kernel row (packed) or a pixel, cut into array heights.
    runs = w.reshape(kh, 1, kw * channels, out_channels) if packed else w
    n_kx, n_ic = runs.shape[1], -(-runs.shape[2] // lanes)
    n_oc = -(-out_channels // lanes)
    full = np.zeros((kh, n_kx, n_ic * lanes, n_oc * lanes), np.int8)
    full[:, :, : runs.shape[2], :out_channels] = runs
    weights = full.reshape(kh, n_kx, n_ic, lanes, n_oc, lanes).transpose(4, 0, 1, 2, 3, 5)
    tile_rows = min(int(rng.integers(1, out_h + 1)), config.acc_depth // out_w)
    command = Conv(
        mode=Mode.WINDOW,
        zero_point=zero,
        act_addr=(base - pad * (row + pixel)) % ADDR_MODULO,
        y0=-pad,
        x0=-pad * pixel,
        in_h=height,
        row_bytes=width * pixel,
        row_pitch=row,
        out_w=out_w,
        out_h=out_h,
        tile_rows=tile_rows,
        row_len=out_w,
        stride_x=1,
        stride_y=stride,
        step_x=stride * pixel,
        step_y=stride * row,
        n_ky=kh,
        ky_rows=1,
        step_ky=row,
        n_kx=n_kx,
        step_kx=pixel,
        n_ic=n_ic,
        step_ic=lanes,
        n_oc=n_oc,
    )
    ideal = n_oc * kh * n_kx * n_ic * out_h * out_w
    return Layer(command, act, weights.reshape(-1), np.asarray(expected), ideal)


def depthwise(
    config: NpuConfig,
    rng: np.random.Generator,
    *,
    size: tuple[int, int, int],
    kernel: tuple[int, int],
    stride: int,
    pad: int,
) -> Layer:
    """Make a depthwise convolution on random data."""
    lanes = config.rows
    height, width, channels = size
    kh, kw = kernel
    x = rng.integers(-128, 128, size).astype(np.int8)
    w = rng.integers(-128, 128, (kh, kw, channels)).astype(np.int8)
    zero = int(rng.integers(-128, 128))
    base = lanes * int(rng.integers(0, 9))
    act, pixel, row = place(config, x, base, False, rng)
    out_h, out_w = (height + 2 * pad - kh) // stride + 1, (width + 2 * pad - kw) // stride + 1
    padded = np.full((height + 2 * pad, width + 2 * pad, channels), zero, np.int64)
    padded[pad : pad + height, pad : pad + width] = x
    expected = sum(
        padded[i : i + out_h * stride : stride, j : j + out_w * stride : stride][:out_h, :out_w]
        * w[i, j].astype(np.int64)
        for i in range(kh)
        for j in range(kw)
    )
    segments = config.dw_segments
    rows_mode = kw <= 3 and kh > 1 and segments > 1
    ky_rows = segments if rows_mode else 1
    n_ky = -(-kh // ky_rows)
    n_kx = 1 if rows_mode else -(-kw // lanes)
    n_oc = -(-channels // lanes)
    weights = np.zeros((n_oc, n_ky, n_kx, lanes, lanes), np.int8)
    for i in range(kh):
        for j in range(kw):
            tap = np.zeros(n_oc * lanes, np.int8)
            tap[:channels] = w[i, j]
            at = 3 * (i % ky_rows) + j if rows_mode else j % lanes
            weights[:, i // ky_rows, 0 if rows_mode else j // lanes, at] = tap.reshape(n_oc, -1)
    full = (out_w - 1) * stride + kw
    shared = min(pad, kw - 1) if stride == 1 else 0
    tile_rows = min(int(rng.integers(1, out_h + 1)), config.acc_depth // out_w)
    command = Conv(
        mode=Mode.ROWS if rows_mode else Mode.TAPS,
        zero_point=zero,
        act_addr=(base - pad * (row + pixel)) % ADDR_MODULO,
        y0=-pad,
        x0=-pad * pixel,
        in_h=height,
        row_bytes=width * pixel,
        row_pitch=row,
        out_w=out_w,
        out_h=out_h,
        tile_rows=tile_rows,
        row_len=full - shared,
        extra=shared,
        stride_x=stride,
        stride_y=stride,
        step_x=pixel,
        step_y=stride * row,
        n_ky=n_ky,
        ky_rows=ky_rows,
        step_ky=ky_rows * row,
        n_kx=n_kx,
        step_kx=lanes * pixel,
        n_ic=1,
        step_ic=lanes,
        n_oc=n_oc,
        step_oc=lanes,
    )
    ideal = n_oc * n_ky * n_kx * (out_h * (full - shared))
    return Layer(command, act, weights.reshape(-1), np.asarray(expected), ideal)


CONFIGS = [
    PRESETS["nano"].with_(firmware=False, compact=True, lanes=1, act_bytes=8192),
    PRESETS["base"].with_(act_bytes=8192, wgt_bytes=16384),
    PRESETS["large"].with_(act_bytes=8192, wgt_bytes=32768),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.rows}x{c.cols}")
@pytest.mark.parametrize("seed", range(5))
def test_convolution_equals_numpy(config: NpuConfig, seed: int) -> None:
    rng = np.random.default_rng(seed)
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
        stride=int(rng.integers(1, 3)),
        pad=int(rng.integers(0, 2)),
        packed=bool(rng.integers(0, 2)),
    )
    tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
    assert cause == 0
    got = assemble(tiles, layer.command, layer.expected.shape[2])
    np.testing.assert_array_equal(got, layer.expected)


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
            config, rng, size=(6, 5, 6), out_channels=6, kernel=(3, 2), stride=stride, pad=1,
            packed=False,
        )  # fmt: skip
        tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
        assert cause == 0
        got = assemble(tiles, layer.command, layer.expected.shape[2])
        np.testing.assert_array_equal(got, layer.expected)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.rows}x{c.cols}")
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"),
    [((3, 3), 1, 1), ((3, 3), 2, 1), ((5, 5), 1, 2), ((1, 11), 1, 0), ((2, 3), 2, 0)],
)
def test_depthwise_equals_numpy(
    config: NpuConfig, kernel: tuple[int, int], stride: int, pad: int
) -> None:
    rng = np.random.default_rng(sum(kernel) + stride)
    layer = depthwise(
        config, rng, size=(6, 12, config.cols + 3), kernel=kernel, stride=stride, pad=pad
    )
    tiles, _, cause = simulate(config, [layer.command], layer, rng, pause=20)
    assert cause == 0
    got = assemble(tiles, layer.command, layer.expected.shape[2])
    np.testing.assert_array_equal(got, layer.expected)


def test_reduction_split_over_commands_accumulates() -> None:
    config = CONFIGS[1]
    rng = np.random.default_rng(5)
    layer = convolution(
        config, rng, size=(4, 4, 32), out_channels=8, kernel=(1, 1), stride=1, pad=0, packed=False
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


def test_passes_follow_one_another_without_a_gap() -> None:
    config = CONFIGS[1]
    rng = np.random.default_rng(1)
    layer = convolution(
        config, rng, size=(6, 6, 16), out_channels=8, kernel=(3, 3), stride=1, pad=1, packed=False
    )
    command = Conv(**{**layer.command.__dict__, "opcode": 0, "tile_rows": 6})
    _, cycles, _ = simulate(config, [command], layer, rng, pause=0)
    assert cycles - layer.ideal_cycles < 10, "start-up grew"


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"mode": 3}, ErrorCause.ILLEGAL_FIELD),
        ({"n_ic": 0}, ErrorCause.ILLEGAL_FIELD),
        ({"wgt_addr": 1}, ErrorCause.ILLEGAL_FIELD),
        ({"act_addr": 8190}, ErrorCause.ACT_RANGE),
        ({"wgt_addr": 2046}, ErrorCause.WGT_RANGE),
        ({"tile_rows": 500, "out_h": 500, "in_h": 600}, ErrorCause.ACC_OVERFLOW),
        ({"mode": 2, "row_pitch": 64}, ErrorCause.BANK_CONFLICT),
    ],
)
def test_illegal_commands_are_reported(changes: dict[str, int], cause: ErrorCause) -> None:
    config = CONFIGS[1]
    rng = np.random.default_rng(2)
    layer = convolution(
        config, rng, size=(4, 4, 8), out_channels=8, kernel=(1, 1), stride=1, pad=0, packed=False
    )
    command = Conv(**{**layer.command.__dict__, "opcode": 0, "tile_rows": 4, **changes})
    _, _, got = simulate(config, [command], layer, rng, pause=0)
    assert ErrorCause(got) is cause
