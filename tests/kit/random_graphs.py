"""Random graphs over every operator that the compiler has, with inputs, for tests.

``random_graph(rng)`` grows a graph of 3 to 15 operators: each takes a tensor that is there, of
any rank, and any other that it needs; so there are branches that join, outputs inside of the graph,
tensors that several operators read, and views of views. Everything comes from the generator passed
in, so a seed reproduces it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.random_models import RandomModel, binary, convolution, pool
from tests.kit.random_moves import MOVES, MoveDraw, move_is_possible, random_outputs
from tests.kit.random_phases import GROWING, grown
from tests.kit.stateful_models import Quantised, joined, part_of

__all__ = ["OPERATORS", "RandomGraph", "random_graph"]

Rng = np.random.Generator
Handles = list[TensorHandle]

MOST_ELEMENTS = 3_000
"""Of a tensor that an operator takes: a graph is to be run in a fraction of a second."""
FEWEST_OPERATORS, MOST_OPERATORS = 3, 15


@dataclass(frozen=True)
class RandomGraph(RandomModel):
    """A model, inputs for it, and its operators in order."""

    codes: tuple[str, ...]


@dataclass
class Growth:
    """A graph under construction, and the tensor that the next operator takes."""

    rng: Rng
    builder: ModelBuilder
    inputs: Handles
    tensors: Handles
    x: TensorHandle
    codes: list[str] = field(default_factory=list)

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, values: Sequence[Any]) -> Any:
        return values[self.whole(0, len(values) - 1)]

    def zero_point(self) -> int:
        return int(self.pick((-128, 0, 127, self.whole(-128, 127), self.whole(-128, 127))))

    def scale(self, natural: float) -> float:
        """A scale around a natural one; a third of the time one with few mantissa bits."""
        value = natural * 10.0 ** float(self.rng.uniform(-0.4, 0.4))
        if self.rng.random() < 0.33:
            value = 2.0 ** round(np.log2(value))
        return float(np.float32(np.clip(value, 1e-6, 1e6)))

    def numbers(self, values: Any) -> TensorHandle:
        return self.builder.constant(np.array(values, np.int32))

    def input(self, shape: Sequence[int], scale: float, zero_point: int) -> TensorHandle:
        handle = self.builder.input(shape, scale=scale, zero_point=zero_point)
        self.inputs.append(handle)
        return handle

    def alike(self, x: TensorHandle, *, quantised: bool) -> TensorHandle:
        """Another tensor of a shape: one that is there, or an input of its own.

        Parameters
        ----------
        x
            The tensor that it is to be like.
        quantised
            Whether also of its quantisation; a QUANTIZE brings one that is there to it.
        """
        there = [t for t in self.tensors if t.shape == x.shape and t.index != x.index]
        if not there:
            return self.input(x.shape, x.scale if quantised else self.scale(x.scale), x.zero_point)
        other: TensorHandle = self.pick(there)
        same = (other.scale, other.zero_point) == (x.scale, x.zero_point)
        if quantised and not same:
            self.codes.append("QUANTIZE")
            other = self.builder.quantize(other, scale=x.scale, zero_point=x.zero_point)
        return other

    def like_x(
        self,
        code: str,
        inputs: Handles,
        shape: Sequence[int],
        options: tuple[str, dict[str, Any]] | None = None,
    ) -> Handles:
        """An operator whose result has the quantisation of x."""
        scale, zero_point = self.x.scale, self.x.zero_point
        return [
            self.builder.operator(
                code, inputs, shape, scale=scale, zero_point=zero_point, options=options
            )
        ]


Maker = Callable[[Growth], Handles]


# ---------------------------------------------------------------------- operators


def _convolution(code: str) -> Maker:
    return lambda g: [convolution(g.rng, g.builder, g.x, code)]


def _fully_connected(g: Growth) -> Handles:
    units, depth = g.whole(1, 20), g.x.shape[-1]
    if g.rng.random() < 0.2:
        weights = g.input((units, depth), g.scale(0.01), 0)
        scale = g.scale(g.x.scale * weights.scale * 80 * depth**0.5)
        options = ("FullyConnectedOptions", {"KeepNumDims": True})
        return [
            g.builder.operator(
                "FULLY_CONNECTED",
                [g.x, weights],
                (*g.x.shape[:-1], units),
                scale=scale,
                zero_point=g.zero_point(),
                options=options,
            )
        ]
    per_channel = units > 1 and g.rng.random() < 0.5
    w_scales = [g.scale(0.01) for _ in range(units if per_channel else 1)]
    return [
        g.builder.fully_connected(
            g.x,
            g.rng.integers(-127, 128, (units, depth)).astype(np.int8),
            g.rng.integers(-2000, 2000, units).astype(np.int32) if g.rng.random() < 0.7 else None,
            w_scales=w_scales,
            scale=g.scale(g.x.scale * w_scales[0] * 80 * depth**0.5),
            zero_point=g.zero_point(),
            activation=g.pick(("NONE", "RELU", "RELU6")),
        )
    ]


def _batch_matmul(g: Growth) -> Handles:
    """With a tensor of the shape, or a matrix: constant, or an input of its own."""
    lead, (rows, depth) = g.x.shape[:-2], g.x.shape[-2:]
    adj_x, adj_y = bool(g.whole(0, 1)), bool(g.whole(0, 1))
    if g.rng.random() < 0.5:
        adj_y = not adj_x
        other = g.alike(g.x, quantised=False)
    else:
        units = g.whole(1, 20)
        summed = rows if adj_x else depth
        shape = (units, summed) if adj_y else (summed, units)
        if g.rng.random() < 0.5:
            values = g.rng.integers(-128, 128, shape).astype(np.int8)
            other = g.builder.constant(values, scales=0.02, zero_point=g.pick((0, g.zero_point())))
        else:
            other = g.input(shape, g.scale(0.02), g.zero_point())
    out = (depth if adj_x else rows, other.shape[-2 if adj_y else -1])
    natural = g.x.scale * other.scale * 80 * (rows if adj_x else depth) ** 0.5
    options = ("BatchMatMulOptions", {"AdjX": adj_x, "AdjY": adj_y})
    return [
        g.builder.operator(
            "BATCH_MATMUL",
            [g.x, other],
            (*lead, *out),
            scale=g.scale(natural),
            zero_point=g.zero_point(),
            options=options,
        )
    ]


def _pool(code: str) -> Maker:
    return lambda g: [pool(g.rng, g.builder, g.x, code)]


def _binary(code: str) -> Maker:
    """With an activation of the shape, or of one row, column or channel for all, or a constant."""

    def make(g: Growth) -> Handles:
        kind, other = g.rng.random(), None
        if kind < 0.25:
            shape = g.x.shape if kind < 0.05 else (g.x.shape[-1],) if kind < 0.15 else ()
            values = g.rng.integers(-128, 128, shape).astype(np.int8)
            other = g.builder.constant(values, scales=g.scale(g.x.scale), zero_point=g.zero_point())
        elif kind < 0.45 and len(g.x.shape) == 4:
            ones = g.pick(((1,), (2,), (1, 2), (1, 2), (3,)))
            shape = tuple(1 if axis in ones else n for axis, n in enumerate(g.x.shape))
            there = [t for t in g.tensors if t.shape == shape]
            other = g.pick(there) if there else g.input(shape, g.scale(g.x.scale), g.zero_point())
        else:
            other = g.alike(g.x, quantised=False)
        pair = (g.x, other) if g.rng.random() < 0.5 else (other, g.x)
        return [binary(g.rng, g.builder, pair[0], pair[1], code)]

    return make


def _squared_difference(g: Growth) -> Handles:
    other = g.alike(g.x, quantised=False)
    if len(g.x.shape) == 4 and g.rng.random() < 0.5:
        other = g.input((*g.x.shape[:3], 1), g.scale(g.x.scale), g.zero_point())
    scale = g.scale(30 * max(g.x.scale, other.scale) ** 2)
    return [
        g.builder.operator(
            "SQUARED_DIFFERENCE", [g.x, other], g.x.shape, scale=scale, zero_point=g.zero_point(),
            options=("SquaredDifferenceOptions", {}),
        )
    ]  # fmt: skip


def _extremum(code: str) -> Maker:
    def make(g: Growth) -> Handles:
        if g.rng.random() < 0.3:
            values = g.rng.integers(-128, 128, g.pick(((), (g.x.shape[-1],)))).astype(np.int8)
            other = g.builder.constant(values, scales=g.x.scale, zero_point=g.x.zero_point)
        else:
            other = g.alike(g.x, quantised=True)
        return g.like_x(code, [g.x, other], g.x.shape, ("MaximumMinimumOptions", {}))

    return make


def _table(code: str, options: str = "") -> Maker:
    def make(g: Growth) -> Handles:
        chosen = {"Approximate": bool(g.whole(0, 1))} if code == "GELU" else {}
        table = (options, chosen) if options else None
        scale = g.scale(g.x.scale if code != "EXP" else 0.02)
        return [
            g.builder.operator(
                code, [g.x], g.x.shape, scale=scale, zero_point=g.zero_point(), options=table
            )
        ]

    return make


def _of_positive(code: str) -> Maker:
    """A function that stops the reference below zero: RELU first, with nothing below zero."""

    def make(g: Growth) -> Handles:
        g.codes.append("RELU")
        x = g.builder.relu(g.x, scale=g.scale(g.x.scale), zero_point=-128)
        natural = (x.scale / 64) ** 0.5 if code == "SQRT" else 0.02
        scale, zero_point = g.scale(natural), g.zero_point()
        return [g.builder.operator(code, [x], x.shape, scale=scale, zero_point=zero_point)]

    return make


def _leaky_relu(g: Growth) -> Handles:
    alpha = float(np.float32(g.rng.uniform(-0.5, 1.5)))
    x = g.x
    return [g.builder.leaky_relu(x, alpha=alpha, scale=g.scale(x.scale), zero_point=g.zero_point())]


def _prelu(g: Growth) -> Handles:
    values = g.rng.integers(-128, 128, (1, 1, g.x.shape[-1])).astype(np.int8)
    slope = g.builder.constant(values, scales=g.scale(0.01), zero_point=g.zero_point())
    scale, zero_point = g.scale(g.x.scale), g.zero_point()
    return [
        g.builder.operator("PRELU", [g.x, slope], g.x.shape, scale=scale, zero_point=zero_point)
    ]


def _softmax(g: Growth) -> Handles:
    return [g.builder.softmax(g.x, beta=float(g.pick((1.0, 1.0, 0.5, 2.0))))]


def _logistic(g: Growth) -> Handles:
    return [g.builder.logistic(g.x)]


def _tanh(g: Growth) -> Handles:
    return [g.builder.tanh(g.x)]


def _reduce(code: str) -> Maker:
    def make(g: Growth) -> Handles:
        rank = len(g.x.shape)
        axes = g.pick(([1, 2], [1], [2], [rank - 1])) if rank == 4 else [g.whole(1, rank - 1)]
        keep = bool(g.whole(0, 1))
        shape = [1 if i in axes else n for i, n in enumerate(g.x.shape) if keep or i not in axes]
        options = ("ReducerOptions", {"KeepDims": keep})
        operands = [g.x, g.numbers(axes)]
        if code == "MEAN" and g.rng.random() < 0.7:
            scale, zero_point = g.scale(g.x.scale), g.zero_point()
            return [
                g.builder.operator(
                    code, operands, shape, scale=scale, zero_point=zero_point, options=options
                )
            ]
        return g.like_x(code, operands, shape, options)

    return make


def _growing(code: str) -> Maker:
    return lambda g: [grown(code, g.builder, g.x, g.rng)]


def _reshape(g: Growth) -> Handles:
    n = prod(g.x.shape)
    divisors = [d for d in range(1, min(n, 64) + 1) if n % d == 0]
    first = g.pick(divisors)
    second = g.pick([d for d in divisors if (n // first) % d == 0])
    shapes = ((1, n), (1, first, n // first), (1, first, second, n // first // second))
    return [g.builder.reshape(g.x, g.pick(shapes))]


def _move(code: str) -> Maker:
    def make(g: Growth) -> Handles:
        return random_outputs(code, MoveDraw(g.rng, g.builder, g.inputs, g.x))

    return make


def _variable(g: Growth) -> Handles:
    """A delay, or a window over an axis; the variable may be read again once it is assigned."""
    quantised: Quantised = {"scale": g.x.scale, "zero_point": g.x.zero_point}
    axis = g.whole(1, len(g.x.shape) - 1)
    kept = g.whole(1, 6)
    window = len(g.x.shape) == 4 and g.rng.random() < 0.7
    shape = list(g.x.shape)
    if window:
        shape[axis] = kept
    initial = g.rng.integers(-128, 128, shape).astype(np.int8)
    variable = g.builder.variable(initial, **quantised)
    before = g.builder.read_variable(variable)
    if window:
        whole = joined(g.builder, [before, g.x], axis)
        count = whole.shape[axis]
        value = part_of(g.builder, whole, axis, count - kept, count)
    else:
        whole, value = before, g.x
    g.builder.assign_variable(variable, value)
    again = g.rng.random() < 0.3
    return [whole, *([g.builder.read_variable(variable)] if again else [])]


@dataclass(frozen=True)
class _Operator:
    """How an operator is made, and of which tensors."""

    make: Maker
    ranks: tuple[int, ...] = (2, 3, 4)
    weight: float = 1.0


_OPERATORS: dict[str, _Operator] = {
    "CONV_2D": _Operator(_convolution("CONV_2D"), (4,), 5),
    "DEPTHWISE_CONV_2D": _Operator(_convolution("DEPTHWISE_CONV_2D"), (4,), 3),
    "FULLY_CONNECTED": _Operator(_fully_connected, (2, 3, 4), 2),
    "BATCH_MATMUL": _Operator(_batch_matmul),
    "AVERAGE_POOL_2D": _Operator(_pool("AVERAGE_POOL_2D"), (4,), 1),
    "MAX_POOL_2D": _Operator(_pool("MAX_POOL_2D"), (4,), 1),
    "ADD": _Operator(_binary("ADD"), weight=3),
    "SUB": _Operator(_binary("SUB")),
    "MUL": _Operator(_binary("MUL"), weight=2),
    "SQUARED_DIFFERENCE": _Operator(_squared_difference),
    "MAXIMUM": _Operator(_extremum("MAXIMUM")),
    "MINIMUM": _Operator(_extremum("MINIMUM")),
    "RELU": _Operator(_table("RELU")),
    "RELU6": _Operator(_table("RELU6")),
    "RELU_N1_TO_1": _Operator(_table("RELU_N1_TO_1")),
    "HARD_SWISH": _Operator(_table("HARD_SWISH", "HardSwishOptions")),
    "QUANTIZE": _Operator(_table("QUANTIZE", "QuantizeOptions")),
    "EXP": _Operator(_table("EXP", "ExpOptions"), weight=0.5),
    "GELU": _Operator(_table("GELU", "GeluOptions"), weight=0.5),
    "NEG": _Operator(_table("NEG", "NegOptions"), weight=0.5),
    "LEAKY_RELU": _Operator(_leaky_relu),
    "PRELU": _Operator(_prelu, (4,)),
    "LOGISTIC": _Operator(_logistic),
    "TANH": _Operator(_tanh),
    "SQRT": _Operator(_of_positive("SQRT"), weight=0.5),
    "RSQRT": _Operator(_of_positive("RSQRT"), weight=0.5),
    "LOG": _Operator(_of_positive("LOG"), weight=0.5),
    "SOFTMAX": _Operator(_softmax),
    "MEAN": _Operator(_reduce("MEAN")),
    "REDUCE_MAX": _Operator(_reduce("REDUCE_MAX")),
    "REDUCE_MIN": _Operator(_reduce("REDUCE_MIN")),
    **{code: _Operator(_growing(code), (4,), 0.5) for code in GROWING},
    "RESHAPE": _Operator(_reshape, weight=3),
    **{code: _Operator(_move(code)) for code in MOVES},
    "ASSIGN_VARIABLE": _Operator(_variable, weight=2),
}
OPERATORS = tuple(_OPERATORS)
"""The schema's names of the operators that graphs are made of."""


