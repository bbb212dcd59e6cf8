"""The golden model against the interpreter it is defined by: every tensor, bit for bit.

The reference is ``ai_edge_litert`` with its BUILTIN_REF kernels (the default ones round
differently).  Seeds are fixed and named in every failure.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.sim.golden import operators as golden
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.frontends.tflite.arithmetic import arithmetic_of
from celosia.sw.compiler.ir import DType, Graph, Origin, SourceOp, Tensor
from celosia.sw.compiler.ops.registry import SUPPORTED
from celosia.sw.reference.golden import OPERATORS as KNOWN
from celosia.sw.reference.golden import GoldenModel, UnsupportedModelError

from tests.kit.places import KWS_INPUT, benchmark_input, benchmark_model
from tests.kit.random_models import OPERATORS, random_network, random_operator
from tests.kit.references import assert_every_tensor_equal

MODELS = ("ad01", "kws", "resnet8", "sww", "vww_96")

Array = npt.NDArray[Any]


# ---------------------------------------------------------------------- operators


@pytest.mark.parametrize("code", OPERATORS)
def test_operator_equals_reference(code: str) -> None:
    compared = 0
    for seed in range(240):
        case = random_operator(code, np.random.default_rng([seed, 1]))
        if case.inputs[0].ndim > 2 and len(case.inputs[0]) > 1:
            continue  # a batch, which the reader refuses
        assert_every_tensor_equal(case.model, case.inputs, what=f"{code}, seed {seed}")
        compared += 1
    assert compared >= 100


def test_network_equals_reference() -> None:
    codes = ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D", "LEAKY_RELU")
    for seed in range(60):
        case = random_network(np.random.default_rng([seed, 2]), depth=5, codes=codes)
        assert_every_tensor_equal(case.model, case.inputs, what=f"network, seed {seed}")


@pytest.mark.parametrize("code", ["ADD", "SUB", "MUL"])
def test_every_pair_of_values_equals_reference(code: str) -> None:
    values = np.arange(-128, 128).astype(np.int8)
    shape = (1, 256, 256, 1)
    inputs = [np.repeat(values, 256).reshape(shape), np.tile(values, 256).reshape(shape)]
    for seed in range(25):
        rng = np.random.default_rng([seed, 3])
        # Powers of two and half-integer ratios put many results exactly on a rounding tie.
        scale_a, scale_b = 2.0 ** rng.integers(-6, 1, 2) * rng.choice([1, 1.25, 1.5], 2)
        ratio = (2 * rng.integers(0, 64) + 1) / 64
        out_scale = (
            scale_a * scale_b * 64 / ratio if code == "MUL" else max(scale_a, scale_b) / ratio
        )
        zero_points = [int(z) for z in rng.integers(-128, 128, 3)]
        builder = ModelBuilder()
        a = builder.input(shape, scale=scale_a, zero_point=zero_points[0])
        b = builder.input(shape, scale=scale_b, zero_point=zero_points[1])
        operator = {"ADD": builder.add, "SUB": builder.sub, "MUL": builder.mul}[code]
        operator(a, b, scale=out_scale, zero_point=zero_points[2])
        assert_every_tensor_equal(builder.finish(), inputs, what=f"{code}, seed {seed}")


@pytest.mark.parametrize("code", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_accumulators_next_to_a_rounding_tie(code: str, per_channel: bool) -> None:
    """Set the accumulators, through the bias, to both sides of every tie of the output."""
    for seed in range(40):
        rng = np.random.default_rng([seed, 4])
        ties = np.arange(-127, 127) + 0.5
        # The multiplier: from accumulators of a few bits to accumulators near 31 bits.
        real = 2.0 ** rng.uniform(-22, 1)
        if seed % 4 == 0:
            real = 2.0 ** int(rng.integers(-20, 2))
        scale, w_scale = 0.5 ** int(rng.integers(0, 6)), float(np.float32(rng.uniform(0.01, 1)))
        out_scale = float(np.float32(scale * w_scale / real))
        nearest = np.round(ties * out_scale / (scale * w_scale)).astype(np.int64)
        bias = (nearest[:, None] + np.arange(-1, 2)).reshape(-1).astype(np.int32)
        channels = bias.size
        w_scales = np.full(channels, w_scale, np.float32) if per_channel else w_scale
        zero_point, out_zero_point = (int(z) for z in rng.integers(-128, 128, 2))
        quantisation: dict[str, Any] = {
            "w_scales": w_scales,
            "scale": out_scale,
            "zero_point": out_zero_point,
        }
        builder = ModelBuilder()
        if code == "FULLY_CONNECTED":
            x = builder.input((1, 1), scale=scale, zero_point=zero_point)
            builder.fully_connected(x, np.zeros((channels, 1), np.int8), bias, **quantisation)
        elif code == "CONV_2D":
            x = builder.input((1, 1, 1, 1), scale=scale, zero_point=zero_point)
            builder.conv2d(x, np.zeros((channels, 1, 1, 1), np.int8), bias, **quantisation)
        else:
            x = builder.input((1, 1, 1, 1), scale=scale, zero_point=zero_point)
            weights = np.zeros((1, 1, 1, channels), np.int8)
            builder.depthwise_conv2d(x, weights, bias, **quantisation)
        inputs = [np.zeros(x.shape, np.int8)]
        assert_every_tensor_equal(builder.finish(), inputs, what=f"{code}, seed {seed}")


@pytest.mark.parametrize("alpha", [-0.5, -0.25, -0.375, 0.5, 0.0, 1.5])
def test_leaky_relu_on_rounding_ties(alpha: float) -> None:
    codes = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    builder = ModelBuilder()
    x = builder.input(codes.shape, scale=1.0, zero_point=30)
    builder.leaky_relu(x, alpha=alpha, scale=1.0, zero_point=-10)
    assert_every_tensor_equal(builder.finish(), [codes], what=f"alpha {alpha}")


def test_grouped_convolution_equals_reference() -> None:
    rng = np.random.default_rng(5)
    builder = ModelBuilder()
    x = builder.input((1, 6, 5, 8), scale=0.1, zero_point=-7)
    weights = rng.integers(-127, 128, (6, 3, 3, 4), dtype=np.int8)
    builder.conv2d(x, weights, None, w_scales=0.02, scale=1.5, zero_point=3)
    inputs = [rng.integers(-128, 128, x.shape, dtype=np.int8)]
    assert_every_tensor_equal(builder.finish(), inputs, what="grouped convolution")


# ---------------------------------------------------------------------- whole models


@pytest.mark.parametrize("name", MODELS)
def test_mlperf_tiny_model_on_random_inputs(name: str) -> None:
    model = benchmark_model(name).read_bytes()
    rng = np.random.default_rng(6)
    shape = GoldenModel(model).inputs[0].shape
    batches = [[rng.integers(-128, 128, shape, dtype=np.int8)] for _ in range(3)]
    assert_every_tensor_equal(model, *batches, what=name)


def quantised(real: Array, model: GoldenModel) -> Array:
    """Quantise real input values for the model's first input."""
    info = model.inputs[0]
    codes = np.clip(np.round(real / info.scale) + info.zero_point, -128, 127)
    result: Array = codes.astype(np.int8).reshape(info.shape)
    return result


