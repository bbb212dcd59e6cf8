"""The compiler's intermediate representation.

One `Graph` type carries two levels of operators. The front end produces `SourceOp`, which says
what the file says; `celosia.sw.compiler.lower.lower` turns these into the NPU
operators (`ConvOp`, `AddOp`, `PoolOp`, `TableOp` and so on), whose fields hold
everything the back half needs: no quantisation arithmetic is left to do after lowering.

Conventions
-----------
* Activations are int8, NHWC, in dense order. `hwc` gives the view [H, W, C] that every NPU operator
  uses: images of a batch lie below one another, any other rank is a column of pixels.
* A requantisation *multiplier* is a Q0.31 int32 in [2**30, 2**31) or 0 (negative only where
  said), a *shift* has TFLite's sign: positive shifts left before the multiplication, negative
  shifts right after it.
* Graphs, tensors and operators are immutable; a pass builds a new graph.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import prod
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.arithmetic.boxes import Box
from celosia.sw.program.origin import Origin

__all__ = [
    "AddOp",
    "Arithmetic",
    "BinaryOp",
    "ConvOp",
    "DType",
    "Exactness",
    "Graph",
    "Int8Array",
    "Interface",
    "Int32Array",
    "MatmulOp",
    "MaximumOp",
    "MoveOp",
    "MulOp",
    "NpuOp",
    "Op",
    "Origin",
    "PartOp",
    "PoolOp",
    "ReshapeOp",
    "Scaling",
    "SoftmaxOp",
    "SquaredDifferenceOp",
    "State",
    "TableOp",
    "Tensor",
    "SourceOp",
    "UNPROVEN",
    "fresh_name",
    "hwc",
    "made_like",
    "with_state",
]

Int8Array = npt.NDArray[np.int8]
Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


class DType(StrEnum):
    """Element types a TFLite file can hold and this compiler can at least name."""

    INT4 = "int4"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BOOL = "bool"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"
    STRING = "string"
    RESOURCE = "resource"
    VARIANT = "variant"

    @property
    def numpy(self) -> np.dtype[Any] | None:
        """The little-endian numpy type, or None when numpy has no such type."""
        if self in _NO_NUMPY:
            return None
        return np.dtype(self.value).newbyteorder("<")


_NO_NUMPY = frozenset({DType.INT4, DType.BFLOAT16, DType.STRING, DType.RESOURCE, DType.VARIANT})


@dataclass(frozen=True, eq=False, kw_only=True)
class Tensor:
    """One tensor: an activation, or a constant when `data` is not None.

    Attributes
    ----------
    name : str
        Unique in its graph (TFLite repeats names; the front end makes them distinct).
    shape : tuple of int
        All dimensions positive.
    dtype : DType
        Element type.
    index : int
        Number of the tensor in the file, -1 for one the compiler made.
    scale : float or None
        Per-tensor scale, exactly the file's float32; None when not quantised or per channel.
    zero_point : int
        Per-tensor zero point; of a per-channel tensor the first that is not 0, if there is one.
    channel_scales : ndarray of float32, shape [n], or None
        Per-channel scales, n > 1.
    channel_axis : int or None
        The dimension `channel_scales` runs along.
    data : ndarray or None
        Value of a constant, shape `shape`, read-only.
    kept_channels : tuple of int, or None
        The channels of the model's tensor that this one has, in rising order, where others have
        been removed; None: all.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    index: int = -1
    scale: float | None = None
    zero_point: int = 0
    channel_scales: Float32Array | None = None
    channel_axis: int | None = None
    data: npt.NDArray[Any] | None = None
    kept_channels: tuple[int, ...] | None = None

    @property
    def is_constant(self) -> bool:
        """Whether the value is known at compile time."""
        return self.data is not None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def element_bytes(self) -> int:
        """Bytes of an element; 0 for element types numpy does not have."""
        dtype = self.dtype.numpy
        return 0 if dtype is None else dtype.itemsize

    @property
    def size_bytes(self) -> int:
        """Bytes of the dense tensor; 0 for element types numpy does not have."""
        return self.elements * self.element_bytes


