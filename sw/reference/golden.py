"""Runs a whole ``.tflite`` model with the operators of :mod:`celosia.sim.golden.operators`.

Every intermediate tensor is returned, so that a test can say which layer went wrong::

    model = GoldenModel("examples/mlperf_tiny/kws_int8.tflite")
    tensors = model.run([window])              # {name: int8 array}
    result = tensors[model.outputs[0].name]
    by_index = model.run_by_index([window])    # {index: array}, when names repeat

The file is read by the compiler's reader, so whatever compiles can be checked.  The arithmetic is
this package's own: none of it is shared with the compiler or the emulator.  Operators that the
outputs do not depend on are neither run nor looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sim.golden import activations, floats, movement, resize
from celosia.sim.golden import operators as golden
from celosia.sim.golden.matmul import batch_matmul
from celosia.sw.compiler.ir import Graph
from celosia.sw.reference.graph import (
    GoldenOperator,
    TensorInfo,
    UnsupportedModelError,
    read_graph,
)
from celosia.sw.reference.signed import OFFSET, signed, to_signed, to_unsigned

__all__ = ["OPERATORS", "GoldenModel", "GoldenOperator", "TensorInfo", "UnsupportedModelError"]

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array] | Sequence[Array]

_ACTIVATIONS = frozenset({"NONE", "RELU", "RELU_N1_TO_1", "RELU6"})


class GoldenModel:
    """A model loaded from a file, from bytes, or from a graph that the reader made of them.

    Parameters
    ----------
    source
        A path, the flatbuffer itself, or a source-level graph.

    Attributes
    ----------
    tensors : dict[int, TensorInfo]
        Every tensor that something refers to, by index.
    inputs, outputs : list[TensorInfo]
        The model's inputs and outputs, in order.
    operators : list[GoldenOperator]
        Those that the outputs depend on, in order of execution.

    Raises
    ------
    UnsupportedModelError
        If the file is not a model that the compiler's reader accepts, or its outputs depend on
        an operator that is not supported.
    """

    def __init__(self, source: str | Path | bytes | Graph) -> None:
        graph = read_graph(source)
        self.tensors = graph.tensors
        self.inputs = graph.inputs
        self.outputs = graph.outputs
        self.operators = graph.operators
        self._variables = graph.variables
        self.reset()
        for op in self.operators:
            for index in (*op.inputs, *op.outputs):
                if index in graph.unknown:
                    raise UnsupportedModelError(
                        f"operator {op.position} ({op.name}) is not supported:"
                        f" {graph.unknown[index]}"
                    )
            self._check(op)
        self._signed = copy(self)
        self._signed.tensors = {index: signed(info) for index, info in self.tensors.items()}

    def reset(self) -> None:
        """Let the variables hold what they hold before the first inference."""
        self._held = {variable.before: variable.initial for variable in self._variables}

    def restore(self, values: Mapping[int, Array]) -> None:
        """Let variables hold these values, by the number of the tensor that reads each first."""
        self.reset()
        self._held |= {index: value for index, value in values.items() if index in self._held}

    def run(self, inputs: Inputs) -> dict[str, Array]:
        """Run one inference; the next one begins with the variables that it leaves.

        Parameters
        ----------
        inputs
            Arrays by input name, or in the order of :attr:`inputs`.

        Returns
        -------
        dict
            Every tensor that is not constant (the inputs too) by name; a name that repeats has
            ``#`` and the tensor's index behind it.
        """
        values = self.run_by_index(inputs)
        return {self.tensors[index].name: value for index, value in values.items()}

    def run_by_index(self, inputs: Inputs) -> dict[int, Array]:
        """Run one inference and return every tensor that is not constant by its index."""
        values = {info.index: info.data for info in self.tensors.values() if info.data is not None}
        computed = self._bind(inputs) | self._held
        for op in self.operators:
            each = self._evaluate(op, {**values, **computed})
            for index, result in zip(op.outputs, each, strict=True):
                expected = self.tensors[index].shape
                # A batch of another size than the file's is allowed to pass through.
                if result.shape[1:] != expected[1:]:
                    raise UnsupportedModelError(
                        f"operator {op.position} ({op.name}) gives shape {result.shape}, "
                        f"the file says {expected}"
                    )
                computed[index] = result
        # Bytes are kept, whatever shape and scale they are read with.
        self._held = {
            variable.before: {**values, **computed}[variable.after].reshape(variable.initial.shape)
            for variable in self._variables
        }
        return computed

    def _evaluate(self, op: GoldenOperator, values: Values) -> list[Array]:
        """Return an operator's results."""
        unsigned = op.name not in _CONVERSIONS and any(
            self.tensors[index].dtype == np.uint8 for index in op.outputs
        )
        if unsigned:
            values = {index: to_signed(value) for index, value in values.items()}
        results = self._evaluator(op)(self._signed if unsigned else self, op, values)
        each = results if isinstance(results, list) else [results]
        return [to_unsigned(result) for result in each] if unsigned else each

    def _bind(self, inputs: Inputs) -> dict[int, Array]:
        if isinstance(inputs, Mapping):
            missing = {info.name for info in self.inputs} ^ set(inputs)
            if missing:
                raise ValueError(f"input names do not match the model's: {sorted(missing)}")
            arrays = [np.asarray(inputs[info.name]) for info in self.inputs]
        else:
            arrays = [np.asarray(a) for a in inputs]
        if len(arrays) != len(self.inputs):
            raise ValueError(f"the model has {len(self.inputs)} inputs, got {len(arrays)}")
        for info, array in zip(self.inputs, arrays, strict=True):
            if array.dtype != info.dtype or array.shape != info.shape:
                raise ValueError(
                    f"input {info.name!r} is {info.dtype}{list(info.shape)}, "
                    f"got {array.dtype}{list(array.shape)}"
                )
        return {info.index: array for info, array in zip(self.inputs, arrays, strict=True)}

    def _evaluator(self, op: GoldenOperator) -> _Evaluator:
        return _in_floats if self._floats(op) else _EVALUATORS[op.name]

    def _floats(self, op: GoldenOperator) -> bool:
        """Whether an operator has a meaning of its own for float32, and gets nothing else."""
        kinds = {self.tensors[index].dtype for index in op.inputs if index >= 0}
        return op.name in _FLOATS and kinds == {np.dtype(np.float32)}

    def _check(self, op: GoldenOperator) -> None:
        if self._floats(op):
            return
        if op.name not in _EVALUATORS:
            supported = ", ".join(OPERATORS)
            raise UnsupportedModelError(
                f"operator {op.position} ({op.name}) is not supported; supported: {supported}"
            )
        several = op.name in ("SPLIT", "SPLIT_V", "UNPACK")
        if not op.inputs or op.inputs[0] < 0 or (len(op.outputs) != 1 and not several):
            raise UnsupportedModelError(
                f"operator {op.position} ({op.name}) has no first input, or not one output"
            )
        if op.name in _ANY_TYPE:
            return
        source = op.inputs[_DATA_PLACE.get(op.name, 0)]
        data = [self.tensors[i] for i in (source, op.outputs[0])]
        for info in data:
            if info.dtype not in (np.int8, np.uint8) or info.scales.size != 1:
                raise UnsupportedModelError(
                    f"operator {op.position} ({op.name}): tensor {info.name!r} is {info.dtype} "
                    f"with {info.scales.size} scales; supported are int8 and uint8 with one scale"
                )


