"""Operators that move elements: golden against the reference, programs against golden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from celosia.errors import CompileError, ModelError, UnsupportedError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import Load
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.ir import MoveOp, ReshapeOp
from celosia.sw.compiler.lower import lower
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.random_models import RandomModel
from tests.kit.random_moves import MOVES, random_move

SEEDS = range(12)
SMALL = NpuConfig(
    name="small", rows=8, cols=8, act_bytes=1024, wgt_bytes=256, param_bytes=512, acc_depth=32
)
CONFIGS = [*map(preset, ("nano", "tiny", "base", "large")), SMALL]
WITHOUT_REFERENCE = {"BROADCAST_TO"}
"""The interpreter takes version 2 of it only, and the models here are written as version 1."""


def drawn(code: str, seed: int) -> RandomModel:
    return random_move(code, np.random.default_rng([seed, 33]))


def compiled(case: RandomModel, config: NpuConfig, *, keep_tensors: bool) -> Program | None:
    """Return the program; None if a tensor does not fit the small machine."""
    try:
        return compile_model(case.model, config, keep_tensors=keep_tensors, host="refuse")
    except CompileError:
        if config is not SMALL:
            raise
        return None


@pytest.mark.parametrize("code", [code for code in MOVES if code not in WITHOUT_REFERENCE])
def test_golden_is_the_reference(code: str) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    for seed in SEEDS:
        case = drawn(code, seed)
        interpreter = litert.Interpreter(
            model_content=case.model,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        )
        interpreter.allocate_tensors()
        for details, values in zip(interpreter.get_input_details(), case.inputs, strict=True):
            interpreter.set_tensor(details["index"], values)
        interpreter.invoke()
        got = GoldenModel(case.model).run_by_index(case.inputs)
        for details in interpreter.get_output_details():
            index = details["index"]
            assert np.array_equal(got[index], interpreter.get_tensor(index)), (seed, index)


@pytest.mark.parametrize("code", MOVES)
def test_programs_equal_golden_on_every_machine(code: str) -> None:
    compared = 0
    for seed in SEEDS:
        case = drawn(code, seed)
        want = GoldenModel(case.model).run(case.inputs)
        config = CONFIGS[seed % len(CONFIGS)]
        program = compiled(case, config, keep_tensors=bool(seed & 1))
        if program is None:
            continue
        with open_device("emu", config, memory_bytes=1 << 22) as device:
            tensors = device.run(program, case.inputs).tensors
            outputs = device.run(program, case.inputs).outputs
        for name, values in {**tensors, **outputs}.items():
            assert np.array_equal(values, want[name]), (seed, config.name, name)
            compared += 1
    assert compared >= len(SEEDS)


def one(code: str, shape: tuple[int, ...], *rest: Any, **options: Any) -> Any:
    """Return the operator that a model of one movement is lowered to."""
    b = ModelBuilder()
    x = b.input(shape, scale=0.1, zero_point=3)
    operands = [x, *(b.constant(np.array(values, np.int32)) for values in rest)]
    table = options.pop("table", None)
    b.operator(code, operands, options["result"], scale=0.1, zero_point=3, options=table)
    (op,) = lower(load(b.finish())).ops
    return op


def test_a_slice_of_rows_is_one_run() -> None:
    op = one("SLICE", (1, 8, 6, 5), [0, 2, 0, 0], [1, 3, 6, 5], result=(1, 3, 6, 5))
    assert isinstance(op, MoveOp)
    (box,) = op.boxes
    assert (box.offset, box.step_y, box.step_x, box.step_c) == (2 * 30, 30, 5, 1)


def test_a_transpose_is_one_box_of_single_elements() -> None:
    op = one("TRANSPOSE", (1, 6, 9, 7), [0, 3, 2, 1], result=(1, 7, 9, 6))
    (box,) = op.boxes
    assert (box.height, box.width, box.channels) == (7, 9, 6)
    assert (box.step_y, box.step_x, box.step_c) == (1, 7, 63)


def test_what_moves_nothing_is_a_reshape() -> None:
    assert isinstance(one("TRANSPOSE", (1, 6, 1, 7), [0, 2, 1, 3], result=(1, 1, 6, 7)), ReshapeOp)
    assert isinstance(one("TILE", (1, 6, 7), [1, 1, 1], result=(1, 6, 7)), ReshapeOp)


def test_few_commands_for_regular_movements() -> None:
    """Two loads for two halves of the channels: what is regular is not taken apart."""
    b = ModelBuilder()
    x, y = (b.input((1, 16, 16, 8), scale=0.1) for _ in range(2))
    b.operator(
        "CONCATENATION",
        [x, y],
        (1, 16, 16, 16),
        scale=0.1,
        options=("ConcatenationOptions", {"Axis": 3}),
    )
    program = compile_model(b.finish(), preset("base"))
    loads = [command for command in program.npu.decode() if isinstance(command, Load)]
    assert len(loads) == 2


def test_a_convolution_behind_a_movement_is_not_said_to_be_folded() -> None:
    b = ModelBuilder()
    x, y = (b.input((1, 6, 6, 8), scale=0.1) for _ in range(2))
    table = ("ConcatenationOptions", {"Axis": 3})
    both = b.operator("CONCATENATION", [x, y], (1, 6, 6, 16), scale=0.1, options=table)
    b.conv2d(both, np.ones((8, 3, 3, 16), np.int8), w_scales=0.01, scale=0.2)
    movement, convolution = compile_model(b.finish(), preset("base")).layers
    assert movement.reason == "load engine, 2 parts"
    assert convolution.reason == "window 3x3, channels, 18 passes"


def test_an_ellipsis_stands_for_one_axis_at_least() -> None:
    """The kernel ignores the places that are then too many; Python would let it stand for none."""
    table = ("StridedSliceOptions", {"EllipsisMask": 1})
    places = [[0, 1, 2], [0, 3, 3], [1, 1, 1]]
    op = one("STRIDED_SLICE", (1, 4, 6), *places, result=(1, 2, 1), table=table)
    assert isinstance(op, MoveOp)
    assert (op.boxes[0].offset, op.boxes[0].height) == (8, 2)
    op = one("STRIDED_SLICE", (1, 4), *places, result=(1, 2), table=table)
    assert isinstance(op, MoveOp)
    assert (op.boxes[0].offset, op.boxes[0].channels) == (1, 2)


def test_different_scales_are_refused_as_by_the_reference() -> None:
    b = ModelBuilder()
    x, y = b.input((1, 4), scale=0.1), b.input((1, 4), scale=0.2)
    b.operator(
        "CONCATENATION", [x, y], (1, 8), scale=0.1, options=("ConcatenationOptions", {"Axis": 1})
    )
    with pytest.raises(UnsupportedError, match="CONCATENATION #0 .*: .* differ in quantisation"):
        lower(load(b.finish()))


@pytest.mark.parametrize(
    ("code", "rest", "result", "message"),
    [
        ("SLICE", ([0, 3], [1, 4]), (1, 4), r"begin \[0, 3\] and size"),
        ("TRANSPOSE", ([0, 2],), (1, 5), "axis 2"),
        ("TRANSPOSE", ([0, 0],), (1, 5), "repeated axis"),
        ("TILE", ([1, 3],), (1, 5), r"it gives \[1, 15\]"),
        ("TILE", ([1, 1 << 30],), (1, 5), "it gives"),
        ("PAD", ([[0, 0], [1 << 30, 0]],), (1, 5), "it pads"),
        ("MIRROR_PAD", ([[0, 0], [7, 0]],), (1, 12), "it mirrors"),
        ("GATHER", ([9],), (1, 1), "out of bounds"),
    ],
)
def test_contradictions_are_told(code: str, rest: Any, result: Any, message: str) -> None:
    tables = {
        "GATHER": ("GatherOptions", {"Axis": 1}),
        "MIRROR_PAD": ("MirrorPadOptions", {"Mode": 0}),
    }
    with pytest.raises(ModelError, match=rf"{code} #0 .*: .*{message}"):
        one(code, (1, 5), *rest, result=result, table=tables.get(code))
