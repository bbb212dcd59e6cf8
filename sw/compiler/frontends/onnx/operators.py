"""What each kind of unit becomes: operators that the compiler has records of.

A function that finds that the NPU does not compute a unit raises `NotOnNpuError` before it makes
anything.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.frontends.onnx.convert import Builder
from celosia.sw.compiler.frontends.onnx.functions import codes_of, table_of
from celosia.sw.compiler.frontends.onnx.layout import (
    channels_last,
    identity,
)
from celosia.sw.compiler.frontends.onnx.moves import moved_numbers
from celosia.sw.compiler.frontends.onnx.units import (
    TABLES,
    Constant,
    NotOnNpuError,
    Operand,
    Quantised,
    Unit,
)
from celosia.sw.compiler.frontends.onnx.windows import Windows, windows_of
from celosia.sw.compiler.ir import DType
from celosia.sw.compiler.ops.binary import UNSIGNED_FILE
from celosia.sw.compiler.ops.clamp import OUTPUT_RANGE
from celosia.sw.compiler.ops.elementwise import LOOKUP
from celosia.sw.compiler.ops.weights import FLOAT_SUM, SCALE

__all__ = ["EMITTERS"]

Array = npt.NDArray[Any]
MAX_KERNEL = 1 << 16


def _activation(unit: Unit, place: int = 0) -> Operand:
    """Return an operand that is computed."""
    operand = unit.operands[place] if place < len(unit.operands) else None
    if not isinstance(operand, Operand) or operand.value is not None:
        raise NotOnNpuError
    return operand


def _range(unit: Unit) -> dict[str, Any]:
    """Return the option that says which codes the activations behind the operator leave."""
    return {OUTPUT_RANGE: _codes(unit)}


def _codes(unit: Unit) -> tuple[int, int]:
    """Return the least and greatest int8 code of a unit's result."""
    (result,) = unit.results
    low, high = -128, 127
    for bounds in unit.clamps:
        least, most = (codes_of(np.float32(bound), result.quantised) for bound in bounds)
        low, high = min(max(low, least), most), min(max(high, least), most)
    return low, high


# Sums of products ------------------------------------------------------------------------------


