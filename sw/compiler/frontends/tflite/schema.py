"""Names of the TFLite schema: operators, element types, and the options of the operators.

All knowledge of the generated `tflite` readers' classes is in this file and in
`frontend_reader`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import tflite  # type: ignore[import-untyped]
from celosia.sw.compiler.ir import DType

__all__ = [
    "ABSENT",
    "COMPILED",
    "OPTIONS",
    "OptionField",
    "activation_name",
    "operator_name",
    "tensor_type",
]


def _names(enumeration: Any) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


_OPERATORS = _names(tflite.BuiltinOperator)
_TENSOR_TYPES = _names(tflite.TensorType)
_ACTIVATIONS = _names(tflite.ActivationFunctionType)
_DTYPES = {dtype.value: dtype for dtype in DType}
_PADDINGS = _names(tflite.Padding)

CUSTOM_OPERATOR: int = tflite.BuiltinOperator.CUSTOM


def operator_name(code: int) -> str | None:
    """TFLite name of a built-in operator code; None for a code the schema does not have."""
    return _OPERATORS.get(code)


def tensor_type(code: int) -> DType | None:
    """Element type of a schema code; None for one this version does not know."""
    return _DTYPES.get(_TENSOR_TYPES.get(code, "").lower())


def activation_name(code: int) -> str | None:
    """Name of a fused activation; None for an unknown code."""
    return _ACTIVATIONS.get(code)


def padding_name(code: int) -> str | None:
    """``SAME`` or ``VALID``; None for an unknown code."""
    return _PADDINGS.get(code)


@dataclass(frozen=True)
class OptionField:
    """One field of an options table.

    Attributes
    ----------
    name : str
        Key in `celosia.sw.compiler.ir.SourceOp.options`.
    getter : str
        Method of the generated reader.
    kind : str
        How to convert the value.
    """

    name: str
    getter: str
    kind: Literal["int", "float", "bool", "padding", "activation", "ints", "text"] = "int"


ABSENT: dict[str, int | float | str | bool | tuple[int, ...]] = {
    "int": 0,
    "float": 0.0,
    "bool": False,
    "padding": "SAME",
    "activation": "NONE",
    "ints": (),
    "text": "",
}
"""What each kind of field is for TFLite's kernels when the whole table is missing: zero."""

COMPILED: dict[str, tuple[str, str]] = {
    "ethos-u": ("the Arm Ethos-U", "Vela"),
    "edgetpu-custom-op": ("the Coral Edge TPU", "edgetpu_compiler"),
    "NeutronGraph": ("the NXP eIQ Neutron NPU", "the Neutron converter"),
    "vsi-npu": ("a VeriSilicon NPU", "the TIM-VX delegate"),
    "DISPATCH_OP": ("an NPU of a phone", "the LiteRT compiler"),
}
"""Custom operators that are machine code for another NPU: that NPU, and what compiled for it."""

_PADDING = OptionField("padding", "Padding", "padding")
_STRIDES = (OptionField("stride_h", "StrideH"), OptionField("stride_w", "StrideW"))
_ACTIVATION = OptionField("fused_activation_function", "FusedActivationFunction", "activation")
_RESIZE = (
    OptionField("align_corners", "AlignCorners", "bool"),
    OptionField("half_pixel_centers", "HalfPixelCenters", "bool"),
)
_REDUCER = (OptionField("keep_dims", "KeepDims", "bool"),)
_DILATIONS = (
    OptionField("dilation_h_factor", "DilationHFactor"),
    OptionField("dilation_w_factor", "DilationWFactor"),
)
_POOL = (
    _PADDING,
    *_STRIDES,
    OptionField("filter_height", "FilterHeight"),
    OptionField("filter_width", "FilterWidth"),
    _ACTIVATION,
)

OPTIONS: dict[str, tuple[str, bool, tuple[OptionField, ...]]] = {
    "CONV_2D": ("Conv2DOptions", True, (_PADDING, *_STRIDES, _ACTIVATION, *_DILATIONS)),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        True,
        (
            _PADDING,
            *_STRIDES,
            OptionField("depth_multiplier", "DepthMultiplier"),
            _ACTIVATION,
            *_DILATIONS,
        ),
    ),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        False,
        (
            _ACTIVATION,
            OptionField("weights_format", "WeightsFormat"),
            OptionField("keep_num_dims", "KeepNumDims", "bool"),
        ),
    ),
    "BATCH_MATMUL": (
        "BatchMatMulOptions",
        False,
        (OptionField("adj_x", "AdjX", "bool"), OptionField("adj_y", "AdjY", "bool")),
    ),
    "AVERAGE_POOL_2D": ("Pool2DOptions", True, _POOL),
    "MAX_POOL_2D": ("Pool2DOptions", True, _POOL),
    "ADD": ("AddOptions", False, (_ACTIVATION,)),
    "SUB": ("SubOptions", False, (_ACTIVATION,)),
    "MUL": ("MulOptions", False, (_ACTIVATION,)),
    "SOFTMAX": ("SoftmaxOptions", True, (OptionField("beta", "Beta", "float"),)),
    "GELU": ("GeluOptions", False, (OptionField("approximate", "Approximate", "bool"),)),
    "LEAKY_RELU": ("LeakyReluOptions", False, (OptionField("alpha", "Alpha", "float"),)),
    "RESHAPE": ("ReshapeOptions", False, (OptionField("new_shape", "NewShape", "ints"),)),
    "MEAN": ("ReducerOptions", False, _REDUCER),
    "SUM": ("ReducerOptions", False, _REDUCER),
    "REDUCE_MAX": ("ReducerOptions", False, _REDUCER),
    "REDUCE_MIN": ("ReducerOptions", False, _REDUCER),
    "CONCATENATION": ("ConcatenationOptions", False, (OptionField("axis", "Axis"), _ACTIVATION)),
    "GATHER": (
        "GatherOptions",
        False,
        (OptionField("axis", "Axis"), OptionField("batch_dims", "BatchDims")),
    ),
    "PACK": ("PackOptions", False, (OptionField("axis", "Axis"),)),
    "UNPACK": ("UnpackOptions", False, (OptionField("axis", "Axis"),)),
    "MIRROR_PAD": ("MirrorPadOptions", False, (OptionField("mode", "Mode"),)),
    "SPACE_TO_DEPTH": ("SpaceToDepthOptions", True, (OptionField("block_size", "BlockSize"),)),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", True, (OptionField("block_size", "BlockSize"),)),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", False, _RESIZE),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", False, _RESIZE),
    "TRANSPOSE_CONV": ("TransposeConvOptions", True, (_PADDING, *_STRIDES, _ACTIVATION)),
    "VAR_HANDLE": (
        "VarHandleOptions",
        False,
        (
            OptionField("container", "Container", "text"),
            OptionField("shared_name", "SharedName", "text"),
        ),
    ),
    "CALL_ONCE": (
        "CallOnceOptions",
        True,
        (OptionField("init_subgraph_index", "InitSubgraphIndex"),),
    ),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        False,
        tuple(
            OptionField(f"{name}_mask", f"{title}Mask")
            for name, title in (
                ("begin", "Begin"),
                ("end", "End"),
                ("ellipsis", "Ellipsis"),
                ("new_axis", "NewAxis"),
                ("shrink_axis", "ShrinkAxis"),
            )
        ),
    ),
}
"""Options table, whether the kernel refuses the operator without it, and its fields, of every
operator read further."""
