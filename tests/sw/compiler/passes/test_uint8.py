"""uint8 models of TensorFlow 1: golden model and programs against the reference's uint8 kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from celosia.errors import UnsupportedError
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite import convert as frontend
from celosia.sw.compiler.ir import ConvOp, DType
from celosia.sw.compiler.lower import lower
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.reference.check import check_model
from celosia.sw.reference.golden import GoldenModel
from celosia.sw.runtime.session import Session

from tests.kit.random_unsigned import UNSIGNED_OPERATORS, random_unsigned
from tests.kit.references import assert_every_tensor_equal

SEEDS = 6
MEMORY_BYTES = 1 << 20
PRESETS = ("tiny", "base", "large")


@pytest.mark.parametrize("code", UNSIGNED_OPERATORS)
def test_golden_model_equals_the_reference(code: str) -> None:
    for seed in range(3 * SEEDS):
        case = random_unsigned(code, np.random.default_rng([seed, 31]))
        assert_every_tensor_equal(case.model, case.inputs, what=f"{code}, seed {seed}")


@pytest.mark.parametrize("code", UNSIGNED_OPERATORS)
def test_programs_equal_the_golden_model(code: str) -> None:
    wide = 0
    for seed in range(SEEDS):
        case = random_unsigned(code, np.random.default_rng([seed, 32]))
        config = preset(PRESETS[seed % len(PRESETS)])
        program = compile_model(case.model, config, keep_tensors=bool(seed % 2))
        golden = GoldenModel(case.model)
        want = golden.run(case.inputs)[golden.outputs[0].name]
        with EmuDevice(config, memory_bytes=MEMORY_BYTES) as device:
            result = Session(program, device).run(case.inputs)
        (got,) = result.outputs.values()
        np.testing.assert_array_equal(got, want, err_msg=f"{code}, seed {seed}", strict=True)
        ops = lower(frontend.load(case.model)).ops
        wide += any(isinstance(op, ConvOp) and bool(op.more_weights) for op in ops)
    if code in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        assert wide >= SEEDS // 2


@pytest.mark.parametrize("code", ["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_accumulators_next_to_a_rounding_tie(code: str) -> None:
    """Set the accumulators, through the bias, around every tie: the scales' product is a float."""
    for seed in range(8):
        rng = np.random.default_rng([seed, 33])
        scale, w_scale = (float(np.float32(v)) for v in rng.uniform((0.01, 0.001), (0.1, 0.01)))
        out_scale = float(np.float32(rng.uniform(200, 900)))
        ties = np.round((np.arange(2, 250) + 0.5) * out_scale / (scale * w_scale))
        around = (ties[:, None] + np.arange(-8, 9)).reshape(-1)
        bias = around[around < 2**31].astype(np.int32)
        channels = bias.size
        builder = ModelBuilder()
        shape = (1, 1) if code == "FULLY_CONNECTED" else (1, 1, 1, 1)
        kernel = {"CONV_2D": (channels, 1, 1, 1), "DEPTHWISE_CONV_2D": (1, 1, 1, channels)}
        x = builder.input(shape, scale=scale, zero_point=7, dtype=np.uint8)
        weights = np.full(kernel.get(code, (channels, 1)), 200, np.uint8)
        operands = [
            x,
            builder.constant(weights, scales=w_scale, zero_point=3),
            builder.constant(bias, scales=float(np.float32(scale * w_scale))),
        ]
        options = {
            "CONV_2D": ("Conv2DOptions", {"StrideH": 1, "StrideW": 1}),
            "DEPTHWISE_CONV_2D": (
                "DepthwiseConv2DOptions",
                {"StrideH": 1, "StrideW": 1, "DepthMultiplier": channels},
            ),
        }.get(code, ("FullyConnectedOptions", {}))
        builder.operator(
            code,
            operands,
            (*shape[:-1], channels),
            scale=out_scale,
            options=options,
            dtype=np.uint8,
        )
        values = np.full(shape, 7, np.uint8)
        assert_every_tensor_equal(builder.finish(), [values], what=f"{code}, seed {seed}")


def pools(zero_point: int) -> bytes:
    """Two pools behind one another: a tensor between them."""
    builder = ModelBuilder()
    x = builder.input((1, 6, 6, 3), scale=0.1, zero_point=zero_point, dtype=np.uint8)
    for size in (5, 4):
        fields = {"Padding": 1, "StrideH": 1, "StrideW": 1, "FilterHeight": 2, "FilterWidth": 2}
        fields["FusedActivationFunction"] = 1  # RELU: not below the zero point
        x = builder.operator(
            "MAX_POOL_2D",
            [x],
            (1, size, size, 3),
            scale=0.1,
            zero_point=zero_point,
            options=("Pool2DOptions", fields),
            dtype=np.uint8,
        )
    return builder.finish()


def test_every_tensor_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(pools(zero_point=100))
    values = np.random.default_rng(3).integers(0, 256, (1, 6, 6, 3)).astype(np.uint8)
    config = preset("base")
    program = compile_model(path, config)
    assert {info.dtype for info in (*program.inputs, *program.outputs)} == {"uint8"}
    inputs = [{program.inputs[0].name: values}]
    other = compile_model(pools(zero_point=240), config)
    with EmuDevice(config, memory_bytes=MEMORY_BYTES) as device:
        report = check_model(path, config, device, inputs)
        wrong = check_model(path, config, device, inputs, program=other)
    assert report.equal
    assert report.tensors == 2
    assert wrong.difference is not None
    assert wrong.difference.got >= 240


def test_lowered_graphs_have_no_uint8_tensors() -> None:
    case = random_unsigned("CONV_2D", np.random.default_rng(34))
    graph = lower(frontend.load(case.model))
    used = {name for op in graph.ops for name in (*op.inputs, *op.outputs)}
    assert {graph.tensors[name].dtype for name in used} == {DType.INT8}
    assert graph.interface is not None
    assert len(graph.interface.conversions) == 2


@pytest.mark.parametrize("code", ["ABS", "NEG", "EXP"])
def test_what_has_no_uint8_kernel_is_refused(code: str) -> None:
    builder = ModelBuilder()
    x = builder.input((1, 4), scale=0.1, zero_point=100, dtype=np.uint8)
    builder.operator(code, [x], x.shape, scale=0.1, zero_point=100, dtype=np.uint8)
    with pytest.raises(UnsupportedError, match="one of uint8 tensors"):
        lower(frontend.load(builder.finish()))
