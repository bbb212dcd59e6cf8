"""Compiled programs on the emulator, every tensor against the golden model.

Programs run in program order and in random orders of the engines: a token that the compiler
forgot shows as a wrong result. On-chip memories and system memory start with random contents, so
that reading what nothing wrote shows as well.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import CompileError, UnsupportedError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_graph, compile_model
from celosia.sw.compiler.frontends.tflite import convert as frontend
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.passes import fold_input
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run
from tests.kit.places import DIGITS, benchmark_model
from tests.kit.random_models import OPERATORS, RandomModel, random_network, random_operator

MODEL_NAMES = ("kws", "sww", "ad01", "resnet8", "vww_96")

Int8 = npt.NDArray[np.int8]


def assert_equal(
    got: dict[str, npt.NDArray[np.generic]], want: dict[str, npt.NDArray[np.generic]], what: str
) -> int:
    """Compare all tensors that both have; return how many."""
    common = [name for name in got if name in want]
    for name in common:
        np.testing.assert_array_equal(got[name], want[name], err_msg=f"{what}: tensor {name}")
    return len(common)


@cache
def reference(path: Path) -> tuple[list[Int8], dict[str, npt.NDArray[np.generic]]]:
    """Return random inputs of a model and the golden model's tensors for them."""
    model = GoldenModel(path)
    rng = np.random.default_rng(20)
    inputs = [rng.integers(-128, 128, info.shape, dtype=np.int8) for info in model.inputs]
    return inputs, dict(model.run(inputs))


@pytest.mark.parametrize("config", ["nano", "tiny", "base", "wide", "large"])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_tensor_of_a_benchmark_model_is_exact(name: str, config: str) -> None:
    path = benchmark_model(name)
    inputs, want = reference(path)
    program = compile_model(path, preset(config), keep_tensors=True)
    compared = assert_equal(run(program, inputs), want, "program order")
    assert compared >= len(program.layers) - 1
    if config != "nano":
        assert_equal(run(program, inputs, "random", 1), want, "random order 1")


@pytest.mark.parametrize("config", ["tiny", "base", "wide", "large"])
@pytest.mark.parametrize("name", MODEL_NAMES)
def test_fused_programs_of_benchmark_models_are_exact(name: str, config: str) -> None:
    path = benchmark_model(name)
    inputs, want = reference(path)
    program = compile_model(path, preset(config))
    for seed in (0, 1, 2):
        assert assert_equal(run(program, inputs, "random", seed), want, f"random order {seed}")


@pytest.mark.parametrize("config", ["nano", "tiny", "base", "wide", "large"])
def test_shipped_example_is_exact(config: str) -> None:
    inputs, want = reference(DIGITS)
    program = compile_model(DIGITS, preset(config), keep_tensors=True)
    assert assert_equal(run(program, inputs, "random", 3), want, "random order 3") > 1


def random_config(rng: np.random.Generator) -> NpuConfig:
    """Return a machine whose memories are a few lines, so that most things have to be cut."""
    size = int(rng.choice([4, 4, 8, 8, 16]))
    widths = [bits for bits in (32, 64, 128) if bits <= 8 * size]
    return NpuConfig(
        rows=size,
        cols=size,
        bus_bits=int(rng.choice(widths)),
        act_bytes=int(32 * size << rng.integers(0, 6)),
        wgt_bytes=int(2 * size * size << rng.integers(0, 4)),
        param_bytes=int(32 * size << rng.integers(0, 2)),
        acc_depth=int(16 << rng.integers(0, 4)),
        queue_depth=int(rng.choice([2, 4, 8])),
    )


def random_model(rng: np.random.Generator) -> RandomModel:
    if rng.random() < 0.3:
        return random_operator(OPERATORS[int(rng.integers(len(OPERATORS)))], rng)
    size = (int(rng.integers(1, 25)), int(rng.integers(1, 25)))
    return random_network(rng, depth=int(rng.integers(2, 8)), size=size)


def test_folded_inputs_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding pays for few shapes; here it is done whether it pays or not."""
    monkeypatch.setattr(fold_input, "LEAST_GAIN_CYCLES", -(10**9))
    for seed in range(150):
        rng = np.random.default_rng(seed)
        size, channels, cout = rng.integers(1, 21, 2), int(rng.integers(1, 5)), 9
        kernel = int(rng.integers(2, 11)), int(rng.integers(1, 6))
        fits = all(k <= n for k, n in zip(kernel, size, strict=True))
        builder = ModelBuilder()
        x = builder.input(
            (1, int(size[0]), int(size[1]), channels),
            scale=0.1,
            zero_point=int(rng.integers(-128, 128)),
        )
        y = builder.conv2d(
            x,
            rng.integers(-127, 128, (cout, *kernel, channels), dtype=np.int8),
            w_scales=0.01,
            scale=1.0,
            zero_point=int(rng.integers(-128, 128)),
            strides=(int(rng.integers(1, 4)), int(rng.integers(1, 5))),
            padding="VALID" if fits and seed % 2 else "SAME",
        )
        model = builder.finish([y])
        config = preset(("nano", "base", "large")[seed % 3]).with_(act_bytes=1 << 15)
        graph = lower(frontend.load(model))
        folded = fold_input.fold_input(graph, config)
        assert any(isinstance(op, fold_input.FoldOp) for op in folded.ops)
        inputs = [rng.integers(-128, 128, x.shape, dtype=np.int8)]
        want = dict(GoldenModel(model).run(inputs))
        program = compile_graph(folded, config)
        assert assert_equal(run(program, inputs, "random", seed), want, f"seed {seed}") == 1


def test_random_models_on_machines_that_are_too_small_are_exact() -> None:
    exact = cut = split = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        model, config = random_model(rng), random_config(rng)
        keep = bool(rng.random() < 0.6)
        try:
            program = compile_model(model.model, config, keep_tensors=keep, host="refuse")
        except (CompileError, UnsupportedError):
            continue
        want = dict(GoldenModel(model.model).run(model.inputs))
        assert assert_equal(run(program, model.inputs), want, f"seed {seed}"), f"seed {seed}"
        got = run(program, model.inputs, "random", seed)
        assert assert_equal(got, want, f"seed {seed}, random order"), f"seed {seed}"
        exact += 1
        cut += any("stripes" in layer.reason for layer in program.layers)
        split += any(getattr(command, "hold", 0) for command in program.npu.decode())
    # The seeds are worth something only if they reach the paths that large machines never take.
    assert exact >= 50
    assert cut >= 15
    assert split >= 10
