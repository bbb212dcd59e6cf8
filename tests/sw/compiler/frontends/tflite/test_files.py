"""Unusual files that TFLite runs give equal results; others are named for what they are.

The expected values are the golden model's, of the same network written in the usual way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import celosia
import numpy as np
import pytest
from celosia.errors import CelosiaError, ModelError, UnsupportedError, printable
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.lower import lower
from celosia.sw.reference.golden import GoldenModel

RNG = np.random.default_rng(12)
WEIGHTS = RNG.integers(-128, 128, (8, 3, 3, 2)).astype(np.int8)
DENSE = RNG.integers(-128, 128, (8, 32)).astype(np.int8)
BIAS = RNG.integers(-3000, 3000, 8).astype(np.int32)
SCALES = tuple(float(s) for s in np.linspace(0.004, 0.011, 8))
CODES = tuple(range(-128, 128))


def check(unusual: bytes, usual: bytes) -> None:
    """Hold the emulator's results for one file against the golden model's for another."""
    golden = GoldenModel(usual)
    config = preset("tiny")
    program = compile_model(unusual, config)
    with celosia.open("emu", config) as device:
        for seed in range(3):
            rng = np.random.default_rng(seed)
            shapes = [info.shape for info in golden.inputs]
            arrays = [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
            names = [info.name for info in golden.inputs]
            result = device.run(program, dict(zip(names, arrays, strict=True)))
            tensors = golden.run(arrays)
            for info in golden.outputs:
                np.testing.assert_array_equal(result.outputs[info.name], tensors[info.name])


# ---------------------------------------------------------------------- operator codes


def unary(name: str, b: ModelBuilder) -> None:
    x = b.input((1, 1, 1, 256), scale=0.05, zero_point=-3)
    if name in ("RELU", "RELU6", "RELU_N1_TO_1"):
        b.relu(x, scale=0.04, zero_point=-100, kind=name)
    else:
        {"TANH": b.tanh, "LOGISTIC": b.logistic, "HARD_SWISH": b.hard_swish}[name](x)


@pytest.mark.parametrize(
    "name", ["RELU", "RELU6", "RELU_N1_TO_1", "TANH", "LOGISTIC", "HARD_SWISH"]
)
def test_operator_code_in_the_new_field_only(name: str) -> None:
    b = ModelBuilder()
    unary(name, b)
    assert load(b.finish(old_codes=False)).ops[0].origin.name == name
    check(b.finish(old_codes=False), b.finish())


@pytest.mark.parametrize("name", ["POW", "DIV", "FLOOR_MOD", "LOGICAL_OR"])
def test_code_in_the_new_field_only_is_not_taken_for_add(name: str) -> None:
    b = ModelBuilder()
    x, y = (b.input((1, 4), scale=0.1) for _ in range(2))
    b.operator(name, [x, y], (1, 4), scale=0.1)
    for old_codes in (True, False):
        with pytest.raises(UnsupportedError, match=rf"{name} #0 .*: the NPU does not have"):
            lower(load(b.finish(old_codes=old_codes)))


def test_pad_with_its_code_in_the_new_field_only() -> None:
    b = ModelBuilder()
    b.pad(b.input((1, 3, 3, 2), scale=0.1, zero_point=5), [(0, 0), (1, 2), (0, 1), (0, 0)])
    check(b.finish(old_codes=False), b.finish())


# ---------------------------------------------------------------------- weights and biases


def weighted(
    kind: str,
    *,
    bias_scales: Any = None,
    bias_axis: int = 0,
    bias_zero_point: int = 0,
    bias: Any = BIAS,
    weights_zero_point: int = 0,
    per_tensor: bool = False,
) -> bytes:
    """A layer of 8 channels whose bias has any parameters."""
    b = ModelBuilder()
    x = b.input((1, 4, 4, 8 if kind == "DEPTHWISE_CONV_2D" else 2), scale=0.05, zero_point=-3)
    options: tuple[str, dict[str, Any]]
    window = {"Padding": 0, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    data, axis, shape = WEIGHTS, 0, (1, 4, 4, 8)
    options = ("Conv2DOptions", window)
    if kind == "DEPTHWISE_CONV_2D":
        data, axis = np.ascontiguousarray(WEIGHTS[:, :, :, 0].transpose(1, 2, 0))[None], 3
        options = ("DepthwiseConv2DOptions", {**window, "DepthMultiplier": 1})
    if kind == "FULLY_CONNECTED":
        data, shape = DENSE, (1, 8)
        options = ("FullyConnectedOptions", {})
    scales: Any = 0.006 if per_tensor else SCALES
    w = b.constant(data, scales=scales, axis=axis, zero_point=weights_zero_point)
    if bias_scales is None:
        bias_scales = np.asarray(scales, np.float32) * np.float32(0.05)
    c = b.constant(bias, scales=bias_scales, axis=bias_axis, zero_point=bias_zero_point)
    b.operator(kind, [x, w, c], shape, scale=0.3, zero_point=7, options=options)
    return b.finish()


KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@pytest.mark.parametrize("axis", [3, 1, -1, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_axis_of_a_bias_is_its_only_one(kind: str, axis: int) -> None:
    check(weighted(kind, bias_axis=axis), weighted(kind))


@pytest.mark.parametrize(
    "scales", [(), tuple(300 * s for s in SCALES), (1e9,) * 8, (float("nan"),) * 8, (-0.1,) * 8]
)
@pytest.mark.parametrize("kind", KINDS)
def test_scale_of_a_bias_is_not_used(kind: str, scales: tuple[float, ...]) -> None:
    check(weighted(kind, bias_scales=scales), weighted(kind))
    if kind != "FULLY_CONNECTED" or not scales:
        per_tensor = weighted(kind, per_tensor=True)
        check(weighted(kind, bias_scales=scales, per_tensor=True), per_tensor)


def test_scale_of_the_bias_of_a_per_tensor_dense_layer_is_bounded_as_by_the_reference() -> None:
    kind, scale = "FULLY_CONNECTED", 0.006 * 0.05
    # The reference's bound: 0.02 of the output's scale, 0.3.
    near = weighted(kind, per_tensor=True, bias_scales=scale + 0.0059)
    check(near, weighted(kind, per_tensor=True))
    for far in (scale + 0.0061, float("nan"), -0.1):
        with pytest.raises(ModelError, match="bias scale of FULLY_CONNECTED #0"):
            load(weighted(kind, per_tensor=True, bias_scales=far))


@pytest.mark.parametrize("kind", KINDS)
def test_zero_point_of_a_bias_is_not_used(kind: str) -> None:
    check(weighted(kind, bias_zero_point=5), weighted(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_tensor", [True, False])
def test_asymmetric_weights_are_unsupported(kind: str, per_tensor: bool) -> None:
    with pytest.raises(UnsupportedError, match=f"weights of {kind} #0 .* have zero point -4"):
        load(weighted(kind, weights_zero_point=-4, per_tensor=per_tensor))


@pytest.mark.parametrize("kind", KINDS)
def test_int64_bias_is_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedError, match=f"bias of {kind} #0 .* is int64"):
        load(weighted(kind, bias=BIAS.astype(np.int64)))


# ---------------------------------------------------------------------- options


def single(name: str, options: tuple[str, dict[str, Any]] | None) -> bytes:
    b = ModelBuilder()

    def x(*shape: int) -> TensorHandle:
        return b.input(shape, scale=0.05, zero_point=-3)

    image = x(1, 4, 4, 2)
    if name in ("ADD", "SUB"):
        operands, shape = [image, x(1, 4, 4, 2)], image.shape
    elif name == "MUL":
        operands, shape = [image, b.constant(np.array([5], np.int8), scales=0.1)], image.shape
    elif name == "FULLY_CONNECTED":
        w = b.constant(DENSE, scales=0.006)
        operands, shape = [image, w, b.constant(BIAS, scales=0.0003)], (1, 8)
    elif name == "RESHAPE":
        operands, shape = [image, b.constant(np.array([1, 32], np.int32))], (1, 32)
    else:
        operands, shape = [image], image.shape
    b.operator(name, operands, shape, scale=0.3, zero_point=7, options=options)
    return b.finish()


ABSENT = [
    ("ADD", ("AddOptions", {})),
    ("SUB", ("SubOptions", {})),
    ("MUL", ("MulOptions", {})),
    ("FULLY_CONNECTED", ("FullyConnectedOptions", {})),
    ("RESHAPE", ("ReshapeOptions", {})),
    ("LEAKY_RELU", ("LeakyReluOptions", {"Alpha": 0.0})),
    ("RELU", None),
    ("TANH", None),
    ("QUANTIZE", None),
]


@pytest.mark.parametrize(("name", "usual"), ABSENT)
@pytest.mark.parametrize("options", [None, ("ExpOptions", {})])
def test_options_that_the_kernel_does_not_need_may_be_absent(
    name: str, usual: Any, options: Any
) -> None:
    check(single(name, options), single(name, usual))


@pytest.mark.parametrize("name", ["SOFTMAX", "AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_options_that_the_kernel_needs(name: str) -> None:
    with pytest.raises(ModelError, match="Options expected, options of type 0 found"):
        load(single(name, None))


# ---------------------------------------------------------------------- interface and compilers


def test_output_listed_twice_is_one_output() -> None:
    b = ModelBuilder()
    y = b.relu(b.input((1, 4), scale=0.1), scale=0.05)
    z = b.tanh(y)
    assert load(b.finish([z, y, z])).outputs == [z.name, y.name]
    check(b.finish([z, y, z]), b.finish([z, y]))


@pytest.mark.parametrize(
    ("code", "compiler"),
    [
        ("ethos-u", "Arm Ethos-U by Vela"),
        ("edgetpu-custom-op", "Coral Edge TPU by edgetpu_compiler"),
        ("NeutronGraph", "NXP eIQ Neutron NPU by the Neutron converter"),
        ("vsi-npu", "VeriSilicon NPU"),
        ("DISPATCH_OP", "the LiteRT compiler"),
    ],
)
def test_files_compiled_for_another_npu_are_named(code: str, compiler: str) -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1)
    b.operator(f"CUSTOM:{code}", [x], (1, 4), scale=0.1)
    with pytest.raises(UnsupportedError, match=compiler) as caught:
        load(b.finish())
    assert "already been compiled" in caught.value.cause
    assert "from before" in caught.value.remedy


def test_other_custom_operators_are_only_not_known() -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1)
    b.operator("CUSTOM:ethos-unknown", [x], (1, 4), scale=0.1)
    with pytest.raises(UnsupportedError, match=r"CUSTOM\(ethos-unknown\) #0 .*: the NPU does not"):
        lower(load(b.finish()))


# ---------------------------------------------------------------------- names

HOSTILE = "a\x1b]0;title\x07\x1b[2J\r\n\x9b31m\u202egnp.exe\u2066\u200b\u2028z\x7f"
ESCAPED = r"a\x1b]0;title\x07\x1b[2J\x0d\x0a\x9b31m\u202egnp.exe\u2066\u200b\u2028z\x7f"


def test_printable() -> None:
    assert printable(HOSTILE) == ESCAPED
    assert printable(ESCAPED) == ESCAPED
    assert printable("Größe/日本\n", keep="\n") == "Größe/日本\n"
    assert printable("\udc80") == r"\udc80"


def test_names_of_tensors_and_operators_do_not_reach_a_terminal() -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1, name=HOSTILE)
    b.operator(f"CUSTOM:{HOSTILE}", [x], (1, 4), scale=0.1)
    graph = load(b.finish())
    assert graph.inputs == [ESCAPED]
    with pytest.raises(UnsupportedError) as caught:
        lower(graph)
    assert all(text.isprintable() for text in str(caught.value).split("\n"))
    assert "\\x1b" in str(caught.value)


def test_file_names_do_not_reach_a_terminal(tmp_path: Path) -> None:
    for path in (tmp_path / HOSTILE, "\udcff.tflite"):
        with pytest.raises(CelosiaError) as caught:
            load(path)
        assert str(caught.value).isprintable()


def test_names_that_are_not_utf8_stay_apart() -> None:
    b = ModelBuilder()
    x, y = b.input((1, 4), scale=0.1, name="XXA"), b.input((1, 4), scale=0.1, name="XXB")
    b.add(x, y, scale=0.2)
    data = b.finish().replace(b"XXA", b"\xff\xfeA").replace(b"XXB", b"\xc3\x28B")
    assert load(data).inputs == [r"\xff\xfeA", r"\xc3(B"]
    same = b.finish().replace(b"XXA", b"\xff\xfeA").replace(b"XXB", b"\xff\xfeA")
    assert len(set(load(same).inputs)) == 2