def conv(b: Builder, unit: Unit) -> None:
    """Convolution over one or two axes, with groups and dilation."""
    source, weights, (result,) = _activation(unit), unit.operands[1], unit.results
    rank = len(b.shape(source.name))
    if not isinstance(weights, Operand) or weights.value is None or rank not in (3, 4):
        raise NotOnNpuError
    kernel = weights.value.shape[2:]
    windows = windows_of(
        unit.node.options, b.shape(source.name)[2:], b.shape(result.name)[2:], kernel
    )
    if windows is None:
        raise NotOnNpuError
    cout, own = weights.value.shape[:2]
    cin, group = b.shape(source.name)[1], int(unit.node.options.get("group", 1))
    data = _less_zero(weights, axis=0)
    if rank == 3:
        data = data[:, :, None, :]
    scales = weights.quantised.scale
    bias = _bias(unit, 2, scales, source, cout)
    if group > 1 and group == cin and own == 1:
        name, data = "DEPTHWISE_CONV_2D", data.transpose(1, 2, 3, 0)
        axis, more = 3, {"depth_multiplier": cout // cin}
    else:
        name, data, axis, more = "CONV_2D", data.transpose(0, 2, 3, 1), 0, {}
    filter_ = _weights(b, unit, data, scales, axis)
    image = _image(b, source, unit)
    made, tensor = _result_image(b, unit)
    b.emit(
        unit.node,
        name,
        [image, filter_, _bias_tensor(b, unit, bias)],
        [tensor],
        windows.options | more | _range(unit),
    )
    _give_image(b, unit, made, tensor)


def dense(b: Builder, unit: Unit) -> None:
    """Gemm, or a MatMul by constant weights."""
    source, weights, (result,) = _activation(unit), unit.operands[1], unit.results
    if not isinstance(weights, Operand):
        raise NotOnNpuError
    if weights.value is None:
        matmul(b, unit)
        return
    options = unit.node.options
    if weights.value.ndim != 2 or options.get("transA", 0):
        raise NotOnNpuError
    if float(options.get("alpha", 1.0)) != 1.0 or float(options.get("beta", 1.0)) != 1.0:
        raise NotOnNpuError
    turned = bool(options.get("transB", 0)) and unit.kind == "Gemm"
    data = _less_zero(weights, axis=0 if turned else 1)
    data = data if turned else data.T
    columns, depth = data.shape
    shape = b.shape(source.name)
    if shape[-1] != depth:
        raise NotOnNpuError
    scales = weights.quantised.scale
    bias = _bias(unit, 2, scales, source, columns)
    before = b.pending(source.name)
    if before is not None and prod(b.shape(before)) == depth == prod(shape):
        # The weights take the order that the elements are in, and nothing moves.
        name, numbers = b.numbers(before)
        ordered = np.empty_like(data)
        ordered[:, numbers.reshape(-1)] = data
        data = ordered
    else:
        name = b.get(source.name, identity(len(shape)), unit.node)
    filter_ = _weights(b, unit, data, scales, 0)
    tensor = b.codes(result.name, result.quantised, identity(len(b.shape(result.name))))
    b.emit(
        unit.node,
        "FULLY_CONNECTED",
        [name, filter_, _bias_tensor(b, unit, bias)],
        [tensor],
        {"weights_format": 0, "keep_num_dims": True} | _range(unit),
    )


def matmul(b: Builder, unit: Unit) -> None:
    """MatMul of two tensors of which both are computed."""
    first, second, (result,) = _activation(unit), _activation(unit, 1), unit.results
    shapes = [b.shape(operand.name) for operand in (first, second)]
    if unit.kind != "MatMul" or min(len(shape) for shape in shapes) < 2:
        raise NotOnNpuError
    names = [
        b.get(operand.name, identity(len(shape)), unit.node)
        for operand, shape in zip((first, second), shapes, strict=True)
    ]
    tensor = b.codes(result.name, result.quantised, identity(len(b.shape(result.name))))
    options = {"adj_x": False, "adj_y": False} | _range(unit)
    b.emit(unit.node, "BATCH_MATMUL", names, [tensor], options)


def _less_zero(weights: Operand, axis: int) -> npt.NDArray[np.int16]:
    """Return weights less their zero points."""
    assert weights.value is not None
    zeros = weights.quantised.zero_point
    shape = [1] * weights.value.ndim
    if zeros.size > 1:
        if zeros.size != weights.value.shape[axis]:
            raise NotOnNpuError
        shape[axis] = zeros.size
    if weights.quantised.scale.size not in (1, weights.value.shape[axis]):
        raise NotOnNpuError
    own = weights.quantised.axis
    if own is not None and not weights.quantised.single and own % weights.value.ndim != axis:
        raise NotOnNpuError
    data: npt.NDArray[np.int16] = weights.value.astype(np.int16) - zeros.reshape(
        shape if zeros.size > 1 else [1]
    ).astype(np.int16)
    return data


def _weights(
    b: Builder, unit: Unit, data: npt.NDArray[np.int16], scales: npt.NDArray[np.float32], axis: int
) -> str:
    """Add weights whose zero point is 0: int8 where they fit."""
    kind = np.int8 if data.min() >= -128 and data.max() <= 127 else np.int16
    quantised: dict[str, Any] = {"scale": float(scales[0])}
    if scales.size > 1:
        quantised = {"channel_scales": scales, "channel_axis": axis}
    return b.constant(f"{unit.results[0].name}/weights", data.astype(kind), **quantised)


def _bias(
    unit: Unit, place: int, scales: npt.NDArray[np.float32], source: Operand, channels: int
) -> npt.NDArray[np.int32] | None:
    """Return the bias in steps of the accumulator; onnxruntime rounds one in floating point."""
    operand = unit.operands[place] if place < len(unit.operands) else None
    if operand is None:
        return None
    # A Gemm's may be one a row. In floating point onnxruntime takes only one axis for a bias.
    if not isinstance(operand, Constant) or operand.value.shape not in ((1,), (channels,)):
        raise NotOnNpuError
    value = np.broadcast_to(operand.value, (channels,))
    if value.dtype == np.int32:
        return value.astype(np.int32)
    if value.dtype != np.float32:
        raise NotOnNpuError
    with np.errstate(over="ignore"):
        steps = np.rint(value / (source.quantised.scale[0] * scales)).astype(np.float64)
    if not np.all(np.abs(steps) < 2.0**31):
        raise NotOnNpuError
    whole: npt.NDArray[np.int32] = steps.astype(np.int32)
    return whole


def _bias_tensor(b: Builder, unit: Unit, bias: npt.NDArray[np.int32] | None) -> str | None:
    return None if bias is None else b.constant(f"{unit.results[0].name}/bias", bias)


def _image(b: Builder, source: Operand, unit: Unit) -> str:
    """Return a tensor as an image [N, H, W, C]."""
    rank = len(b.shape(source.name))
    name = b.get(source.name, channels_last(rank), unit.node)
    if rank == 4:
        return name
    batch, length, channels = b.tensor(name).shape
    return _reshaped(b, unit, name, (batch, 1, length, channels), "image")


def _result_image(b: Builder, unit: Unit) -> tuple[str, str]:
    """Return what holds a unit's result, and the image to write."""
    (result,) = unit.results
    rank = len(b.shape(result.name))
    made = b.codes(result.name, result.quantised, channels_last(rank))
    if rank == 4:
        return made, made
    tensor = b.tensor(made)
    batch, length, channels = tensor.shape
    return made, b.view(made, (batch, 1, length, channels), "image")


def _give_image(b: Builder, unit: Unit, made: str, image: str) -> None:
    if image != made:
        b.emit(unit.node, "RESHAPE", [image], [made])


def _reshaped(b: Builder, unit: Unit, name: str, shape: tuple[int, ...], what: str) -> str:
    made = b.view(name, shape, what)
    b.emit(unit.node, "RESHAPE", [name], [made])
    return made


# Pools -----------------------------------------------------------------------------------------


def max_pool(b: Builder, unit: Unit) -> None:
    """MaxPool, and GlobalMaxPool."""
    source, (result,) = _activation(unit), unit.results
    before, after = b.shape(source.name)[2:], b.shape(result.name)[2:]
    kernel = tuple(unit.node.options.get("kernel_shape") or before)
    windows = windows_of(unit.node.options, before, after, kernel)
    if (
        windows is None
        or windows.dilations != (1, 1)
        or windows.beside
        or max(windows.kernel) > MAX_KERNEL
        or unit.node.options.get("storage_order", 0)
    ):
        raise NotOnNpuError
    image = _image(b, source, unit)
    made, tensor = _result_image(b, unit)
    size = {"filter_height": windows.kernel[0], "filter_width": windows.kernel[1]}
    options = windows.options | size
    if _keeps_scale(unit):
        b.emit(unit.node, "MAX_POOL_2D", [image], [tensor], options | _range(unit))
    else:
        greatest = _in_scale_of(b, source, tensor)
        b.emit(unit.node, "MAX_POOL_2D", [image], [greatest], options)
        _finish(b, unit, greatest, tensor)
    _give_image(b, unit, made, tensor)


def global_average(b: Builder, unit: Unit) -> None:
    """GlobalAveragePool: a sum of whole numbers, scaled once; a convolution by ones."""
    shape = b.shape(_activation(unit).name)
    if len(shape) not in (3, 4):
        raise NotOnNpuError
    windows = windows_of({}, shape[2:], (1,) * len(shape[2:]), shape[2:])
    _average(b, unit, windows)


def average_pool(b: Builder, unit: Unit) -> None:
    """AveragePool whose windows have all as many pixels: a convolution by ones."""
    source, (result,) = _activation(unit), unit.results
    before, after = b.shape(source.name)[2:], b.shape(result.name)[2:]
    options = unit.node.options
    windows = windows_of(options, before, after, tuple(options.get("kernel_shape") or ()))
    # Whether a window divides by as much as any other, wherever it is.
    counts_padding = options.get("count_include_pad", 0) and not options.get("ceil_mode", 0)
    if windows is None or (windows.padded and not counts_padding):
        raise NotOnNpuError
    _average(b, unit, windows, {FLOAT_SUM: prod(windows.kernel)})


def reduce_mean(b: Builder, unit: Unit) -> None:
    """ReduceMean over the axes of an image, or over all but the first and the last."""
    source = _activation(unit)
    shape = b.shape(source.name)
    axes = unit.node.options.get("axes")
    if len(unit.operands) > 1 and isinstance(unit.operands[1], Constant):
        axes = unit.operands[1].value.reshape(-1).tolist()
    rank = len(shape)
    along = {int(axis) % rank for axis in axes or ()}
    last = along == set(range(1, rank - 1))
    if rank not in (3, 4) or not (last or along == set(range(2, rank))):
        raise NotOnNpuError
    sizes = shape[1:-1] if last else shape[2:]
    windows = windows_of({}, sizes, (1,) * (rank - 2), sizes)
    _average(b, unit, windows, {FLOAT_SUM: prod(sizes)}, channels_are_last=last)


def _average(
    b: Builder,
    unit: Unit,
    windows: Windows | None,
    more: dict[str, Any] | None = None,
    *,
    channels_are_last: bool = False,
) -> None:
    """Add the averages of windows, and a new shape where the result has fewer axes."""
    source, (result,) = _activation(unit), unit.results
    if windows is None or windows.dilations != (1, 1):
        raise NotOnNpuError
    single, shape = np.float32, b.shape(source.name)
    channels, rank = shape[-1 if channels_are_last else 1], len(b.shape(result.name))
    count = single(prod(windows.kernel))
    scale = source.quantised.scale[0] / (count * result.quantised.scale[0])
    ones = np.ones((1, *windows.kernel, channels), np.int8)
    filter_ = b.constant(f"{result.name}/ones", ones, scale=1.0)
    options = windows.options | {"depth_multiplier": 1, SCALE: float(scale)} | (more or {})
    if channels_are_last:
        image = b.get(source.name, identity(len(shape)), unit.node)
        if len(shape) == 3:
            whole = (shape[0], 1, *shape[1:])
            image = _reshaped(b, unit, image, whole, "image")
    else:
        image = _image(b, source, unit)
    if rank == len(shape) and not channels_are_last:
        made, tensor = _result_image(b, unit)
    else:
        # The axes that are gone have length one: the order of the others is the file's.
        made = b.codes(result.name, result.quantised, identity(rank))
        tensor = b.view(made, (shape[0], 1, 1, channels), "image")
    b.emit(unit.node, "DEPTHWISE_CONV_2D", [image, filter_], [tensor], options | _range(unit))
    _give_image(b, unit, made, tensor)


# Functions of one element ----------------------------------------------------------------------


def function(b: Builder, unit: Unit) -> None:
    """Any function of one element, by a table of what onnxruntime gives for each code."""
    source, (result,) = _activation(unit), unit.results
    if any(isinstance(one, Operand) for one in unit.operands[1:]):
        raise NotOnNpuError
    constants = [one.value if isinstance(one, Constant) else None for one in unit.operands[1:]]
    table = table_of(b.model, unit, source, result, constants)
    _look_up(b, unit, b.permutation(source.name), table)


def of_channels(b: Builder, unit: Unit) -> None:
    """BatchNormalization, and PRelu by constant slopes: a function for each channel."""
    source, (result,) = _activation(unit), unit.results
    shape = b.shape(source.name)
    constants: list[Array | None] = []
    for one in unit.operands[1:]:
        if isinstance(one, Operand) and one.value is not None:
            constants.append(_real(one))
        elif isinstance(one, Constant):
            constants.append(one.value if one.real is None else one.real)
        else:
            raise NotOnNpuError
    if len(shape) < 3 or shape[0] != 1 or unit.node.options.get("training_mode", 0):
        raise NotOnNpuError
    if not all(_of_axis(value, unit.kind, shape) for value in constants):
        raise NotOnNpuError
    table = table_of(b.model, unit, source, result, constants, channels=shape[1])
    _look_up(b, unit, channels_last(len(shape)), table)


def _of_axis(value: Array | None, kind: str, shape: tuple[int, ...]) -> bool:
    """Whether a constant has one number, or one for each channel: PRelu broadcasts, from behind."""
    if value is None or value.size == 1:
        return True
    if kind != "PRelu":
        return value.shape == (shape[1],)
    whole = (1,) * (len(shape) - value.ndim) + value.shape
    return whole == (1, shape[1], *(1,) * (len(shape) - 2))


def _real(one: Operand) -> Array:
    """Return what a constant operand's codes mean."""
    if not one.quantised.single:
        raise NotOnNpuError
    codes = one.codes.astype(np.int32) - one.quantised.zero
    real: Array = codes.astype(np.float32) * one.quantised.scale[0]
    return real


def _look_up(b: Builder, unit: Unit, permutation: tuple[int, ...], table: Array) -> None:
    """Add a table, with the axes in some order."""
    (result,) = unit.results
    name = b.get(_activation(unit).name, permutation, unit.node)
    low, high = _codes(unit)
    operand = b.constant(f"{result.name}/table", np.clip(table, low, high).astype(np.int8))
    tensor = b.codes(result.name, result.quantised, permutation)
    b.emit(unit.node, LOOKUP, [name, operand], [tensor])


def requantise(b: Builder, unit: Unit) -> None:
    """Other scales: DequantizeLinear and QuantizeLinear without anything between them."""
    source, (result,) = _activation(unit), unit.results
    table = _rescaling(source.quantised, result.quantised)
    _look_up(b, unit, b.permutation(source.name), table)


def _rescaling(source: Quantised, result: Quantised) -> Array:
    """Return the int8 table that brings codes to other scales, by `value & 0xFF`."""
    codes = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
    real = (codes - source.zero).astype(np.float32) * source.scale[0]
    table: Array = codes_of(real, result)
    return table


# Two tensors -----------------------------------------------------------------------------------


def pair(b: Builder, unit: Unit) -> None:
    """Add, Sub, Mul, and Max or Min; these compare what both are in the result's scale."""
    (result,) = unit.results
    both = [one for one in unit.operands if isinstance(one, Operand) and one.quantised.single]
    if len(unit.operands) != 2 or len(both) != 2:
        raise NotOnNpuError
    kinds = {one.quantised.dtype for one in (*both, result)}
    if unit.kind in ("Add", "Mul") and len(kinds) > 1:
        raise NotOnNpuError
    shape = b.shape(result.name)
    whole = [one for one in both if one.value is None and len(b.shape(one.name)) == len(shape)]
    if not whole:
        raise NotOnNpuError
    permutation = b.permutation(whole[0].name)
    names = [_aligned(b, unit, one, shape, permutation) for one in both]
    if unit.kind in ("Max", "Min"):
        names = [
            _rescaled(b, unit, name, one, f"operand{number}")
            for number, (name, one) in enumerate(zip(names, both, strict=True))
        ]
    tensor = b.codes(result.name, result.quantised, permutation)
    options = {UNSIGNED_FILE: bool(result.quantised.offset)}
    b.emit(unit.node, _PAIRS[unit.kind], names, [tensor], _range(unit) | options)


_PAIRS = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Max": "MAXIMUM", "Min": "MINIMUM"}


def _rescaled(b: Builder, unit: Unit, name: str, one: Operand, what: str) -> str:
    """Return a tensor in the scale of the unit's result."""
    (result,) = unit.results
    if one.quantised.same(result.quantised) and not unit.clamps:
        return name
    table = _bounded(unit, one)
    tensor = b.tensor(name)
    like = result.quantised.fields
    if tensor.data is not None:
        return b.constant(f"{result.name}/{what}", table[tensor.data.view(np.uint8)], **like)
    operand = b.constant(f"{result.name}/{what}/table", table)
    made = b.add(f"{result.name}/{what}", tensor.shape, DType.INT8, **like)
    b.emit(unit.node, LOOKUP, [name, operand], [made])
    return made


def _aligned(
    b: Builder, unit: Unit, one: Operand, shape: tuple[int, ...], permutation: tuple[int, ...]
) -> str:
    """Return an operand with as many axes as the result, in the result's order."""
    rank = len(shape)
    if one.value is not None:
        codes = one.codes.reshape((1,) * (rank - one.value.ndim) + one.value.shape)
        return b.constant(
            f"{unit.results[0].name}/operand",
            codes.transpose(permutation),
            **one.quantised.fields,
        )
    own = b.shape(one.name)
    if len(own) == rank:
        return b.get(one.name, permutation, unit.node)
    name = b.get(one.name, identity(len(own)), unit.node)
    full = (1,) * (rank - len(own)) + own
    name = _reshaped(b, unit, name, full, "broadcast")
    if permutation == identity(rank):
        return name
    return b.turned(unit.node, name, permutation, f"{name}/turned")


# Movements -------------------------------------------------------------------------------------


def _finish(b: Builder, unit: Unit, name: str, tensor: str) -> None:
    """Make a unit's result of what has its elements, but not yet its scale or its bounds."""
    table = _bounded(unit, _activation(unit))
    b.emit(unit.node, LOOKUP, [name, b.constant(f"{tensor}/table", table)], [tensor])


def _bounded(unit: Unit, source: Operand) -> npt.NDArray[np.int8]:
    """Return the table that brings codes to the scale and into the bounds of a unit's result."""
    (result,) = unit.results
    table = np.clip(_rescaling(source.quantised, result.quantised), *_codes(unit))
    return table.astype(np.int8)


def _keeps_scale(unit: Unit) -> bool:
    """Whether codes mean in the result what they mean in the operand."""
    source = _activation(unit)
    return all(source.quantised.same(result.quantised) for result in unit.results)


def _keeps_codes(unit: Unit) -> bool:
    """Whether codes stay what they are where a unit moves them."""
    return _keeps_scale(unit) and not unit.clamps


def reshape(b: Builder, unit: Unit) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: made when something needs the new shape."""
    (result,) = unit.results
    source = _activation(unit)
    shape = b.shape(result.name)
    if not _keeps_codes(unit):
        name = b.get(source.name, identity(len(b.shape(source.name))), unit.node)
        tensor = b.codes(result.name, result.quantised, identity(len(shape)))
        _finish(b, unit, _reshaped(b, unit, name, shape, "reshaped"), tensor)
    elif b.shape(source.name) == shape:
        b.hold(result.name, *b.first(source.name))
    else:
        b.later(result.name, source.name, unit.node)


def transpose(b: Builder, unit: Unit) -> None:
    """Transpose: the same elements, whose axes are called otherwise."""
    _, held = b.first(_activation(unit).name)
    turn = b.turn_of(unit.node, len(held))
    _hold(b, unit, tuple(turn.index(axis) for axis in held))


def same(b: Builder, unit: Unit) -> None:
    """Identity."""
    _hold(b, unit, b.first(_activation(unit).name)[1])


def _hold(b: Builder, unit: Unit, permutation: tuple[int, ...]) -> None:
    """Say that what holds a unit's operand holds its result, with axes of other names."""
    (result,) = unit.results
    name, _ = b.first(_activation(unit).name)
    if _keeps_codes(unit):
        b.hold(result.name, name, permutation)
    else:
        _finish(b, unit, name, b.codes(result.name, result.quantised, permutation))


def movement(b: Builder, unit: Unit) -> None:
    """Slice, Split, Pad, Resize to the nearest, DepthToSpace and their like."""
    source, keeps = _activation(unit), _keeps_codes(unit)
    if not _keeps_scale(unit) and (len(unit.results) > 1 or unit.kind == "Pad"):
        raise NotOnNpuError
    name, places = b.numbers(source.name)
    numbers = moved_numbers(b, unit, places)
    zero = b.tensor(name).zero_point
    for result, (moved, fill) in zip(unit.results, numbers, strict=True):
        tensor = b.codes(result.name, result.quantised)
        turned = moved.transpose(b.places[tensor].permutation)
        operand = b.constant(f"{result.name}/elements", turned.astype(np.int32))
        options = {"fill": zero if fill is None else fill}
        made = tensor if keeps else _in_scale_of(b, source, tensor)
        b.emit(unit.node, "ARRANGE", [name, operand], [made], options)
        if made != tensor:
            _finish(b, unit, made, tensor)


def _in_scale_of(b: Builder, source: Operand, tensor: str) -> str:
    """Add a tensor of another one's shape, in the scale of a unit's operand."""
    shape = b.tensor(tensor).shape
    return b.add(f"{tensor}/moved", shape, DType.INT8, **source.quantised.fields)


def concat(b: Builder, unit: Unit) -> None:
    """Concat; what has another scale is rescaled before."""
    (result,) = unit.results
    parts = [one for one in unit.operands if isinstance(one, Operand)]
    if len(parts) != len(unit.operands) or any(not one.quantised.single for one in parts):
        raise NotOnNpuError
    computed = [one for one in parts if one.value is None]
    rank = len(b.shape(result.name))
    axis = int(unit.node.options.get("axis", 0)) % rank
    permutation = b.permutation(computed[0].name)
    names: list[str] = []
    for number, one in enumerate(parts):
        name = _aligned(b, unit, one, b.shape(one.name), permutation)
        names.append(_rescaled(b, unit, name, one, f"part{number}"))
    tensor_name = b.codes(result.name, result.quantised, permutation)
    options = {"axis": permutation.index(axis), "fused_activation_function": "NONE"}
    b.emit(unit.node, "CONCATENATION", names, [tensor_name], options)


_Emitter = Callable[[Builder, Unit], None]
EMITTERS: dict[str, _Emitter] = {
    "Quantise": Builder.quantise,
    "Dequantise": Builder.dequantise,
    "Requantise": requantise,
    "Conv": conv,
    "Gemm": dense,
    "MatMul": dense,
    "MaxPool": max_pool,
    "GlobalMaxPool": max_pool,
    "GlobalAveragePool": global_average,
    "Concat": concat,
    "Identity": same,
    "Transpose": transpose,
    **dict.fromkeys(("BatchNormalization", "PRelu"), of_channels),
    "AveragePool": average_pool,
    "ReduceMean": reduce_mean,
    **dict.fromkeys(_PAIRS, pair),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
    **dict.fromkeys(("DepthToSpace", "Pad", "Resize", "Slice", "SpaceToDepth", "Split"), movement),
    **dict.fromkeys(TABLES, function),
}
"""What makes the operators of a unit, by its kind."""