# ---------------------------------------------------------------------- graphs


def random_graph(rng: Rng) -> RandomGraph:
    """Make a model.

    Parameters
    ----------
    rng
        Where every choice comes from.
    """
    builder = ModelBuilder()
    growth = Growth(rng, builder, [], [], TensorHandle(-1, "", (), 0.0, 0))
    rank = growth.pick((2, 3, 4, 4, 4))
    shape = (1, *(growth.whole(1, 12) for _ in range(rank - 2)), growth.whole(1, 20))
    growth.tensors.append(growth.input(shape, growth.scale(0.05), growth.zero_point()))
    weights = np.array([operator.weight for operator in _OPERATORS.values()])
    wanted = growth.whole(FEWEST_OPERATORS, MOST_OPERATORS)
    draws = 0
    # A model has an output: the last operator's result.
    while len(growth.codes) < wanted or growth.codes[-1] == "ASSIGN_VARIABLE":
        # Rather the newest tensors, graphs are deep more often than wide, until none is taken.
        age = int(rng.exponential(1.5 * (1 + draws // 50)))
        draws += 1
        growth.x = growth.tensors[-1 - min(len(growth.tensors) - 1, age)]
        code = OPERATORS[int(rng.choice(len(OPERATORS), p=weights / weights.sum()))]
        operator = _OPERATORS[code]
        if len(growth.x.shape) not in operator.ranks or not _fits(growth.x, code):
            continue
        made = operator.make(growth)
        growth.codes.append(code)
        growth.tensors += [t for t in made if prod(t.shape) <= MOST_ELEMENTS]
    values = [rng.integers(-128, 128, handle.shape).astype(np.int8) for handle in growth.inputs]
    return RandomGraph(builder.finish(), values, tuple(growth.codes))


def _fits(x: TensorHandle, code: str) -> bool:
    return code not in MOVES or move_is_possible(code, len(x.shape))