def test_kws_on_a_real_input() -> None:
    model = benchmark_model("kws").read_bytes()
    golden_model = GoldenModel(model)
    window = np.load(KWS_INPUT).reshape(golden_model.inputs[0].shape)
    assert_every_tensor_equal(model, [window], what="kws")
    result = golden_model.run([window])[golden_model.outputs[0].name]
    expected = np.full((1, 12), -128, np.int8)
    expected[0, 5] = 127
    np.testing.assert_array_equal(result, expected)


def test_vww_on_a_real_input() -> None:
    model = benchmark_model("vww_96").read_bytes()
    grey = np.load(benchmark_input("vww_gray_float.npy")).reshape(96, 96, 1)
    image = quantised((np.repeat(grey, 3, axis=2) + 1) / 2, GoldenModel(model))
    assert_every_tensor_equal(model, [image], what="vww")


def test_ad01_on_real_inputs() -> None:
    model = benchmark_model("ad01").read_bytes()
    windows = np.load(benchmark_input("ad_windows_float.npy"))
    batches = [[quantised(window, GoldenModel(model))] for window in windows]
    assert_every_tensor_equal(model, *batches, what="ad01")


def test_sww_on_real_inputs() -> None:
    model = benchmark_model("sww").read_bytes()
    golden_model = GoldenModel(model)
    with np.load(benchmark_input("sww_specs_float.npz")) as archive:
        specs, labels = archive["specs"], archive["labels"]
    batches = [[quantised(spec, golden_model)] for spec in specs]
    assert_every_tensor_equal(model, *batches, what="sww")
    output = golden_model.outputs[0].name
    classes = [int(np.argmax(golden_model.run(inputs)[output])) for inputs in batches]
    assert sum(np.asarray(classes) == labels) == 41  # what the reference gets right


# ---------------------------------------------------------------------- arithmetic


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def half_away(value: Fraction) -> int:
    return half_up(value) if value >= 0 else -half_up(-value)


