"""Makes several operators of a pooling whose window a command cannot count, or that does not fit.

A maximum over a rectangle is one along the rows of maxima along the columns, and a maximum over a
long window one over the maxima of its parts: both exactly. An average is a sum, which the array
computes over any window (`celosia.sw.compiler.place.parts`), and a division by the number of
pixels, which its requantisation does with one rounding (`dividing_multiplier`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Rounding, Vector
from celosia.sw.compiler.arithmetic.exact import dividing_multiplier
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.ir import ConvOp, NpuOp, PoolOp, Tensor, hwc, made_like
from celosia.sw.compiler.place.limits import most

__all__ = ["split_pool"]

MOST_TAPS = most(Vector, "n_ky")
MAX_WEIGHTS = 1 << 24
"""Bound on what the weights of a sum may allocate, in bytes."""


def split_pool(op: PoolOp, tensors: dict[str, Tensor], config: NpuConfig) -> list[NpuOp]:
    """Return a pooling in other forms if its window is too large; else the operator itself.

    Parameters
    ----------
    op : PoolOp
        The pooling.
    tensors : dict of str to Tensor
        By name; those between the operators are added.
    config : NpuConfig
        The machine, whose memory a window has to fit.
    """
    if not _is_large(op, tensors, config):
        return [op]
    if op.kind == "max":
        return [*_Maxima(tensors, config).split(op)]
    return [_sum(op, tensors)]


def _is_large(op: PoolOp, tensors: dict[str, Tensor], config: NpuConfig) -> bool:
    height, width, _ = hwc(tensors[op.input].shape)
    covered = min(op.kernel_h, height), min(op.kernel_w, width)
    return max(covered) > MOST_TAPS or not _fits(covered[0] * covered[1], config)


def _fits(pixels: int, config: NpuConfig) -> bool:
    """Whether a window of one channel tile fits on chip, with rows that are a line longer."""
    return (pixels + ceil_div(pixels, MOST_TAPS) + 1) * config.line_bytes <= config.act_bytes


def _sum(op: PoolOp, tensors: dict[str, Tensor]) -> NpuOp:
    """Return a convolution by one; the operator itself if windows differ in size."""
    channels = hwc(tensors[op.input].shape)[2]
    count = op.kernel_h * op.kernel_w
    if max(op.pad_top, op.pad_bottom, op.pad_left, op.pad_right) or count * channels > MAX_WEIGHTS:
        return op
    multiplier, shift = dividing_multiplier(count)
    return ConvOp(
        origin=op.origin,
        fused=op.fused,
        input=op.input,
        output=op.output,
        weights=np.ones((op.kernel_h, op.kernel_w, channels), np.int8),
        bias=np.zeros(channels, np.int32),
        multiplier=np.full(channels, multiplier, np.int32),
        shift=np.full(channels, shift, np.int8),
        rounding=Rounding.SINGLE,
        depthwise=True,
        stride_h=op.stride_h,
        stride_w=op.stride_w,
        input_zero_point=0,
        output_zero_point=0,
        act_min=op.act_min,
        act_max=op.act_max,
    )


@dataclass(frozen=True)
class _Axis:
    """A window along one axis, the other one being 1."""

    kernel: int
    stride: int
    before: int
    after: int
    out: int


class _Maxima:
    """Splits maxima; notes the tensors between in `tensors`."""

    def __init__(self, tensors: dict[str, Tensor], config: NpuConfig) -> None:
        self._tensors = tensors
        self._config = config

    def split(self, op: PoolOp) -> list[PoolOp]:
        out_height, width, channels = hwc(self._tensors[op.output].shape)
        height, _, _ = hwc(self._tensors[op.input].shape)
        rows = _Axis(op.kernel_h, op.stride_h, op.pad_top, op.pad_bottom, out_height)
        columns = _Axis(op.kernel_w, op.stride_w, op.pad_left, op.pad_right, width)
        stages: list[tuple[bool, _Axis, tuple[int, ...]]] = []
        for stage in self._stages(columns):
            stages.append((False, stage, (1, height, stage.out, channels)))
        for stage in self._stages(rows):
            stages.append((True, stage, (1, stage.out, width, channels)))
        return self._chain(op, stages)

    def _stages(self, axis: _Axis) -> Iterator[_Axis]:
        """Yield windows along an axis, one behind the other, that are together this one."""
        if axis.kernel == 1 and axis.stride == 1:
            return
        while not _fits(axis.kernel, self._config) and (step := self._step(axis)) > 1:
            # Maxima of `step` pixels, one for each `step`, are what the next window is over.
            count = ceil_div(axis.kernel, step)
            stride = axis.stride // step if axis.out > 1 else 1
            out = (axis.out - 1) * stride + count
            yield _Axis(step, step, 0, count * step - axis.kernel if axis.out == 1 else 0, out)
            axis = _Axis(count, stride, 0, 0, axis.out)
        yield axis

    def _step(self, axis: _Axis) -> int:
        """Return a part of the window that is one of the stride, too; 1 if there is none."""
        if axis.before or axis.after:
            return 1
        if axis.out == 1:
            return min(MOST_TAPS, ceil_div(axis.kernel, 2))
        steps = (
            step
            for step in range(min(MOST_TAPS, axis.stride), 1, -1)
            if axis.stride % step == axis.kernel % step == 0
        )
        return next(steps, 1)

    def _chain(self, op: PoolOp, stages: list[tuple[bool, _Axis, tuple[int, ...]]]) -> list[PoolOp]:
        ops: list[PoolOp] = []
        name = op.input
        for index, (along_rows, axis, shape) in enumerate(stages):
            output = op.output
            if index < len(stages) - 1:
                like, wanted = self._tensors[op.output], f"{op.output}/part"
                between = made_like(like, self._tensors, wanted, shape)
                self._tensors[between.name] = between
                output = between.name
            window = {"kernel_h": 1, "kernel_w": 1, "stride_h": 1, "stride_w": 1}
            side, before, after = ("h", "top", "bottom") if along_rows else ("w", "left", "right")
            window |= {f"kernel_{side}": axis.kernel, f"stride_{side}": axis.stride}
            window |= dict.fromkeys(("pad_top", "pad_bottom", "pad_left", "pad_right"), 0)
            window |= {f"pad_{before}": axis.before, f"pad_{after}": axis.after}
            ops.append(replace(op, input=name, output=output, **window))  # type: ignore[arg-type]
            name = output
        return ops