def fresh_name(taken: Container[str], wanted: str) -> str:
    """Return a name for a tensor that the compiler makes: `wanted`, with primes if it is taken.

    Names of a file are anybody's choice, so no made name is safe by its form.
    """
    while wanted in taken:
        wanted += "'"
    return wanted


def made_like(
    like: Tensor, taken: Container[str], wanted: str, shape: tuple[int, ...] | None = None
) -> Tensor:
    """Return a tensor that the compiler makes, quantised like another one.

    Parameters
    ----------
    like : Tensor
        Quantised per tensor.
    taken, wanted
        As of `fresh_name`.
    shape : tuple of int, optional
        By default the other one's.
    """
    return Tensor(
        name=fresh_name(taken, wanted),
        shape=like.shape if shape is None else shape,
        dtype=like.dtype,
        scale=like.scale,
        zero_point=like.zero_point,
    )


def hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """View a dense shape as [H, W, C].

    Parameters
    ----------
    shape : tuple of int
        [B, H, W, C], which is [B * H, W, C], or any other rank: the last dimension is C, and the
        product of the others is H, with W = 1. So [B, K] is B pixels of K channels and [K] is one
        pixel.

    Returns
    -------
    tuple of int
        Height, width and channels.
    """
    if len(shape) == 4:
        return shape[0] * shape[1], shape[2], shape[3]
    if not shape:
        return 1, 1, 1
    return prod(shape[:-1]), 1, shape[-1]


class Scaling(StrEnum):
    """How a requantisation multiplier follows from the scales of tensors."""

    NEAREST = "nearest"
    """It is the Q0.31 number nearest to the quotient of the scales."""
    NEAREST_TO_SINGLE = "nearest to single"
    """The same, with the product of the inputs' scales rounded to single precision."""
    FITTED = "fitted"
    """It gives, for every accumulator that can be, what the quotient in double precision gives."""
    SINGLE = "single"
    """It gives what the quotient in single precision, halves to even, gives, for every accumulator
    that can be; where none does, it is the nearest one, and the operator says so."""


