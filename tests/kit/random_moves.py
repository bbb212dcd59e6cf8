"""Random models around an operator that moves elements, with inputs, for tests.

``random_move("TRANSPOSE", rng)`` draws shapes and arguments; in front of and behind the operator
there may be others, so that tensors lie on the chip in every way that there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.random_models import RandomModel

__all__ = ["MOVES", "MoveDraw", "move_is_possible", "random_move", "random_outputs"]

Rng = np.random.Generator


@dataclass
class MoveDraw:
    """A model under construction: its inputs, and the first operand of the operator."""

    rng: Rng
    builder: ModelBuilder
    inputs: list[TensorHandle]
    x: TensorHandle

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def numbers(self, values: Any) -> TensorHandle:
        return self.builder.constant(np.array(values, np.int32))

    def axis(self) -> int:
        """An axis of the input, from either end, that is not a batch."""
        axis = self.whole(1, len(self.x.shape) - 1)
        return axis - len(self.x.shape) if self.rng.random() < 0.3 else axis

    def result(
        self,
        code: str,
        inputs: Sequence[TensorHandle],
        shapes: Sequence[Sequence[int]],
        options: tuple[str, dict[str, Any]] | None = None,
    ) -> list[TensorHandle]:
        quantisation = self.x.scale, self.x.zero_point
        return self.builder.several(
            code,
            inputs,
            shapes,
            scale=quantisation[0],
            zero_point=quantisation[1],
            options=options,
        )

    def other(self, shape: Sequence[int]) -> TensorHandle:
        """Another tensor of the input's quantisation: an activation or a constant."""
        if self.rng.random() < 0.25:
            values = self.rng.integers(-128, 128, tuple(shape)).astype(np.int8)
            return self.builder.constant(values, scales=self.x.scale, zero_point=self.x.zero_point)
        handle = self.builder.input(tuple(shape), scale=self.x.scale, zero_point=self.x.zero_point)
        self.inputs.append(handle)
        return handle


def _with(shape: Sequence[int], axis: int, extent: int) -> list[int]:
    changed = list(shape)
    changed[axis] = extent
    return changed


def _concatenation(d: MoveDraw) -> list[TensorHandle]:
    axis, parts = d.axis(), [d.x]
    for _ in range(d.whole(0, 3)):
        again = d.rng.random() < 0.2
        parts.append(d.x if again else d.other(_with(d.x.shape, axis, d.whole(1, 9))))
    parts = [parts[int(i)] for i in d.rng.permutation(len(parts))]
    shape = _with(d.x.shape, axis, sum(part.shape[axis] for part in parts))
    return d.result("CONCATENATION", parts, [shape], ("ConcatenationOptions", {"Axis": axis}))