def test_high_mul_rounds_halves_up_and_saturates() -> None:
    rng = np.random.default_rng(7)
    limits = [-(1 << 31), -(1 << 31) + 1, -(1 << 30), -1, 0, 1, 1 << 30, (1 << 31) - 1]
    numbers = np.array(limits + list(rng.integers(-(1 << 31), 1 << 31, 60)), np.int64)
    for a in numbers:
        expected = [half_up(Fraction(int(a) * int(b), 1 << 31)) for b in numbers]
        result = golden.saturating_rounding_doubling_high_mul(a, numbers)
        np.testing.assert_array_equal(result, np.minimum(expected, (1 << 31) - 1))


def test_rounding_divide_rounds_halves_away_from_zero() -> None:
    numbers = np.arange(-70, 71)
    for exponent in range(8):
        expected = [half_away(Fraction(int(n), 1 << exponent)) for n in numbers]
        np.testing.assert_array_equal(golden.rounding_divide_by_pot(numbers, exponent), expected)


@pytest.mark.parametrize("real", [0.1, 0.375, 2.0**-12, 0.9, 1.7])
def test_roundings_are_what_they_say(real: float) -> None:
    mantissa, shift = golden.quantize_multiplier(real)
    accumulators = np.arange(-4000, 4001)
    exact = [int(a) * Fraction(mantissa) * Fraction(2) ** (shift - 31) for a in accumulators]

    def rounded(rounding: golden.Rounding) -> Array:
        return golden.multiply_by_quantized_multiplier(accumulators, mantissa, shift, rounding)

    np.testing.assert_array_equal(rounded("single"), [half_up(e) for e in exact])
    np.testing.assert_array_equal(rounded("single_away"), [half_away(e) for e in exact])
    left, right = max(shift, 0), max(-shift, 0)
    high = [half_up((int(a) << left) * Fraction(mantissa, 1 << 31)) for a in accumulators]
    twice = [half_away(Fraction(h, 1 << right)) for h in high]
    np.testing.assert_array_equal(rounded("double"), twice)


def test_quantize_multiplier_is_the_nearest_mantissa() -> None:
    rng = np.random.default_rng(8)
    for real in [*(2.0 ** rng.uniform(-31, 20, 200)), 1.0, 0.5, 1 - 2.0**-40]:
        mantissa, shift = golden.quantize_multiplier(float(real))
        assert 1 << 30 <= mantissa < 1 << 31
        error = abs(Fraction(mantissa) * Fraction(2) ** (shift - 31) - Fraction(float(real)))
        assert error <= Fraction(2) ** (shift - 32)
    assert golden.quantize_multiplier(0.0) == (0, 0)
    assert golden.quantize_multiplier(2.0**-40) == (0, 0)
    with pytest.raises(ValueError, match="finite"):
        golden.quantize_multiplier(math.inf)


@pytest.mark.parametrize("scale", [0.004, 0.0303, 0.1447, 1.0])
def test_softmax_table_is_the_exponential(scale: float) -> None:
    table = golden.softmax_exp_table(scale)
    _, _, diff_min = golden.softmax_scaling(scale)
    exact = np.exp(-np.arange(256) * scale)
    counted = np.arange(256) <= -diff_min
    assert table.dtype == np.int32
    assert table[0] == 2**31 - 1
    np.testing.assert_array_equal(table[~counted], 0)
    np.testing.assert_allclose(table[counted] / 2**31, exact[counted], atol=2e-7)
    assert np.all(np.diff(table) <= 0)


def test_softmax_reciprocal_is_the_reciprocal() -> None:
    rng = np.random.default_rng(9)
    for total in [1 << 19, (1 << 20) - 1, *rng.integers(1 << 19, 1 << 31, 200)]:
        scale, bits = golden.softmax_reciprocal(int(total))
        product = Fraction(int(total), 1 << 19) * Fraction(scale, 1 << 31) / Fraction(2) ** bits
        assert abs(product - 1) < Fraction(1, 1 << 27)
    with pytest.raises(ValueError, match="positive"):
        golden.softmax_reciprocal(0)


def test_same_padding_puts_the_odd_element_after() -> None:
    assert golden.same_padding(10, 3, 2) == (0, 1)
    assert golden.same_padding(9, 3, 2) == (1, 1)
    assert golden.window_geometry(10, 4, 1, "SAME") == (10, 1, 2)
    assert golden.window_geometry(10, 4, 3, "VALID") == (3, 0, 0)
    with pytest.raises(ValueError, match="does not fit"):
        golden.window_geometry(3, 4, 1, "VALID")


# ---------------------------------------------------------------------- the interface


def small_model() -> bytes:
    builder = ModelBuilder()
    x = builder.input((1, 4), scale=0.1, zero_point=2, name="samples")
    builder.softmax(x)
    return builder.finish()


