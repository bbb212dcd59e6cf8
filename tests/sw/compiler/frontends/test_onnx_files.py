"""ONNX files as anybody may have them: damaged, not quantised, dynamic, with data beside them."""

from __future__ import annotations

import runpy
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.errors import CelosiaError, ModelError, UnsupportedError
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.formats import is_onnx
from celosia.sw.compiler.frontends.onnx.convert import convert
from celosia.sw.compiler.frontends.onnx.operators import EMITTERS
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.reference.check import check_model
from celosia.sw.runtime.session import Session

from tests.kit.onnx_models import OnnxBuilder, needs_whole_sums, onnxruntime_results
from tests.kit.onnx_networks import float_model

onnx = pytest.importorskip("onnx")
pytestmark = needs_whole_sums

BASE = preset("base")
ROOT = Path(__file__).resolve().parents[4]
SHAPES = ROOT / "examples/shapes/shapes_int8.onnx"


def small(seed: int = 1, dtype: type = np.uint8) -> tuple[bytes, OnnxBuilder]:
    """Return a network of two convolutions, a pool and a dense layer."""
    b = OnnxBuilder(np.random.default_rng(seed), dtype)
    x = b.input((1, 3, 8, 8))
    y = b.weighted("Conv", x, (8, 3, 3, 3), 0, 8, 27, (0.0, 9.0), kernel_shape=[3, 3])
    y = b.weighted("Conv", y, (8, 1, 3, 3), 0, 8, 9, kernel_shape=[3, 3], group=8)
    y = b.moved("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = b.weighted("Gemm", b.moved("Flatten", y), (32, 5), 1, 5, 32)
    b.output(y)
    return b.model(), b


def edited(model: bytes, edit: Callable[[Any], None]) -> bytes:
    """Return a model that is changed."""
    proto = onnx.load_model_from_string(model)
    edit(proto)
    content: bytes = proto.SerializeToString()
    return content


def refused(model: bytes | Path, kind: type[CelosiaError], *words: str) -> None:
    """Hold that a model is refused with these words in the message."""
    with pytest.raises(kind) as caught:
        compile_model(model, BASE)
    for word in words:
        assert word in str(caught.value), caught.value


def test_a_format_is_told_by_name_and_by_bytes() -> None:
    assert is_onnx("x.ONNX")
    assert not is_onnx(Path("x.tflite"))
    assert is_onnx(small()[0])
    assert not is_onnx((ROOT / "examples/digits/digits_int8.tflite").read_bytes())


def test_files_that_are_no_model(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.onnx", ModelError, "there is no such file")
    refused(tmp_path, ModelError)
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    refused(text, ModelError, "no sound ONNX model", "Export the model again")
    model = small()[0]
    for end in (1, 20, len(model) // 2, len(model) - 1):
        (tmp_path / "cut.onnx").write_bytes(model[:end])
        refused(tmp_path / "cut.onnx", ModelError, "cut.onnx")


@pytest.mark.parametrize("seed", range(4))
def test_damage_is_refused_in_words(seed: int) -> None:
    """Bytes of the file changed, left out or added: it compiles, or an error says what is wrong."""
    rng = np.random.default_rng(seed)
    model, causes = small()[0], list[str]()
    for _ in range(150):
        content = bytearray(model)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(len(content)))
            match int(rng.integers(3)):
                case 0:
                    content[place] = int(rng.integers(256))
                case 1:
                    del content[place : place + 3]
                case _:
                    content[place:place] = bytes(rng.integers(0, 256, 2).astype(np.uint8))
        try:
            convert(bytes(content), anything=True)
        except CelosiaError as error:
            causes.append(error.cause)
    assert causes
    assert all(causes)


def test_what_is_not_quantised_is_told_how(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    refused(model.SerializeToString(), UnsupportedError, "float32", "quantize_static")


def test_what_is_quantised_while_it_runs_is_the_hosts(tmp_path: Path) -> None:
    """It equals onnxruntime, and the reasons say what would bring it to the NPU."""
    from onnxruntime.quantization import quantize_dynamic

    model, path = float_model("mlp"), tmp_path / "dynamic.onnx"
    onnx.save(model.proto(), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", path)
    program = compile_model(path, BASE)
    layers = {layer.op: layer for segment in program.host_segments for layer in segment.layers}
    assert not program.npu_segments
    assert "quantize_static" in layers["DynamicQuantizeLinear"].reason
    assert "int32" in layers["MatMulInteger"].reason
    inputs = [model.sample(np.random.default_rng(1))]
    with open_device("emu", BASE) as device:
        report = check_model(path, BASE, device, inputs, program=program)
    assert report.equal, report.difference


def test_free_sizes() -> None:
    """A free batch is one; other free sizes are refused, with the command that fixes them."""
    model, b = small()

    def free(axis: int) -> Callable[[Any], None]:
        def edit(proto: Any) -> None:
            proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "n"

        return edit

    program = compile_model(edited(model, free(0)), BASE)
    assert program.inputs[0].shape == (1, 3, 8, 8)
    refused(edited(model, free(2)), UnsupportedError, "'n'", "axis 2", "make_dynamic_shape_fixed")


def edit_opset(version: int) -> Callable[[Any], None]:
    """Return what gives a model another version of the standard operators."""

    def edit(proto: Any) -> None:
        proto.opset_import[0].version = version

    return edit


@pytest.mark.parametrize("version", [10, 11, 12])
def test_old_operators(version: int) -> None:
    """Opsets with quantised operators but without scales a channel of QuantizeLinear."""
    b = OnnxBuilder(np.random.default_rng(version), np.uint8, qdq=False)
    y = b.weighted("Conv", b.input((1, 3, 8, 8)), (8, 3, 3, 3), 0, 8, 27, kernel_shape=[3, 3])
    operands = [b.dequantised(y)]
    ends = {"min": -0.5, "max": 1.25}
    if version > 10:
        operands += [b.constant(np.float32(end)) for end in ends.values()]
        ends = {}
    y = b.quantised(str(b.node("Clip", operands, **ends)))
    b.output(b.moved("Flatten", y))
    model = b.model(version)
    program = compile_model(model, BASE)
    assert not program.host_segments
    inputs = {"x0": b.rng.integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)}
    with open_device("emu", BASE) as device, Session(program, device) as session:
        found = session.run(inputs).outputs
    for name, wanted in onnxruntime_results(model, inputs).items():
        np.testing.assert_array_equal(found[name], wanted)


def test_newer_operators_than_onnxruntime_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are brought to the newest that it has, if there is a way; else that is said."""
    from celosia.sw.compiler.frontends.onnx import opsets

    monkeypatch.setattr(opsets, "_computes", lambda opset: opset <= 20)
    model, _ = small()
    newer = edited(model, edit_opset(21))
    assert convert(newer).model.opset == 20

    def without_a_way(model: Any, version: int) -> Any:
        raise RuntimeError("no adapter")

    monkeypatch.setattr("onnx.version_converter.convert_version", without_a_way)
    refused(newer, UnsupportedError, "opset 21", "Export it with opset 20")


def test_older_operators_and_other_domains() -> None:
    model, _ = small()
    refused(edited(model, edit_opset(9)), UnsupportedError, "opset 9", "convert_version")

    def foreign(proto: Any) -> None:
        proto.graph.node[0].domain = "my.domain"
        proto.opset_import.append(onnx.helper.make_opsetid("my.domain", 1))

    refused(edited(model, foreign), UnsupportedError, "my.domain")


def test_a_scale_that_is_none() -> None:
    from onnx import numpy_helper

    def edit(proto: Any) -> None:
        for tensor in proto.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(np.float32(0), tensor.name))
                return

    refused(edited(small()[0], edit), ModelError, "scale")


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    """They are found beside the model, and nowhere else."""
    model = onnx.load_model_from_string(small()[0])
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    whole = compile_model(small()[0], BASE)
    assert compile_model(path, BASE).npu_segments[0].constants == whole.npu_segments[0].constants
    refused(path.read_bytes(), ModelError, "another file")
    (tmp_path / "weights.bin").rename(tmp_path.parent / "weights.bin")
    refused(path, ModelError, "weights.bin", "not beside it")

    def outside(proto: Any) -> None:
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../weights.bin"

    path.write_bytes(edited(path.read_bytes(), outside))
    refused(path, ModelError, "../weights.bin")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8], ids=["int8", "uint8"])
@pytest.mark.parametrize("name", ["tiny", "large"])
def test_a_network_checks_tensor_by_tensor(name: str, dtype: type, tmp_path: Path) -> None:
    """On the emulator, against onnxruntime and the golden model; from the program's file, too."""
    content, b = small(zlib.crc32(name.encode()), dtype)
    path, config = tmp_path / "small.onnx", preset(name)
    path.write_bytes(content)
    program = Program.from_bytes(compile_model(path, config).to_bytes())
    limits = np.iinfo(dtype)
    inputs = [
        {"x0": b.rng.integers(limits.min, limits.max + 1, (1, 3, 8, 8)).astype(dtype)}
        for _ in range(3)
    ]
    with open_device("emu", config) as device:
        report = check_model(path, config, device, inputs, program=program)
    assert report.equal, report.difference
    assert report.unconfirmed is None
    assert len(report.sources) == 2
    assert report.tensors >= 4


@pytest.mark.parametrize(("off", "unproven"), [(20, False), (20, True), (15, True), (15, False)])
def test_a_wrong_tensor_is_found(
    off: int, unproven: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other multipliers a layer differs from onnxruntime, and the check says which.

    Seldom and by one step, where the compiler has said that it could, is said and no more.
    """
    from celosia.sw.compiler.arithmetic import single
    from celosia.sw.compiler.ops import weights

    def changed(*arguments: Any) -> single.SingleFit:
        found = single.fit_single(*arguments)
        return single.SingleFit(
            found.multiplier - (1 << off), found.shift, int(unproven), found.reachable
        )

    monkeypatch.setattr(weights, "fit_single", changed)
    path = tmp_path / "small.onnx"
    path.write_bytes(small()[0])
    rng = np.random.default_rng(3)
    inputs = [{"x0": rng.integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)} for _ in range(12)]
    with open_device("emu", BASE) as device:
        report = check_model(path, BASE, device, inputs)
    if off == 15 and unproven:
        assert report.equal
        assert report.foreseen
        assert all("by one step" in line for line in report.foreseen)
    else:
        assert not report.equal
        assert not report.foreseen
        assert "Conv" in str(report.difference)


def test_exactness_is_said_and_can_be_asked_for() -> None:
    """Every layer that requantises says whether it is proven; with `exact` the NPU has no other."""
    program = compile_model(SHAPES, BASE)
    said = [layer.reason for layer in program.layers if "exact:" in layer.reason]
    assert len(said) >= 4
    strict = compile_model(SHAPES, BASE, exact=True)
    on_npu = [layer for segment in strict.npu_segments for layer in segment.layers]
    assert not any("unproven" in layer.reason for layer in on_npu)
    held = [layer for segment in strict.host_segments for layer in segment.layers]
    told = [layer for layer in held if "not proven equal" in layer.reason]
    assert len(told) == sum("unproven" in reason for reason in said) > 0


def test_what_has_ties_is_the_hosts() -> None:
    """An average of 2x2 without a change of scale has exact halves: onnxruntime decides them."""
    b = OnnxBuilder(np.random.default_rng(2))
    x = b.input((1, 4, 8, 8))
    y = b.weighted("Conv", x, (4, 4, 3, 3), 0, 4, 36, kernel_shape=[3, 3], pads=[1] * 4)
    y = b.unary("AveragePool", y, out=b.known[y], kernel_shape=[2, 2], strides=[2, 2])
    b.output(y)
    program = compile_model(b.model(), BASE)
    layers = [layer for segment in program.host_segments for layer in segment.layers]
    assert layers[0].op == "AveragePool"
    assert "could differ" in layers[0].reason


def test_the_example_on_the_rtl() -> None:
    """Nine in ten of the example's answers are right, and every tensor is onnxruntime's."""
    samples = np.load(SHAPES.with_name("samples.npz"))
    program = compile_model(SHAPES, BASE)
    assert not program.host_segments
    with open_device("emu", BASE) as device, Session(program, device) as session:
        results = session.run_many([{"image": one[None]} for one in samples["inputs"]])
        answers = [int(result.outputs["scores"].argmax()) for result in results]
    assert np.mean(answers == samples["labels"]) >= 0.8
    inputs = [{"image": one[None]} for one in samples["inputs"][:2]]
    with open_device("sim", BASE) as device:
        report = check_model(SHAPES, BASE, device, inputs, program=program)
    assert report.equal, report.difference
    assert report.unconfirmed is None


def test_the_page_names_what_there_is() -> None:
    text = (ROOT / "docs/onnx.md").read_text(encoding="utf-8")
    made = {"Quantise", "Dequantise", "Requantise"}
    assert [kind for kind in EMITTERS if kind not in made and kind not in text] == []


@pytest.mark.parametrize("name", ["nano", "base"])
def test_a_divided_network_checks_tensor_by_tensor(name: str, tmp_path: Path) -> None:
    """Parts of it in onnxruntime, one of which has tensors that only the compiler knows."""
    b, config = OnnxBuilder(np.random.default_rng(4), np.uint8), preset(name)
    x = b.input((1, 3, 33, 33))
    y = b.weighted("Conv", x, (16, 3, 3, 3), 0, 16, 27, kernel_shape=[3, 3], strides=[2, 2])
    y = b.unary("AveragePool", y, out=b.known[y], kernel_shape=[2, 2], strides=[2, 2])
    parts = [b.dequantised(b.unary(kind, y)) for kind in ("Tanh", "Sigmoid")]
    y = b.quantised(str(b.node("Concat", parts, axis=1)))
    y = b.weighted("Conv", y, (32, 32, 3, 3), 0, 32, 288, kernel_shape=[3, 3])
    y = b.weighted("Gemm", b.moved("Flatten", y), (1152, 6), 1, 6, 1152)
    y = b.unary("Softmax", y, out=(np.float32(1 / 256), 0), axis=1)
    b.output(y)
    path = tmp_path / "divided.onnx"
    path.write_bytes(b.model())
    program = Program.from_bytes(compile_model(path, config).to_bytes())
    assert program.host_segments
    assert program.npu_segments
    inputs = [{"x0": b.rng.integers(0, 256, (1, 3, 33, 33)).astype(np.uint8)} for _ in range(2)]
    with open_device("emu", config) as device:
        report = check_model(path, config, device, inputs, program=program)
    assert report.equal, report.difference
    assert report.unconfirmed is None


@pytest.mark.parametrize("per_channel", [True, False], ids=["channels", "tensors"])
@pytest.mark.parametrize("kind", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_what_onnxruntime_quantises(
    form: str, kind: str, per_channel: bool, tmp_path: Path
) -> None:
    """The example's network, quantised by onnxruntime's tool in each of its ways."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    made = runpy.run_path(str(SHAPES.with_name("make.py")))
    rng = np.random.default_rng(7)
    last = rng.normal(0, 0.1, (256, 4)).astype(np.float32), np.zeros(4, np.float32)
    images = rng.normal(0, 1, (12, 1, 16, 16)).astype(np.float32)
    onnx.save(made["network"](rng, *last), tmp_path / "float.onnx")
    path = tmp_path / "int8.onnx"
    quantize_static(
        tmp_path / "float.onnx",
        path,
        made["Reader"](images),
        quant_format=getattr(QuantFormat, form),
        per_channel=per_channel,
        activation_type=getattr(QuantType, kind),
        weight_type=QuantType.QInt8,
    )
    program = compile_model(path, BASE)
    assert not program.host_segments
    with open_device("emu", BASE) as device:
        inputs = [{"image": one[None]} for one in images[:4]]
        report = check_model(path, BASE, device, inputs, program=program)
    assert report.equal, report.difference
    assert report.unconfirmed is None
    assert report.tensors >= 7


def test_a_processor_that_loses_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the golden model, which has the whole sums, stands alone, and the report says why."""
    monkeypatch.setattr("celosia.sw.reference.onnx.saturates", lambda: True)
    path = tmp_path / "small.onnx"
    path.write_bytes(small()[0])
    inputs = [{"x0": np.full((1, 3, 8, 8), 255, np.uint8)}]
    with open_device("emu", BASE) as device:
        report = check_model(path, BASE, device, inputs)
    assert report.equal, report.difference
    assert report.sources == ("golden model",)
    assert "beyond 16 bits" in str(report.unconfirmed)