def _split(d: MoveDraw) -> list[TensorHandle]:
    axis = d.axis()
    extent = d.x.shape[axis]
    count = int(d.rng.choice([n for n in range(1, extent + 1) if extent % n == 0]))
    shapes = [_with(d.x.shape, axis, extent // count)] * count
    options = ("SplitOptions", {"NumSplits": count})
    return d.result("SPLIT", [d.numbers(axis), d.x], shapes, options)


def _split_v(d: MoveDraw) -> list[TensorHandle]:
    axis = d.axis()
    extent = d.x.shape[axis]
    cuts = sorted(int(v) for v in d.rng.choice(range(1, extent + 1), d.whole(1, min(3, extent))))
    cuts = sorted({*cuts, extent})
    sizes = [int(v) for v in np.diff([0, *cuts])]
    shapes = [_with(d.x.shape, axis, size) for size in sizes]
    told = sizes.copy()
    if d.rng.random() < 0.3:
        told[d.whole(0, len(told) - 1)] = -1
    options = ("SplitVOptions", {"NumSplits": len(sizes)})
    return d.result("SPLIT_V", [d.x, d.numbers(told), d.numbers(axis)], shapes, options)


def _slice(d: MoveDraw) -> list[TensorHandle]:
    begin = [d.whole(0, n - 1) for n in d.x.shape]
    size = [d.whole(1, n - b) for n, b in zip(d.x.shape, begin, strict=True)]
    return d.result("SLICE", [d.x, d.numbers(begin), d.numbers(size)], [size])


def _strided_slice(d: MoveDraw) -> list[TensorHandle]:
    begin, end, step = [], [], []
    for n in d.x.shape:
        first, last = sorted((d.whole(0, n - 1), d.whole(0, n - 1)))
        back = d.rng.random() < 0.3 and first < last
        begin.append(last if back else first)
        end.append(first if back else last + 1)
        step.append(-d.whole(1, 3) if back else d.whole(1, 3))
    masks = {name: d.whole(0, 15) if d.rng.random() < 0.4 else 0 for name in ("Begin", "End")}
    places: list[Any] = [
        slice(
            None if masks["Begin"] >> axis & 1 else b,
            None if masks["End"] >> axis & 1 else e,
            s,
        )
        for axis, (b, e, s) in enumerate(zip(begin, end, step, strict=True))
    ]
    if d.rng.random() < 0.4:
        _with_marks(d, places)
    shape = np.empty(d.x.shape, np.int8)[tuple(places)].shape
    if 0 in shape or (len(shape) == 4 and shape[0] != 1) or not shape:
        return _slice(d)
    begin, end, step = ([], [], [])
    masks = dict.fromkeys(("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis"), 0)
    for number, place in enumerate(places):
        one = place if isinstance(place, slice) else slice(0, 1, 1)
        if isinstance(place, int):
            one = slice(place, place + 1, 1)
        begin.append(one.start or 0)
        end.append(one.stop or 0)
        step.append(one.step)
        masks["Begin"] |= (one.start is None) << number
        masks["End"] |= (one.stop is None) << number
        masks["Ellipsis"] |= (place is Ellipsis) << number
        masks["NewAxis"] |= (place is None) << number
        masks["ShrinkAxis"] |= isinstance(place, int) << number
    options = {f"{name}Mask": mask for name, mask in masks.items()}
    operands = [d.x, *(d.numbers(values) for values in (begin, end, step))]
    return d.result("STRIDED_SLICE", operands, [shape], ("StridedSliceOptions", options))


def _with_marks(d: MoveDraw, places: list[Any]) -> None:
    """Put an ellipsis in the place of some axes, let one go, and add one."""
    first = d.whole(1, len(places) - 1)
    places[first : d.whole(first + 1, len(places))] = [Ellipsis]
    last = len(places) - 1
    if isinstance(places[last], slice) and last > 0 and d.rng.random() < 0.5:
        places[last] = d.whole(-d.x.shape[-1], d.x.shape[-1] - 1)
    if len(d.x.shape) < 4 and d.rng.random() < 0.5:
        places.insert(d.whole(0, len(places)), None)


def _pack(d: MoveDraw) -> list[TensorHandle]:
    parts = [d.x, *(d.other(d.x.shape) for _ in range(d.whole(0, 2)))]
    axis = d.whole(1, len(d.x.shape))
    shape = [*d.x.shape[:axis], len(parts), *d.x.shape[axis:]]
    options = {"Axis": axis, "ValuesCount": len(parts)}
    return d.result("PACK", parts, [shape], ("PackOptions", options))


def _unpack(d: MoveDraw) -> list[TensorHandle]:
    axis = d.axis() % len(d.x.shape)
    shape = [*d.x.shape[:axis], *d.x.shape[axis + 1 :]]
    options = {"Axis": axis, "Num": d.x.shape[axis]}
    return d.result("UNPACK", [d.x], [shape] * d.x.shape[axis], ("UnpackOptions", options))


def _gather(d: MoveDraw) -> list[TensorHandle]:
    axis = d.axis() % len(d.x.shape)
    indices = d.rng.integers(0, d.x.shape[axis], d.whole(1, 7))
    shape = _with(d.x.shape, axis, len(indices))
    return d.result("GATHER", [d.x, d.numbers(indices)], [shape], ("GatherOptions", {"Axis": axis}))


def _tile(d: MoveDraw) -> list[TensorHandle]:
    multiples = [1, *(d.whole(1, 3) for _ in d.x.shape[1:])]
    shape = [n * m for n, m in zip(d.x.shape, multiples, strict=True)]
    return d.result("TILE", [d.x, d.numbers(multiples)], [shape])


def _broadcast_to(d: MoveDraw) -> list[TensorHandle]:
    axis = d.axis()
    one = _with(d.x.shape, axis, 1)
    begin = d.numbers([0] * len(one))
    (small,) = d.result("SLICE", [d.x, begin, d.numbers(one)], [one])
    shape = _with(d.x.shape, axis, d.whole(1, 6))
    return d.result("BROADCAST_TO", [small, d.numbers(shape)], [shape])


def _reverse(d: MoveDraw) -> list[TensorHandle]:
    return d.result("REVERSE_V2", [d.x, d.numbers([d.axis()])], [d.x.shape])


def _transpose(d: MoveDraw) -> list[TensorHandle]:
    order = [0, *(int(i) + 1 for i in d.rng.permutation(len(d.x.shape) - 1))]
    shape = [d.x.shape[i] for i in order]
    return d.result("TRANSPOSE", [d.x, d.numbers(order)], [shape])


def _amounts(d: MoveDraw, most: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    pairs = [[0, 0], *([d.whole(0, m), d.whole(0, m)] for m in most[1:])]
    return pairs, [n + sum(pair) for n, pair in zip(d.x.shape, pairs, strict=True)]


def _pad(d: MoveDraw) -> list[TensorHandle]:
    pairs, shape = _amounts(d, [3] * len(d.x.shape))
    return d.result("PAD", [d.x, d.numbers(pairs)], [shape])


def _padv2(d: MoveDraw) -> list[TensorHandle]:
    pairs, shape = _amounts(d, [3] * len(d.x.shape))
    value = d.builder.constant(
        np.array(d.whole(-128, 127), np.int8), scales=d.x.scale, zero_point=d.x.zero_point
    )
    return d.result("PADV2", [d.x, d.numbers(pairs), value], [shape])


def _mirror_pad(d: MoveDraw) -> list[TensorHandle]:
    mode = d.whole(0, 1)
    pairs, shape = _amounts(d, [min(3, n - 1 + mode) for n in d.x.shape])
    return d.result(
        "MIRROR_PAD", [d.x, d.numbers(pairs)], [shape], ("MirrorPadOptions", {"Mode": mode})
    )


def _space_to_depth(d: MoveDraw) -> list[TensorHandle]:
    block = d.whole(1, 3)
    n, height, width, channels = d.x.shape
    larger = [n, height * block, width * block, channels]
    (x,) = d.result("TILE", [d.x, d.numbers([1, block, block, 1])], [larger])
    shape = [n, height, width, channels * block * block]
    options = ("SpaceToDepthOptions", {"BlockSize": block})
    return d.result("SPACE_TO_DEPTH", [x], [shape], options)


def _depth_to_space(d: MoveDraw) -> list[TensorHandle]:
    block = d.whole(1, 2)
    n, height, width, channels = d.x.shape
    deeper = [n, height, width, channels * block**2]
    (x,) = d.result("TILE", [d.x, d.numbers([1, 1, 1, block * block])], [deeper])
    shape = [n, height * block, width * block, channels]
    options = ("DepthToSpaceOptions", {"BlockSize": block})
    return d.result("DEPTH_TO_SPACE", [x], [shape], options)


def _resize_nearest(d: MoveDraw) -> list[TensorHandle]:
    size = [d.whole(1, 15), d.whole(1, 15)]
    if d.rng.random() < 0.4:
        factor = d.whole(2, 3)
        size = [d.x.shape[1] * factor, d.x.shape[2] * factor]
    mode = d.whole(0, 2)
    options = {"AlignCorners": mode == 1, "HalfPixelCenters": mode == 2}
    return d.result(
        "RESIZE_NEAREST_NEIGHBOR",
        [d.x, d.numbers(size)],
        [[1, *size, d.x.shape[3]]],
        ("ResizeNearestNeighborOptions", options),
    )


_MAKERS: dict[str, Callable[[MoveDraw], list[TensorHandle]]] = {
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _depth_to_space,
    "GATHER": _gather,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _padv2,
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "REVERSE_V2": _reverse,
    "SLICE": _slice,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
MOVES = tuple(_MAKERS)
"""The schema's names of the operators that :func:`random_move` can make."""
_IMAGES_ONLY = {"DEPTH_TO_SPACE", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH"}


def move_is_possible(code: str, rank: int) -> bool:
    """Return whether an operator can be made of a tensor of a rank."""
    return rank == 4 if code in _IMAGES_ONLY else rank < 4 if code == "PACK" else True


def random_outputs(code: str, draw: MoveDraw) -> list[TensorHandle]:
    """Add one operator to a model; return its results."""
    return _MAKERS[code](draw)


def random_move(code: str, rng: Rng) -> RandomModel:
    """Make a model around one operator.

    Parameters
    ----------
    code
        One of :data:`MOVES`.
    rng
        Where every choice comes from.
    """
    builder = ModelBuilder()
    rank = 4 if code in _IMAGES_ONLY or rng.random() < 0.6 else int(rng.integers(2, 4))
    if code == "PACK":
        rank = min(rank, 3)
    shape = (1, *(int(rng.integers(1, 10)) for _ in range(rank - 2)), int(rng.integers(1, 20)))
    inputs = [builder.input(shape, scale=0.05, zero_point=int(rng.integers(-128, 128)))]
    x = inputs[0]
    if rng.random() < 0.5:
        x = builder.relu(x, scale=0.05, zero_point=int(rng.integers(-128, 128)))
    draw = MoveDraw(rng, builder, inputs, x)
    outputs = random_outputs(code, draw)
    read: list[TensorHandle] = []
    for output in outputs:
        if len(output.shape) == 4 and rng.random() < 0.5:
            weights = rng.integers(-127, 128, (5, 1, 1, output.shape[3])).astype(np.int8)
            output = builder.conv2d(output, weights, w_scales=0.01, scale=0.3)
        elif rng.random() < 0.3:
            output = builder.relu(output, scale=0.06)
        read.append(output)
    values = [rng.integers(-128, 128, handle.shape).astype(np.int8) for handle in inputs]
    return RandomModel(builder.finish(read), values)
