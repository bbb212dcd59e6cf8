"""Which phases an output has, one axis at a time; see `celosia.sw.compiler.place.phases`."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any, Generic, TypeVar

from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.ir import ConvOp, SourceOp
from celosia.sw.compiler.passes.rewrite import unsupported
from celosia.sw.compiler.place.phases import Phase

__all__ = ["AxisPhase", "interpolated_axis", "phases_of", "pixels_of", "transposed_axis"]

MAX_PHASES = 1024
"""Each is at least four commands."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class AxisPhase(Generic[K]):
    """Outputs at equal distances along one axis, which have the same kernel.

    Attributes
    ----------
    first, step, count : int
        The outputs.
    size : int
        Pixels of the input.
    start, stride : int
        The first input pixel of the first output's window, and pixels from window to window.
    kernel : hashable
        What makes the kernel.
    """

    first: int
    step: int
    count: int
    size: int
    start: int
    stride: int
    kernel: K

    def pads(self, taps: int) -> tuple[int, int]:
        """Pixels of padding that windows of so many taps cover before and after the input."""
        end = self.start + (self.count - 1) * self.stride + taps
        return -self.start, end - self.size


def phases_of(
    op: SourceOp,
    rows: list[AxisPhase[K]],
    columns: list[AxisPhase[K]],
    conv: Callable[[K, K], dict[str, Any]],
) -> tuple[Phase, ...]:
    """Return the phases of an image.

    Parameters
    ----------
    op : SourceOp
        For messages.
    rows, columns : list of AxisPhase
        Of its output.
    conv : callable
        Returns, for the kernels of both axes, the fields of a `ConvOp` apart from its geometry;
        perhaps also `rest`, see `Phase`.
    """
    count = prod(map(len, (rows, columns)))
    if count > MAX_PHASES:
        raise unsupported(
            op,
            f"it has {len(rows)} x {len(columns)} parts that are computed differently, more than"
            f" {MAX_PHASES}",
            "use a smaller factor or stride, or two steps",
        )
    return tuple(_phase(y, x, conv(y.kernel, x.kernel)) for y in rows for x in columns)


def _phase(y: AxisPhase[K], x: AxisPhase[K], fields: dict[str, Any]) -> Phase:
    fields = dict(fields)
    rest = fields.pop("rest", None)
    kernel_h, kernel_w = fields["weights"].shape[:2]
    top, bottom = y.pads(kernel_h)
    left, right = x.pads(kernel_w)
    conv = ConvOp(
        **fields,
        stride_h=y.stride,
        stride_w=x.stride,
        pad_top=top,
        pad_bottom=bottom,
        pad_left=left,
        pad_right=right,
    )
    return Phase(
        conv=conv,
        rest=rest,
        y=y.first,
        x=x.first,
        step_y=y.step,
        step_x=x.step,
        rows=y.count,
        columns=x.count,
    )


def pixels_of(phases: list[AxisPhase[K]]) -> list[int]:
    """Return the first input pixel of every output's window along one axis."""
    pixels = {
        phase.first + i * phase.step: phase.start + i * phase.stride
        for phase in phases
        for i in range(phase.count)
    }
    return [pixels[output] for output in sorted(pixels)]


def transposed_axis(
    size: int, out_size: int, kernel: int, stride: int, *, same: bool
) -> list[AxisPhase[tuple[int, ...]]]:
    """Return the phases of a transposed convolution along one axis.

    Input pixel i adds kernel tap k to output ``i * stride + k - pad``.

    Parameters
    ----------
    size, out_size : int
        Pixels of input and output.
    kernel, stride : int
        Of the transposed convolution.
    same : bool
        Whether its padding is SAME.

    Returns
    -------
    list of AxisPhase
        With the kernel's taps in the order of the input; of outputs that none reaches, no taps.
        Source: TFLite `ComputePaddingHeightWidth`, `TransposeConv`.
    """
    fits = ceil_div(out_size, stride) if same else (out_size + stride - kernel) // stride
    pad = max((fits - 1) * stride + kernel - out_size, 0) // 2
    phases = []
    for first in range(min(stride, out_size)):
        last, start = (first + pad) // stride, (first + pad) % stride
        taps = tuple(range(start, kernel, stride))[::-1]
        phases.append(
            AxisPhase(
                first=first,
                step=stride,
                count=ceil_div(out_size - first, stride),
                size=size,
                start=last - len(taps) + 1 if taps else 0,
                stride=1,
                kernel=taps,
            )
        )
    return phases


INTERPOLATION_BITS = 10
"""Bits of the places between pixels in the reference's integer kernel."""
_ONE = 1 << INTERPOLATION_BITS


def interpolated_axis(
    op: SourceOp, size: int, out_size: int, *, aligned: bool, centred: bool
) -> list[AxisPhase[tuple[int, ...]]]:
    """Return the phases of an interpolation along one axis.

    Parameters
    ----------
    op : SourceOp
        For messages.
    size, out_size : int
        Pixels of input and output.
    aligned, centred : bool
        The modes: outermost pixels on each other, and half pixel centres.

    Returns
    -------
    list of AxisPhase
        With the weights of one pixel or two, in 1024ths. Source: TFLite `ResizeBilinearInteger`.
    """
    scale = (_ONE * size + out_size // 2) // out_size
    if aligned and out_size > 1:
        scale = (_ONE * (size - 1) + (out_size - 1) // 2) // (out_size - 1)
    offset = scale // 2 - _ONE // 2 if centred else 0
    ratio = Fraction(scale, _ONE)
    phases: list[AxisPhase[tuple[int, ...]]] = []
    for first in range(min(ratio.denominator, out_size)):
        runs: list[AxisPhase[tuple[int, ...]]] = []
        for out in range(first, out_size, ratio.denominator):
            place = out * scale + offset
            pixel, rest = max(place, 0) // _ONE, max(place, 0) % _ONE
            if pixel >= size:
                raise unsupported(
                    op,
                    f"its places, rounded to {INTERPOLATION_BITS} bits, lead out of the image, and"
                    " the reference reads what is there",
                    "use a whole factor",
                )
            # Before the first pixel and behind the last there is only that one.
            kernel = (_ONE - rest, rest) if rest and pixel + 1 < size else (_ONE,)
            last = runs[-1] if runs else None
            goes_on = (
                last is not None
                and last.kernel == kernel
                and last.start + last.count * last.stride == pixel
            )
            if last is not None and goes_on:
                runs[-1] = replace(last, count=last.count + 1)
                continue
            runs.append(
                AxisPhase(
                    first=out,
                    step=ratio.denominator,
                    count=1,
                    size=size,
                    start=pixel,
                    stride=max(1, ratio.numerator),
                    kernel=kernel,
                )
            )
        phases.extend(runs)
    return phases
