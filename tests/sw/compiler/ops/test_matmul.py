"""Products of two tensors of the run: programs on the emulator against the golden model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import ModelError, UnsupportedError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite import convert as frontend
from celosia.sw.compiler.ir import ConvOp, MatmulOp, MoveOp, NpuOp
from celosia.sw.compiler.lower import lower
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run
from tests.kit.references import assert_every_tensor_equal

Shape = tuple[int, ...]


class Product:
    """A BATCH_MATMUL of tensors that a RELU makes."""

    def __init__(
        self,
        shapes: tuple[Shape, Shape],
        out: Shape,
        *,
        zero_points: tuple[int, int] = (3, -5),
        adj: tuple[bool, bool] = (False, False),
        constant: int | None = None,
        made: bool = True,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        builder = ModelBuilder()
        self.inputs: list[npt.NDArray[np.int8]] = []
        operands: list[TensorHandle] = []
        for place, (shape, zero) in enumerate(zip(shapes, zero_points, strict=True)):
            values = rng.integers(-128, 128, shape).astype(np.int8)
            if place == constant:
                operands.append(builder.constant(values, scales=0.02, zero_point=zero))
                continue
            x = builder.input(shape, scale=0.02, zero_point=zero)
            self.inputs.append(values)
            operands.append(builder.relu(x, scale=0.02, zero_point=zero) if made else x)
        depth = shapes[0][-2] if adj[0] else shapes[0][-1]
        options = ("BatchMatMulOptions", {"AdjX": adj[0], "AdjY": adj[1]})
        scale = 0.02 * 0.02 * 80 * depth**0.5
        builder.operator("BATCH_MATMUL", operands, out, scale=scale, zero_point=-9, options=options)
        self.model = builder.finish()

    @property
    def ops(self) -> list[NpuOp]:
        return lower(frontend.load(self.model)).npu_ops

    def check(self, *configs: NpuConfig) -> None:
        golden = GoldenModel(self.model)
        want = golden.run(self.inputs)
        for seed, config in enumerate(configs):
            program = compile_model(self.model, config, keep_tensors=bool(seed % 2))
            got = run(program, self.inputs, "random", seed)
            for name in want.keys() & got.keys():
                np.testing.assert_array_equal(got[name], want[name], f"{config.name}: {name}")
            assert golden.outputs[0].name in got


PRESETS = tuple(preset(name) for name in ("tiny", "large"))


@pytest.mark.parametrize("zero_points", [(0, 0), (0, 7), (-128, 0), (-128, -128), (127, -1)])
def test_zero_points(zero_points: tuple[int, int]) -> None:
    product = Product(((1, 2, 9, 20), (1, 2, 20, 13)), (1, 2, 9, 13), zero_points=zero_points)
    product.check(preset("nano"), preset("base"))


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("adj", [(False, False), (True, False), (False, True), (True, True)])
def test_orders(adj: tuple[bool, bool], made: bool) -> None:
    shapes = ((1, 3, 11, 6)[: 2 if adj[0] else 4], (6, 10))
    x = shapes[0] if not adj[0] else (6, 11)
    y = (10, 6) if adj[1] else (6, 10)
    out = (11, 10) if adj[0] else (1, 3, 11, 10)
    Product((x, y), out, adj=adj, made=made).check(*PRESETS)


@pytest.mark.parametrize(
    ("x", "y", "out"),
    [
        ((1, 4, 5, 8), (1, 1, 8, 3), (1, 4, 5, 3)),
        ((1, 1, 5, 8), (1, 4, 8, 3), (1, 4, 5, 3)),
        ((5, 8), (1, 4, 8, 3), (1, 4, 5, 3)),
        ((1, 4, 1, 8), (1, 4, 8, 3), (1, 4, 1, 3)),
    ],
)
def test_batches_broadcast(x: Shape, y: Shape, out: Shape) -> None:
    Product((x, y), out).check(*PRESETS)


@pytest.mark.parametrize("constant", [0, 1])
@pytest.mark.parametrize("batches", [1, 3])
def test_a_constant_operand(constant: int, batches: int) -> None:
    lead = (1, batches)
    shapes = (*lead, 7, 12), (*lead, 5, 12)
    product = Product(shapes, (*lead, 7, 5), adj=(False, True), constant=constant)
    product.check(*PRESETS)
    # With weights of its own a batch, or with more than eight bits, it is no convolution.
    assert any(isinstance(op, MatmulOp) for op in product.ops)
    small = Product(((7, 12), (12, 5)), (7, 5), zero_points=(4, 0), constant=1)
    assert any(isinstance(op, ConvOp) for op in small.ops)
    small.check(*PRESETS)


def test_sums_and_tensors_that_exceed_the_memories() -> None:
    """Weights come piece by piece, rows in stripes and in tiles of the accumulator."""
    small = preset("tiny").with_(act_bytes=4096, wgt_bytes=1024, acc_depth=32)
    product = Product(((50, 150), (150, 12)), (50, 12), zero_points=(-128, -128))
    program = compile_model(product.model, small)
    assert any("stripes" in layer.reason for layer in program.layers)
    commands = program.npu.decode()
    assert sum(getattr(command, "hold", 0) for command in commands) > 50
    product.check(small)


def test_what_is_no_whole_line_is_copied_only_where_it_has_to_be() -> None:
    """A tensor that nobody else reads has pixels of whole lines in memory."""
    config = preset("base")
    made = compile_model(Product(((9, 8), (8, 13)), (9, 13)).model, config)
    given = compile_model(Product(((9, 8), (8, 13)), (9, 13), made=False).model, config)
    lines = compile_model(Product(((9, 8), (8, 16)), (9, 16), made=False).model, config)
    reasons = [
        sum(layer.reason.startswith("load engine") for layer in program.layers)
        for program in (made, given, lines)
    ]
    assert reasons == [0, 1, 0]


@pytest.mark.parametrize("zero_point", [0, -128])
@pytest.mark.parametrize("shape", [(5, 20), (1, 3, 4, 20), (1, 2, 2, 5)])
def test_fully_connected_with_weights_of_the_run(shape: Shape, zero_point: int) -> None:
    depth = 20
    rows = int(np.prod(shape)) // depth
    rng = np.random.default_rng(zero_point + 200)
    for keep in {shape[-1] == depth, False}:
        builder = ModelBuilder()
        x = builder.input(shape, scale=0.05, zero_point=-11)
        weights = builder.input((9, depth), scale=0.01, zero_point=zero_point)
        bias = rng.integers(-3000, 3000, 9).astype(np.int32)
        operands = [x, weights, builder.constant(bias, scales=0.05 * np.float32(0.01))]
        options: tuple[str, dict[str, Any]] = ("FullyConnectedOptions", {"KeepNumDims": keep})
        out = (*shape[:-1], 9) if keep else (rows, 9)
        builder.operator("FULLY_CONNECTED", operands, out, scale=0.2, zero_point=6, options=options)
        model = builder.finish()
        inputs = [rng.integers(-128, 128, t.shape).astype(np.int8) for t in (x, weights)]
        assert_every_tensor_equal(model, inputs, what=f"{shape}, {zero_point}")
        golden = GoldenModel(model)
        (want,) = (golden.run(inputs)[info.name] for info in golden.outputs)
        for config in PRESETS:
            (got,) = run(compile_model(model, config), inputs).values()
            np.testing.assert_array_equal(got, want, config.name)


def test_a_turned_operand_is_moved_by_the_load_engine() -> None:
    ops = Product(((6, 4), (5, 6)), (4, 5), adj=(True, True)).ops
    assert sum(isinstance(op, MoveOp) for op in ops) == 2


def test_scales_whose_product_is_rounded() -> None:
    """Accumulators around the ties: the product of the scales is a float (measured)."""
    for seed in range(12):
        rng = np.random.default_rng([seed, 5])
        scale_a, scale_b = (float(np.float32(v)) for v in rng.uniform(0.01, 0.1, 2))
        out_scale = float(np.float32(rng.uniform(20, 400)))
        depth = 4000
        ties = (rng.integers(2, 120, 48) + 0.5) * out_scale / (scale_a * scale_b)
        wanted = np.round(ties).astype(np.int64) + rng.integers(-8, 9, 48)
        a = np.zeros((48, depth), np.int64)
        for row, acc in zip(a, wanted, strict=True):
            # Of weights 127, and 1 at the end.
            rest = int(acc // 127)
            full = min(rest // 127, depth - 2)
            row[:full], row[full], row[-1] = 127, min(rest - 127 * full, 127), acc % 127
        b = np.full((depth, 1), 127, np.int8)
        b[-1] = 1
        builder = ModelBuilder()
        operands = [
            builder.input((48, depth), scale=scale_a),
            builder.input((depth, 1), scale=scale_b),
        ]
        options = ("BatchMatMulOptions", {})
        builder.operator(
            "BATCH_MATMUL", operands, (48, 1), scale=out_scale, zero_point=-128, options=options
        )
        inputs = [a.astype(np.int8), b]
        assert_every_tensor_equal(builder.finish(), inputs, what=f"seed {seed}")


def test_bad_products_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"BATCH_MATMUL #2 .*: \[3, 4\] times \[5, 6\]"):
        _ = Product(((3, 4), (5, 6)), (3, 6)).ops
    with pytest.raises(ModelError, match=r"batches \(1, 2\) and \(1, 3\)"):
        _ = Product(((1, 2, 3, 4), (1, 3, 4, 6)), (1, 3, 3, 6)).ops
    builder = ModelBuilder()
    matrices = [builder.constant(np.ones((2, 2), np.int8), scales=0.1) for _ in range(2)]
    x = builder.input((2, 2), scale=0.1)
    y = builder.operator("BATCH_MATMUL", matrices, (2, 2), scale=0.1)
    builder.add(x, y, scale=0.2)
    with pytest.raises(UnsupportedError, match="both its inputs are constants"):
        lower(frontend.load(builder.finish()))