@dataclass(frozen=True)
class Arithmetic:
    """What the results of an operator have to equal; the front end sets it.

    Attributes
    ----------
    reference : str
        What computes the right result, by name.
    rounding : Rounding
        How it brings an accumulator back to eight bits.
    scaling : Scaling
        How it comes to the multiplier for that.
    unsigned : bool
        The file's tensors are uint8: weights have zero points, and averages round halves up.
    strict : bool
        The NPU computes it only where it is proven equal to the reference.
    """

    reference: str
    rounding: Rounding
    scaling: Scaling
    unsigned: bool = False
    strict: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Op:
    """What all operators share.

    Attributes
    ----------
    origin : Origin
        The operator of the file; for a fused operator the one that does the work.
    fused : tuple of int
        Numbers of further operators of the file that this one also performs.
    """

    origin: Origin
    fused: tuple[int, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors read."""
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors written."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """How messages and reports call this operator, for example ``CONV_2D #3``."""
        return f"{self.origin.name} #{self.origin.index}"

    @property
    def title(self) -> str:
        """The label and what it computes, for refusals: a number alone is found by no viewer."""
        result = next(iter(self.outputs), "")
        return f"{self.label} ({result!r})" if result else self.label


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceOp(Op):
    """An operator as the file has it.

    Attributes
    ----------
    name : str
        What it is, by the name that the compiler's records have: TFLite's. In a file of another
        format it may be called otherwise (`Origin.name`).
    operands : tuple of (str or None)
        Input tensors by position; None for an optional input that is absent.
    results : tuple of str
        Output tensors by position.
    arithmetic : Arithmetic
        What its results have to equal.
    options : mapping
        Built-in options by TFLite's snake-case field names; enumerations as their TFLite names
        (``padding`` is ``"SAME"``, ``fused_activation_function`` is ``"RELU6"``).
    """

    name: str
    operands: tuple[str | None, ...]
    results: tuple[str, ...]
    arithmetic: Arithmetic
    options: Mapping[str, int | float | str | bool | tuple[int, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.operands if name is not None)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.results


@dataclass(frozen=True)
class Exactness:
    """Whether an operator equals a reference that does not compute in whole numbers.

    Attributes
    ----------
    differing, possible : int
        For how many, of what there can be, the result could be another one.
    what : str
        Accumulators, or pairs of codes.
    proven, parts : int
        How many of its channels are equal for all of them, of how many.
    """

    differing: int
    possible: int
    what: str
    proven: int
    parts: int

    @classmethod
    def of(cls, parts: Sequence[tuple[int, int]], what: str) -> Exactness:
        """Return what is known of channels, given for each how many differ, of how many."""
        differing, possible = (sum(column) for column in zip(*parts, strict=True))
        proven = sum(not differs for differs, _ in parts)
        return cls(differing, possible, what, proven, len(parts))

    def __str__(self) -> str:
        several = self.parts > 1
        if not self.differing:
            return "exact: proven" + (f" for all {self.parts} channels" if several else "")
        where = f" for {self.parts - self.proven} of {self.parts} channels" if several else ""
        return f"{UNPROVEN}{where}, {self.cause}"

    @property
    def cause(self) -> str:
        """For how many the result could be another one."""
        return f"{self.differing:,} of {self.possible:,} {self.what} could differ"


UNPROVEN = "exact: unproven"
"""How an `Exactness` begins where something could differ."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NpuOp(Op):
    """An operator of the lowered level; all write one int8 tensor.

    Attributes
    ----------
    output : str
        The tensor written.
    macs : int
        Multiply-accumulates as the operator of the file counts them.
    folded_macs : int
        How many of `macs` are not computed because their channels have been removed.
    exactness : Exactness or None
        What is known of whether it equals its reference, where that is no integer arithmetic.
    """

    output: str
    macs: int = 0
    folded_macs: int = 0
    exactness: Exactness | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvOp(NpuOp):
    """Convolution, depthwise convolution or fully connected layer with requantisation.

    For output pixel (y, x) and channel n, with zero-padding expressed as `input_zero_point`::

        acc = bias[n] + sum over (i, j, c) of input[yy, xx, c] * weights[i, j, c, n]
              with yy = y * stride_h + i * dilation_h - pad_top,
                   xx = x * stride_w + j * dilation_w - pad_left
        out = clamp(requantise(acc, multiplier[n], shift[n]) + output_zero_point)

    The input is used as it is: its zero point is already inside `bias`. A tap outside the image
    contributes ``input_zero_point * weight``. Depthwise: c = n, and `weights` has no last axis.
    The accumulator and `bias` wrap modulo 2**32.

    Attributes
    ----------
    input : str
        int8, viewed by `hwc` as [H, W, cin].
    weights : ndarray of int8
        [kh, kw, cin, cout], or [kh, kw, c] when `depthwise`.
    more_weights : tuple of ndarray of int8
        Of the same shape, added to `weights` where a weight exceeds eight bits.
    bias : ndarray of int32, shape [cout]
        ``bias - input_zero_point * sum(weights)``, wrapped to 32 bits.
    multiplier, shift : ndarray of int32 and int8, shape [cout]
        Requantisation of each output channel; shift in TFLite's sign.
    rounding : Rounding
        ``DOUBLE``: saturating rounding doubling high multiply, then rounding right shift with
        halves away from zero. ``SINGLE``: one rounding of the 64-bit product, half up:
        ``(acc * multiplier + 2**(30 - shift)) >> (31 - shift)``.
    depthwise : bool
        One kernel per channel, depth multiplier 1.
    stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right : int
        In pixels. The pads are those actually read, so that
        ``out = (in + pads - reach) // stride + 1`` holds.
    input_zero_point, output_zero_point, act_min, act_max : int
        int8 values.
    dilation_h, dilation_w : int
        Rows of the input from kernel row to kernel row, and pixels from column to column.

    Notes
    -----
    `macs` is out pixels * kh * kw * cin * cout, for depthwise out elements * kh * kw.
    """

    input: str
    weights: Int8Array
    more_weights: tuple[Int8Array, ...] = ()
    bias: Int32Array
    multiplier: Int32Array
    shift: Int8Array
    rounding: Rounding
    depthwise: bool = False
    stride_h: int = 1
    stride_w: int = 1
    pad_top: int = 0
    pad_bottom: int = 0
    pad_left: int = 0
    pad_right: int = 0
    input_zero_point: int
    output_zero_point: int
    act_min: int = -128
    act_max: int = 127
    dilation_h: int = 1
    dilation_w: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)

    @property
    def whole_weights(self) -> npt.NDArray[np.int64]:
        """`weights` and `more_weights` together."""
        whole = self.weights.astype(np.int64)
        for part in self.more_weights:
            whole += part
        return whole

    @property
    def weight_parts(self) -> tuple[Int8Array, ...]:
        """`weights` and `more_weights` one by one."""
        return (self.weights, *self.more_weights)

    @property
    def kernel_h(self) -> int:
        """Kernel height in pixels."""
        return int(self.weights.shape[0])

    @property
    def reach_h(self) -> int:
        """Rows of the input from the first to the last kernel row."""
        return (self.kernel_h - 1) * self.dilation_h + 1

    @property
    def reach_w(self) -> int:
        """Pixels of a row of the input from the first to the last kernel column."""
        return (self.kernel_w - 1) * self.dilation_w + 1

    @property
    def kernel_w(self) -> int:
        """Kernel width in pixels."""
        return int(self.weights.shape[1])

    @property
    def cin(self) -> int:
        """Input channels."""
        return int(self.weights.shape[2])

    @property
    def cout(self) -> int:
        """Output channels."""
        return int(self.weights.shape[-1])


@dataclass(frozen=True, eq=False, kw_only=True)
class MatmulOp(NpuOp):
    """Products of matrices, batch by batch, of which both can be computed at run time.

    For batch t, row m and column n, with pixels of A, B and the output counted row by row::

        a = A[a_batches[t] * rows + m],  b[k] = B[b_batches[t] * depth + k]
        acc = bias[n] + sum over k of (a[k] - zero_point_a) * (b[k][n] - zero_point_b)
        output[t * rows + m][n] = clamp(requantise(acc, multiplier[n], shift[n]) + zero point)

    The accumulator and `bias` wrap modulo 2**32.

    Attributes
    ----------
    input_a : str
        int8, pixels of `depth` channels.
    input_b : str or None
        int8, pixels of as many channels as the output has; the array takes it from memory, as
        weights. None: it is `constant`.
    constant : ndarray of int8, shape [pixels, columns], or None
        B, if it is known.
    rows, depth : int
        Rows of a matrix of A and of the output, and products summed up.
    a_batches, b_batches : tuple of int
        Which matrix of A and of B each batch of the output takes.
    width_a, width : int
        Columns of A and of the output, as `hwc` views them: 1 or `rows`.
    zero_point_a, zero_point_b, output_zero_point, act_min, act_max : int
        int8 values.
    bias : ndarray of int32, shape [columns]
        Without the zero points.
    multiplier, shift, rounding
        As in `ConvOp`.
    """

    input_a: str
    input_b: str | None
    constant: Int8Array | None = None
    rows: int
    depth: int
    a_batches: tuple[int, ...]
    b_batches: tuple[int, ...]
    width_a: int
    width: int
    zero_point_a: int
    zero_point_b: int
    bias: Int32Array
    multiplier: Int32Array
    shift: Int8Array
    rounding: Rounding
    output_zero_point: int
    act_min: int = -128
    act_max: int = 127

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input_a,) if self.input_b is None else (self.input_a, self.input_b)

    @property
    def cout(self) -> int:
        """Columns of B, channels of the output."""
        return len(self.bias)


@dataclass(frozen=True, eq=False, kw_only=True)
class BinaryOp(NpuOp):
    """An element-wise operator of two tensors.

    Attributes
    ----------
    input_a, input_b : str
        int8 tensors; may be the same one. Either may have one row or column for all.
    spread_b : bool
        The second one has one channel for all; else both have the output's channels.
    """

    input_a: str
    input_b: str
    spread_b: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input_a, self.input_b)


@dataclass(frozen=True, eq=False, kw_only=True)
class AddOp(BinaryOp):
    """Quantised element-wise addition (and subtraction) of two tensors.

    ::

        a = rdp(srdhm((in_a - zero_point_a) << left_shift, multiplier_a), -shift_a)
        b = rdp(srdhm((in_b - zero_point_b) << left_shift, multiplier_b), -shift_b)
        out = clamp(rdp(srdhm(a + b, multiplier_out), -shift_out) + zero_point_out)

    where srdhm is the saturating rounding doubling high multiply and rdp the rounding division by
    a power of two, halves away from zero. Source: TFLite `reference_integer_ops::Add`.

    Attributes
    ----------
    zero_point_a, zero_point_b, zero_point_out : int
        int8 zero points.
    left_shift : int
        Headroom shift in bits.
    multiplier_a, multiplier_b, multiplier_out : int
        Q0.31. That of the subtrahend is negative.
    shift_a, shift_b, shift_out : int
        TFLite's sign, all <= 0.
    act_min, act_max : int
        int8 clamp.
    """

    zero_point_a: int
    zero_point_b: int
    zero_point_out: int
    left_shift: int = 20
    multiplier_a: int
    shift_a: int
    multiplier_b: int
    shift_b: int
    multiplier_out: int
    shift_out: int
    act_min: int = -128
    act_max: int = 127


@dataclass(frozen=True, eq=False, kw_only=True)
class MulOp(BinaryOp):
    """Quantised element-wise product of two tensors.

    ::

        out = clamp(requantise((in_a - zero_point_a) * (in_b - zero_point_b), multiplier, shift)
                    + zero_point_out)

    rounded twice, as of `Rounding.DOUBLE`; with `more_bits` the product is shifted left by so many
    bits first, and the result right by as many more, so that the first rounding is finer. Source:
    TFLite `reference_integer_ops::Mul`.

    Attributes
    ----------
    zero_point_a, zero_point_b, zero_point_out : int
        int8 zero points.
    multiplier, shift : int
        Q0.31; TFLite's sign.
    more_bits : int
        0 as the reference of TFLite has it.
    act_min, act_max : int
        int8 clamp.
    """

    zero_point_a: int
    zero_point_b: int
    zero_point_out: int
    multiplier: int
    shift: int
    more_bits: int = 0
    act_min: int = -128
    act_max: int = 127

    @property
    def left(self) -> int:
        """Bits that the product is shifted left by."""
        return max(self.shift, 0) + self.more_bits


@dataclass(frozen=True, eq=False, kw_only=True)
class SquaredDifferenceOp(BinaryOp):
    """Quantised element-wise square of the difference of two tensors.

    ::

        a = requantise((in_a - zero_point_a) << 7, multiplier_a, shift_a)
        b = requantise((in_b - zero_point_b) << 7, multiplier_b, shift_b)
        out = clamp(requantise((a - b)**2, multiplier_out, shift_out) + zero_point_out)

    each rounded twice. The side with the greater scale is only halved. Source: TFLite's
    `squared_difference.cc`.

    Attributes
    ----------
    zero_point_a, zero_point_b, zero_point_out : int
        int8 zero points.
    multiplier_a, multiplier_b, multiplier_out : int
        Q0.31.
    shift_a, shift_b, shift_out : int
        TFLite's sign, all <= 0.
    """

    zero_point_a: int
    zero_point_b: int
    zero_point_out: int
    multiplier_a: int
    shift_a: int
    multiplier_b: int
    shift_b: int
    multiplier_out: int
    shift_out: int


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolOp(NpuOp):
    """Average or maximum pooling; padding takes no part in either.

    The average divides by the number of pixels inside the image, halves away from zero or towards
    it. Input and
    output have the same scale and zero point.

    Attributes
    ----------
    input : str
        int8, viewed as [H, W, C].
    kind : {"avg", "max"}
        The reduction.
    kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_bottom, pad_left, pad_right : int
        In pixels; pads as in `ConvOp`.
    act_min, act_max : int
        int8 clamp.
    inward : bool
        An average rounds halves towards zero.
    """

    input: str
    kind: Literal["avg", "max"]
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_top: int = 0
    pad_bottom: int = 0
    pad_left: int = 0
    pad_right: int = 0
    act_min: int = -128
    act_max: int = 127
    inward: bool = False

    @property
    def reach_h(self) -> int:
        """Rows of the input that a window covers."""
        return self.kernel_h

    @property
    def reach_w(self) -> int:
        """Columns of the input that a window covers."""
        return self.kernel_w

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class TableOp(NpuOp):
    """Unary element-wise function by table.

    Attributes
    ----------
    input : str
        int8 tensor.
    table : ndarray of int8, shape [256], or [channels, 256] with one for each channel
        Indexed by ``value & 0xFF``: entries 0..127 are for 0..127, 128..255 for -128..-1.
    """

    input: str
    table: Int8Array

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a table of its own."""
        return self.table.ndim == 2

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class SoftmaxOp(NpuOp):
    """Softmax over the last dimension, TFLite's fixed-point int8 reference.

    Output scale 1/256 and zero point -128 always.

    Attributes
    ----------
    input : str
        int8 tensor of `rows` * `channels` elements.
    rows, channels : int
        Product of the leading dimensions, and the last one.
    beta : float
        As in the file; already inside `exp_table`.
    exp_table : ndarray of int32, shape [256]
        exp(-d * scale * beta) in Q0.31 for d = max - x in 0..255; 0 for differences that the
        reference leaves out, which are exactly the d >= `cutoff`.
    cutoff : int
        Number of leading entries of `exp_table` that take part, 1..256.
    """

    input: str
    rows: int
    channels: int
    beta: float
    exp_table: Int32Array
    cutoff: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class ReshapeOp(NpuOp):
    """The same bytes under another shape; costs nothing when the output aliases the input.

    Attributes
    ----------
    input : str
        Tensor of as many elements as the output.
    """

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaximumOp(BinaryOp):
    """Element-wise maximum of two tensors' bytes.

    Attributes
    ----------
    least : bool
        The minimum instead.
    """

    least: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class MoveOp(NpuOp):
    """Elements of other tensors, and constants, in another order.

    Attributes
    ----------
    sources : tuple of str
        int8 tensors of the output's quantisation.
    constants : bytes
        The source behind the last one: int8 values.
    boxes : tuple of Box
        The parts of the output, as `hwc` views it; none overlaps another.
    """

    sources: tuple[str, ...]
    constants: bytes = b""
    boxes: tuple[Box, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.sources


@dataclass(frozen=True, eq=False, kw_only=True)
class PartOp(NpuOp):
    """Rows and columns of a tensor, all channels; an output of the graph that nothing else reads.

    Attributes
    ----------
    input : str
        int8 tensor, as `hwc` views it.
    y, x : int
        Its first row and column that belong to the part.
    """

    input: str
    y: int
    x: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Interface:
    """What a model takes and gives, where a graph takes and gives something else.

    That is so where the host converts, and where the graph has variables.

    Attributes
    ----------
    inputs, outputs : tuple of Tensor
        As the file has them, in its order.
    conversions : tuple of (str, str)
        Names of a tensor and of what it is converted to: from an input of the model to one of the
        graph, or from an output of the graph to one of the model; in order, also by way of others.
    between : tuple of Tensor
        The others.
    casts : tuple of str
        Names of those tensors that CAST makes, and not QUANTIZE or DEQUANTIZE.
    layouts : mapping of str to tuple of int
        Of those that have their source's axes in another order: the source's axes in theirs.
    even : tuple of str
        Names of those that are quantised as ONNX does, halves to even.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    conversions: tuple[tuple[str, str], ...]
    between: tuple[Tensor, ...] = ()
    casts: tuple[str, ...] = ()
    layouts: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    even: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class State:
    """A variable of the model: what one inference leaves for the next.

    Attributes
    ----------
    name : str
        The variable's, as the file calls it.
    before, after : str
        Tensors of as many elements: an input of the graph, which is the variable's value when an
        inference begins, and an output, which is its value when the inference ends.
    initial : ndarray
        What it holds before the first inference; shape and element type of `before`.
    """

    name: str
    before: str
    after: str
    initial: npt.NDArray[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Graph:
    """A model at one level of the compiler.

    Attributes
    ----------
    name : str
        For messages and reports: the file's stem.
    tensors : dict of str to Tensor
        By name. Not to be modified.
    ops : list of Op
        Topologically ordered. Not to be modified.
    inputs, outputs : list of str
        Names of the model's inputs and outputs, in the file's order; with those of `state`.
    interface : Interface, optional
        What the model's inputs and outputs are, if the graph's are others.
    state : tuple of State
        The model's variables.
    host_only : mapping of str to str
        Tensors that only the host can have to do with, by name, and why. Their shape and their
        value may be stand-ins.
    """

    name: str
    tensors: dict[str, Tensor]
    ops: list[Op]
    inputs: list[str]
    outputs: list[str]
    interface: Interface | None = None
    state: tuple[State, ...] = ()
    host_only: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def interface_names(self) -> tuple[list[str], list[str]]:
        """Names of the model's own inputs and outputs."""
        return (
            [tensor.name for tensor in self.own_interface.inputs],
            [tensor.name for tensor in self.own_interface.outputs],
        )

    @property
    def own_interface(self) -> Interface:
        """What the model takes and gives, whether or not the graph's are others."""
        return self.interface or Interface(
            inputs=tuple(self.tensors[name] for name in self.inputs),
            outputs=tuple(self.tensors[name] for name in self.outputs),
            conversions=(),
        )

    @property
    def npu_ops(self) -> list[NpuOp]:
        """The operators of a lowered graph.

        Raises
        ------
        TypeError
            If an operator has not been lowered.
        """
        ops: list[NpuOp] = []
        for op in self.ops:
            if not isinstance(op, NpuOp):
                raise TypeError(f"{op.label} has not been lowered")
            ops.append(op)
        return ops

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, as TFLite counts them; lowered graphs only."""
        return sum(op.macs for op in self.npu_ops)

    def hwc(self, name: str) -> tuple[int, int, int]:
        """Return the shape of tensor `name` as `hwc` views it."""
        return hwc(self.tensors[name].shape)

    def producer(self, name: str) -> Op | None:
        """Return the operator that writes tensor `name`; None for inputs and constants."""
        return next((op for op in self.ops if name in op.outputs), None)

    def consumers(self, name: str) -> list[Op]:
        """Return the operators that read tensor `name`, in order."""
        return [op for op in self.ops if name in op.inputs]


def with_state(graph: Graph, state: tuple[State, ...]) -> Graph:
    """Return a graph that also takes and gives its variables; what it had is its interface."""
    if not state:
        return graph
    return replace(
        graph,
        inputs=[*graph.inputs, *(variable.before for variable in state)],
        # A variable's value may be an output as well, or that of two variables.
        outputs=list(dict.fromkeys([*graph.outputs, *(variable.after for variable in state)])),
        interface=graph.own_interface,
        state=state,
    )
