"""Bad models give clear errors: nothing but Celosia's own exceptions escapes, and soon."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import pytest
import tflite  # type: ignore[import-untyped]
from celosia.errors import ModelError, UnsupportedError
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.lower import lower

INT8, UINT8, INT16, FLOAT32 = (
    getattr(tflite.TensorType, name) for name in ("INT8", "UINT8", "INT16", "FLOAT32")
)
QUANTISED = ((0.1,), (0,), 0)


def small_model() -> bytes:
    """Uses every table the front end reads, in about 3 kB."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return rng.integers(-128, 128, shape).astype(np.int8)

    b = ModelBuilder()
    x = b.input((1, 6, 6, 2), scale=0.05, zero_point=-3)
    p = b.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    c = b.conv2d(
        p, weights(4, 3, 3, 2), np.arange(4, dtype=np.int32), w_scales=[0.1, 0.2, 0.3, 0.4],
        scale=0.7, padding="VALID",
    )  # fmt: skip
    d = b.depthwise_conv2d(c, weights(1, 3, 3, 4), w_scales=0.02, scale=0.7)
    s = b.add(c, b.leaky_relu(d, alpha=0.1), scale=0.8)
    a = b.average_pool2d(s, size=(2, 2), strides=(2, 2))
    f = b.fully_connected(b.reshape(a, (1, 36)), weights(5, 36), w_scales=0.02, scale=0.5)
    b.softmax(f)
    return b.finish()


def outcome(data: bytes) -> str:
    """Compile; '' on success, the message otherwise. Anything but a ModelError propagates.

    A CompileError would mean that a pass made nonsense of what the front end let through.
    """
    try:
        lower(load(data))
    except ModelError as error:
        return str(error) if error.cause and error.remedy else "no cause or remedy"
    return ""


# ---------------------------------------------------------------------- files


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file"):
        load(tmp_path / "none.tflite")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a regular file"):
        load(tmp_path)


def test_path_with_a_nul() -> None:
    with pytest.raises(ModelError):
        load("a\0b.tflite")


def test_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "empty.tflite"
    file.touch()
    with pytest.raises(ModelError, match=r"empty.tflite: the file is empty"):
        load(file)


@pytest.mark.parametrize("data", [b"x", b"\x7fELF" + bytes(100), b"PK\x03\x04 a zip", bytes(5000)])
def test_not_a_model(data: bytes) -> None:
    with pytest.raises(ModelError, match="not a TensorFlow Lite model"):
        load(data)


def test_every_truncation_is_refused_or_harmless() -> None:
    model = small_model()
    reference = load(model)
    survivors = 0
    for cut in range(len(model)):
        try:
            graph = load(model[:cut])
        except ModelError:
            continue
        survivors += 1
        assert [op.label for op in graph.ops] == [op.label for op in reference.ops]
        for name, tensor in graph.tensors.items():
            other = reference.tensors[name]
            assert (tensor.shape, tensor.scale) == (other.shape, other.scale)
            if other.data is not None:
                np.testing.assert_array_equal(tensor.data, other.data)
    assert survivors < 16  # only what ends in bytes that nobody reads


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_never_escape(seed: int) -> None:
    model = small_model()
    rng = np.random.default_rng(seed)
    tracemalloc.start()
    refused = 0
    for _ in range(120):
        data = bytearray(model)
        for position in rng.integers(8, len(data), rng.integers(1, 8)):
            data[position] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
        started = time.monotonic()
        message = outcome(bytes(data))
        assert time.monotonic() - started < 5
        assert message != "no cause or remedy"
        refused += bool(message)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 40
    assert peak_bytes < 64 << 20


@pytest.mark.parametrize("value", [0xFF, 0x7F])
def test_bytes_of_the_tables_set_to_extremes(value: int) -> None:
    """Indices, counts and shapes are single bytes in a small model: visit many of them."""
    model = small_model()
    for position in range(8 + value % 7, len(model), 17):
        data = bytearray(model)
        data[position] = value
        assert outcome(bytes(data)) != "no cause or remedy"


# ---------------------------------------------------------------------- kinds of models


