"""Random one-operator models and small networks, with inputs, for tests.

``random_operator("CONV_2D", rng)`` draws shapes, strides, padding, scales, zero points and
weights and returns a :class:`RandomModel`; ``random_network(rng)`` chains operators, with
residual additions.  Everything comes from the generator passed in, so a seed reproduces it.

Half of the scales are "nice" (few mantissa bits): products then fall exactly on rounding ties,
where kernels that round differently disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

__all__ = [
    "OPERATORS",
    "RandomModel",
    "binary",
    "convolution",
    "pool",
    "random_network",
    "random_operator",
]

Int8 = npt.NDArray[np.int8]
Rng = np.random.Generator

_ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


@dataclass(frozen=True)
class RandomModel:
    """A model and one set of inputs for it, in the order of the model's inputs."""

    model: bytes
    inputs: list[npt.NDArray[Any]]


# ---------------------------------------------------------------------- draws


def _int(rng: Rng, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _zero_point(rng: Rng) -> int:
    return _int(rng, -128, 127)


def _f32(value: float) -> float:
    return float(np.float32(value))


def _scale(rng: Rng, low: float = 1e-3, high: float = 1.0) -> float:
    """A scale in about [low, high], log-uniform; half of the time one with few mantissa bits."""
    value = low * (high / low) ** rng.random()
    if rng.random() < 0.5:
        mantissa = (1.0, 1.125, 1.25, 1.5, 1.75)[_int(rng, 0, 4)]
        return _f32(mantissa * 2.0 ** np.floor(np.log2(value)))
    return _f32(value)


def _factor(rng: Rng) -> float:
    """A ratio of scales around 1; half of the time (2n + 1) / 2k, which makes ties."""
    if rng.random() < 0.5:
        half_steps = _int(rng, 1, 64)
        return (2 * _int(rng, half_steps // 2, 2 * half_steps) + 1) / (2 * half_steps)
    return float(10 ** rng.uniform(-0.7, 0.7))


def _weights(rng: Rng, *shape: int) -> Int8:
    return rng.integers(-127, 128, shape, dtype=np.int8)


def _activation(rng: Rng) -> str:
    return _ACTIVATIONS[_int(rng, 0, 3)] if rng.random() < 0.5 else "NONE"


def _values(rng: Rng, shape: tuple[int, ...]) -> Int8:
    return rng.integers(-128, 128, shape, dtype=np.int8)


def _image(rng: Rng, builder: ModelBuilder) -> TensorHandle:
    shape = (_int(rng, 1, 2), _int(rng, 1, 9), _int(rng, 1, 9), _int(rng, 1, 6))
    return builder.input(shape, scale=_scale(rng), zero_point=_zero_point(rng))


def _bias(rng: Rng, channels: int, reach: float) -> npt.NDArray[np.int32] | None:
    if rng.random() < 0.2:
        return None
    bound = max(1, int(reach))
    return rng.integers(-bound, bound + 1, channels, dtype=np.int32)


# ---------------------------------------------------------------------- one operator


def convolution(rng: Rng, builder: ModelBuilder, x: TensorHandle, code: str) -> TensorHandle:
    """Add a CONV_2D or a DEPTHWISE_CONV_2D of an image."""
    _, height, width, depth = x.shape
    kernel = (_int(rng, 1, min(4, height)), _int(rng, 1, min(4, width)))
    strides, dilations = (_int(rng, 1, 3), _int(rng, 1, 3)), (1, 1)
    if rng.random() < 0.25:
        strides, dilations = (1, 1), (_int(rng, 1, 2), _int(rng, 1, 2))
    fits = all((k - 1) * d < n for k, d, n in zip(kernel, dilations, (height, width), strict=True))
    padding = "VALID" if fits and rng.random() < 0.5 else "SAME"
    if code == "CONV_2D":
        channels = _int(rng, 1, 9)
        weights = _weights(rng, channels, *kernel, depth)
        terms = kernel[0] * kernel[1] * depth
    else:
        channels = depth * _int(rng, 1, 3)
        weights = _weights(rng, 1, *kernel, channels)
        terms = kernel[0] * kernel[1]
    base = _scale(rng)
    w_scales = [_f32(base * float(rng.uniform(0.3, 3))) for _ in range(channels)]
    reach = 73 * 74 * np.sqrt(terms)  # the accumulators' standard deviation
    function = builder.conv2d if code == "CONV_2D" else builder.depthwise_conv2d
    return function(
        x,
        weights,
        _bias(rng, channels, reach),
        w_scales=w_scales,
        scale=_f32(x.scale * base * reach / 60 * _factor(rng)),
        zero_point=_zero_point(rng),
        strides=strides,
        padding=padding,
        dilations=dilations,
        activation=_activation(rng),
    )


def _fully_connected(rng: Rng, builder: ModelBuilder, x: TensorHandle) -> TensorHandle:
    units, depth = _int(rng, 1, 12), x.shape[-1]
    base = _scale(rng)
    per_channel = units > 1 and rng.random() < 0.5
    w_scales = [_f32(base * float(rng.uniform(0.3, 3))) for _ in range(units if per_channel else 1)]
    reach = 73 * 74 * np.sqrt(depth)
    return builder.fully_connected(
        x,
        _weights(rng, units, depth),
        _bias(rng, units, reach),
        w_scales=w_scales,
        scale=_f32(x.scale * base * reach / 60 * _factor(rng)),
        zero_point=_zero_point(rng),
        activation=_activation(rng),
    )


def binary(
    rng: Rng, builder: ModelBuilder, a: TensorHandle, b: TensorHandle, code: str
) -> TensorHandle:
    """Add an ADD, SUB or MUL of two tensors."""
    if code == "MUL":
        scale = a.scale * b.scale * 60 * _factor(rng)
        function = builder.mul
    else:
        scale = max(a.scale, b.scale) * _factor(rng)
        function = builder.add if code == "ADD" else builder.sub
    return function(
        a, b, scale=_f32(scale), zero_point=_zero_point(rng), activation=_activation(rng)
    )


def pool(rng: Rng, builder: ModelBuilder, x: TensorHandle, code: str) -> TensorHandle:
    """Add an AVERAGE_POOL_2D or a MAX_POOL_2D of an image."""
    function = builder.average_pool2d if code == "AVERAGE_POOL_2D" else builder.max_pool2d
    return function(
        x,
        size=(_int(rng, 1, x.shape[1]), _int(rng, 1, x.shape[2])),
        strides=(_int(rng, 1, 3), _int(rng, 1, 3)),
        padding=("SAME", "VALID")[_int(rng, 0, 1)],
        activation=_activation(rng),
    )


def _unary(rng: Rng, builder: ModelBuilder, x: TensorHandle, code: str) -> TensorHandle:
    scale, zero_point = _f32(x.scale / _factor(rng)), _zero_point(rng)
    if code == "LEAKY_RELU":
        alpha = _f32(float(rng.uniform(-0.5, 1.5)))
        return builder.leaky_relu(x, alpha=alpha, scale=scale, zero_point=zero_point)
    if code == "HARD_SWISH":
        return builder.hard_swish(x, scale=scale, zero_point=zero_point)
    if code == "QUANTIZE":
        return builder.quantize(x, scale=scale, zero_point=zero_point)
    return builder.relu(x, scale=scale, zero_point=zero_point, kind=code)


def _convolution_model(code: str) -> Callable[[Rng, ModelBuilder], list[Int8]]:
    def make(rng: Rng, builder: ModelBuilder) -> list[Int8]:
        x = _image(rng, builder)
        convolution(rng, builder, x, code)
        return [_values(rng, x.shape)]

    return make


def _fully_connected_model(rng: Rng, builder: ModelBuilder) -> list[Int8]:
    shape = (_int(rng, 1, 4), _int(rng, 1, 40))
    x = builder.input(shape, scale=_scale(rng), zero_point=_zero_point(rng))
    _fully_connected(rng, builder, x)
    return [_values(rng, shape)]


def _binary_model(code: str) -> Callable[[Rng, ModelBuilder], list[Int8]]:
    def make(rng: Rng, builder: ModelBuilder) -> list[Int8]:
        x = _image(rng, builder)
        shape = x.shape
        if rng.random() < 0.3:  # broadcast some of the dimensions
            shape = tuple(1 if rng.random() < 0.5 else extent for extent in shape)
        y = builder.input(shape, scale=_f32(x.scale * _factor(rng)), zero_point=_zero_point(rng))
        operands = (x, y) if rng.random() < 0.5 else (y, x)
        binary(rng, builder, *operands, code)
        return [_values(rng, x.shape), _values(rng, shape)]

    return make


def _pool_model(code: str) -> Callable[[Rng, ModelBuilder], list[Int8]]:
    def make(rng: Rng, builder: ModelBuilder) -> list[Int8]:
        x = _image(rng, builder)
        pool(rng, builder, x, code)
        return [_values(rng, x.shape)]

    return make


def _mean_model(rng: Rng, builder: ModelBuilder) -> list[Int8]:
    x = _image(rng, builder)
    axes = ([1, 2], [2, 1], [1], [2], [3], [-1], [1, 2, 3])[_int(rng, 0, 6)]
    same = rng.random() < 0.3
    builder.mean(
        x,
        scale=x.scale if same else _f32(x.scale / _factor(rng)),
        zero_point=x.zero_point if same else _zero_point(rng),
        axes=axes,
        keep_dims=bool(_int(rng, 0, 1)),
    )
    return [_values(rng, x.shape)]


def _reduce_max_model(rng: Rng, builder: ModelBuilder) -> list[Int8]:
    x = _image(rng, builder)
    axes = ([1, 2], [1], [2])[_int(rng, 0, 2)]
    keep = bool(_int(rng, 0, 1))
    held = [1 if axis in axes else extent for axis, extent in enumerate(x.shape)]
    shape = held if keep else [extent for axis, extent in enumerate(x.shape) if axis not in axes]
    operands = [x, builder.constant(np.array(axes, np.int32))]
    options = ("ReducerOptions", {"KeepDims": keep})
    builder.operator(
        "REDUCE_MAX", operands, shape, scale=x.scale, zero_point=x.zero_point, options=options
    )
    return [_values(rng, x.shape)]


def _function_model(
    code: str, *, options: str = "", positive: bool = False
) -> Callable[[Rng, ModelBuilder], list[Int8]]:
    """A function of one value, on all values of its domain."""

    def make(rng: Rng, builder: ModelBuilder) -> list[Int8]:
        shape = (1, 4, 4, 16)
        zero_point = _zero_point(rng)
        x = builder.input(shape, scale=_scale(rng, 1e-3, 0.05), zero_point=zero_point)
        chosen = {"Approximate": bool(_int(rng, 0, 1))} if code == "GELU" else {}
        table = (options, chosen) if options else None
        scale, out_zero_point = _scale(rng, 1e-3, 0.1), _zero_point(rng)
        builder.operator(code, [x], shape, scale=scale, zero_point=out_zero_point, options=table)
        least = zero_point if positive else -128
        return [np.arange(-128, 128).clip(least).astype(np.int8).reshape(shape)]

    return make


def _extremum_model(code: str) -> Callable[[Rng, ModelBuilder], list[Int8]]:
    def make(rng: Rng, builder: ModelBuilder) -> list[Int8]:
        shape = (1, _int(rng, 1, 9), _int(rng, 1, 9), _int(rng, 1, 20))
        one_row = (1, 1, *shape[2:]) if rng.random() < 0.3 else shape
        quantisation = _scale(rng), _zero_point(rng)
        x, y = (
            builder.input(extents, scale=quantisation[0], zero_point=quantisation[1])
            for extents in (shape, one_row)
        )
        # Other operators ask for other layouts of one of the two.
        if rng.random() < 0.5:
            weights = _weights(rng, 1, 3, 3, shape[3])
            x = builder.depthwise_conv2d(
                x, weights, w_scales=0.01, scale=quantisation[0], zero_point=quantisation[1]
            )
        builder.operator(
            code,
            [x, y] if rng.random() < 0.5 else [y, x],
            shape,
            scale=quantisation[0],
            zero_point=quantisation[1],
            options=("MaximumMinimumOptions", {}),
        )
        return [_values(rng, shape), _values(rng, one_row)]

    return make


def _softmax_model(rng: Rng, builder: ModelBuilder) -> list[Int8]:
    shape = (_int(rng, 1, 8), _int(rng, 1, 40))
    x = builder.input(shape, scale=_scale(rng, 2e-3, 2.0), zero_point=_zero_point(rng))
    builder.softmax(x, beta=_f32(float(10 ** rng.uniform(-1, 0.5))) if rng.random() < 0.5 else 1.0)
    spread = np.clip(rng.normal(0, 10 ** rng.uniform(0, 2), shape), -128, 127)
    return [spread.astype(np.int8)]


def _all_codes_model(code: str) -> Callable[[Rng, ModelBuilder], list[Int8]]:
    """An element-wise operator of one input, on all of its 256 possible values."""

    def make(rng: Rng, builder: ModelBuilder) -> list[Int8]:
        shape = (1, 4, 4, 16)
        x = builder.input(shape, scale=_scale(rng, 2e-3, 2.0), zero_point=_zero_point(rng))
        if code == "LOGISTIC":
            builder.logistic(x, zero_point=-128 if rng.random() < 0.5 else _zero_point(rng))
        elif code == "TANH":
            usual = rng.random() < 0.5
            builder.tanh(
                x,
                scale=1 / 128 if usual else _scale(rng),
                zero_point=0 if usual else _zero_point(rng),
            )
        else:
            _unary(rng, builder, x, code)
        return [np.arange(-128, 128).astype(np.int8).reshape(shape)]

    return make


def _pad_model(rng: Rng, builder: ModelBuilder) -> list[Int8]:
    x = _image(rng, builder)
    builder.pad(x, [(_int(rng, 0, 2), _int(rng, 0, 3)) for _ in range(4)])
    return [_values(rng, x.shape)]


def _reshape_model(rng: Rng, builder: ModelBuilder) -> list[Int8]:
    x = _image(rng, builder)
    builder.reshape(x, ((x.shape[0], -1), (-1,), (x.shape[0], x.shape[3], -1))[_int(rng, 0, 2)])
    return [_values(rng, x.shape)]


def _batch_matmul_model(rng: Rng, builder: ModelBuilder) -> list[Int8]:
    """Both operands of the run, or one constant; batches of which one may be for all."""
    rows, depth, columns = _int(rng, 1, 24), _int(rng, 1, 60), _int(rng, 1, 24)
    batches = _int(rng, 1, 4)
    lead_x, lead_y = [((), ()), ((1, batches),) * 2, ((1, batches), (1, 1)), ((), (1, batches))][
        _int(rng, 0, 3)
    ]
    adj_x, adj_y = bool(_int(rng, 0, 1)), bool(_int(rng, 0, 1))
    shapes = (
        (*lead_x, *((depth, rows) if adj_x else (rows, depth))),
        (*lead_y, *((columns, depth) if adj_y else (depth, columns))),
    )
    constant = _int(rng, 0, 5)
    inputs, operands = [], []
    for place, shape in enumerate(shapes):
        zero_point = (0, -128, _zero_point(rng))[_int(rng, 0, 2)]
        scale, values = _scale(rng, 1e-2), _values(rng, shape)
        if place == constant:
            operands.append(builder.constant(values, scales=scale, zero_point=zero_point))
        else:
            operands.append(builder.input(shape, scale=scale, zero_point=zero_point))
            inputs.append(values)
    out_scale = operands[0].scale * operands[1].scale * 70 * depth**0.5
    builder.operator(
        "BATCH_MATMUL",
        operands,
        (*np.broadcast_shapes(lead_x, lead_y), rows, columns),
        scale=_f32(out_scale * _factor(rng)),
        zero_point=_zero_point(rng),
        options=("BatchMatMulOptions", {"AdjX": adj_x, "AdjY": adj_y}),
    )
    return inputs


_MAKERS: dict[str, Callable[[Rng, ModelBuilder], list[Int8]]] = {
    "CONV_2D": _convolution_model("CONV_2D"),
    "DEPTHWISE_CONV_2D": _convolution_model("DEPTHWISE_CONV_2D"),
    "FULLY_CONNECTED": _fully_connected_model,
    "BATCH_MATMUL": _batch_matmul_model,
    "ADD": _binary_model("ADD"),
    "SUB": _binary_model("SUB"),
    "MUL": _binary_model("MUL"),
    "AVERAGE_POOL_2D": _pool_model("AVERAGE_POOL_2D"),
    "MAX_POOL_2D": _pool_model("MAX_POOL_2D"),
    "SOFTMAX": _softmax_model,
    "LOGISTIC": _all_codes_model("LOGISTIC"),
    "TANH": _all_codes_model("TANH"),
    "RELU": _all_codes_model("RELU"),
    "RELU6": _all_codes_model("RELU6"),
    "RELU_N1_TO_1": _all_codes_model("RELU_N1_TO_1"),
    "LEAKY_RELU": _all_codes_model("LEAKY_RELU"),
    "HARD_SWISH": _all_codes_model("HARD_SWISH"),
    "QUANTIZE": _all_codes_model("QUANTIZE"),
    "MEAN": _mean_model,
    "MAXIMUM": _extremum_model("MAXIMUM"),
    "MINIMUM": _extremum_model("MINIMUM"),
    "REDUCE_MAX": _reduce_max_model,
    "EXP": _function_model("EXP", options="ExpOptions"),
    "GELU": _function_model("GELU", options="GeluOptions"),
    "LOG": _function_model("LOG"),
    "NEG": _function_model("NEG", options="NegOptions"),
    "RSQRT": _function_model("RSQRT", positive=True),
    "SQRT": _function_model("SQRT", positive=True),
    "PAD": _pad_model,
    "RESHAPE": _reshape_model,
}

OPERATORS = tuple(_MAKERS)
"""The schema's names of the operators that :func:`random_operator` can make."""


def random_operator(code: str, rng: Rng) -> RandomModel:
    """Make a model of one operator.

    Parameters
    ----------
    code
        One of :data:`OPERATORS`.
    rng
        Where every choice comes from.
    """
    builder = ModelBuilder()
    inputs = _MAKERS[code](rng, builder)
    return RandomModel(builder.finish(), [*inputs])


# ---------------------------------------------------------------------- networks


def random_network(
    rng: Rng,
    *,
    depth: int = 6,
    size: tuple[int, int] = (8, 8),
    codes: tuple[str, ...] = ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D", "QUANTIZE"),
) -> RandomModel:
    """Make a small image classifier: layers and residual additions, then a softmax.

    Parameters
    ----------
    rng
        Where every choice comes from.
    depth
        Number of layers before the classifier.
    size
        Height and width of the input.
    codes
        What the layers are drawn from: convolutions, pools and element-wise operators of one
        input that :data:`OPERATORS` names.  A layer after which an earlier tensor has the same
        shape may be followed by an ADD of the two.
    """
    builder = ModelBuilder()
    shape = (1, *size, _int(rng, 1, 4))
    x = builder.input(shape, scale=_scale(rng, 1e-2), zero_point=_zero_point(rng))
    earlier = [x]
    for _ in range(depth):
        code = codes[_int(rng, 0, len(codes) - 1)]
        if code in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            x = convolution(rng, builder, x, code)
        elif code in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
            x = pool(rng, builder, x, code)
        else:
            x = _unary(rng, builder, x, code)
        # Wide depth multipliers would make later layers slow: a pointwise layer narrows them.
        if x.shape[3] > 24:
            x = builder.conv2d(
                x,
                _weights(rng, 8, 1, 1, x.shape[3]),
                w_scales=_scale(rng),
                scale=x.scale * 2,
                zero_point=_zero_point(rng),
            )
        partners = [t for t in earlier if t.shape == x.shape]
        if partners and rng.random() < 0.5:
            x = binary(rng, builder, partners[_int(rng, 0, len(partners) - 1)], x, "ADD")
        earlier.append(x)
    x = builder.average_pool2d(x, size=(x.shape[1], x.shape[2]))
    x = _fully_connected(rng, builder, builder.reshape(x, (1, -1)))
    x = builder.softmax(x)
    return RandomModel(builder.finish([x]), [_values(rng, shape)])
