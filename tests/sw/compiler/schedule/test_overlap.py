"""Layers that overlap: every output is computed once, early, and is right in any order."""

from __future__ import annotations

import numpy as np
import pytest
from celosia.errors import CompileError, UnsupportedError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Conv, Engine, Mode
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.schedule.schedule import Manner
from celosia.sw.profile.profile import predicted_profile
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run
from tests.kit.machines import MACHINES
from tests.kit.manners import EAGER, forced
from tests.kit.places import benchmark_model
from tests.kit.random_joins import random_joined_network
from tests.kit.random_models import random_network

BASE = preset("base")
CODES = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "MAX_POOL_2D", "AVERAGE_POOL_2D")


def separable(layers: int, channels: int) -> bytes:
    """Return pixel and depthwise convolutions in turn, 25 by 5 pixels."""
    rng = np.random.default_rng(layers)
    b = ModelBuilder()
    x = b.input((1, 25, 5, channels), scale=0.1, zero_point=3)
    for index in range(layers):
        if index % 2:
            w = rng.integers(-127, 128, (1, 3, 3, channels), dtype=np.int8)
            x = b.depthwise_conv2d(x, w, w_scales=0.01, scale=0.1, zero_point=-4)
        else:
            w = rng.integers(-127, 128, (channels, 1, 1, channels), dtype=np.int8)
            x = b.conv2d(x, w, w_scales=0.01, scale=0.1, zero_point=-4)
    return b.finish([x])


def waits(program: Program) -> list[int]:
    """Return the cycles that the array stands between two layers, by prediction."""
    (segment,) = predicted_profile(program).segments
    array = [span for span in segment.commands if span.engine is Engine.ARRAY]
    pairs = zip(array, array[1:], strict=False)
    return [after.start - before.end for before, after in pairs if before.layer != after.layer]


def test_the_array_goes_on_with_the_next_layer() -> None:
    model = separable(6, 64)
    plain, best = Manner(weight_chunks=2), compile_model(model, BASE)
    with forced(plain):
        apart = compile_model(model, BASE)
    assert min(waits(apart)) > 80
    # The second layer's first weights come over the bus until it begins.
    first, *others = waits(best)
    assert first < 40
    assert max(others) <= 2
    assert best.predicted_cycles < apart.predicted_cycles - 5 * 80
    convs = [command for command in best.npu.decode() if isinstance(command, Conv)]
    assert any(conv.hold for conv in convs)


def pixels(rng: np.random.Generator, size: tuple[int, int], view: tuple[int, int]) -> bytes:
    """Return two pixel convolutions, the second one over another view of the first one's output."""
    b = ModelBuilder()
    x = b.input((1, *size, 64), scale=0.1, zero_point=3)
    for shape in (view, None):
        w = rng.integers(-127, 128, (64, 1, 1, 64), dtype=np.int8)
        x = b.conv2d(x, w, w_scales=0.01, scale=0.1, zero_point=-4)
        if shape is not None and shape != size:
            x = b.reshape(x, (1, *shape, 64))
    return b.finish([x])


def test_layers_overlap_across_a_view() -> None:
    model = pixels(np.random.default_rng(1), (5, 25), (25, 5))
    program = compile_model(model, BASE)
    neighbours = compile_model(pixels(np.random.default_rng(1), (5, 25), (5, 25)), BASE)
    with forced(Manner()):
        apart = compile_model(model, BASE)
    assert program.predicted_cycles == neighbours.predicted_cycles
    assert program.predicted_cycles < apart.predicted_cycles - 500
    given = [np.random.default_rng(2).integers(-128, 128, (1, 5, 25, 64), np.int8)]
    want = GoldenModel(model).run(given)
    for order in range(3):
        for tensor, values in run(program, given, "random", order).items():
            np.testing.assert_array_equal(values.ravel(), want[tensor].ravel())


def test_tiles_of_a_few_vectors_overlap_in_one_manner_only() -> None:
    model = pixels(np.random.default_rng(1), (1, 3), (1, 3))
    commands = {}
    for least in (1, 12):
        with forced(Manner(overlap=True, least=least)):
            commands[least] = len(compile_model(model, BASE).npu.decode())
    assert commands[1] > commands[12]


def test_rows_that_meet_no_weight_are_not_read() -> None:
    """A pass of two kernel rows of three has a fourth row, which may not be written yet."""
    model = benchmark_model("vww_96").read_bytes()
    # With four lanes an accumulator tile is a single row. Compilation checks its program.
    program = compile_model(model, BASE.with_(lanes=4))
    heads = [
        command
        for command in program.npu.decode()
        if isinstance(command, Conv) and command.mode == Mode.ROWS and command.ky_rows == 2
    ]
    read = [conv.y0 + (conv.out_h - 1) + conv.n_ky * conv.ky_rows for conv in heads]
    assert any(conv.in_h < end for conv, end in zip(heads, read, strict=True))


@pytest.mark.parametrize("name", ["small4", "small8", "tiny", "base", "large"])
def test_random_networks_are_right_in_any_order(name: str) -> None:
    config, ran = MACHINES[name], 0
    for seed in range(12):
        rng = np.random.default_rng((seed, 77))
        if seed % 2:
            model = random_network(rng, depth=6, size=(12, 9), codes=CODES)
        else:
            model = random_joined_network(rng, depth=8)
        try:
            with forced(EAGER):
                program = compile_model(model.model, config, host="refuse")
        except (CompileError, UnsupportedError):
            continue
        want = GoldenModel(model.model).run(model.inputs)
        for order in range(3):
            got = run(program, model.inputs, "random", order)
            for tensor, values in got.items():
                np.testing.assert_array_equal(
                    values.ravel(), want[tensor].ravel(), err_msg=f"seed {seed}, {tensor}"
                )
        ran += 1
    assert ran >= 8
