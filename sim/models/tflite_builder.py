"""Writes small quantised ``.tflite`` models, so that tests can make any network they need.

A model is described by calling one method an operator; each takes tensor handles and returns
the handle of its result.  Output shapes are worked out here, weights and biases are numpy
arrays, quantisation parameters are given by the caller and never adjusted::

    from celosia.sim.models.tflite_builder import ModelBuilder

    b = ModelBuilder()
    x = b.input((1, 8, 8, 3), scale=0.05, zero_point=-3)
    y = b.conv2d(x, weights, bias, w_scales=0.01, scale=0.1, zero_point=4,  # (O, kh, kw, I) int8
                 strides=(2, 2), padding="SAME", activation="RELU")
    z = b.conv2d(x, weights2, None, w_scales=[0.01, 0.02], scale=0.2, strides=(2, 2))
    s = b.add(y, z, scale=0.3, zero_point=0)
    model = b.finish()          # bytes: feed to the interpreter, to GoldenModel, to the compiler

The results that no operator consumes become the model's outputs unless ``finish(outputs=[...])``
says otherwise.  Nothing is checked against what an interpreter accepts (a softmax with the wrong
output scale can be written on purpose); only shapes have to be consistent.

The format is the TensorFlow Lite schema, version 3 (``schema.fbs``), through the classes that
the ``tflite`` package generates from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sim.models.tflite_writer import (
    OperatorRecord,
    SubgraphRecord,
    TensorRecord,
    serialise,
)

__all__ = ["ModelBuilder", "TensorHandle"]

Pair = tuple[int, int]
Scales = float | Sequence[float] | npt.NDArray[np.floating[Any]]

_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")  # in the schema's order
_PADDINGS = ("SAME", "VALID")


@dataclass(frozen=True)
class TensorHandle:
    """A tensor of the model under construction.

    Attributes
    ----------
    index
        Its index in the subgraph, the one the interpreter reports.
    name
        Its name in the file.
    shape
        Its dimensions, NHWC for images.
    scale, zero_point
        Per-tensor quantisation of an activation (of channel 0 for per-channel weights).
    """

    index: int
    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


class ModelBuilder:
    """Collects tensors and operators and serialises them; see the module's docstring."""

    def __init__(self) -> None:
        self._tensors: list[TensorRecord] = []
        self._operators: list[OperatorRecord] = []
        self._inputs: list[int] = []
        self._once = SubgraphRecord([], [])
        """What CALL_ONCE runs: it gives variables their values before the first inference."""

    # ------------------------------------------------------------------ tensors

    def input(
        self,
        shape: Sequence[int],
        *,
        scale: float = 1.0,
        zero_point: int = 0,
        name: str | None = None,
        dtype: npt.DTypeLike = np.int8,
    ) -> TensorHandle:
        """Declare a model input.

        Parameters
        ----------
        shape
            Its dimensions, batch first.
        scale, zero_point
            Its quantisation: real = scale * (q - zero_point); floats have none.
        dtype
            Its element type.
        """
        name = name or f"input_{len(self._inputs)}"
        handle = self._activation(tuple(shape), scale, zero_point, name, dtype)
        self._inputs.append(handle.index)
        return handle

    def constant(
        self,
        data: npt.NDArray[Any],
        *,
        scales: Scales = (),
        zero_point: int = 0,
        axis: int = 0,
        name: str | None = None,
    ) -> TensorHandle:
        """Add a constant int8, int32 or int64 tensor.

        Parameters
        ----------
        data
            int8, int32 or int64 values.
        scales
            One scale (per tensor), one for each slice along `axis`, or none.
        zero_point
            Common to all slices.
        """
        listed = tuple(float(s) for s in np.atleast_1d(np.asarray(scales, np.float32)))
        tensor = TensorRecord(
            name=name or f"const_{len(self._tensors)}",
            shape=tuple(data.shape),
            dtype=data.dtype,
            scales=listed,
            zero_points=(zero_point,) * len(listed),
            axis=axis,
            data=np.ascontiguousarray(data).tobytes(),
        )
        return self._append(tensor)

    def _activation(
        self,
        shape: tuple[int, ...],
        scale: float,
        zero_point: int,
        name: str | None = None,
        dtype: npt.DTypeLike = np.int8,
    ) -> TensorHandle:
        quantised = np.issubdtype(dtype, np.integer)
        return self._append(
            TensorRecord(
                name=name or f"tensor_{len(self._tensors)}",
                shape=shape,
                dtype=np.dtype(dtype),
                scales=(float(np.float32(scale)),) if quantised else (),
                zero_points=(zero_point,) if quantised else (),
                axis=0,
                data=None,
            )
        )

    def _append(self, tensor: TensorRecord) -> TensorHandle:
        self._tensors.append(tensor)
        return TensorHandle(
            index=len(self._tensors) - 1,
            name=tensor.name,
            shape=tensor.shape,
            scale=tensor.scales[0] if tensor.scales else 0.0,
            zero_point=tensor.zero_points[0] if tensor.zero_points else 0,
        )

    def _operator(
        self,
        code: str,
        inputs: Sequence[int],
        output: TensorHandle,
        options: tuple[str, dict[str, Any]] | None = None,
    ) -> TensorHandle:
        self._operators.append(OperatorRecord(code, tuple(inputs), (output.index,), options))
        return output

    # ------------------------------------------------------------------ convolutions

    def conv2d(
        self,
        x: TensorHandle,
        weights: npt.NDArray[np.int8],
        bias: npt.NDArray[np.int32] | None = None,
        *,
        w_scales: Scales,
        scale: float,
        zero_point: int = 0,
        strides: Pair = (1, 1),
        padding: str = "SAME",
        dilations: Pair = (1, 1),
        activation: str = "NONE",
    ) -> TensorHandle:
        """CONV_2D: `weights` are (out_channels, kernel_h, kernel_w, in_channels) int8.

        `w_scales` is one scale or one for each output channel; pairs are (height, width).  The
        reference kernel refuses a convolution without bias: `bias` None writes one of zeros.
        """
        channels = weights.shape[0]
        per_channel = np.broadcast_to(np.asarray(w_scales, np.float32), (channels,))
        w = self.constant(weights, scales=per_channel, axis=0)
        bias = np.zeros(channels, np.int32) if bias is None else bias
        inputs = [x.index, w.index, *self._bias(bias, x.scale * per_channel)]
        out_hw = _window_output(x.shape, weights.shape[1:3], strides, padding, dilations)
        out = self._activation((x.shape[0], *out_hw, channels), scale, zero_point)
        options = _window_options(strides, padding, activation) | _dilation_options(dilations)
        return self._operator("CONV_2D", inputs, out, ("Conv2DOptions", options))

    def depthwise_conv2d(
        self,
        x: TensorHandle,
        weights: npt.NDArray[np.int8],
        bias: npt.NDArray[np.int32] | None = None,
        *,
        w_scales: Scales,
        scale: float,
        zero_point: int = 0,
        strides: Pair = (1, 1),
        padding: str = "SAME",
        dilations: Pair = (1, 1),
        activation: str = "NONE",
    ) -> TensorHandle:
        """DEPTHWISE_CONV_2D: `weights` are (1, kernel_h, kernel_w, channels * multiplier) int8."""
        channels = weights.shape[3]
        per_channel = np.broadcast_to(np.asarray(w_scales, np.float32), (channels,))
        w = self.constant(weights, scales=per_channel, axis=3)
        inputs = [x.index, w.index, *self._bias(bias, x.scale * per_channel)]
        out_hw = _window_output(x.shape, weights.shape[1:3], strides, padding, dilations)
        out = self._activation((x.shape[0], *out_hw, channels), scale, zero_point)
        options = _window_options(strides, padding, activation) | _dilation_options(dilations)
        options["DepthMultiplier"] = channels // x.shape[3]
        return self._operator("DEPTHWISE_CONV_2D", inputs, out, ("DepthwiseConv2DOptions", options))

    def fully_connected(
        self,
        x: TensorHandle,
        weights: npt.NDArray[np.int8],
        bias: npt.NDArray[np.int32] | None = None,
        *,
        w_scales: Scales,
        scale: float,
        zero_point: int = 0,
        activation: str = "NONE",
    ) -> TensorHandle:
        """FULLY_CONNECTED: `weights` are (units, depth) int8, `x` flattens to (batch, depth).

        One scale in `w_scales` makes the layer per tensor, a sequence makes it per channel.
        """
        units, depth = weights.shape
        w = self.constant(weights, scales=w_scales, axis=0)
        w_scale = np.asarray(w_scales, np.float32)
        # Unlike the convolutions, this operator always has its third slot: -1 is "no tensor".
        inputs = [x.index, w.index, *(self._bias(bias, x.scale * w_scale) or [-1])]
        batch = int(np.prod(x.shape)) // depth
        out = self._activation((batch, units), scale, zero_point)
        options = {"FusedActivationFunction": _ACTIVATIONS.index(activation)}
        return self._operator("FULLY_CONNECTED", inputs, out, ("FullyConnectedOptions", options))

    def _bias(self, bias: npt.NDArray[np.int32] | None, scales: Scales) -> list[int]:
        """Return the index of a new bias tensor, or nothing when there is none."""
        if bias is None:
            return []
        return [self.constant(np.asarray(bias, np.int32), scales=scales).index]

    # ------------------------------------------------------------------ element-wise

    def add(
        self,
        a: TensorHandle,
        b: TensorHandle,
        *,
        scale: float,
        zero_point: int = 0,
        activation: str = "NONE",
    ) -> TensorHandle:
        """ADD, with numpy broadcasting; either operand may be a :meth:`constant`."""
        return self._binary("ADD", "AddOptions", a, b, scale, zero_point, activation)

    def sub(
        self,
        a: TensorHandle,
        b: TensorHandle,
        *,
        scale: float,
        zero_point: int = 0,
        activation: str = "NONE",
    ) -> TensorHandle:
        """SUB: a - b."""
        return self._binary("SUB", "SubOptions", a, b, scale, zero_point, activation)

    def mul(
        self,
        a: TensorHandle,
        b: TensorHandle,
        *,
        scale: float,
        zero_point: int = 0,
        activation: str = "NONE",
    ) -> TensorHandle:
        """MUL: a * b."""
        return self._binary("MUL", "MulOptions", a, b, scale, zero_point, activation)

    def _binary(
        self,
        code: str,
        options: str,
        a: TensorHandle,
        b: TensorHandle,
        scale: float,
        zero_point: int,
        activation: str,
    ) -> TensorHandle:
        out = self._activation(np.broadcast_shapes(a.shape, b.shape), scale, zero_point)
        fields = {"FusedActivationFunction": _ACTIVATIONS.index(activation)}
        return self._operator(code, [a.index, b.index], out, (options, fields))

    # ------------------------------------------------------------------ pooling and reduction

    def average_pool2d(
        self,
        x: TensorHandle,
        *,
        size: Pair,
        strides: Pair = (1, 1),
        padding: str = "VALID",
        activation: str = "NONE",
    ) -> TensorHandle:
        """AVERAGE_POOL_2D; the result has the quantisation of `x`."""
        return self._pool("AVERAGE_POOL_2D", x, size, strides, padding, activation)

    def max_pool2d(
        self,
        x: TensorHandle,
        *,
        size: Pair,
        strides: Pair = (1, 1),
        padding: str = "VALID",
        activation: str = "NONE",
    ) -> TensorHandle:
        """MAX_POOL_2D; the result has the quantisation of `x`."""
        return self._pool("MAX_POOL_2D", x, size, strides, padding, activation)

    def _pool(
        self,
        code: str,
        x: TensorHandle,
        size: Pair,
        strides: Pair,
        padding: str,
        activation: str,
    ) -> TensorHandle:
        out_hw = _window_output(x.shape, size, strides, padding, (1, 1))
        out = self._activation((x.shape[0], *out_hw, x.shape[3]), x.scale, x.zero_point)
        options = _window_options(strides, padding, activation)
        options |= {"FilterHeight": size[0], "FilterWidth": size[1]}
        return self._operator(code, [x.index], out, ("Pool2DOptions", options))

    def mean(
        self,
        x: TensorHandle,
        *,
        scale: float,
        zero_point: int = 0,
        axes: Sequence[int] = (1, 2),
        keep_dims: bool = True,
    ) -> TensorHandle:
        """MEAN over `axes`."""
        axis_tensor = self.constant(np.asarray(axes, np.int32))
        reduced = {axis % len(x.shape) for axis in axes}
        shape = tuple(
            1 if i in reduced else d for i, d in enumerate(x.shape) if keep_dims or i not in reduced
        )
        out = self._activation(shape, scale, zero_point)
        options = ("ReducerOptions", {"KeepDims": keep_dims})
        return self._operator("MEAN", [x.index, axis_tensor.index], out, options)

    # ------------------------------------------------------------------ one input, same shape

    def softmax(
        self, x: TensorHandle, *, beta: float = 1.0, scale: float = 1 / 256, zero_point: int = -128
    ) -> TensorHandle:
        """SOFTMAX over the last axis."""
        options = ("SoftmaxOptions", {"Beta": beta})
        return self._unary("SOFTMAX", x, scale, zero_point, options)

    def logistic(
        self, x: TensorHandle, *, scale: float = 1 / 256, zero_point: int = -128
    ) -> TensorHandle:
        """LOGISTIC (the sigmoid)."""
        return self._unary("LOGISTIC", x, scale, zero_point)

    def tanh(self, x: TensorHandle, *, scale: float = 1 / 128, zero_point: int = 0) -> TensorHandle:
        """TANH."""
        return self._unary("TANH", x, scale, zero_point)

    def relu(
        self,
        x: TensorHandle,
        *,
        scale: float | None = None,
        zero_point: int | None = None,
        kind: str = "RELU",
    ) -> TensorHandle:
        """RELU, RELU6 or RELU_N1_TO_1 (`kind`) as an operator of its own, requantising."""
        return self._unary(kind, x, scale, zero_point)

    def leaky_relu(
        self,
        x: TensorHandle,
        *,
        alpha: float,
        scale: float | None = None,
        zero_point: int | None = None,
    ) -> TensorHandle:
        """LEAKY_RELU with slope `alpha` below zero."""
        return self._unary(
            "LEAKY_RELU", x, scale, zero_point, ("LeakyReluOptions", {"Alpha": alpha})
        )

    def hard_swish(
        self, x: TensorHandle, *, scale: float | None = None, zero_point: int | None = None
    ) -> TensorHandle:
        """HARD_SWISH: x * relu6(x + 3) / 6."""
        return self._unary("HARD_SWISH", x, scale, zero_point, ("HardSwishOptions", {}))

    def quantize(self, x: TensorHandle, *, scale: float, zero_point: int = 0) -> TensorHandle:
        """QUANTIZE from int8 to int8: a change of scale and zero point."""
        return self._unary("QUANTIZE", x, scale, zero_point, ("QuantizeOptions", {}))

    def _unary(
        self,
        code: str,
        x: TensorHandle,
        scale: float | None,
        zero_point: int | None,
        options: tuple[str, dict[str, Any]] | None = None,
    ) -> TensorHandle:
        out = self._activation(
            x.shape,
            x.scale if scale is None else scale,
            x.zero_point if zero_point is None else zero_point,
        )
        return self._operator(code, [x.index], out, options)

    # ------------------------------------------------------------------ data movement

    def pad(self, x: TensorHandle, paddings: Sequence[Pair]) -> TensorHandle:
        """PAD with the zero point; `paddings` is (before, after) for each axis."""
        table = self.constant(np.asarray(paddings, np.int32))
        shape = tuple(d + p[0] + p[1] for d, p in zip(x.shape, paddings, strict=True))
        out = self._activation(shape, x.scale, x.zero_point)
        return self._operator("PAD", [x.index, table.index], out, ("PadOptions", {}))

    def reshape(self, x: TensorHandle, shape: Sequence[int]) -> TensorHandle:
        """RESHAPE; one dimension may be -1."""
        resolved = np.empty(x.shape, np.int8).reshape(tuple(shape)).shape
        target = self.constant(np.asarray(resolved, np.int32))
        out = self._activation(resolved, x.scale, x.zero_point)
        options = ("ReshapeOptions", {"NewShape": list(resolved)})
        return self._operator("RESHAPE", [x.index, target.index], out, options)

    # ------------------------------------------------------------------ state

    def variable(
        self,
        initial: npt.NDArray[np.int8] | None,
        *,
        scale: float,
        zero_point: int = 0,
        name: str | None = None,
    ) -> TensorHandle:
        """A resource variable: VAR_HANDLE, and CALL_ONCE in front of all other operators.

        Parameters
        ----------
        initial
            Its value before the first inference; None: nothing sets it.
        scale, zero_point
            Of its value.
        name
            By which VAR_HANDLE calls it.

        Returns
        -------
        TensorHandle
            The handle; its shape and quantisation are those of the value.
        """
        number = len(self._tensors)
        name = name or f"variable_{number}"
        self._append(_handle_record(f"{name}_handle"))
        self._operators.append(_var_handle(name, number))
        if initial is not None:
            if not self._once.operators:
                options = ("CallOnceOptions", {"InitSubgraphIndex": 1})
                self._operators.insert(0, OperatorRecord("CALL_ONCE", (), (), options))
            tensors, operators = list(self._once.tensors), list(self._once.operators)
            first = len(tensors)
            tensors += [
                _handle_record(name),
                TensorRecord(
                    name=f"{name}_initial",
                    shape=initial.shape,
                    dtype=initial.dtype,
                    scales=(float(np.float32(scale)),),
                    zero_points=(zero_point,),
                    axis=0,
                    data=initial.tobytes(),
                ),
            ]
            operators += [
                _var_handle(name, first),
                OperatorRecord("ASSIGN_VARIABLE", (first, first + 1), (), None),
            ]
            self._once = SubgraphRecord(tensors, operators)
        shape = () if initial is None else initial.shape
        return TensorHandle(number, name, shape, float(np.float32(scale)), zero_point)

    def read_variable(
        self, handle: TensorHandle, shape: Sequence[int] | None = None
    ) -> TensorHandle:
        """READ_VARIABLE: the value that was assigned last."""
        shape = handle.shape if shape is None else tuple(shape)
        out = self._activation(shape, handle.scale, handle.zero_point)
        options = ("ReadVariableOptions", dict[str, Any]())
        return self._operator("READ_VARIABLE", [handle.index], out, options)

    def assign_variable(self, handle: TensorHandle, value: TensorHandle) -> None:
        """ASSIGN_VARIABLE, in the order of the calls."""
        options = ("AssignVariableOptions", dict[str, Any]())
        inputs = (handle.index, value.index)
        self._operators.append(OperatorRecord("ASSIGN_VARIABLE", inputs, (), options))

    def variable_tensor(
        self, shape: Sequence[int], *, scale: float, zero_point: int = 0
    ) -> TensorHandle:
        """A tensor that keeps its contents from inference to inference (``is_variable``)."""
        handle = self._activation(tuple(shape), scale, zero_point)
        self._tensors[-1] = replace(self._tensors[-1], variable=True)
        return handle

    # ------------------------------------------------------------------ anything else

    def operator(
        self,
        code: str,
        inputs: Sequence[TensorHandle],
        shape: Sequence[int],
        *,
        scale: float = 1.0,
        zero_point: int = 0,
        options: tuple[str, dict[str, Any]] | None = None,
        dtype: npt.DTypeLike = np.int8,
    ) -> TensorHandle:
        """Any operator with one result, by its name in the schema (``"ABS"``).

        Parameters
        ----------
        code
            A name of the schema's ``BuiltinOperator``, or ``"CUSTOM:name"``.
        inputs
            Its inputs in the schema's order.
        shape, scale, zero_point, dtype
            The result's.
        options
            The options table and its fields: ``("ConcatenationOptions", {"Axis": 3})``.
        """
        out = self._activation(tuple(shape), scale, zero_point, dtype=dtype)
        return self._operator(code, [t.index for t in inputs], out, options)

    def into(self, result: TensorHandle, code: str, inputs: Sequence[TensorHandle]) -> None:
        """Any operator without options that writes a tensor which is there: a variable one."""
        self._operator(code, [t.index for t in inputs], result)

    def several(
        self,
        code: str,
        inputs: Sequence[TensorHandle],
        shapes: Sequence[Sequence[int]],
        *,
        scale: float,
        zero_point: int = 0,
        options: tuple[str, dict[str, Any]] | None = None,
    ) -> list[TensorHandle]:
        """Any operator with several int8 results of one quantisation; else as :meth:`operator`."""
        outputs = [self._activation(tuple(shape), scale, zero_point) for shape in shapes]
        indices = tuple(output.index for output in outputs)
        record = OperatorRecord(code, tuple(t.index for t in inputs), indices, options)
        self._operators.append(record)
        return outputs

    # ------------------------------------------------------------------ serialisation

    def finish(
        self, outputs: Sequence[TensorHandle] | None = None, *, old_codes: bool = True
    ) -> bytes:
        """Serialise the model.

        Parameters
        ----------
        outputs
            The model's outputs; by default every result that no operator consumes.
        old_codes
            False leaves the old field of the operators' numbers out, as some writers do.

        Returns
        -------
        bytes
            The flatbuffer, file identifier ``TFL3``.
        """
        if outputs is None:
            consumed = {i for op in self._operators for i in op.inputs}
            produced = [i for op in self._operators for i in op.outputs]
            output_indices = [i for i in produced if i not in consumed]
        else:
            output_indices = [t.index for t in outputs]
        main = SubgraphRecord(self._tensors, self._operators, self._inputs, output_indices)
        subgraphs = [main, *([self._once] if self._once.operators else [])]
        return serialise(subgraphs, old_codes=old_codes)


