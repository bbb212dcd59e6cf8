"""Random models of one operator of two tensors, of shapes that broadcast in every way."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.random_graphs import RandomGraph

__all__ = ["OPERATORS", "BinaryCase", "random_binary"]

Int8 = npt.NDArray[np.int8]
Rng = np.random.Generator

OPTIONS = {
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
}
ACTIVATIONS = 4
"""Those that can be fused, by their numbers in the file's schema."""
OPERATORS = tuple(OPTIONS)
MAX_ELEMENTS = 6000


@dataclass(frozen=True)
class BinaryCase:
    """A model of one operator, inputs for it, and what it is in words."""

    graph: RandomGraph
    text: str


def _shapes(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    while True:
        rank = int(rng.integers(1, 6))
        whole = [int(rng.choice((1, 2, 3, 5, 8, 9, 17, 33))) for _ in range(rank)]
        if rank > 2:
            whole[0] = 1
        if prod(whole) <= MAX_ELEMENTS:
            break
    first, second = list(whole), list(whole)
    if rng.random() < 0.8:
        for axis in range(rank):
            chosen = rng.random()
            if chosen < 0.25:
                first[axis] = 1
            elif chosen < 0.5:
                second[axis] = 1
    if rng.random() < 0.2:
        second = second[int(rng.integers(0, rank)) :]
    return tuple(first), tuple(second)


def _ratio(rng: Rng) -> float:
    """About 1; half of the time a fraction of few bits, which makes ties."""
    if rng.random() < 0.5:
        return float(rng.integers(65, 256)) / 128
    return float(10 ** rng.uniform(-0.6, 0.6))


def random_binary(seed: int, operator: str) -> BinaryCase:
    """Return the case of a seed."""
    rng = np.random.default_rng((seed, 14))
    shapes = _shapes(rng)
    scales = [float(np.float32(2.0 ** -int(rng.integers(2, 8)) * _ratio(rng))) for _ in range(2)]
    zeros = [int(rng.choice((-128, 0, 127, int(rng.integers(-128, 128))))) for _ in range(3)]
    extremum = operator in ("MAXIMUM", "MINIMUM")
    twice = rng.random() < 0.08 and np.broadcast_shapes(*shapes) == shapes[0]
    if extremum or twice:
        scales[1], zeros[1] = scales[0], zeros[0]
    b = ModelBuilder()
    operands: list[TensorHandle] = []
    inputs: list[Int8] = []
    for shape, scale, zero in zip(shapes, scales, zeros, strict=False):
        if operands and twice:
            operands.append(operands[0])
            continue
        if rng.random() < 0.15 and not twice and len(inputs) == len(operands):
            content = rng.integers(-128, 128, shape, np.int8)
            operands.append(b.constant(content, scales=scale, zero_point=zero))
            continue
        values = rng.integers(-128, 128, shape, np.int8)
        inputs.append(
            np.where(rng.random(shape) < 0.1, rng.choice((-128, 127)), values).astype("i1")
        )
        operand = b.input(shape, scale=scale, zero_point=zero)
        if rng.random() < 0.4:
            operand = b.relu(operand, scale=scale, zero_point=zero, kind="RELU")
        operands.append(operand)
    options: dict[str, int] = {}
    if operator in ("ADD", "SUB", "MUL") and rng.random() < 0.5:
        options["FusedActivationFunction"] = int(rng.integers(0, ACTIVATIONS))
    natural = {
        "MUL": scales[0] * scales[1] * float(rng.choice((0.004, 0.4, 20, 60, 500))),
        "SQUARED_DIFFERENCE": max(scales) ** 2 * float(rng.choice((2, 30, 200, 2000))),
    }.get(operator, max(scales))
    out_scale = float(np.float32(natural * _ratio(rng)))
    result = (scales[0], zeros[0]) if extremum else (out_scale, zeros[2])
    shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    y = b.operator(
        operator, operands, shape, scale=result[0], zero_point=result[1],
        options=(OPTIONS[operator], options),
    )  # fmt: skip
    text = f"{operator} {shapes[0]} {shapes[1]} {scales} {zeros} {out_scale} {options}"
    return BinaryCase(RandomGraph(b.finish([y]), inputs, (operator,)), text)