# ---------------------------------------------------------------------- evaluating operators

Values = Mapping[int, Array]


def _activation(op: GoldenOperator) -> str:
    name = str(op.options.get("fused_activation_function", "NONE"))
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"operator {op.position} ({op.name}) has the unsupported fused activation {name}"
        )
    return name


def _optional(op: GoldenOperator, values: Values, slot: int) -> Array | None:
    if len(op.inputs) <= slot or op.inputs[slot] < 0:
        return None
    return values[op.inputs[slot]]


def _in_out(model: GoldenModel, op: GoldenOperator) -> dict[str, Any]:
    """Return the quantisation of first input and output as the golden operators name it."""
    x, out = model.tensors[op.inputs[0]], model.tensors[op.outputs[0]]
    return {
        "x_scale": x.scale,
        "x_zero_point": x.zero_point,
        "out_scale": out.scale,
        "out_zero_point": out.zero_point,
    }


def _convolution(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    function = golden.conv2d if op.name == "CONV_2D" else golden.depthwise_conv2d
    options = op.options
    return function(
        values[op.inputs[0]],
        values[op.inputs[1]],
        _optional(op, values, 2),
        strides=(options["stride_h"], options["stride_w"]),
        padding=options["padding"],
        dilations=(options["dilation_h_factor"], options["dilation_w_factor"]),
        w_scales=model.tensors[op.inputs[1]].scales,
        activation=_activation(op),
        **_of_weights(model, op),
        **_in_out(model, op),
    )


def _transpose_conv(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    _, weights, x = op.inputs[:3]
    source, out = model.tensors[x], model.tensors[op.outputs[0]]
    return golden.transpose_conv(
        values[x],
        values[weights],
        _optional(op, values, 3),
        size=(out.shape[1], out.shape[2]),
        strides=(op.options["stride_h"], op.options["stride_w"]),
        padding=op.options["padding"],
        x_scale=source.scale,
        x_zero_point=source.zero_point,
        w_scales=model.tensors[weights].scales,
        out_scale=out.scale,
        out_zero_point=out.zero_point,
        activation=_activation(op),
    )


def _of_weights(model: GoldenModel, op: GoldenOperator) -> dict[str, Any]:
    """Return what the kernels of uint8 convolutions have that those of int8 have not."""
    if not model.tensors[op.outputs[0]].unsigned:
        return {}
    return {"unsigned": True, "w_zero_point": model.tensors[op.inputs[1]].zero_point}


def _fully_connected(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    weights = model.tensors[op.inputs[1]]
    result = golden.fully_connected(
        values[op.inputs[0]],
        values[op.inputs[1]],
        _optional(op, values, 2),
        w_scales=weights.scales,
        w_zero_point=weights.zero_point,
        activation=_activation(op),
        **_in_out(model, op),
    )
    # With keep_num_dims the leading dimensions of the input stay.
    return result.reshape(model.tensors[op.outputs[0]].shape)


def _operands(model: GoldenModel, op: GoldenOperator) -> dict[str, Any]:
    """Return the quantisation of two inputs and the output as the golden operators name it."""
    a, b = (model.tensors[i] for i in op.inputs)
    out = model.tensors[op.outputs[0]]
    return {
        "a_scale": a.scale,
        "a_zero_point": a.zero_point,
        "b_scale": b.scale,
        "b_zero_point": b.zero_point,
        "out_scale": out.scale,
        "out_zero_point": out.zero_point,
    }


def _binary(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    functions = {"ADD": golden.add, "SUB": golden.sub, "MUL": golden.mul}
    a, b = (values[i] for i in op.inputs)
    return functions[op.name](a, b, activation=_activation(op), **_operands(model, op))


def _extremum(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    function = golden.maximum if op.name == "MAXIMUM" else golden.minimum
    a, b = op.inputs
    return function(values[a], values[b])


def _batch_matmul(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    a, b = (values[i] for i in op.inputs)
    turned = {name: bool(op.options[name]) for name in ("adj_x", "adj_y")}
    return batch_matmul(a, b, **turned, **_operands(model, op))


def _squared_difference(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    a, b = (values[i] for i in op.inputs)
    return golden.squared_difference(a, b, **_operands(model, op))


def _prelu(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    slope = model.tensors[op.inputs[1]]
    return golden.prelu(
        values[op.inputs[0]],
        values[slope.index],
        slope_scale=slope.scale,
        slope_zero_point=slope.zero_point,
        **_in_out(model, op),
    )


def _pool(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    function = golden.average_pool2d if op.name == "AVERAGE_POOL_2D" else golden.max_pool2d
    out = model.tensors[op.outputs[0]]
    return function(
        values[op.inputs[0]],
        size=(op.options["filter_height"], op.options["filter_width"]),
        strides=(op.options["stride_h"], op.options["stride_w"]),
        padding=op.options["padding"],
        scale=out.scale,
        zero_point=out.zero_point,
        activation=_activation(op),
        **({"unsigned": True} if out.unsigned and op.name == "AVERAGE_POOL_2D" else {}),
    )


def _softmax(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x = model.tensors[op.inputs[0]]
    return golden.softmax(values[x.index], x_scale=x.scale, beta=op.options["beta"])


def _relu(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return golden.relu(values[op.inputs[0]], kind=op.name, **_in_out(model, op))


def _leaky_relu(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    alpha = op.options["alpha"]
    return golden.leaky_relu(values[op.inputs[0]], alpha=alpha, **_in_out(model, op))


def _gelu(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    approximate = bool(op.options["approximate"])
    return activations.gelu(values[op.inputs[0]], approximate=approximate, **_in_out(model, op))


def _mean(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    function = golden.total if op.name == "SUM" else golden.mean
    return function(
        values[op.inputs[0]],
        axes=_numbers(values, op.inputs[1]),
        keep_dims=bool(op.options.get("keep_dims", False)),
        **_in_out(model, op),
    )


def _reduce_extremum(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    function = golden.reduce_min if op.name == "REDUCE_MIN" else golden.reduce_max
    keep = bool(op.options.get("keep_dims", False))
    axes = _numbers(values, op.inputs[1])
    return function(values[op.inputs[0]], axes=axes, keep_dims=keep)


def _pad(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, paddings = op.inputs
    zero_point = model.tensors[op.outputs[0]].zero_point
    return movement.pad_by(values[x], paddings=_pairs(values, paddings), value=zero_point)


def _reshape(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    shape = model.tensors[op.outputs[0]].shape
    return golden.reshape(values[op.inputs[0]], shape=shape)


def _quantize(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, out = model.tensors[op.inputs[0]], model.tensors[op.outputs[0]]
    if out.dtype not in (np.int8, np.uint8, np.int16) or out.scales.size != 1:
        raise _types(model, op)
    if x.dtype in (np.int8, np.uint8, np.int16, np.int32) and x.scales.size == 1:
        return golden.quantize(values[x.index], dtype=out.dtype, **_in_out(model, op))
    if x.dtype != np.float32:
        raise _types(model, op)
    return floats.to_integers(
        values[x.index], scale=out.scale, zero_point=out.zero_point, dtype=out.dtype
    )


def _dequantize(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, out = model.tensors[op.inputs[0]], model.tensors[op.outputs[0]]
    if out.dtype == np.float32 and x.dtype == np.float16:
        return values[x.index].astype(np.float32)
    if (
        out.dtype != np.float32
        or x.scales.size != 1
        or x.dtype not in (np.int8, np.uint8, np.int16)
    ):
        raise _types(model, op)
    distance = values[x.index].astype(np.float64) - x.zero_point
    result: Array = (x.scale * distance).astype(np.float32)
    return result


def _cast(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    dtype = model.tensors[op.outputs[0]].dtype
    if dtype is None:
        raise _types(model, op)
    return floats.cast(values[op.inputs[0]], dtype=dtype)


def _in_floats(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    """Return what an operator computes of float32 tensors."""
    operands = [values[index] for index in op.inputs]
    with np.errstate(all="ignore"):
        if op.name == "GELU":
            result = floats.gelu(operands[0], approximate=bool(op.options["approximate"]))
        elif op.name == "LEAKY_RELU":
            result = floats.leaky_relu(operands[0], alpha=op.options["alpha"])
        elif op.name in floats.UNARY:
            result = floats.UNARY[op.name](operands[0])
        else:
            result = floats.BINARY[op.name](*operands)
            if op.name in ("ADD", "DIV", "MUL", "SUB"):
                result = floats.clamp(result, _activation(op))
        return result.astype(np.float32)


def _types(model: GoldenModel, op: GoldenOperator) -> UnsupportedModelError:
    x, out = model.tensors[op.inputs[0]], model.tensors[op.outputs[0]]
    return UnsupportedModelError(
        f"operator {op.position} ({op.name}) from {x.dtype} to {out.dtype} is not supported"
    )


# Arithmetic on shapes: integers that are known before the first inference.


def _shape(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    shape = model.tensors[op.inputs[0]].shape
    return np.array(shape, model.tensors[op.outputs[0]].dtype)


# Movements of elements, of any type: also of the shapes above.


def _numbers(values: Values, index: int) -> list[int]:
    return [int(value) for value in np.atleast_1d(values[index]).flat]


def _pairs(values: Values, index: int) -> list[tuple[int, int]]:
    numbers = _numbers(values, index)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _concatenation(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    parts = [values[i] for i in op.inputs]
    out = model.tensors[op.outputs[0]]
    if not out.unsigned:
        return movement.concatenation(parts, axis=op.options["axis"])
    infos = [model.tensors[i] for i in op.inputs]
    joined = movement.concatenation_of_uint8(
        [to_unsigned(part) for part in parts],
        scales=[info.scale for info in infos],
        zero_points=[info.zero_point + OFFSET for info in infos],
        out_scale=out.scale,
        out_zero_point=out.zero_point + OFFSET,
        axis=op.options["axis"],
    )
    return to_signed(joined)


def _split(model: GoldenModel, op: GoldenOperator, values: Values) -> list[Array]:
    (axis,) = _numbers(values, op.inputs[0])
    x = values[op.inputs[1]]
    size = x.shape[axis] // len(op.outputs)
    return movement.split(x, sizes=[size] * len(op.outputs), axis=axis)


def _split_v(model: GoldenModel, op: GoldenOperator, values: Values) -> list[Array]:
    x, sizes, axis = op.inputs
    (place,) = _numbers(values, axis)
    return movement.split(values[x], sizes=_numbers(values, sizes), axis=place)


def _slice(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, begin, size = op.inputs
    return movement.slice_of(values[x], begin=_numbers(values, begin), size=_numbers(values, size))


def _pack(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return movement.pack([values[i] for i in op.inputs], axis=op.options["axis"])


def _unpack(model: GoldenModel, op: GoldenOperator, values: Values) -> list[Array]:
    return movement.unpack(values[op.inputs[0]], axis=op.options["axis"])


def _gather(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    if op.options["batch_dims"]:
        raise UnsupportedModelError(f"operator {op.position} ({op.name}) has batch dimensions")
    x, indices = op.inputs
    return movement.gather(values[x], indices=values[indices], axis=op.options["axis"])


def _tile(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return movement.tile(values[op.inputs[0]], multiples=_numbers(values, op.inputs[1]))


def _broadcast_to(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    shape = model.tensors[op.outputs[0]].shape
    return movement.broadcast_to(values[op.inputs[0]], shape=shape)


def _reverse(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return movement.reverse(values[op.inputs[0]], axes=_numbers(values, op.inputs[1]))


def _transpose(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return movement.transpose(values[op.inputs[0]], permutation=_numbers(values, op.inputs[1]))


def _pad_by_value(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, paddings, value = op.inputs
    (fill,) = _numbers(values, value)
    return movement.pad_by(values[x], paddings=_pairs(values, paddings), value=fill)


def _mirror_pad(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, paddings = op.inputs
    symmetric = bool(op.options["mode"])
    return movement.mirror_pad(values[x], paddings=_pairs(values, paddings), symmetric=symmetric)


def _space_to_depth(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return movement.space_to_depth(values[op.inputs[0]], block=op.options["block_size"])


def _depth_to_space(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return movement.depth_to_space(values[op.inputs[0]], block=op.options["block_size"])


def _space_to_batch(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, block, paddings = op.inputs
    return movement.space_to_batch(
        values[x],
        block=_numbers(values, block),
        paddings=_pairs(values, paddings),
        value=model.tensors[op.outputs[0]].zero_point,
    )


def _batch_to_space(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x, block, crops = op.inputs
    return movement.batch_to_space(
        values[x], block=_numbers(values, block), crops=_pairs(values, crops)
    )


def _resize(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    function = resize.resize_bilinear if op.name == "RESIZE_BILINEAR" else movement.resize_nearest
    _, height, width, _ = model.tensors[op.outputs[0]].shape
    return function(
        values[op.inputs[0]],
        size=(height, width),
        align_corners=bool(op.options["align_corners"]),
        half_pixel_centers=bool(op.options["half_pixel_centers"]),
    )


def _strided_slice(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    options = op.options
    if "shrink_axis_mask" not in options:
        raise UnsupportedModelError(
            f"operator {op.position} ({op.name}): its masks have not been read"
        )
    x, begin, end, strides = op.inputs
    return movement.strided_slice(
        values[x],
        begin=_numbers(values, begin),
        end=_numbers(values, end),
        strides=_numbers(values, strides),
        begin_mask=options["begin_mask"],
        end_mask=options["end_mask"],
        ellipsis_mask=options["ellipsis_mask"],
        new_axis_mask=options["new_axis_mask"],
        shrink_axis_mask=options["shrink_axis_mask"],
    )


def _unary(
    function: Callable[..., Array],
) -> Callable[[GoldenModel, GoldenOperator, Values], Array]:
    def evaluate(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
        return function(values[op.inputs[0]], **_in_out(model, op))

    return evaluate


_Evaluator = Callable[[GoldenModel, GoldenOperator, Values], Array | list[Array]]

_MOVEMENTS: dict[str, _Evaluator] = {
    "BATCH_TO_SPACE_ND": _batch_to_space,
    "BROADCAST_TO": _broadcast_to,
    "CONCATENATION": _concatenation,
    "DEPTH_TO_SPACE": _depth_to_space,
    "GATHER": _gather,
    "MIRROR_PAD": _mirror_pad,
    "PACK": _pack,
    "PADV2": _pad_by_value,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "REVERSE_V2": _reverse,
    "SHAPE": _shape,
    "SLICE": _slice,
    "SPACE_TO_BATCH_ND": _space_to_batch,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "STRIDED_SLICE": _strided_slice,
    "TILE": _tile,
    "TRANSPOSE": _transpose,
    "UNPACK": _unpack,
}
_EVALUATORS: dict[str, _Evaluator] = {
    **_MOVEMENTS,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transpose_conv,
    "RESIZE_BILINEAR": _resize,
    "BATCH_MATMUL": _batch_matmul,
    "ADD": _binary,
    "SUB": _binary,
    "MUL": _binary,
    "MAXIMUM": _extremum,
    "MINIMUM": _extremum,
    "PRELU": _prelu,
    "SQUARED_DIFFERENCE": _squared_difference,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "SOFTMAX": _softmax,
    "ABS": _unary(activations.absolute),
    "ELU": _unary(activations.elu),
    "EXP": _unary(activations.exponential),
    "GELU": _gelu,
    "LOG": _unary(activations.logarithm),
    "NEG": _unary(activations.negative),
    "RSQRT": _unary(activations.inverse_square_root),
    "SQRT": _unary(activations.square_root),
    "LOGISTIC": _unary(activations.logistic),
    "TANH": _unary(activations.tanh),
    "RELU": _relu,
    "RELU6": _relu,
    "RELU_0_TO_1": _relu,
    "RELU_N1_TO_1": _relu,
    "LEAKY_RELU": _leaky_relu,
    "HARD_SWISH": _unary(activations.hard_swish),
    "QUANTIZE": _quantize,
    "CAST": _cast,
    "DEQUANTIZE": _dequantize,
    "MEAN": _mean,
    "SUM": _mean,
    "REDUCE_MAX": _reduce_extremum,
    "REDUCE_MIN": _reduce_extremum,
    "PAD": _pad,
}
_DATA_PLACE = {"TRANSPOSE_CONV": 2}
"""Which operand the activations are, where it is not the first one."""
# What moves data without computing, or looks at the types itself.
_CONVERSIONS = frozenset({"CAST", "QUANTIZE", "DEQUANTIZE"})
_ANY_TYPE = _CONVERSIONS.union(_MOVEMENTS)
_FLOATS = frozenset({"GELU", "LEAKY_RELU", *floats.UNARY, *floats.BINARY})
OPERATORS: tuple[str, ...] = tuple(sorted(_EVALUATORS))
"""TFLite names of the operators that the golden model computes."""
