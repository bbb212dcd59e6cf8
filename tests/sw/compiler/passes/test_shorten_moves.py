"""Movements of models with variables that go past system memory."""

from __future__ import annotations

import celosia
import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Region, Transfer
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler import build
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import MoveOp, PartOp
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.passes.shorten_moves import shorten_moves
from celosia.sw.compiler.verify import verify
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel
from celosia.sw.report.samples import random_samples
from celosia.sw.runtime.session import Session

from tests.kit.stateful_models import QUANTISED, joined, rows_of, window_model

CONFIG = preset("base")


def test_what_a_window_leaves_is_stored_from_the_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = lower(load(window_model()))
    shorter = shorten_moves(graph)
    verify(shorter)
    parts = [op for op in shorter.ops if isinstance(op, PartOp)]
    assert [(op.y, op.x) for op in parts] == [(3, 0), (1, 0)]
    assert [op.output for op in parts] == [variable.after for variable in graph.state]
    # Images that are packed go through memory, too, which by prediction may be as fast.
    monkeypatch.setattr(build, "pack_image", lambda graph, config: graph)
    program = build.compile_graph(shorter, CONFIG)
    moved = [
        command
        for command in program.npu.decode()
        if isinstance(command, Transfer) and command.region == Region.SCRATCH
    ]
    # Per window its variable is stored; what the convolution in front makes is written into it.
    assert len(moved) == 2


def test_what_is_moved_twice_is_moved_once() -> None:
    b = ModelBuilder()
    x = b.input((1, 2, 2, 6), **QUANTISED)
    state = b.variable(np.arange(48, dtype=np.int8).reshape(1, 4, 2, 6), **QUANTISED)
    window = joined(b, [b.read_variable(state), x])
    b.assign_variable(state, b.relu(rows_of(b, window, 2, 6)))
    middle = rows_of(b, window, 3, 5)
    padding = b.constant(np.array([[0, 0], [1, 0], [0, 0], [0, 0]], np.int32))
    value = b.constant(np.array([7], np.int8), scales=0.1, zero_point=3)
    padded = b.operator("PADV2", [middle, padding, value], (1, 3, 2, 6), **QUANTISED)
    model = b.finish([b.relu(rows_of(b, padded, 0, 2))])
    graph = lower(load(model))
    shorter = shorten_moves(graph)
    verify(shorter)
    count = [sum(isinstance(op, MoveOp) for op in g.ops) for g in (graph, shorter)]
    assert count == [5, 2]
    assert outputs(celosia.compile(model, CONFIG)) == outputs(
        celosia.compile(model, CONFIG, keep_tensors=True)
    )


def outputs(program: Program) -> list[bytes]:
    with open_device("emu", CONFIG) as device:
        session = Session(program, device)
        samples = random_samples(program, 4, 0)
        return [session.run(sample).output.tobytes() for sample in samples]


def test_what_is_moved_into_every_other_pixel_is_followed() -> None:
    """The places of a box of an enlarged image are apart."""
    b = ModelBuilder()
    x = b.input((1, 2, 2, 6), **QUANTISED)
    state = b.variable(np.arange(48, dtype=np.int8).reshape(1, 4, 2, 6), **QUANTISED)
    window = joined(b, [b.read_variable(state), x])
    b.assign_variable(state, rows_of(b, window, 2, 6))
    four = b.constant(np.array([1, 1, 1, 4], np.int32))
    deep = b.operator("TILE", [window, four], (1, 6, 2, 24), **QUANTISED)
    options = ("DepthToSpaceOptions", {"BlockSize": 2})
    large = b.operator("DEPTH_TO_SPACE", [deep], (1, 12, 4, 6), options=options, **QUANTISED)
    model = b.finish([large])
    golden = GoldenModel(model)
    values = np.random.default_rng(1).integers(-128, 128, x.shape, np.int8)
    want = golden.run([values])
    with open_device("emu", CONFIG) as device:
        result = device.run(celosia.compile(model, CONFIG), [values])
    for name, got in result.outputs.items():
        np.testing.assert_array_equal(got, want[name])
