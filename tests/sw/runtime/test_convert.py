"""Float and uint8 inputs and outputs: converted by the host, equal to the reference's bits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import InputError, ProgramError, UnsupportedError
from celosia.hw.contract.config import preset
from celosia.sim.golden import floats
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.lower import lower
from celosia.sw.program.conversion import CASTS
from celosia.sw.program.file import Program
from celosia.sw.program.tensors import TensorInfo
from celosia.sw.runtime.convert import convert

from tests.kit.command_line import run_cli

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the reference interpreter")

SHAPE = (1, 4, 4, 16)
BASE = preset("base")


def reference(model: bytes, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    interpreter = litert.Interpreter(
        model_content=model, experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    (details,) = interpreter.get_output_details()
    result: npt.NDArray[Any] = interpreter.get_tensor(details["index"])
    return result


def between(source: Any, target: Any, seed: int) -> tuple[bytes, TensorInfo, TensorInfo]:
    """Return a model of one conversion, and its two tensors."""
    rng = np.random.default_rng(seed)
    scales = np.exp(rng.uniform(np.log(1e-3), np.log(0.5), 2)).astype(np.float32)
    lows = [-128 if np.dtype(kind) == np.int8 else 0 for kind in (source, target)]
    zeros = [int(rng.integers(low, low + 256)) for low in lows]
    if seed % 3 == 0:
        scales[1], zeros[1] = scales[0], zeros[0] + lows[1] - lows[0]
    b = ModelBuilder()
    x = b.input(SHAPE, scale=float(scales[0]), zero_point=zeros[0], dtype=source)
    code = "DEQUANTIZE" if np.dtype(target) == np.float32 else "QUANTIZE"
    b.operator(code, [x], SHAPE, scale=float(scales[1]), zero_point=zeros[1], dtype=target)
    infos = [
        TensorInfo(
            name=name,
            shape=SHAPE,
            dtype=np.dtype(kind).name,
            scale=0.0 if np.dtype(kind) == np.float32 else float(scale),
            zero_point=0 if np.dtype(kind) == np.float32 else zero,
        )
        for name, kind, scale, zero in zip("xy", (source, target), scales, zeros, strict=True)
    ]
    return b.finish(), infos[0], infos[1]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.int8, np.float32),
        (np.uint8, np.float32),
        (np.int8, np.uint8),
        (np.uint8, np.int8),
        (np.int8, np.int8),
    ],
)
def test_integers_are_converted_as_by_the_reference(source: Any, target: Any, seed: int) -> None:
    model, x, y = between(source, target, seed)
    every = np.arange(256, dtype=np.uint8).view(source).reshape(SHAPE)
    assert np.array_equal(convert(x, y, every), reference(model, every))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("target", [np.int8, np.uint8])
def test_floats_are_converted_as_by_the_reference(target: Any, seed: int) -> None:
    model, x, y = between(np.float32, target, seed)
    rng = np.random.default_rng(seed)
    # Halves of a step, where roundings differ, and beyond both ends.
    steps = rng.integers(-300, 300, SHAPE) / 2
    values = (steps * y.scale).astype(np.float32)
    # The neighbours of a half, and what no 32-bit integer can say.
    nearly = np.nextafter(np.float32(0.5), np.float32(0)) * np.float32(y.scale)
    values[0, 0, 0, :8] = [0.0, -0.0, nearly, -nearly, np.inf, -np.inf, 1e30, -1e30]
    assert np.array_equal(convert(x, y, values), reference(model, values))


TYPES = {"bool": 6, "float32": 0, "int16": 7, "int32": 2, "int64": 4, "int8": 9, "uint8": 3}
"""Numbers of the types in the schema."""


def cast(b: ModelBuilder, x: TensorHandle, source: str, target: str) -> TensorHandle:
    options = {"InDataType": TYPES[source], "OutDataType": TYPES[target]}
    return b.operator("CAST", [x], x.shape, dtype=target, options=("CastOptions", options))


def every(kind: str) -> npt.NDArray[Any]:
    """Return values of a type: its ends, its small numbers, and of floats what no integer says."""
    rng = np.random.default_rng(1)
    dtype = np.dtype(kind)
    if dtype.kind == "b":
        return rng.integers(0, 2, SHAPE).astype(dtype)
    values = rng.integers(-300, 300, SHAPE).astype(np.float64)
    if dtype.kind == "f":
        values = values / 7
        values[0, 0, 0, :8] = [np.inf, -np.inf, np.nan, -0.0, 3e9, -3e9, 1e30, -128.99]
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    result = np.clip(values, max(limits.min, -300), min(limits.max, 300)).astype(dtype)
    result[0, 0, 0, :4] = [limits.min, limits.max, 0, 1]
    return result


@pytest.mark.parametrize("source", sorted(CASTS))
def test_casts_are_those_of_the_reference(source: str) -> None:
    assert TYPES.keys() == CASTS
    values = every(source)
    for target in sorted(CASTS - {source}):
        b = ModelBuilder()
        cast(b, b.input(SHAPE, dtype=source), source, target)
        x, y = (TensorInfo(name=kind, shape=SHAPE, dtype=kind) for kind in (source, target))
        model = b.finish()
        expected = reference(model, values)
        assert np.array_equal(convert(x, y, values, cast=True), expected), target
        assert np.array_equal(floats.cast(values, dtype=target), expected), target


@pytest.mark.parametrize(
    ("source", "target"),
    [("int16", "int8"), ("int32", "int8"), ("int8", "int16"), ("int16", "float32")],
)
def test_wider_integers_are_converted_as_by_the_reference(source: str, target: str) -> None:
    b = ModelBuilder()
    scales = (0.0007, 0.05) if source != "int8" else (0.05, 0.0007)
    x = b.input(SHAPE, scale=scales[0], zero_point=4 if source == "int8" else 0, dtype=source)
    code = "DEQUANTIZE" if target == "float32" else "QUANTIZE"
    zero = 4 if target == "int8" else 0
    b.operator(code, [x], SHAPE, scale=scales[1], zero_point=zero, dtype=target)
    infos = [
        TensorInfo(name=kind, shape=SHAPE, dtype=kind, scale=np.float32(scale).item(), zero_point=z)
        for kind, scale, z in ((source, scales[0], x.zero_point), (target, scales[1], zero))
    ]
    values = every(source)
    assert np.array_equal(convert(infos[0], infos[1], values), reference(b.finish(), values))


@pytest.mark.parametrize("ends", ["uint8", "int32", "bool", "float16"])
def test_conversions_by_way_of_floats(ends: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    b = ModelBuilder()
    shape = (1, 6, 6, 3)
    x = b.input(shape, dtype=ends)
    if ends == "float16":
        real = b.operator("DEQUANTIZE", [x], shape, dtype=np.float32)
    else:
        real = cast(b, x, ends, "float32")
    q = b.operator("QUANTIZE", [real], shape, scale=1.3, zero_point=-100)
    weights = rng.integers(-127, 128, (5, 3, 3, 3)).astype(np.int8)
    y = b.conv2d(q, weights, w_scales=0.01, scale=4.0, zero_point=3)
    out = b.operator("DEQUANTIZE", [y], y.shape, dtype=np.float32)
    if ends != "float16":
        out = cast(b, out, "float32", ends)
    path = tmp_path / "model.tflite"
    path.write_bytes(b.finish([out]))
    for batch in (1, 2):
        report = celosia.check(path, BASE, device="emu", count=3, batch=batch)
        assert report.equal
        assert report.sources == ("golden model", "reference interpreter")
        saved = tmp_path / "model.celosia"
        report.program.save(saved)
        assert Program.load(saved) == report.program
    assert report.program.inputs[0].dtype == ends
    assert len(report.program.layers) == 1


def network(inner: int, dtype: Any) -> bytes:
    """Return a convolution between conversions, with `inner` readers of the input."""
    rng = np.random.default_rng(3)
    b = ModelBuilder()
    x = b.input((1, 6, 6, 3), scale=0.04, zero_point=120, dtype=dtype)
    outputs = []
    for number in range(inner):
        scale = 0.05 * (number + 1)
        q = b.operator("QUANTIZE", [x], (1, 6, 6, 3), scale=scale, zero_point=-8)
        weights = rng.integers(-127, 128, (5, 3, 3, 3)).astype(np.int8)
        y = b.conv2d(q, weights, w_scales=0.01, scale=0.4, zero_point=3)
        code = "DEQUANTIZE" if dtype is np.float32 else "QUANTIZE"
        outputs.append(b.operator(code, [y], (1, 6, 6, 5), scale=0.3, zero_point=128, dtype=dtype))
    return b.finish(outputs)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("inner", [1, 2])
def test_a_model_with_converted_ends_is_equal(dtype: Any, inner: int, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(network(inner, dtype))
    report = celosia.check(path, BASE, device="emu", count=3)
    assert report.equal
    assert report.sources == ("golden model", "reference interpreter")
    # Input, output and what is between them are compared: three tensors a branch.
    assert report.tensors == 3 * inner
    program = report.program
    assert [info.dtype for info in (*program.inputs, *program.outputs)] == [
        np.dtype(dtype).name
    ] * (1 + inner)
    saved = tmp_path / "model.celosia"
    program.save(saved)
    assert Program.load(saved) == program


def test_inputs_are_given_as_the_model_takes_them() -> None:
    program = celosia.compile(network(1, np.float32), BASE)
    values = np.zeros((1, 6, 6, 3), np.float64)
    with celosia.open("emu", BASE) as device:
        once = device.run(program, values).output
        assert once.dtype == np.float32
        assert np.array_equal(device.run(program, values, quantize=True).output, once)
        with pytest.raises(InputError, match="its dtype is int8, the model takes float32"):
            device.run(program, values.astype(np.int8))
        with pytest.raises(InputError, match="not a number"):
            device.run(program, values * np.nan)


def test_the_command_line_takes_and_shows_floats(tmp_path: Path) -> None:
    model, values, target = (tmp_path / name for name in ("m.tflite", "x.npy", "out.json"))
    model.write_bytes(network(1, np.float32))
    np.save(values, np.full((2, 6, 6, 3), 0.5, np.float32))
    options = ["--config", "base", "--device", "emu", "--input", str(values), "--check"]
    result = run_cli("run", str(model), *options, "--json", str(target))
    assert result.exit_code == 0, result.output
    assert "all 3 tensors equal" in result.output
    shown = re.search(r"\[1, 6, 6, 5\], (-?[\d.]+) to (-?[\d.]+), mean", result.output)
    assert shown is not None
    assert float(shown[1]) < float(shown[2])
    assert json.loads(target.read_text(encoding="utf-8"))["equal"] is True


def test_a_conversion_inside_a_model_is_refused() -> None:
    b = ModelBuilder()
    x = b.input((1, 4), scale=0.1)
    f = b.operator("DEQUANTIZE", [x], (1, 4), dtype=np.float32)
    g = b.operator("CUMSUM", [f], (1, 4), dtype=np.float32)
    b.operator("QUANTIZE", [g], (1, 4), scale=0.1)
    with pytest.raises(UnsupportedError, match="computes in float32 in part"):
        load(b.finish())


def test_nothing_but_conversions_is_refused() -> None:
    b = ModelBuilder()
    x = b.input((1, 4), dtype=np.float32)
    q = b.operator("QUANTIZE", [x], (1, 4), scale=0.1)
    b.operator("DEQUANTIZE", [q], (1, 4), dtype=np.float32)
    with pytest.raises(UnsupportedError, match="inputs or outputs are float32"):
        lower(load(b.finish()))


@pytest.mark.parametrize(
    ("conversions", "words"),
    [
        ((("x", "nowhere"),), "no such tensor"),
        ((("x", "x"),), "something else makes it"),
        ((), "needed before anything makes it"),
    ],
)
def test_conversions_that_make_no_sense_are_refused(conversions: Any, words: str) -> None:
    program = celosia.compile(network(1, np.uint8), BASE)
    name = program.inputs[0].name
    named = tuple((name if a == "x" else a, name if b == "x" else b) for a, b in conversions)
    with pytest.raises(ProgramError, match=words):
        Program(
            config=program.config,
            inputs=program.inputs,
            outputs=program.outputs,
            segments=program.segments,
            conversions=named,
        )
