"""The emulator's vector engine against the golden model and docs/arithmetic.md."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Conv, End, Mode, Rounding, Softmax, Vector, VectorOp
from celosia.sim.emulator.machine import Emulator
from celosia.sim.emulator.vector import requantise
from celosia.sim.golden import operators as golden
from hypothesis import example, given, settings
from hypothesis import strategies as st

Int8 = npt.NDArray[np.int8]


def run(emulator: Emulator, *commands: Conv | Softmax | Vector) -> None:
    stream = b"".join(command.encode() for command in (*commands, End()))
    emulator.load_code(stream)
    emulator.run()


def lines_of(image: Int8, size: int) -> Int8:
    """Return ``[h, w, c]`` as lines, the last channels padded with 99."""
    lack = -image.shape[2] % size
    return np.pad(image, ((0, 0), (0, 0), (0, lack)), constant_values=99).reshape(-1, size)


def put(emulator: Emulator, line: int, image: Int8) -> None:
    size = emulator.config.line_bytes
    lines = lines_of(image, size)
    emulator.act[line * size : line * size + lines.size] = lines.ravel().view(np.uint8)


def get(emulator: Emulator, line: int, shape: tuple[int, int, int]) -> Int8:
    size = emulator.config.line_bytes
    pitch = -(-shape[2] // size) * size
    count = shape[0] * shape[1] * pitch
    data = emulator.act[line * size : line * size + count].view(np.int8)
    return data.reshape(shape[0], shape[1], pitch)[:, :, : shape[2]]


@given(
    x=st.integers(-(2**31), 2**31 - 1),
    multiplier=st.integers(0, 2**31 - 1),
    shift=st.integers(-31, 31),
)
@example(x=-(2**31), multiplier=2**31 - 1, shift=0)
@example(x=-3, multiplier=2**30, shift=-1)
@example(x=-1, multiplier=2**30, shift=0)
@example(x=-5, multiplier=3 << 28, shift=-3)
@example(x=-6, multiplier=2**30, shift=-1)
@settings(max_examples=400, deadline=None)
def test_requantise_is_the_published_arithmetic(x: int, multiplier: int, shift: int) -> None:
    x_left = (x << max(shift, 0)) + 2**31
    x_left = x_left % 2**32 - 2**31
    right = max(-shift, 0)
    product = x_left * multiplier
    nudge = 2**30 if product >= 0 else 1 - 2**30
    high = abs(product + nudge) // 2**31 * (1 if product + nudge >= 0 else -1)
    # Half away from zero, in exact rational arithmetic.
    double = int(math.copysign((2 * abs(high) + 2**right) // 2 ** (right + 1), high))
    single = (product + 2 ** (30 + right)) // 2 ** (31 + right)  # half up
    values = np.array([x], np.int64)
    assert int(requantise(values, multiplier, shift, Rounding.DOUBLE)[0]) == double
    assert int(requantise(values, multiplier, shift, Rounding.SINGLE)[0]) == single


@pytest.mark.parametrize("name", ["nano", "base", "large"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("subtract", [False, True])
def test_add_and_sub_equal_the_golden_model(name: str, seed: int, subtract: bool) -> None:
    config = preset(name)
    rng = np.random.default_rng(seed)
    shape = (4, 5, config.cols + 3)
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for _ in range(2))
    a_scale, b_scale, out_scale = (float(v) for v in rng.uniform(0.01, 0.2, 3))
    a_zero, b_zero, out_zero = (int(v) for v in rng.integers(-128, 128, 3))
    function = golden.sub if subtract else golden.add
    expected = function(
        a,
        b,
        a_scale=a_scale,
        a_zero_point=a_zero,
        b_scale=b_scale,
        b_zero_point=b_zero,
        out_scale=out_scale,
        out_zero_point=out_zero,
        activation="RELU",
    )
    a32, b32, o32 = (float(np.float32(v)) for v in (a_scale, b_scale, out_scale))
    twice = 2 * max(a32, b32)
    (mult_a, shift_a), (mult_b, shift_b), (mult_o, shift_o) = (
        golden.quantize_multiplier(real)
        for real in (a32 / twice, b32 / twice, twice / ((1 << 20) * o32))
    )
    low, high = golden.activation_range("RELU", out_scale, out_zero)
    emulator = Emulator(config)
    put(emulator, 3, a)
    put(emulator, 100, b)
    run(
        emulator,
        Vector(
            op=VectorOp.ADD,
            n_oc=2,
            out_h=4,
            out_w=5,
            a_addr=3,
            a_y=10,
            a_x=2,
            b_addr=100,
            b_y=10,
            b_x=2,
            d_addr=200,
            d_y=10,
            d_x=2,
            zero_a=a_zero,
            zero_b=b_zero,
            zero_out=out_zero,
            act_min=low,
            act_max=high,
            mult_a=mult_a,
            shift_a=-shift_a,
            mult_b=-mult_b if subtract else mult_b,
            shift_b=-shift_b,
            mult_o=mult_o,
            shift_o=-shift_o,
        ),
    )
    np.testing.assert_array_equal(get(emulator, 200, shape), expected)


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (5, 4), (1, 7)])
@pytest.mark.parametrize("maximum", [False, True])
def test_pooling_equals_the_golden_model(size: tuple[int, int], maximum: bool) -> None:
    config = preset("base")
    rng = np.random.default_rng(5)
    shape = (9, 11, 13)
    image = rng.integers(-128, 128, shape).astype(np.int8)
    function = golden.max_pool2d if maximum else golden.average_pool2d
    expected = function(
        image[None], size=size, strides=(2, 1), padding="VALID", scale=0.1, zero_point=3
    )[0]
    count = size[0] * size[1]
    shift = (count - 1).bit_length()
    emulator = Emulator(config)
    put(emulator, 1, image)
    run(
        emulator,
        Vector(
            op=VectorOp.MAX if maximum else VectorOp.AVERAGE,
            n_oc=2,
            out_h=expected.shape[0],
            out_w=expected.shape[1],
            n_ky=size[0],
            n_kx=size[1],
            a_addr=1,
            a_y=2 * 22,
            a_x=2,
            a_ky=22,
            a_kx=2,
            d_addr=1000,
            d_y=2 * expected.shape[1],
            d_x=2,
            act_min=-128,
            act_max=127,
            mult_o=-(-(1 << (30 + shift)) // count),
            shift_o=shift,
            half=count // 2,
        ),
    )
    np.testing.assert_array_equal(get(emulator, 1000, expected.shape), expected)


def test_table_looks_up_each_lane_in_its_own_table() -> None:
    config = preset("base")
    rng = np.random.default_rng(6)
    image = rng.integers(-128, 128, (1, 64, 8)).astype(np.int8)
    emulator = Emulator(config)
    emulator.table[:] = rng.integers(0, 256, emulator.table.shape)
    put(emulator, 0, image)
    run(emulator, Vector(op=VectorOp.TABLE, n_oc=1, out_h=1, out_w=64, a_x=1, d_addr=64, d_x=1))
    result = get(emulator, 64, (1, 64, 8))
    for lane in range(8):
        for x in range(64):
            entry = emulator.table[int(image[0, x, lane]) & 255, lane]
            assert result[0, x, lane] == np.array(entry).view(np.int8)


@pytest.mark.parametrize("channels", [2, 10, 16, 257])
@pytest.mark.parametrize("scale", [0.004, 0.1, 0.6])
def test_softmax_equals_the_golden_model(channels: int, scale: float) -> None:
    config = preset("base")
    rng = np.random.default_rng(7)
    image = rng.integers(-128, 128, (3, 1, channels)).astype(np.int8)
    image[1] = 40
    emulator = Emulator(config)
    table = golden.softmax_exp_table(scale)
    emulator.table[:, :4] = table.astype("<i4").view(np.uint8).reshape(256, 4)
    emulator.act[:] = 0x5A
    put(emulator, 4, image)
    pitch = -(-channels // 8)
    run(
        emulator,
        Softmax(channels=channels, n_rows=3, a_addr=4, a_y=pitch, d_addr=500, d_y=pitch + 1),
    )
    expected = golden.softmax(image, x_scale=scale)
    for row in range(3):
        start = (500 + row * (pitch + 1)) * 8
        result = emulator.act[start : start + channels].view(np.int8)
        np.testing.assert_array_equal(result, expected[row, 0])
        # What lies behind the vector is left alone.
        assert (emulator.act[start + channels : start + 8 * (pitch + 1)] == 0x5A).all()


def fully_connected(config: NpuConfig, n_ic: int, n_oc: int) -> Conv:
    return Conv(
        mode=Mode.WINDOW,
        in_h=1,
        row_bytes=n_ic * config.rows,
        out_w=1,
        out_h=1,
        tile_rows=1,
        row_len=1,
        stride_x=1,
        n_ky=1,
        n_kx=1,
        n_ic=n_ic,
        step_ic=config.rows,
        n_oc=n_oc,
    )


def test_fully_connected_then_add_in_one_command() -> None:
    """REQUANT_ADD is fully connected (single rounding) followed by ADD, bit for bit."""
    config = preset("base")
    rng = np.random.default_rng(8)
    x = rng.integers(-128, 128, (1, 32)).astype(np.int8)
    w = rng.integers(-127, 128, (24, 32)).astype(np.int8)
    bias = rng.integers(-5000, 5000, 24).astype(np.int32)
    other = rng.integers(-128, 128, (1, 24)).astype(np.int8)
    middle = golden.fully_connected(
        x,
        w,
        bias,
        x_scale=0.05,
        x_zero_point=7,
        w_scales=0.01,
        out_scale=0.25,
        out_zero_point=-3,
        activation="RELU",
    )
    expected = golden.add(
        middle,
        other,
        a_scale=0.25,
        a_zero_point=-3,
        b_scale=0.125,
        b_zero_point=11,
        out_scale=0.4,
        out_zero_point=1,
    )
    multipliers, shifts = golden.channel_multipliers(0.05, [0.01], 0.25)
    mult_o, shift_o = golden.quantize_multiplier(0.5 / ((1 << 20) * float(np.float32(0.4))))
    folded = (bias - 7 * w.astype(np.int64).sum(axis=1)).astype("<i4")
    emulator = Emulator(config)
    emulator.act[:32] = x.view(np.uint8)[0]
    put(emulator, 16, other.reshape(1, 1, 24))
    for oc in range(3):
        lines = w[8 * oc : 8 * oc + 8].T
        emulator.wgt[32 * oc : 32 * oc + 32] = lines
        block = folded[8 * oc : 8 * oc + 8].tobytes()
        block += np.full(8, multipliers.ravel()[0], "<i4").tobytes()
        block += np.full(8, shifts.ravel()[0], np.int8).tobytes()
        start = (2 + 9 * oc) * 8
        emulator.param[start : start + 72] = np.frombuffer(block, np.uint8)
    low, high = golden.activation_range("RELU", 0.25, -3)
    run(
        emulator,
        fully_connected(config, 4, 3),
        Vector(
            op=VectorOp.REQUANT_ADD,
            rounding=Rounding.SINGLE,
            n_oc=3,
            out_h=1,
            out_w=1,
            tile_rows=1,
            b_addr=16,
            d_addr=40,
            param_addr=2,
            zero_a=-3,
            zero_b=11,
            zero_out=1,
            mid_min=low,
            mid_max=high,
            act_min=-128,
            act_max=127,
            mult_a=1 << 30,
            mult_b=1 << 30,
            shift_b=1,
            mult_o=mult_o,
            shift_o=-shift_o,
        ),
    )
    np.testing.assert_array_equal(get(emulator, 40, (1, 1, 24))[0], expected)


SHAPE = (4, 5, 11)
ENDS = np.array([-128, 127], np.int8)


def on_the_emulator(name: str, a: Int8, b: Int8, **fields: int) -> Int8:
    """Run a command of two tensors; the second one may have one channel for all."""
    emulator = Emulator(preset(name))
    lines = -(-SHAPE[2] // emulator.config.line_bytes)
    put(emulator, 3, a)
    put(emulator, 100, b)
    spread = b.shape[2] == 1
    pitch = 1 if spread else lines
    places = {"a_addr": 3, "b_addr": 100, "d_addr": 200, "b_y": 5 * pitch, "b_x": pitch}
    strides = {f"{name}_{axis}": n * lines for name in "ad" for axis, n in (("y", 5), ("x", 1))}
    run(
        emulator,
        Vector(n_oc=lines, out_h=4, out_w=5, b_oc=int(spread), **places, **strides, **fields),
    )
    return get(emulator, 200, SHAPE)


def two_tensors(rng: np.random.Generator, *, spread: bool) -> tuple[Int8, Int8]:
    shapes = SHAPE, (*SHAPE[:2], 1 if spread else SHAPE[2])
    a, b = (rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes)
    a[0, :2, :2], b[0, :2, 0] = ENDS, ENDS
    return a, b


@pytest.mark.parametrize("name", ["tiny", "large"])
@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("real", [0.003, 0.9, 1.0, 37.0, 255.9])
def test_mul_equals_the_golden_model(name: str, spread: bool, real: float) -> None:
    rng = np.random.default_rng(7)
    a, b = two_tensors(rng, spread=spread)
    zeros = [int(zero) for zero in rng.integers(-128, 128, 3)]
    mantissa, shift = golden.quantize_multiplier(float(np.float32(real)))
    left = max(shift, 0)
    result = on_the_emulator(
        name, a, b, op=VectorOp.MUL, zero_a=zeros[0], zero_b=zeros[1], zero_out=zeros[2],
        mult_b=1 << 30, shift_b=8 - left, mult_o=mantissa, shift_o=left - shift,
        act_min=-100, act_max=127,
    )  # fmt: skip
    expected = golden.mul(
        a, b, a_scale=real, a_zero_point=zeros[0], b_scale=1.0, b_zero_point=zeros[1],
        out_scale=1.0, out_zero_point=zeros[2],
    )  # fmt: skip
    np.testing.assert_array_equal(result, np.maximum(expected, -100))


@pytest.mark.parametrize("name", ["tiny", "large"])
@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("scales", [(0.1, 0.03, 0.02), (129 / 256, 1.0, 0.3), (0.2, 0.2, 0.5)])
def test_squared_difference_equals_the_golden_model(
    name: str, spread: bool, scales: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(8)
    a, b = two_tensors(rng, spread=spread)
    zeros = [int(zero) for zero in rng.integers(-128, 128, 3)]
    scale_a, scale_b, out = (float(np.float32(scale)) for scale in scales)
    common = 2 * max(scale_a, scale_b)
    (mult_a, shift_a), (mult_b, shift_b), (mult_o, shift_o) = (
        golden.quantize_multiplier(real)
        for real in (scale_a / common, scale_b / common, common**2 / ((1 << 14) * out))
    )
    sign = -1 if scale_a >= scale_b else 1
    result = on_the_emulator(
        name, a, b, op=VectorOp.SQUARED_DIFFERENCE, zero_a=zeros[0], zero_b=zeros[1],
        zero_out=zeros[2], mult_a=sign * mult_a, shift_a=-shift_a, mult_b=-sign * mult_b,
        shift_b=-shift_b, mult_o=mult_o, shift_o=-shift_o, act_min=-128, act_max=127,
    )  # fmt: skip
    expected = golden.squared_difference(
        a, b, a_scale=scale_a, a_zero_point=zeros[0], b_scale=scale_b, b_zero_point=zeros[1],
        out_scale=out, out_zero_point=zeros[2],
    )  # fmt: skip
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("least", [False, True])
def test_the_greater_and_the_lesser_of_two(spread: bool, least: bool) -> None:
    a, b = two_tensors(np.random.default_rng(9), spread=spread)
    limits = {"act_min": -128, "act_max": 127}
    result = on_the_emulator("base", a, b, op=VectorOp.MAX, pair=1, least=int(least), **limits)
    np.testing.assert_array_equal(result, (golden.minimum if least else golden.maximum)(a, b))
