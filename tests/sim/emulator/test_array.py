"""The emulator's array against the convolutions of the golden model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.addresses import conv_tiles
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import (
    Conv,
    End,
    Load,
    Mode,
    Region,
    Rounding,
    Space,
    Store,
    Vector,
    VectorOp,
)
from celosia.hw.contract.legal import field_problem
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.array import conv_tile
from celosia.sim.emulator.machine import Emulator, EmulatorFault
from celosia.sim.golden import operators as golden

from tests.kit.layers import Layer, convolution, depthwise, joined

Int8 = npt.NDArray[np.int8]


def accumulators(emulator: Emulator, conv: Conv) -> npt.NDArray[np.int64]:
    """Return the sums of a whole command, ``[out_h, out_w, n_oc * cols]``."""
    channels = []
    for oc in range(conv.n_oc):
        tiles = [conv_tile(emulator, conv, oc, tile) for tile in range(conv_tiles(conv))]
        sums = np.concatenate([tile.sums[..., 0] for tile in tiles])
        channels.append(sums.reshape(conv.out_h, conv.out_w, -1))
    return np.concatenate(channels, axis=2).astype(np.int64)


def place(emulator: Emulator, image: Int8, base: int, row_pitch: int, pixel_pitch: int) -> None:
    """Write an ``[h, w, c]`` image to ACT, whatever lies between pixels kept as it is."""
    height, width, channels = image.shape
    for y in range(height):
        for x in range(width):
            start = base + y * row_pitch + x * pixel_pitch
            emulator.act[start : start + channels] = image[y, x].view(np.uint8)


def noisy(config: NpuConfig, rng: np.random.Generator) -> Emulator:
    """An emulator whose memories are full of values that must not matter."""
    emulator = Emulator(config)
    emulator.act[:] = rng.integers(0, 256, config.act_bytes)
    emulator.wgt[:] = rng.integers(-128, 128, emulator.wgt.shape)
    emulator.param[:] = rng.integers(0, 256, config.param_bytes)
    return emulator


def check_layer(config: NpuConfig, rng: np.random.Generator, layer: Layer) -> None:
    """Compute a layer in tiles of one row and of three, and compare."""
    lines = layer.wgt.reshape(-1, config.cols)
    if len(lines) + 4 > config.wgt_lines:
        pytest.skip("the weights do not fit this configuration")
    for tile_rows in (1, 3):
        emulator = noisy(config, rng)
        emulator.act[:] = layer.act.view(np.uint8)
        emulator.wgt[4 : 4 + len(lines)] = lines
        conv = replace(layer.command, tile_rows=tile_rows, wgt_addr=4)
        sums = accumulators(emulator, Conv.decode(conv.encode()))  # type: ignore[arg-type]
        np.testing.assert_array_equal(sums[..., : layer.expected.shape[2]], layer.expected)


WINDOW_CASES: list[dict[str, Any]] = [
    {"shape": (7, 9, 3), "kernel": (5, 3, 3), "strides": (1, 1), "padding": "SAME"},
    {"shape": (8, 8, 1), "kernel": (9, 5, 4), "strides": (2, 2), "padding": "SAME"},
    {"shape": (9, 7, 17), "kernel": (20, 3, 3), "strides": (1, 2), "padding": "VALID"},
    {"shape": (5, 6, 16), "kernel": (8, 1, 1), "strides": (2, 1), "padding": "SAME"},
    {"shape": (1, 1, 70), "kernel": (12, 1, 1), "strides": (1, 1), "padding": "VALID"},
    {"shape": (11, 6, 2), "kernel": (4, 10, 4), "strides": (2, 2), "padding": "SAME"},
]


@pytest.mark.parametrize("name", ["nano", "base", "large"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", WINDOW_CASES)
def test_window_mode_equals_the_definition(name: str, packed: bool, case: dict[str, Any]) -> None:
    config = preset(name)
    rng = np.random.default_rng(1)
    out_channels, *kernel = case["kernel"]
    layer = convolution(
        config,
        rng,
        size=case["shape"],
        out_channels=out_channels,
        kernel=(kernel[0], kernel[1]),
        strides=case["strides"],
        padding=case["padding"],
        packed=packed,
    )
    check_layer(config, rng, layer)


JOINED_CASES: list[dict[str, Any]] = [
    {"shape": (9, 9, 3), "kernel": (8, 3, 3), "strides": (2, 2), "padding": "SAME"},
    {"shape": (9, 8, 1), "kernel": (9, 5, 4), "strides": (1, 2), "padding": "SAME"},
    {"shape": (12, 6, 1), "kernel": (4, 10, 4), "strides": (2, 2), "padding": 3},
    {"shape": (7, 6, 5), "kernel": (17, 3, 2), "strides": (1, 1), "padding": "VALID"},
]


@pytest.mark.parametrize("name", ["base", "large"])
@pytest.mark.parametrize("case", JOINED_CASES)
def test_joined_rows_equal_the_definition(name: str, case: dict[str, Any]) -> None:
    config = preset(name)
    rng = np.random.default_rng(1)
    out_channels, *kernel = case["kernel"]
    layer = joined(
        config,
        rng,
        size=case["shape"],
        out_channels=out_channels,
        kernel=(kernel[0], kernel[1]),
        strides=case["strides"],
        padding=case["padding"],
    )
    check_layer(config, rng, layer)


@pytest.mark.parametrize("name", ["base", "large"])
def test_the_first_kernel_row_of_a_pass_is_always_read(name: str) -> None:
    """Whatever the command says of further ones; so does the RTL (tests/hw/array)."""
    config = preset(name)
    rng = np.random.default_rng(3)
    layer = depthwise(
        config, rng, size=(5, 9, config.cols), kernel=(1, 3), strides=(1, 1), padding=1,
        mode=Mode.ROWS,
    )  # fmt: skip
    check_layer(config, rng, replace(layer, command=replace(layer.command, ky_rows=0)))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("base", {"row_pitch": 24}),
        ("base", {"row_pitch": 48, "step_kx": 0}),
        ("base", {"row_pitch": 48, "n_ky": 2}),
        ("base", {"row_pitch": 48, "n_kx": 2}),
        ("tiny", {"row_pitch": 48}),
    ],
)
def test_joined_rows_that_no_machine_reads_are_illegal(name: str, changes: dict[str, int]) -> None:
    layer = joined(
        preset("base"), np.random.default_rng(1), size=(6, 6, 3), out_channels=8, kernel=(3, 3),
        strides=(1, 1), padding="VALID",
    )  # fmt: skip
    problem = field_problem(replace(layer.command, **changes), preset(name))
    assert problem is not None
    assert problem[0] is ErrorCause.ILLEGAL_FIELD
    assert "JOINED" in problem[1]


def depthwise_conv(
    config: NpuConfig,
    shape: tuple[int, int, int],
    weights: Int8,
    stride: int,
    zero_point: int,
    *,
    mode: Mode,
    tile_rows: int,
    base_line: int = 2,
) -> tuple[Conv, int, int, npt.NDArray[np.int8]]:
    """Return command, pitches and weight lines of a SAME depthwise convolution.

    One padding column is shared by neighbouring rows: a row streams the left padding, the
    pixels and, in the last row only (`extra`), the right padding.
    """
    size = config.rows
    height, width, channels = shape
    _, kernel_h, kernel_w, _ = weights.shape
    n_oc = -(-channels // size)
    pixel_pitch = n_oc * size
    lines_of_row = width * n_oc
    lines_of_row += 1 - lines_of_row % 2
    row_pitch = lines_of_row * size
    pad_y, pad_bottom = golden.same_padding(height, kernel_h, stride)
    pad_x, pad_right = golden.same_padding(width, kernel_w, stride)
    out_h, out_w = math.ceil(height / stride), math.ceil(width / stride)
    pad = max(pad_x, pad_right)
    taps = np.pad(weights[0], ((0, 0), (0, 0), (0, n_oc * size - channels)))
    if mode == Mode.TAPS:
        n_ky, ky_rows = kernel_h, 1
        lines = np.zeros((n_oc, n_ky, size, size), np.int8)
        for oc in range(n_oc):
            lines[oc, :, :kernel_w] = taps[:, :, oc * size : (oc + 1) * size]
    else:
        ky_rows = sum(config.segment_taps(s) >= kernel_w for s in range(config.dw_segments))
        n_ky = -(-kernel_h // ky_rows)
        lines = np.zeros((n_oc, n_ky, size, size), np.int8)
        for oc in range(n_oc):
            for ky in range(kernel_h):
                row = 3 * (ky % ky_rows)
                lines[oc, ky // ky_rows, row : row + kernel_w] = taps[
                    ky, :, oc * size : (oc + 1) * size
                ]
    conv = Conv(
        mode=mode,
        zero_point=zero_point,
        act_addr=(base_line * size - pad_y * row_pitch - pad_x * pixel_pitch) % (1 << 20),
        y0=-pad_y,
        x0=-pad_x * pixel_pitch,
        in_h=height,
        row_bytes=width * pixel_pitch,
        row_pitch=row_pitch,
        out_w=out_w,
        out_h=out_h,
        tile_rows=tile_rows,
        row_len=width + pad,
        extra=pad,
        stride_x=stride,
        stride_y=stride,
        step_x=pixel_pitch,
        step_y=stride * row_pitch,
        n_ky=n_ky,
        ky_rows=ky_rows,
        step_ky=ky_rows * row_pitch,
        n_kx=1,
        n_ic=1,
        n_oc=n_oc,
        step_oc=size,
        wgt_addr=2,
    )
    return conv, row_pitch, pixel_pitch, lines.reshape(-1, size)


@pytest.mark.parametrize("name", ["nano", "base", "large"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", [Mode.TAPS, Mode.ROWS])
@pytest.mark.parametrize("shape", [(6, 5, 4), (5, 8, 11), (4, 4, 32)])
def test_depthwise_modes_equal_the_definition(
    name: str, stride: int, mode: Mode, shape: tuple[int, int, int]
) -> None:
    config = preset(name)
    rng = np.random.default_rng(2)
    image = rng.integers(-128, 128, shape).astype(np.int8)
    weights = rng.integers(-127, 128, (1, 3, 3, shape[2])).astype(np.int8)
    zero_point = 5
    expected = golden.depthwise_conv2d_accumulators(
        image[None], weights, None, strides=(stride, stride), x_zero_point=zero_point
    )[0] + zero_point * weights.astype(np.int64).sum(axis=(0, 1, 2))
    for tile_rows in (1, 2):
        emulator = noisy(config, rng)
        conv, row_pitch, pixel_pitch, lines = depthwise_conv(
            config, shape, weights, stride, zero_point, mode=mode, tile_rows=tile_rows
        )
        place(emulator, image, 2 * config.line_bytes, row_pitch, pixel_pitch)
        emulator.wgt[2 : 2 + len(lines)] = lines
        sums = accumulators(emulator, Conv.decode(conv.encode()))  # type: ignore[arg-type]
        np.testing.assert_array_equal(sums[..., : shape[2]], expected)


def test_wide_depthwise_kernel_in_taps() -> None:
    config = preset("base")
    rng = np.random.default_rng(3)
    image = rng.integers(-128, 128, (6, 12, 8)).astype(np.int8)
    weights = rng.integers(-127, 128, (1, 5, 7, 8)).astype(np.int8)
    expected = golden.depthwise_conv2d_accumulators(image[None], weights, None, x_zero_point=0)[0]
    emulator = noisy(config, rng)
    conv, row_pitch, pixel_pitch, lines = depthwise_conv(
        config, (6, 12, 8), weights, 1, 0, mode=Mode.TAPS, tile_rows=4
    )
    place(emulator, image, 16, row_pitch, pixel_pitch)
    emulator.wgt[2 : 2 + len(lines)] = lines
    np.testing.assert_array_equal(accumulators(emulator, conv), expected)


def test_rows_mode_faults_on_an_even_pitch() -> None:
    config = preset("base")
    weights = np.ones((1, 3, 3, 8), np.int8)
    conv, *_ = depthwise_conv(config, (6, 5, 8), weights, 1, 0, mode=Mode.ROWS, tile_rows=1)
    pitch = 4 * config.line_bytes
    even = replace(conv, row_pitch=pitch, step_y=pitch)
    emulator = Emulator(config)
    emulator.load_code(even.encode() + End().encode())
    with pytest.raises(EmulatorFault, match="BANK_CONFLICT") as caught:
        emulator.run()
    assert caught.value.unit == 2


def block(
    bias: npt.NDArray[np.int32], multiplier: npt.NDArray[Any], shift: npt.NDArray[Any], size: int
) -> bytes:
    """Return the parameter blocks of all channel tiles."""
    data = b""
    for start in range(0, len(bias), size):
        part = slice(start, start + size)
        lack = (0, size - len(bias[part]))
        data += np.pad(bias[part], lack).astype("<i4").tobytes()
        data += np.pad(multiplier[part], lack).astype("<i4").tobytes()
        data += np.pad(shift[part], lack).astype(np.int8).tobytes()
    return data


@pytest.mark.parametrize("seed", range(6))
def test_a_whole_layer_by_dma_in_any_order(seed: int) -> None:
    """Load, convolve, requantise and store 12 channels, with tokens between all engines."""
    config = preset("base")
    rng = np.random.default_rng(4)
    layer = convolution(
        config,
        rng,
        size=(9, 10, 3),
        out_channels=12,
        kernel=(3, 3),
        strides=(2, 2),
        padding="SAME",
        packed=True,
    )
    image, weights, zero = layer.image, layer.weights, layer.command.zero_point
    lines = layer.wgt.reshape(-1, config.cols)
    bias = rng.integers(-3000, 3000, 12).astype(np.int32)
    scales = rng.uniform(0.001, 0.02, 12).astype(np.float32)
    expected = golden.conv2d(
        image[None],
        weights,
        bias,
        strides=(2, 2),
        x_scale=0.03,
        x_zero_point=zero,
        w_scales=scales,
        out_scale=0.05,
        out_zero_point=4,
        activation="RELU6",
    )[0]
    multiplier, shift = golden.channel_multipliers(0.03, scales, 0.05)
    low, high = golden.activation_range("RELU6", 0.05, 4)
    folded = bias - zero * weights.astype(np.int64).sum(axis=(1, 2, 3))
    blocks = block(folded.astype(np.int32), multiplier, shift, 8)
    constants = lines.tobytes() + blocks
    emulator = Emulator(config)
    emulator.memory[0x4000 : 0x4000 + len(constants)] = np.frombuffer(constants, np.uint8)
    emulator.memory[0x8000 : 0x8000 + image.size] = image.ravel().view(np.uint8)
    emulator.set_region(Region.CONST, 0x4000, len(constants))
    emulator.set_region(Region.IO, 0x8000, 0x1000)
    load, store, array, vector = 1, 2, 4, 8
    commands = [
        Load(
            region=Region.IO,
            space=Space.ACT,
            sram_addr=layer.base,
            row_bytes=30,
            n1=9,
            mem_stride1=30,
            sram_stride1=layer.command.row_pitch,
            tag=0,
        ),
        Load(
            region=Region.CONST,
            space=Space.WGT,
            sram_addr=4 * 8,
            row_bytes=lines.size,
            signal=array,
            tag=1,
        ),
        Load(
            region=Region.CONST,
            space=Space.PARAM,
            mem_addr=lines.size,
            row_bytes=len(blocks),
            signal=vector,
            tag=2,
        ),
        replace(layer.command, tile_rows=2, wgt_addr=4, wait=load, tag=3),
        Vector(
            op=VectorOp.REQUANT,
            rounding=Rounding.DOUBLE,
            n_oc=2,
            out_h=5,
            out_w=5,
            tile_rows=2,
            d_addr=256,
            d_y=10,
            d_x=2,
            zero_a=4,
            act_min=low,
            act_max=high,
            wait=load,
            signal=store,
            tag=4,
        ),
        Store(
            region=Region.IO,
            space=Space.ACT,
            mem_addr=0x400,
            sram_addr=256 * 8,
            row_bytes=12,
            n1=25,
            mem_stride1=12,
            sram_stride1=16,
            wait=vector,
            tag=5,
        ),
        End(tag=6),
    ]
    emulator.load_code(b"".join(command.encode() for command in commands))
    stats = emulator.run("random", seed)
    result = emulator.memory[0x8400 : 0x8400 + 300].view(np.int8).reshape(5, 5, 12)
    np.testing.assert_array_equal(result, expected)
    assert stats.commands == 7
    assert stats.tiles == 6
    assert stats.bytes_loaded == image.size + len(constants)
    assert stats.bytes_stored == 300
    assert stats.macs == 2 * 25 * 3 * 2 * 64
