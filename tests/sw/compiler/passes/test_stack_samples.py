"""Several samples in one run: as rows of the same tensors, or one after the other; always equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import CompileError, InputError, ProgramError, UnsupportedError
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.passes.one_sample import one_sample
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.command_line import run_cli
from tests.kit.places import benchmark_model
from tests.kit.tools import needs_simulator

Model = tuple[Path, str]


def int8(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.int8]:
    return rng.integers(-100, 101, shape).astype(np.int8)


def dense(batch: int) -> bytes:
    """Fully connected layers, a table, an addition and a softmax."""
    rng = np.random.default_rng(5)
    b = ModelBuilder()
    x = b.input((batch, 40), scale=0.05, zero_point=3)
    y = b.fully_connected(x, int8(rng, 24, 40), None, w_scales=0.01, scale=0.3)
    z = b.fully_connected(b.tanh(y), int8(rng, 24, 24), None, w_scales=0.01, scale=0.1)
    s = b.add(y, z, scale=0.3)
    b.softmax(b.fully_connected(s, int8(rng, 11, 24), None, w_scales=0.01, scale=0.2))
    return b.finish()


def patches(batch: int) -> bytes:
    """Windows that lie within an image: patches, rows, a whole image; and a movement."""
    rng = np.random.default_rng(6)
    b = ModelBuilder()
    x = b.input((batch, 8, 6, 3), scale=0.05, zero_point=3)
    y = b.conv2d(x, int8(rng, 9, 2, 2, 3), w_scales=0.01, scale=0.3, strides=(2, 2))
    y = b.conv2d(y, int8(rng, 8, 1, 3, 9), w_scales=0.01, scale=0.3, padding="SAME")
    y = b.max_pool2d(y, size=(2, 1), strides=(2, 1))
    axes = b.constant(np.array([2], np.int32))
    y = b.operator("REVERSE_V2", [y, axes], y.shape, scale=y.scale, zero_point=y.zero_point)
    b.fully_connected(y, int8(rng, 5, 48), None, w_scales=0.01, scale=0.3)
    return b.finish()


def overlapping(batch: int) -> bytes:
    """A convolution whose windows overlap and are padded."""
    rng = np.random.default_rng(7)
    b = ModelBuilder()
    x = b.input((batch, 6, 6, 3), scale=0.05, zero_point=3)
    y = b.conv2d(x, int8(rng, 8, 3, 3, 3), w_scales=0.01, scale=0.3, padding="SAME")
    y = b.mean(y, axes=(1, 2), scale=0.2)
    b.fully_connected(y, int8(rng, 5, 8), None, w_scales=0.01, scale=0.3)
    return b.finish()


@pytest.mark.parametrize(
    ("make", "together"), [(dense, True), (patches, True), (overlapping, False)]
)
def test_samples_are_equal_to_runs_of_their_own(make: Any, together: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(make(1))
    program = celosia.compile(path, "tiny", batch=3)
    single = celosia.compile(path, "tiny")
    assert (program.one_by_one == "") is together
    assert (program.predicted_cycles < 3 * single.predicted_cycles) is together
    assert program.inputs[0].shape == (3, *single.inputs[0].shape[1:])
    rng = np.random.default_rng(8)
    values = rng.integers(-128, 128, program.inputs[0].shape, dtype=np.int8)
    saved = tmp_path / "model.celosia"
    program.save(saved)
    assert Program.load(saved) == program
    with celosia.open("emu", "tiny") as device:
        result = device.run(Program.load(saved), values).output
        alone = [device.run(single, values[n : n + 1]).output for n in range(3)]
    assert np.array_equal(result, np.concatenate(alone))
    # A model that has the batch in its shapes: the same in one run, without being asked.
    path.write_bytes(make(3))
    own = celosia.compile(path, "tiny")
    assert (own.one_by_one == "") is together
    with celosia.open("emu", "tiny") as device:
        assert np.array_equal(device.run(own, values).output, result)


@pytest.mark.parametrize("name", ["ad01", "sww"])
def test_a_benchmark_model_is_checked_sample_by_sample(name: str) -> None:
    report = celosia.check(benchmark_model(name), "base", batch=8)
    assert report.equal
    assert report.results[0].output.shape[0] == 8
    if name == "ad01":
        assert report.program.predicted_cycles < 8 * 5000
    else:
        first, _, cause = report.program.one_by_one.partition(": ")
        assert first.startswith("DEPTHWISE_CONV_2D #0 ('")
        assert cause == "it would mix rows of different samples"


def test_a_wrong_sample_is_found(tmp_path: Path) -> None:
    """The check has to fail where one element of one sample differs."""
    path = tmp_path / "model.tflite"
    path.write_bytes(overlapping(1))
    program = celosia.compile(path, "tiny", batch=3)
    constants = bytearray(program.npu.constants)
    constants[0] ^= 0x40
    from celosia.sw.reference.check import check_model
    from celosia.sw.report.samples import random_samples

    wrong = program.with_npu(constants=bytes(constants))
    with celosia.open("emu", "tiny") as device:
        samples = random_samples(wrong, 1, 0)
        report = check_model(path, program.config, device, samples, program=wrong)
    assert report.difference is not None
    assert "FULLY_CONNECTED" in str(report.difference)


@needs_simulator
def test_a_batch_on_the_rtl(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(dense(1))
    report = celosia.check(path, "base", device="sim", batch=8)
    assert report.equal
    cycles = report.results[0].cycles
    assert cycles is not None
    # Weights cross the bus once: far below eight times what one takes.
    single = celosia.check(path, "base", device="sim").results[0].cycles
    assert single is not None
    assert cycles < 3 * single


def test_what_a_batch_cannot_be() -> None:
    model = dense(1)
    for batch in (0, -1, 4097):
        with pytest.raises(CompileError, match=f"a batch of {batch}"):
            celosia.compile(model, "tiny", batch=batch)
    program = celosia.compile(model, "tiny", batch=2)
    with celosia.open("emu", "tiny") as device, pytest.raises(InputError, match=r"takes \[2, 40\]"):
        device.run(program, np.zeros((3, 40), np.int8))
    with pytest.raises(ProgramError, match="is not of 3 samples"):
        replace(program, batch=3)
    with pytest.raises(ProgramError, match="its batch is 0"):
        replace(program, batch=0)


def test_the_command_line_says_how_and_at_what_cost(tmp_path: Path) -> None:
    model, values = tmp_path / "m.tflite", tmp_path / "x.npy"
    model.write_bytes(overlapping(1))
    np.save(values, np.zeros((6, 6, 6, 3), np.int8))
    target = tmp_path / "m.celosia"
    result = run_cli("compile", str(model), "-o", str(target), "--batch", "3")
    assert "one sample after the other (CONV_2D #0 ('tensor_3'): it would mix rows" in result.output
    result = run_cli("run", str(target), "--device", "emu", "--input", str(values))
    assert result.exit_code == 0, result.output
    assert "sample 1:" in result.output  # two runs of three
    result = run_cli("run", str(target), "--batch", "3", "--device", "emu")
    assert result.exit_code == 2
    assert "Give --batch to celosia compile" in result.output


def test_a_number_for_each_sample_is_no_row_of_one() -> None:
    """A mean of each image without the axes it is over: the result is the channels of a pixel."""
    b = ModelBuilder()
    x = b.input((2, 5, 4, 1), scale=0.1)
    b.mean(x, scale=0.1, axes=(1, 2, 3), keep_dims=False)
    assert one_sample(load(b.finish())) is None
    assert [info.shape for info in celosia.compile(b.finish()).outputs] == [(2,)]


def test_axes_that_broadcast_onto_each_other_are_no_samples() -> None:
    """The first axis of a tensor of lower rank is not that of the result, equal as they are."""
    rng = np.random.default_rng(9)
    b = ModelBuilder()
    x, rows = b.input((2, 2, 4, 3), scale=0.1), b.input((2, 4, 3), scale=0.1)
    y = b.conv2d(x, int8(rng, 3, 3, 3, 3), w_scales=0.01, scale=0.3, padding="SAME")
    b.add(y, rows, scale=0.3)
    model = b.finish()
    assert one_sample(load(model)) is None
    inputs = [int8(rng, *x.shape), int8(rng, *rows.shape)]
    program = celosia.compile(model, "tiny")
    with celosia.open("emu", "tiny") as device:
        outputs = device.run(program, inputs).outputs
    expected = GoldenModel(model).run(inputs)
    assert all(np.array_equal(values, expected[name]) for name, values in outputs.items())


def test_what_a_model_keeps_is_of_all_its_samples() -> None:
    rng = np.random.default_rng(10)
    b = ModelBuilder()
    x = b.input((2, 4, 4, 3), scale=0.1)
    kept = b.variable(int8(rng, *x.shape), scale=0.3, zero_point=0)
    y = b.conv2d(x, int8(rng, 3, 3, 3, 3), w_scales=0.01, scale=0.3, padding="SAME")
    total = b.add(y, b.read_variable(kept), scale=0.3)
    b.assign_variable(kept, total)
    model = b.finish([total])
    assert one_sample(load(model)) is None
    with pytest.raises(UnsupportedError, match="has a batch of 2"):
        celosia.compile(model, "tiny", host="refuse")
