"""Random ONNX graphs of 3 to 12 quantised operators, in either format, of random shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.kit.onnx_models import OnnxBuilder

__all__ = ["KINDS", "RandomOnnx", "random_onnx"]

Array = npt.NDArray[Any]
F = np.float32
MOST_ELEMENTS = 6000
FUNCTIONS = ("Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Relu", "Elu", "Exp", "Softplus", "Abs")


@dataclass
class RandomOnnx:
    """A model, and what it is made of.

    Attributes
    ----------
    model : bytes
    kinds : list of str
        Its operators, by the names of `KINDS`.
    inputs : dict of str to ndarray
        Random ones.
    """

    model: bytes
    kinds: list[str]
    inputs: dict[str, Array]


@dataclass
class _Graph:
    """A graph under construction: its tensors of codes with their shapes."""

    b: OnnxBuilder
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)

    @property
    def rng(self) -> np.random.Generator:
        return self.b.rng

    def some(self, *ranks: int) -> tuple[str, tuple[int, ...]] | None:
        """Return a tensor of one of these ranks, a late one rather than an early one."""
        names = [name for name, shape in self.shapes.items() if not ranks or len(shape) in ranks]
        if not names:
            return None
        place = min(int(self.rng.geometric(0.5)), len(names))
        self.read.add(names[-place])
        return names[-place], self.shapes[names[-place]]

    def number(self, low: int, high: int) -> int:
        """Draw a whole number from low to high."""
        return int(self.rng.integers(low, high + 1))

    def made(self, name: str, *shape: int) -> bool:
        """Keep a result."""
        self.shapes[name] = tuple(shape)
        return True

    def clamp(self) -> tuple[float, float] | None:
        """Draw the bounds of an activation, or none."""
        choices = (None, (0.0, float("inf")), (0.0, float(self.rng.uniform(0.5, 9))))
        return choices[self.number(0, 2)]


_Shape = tuple[int, ...]
_Adds = Callable[[_Graph], bool]
_Reads = Callable[[_Graph, str, _Shape], bool]


def _of(*ranks: int) -> Callable[[_Reads], _Adds]:
    """Draw the tensor that an operator reads: one of these ranks, any if none is named."""

    def with_tensor(make: _Reads) -> _Adds:
        def add(g: _Graph) -> bool:
            chosen = g.some(*ranks)
            return chosen is not None and make(g, *chosen)

        return add

    return with_tensor


@_of(3, 4)
def _conv(g: _Graph, name: str, shape: _Shape) -> bool:
    _, cin, *sizes = shape
    kernel = [g.number(1, min(4, size)) for size in sizes]
    group = int(g.rng.choice([1, 1, cin]))
    if group == 1 and cin % 2 == 0 and g.rng.random() < 0.2:
        group = 2
    cout = group * g.number(1, max(1, 12 // group))
    strides, dilations = [g.number(1, 2) for _ in sizes], [g.number(1, 2) for _ in sizes]
    pads = [g.number(0, size - 1) for size in kernel * 2]
    out = []
    for axis, size in enumerate(sizes):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        out.append((size + pads[axis] + pads[axis + len(sizes)] - reach) // strides[axis] + 1)
    if min(out) < 1:
        return False
    depth, shape = cin // group * int(np.prod(kernel)), (cout, cin // group, *kernel)
    result = g.b.weighted(
        "Conv",
        name,
        shape,
        0,
        cout,
        depth,
        g.clamp() if g.b.qdq else None,
        float_bias=g.b.qdq and g.rng.random() < 0.5,
        group=group,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
    )
    return g.made(result, 1, cout, *out)


@_of(2)
def _gemm(g: _Graph, name: str, shape: _Shape) -> bool:
    rows, depth = shape
    count, turned = g.number(1, 20), g.number(0, 1)
    shape = (count, depth) if turned else (depth, count)
    clamp = g.clamp() if g.b.qdq else None
    result = g.b.weighted("Gemm", name, shape, 1 - turned, count, depth, clamp, transB=turned)
    return g.made(result, rows, count)


@_of(2, 3)
def _matmul(g: _Graph, name: str, shape: _Shape) -> bool:
    *rows, depth = shape
    count, channels = g.number(1, 16), g.b.per_channel
    g.b.per_channel = channels and g.b.qdq
    result = g.b.weighted("MatMul", name, (depth, count), 1, count, depth)
    g.b.per_channel = channels
    return g.made(result, *rows, count)


def _matmul_of_two(g: _Graph) -> bool:
    one, other = g.some(2, 3), g.some(2, 3)
    if one is None or other is None or one[1][-1] != other[1][-1] or len(one[1]) != len(other[1]):
        return False
    axes = [*range(len(other[1]) - 2), len(other[1]) - 1, len(other[1]) - 2]
    turned = g.b.moved("Transpose", other[0], perm=axes)
    ratio = g.rng.uniform(50, 200)
    out = F(g.b.known[one[0]][0] * g.b.known[turned][0] * ratio), g.b.quantisation()[1]
    result = g.b.binary("MatMul", one[0], turned, out, named=False)
    return g.made(result, *one[1][:-1], other[1][-2])


@_of(4)
def _pool(g: _Graph, name: str, shape: _Shape) -> bool:
    _, channels, *sizes = shape
    if min(sizes) < 2:
        return False
    kernel, strides = [g.number(2, min(3, n)) for n in sizes], [g.number(1, 2) for _ in sizes]
    out = [(n - k) // s + 1 for n, k, s in zip(sizes, kernel, strides, strict=True)]
    options: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    if g.rng.random() < 0.7:
        result = _moved(g, "MaxPool", name, [], **options)
    else:
        result = g.b.unary("AveragePool", name, out=g.b.quantisation(), named=True, **options)
    return g.made(result, 1, channels, *out)


@_of(4)
def _global_average(g: _Graph, name: str, shape: _Shape) -> bool:
    _, channels, *_ = shape
    result = g.b.unary("GlobalAveragePool", name, out=g.b.quantisation(0.005, 0.05), named=True)
    return g.made(result, 1, channels, 1, 1)


@_of(3, 4)
def _mean(g: _Graph, name: str, shape: _Shape) -> bool:
    first, keep = g.number(1, 2), g.number(0, 1)
    axes = list(range(first, first + len(shape) - 2))
    out = g.b.quantisation(0.005, 0.05)
    result = g.b.unary("ReduceMean", name, out=out, axes=axes, keepdims=keep)
    left = [1 if axis in axes else n for axis, n in enumerate(shape) if keep or axis not in axes]
    return g.made(result, *left)


@_of()
def _function(g: _Graph, name: str, shape: _Shape) -> bool:
    kind = str(g.rng.choice(FUNCTIONS))
    named = kind in ("Sigmoid", "LeakyRelu")
    return g.made(g.b.unary(kind, name, named=named), *shape)


@_of(4)
def _of_channels(g: _Graph, name: str, shape: _Shape) -> bool:
    if g.rng.random() < 0.5:
        slopes = g.b.constant(g.rng.uniform(0, 0.5, (shape[1], 1, 1)).astype(F))
        return g.made(g.b.unary("PRelu", name, [slopes]), *shape)
    drawn = [g.rng.uniform(0.5, 2, shape[1]), g.rng.normal(0, 1, shape[1])]
    drawn += [g.rng.normal(0, 1, shape[1]), g.rng.uniform(0.5, 2, shape[1])]
    values = [g.b.constant(value.astype(F)) for value in drawn]
    return g.made(g.b.unary("BatchNormalization", name, values), *shape)


def _pair(g: _Graph) -> bool:
    one, other = g.some(), g.some()
    if one is None or other is None:
        return False
    try:
        shape = np.broadcast_shapes(one[1], other[1])
    except ValueError:
        return False
    if np.prod(shape) > MOST_ELEMENTS:
        return False
    kind = str(g.rng.choice(["Add", "Add", "Mul", "Sub", "Max", "Min"]))
    (scale_a, _), (scale_b, _) = g.b.known[one[0]], g.b.known[other[0]]
    scale = F(max(scale_a, scale_b) * g.rng.uniform(0.8, 2))
    if kind == "Mul":
        scale = F(scale_a * scale_b * g.rng.uniform(20, 200))
    out, named = (scale, g.b.quantisation()[1]), kind in ("Add", "Mul")
    return g.made(g.b.binary(kind, one[0], other[0], out, named=named), *shape)


def _concat(g: _Graph) -> bool:
    one, other = g.some(), g.some()
    if one is None or other is None or len(one[1]) != len(other[1]):
        return False
    axes = [n for n, (a, b) in enumerate(zip(one[1], other[1], strict=True)) if a != b]
    axis = axes[0] if axes else g.number(1, len(one[1]) - 1)
    if len(axes) > 1:
        return False
    shape = list(one[1])
    shape[axis] += other[1][axis]
    out = g.b.quantisation()
    if g.b.qdq:
        both = [g.b.dequantised(one[0]), g.b.dequantised(other[0])]
        return g.made(g.b.quantised(str(g.b.node("Concat", both, axis=axis)), out), *shape)
    head = [g.b.constant(out[0]), g.b.constant(np.array(out[1], g.b.dtype))]
    parts = [one[0], *g.b.parameters(one[0]), other[0], *g.b.parameters(other[0])]
    result = str(g.b.node("QLinearConcat", [*head, *parts], domain="com.microsoft", axis=axis))
    g.b.known[result] = out
    return g.made(result, *shape)


def _moved(g: _Graph, kind: str, name: str, extra: list[str], **options: Any) -> str:
    """Move codes, or numbers between codes: then perhaps to another scale, with an activation."""
    if not g.b.qdq or g.rng.random() < 0.4:
        return g.b.moved(kind, name, extra, **options)
    real = str(g.b.node(kind, [g.b.dequantised(name), *extra], **options))
    clamp = g.clamp()
    if clamp is not None:
        real = str(g.b.node("Clip", [real, *(g.b.constant(F(end)) for end in clamp)]))
    own = None if g.rng.random() < 0.3 else g.b.known[name]
    return g.b.quantised(real, own)


@_of(3, 4)
def _flattened(g: _Graph, name: str, shape: _Shape) -> bool:
    count = int(np.prod(shape[1:]))
    if count > 400:
        return False
    return g.made(_moved(g, "Flatten", name, []), 1, count)


@_of(2, 3, 4)
def _reshaped(g: _Graph, name: str, shape: _Shape) -> bool:
    count = int(np.prod(shape[1:]))
    first = int(g.rng.choice([n for n in range(1, count + 1) if count % n == 0]))
    wanted = (shape[0], first, count // first)
    return g.made(_moved(g, "Reshape", name, [g.b.constant(np.array(wanted))]), *wanted)


@_of(3, 4)
def _transposed(g: _Graph, name: str, shape: _Shape) -> bool:
    perm = [0, *(int(n) for n in g.rng.permutation(np.arange(1, len(shape))))]
    return g.made(_moved(g, "Transpose", name, [], perm=perm), *(shape[n] for n in perm))


@_of(2, 3, 4)
def _sliced(g: _Graph, name: str, shape: _Shape) -> bool:
    axis = g.number(1, len(shape) - 1)
    first = g.number(0, shape[axis] - 1)
    end, step = g.number(first + 1, shape[axis]), g.number(1, 2)
    extra = [g.b.constant(np.array([value])) for value in (first, end, axis, step)]
    cut = list(shape)
    cut[axis] = len(range(first, end, step))
    return g.made(_moved(g, "Slice", name, extra), *cut)


@_of(2, 3, 4)
def _split(g: _Graph, name: str, shape: _Shape) -> bool:
    axis = g.number(1, len(shape) - 1)
    if shape[axis] < 2:
        return False
    first = g.number(1, shape[axis] - 1)
    sizes = [first, shape[axis] - first]
    source = g.b.dequantised(name) if g.b.qdq else name
    parts = g.b.node("Split", [source, g.b.constant(np.array(sizes))], 2, axis=axis)
    for part, size in zip(parts, sizes, strict=True):
        cut = list(shape)
        cut[axis] = size
        if g.b.qdq:
            part = g.b.quantised(part, g.b.known[name])
        g.b.known[part] = g.b.known[name]
        g.made(part, *cut)
    return True


@_of(4)
def _padded(g: _Graph, name: str, shape: _Shape) -> bool:
    _, channels, *sizes = shape
    before, after = ([g.number(0, 2) for _ in sizes] for _ in range(2))
    amounts = g.b.constant(np.array([0, 0, *before, 0, 0, *after]))
    if g.b.qdq and g.rng.random() < 0.5:
        real = str(g.b.node("Pad", [g.b.dequantised(name), amounts]))
        result = g.b.quantised(real, g.b.known[name])
    else:
        code = g.b.constant(np.array(g.number(0, 9), g.b.dtype))
        result = g.b.moved("Pad", name, [amounts, code])
    grown = [n + first + last for n, first, last in zip(sizes, before, after, strict=True)]
    return g.made(result, 1, channels, *grown)


@_of(4)
def _resized(g: _Graph, name: str, shape: _Shape) -> bool:
    _, channels, *sizes = shape
    ratios = [g.number(1, 2) for _ in sizes]
    scales = g.b.constant(np.array([1, 1, *ratios], F))
    if np.prod(sizes) * channels * 4 > MOST_ELEMENTS:
        return False
    mode = str(g.rng.choice(["nearest", "nearest", "linear"]))
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if mode == "linear":
        result = g.b.unary("Resize", name, ["", scales], **options)
    else:
        result = _moved(g, "Resize", name, ["", scales], nearest_mode="floor", **options)
    return g.made(result, 1, channels, *(n * r for n, r in zip(sizes, ratios, strict=True)))


@_of(4)
def _depth_to_space(g: _Graph, name: str, shape: _Shape) -> bool:
    _, channels, height, width = shape
    if channels % 4:
        return False
    mode = str(g.rng.choice(["DCR", "CRD"]))
    result = _moved(g, "DepthToSpace", name, [], blocksize=2, mode=mode)
    return g.made(result, 1, channels // 4, 2 * height, 2 * width)


@_of(2, 3)
def _host(g: _Graph, name: str, shape: _Shape) -> bool:
    """An operator that only the host has."""
    if g.rng.random() < 0.5:
        return g.made(g.b.unary("Softmax", name, out=(F(1 / 256), 0), axis=-1), *shape)
    ones = g.b.constant(g.rng.uniform(0.5, 1.5, shape[-1]).astype(F))
    return g.made(g.b.unary("LayerNormalization", name, [ones], axis=-1), *shape)


KINDS: dict[str, _Adds] = {
    "conv": _conv,
    "gemm": _gemm,
    "matmul": _matmul,
    "matmul_of_two": _matmul_of_two,
    "pool": _pool,
    "global_average": _global_average,
    "mean": _mean,
    "function": _function,
    "of_channels": _of_channels,
    "pair": _pair,
    "concat": _concat,
    "flattened": _flattened,
    "reshaped": _reshaped,
    "transposed": _transposed,
    "sliced": _sliced,
    "split": _split,
    "padded": _padded,
    "resized": _resized,
    "depth_to_space": _depth_to_space,
    "host": _host,
}
"""What adds an operator to a graph; False where its tensors allow none."""
OFTEN = ("conv", "conv", "conv", "pair", "gemm", "function")


def random_onnx(rng: np.random.Generator) -> RandomOnnx:
    """Draw a graph of 3 to 12 operators with one or two inputs."""
    dtype = [np.int8, np.uint8][int(rng.integers(2))]
    b = OnnxBuilder(rng, dtype, qdq=bool(rng.integers(2)), per_channel=bool(rng.integers(2)))
    g = _Graph(b)
    for _ in range(g.number(1, 2)):
        rank = int(rng.choice([2, 3, 4, 4, 4]))
        shape = (1, *(g.number(1, (40, 16, 12)[rank - 2]) for _ in range(rank - 1)))
        g.made(b.input(shape), *shape)
    entries = list(g.shapes)
    kinds: list[str] = []
    names, wanted = [*KINDS, *OFTEN], g.number(3, 12)
    for _ in range(20 * wanted):
        kind = str(rng.choice(names))
        if len(kinds) < wanted and KINDS[kind](g):
            kinds.append(kind)
    results = [name for name in g.shapes if name not in entries]
    last = [name for name in results if name not in g.read] or results[-1:]
    for name in dict.fromkeys([*last[-3:], str(rng.choice(results))]):
        b.output(name)
    limits = np.iinfo(dtype)
    inputs = {
        name: rng.integers(limits.min, limits.max + 1, g.shapes[name]).astype(dtype)
        for name in entries
    }
    return RandomOnnx(b.model(), kinds, inputs)
