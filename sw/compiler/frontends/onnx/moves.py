"""What each operator that moves elements does to the numbers of its elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.frontends.onnx.functions import codes_of, moved_by_onnxruntime
from celosia.sw.compiler.frontends.onnx.units import Constant, NotOnNpuError, Operand, Unit

if TYPE_CHECKING:
    from celosia.sw.compiler.frontends.onnx.convert import Builder

__all__ = ["moved_numbers"]

Numbers = npt.NDArray[np.int64]
Moved = list[tuple[Numbers, int | None]]
"""For each result: the numbers of its elements, below 0 for a fill, and the fill's code."""


def moved_numbers(b: Builder, unit: Unit, numbers: Numbers) -> Moved:
    """Return what a movement makes of the numbers of its input's elements, in the file's shapes.

    Raises
    ------
    NotOnNpuError
        If it is none of those that are known.
    """
    found = _MOVES[unit.kind](b, unit, numbers)
    if found is None:
        raise NotOnNpuError
    shapes = [b.shape(result.name) for result in unit.results]
    if [tuple(moved.shape) for moved, _ in found] != shapes:
        raise NotOnNpuError
    return found


def _given(unit: Unit, place: int) -> list[Any] | None:
    """Return a constant operand as numbers."""
    operand = unit.operands[place] if place < len(unit.operands) else None
    if not isinstance(operand, Constant):
        return None
    return [value.item() for value in operand.value.reshape(-1)]


def _slice(b: Builder, unit: Unit, numbers: Numbers) -> Moved | None:
    first, end = _given(unit, 1), _given(unit, 2)
    if first is None or end is None:
        return None
    axes = _given(unit, 3) or list(range(len(first)))
    steps = _given(unit, 4) or [1] * len(first)
    cut = [slice(None)] * numbers.ndim
    for axis, start, stop, step in zip(axes, first, end, steps, strict=True):
        stop = None if step < 0 and stop < -numbers.shape[axis] else stop
        cut[axis] = slice(start, stop, step)
    return [(numbers[tuple(cut)], None)]


def _split(b: Builder, unit: Unit, numbers: Numbers) -> Moved | None:
    axis = int(unit.node.options.get("axis", 0)) % numbers.ndim
    sizes = [b.shape(result.name)[axis] for result in unit.results]
    ends = np.cumsum(sizes)[:-1]
    return [(part, None) for part in np.split(numbers, ends, axis)]


def _pad(b: Builder, unit: Unit, numbers: Numbers) -> Moved | None:
    amounts = _given(unit, 1)
    if amounts is None:
        return None
    axes = [int(axis) % numbers.ndim for axis in _given(unit, 3) or range(numbers.ndim)]
    pairs = [(0, 0)] * numbers.ndim
    for place, axis in enumerate(axes):
        pairs[axis] = int(amounts[place]), int(amounts[place + len(axes)])
    if min(min(pair) for pair in pairs) < 0:
        return None
    mode = unit.node.options.get("mode", "constant")
    if mode in ("edge", "reflect"):
        return [(np.pad(numbers, pairs, mode=mode), None)]
    if mode != "constant":
        return None
    return [(np.pad(numbers, pairs, constant_values=-1), _fill(unit))]


def _fill(unit: Unit) -> int | None:
    """Return the code that a Pad puts around; None: the zero point."""
    value = _given(unit, 2)
    source = unit.operands[0]
    assert isinstance(source, Operand)
    if unit.fused:
        # On codes: without a value it pads with the code 0.
        return int(value[0] if value else 0) - source.quantised.offset
    if not value:
        return None
    return int(codes_of(np.float32(value[0]), source.quantised))


def _resize(b: Builder, unit: Unit, numbers: Numbers) -> Moved | None:
    """Resize to the nearest: which that is, onnxruntime says, whose places are rounded to float32.

    It is asked with the numbers of the elements as they are in the file.
    """
    if unit.node.options.get("mode", "nearest") != "nearest":
        return None
    constants = [one.value if isinstance(one, Constant) else None for one in unit.operands[1:]]
    found = moved_by_onnxruntime(b.model, unit.node, numbers.astype(np.int32), constants)
    return None if found is None else [(found.astype(np.int64), None)]


def _depth_to_space(b: Builder, unit: Unit, numbers: Numbers) -> Moved | None:
    if numbers.ndim != 4:
        return None
    block = int(unit.node.options.get("blocksize", 1))
    batch, depth, height, width = numbers.shape
    inner = depth // (block * block)
    if unit.node.options.get("mode", "DCR") == "DCR":
        parts = numbers.reshape(batch, block, block, inner, height, width)
        parts = parts.transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = numbers.reshape(batch, inner, block, block, height, width)
        parts = parts.transpose(0, 1, 4, 2, 5, 3)
    return [(parts.reshape(batch, inner, height * block, width * block), None)]


def _space_to_depth(b: Builder, unit: Unit, numbers: Numbers) -> Moved | None:
    if numbers.ndim != 4:
        return None
    block = int(unit.node.options.get("blocksize", 1))
    batch, depth, height, width = numbers.shape
    parts = numbers.reshape(batch, depth, height // block, block, width // block, block)
    parts = parts.transpose(0, 3, 5, 1, 2, 4)
    shape = batch, depth * block * block, height // block, width // block
    return [(parts.reshape(shape), None)]


_MOVES = {
    "DepthToSpace": _depth_to_space,
    "Pad": _pad,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
}