def table(fb: flatbuffers.Builder, name: str, **fields: Any) -> int:
    """Write a table of the schema; return its place."""
    getattr(tflite, f"{name}Start")(fb)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(fb, value)
    return int(getattr(tflite, f"{name}End")(fb))


def offsets(fb: flatbuffers.Builder, values: list[int]) -> int:
    """Write a vector of places; return its own."""
    fb.StartVector(4, len(values), 4)
    for value in reversed(values):
        fb.PrependUOffsetTRelative(value)
    return int(fb.EndVector())


def raw_model(
    tensors: Sequence[tuple[tuple[int, ...], int, Any]],
    operators: Sequence[tuple[str, tuple[int, ...], tuple[int, ...]]],
    *,
    inputs: tuple[int, ...] = (0,),
    outputs: tuple[int, ...] = (1,),
    subgraphs: int = 1,
    signature: tuple[int, ...] | None = None,
    sparse: bool = False,
    version: int = 3,
) -> bytes:
    """Serialise (shape, type, (scales, zero points, axis) or None) and (code, inputs, outputs)."""
    fb = flatbuffers.Builder(1024)

    def ints(values: Any) -> int:
        return int(fb.CreateNumpyVector(np.asarray(values, np.int32)))

    written = []
    for index, (shape, kind, quantisation) in enumerate(tensors):
        fields: dict[str, Any] = {"Shape": ints(shape), "Type": kind}
        fields["Name"] = fb.CreateString(f"t{index}")
        if quantisation is not None:
            scales, zeros, axis = quantisation
            fields["Quantization"] = table(
                fb,
                "QuantizationParameters",
                Scale=fb.CreateNumpyVector(np.asarray(scales, np.float32)),
                ZeroPoint=fb.CreateNumpyVector(np.asarray(zeros, np.int64)),
                QuantizedDimension=axis,
            )
        if signature is not None:
            fields["ShapeSignature"] = ints(signature)
        if sparse:
            fields["Sparsity"] = table(fb, "SparsityParameters", TraversalOrder=ints([0]))
        written.append(table(fb, "Tensor", **fields))
    codes = [code for code, _, _ in operators]
    ops = [
        table(fb, "Operator", OpcodeIndex=i, Inputs=ints(sources), Outputs=ints(results))
        for i, (_, sources, results) in enumerate(operators)
    ]
    graph = table(
        fb,
        "SubGraph",
        Tensors=offsets(fb, written),
        Inputs=ints(inputs),
        Outputs=ints(outputs),
        Operators=offsets(fb, ops),
    )
    numbers = [getattr(tflite.BuiltinOperator, code) for code in codes]
    code_tables = [
        table(fb, "OperatorCode", BuiltinCode=number, DeprecatedBuiltinCode=min(number, 127))
        for number in numbers
    ]
    model = table(
        fb,
        "Model",
        Version=version,
        OperatorCodes=offsets(fb, code_tables),
        Subgraphs=offsets(fb, [graph] * subgraphs),
        Buffers=offsets(fb, [table(fb, "Buffer")]),
    )
    fb.Finish(model, file_identifier=b"TFL3")
    return bytes(fb.Output())


def relu(kind: int, quantisation: Any = QUANTISED, shape: Any = (1, 4), **more: Any) -> bytes:
    tensors = [(shape, kind, quantisation)] * 2
    return raw_model(tensors, [("RELU", (0,), (1,))], **more)


def test_the_raw_writer_makes_sound_models() -> None:
    assert outcome(relu(INT8)) == ""


