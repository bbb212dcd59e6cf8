"""Models with variables: what keeps something from one inference to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

__all__ = [
    "QUANTISED",
    "SHAPE",
    "STATEFUL",
    "Quantised",
    "joined",
    "part_of",
    "rows_of",
    "window_model",
]


class Quantised(TypedDict):
    """Quantisation of a tensor, as the builder takes it."""

    scale: float
    zero_point: int


QUANTISED: Quantised = {"scale": 0.1, "zero_point": 3}
SHAPE = (1, 2, 6)


def _values(seed: int, *shape: int) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-127, 128, shape, np.int8)


def rows_of(b: ModelBuilder, x: TensorHandle, first: int, end: int) -> TensorHandle:
    """Return rows of a tensor of rank 4."""
    return part_of(b, x, 1, first, end)


def part_of(b: ModelBuilder, x: TensorHandle, axis: int, first: int, end: int) -> TensorHandle:
    """Return a range of an axis of a tensor of rank 4, as converters write it."""
    begins, ends = ([n if a == axis else 0 for a in range(4)] for n in (first, end))
    places = [b.constant(np.array(numbers, np.int32)) for numbers in (begins, ends, [1] * 4)]
    shape = [end - first if a == axis else n for a, n in enumerate(x.shape)]
    mask = 0b1111 & ~(1 << axis)
    options = ("StridedSliceOptions", {"BeginMask": mask, "EndMask": mask})
    quantised: Quantised = {"scale": x.scale, "zero_point": x.zero_point}
    return b.operator("STRIDED_SLICE", [x, *places], shape, options=options, **quantised)


def joined(b: ModelBuilder, parts: list[TensorHandle], axis: int = 1) -> TensorHandle:
    """Return tensors one behind the other along an axis."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    quantised: Quantised = {"scale": parts[0].scale, "zero_point": parts[0].zero_point}
    options = ("ConcatenationOptions", {"Axis": axis})
    return b.operator("CONCATENATION", parts, shape, options=options, **quantised)


def window_model(seed: int = 0, channels: int = 10, kept: int = 5, new: int = 3) -> bytes:
    """Two windows over time, as in a streaming wake word: the newest rows push the oldest out."""
    b = ModelBuilder()
    x = b.input((1, new, 1, channels), scale=0.1, zero_point=-128)
    for layer, (rows, depth) in enumerate(((kept, channels), (4, 2 * channels))):
        state = b.variable(
            np.full((1, rows, 1, depth), -128, np.int8),
            scale=0.1,
            zero_point=-128,
            name=f"stream_{layer}/states",
        )
        window = joined(b, [b.read_variable(state), x])
        total = window.shape[1]
        b.assign_variable(state, rows_of(b, window, total - rows, total))
        weights = _values(seed + layer, 2 * depth, total, 1, depth)
        x = b.conv2d(window, weights, w_scales=0.002, scale=0.1, zero_point=-128, padding="VALID")
    return b.finish([b.logistic(x)])


def _sum() -> bytes:
    """A running sum that is read before and after it is assigned to."""
    b = ModelBuilder()
    x = b.input((1, 4, 4, 3), **QUANTISED)
    total = b.variable(_values(1, 1, 4, 4, 3), scale=0.2, zero_point=-5)
    old = b.read_variable(total)
    b.assign_variable(total, b.add(old, x, scale=0.2, zero_point=-5))
    new = b.read_variable(total)
    y = b.conv2d(new, _values(2, 5, 3, 3, 3), w_scales=0.01, scale=0.5)
    z = b.add(old, new, scale=0.3)
    b.assign_variable(total, b.relu(new))
    return b.finish([y, z])


def _exchanged() -> bytes:
    """Two variables that change places, a delay line of two, and a variable nothing changes."""
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    handles = [b.variable(_values(n, *SHAPE), **QUANTISED) for n in range(5)]
    one, other, early, late, fixed = (b.read_variable(handle) for handle in handles)
    for handle, value in zip(handles, (other, one, x, early), strict=False):
        b.assign_variable(handle, value)
    return b.finish(
        [
            b.add(one, late, scale=0.3),
            b.add(other, joined(b, [early]), scale=0.3),
            joined(b, [fixed, x]),
        ]
    )


def _shared() -> bytes:
    """One value for two variables of different shapes, an output too; a constant for a third."""
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    one = b.variable(_values(1, *SHAPE), **QUANTISED)
    flat = b.variable(_values(2, 1, 12), **QUANTISED)
    third = b.variable(_values(3, *SHAPE), **QUANTISED)
    y = b.add(b.read_variable(one), x, **QUANTISED)
    z = b.add(y, b.reshape(b.read_variable(flat), SHAPE), scale=0.3)
    u = b.add(y, b.read_variable(third), scale=0.3)
    b.assign_variable(one, y)
    b.assign_variable(flat, b.reshape(y, (1, 12)))
    b.assign_variable(third, b.constant(_values(4, *SHAPE), scales=0.1, zero_point=3))
    return b.finish([z, y, u])


def _tensor() -> bytes:
    """A variable tensor, which an operator has as its output."""
    b = ModelBuilder()
    x = b.input(SHAPE, **QUANTISED)
    kept = b.variable_tensor(SHAPE, **QUANTISED)
    y = b.add(kept, x, scale=0.2)
    b.into(kept, "RELU", [x])
    return b.finish([y, b.add(kept, y, scale=0.3)])


STATEFUL: dict[str, Callable[[], bytes]] = {
    "window": window_model,
    "sum": _sum,
    "exchanged": _exchanged,
    "shared": _shared,
    "tensor": _tensor,
}
"""Models by a word for what they do."""
