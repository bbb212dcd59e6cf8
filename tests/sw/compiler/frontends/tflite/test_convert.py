"""What `load` makes of sound models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.errors import CompileError, ModelError, UnsupportedError
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import DType, Graph, SourceOp, Tensor, hwc
from celosia.sw.compiler.verify import verify

from tests.kit.places import benchmark_model


def weights(*shape: int) -> Any:
    return np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)


def small_model() -> bytes:
    b = ModelBuilder()
    x = b.input((1, 6, 6, 2), scale=0.05, zero_point=-3, name="image")
    y = b.conv2d(
        x, weights(4, 3, 3, 2), np.arange(4, dtype=np.int32), w_scales=[0.1, 0.2, 0.3, 0.4],
        scale=0.7, zero_point=5, strides=(2, 1), padding="VALID", activation="RELU6",
    )  # fmt: skip
    b.fully_connected(y, weights(3, 32), w_scales=0.02, scale=0.5)
    return b.finish()


def test_operators_tensors_and_options_are_faithful() -> None:
    graph = load(small_model())
    assert [op.label for op in graph.ops] == ["CONV_2D #0", "FULLY_CONNECTED #1"]
    conv, dense = graph.ops
    assert isinstance(conv, SourceOp)
    assert isinstance(dense, SourceOp)
    assert dict(conv.options) == {
        "padding": "VALID",
        "stride_h": 2,
        "stride_w": 1,
        "fused_activation_function": "RELU6",
        "dilation_h_factor": 1,
        "dilation_w_factor": 1,
    }
    assert graph.inputs == ["image"]
    image = graph.tensors["image"]
    assert (image.shape, image.dtype, image.zero_point) == ((1, 6, 6, 2), DType.INT8, -3)
    assert image.scale == float(np.float32(0.05))
    assert image.data is None
    kernel = graph.tensors[conv.inputs[1]]
    assert kernel.scale is None
    assert kernel.channel_axis == 0
    assert kernel.channel_scales is not None
    np.testing.assert_array_equal(kernel.channel_scales, np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    assert kernel.data is not None
    np.testing.assert_array_equal(kernel.data, weights(4, 3, 3, 2))
    assert not kernel.data.flags.writeable
    assert dense.operands[2] is None


def test_path_and_bytes_give_the_same_graph(tmp_path: Path) -> None:
    file = tmp_path / "tiny.tflite"
    file.write_bytes(small_model())
    graph = load(file)
    assert graph.name == "tiny"
    assert load(str(file), name="other").name == "other"
    assert list(load(small_model()).tensors) == list(graph.tensors)


def test_repeated_names_become_unique() -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.05, name="same")
    y = b.input((1, 4), scale=0.05, name="same")
    b.add(x, y, scale=0.1)
    graph = load(b.finish())
    assert len(set(graph.inputs)) == 2
    assert graph.inputs[0] == "same"
    assert [graph.tensors[name].index for name in graph.inputs] == [0, 1]


@pytest.mark.parametrize("name", ["ad01", "kws", "resnet8", "vww_96", "sww"])
def test_benchmark_models_load(name: str) -> None:
    path = benchmark_model(name)
    graph = load(path)
    assert len(graph.inputs) == len(graph.outputs) == 1
    constants = [t for t in graph.tensors.values() if t.is_constant]
    assert sum(t.size_bytes for t in constants) < path.stat().st_size
    written = [name for op in graph.ops for name in op.outputs]
    assert graph.tensors.keys() == {t.name for t in constants} | {*written, *graph.inputs}


@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((1, 5, 6, 7), (5, 6, 7)),
        ((2, 5, 6, 7), (10, 6, 7)),
        ((3, 4), (3, 1, 4)),
        ((4,), (1, 1, 4)),
        ((), (1, 1, 1)),
        ((1, 3, 4), (3, 1, 4)),
    ],
)
def test_hwc_view(shape: tuple[int, ...], view: tuple[int, int, int]) -> None:
    assert hwc(shape) == view


# ---------------------------------------------------------------------- the verifier


def with_tensor(graph: Graph, name: str, **changes: Any) -> Graph:
    tensor: Tensor = replace(graph.tensors[name], **changes)
    return replace(graph, tensors={**graph.tensors, name: tensor})


def test_verifier_accepts_a_sound_graph() -> None:
    verify(load(small_model()))


def test_verifier_refuses_reading_before_writing() -> None:
    graph = load(small_model())
    with pytest.raises(ModelError, match="before it is written"):
        verify(replace(graph, ops=graph.ops[::-1]))


def test_verifier_refuses_writing_twice() -> None:
    graph = load(small_model())
    with pytest.raises(ModelError, match="already has a value"):
        verify(replace(graph, ops=[graph.ops[0], *graph.ops]))


def test_verifier_refuses_asymmetric_weights() -> None:
    graph = load(small_model())
    name = graph.ops[1].inputs[1]
    with pytest.raises(UnsupportedError, match=r"of FULLY_CONNECTED #1 .* have zero point 3"):
        verify(with_tensor(graph, name, zero_point=3))


def test_verifier_refuses_a_wrong_bias_scale() -> None:
    graph = load(small_model())
    conv, dense = graph.ops
    # The convolutions of the reference do not look at it.
    verify(with_tensor(graph, conv.inputs[2], channel_scales=np.full(4, 0.5, np.float32)))
    bias = Tensor(name="bias", shape=(3,), dtype=DType.INT32, scale=1.0, data=np.zeros(3, np.int32))
    assert isinstance(dense, SourceOp)
    wrong = replace(
        graph,
        tensors={**graph.tensors, "bias": bias},
        ops=[conv, replace(dense, operands=(*dense.inputs[:2], "bias"))],
    )
    with pytest.raises(ModelError, match="bias scale of FULLY_CONNECTED #1"):
        verify(wrong)


def test_verifier_calls_a_misfiled_tensor_an_internal_error() -> None:
    graph = load(small_model())
    broken = replace(graph, tensors={**graph.tensors, "x": graph.tensors["image"]})
    with pytest.raises(CompileError, match="internal error"):
        verify(broken)


def test_errors_read_what_why_remedy() -> None:
    error = ModelError("cannot read model a.tflite", "it is empty", "convert it again", file="a")
    assert str(error) == "cannot read model a.tflite: it is empty. Convert it again"
    assert (error.cause, error.remedy, error.file) == ("it is empty", "convert it again", "a")
