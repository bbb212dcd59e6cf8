"""Runs a whole ``.tflite`` model with the operators of :mod:`celosia.sim.golden`.

Every intermediate tensor is returned, so that a test can say which layer went wrong::

    model = GoldenModel("../shared/mlperf_tiny/kws_int8.tflite")
    tensors = model.run([window])              # {name: int8 array}
    result = tensors[model.outputs[0].name]
    by_index = model.run_by_index([window])    # {index: array}, when names repeat

Only the ``tflite`` package reads the file: nothing is shared with the compiler's front end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite  # type: ignore[import-untyped]
from celosia.sim import golden
from celosia.sim.golden_reader import (
    GoldenOperator,
    TensorInfo,
    UnsupportedModelError,
    read_operator,
    read_tensor,
)

__all__ = ["GoldenModel", "GoldenOperator", "TensorInfo", "UnsupportedModelError"]

Array = npt.NDArray[Any]
Inputs = Mapping[str, Array] | Sequence[Array]

_ACTIVATIONS = {
    tflite.ActivationFunctionType.NONE: "NONE",
    tflite.ActivationFunctionType.RELU: "RELU",
    tflite.ActivationFunctionType.RELU_N1_TO_1: "RELU_N1_TO_1",
    tflite.ActivationFunctionType.RELU6: "RELU6",
}
_PADDINGS = {tflite.Padding.SAME: "SAME", tflite.Padding.VALID: "VALID"}


class GoldenModel:
    """A model loaded from a file or from bytes.

    Parameters
    ----------
    source
        A path, or the flatbuffer itself.

    Attributes
    ----------
    tensors : list[TensorInfo]
        Every tensor of the graph, by index.
    inputs, outputs : list[TensorInfo]
        The model's inputs and outputs, in order.
    operators : list[GoldenOperator]
        In order of execution.

    Raises
    ------
    UnsupportedModelError
        If the file is not a TensorFlow Lite model of one subgraph, or has an operator that is
        not supported.
    """

    def __init__(self, source: str | Path | bytes) -> None:
        raw = source if isinstance(source, bytes) else Path(source).read_bytes()
        if raw[4:8] != b"TFL3":
            raise UnsupportedModelError("not a TensorFlow Lite model: no TFL3 identifier")
        model = tflite.Model.GetRootAs(raw, 0)
        if model.SubgraphsLength() != 1:
            raise UnsupportedModelError(f"the model has {model.SubgraphsLength()} subgraphs, not 1")
        graph = model.Subgraphs(0)
        self.tensors = [
            read_tensor(model, graph.Tensors(i), i) for i in range(graph.TensorsLength())
        ]
        self.inputs = [self.tensors[graph.Inputs(i)] for i in range(graph.InputsLength())]
        self.outputs = [self.tensors[graph.Outputs(i)] for i in range(graph.OutputsLength())]
        self.operators = [
            read_operator(model, graph.Operators(i), i) for i in range(graph.OperatorsLength())
        ]
        for op in self.operators:
            self._check(op)

    def run(self, inputs: Inputs) -> dict[str, Array]:
        """Run one inference.

        Parameters
        ----------
        inputs
            Arrays by input name, or in the order of :attr:`inputs`.

        Returns
        -------
        dict
            Every tensor that is not constant (the inputs too) by name; where names repeat, the
            one computed last.
        """
        values = self.run_by_index(inputs)
        return {self.tensors[index].name: value for index, value in values.items()}

    def run_by_index(self, inputs: Inputs) -> dict[int, Array]:
        """Run one inference and return every tensor that is not constant by its index."""
        values = {info.index: info.data for info in self.tensors if info.data is not None}
        computed = self._bind(inputs)
        for op in self.operators:
            results = _EVALUATORS[op.name](self, op, {**values, **computed})
            expected = self.tensors[op.outputs[0]].shape
            # A batch of another size than the file's is allowed to pass through.
            if results.shape[1:] != expected[1:]:
                raise UnsupportedModelError(
                    f"operator {op.position} ({op.name}) gives shape {results.shape}, "
                    f"the file says {expected}"
                )
            computed[op.outputs[0]] = results
        return computed

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

    def _check(self, op: GoldenOperator) -> None:
        if op.name not in _EVALUATORS:
            supported = ", ".join(sorted(_EVALUATORS))
            raise UnsupportedModelError(
                f"operator {op.position} ({op.name}) is not supported; supported: {supported}"
            )
        data = [self.tensors[i] for i in (op.inputs[0], op.outputs[0])]
        for info in data:
            if info.dtype != np.int8 or info.scales.size != 1:
                raise UnsupportedModelError(
                    f"operator {op.position} ({op.name}): tensor {info.name!r} is {info.dtype} "
                    f"with {info.scales.size} scales, only int8 with one scale is supported"
                )


# ---------------------------------------------------------------------- evaluating operators

Values = Mapping[int, Array]


def _activation(op: GoldenOperator) -> str:
    number = 0 if op.options is None else op.options.FusedActivationFunction()
    if number not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"operator {op.position} ({op.name}) has unsupported fused activation number {number}"
        )
    return _ACTIVATIONS[number]


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
        strides=(options.StrideH(), options.StrideW()),
        padding=_PADDINGS[options.Padding()],
        dilations=(options.DilationHFactor(), options.DilationWFactor()),
        w_scales=model.tensors[op.inputs[1]].scales,
        activation=_activation(op),
        **_in_out(model, op),
    )


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


def _binary(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    functions = {"ADD": golden.add, "SUB": golden.sub, "MUL": golden.mul}
    a, b = (model.tensors[i] for i in op.inputs)
    out = model.tensors[op.outputs[0]]
    return functions[op.name](
        values[a.index],
        values[b.index],
        a_scale=a.scale,
        a_zero_point=a.zero_point,
        b_scale=b.scale,
        b_zero_point=b.zero_point,
        out_scale=out.scale,
        out_zero_point=out.zero_point,
        activation=_activation(op),
    )


def _pool(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    function = golden.average_pool2d if op.name == "AVERAGE_POOL_2D" else golden.max_pool2d
    out = model.tensors[op.outputs[0]]
    return function(
        values[op.inputs[0]],
        size=(op.options.FilterHeight(), op.options.FilterWidth()),
        strides=(op.options.StrideH(), op.options.StrideW()),
        padding=_PADDINGS[op.options.Padding()],
        scale=out.scale,
        zero_point=out.zero_point,
        activation=_activation(op),
    )


def _softmax(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    x = model.tensors[op.inputs[0]]
    return golden.softmax(values[x.index], x_scale=x.scale, beta=op.options.Beta())


def _relu(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return golden.relu(values[op.inputs[0]], kind=op.name, **_in_out(model, op))


def _leaky_relu(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    alpha = 0.0 if op.options is None else op.options.Alpha()
    return golden.leaky_relu(values[op.inputs[0]], alpha=alpha, **_in_out(model, op))


def _mean(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    return golden.mean(
        values[op.inputs[0]],
        axes=[int(axis) for axis in np.atleast_1d(values[op.inputs[1]])],
        keep_dims=bool(op.options.KeepDims()),
        **_in_out(model, op),
    )


def _pad(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    table = [(int(before), int(after)) for before, after in values[op.inputs[1]]]
    zero_point = model.tensors[op.outputs[0]].zero_point
    return golden.pad(values[op.inputs[0]], paddings=table, zero_point=zero_point)


def _reshape(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
    shape = model.tensors[op.outputs[0]].shape
    return golden.reshape(values[op.inputs[0]], shape=shape)


def _unary(
    function: Callable[..., Array],
) -> Callable[[GoldenModel, GoldenOperator, Values], Array]:
    def evaluate(model: GoldenModel, op: GoldenOperator, values: Values) -> Array:
        return function(values[op.inputs[0]], **_in_out(model, op))

    return evaluate


_EVALUATORS: dict[str, Callable[[GoldenModel, GoldenOperator, Values], Array]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _binary,
    "SUB": _binary,
    "MUL": _binary,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "SOFTMAX": _softmax,
    "LOGISTIC": _unary(golden.logistic),
    "TANH": _unary(golden.tanh),
    "RELU": _relu,
    "RELU6": _relu,
    "RELU_N1_TO_1": _relu,
    "LEAKY_RELU": _leaky_relu,
    "HARD_SWISH": _unary(golden.hard_swish),
    "QUANTIZE": _unary(golden.quantize),
    "MEAN": _mean,
    "PAD": _pad,
    "RESHAPE": _reshape,
}