def _handle_record(name: str) -> TensorRecord:
    return TensorRecord(
        name=name,
        shape=(),
        dtype=np.dtype(np.void),
        scales=(),
        zero_points=(),
        axis=0,
        data=None,
    )


def _var_handle(name: str, output: int) -> OperatorRecord:
    options = ("VarHandleOptions", {"Container": "", "SharedName": name})
    return OperatorRecord("VAR_HANDLE", (), (output,), options)


def _window_output(
    shape: Sequence[int], kernel: Sequence[int], strides: Pair, padding: str, dilations: Pair
) -> Pair:
    """Output height and width of a sliding window over an NHWC tensor."""
    sizes = []
    for axis in range(2):
        extent = shape[1 + axis]
        if padding == "VALID":
            extent -= (kernel[axis] - 1) * dilations[axis]
        sizes.append(-(-extent // strides[axis]))
    if min(sizes) < 1:
        raise ValueError(f"the window {tuple(kernel)} does not fit in the input {tuple(shape)}")
    return sizes[0], sizes[1]


def _window_options(strides: Pair, padding: str, activation: str) -> dict[str, Any]:
    return {
        "Padding": _PADDINGS.index(padding),
        "StrideH": strides[0],
        "StrideW": strides[1],
        "FusedActivationFunction": _ACTIVATIONS.index(activation),
    }


def _dilation_options(dilations: Pair) -> dict[str, Any]:
    return {"DilationHFactor": dilations[0], "DilationWFactor": dilations[1]}