def test_model_describes_its_inputs_and_outputs(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(small_model())
    model = GoldenModel(path)
    info = model.inputs[0]
    assert (info.name, info.shape, info.dtype, info.zero_point) == ("samples", (1, 4), np.int8, 2)
    assert info.scale == np.float32(0.1)
    values = np.array([[1, 2, 3, 4]], np.int8)
    by_name = model.run({"samples": values})
    assert set(by_name) == {"samples", model.outputs[0].name}
    by_index = model.run_by_index([values])
    np.testing.assert_array_equal(by_index[model.outputs[0].index], by_name[model.outputs[0].name])


def test_unsupported_operator_is_named() -> None:
    builder = ModelBuilder()
    x = builder.input((1, 4), scale=0.1)
    builder.operator("FLOOR", [x], (1, 4), scale=0.1)
    with pytest.raises(UnsupportedModelError, match="FLOOR"):
        GoldenModel(builder.finish())


def test_it_computes_whatever_operator_the_compiler_accepts() -> None:
    # Those that the compiler evaluates itself, and those that only lead to a RESHAPE's operand.
    folded = {"DEQUANTIZE", "SHAPE", "STRIDED_SLICE", "PACK"}
    assert not {*SUPPORTED, *folded} - set(KNOWN)


def test_operators_that_nobody_reads_are_not_looked_at() -> None:
    builder = ModelBuilder()
    x = builder.input((1, 4), scale=0.1)
    y = builder.relu(x, scale=0.1)
    builder.operator("FLOOR", [x], (1, 4), scale=0.1)
    model = GoldenModel(builder.finish([y]))
    assert [op.name for op in model.operators] == ["RELU"]
    assert set(model.run_by_index([np.zeros((1, 4), np.int8)])) == {x.index, y.index}


def test_arithmetic_on_a_shape_is_done_and_not_needed_for_a_reshape() -> None:
    """SHAPE, STRIDED_SLICE and PACK are how Keras writes Flatten; the result's shape is static."""
    tensors = {
        "x": Tensor(name="x", shape=(1, 2, 3), dtype=DType.INT8, index=0, scale=0.1),
        "shape": Tensor(name="shape", shape=(3,), dtype=DType.INT32, index=1),
        **{
            name: Tensor(
                name=name,
                shape=(1,),
                dtype=DType.INT32,
                index=index,
                data=np.array([value], np.int32),
            )
            for index, (name, value) in enumerate(
                (("first", 1), ("last", 2), ("step", 1), ("three", 3)), start=2
            )
        },
        "middle": Tensor(name="middle", shape=(), dtype=DType.INT32, index=6),
        "packed": Tensor(name="packed", shape=(2,), dtype=DType.INT32, index=7),
        "y": Tensor(name="y", shape=(2, 3), dtype=DType.INT8, index=8, scale=0.1),
    }
    tensors["three"] = replace(tensors["three"], shape=(), data=np.array(3, np.int32))
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask")
    masks = {**dict.fromkeys(names, 0), "shrink_axis_mask": 1}
    chain = [
        operator(0, "SHAPE", ("x",), "shape"),
        operator(1, "STRIDED_SLICE", ("shape", "first", "last", "step"), "middle", masks),
        operator(2, "PACK", ("middle", "three"), "packed", {"axis": 0, "values_count": 2}),
        operator(3, "RESHAPE", ("x", "packed"), "y"),
    ]
    graph = Graph(name="flatten", tensors=tensors, ops=chain, inputs=["x"], outputs=["y"])
    x = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    model = GoldenModel(graph)
    assert [op.name for op in model.operators] == ["RESHAPE"]
    np.testing.assert_array_equal(model.run([x])["y"], x.reshape(2, 3))
    whole = GoldenModel(replace(graph, outputs=["packed", "y"]))
    assert len(whole.operators) == 4
    np.testing.assert_array_equal(whole.run([x])["packed"], [2, 3])
    unread = replace(graph, outputs=["packed"], ops=[chain[0], replace(chain[1], options={})])
    with pytest.raises(UnsupportedModelError, match="masks"):
        GoldenModel(replace(unread, outputs=["middle"])).run([x])


def operator(
    number: int, name: str, operands: tuple[str, ...], result: str, options: Any = None
) -> SourceOp:
    return SourceOp(
        origin=Origin("tflite", number, name),
        name=name,
        operands=operands,
        results=(result,),
        arithmetic=arithmetic_of(name),
        options=options or {},
    )


def test_something_else_than_a_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="TFL3"):
        GoldenModel(b"not a model at all")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "1 inputs"),
        ([np.zeros((1, 5), np.int8)], "samples"),
        ([np.zeros((1, 4), np.int32)], "int32"),
        ({"other": np.zeros((1, 4), np.int8)}, "other"),
    ],
)
def test_wrong_inputs_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GoldenModel(small_model()).run(inputs)