@pytest.mark.parametrize(
    ("data", "kind", "cause", "remedy"),
    [
        (relu(FLOAT32, None), UnsupportedError, "model is float32", "representative_dataset"),
        (relu(UINT8, None), ModelError, "uint8 activation", "representative"),
        (relu(UINT8, ((0.1,), (-3,), 0)), ModelError, "zero point -3", "convert"),
        (relu(INT16), UnsupportedError, "int16 activations", "16-bit"),
        (relu(INT8, None), ModelError, "has no quantisation parameters", "representative"),
        (relu(INT8, ((0.1,), (200,), 0)), ModelError, "zero point 200", "convert"),
        (relu(INT8, ((0.1,) * 4, (0,) * 4, 1)), ModelError, "per-channel", "quantise"),
        (relu(INT8, ((0.1,) * 3, (0,) * 3, 1)), ModelError, "3 scales along axis 1", "convert"),
        (relu(INT8, ((-0.1,), (0,), 0)), ModelError, "a scale is negative", "convert"),
        (relu(INT8, ((float("nan"),), (0,), 0)), ModelError, "not finite", "convert"),
        (relu(INT8, shape=(1, -1, 4)), UnsupportedError, "dynamic shape", "fixed input shape"),
        (relu(INT8, shape=(-1, -1)), UnsupportedError, "dynamic shape [1, -1]", "fixed input"),
        (relu(INT8, shape=(1, 0, 4)), ModelError, "impossible shape", "convert"),
        (relu(INT8, shape=(1 << 30, 1 << 30)), ModelError, "impossible shape", "convert"),
        (relu(INT8, subgraphs=2), UnsupportedError, "2 subgraphs", "one inference function"),
        (relu(INT8, subgraphs=0), ModelError, "no subgraph", "convert"),
        (relu(INT8, sparse=True), UnsupportedError, "sparse", "SPARSITY"),
        (relu(INT8, version=2), ModelError, "schema version 2", "convert"),
        (relu(INT8, inputs=()), ModelError, "no inputs", "export"),
        (relu(INT8, outputs=()), ModelError, "no outputs", "export"),
        (relu(INT8, outputs=(7,)), ModelError, "names tensor 7", "convert"),
        (relu(INT8, inputs=(0, 0)), ModelError, "listed twice", "convert"),
    ],
)
def test_unsuitable_model(data: bytes, kind: type[ModelError], cause: str, remedy: str) -> None:
    with pytest.raises(kind) as caught:
        lower(load(data))
    assert cause in str(caught.value)
    assert remedy in caught.value.remedy
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "free",
    [
        {"signature": (-1, 4)},
        {"signature": (-1, -1)},
        {"shape": (-1, 4)},
        {"shape": (-1, 4), "signature": (-1, 4)},
    ],
)
def test_a_free_batch_is_one_and_other_free_axes_have_the_size_of_the_shape(
    free: dict[str, tuple[int, ...]],
) -> None:
    graph = lower(load(relu(INT8, **free)))
    assert {tensor.shape for tensor in graph.tensors.values()} == {(1, 4)}


def test_float_interface_names_the_option() -> None:
    tensors = [((1, 4), FLOAT32, None), ((1, 4), INT8, QUANTISED), ((1, 4), FLOAT32, None)]
    data = raw_model(tensors, [("QUANTIZE", (0,), (1,)), ("DEQUANTIZE", (1,), (2,))], outputs=(2,))
    with pytest.raises(UnsupportedError, match="inputs or outputs are float32") as caught:
        load(data)
    assert "inference_input_type" in caught.value.remedy


def test_operator_cycle() -> None:
    tensors = [((1, 4), INT8, QUANTISED)] * 3
    data = raw_model(tensors, [("ADD", (0, 2), (1,)), ("RELU", (1,), (2,))], outputs=(2,))
    with pytest.raises(ModelError, match=r"ADD #0 .* reads 't2' before it is written"):
        load(data)


def test_unknown_and_custom_operators_are_named() -> None:
    tensors = [((1, 4), INT8, QUANTISED)] * 3
    data = raw_model(tensors, [("CUSTOM", (0,), (1,)), ("COS", (1,), (2,))], outputs=(2,))
    with pytest.raises(UnsupportedError) as caught:
        lower(load(data))
    assert "CUSTOM() #0" in str(caught.value)
    assert "COS #1" in str(caught.value)
    assert "CONV_2D" in caught.value.remedy


def test_operator_without_inputs() -> None:
    data = raw_model([((1, 4), INT8, QUANTISED)] * 2, [("COS", (), (1,))])
    assert "COS #0" in outcome(data)


def test_error_fields_name_the_operator() -> None:
    tensors = [((1, 6), INT8, QUANTISED)] * 2
    with pytest.raises(ModelError, match="CONV_2D") as caught:
        load(raw_model(tensors, [("CONV_2D", (0,), (1,))]))
    assert caught.value.file == "<bytes>"
    data = raw_model(tensors, [("COS", (0,), (1,))])
    with pytest.raises(ModelError, match="COS") as caught:
        lower(load(data))
    assert (caught.value.op_index, caught.value.op_type) == (0, "COS")


def test_int4_weights_are_unsupported_not_damaged() -> None:
    model = bytearray(small_model())
    flat = tflite.Model.GetRootAs(model, 0)
    weights = next(
        flat.Subgraphs(0).Tensors(i)
        for i in range(flat.Subgraphs(0).TensorsLength())
        if flat.Subgraphs(0).Tensors(i).ShapeLength() == 4
        and flat.Subgraphs(0).Tensors(i).Buffer() != 0
    )
    model[weights._tab.Pos + weights._tab.Offset(6)] = tflite.TensorType.INT4
    with pytest.raises(UnsupportedError, match="constant of type int4"):
        load(bytes(model))


# ---------------------------------------------------------------------- files that grow


def shared_vector_model(tensors: int, scales: int) -> bytes:
    """All tensors share one quantisation table with one long vector of scales."""
    fb = flatbuffers.Builder(1024)

    shape = fb.CreateNumpyVector(np.asarray([scales], np.int32))
    quantisation = table(
        fb, "QuantizationParameters", Scale=fb.CreateNumpyVector(np.ones(scales, np.float32))
    )
    written = [
        table(fb, "Tensor", Shape=shape, Type=INT8, Quantization=quantisation)
        for _ in range(tensors)
    ]
    ends = fb.CreateNumpyVector(np.asarray([0], np.int32))
    graph = table(fb, "SubGraph", Tensors=offsets(fb, written), Inputs=ends, Outputs=ends)
    model = table(
        fb,
        "Model",
        Version=3,
        Subgraphs=offsets(fb, [graph]),
        Buffers=offsets(fb, [table(fb, "Buffer")]),
    )
    fb.Finish(model, file_identifier=b"TFL3")
    return bytes(fb.Output())


def test_a_long_vector_shared_by_all_tensors_is_not_copied_for_each() -> None:
    data = shared_vector_model(8_000, 100_000)
    tracemalloc.start()
    with pytest.raises(ModelError, match="share vectors"):
        load(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 16 * len(data)


def test_huge_activations_are_refused_before_they_become_commands() -> None:
    message = outcome(relu(INT8, shape=(1, 1 << 14, 1 << 12)))
    assert "elements in its activations; at most" in message


def test_outputs_that_no_operator_computes() -> None:
    with pytest.raises(UnsupportedError, match="no operator computes them"):
        load(relu(INT8, outputs=(0,)))


def test_huge_numbers_of_operators_are_refused() -> None:
    tensors = [((1, 4), INT8, QUANTISED)] * 2
    message = outcome(raw_model(tensors, [("RELU", (0,), (1,))] * 5000))
    assert "it has 5000 operators; at most 4096" in message


@pytest.mark.parametrize("folded", [False, True])
def test_one_output_of_several_is_a_constant(folded: bool) -> None:
    builder = ModelBuilder()
    x = builder.input((1, 4, 4, 2), scale=0.05)
    values = np.ones((1, 4, 4, 2), np.int8)
    constant = builder.constant(values, scales=0.1, name="table")
    if folded:
        constant = builder.reshape(constant, (1, 32))
    data = builder.finish([builder.add(x, x, scale=0.1), constant])
    with pytest.raises(UnsupportedError, match="it is a constant: no operator computes it") as seen:
        lower(load(data))
    assert seen.value.tensor == constant.name


@pytest.mark.parametrize("code", ["RELU", "RELU_0_TO_1", "MEAN", "DEQUANTIZE"])
def test_inputs_are_counted_also_where_an_operator_does_not_run(code: str) -> None:
    tensors = [((1, 4), INT8, QUANTISED)] * 4
    with pytest.raises(ModelError, match=f"{code} #0 .* has 3 inputs"):
        load(raw_model(tensors, [(code, (0, 1, 2), (3,))], inputs=(0, 1, 2), outputs=(3,)))
