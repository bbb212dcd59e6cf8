"""Random convolutions: the command, what the memories hold, and the golden accumulators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Mode
from celosia.sim.golden.operators import (
    conv2d_accumulators,
    depthwise_conv2d_accumulators,
    window_geometry,
)

__all__ = ["Layer", "assemble", "convolution", "depthwise", "joined", "phased"]

ADDRESS_SPACE = 1 << 20

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Padding = str | int
"""SAME, VALID, or so many pixels on each side."""


@dataclass(frozen=True)
class Layer:
    """One `Conv` and all that belongs to it.

    Attributes
    ----------
    command : Conv
    act, wgt : numpy.ndarray
        int8, contents of the activation memory and of the weight memory's beginning.
    expected : numpy.ndarray
        int64 [out_h, out_w, channels]: the accumulators.
    image, weights : numpy.ndarray
        int8, as the golden operators take them.
    base : int
        Address of the image in the activation memory.
    """

    command: Conv
    act: Int8
    wgt: Int8
    expected: Int64
    image: Int8
    weights: Int8
    base: int

    @property
    def pass_cycles(self) -> int:
        """Cycles of all passes, without a gap between them."""
        c = self.command
        return c.n_oc * c.n_ky * c.n_kx * c.n_ic * c.out_h * c.row_len


def _place(
    config: NpuConfig, x: Int8, base: int, packed: bool, rng: np.random.Generator
) -> tuple[Int8, int, int]:
    """Return the memory with an image at `base`, and the pixel and row pitch.

    Unless `packed` a pixel is a whole number of lines, and a row an odd one: mode ROWS needs it.
    """
    height, width, channels = x.shape
    line = config.line_bytes
    act = rng.integers(-128, 128, config.act_bytes).astype(np.int8)
    pixel = channels if packed else -(-channels // line) * line
    row = width * pixel + (int(rng.integers(0, 5)) if packed else 0)
    if not packed and row // line % 2 == 0:
        row += line
    for y in range(height):
        for w in range(width):
            at = base + y * row + w * pixel
            act[at : at + channels] = x[y, w]
    return act, pixel, row


def _geometry(
    size: tuple[int, int, int], kernel: tuple[int, int], strides: tuple[int, int], padding: Padding
) -> tuple[int, int, int, int]:
    """Return height and width of the output, and what is padded above and to the left."""
    if not isinstance(padding, str):
        out_h, out_w = (
            (length + 2 * padding - taps) // stride + 1
            for length, taps, stride in zip(size[:2], kernel, strides, strict=True)
        )
        return out_h, out_w, padding, padding
    out_h, top, _ = window_geometry(size[0], kernel[0], strides[0], padding)
    out_w, left, _ = window_geometry(size[1], kernel[1], strides[1], padding)
    return out_h, out_w, top, left


def _padded(x: Int8, padding: Padding, zero: int) -> tuple[Int8, str]:
    """Return a batch of one, and the padding that is left for the golden operator."""
    if isinstance(padding, str):
        return x[None], padding
    around = (padding, padding)
    return np.pad(x, (around, around, (0, 0)), constant_values=zero)[None], "VALID"


def _choose_tile_rows(config: NpuConfig, rng: np.random.Generator, out_h: int, out_w: int) -> int:
    return min(int(rng.integers(1, out_h + 1)), config.acc_depth // out_w)


def convolution(
    config: NpuConfig,
    rng: np.random.Generator,
    *,
    size: tuple[int, int, int],
    out_channels: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
    packed: bool,
) -> Layer:
    """Return a convolution (mode WINDOW) on random data.

    Parameters
    ----------
    size : tuple of int
        Height, width and channels of the input.
    out_channels : int
    kernel, strides : tuple of int
        Height and width.
    padding : str or int
        SAME, VALID, or so many pixels on each side.
    packed : bool
        Channels of neighbouring pixels follow one another, so that a kernel row is one run of
        bytes; else each pixel begins a line.
    """
    lanes = config.rows
    height, width, channels = size
    kh, kw = kernel
    x = rng.integers(-128, 128, size).astype(np.int8)
    w = rng.integers(-128, 128, (out_channels, kh, kw, channels)).astype(np.int8)
    zero = int(rng.integers(-128, 128))
    batch, left_over = _padded(x, padding, zero)
    golden = conv2d_accumulators(
        batch, w, None, strides=strides, padding=left_over, x_zero_point=zero
    )[0]
    # The array multiplies the codes; the zero point's share goes into the bias.
    expected = golden + zero * w.astype(np.int64).sum(axis=(1, 2, 3))
    out_h, out_w, top, left = _geometry(size, kernel, strides, padding)
    base = int(rng.integers(0, 50)) if packed else lanes * int(rng.integers(0, 9))
    act, pixel, row = _place(config, x, base, packed, rng)
    # Weights as a run of bytes for each kernel row (packed) or pixel, cut into array heights.
    taps = w.transpose(1, 2, 3, 0)
    runs = taps.reshape(kh, 1, kw * channels, out_channels) if packed else taps
    n_kx, n_ic, n_oc = runs.shape[1], -(-runs.shape[2] // lanes), -(-out_channels // lanes)
    full = np.zeros((kh, n_kx, n_ic * lanes, n_oc * lanes), np.int8)
    full[:, :, : runs.shape[2], :out_channels] = runs
    weights = full.reshape(kh, n_kx, n_ic, lanes, n_oc, lanes).transpose(4, 0, 1, 2, 3, 5)
    command = Conv(
        mode=Mode.WINDOW,
        zero_point=zero,
        act_addr=(base - top * row - left * pixel) % ADDRESS_SPACE,
        y0=-top,
        x0=-left * pixel,
        in_h=height,
        row_bytes=width * pixel,
        row_pitch=row,
        out_w=out_w,
        out_h=out_h,
        tile_rows=_choose_tile_rows(config, rng, out_h, out_w),
        row_len=out_w,
        stride_x=1,
        stride_y=strides[0],
        step_x=strides[1] * pixel,
        step_y=strides[0] * row,
        n_ky=kh,
        ky_rows=1,
        step_ky=row,
        n_kx=n_kx,
        step_kx=pixel,
        n_ic=n_ic,
        step_ic=lanes,
        n_oc=n_oc,
    )
    return Layer(command, act, weights.reshape(-1), expected, x, w, base)


def joined(
    config: NpuConfig,
    rng: np.random.Generator,
    *,
    size: tuple[int, int, int],
    out_channels: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
) -> Layer:
    """Return a convolution of a packed image in mode JOINED on random data.

    Parameters are those of :func:`convolution`. A pass takes as many bytes as it can of two kernel
    rows.
    """
    layer = convolution(
        config, rng, size=size, out_channels=out_channels, kernel=kernel, strides=strides,
        padding=padding, packed=True,
    )  # fmt: skip
    lanes, (kh, kw), (height, width, pixel) = config.rows, kernel, size
    row = kw * pixel
    taken = next(
        taken
        for taken in range(lanes, 0, -1)
        if all(
            row - at % row + row >= min(taken, kh * row - at) for at in range(0, kh * row, taken)
        )
    )
    pitch = width * pixel + (row + 2 * lanes - width * pixel) % (4 * lanes)
    pitch += 4 * lanes * int(rng.integers(0, 2))
    act = rng.integers(-128, 128, config.act_bytes).astype(np.int8)
    for y in range(height):
        at = layer.base + y * pitch
        act[at : at + width * pixel] = layer.image[y].reshape(-1)
    n_ic, n_oc = -(-kh * row // taken), layer.command.n_oc
    flat = np.zeros((n_ic * taken, n_oc * lanes), np.int8)
    flat[: kh * row, :out_channels] = layer.weights.transpose(1, 2, 3, 0).reshape(kh * row, -1)
    weights = rng.integers(-128, 128, (n_oc, n_ic, lanes, lanes)).astype(np.int8)
    weights[:, :, taken:] = 0
    weights[:, :, :taken] = flat.reshape(n_ic, taken, n_oc, lanes).transpose(2, 0, 1, 3)
    command = replace(
        layer.command,
        mode=Mode.JOINED,
        act_addr=(layer.base + layer.command.y0 * pitch + layer.command.x0) % ADDRESS_SPACE,
        row_pitch=pitch - row,
        step_y=strides[0] * pitch,
        n_ky=1,
        step_ky=pitch,
        n_kx=1,
        step_kx=row,
        n_ic=n_ic,
        step_ic=taken,
    )
    return replace(layer, command=command, act=act, wgt=weights.reshape(-1))


def depthwise(
    config: NpuConfig,
    rng: np.random.Generator,
    *,
    size: tuple[int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
    mode: Mode,
) -> Layer:
    """Return a depthwise convolution (mode TAPS or ROWS) on random data.

    Parameters are those of :func:`convolution`. ROWS needs a kernel of at most three columns.
    """
    lanes = config.rows
    height, width, channels = size
    kh, kw = kernel
    x = rng.integers(-128, 128, size).astype(np.int8)
    w = rng.integers(-128, 128, (1, kh, kw, channels)).astype(np.int8)
    zero = int(rng.integers(-128, 128))
    batch, left_over = _padded(x, padding, zero)
    golden = depthwise_conv2d_accumulators(
        batch, w, None, strides=strides, padding=left_over, x_zero_point=zero
    )[0]
    expected = golden + zero * w.astype(np.int64).sum(axis=(0, 1, 2))
    out_h, out_w, top, left = _geometry(size, kernel, strides, padding)
    base = lanes * int(rng.integers(0, 9))
    act, pixel, row = _place(config, x, base, False, rng)
    whole = sum(config.segment_taps(s) >= kw for s in range(config.dw_segments))
    ky_rows = whole if mode is Mode.ROWS else 1
    n_ky, n_oc = -(-kh // ky_rows), -(-channels // lanes)
    n_kx = 1 if mode is Mode.ROWS else -(-kw // lanes)
    weights = np.zeros((n_oc, n_ky, n_kx, lanes, lanes), np.int8)
    for i in range(kh):
        for j in range(kw):
            tap = np.zeros(n_oc * lanes, np.int8)
            tap[:channels] = w[0, i, j]
            at = 3 * (i % ky_rows) + j if mode is Mode.ROWS else j % lanes
            part = 0 if mode is Mode.ROWS else j // lanes
            weights[:, i // ky_rows, part, at] = tap.reshape(n_oc, -1)
    # Columns of padding that end one row and begin the next one may be streamed once for both.
    full = (out_w - 1) * strides[1] + kw
    right = max(full - left - width, 0)
    shared = int(rng.integers(0, min(left, right) + 1)) if strides[1] == 1 else 0
    command = Conv(
        mode=mode,
        zero_point=zero,
        act_addr=(base - top * row - left * pixel) % ADDRESS_SPACE,
        y0=-top,
        x0=-left * pixel,
        in_h=height,
        row_bytes=width * pixel,
        row_pitch=row,
        out_w=out_w,
        out_h=out_h,
        tile_rows=_choose_tile_rows(config, rng, out_h, out_w),
        row_len=full - shared,
        extra=shared,
        stride_x=strides[1],
        stride_y=strides[0],
        step_x=pixel,
        step_y=strides[0] * row,
        n_ky=n_ky,
        ky_rows=ky_rows,
        step_ky=ky_rows * row,
        n_kx=n_kx,
        step_kx=lanes * pixel,
        n_ic=1,
        step_ic=lanes,
        n_oc=n_oc,
        step_oc=lanes,
    )
    return Layer(command, act, weights.reshape(-1), expected, x, w, base)


def phased(
    config: NpuConfig,
    rng: np.random.Generator,
    *,
    size: tuple[int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: Padding,
) -> Layer:
    """Return a depthwise convolution (mode ROWS) that streams only pixels where windows begin.

    Parameters are those of :func:`depthwise`. Pass p takes taps p, p + stride, p + 2 * stride, ...
    of each kernel row: three at most.
    """
    layer = depthwise(
        config, rng, size=size, kernel=kernel, strides=strides, padding=padding, mode=Mode.TAPS
    )
    (kh, kw), stride, lanes, plain = kernel, strides[1], config.rows, layer.command
    taps = -(-kw // stride)
    ky_rows = sum(config.segment_taps(s) >= taps for s in range(config.dw_segments))
    n_ky, n_oc, channels = -(-kh // ky_rows), plain.n_oc, size[2]
    weights = np.zeros((n_oc, n_ky, stride, lanes, lanes), np.int8)
    for i in range(kh):
        for j in range(kw):
            tap = np.zeros(n_oc * lanes, np.int8)
            tap[:channels] = layer.weights[0, i, j]
            row = 3 * (i % ky_rows) + j // stride
            weights[:, i // ky_rows, j % stride, row] = tap.reshape(n_oc, -1)
    command = replace(
        plain,
        mode=Mode.ROWS,
        row_len=plain.out_w - 1 + taps,
        extra=0,
        stride_x=1,
        step_x=stride * plain.step_x,
        n_ky=n_ky,
        ky_rows=ky_rows,
        step_ky=ky_rows * plain.row_pitch,
        n_kx=stride,
        step_kx=plain.step_x,
    )
    return replace(layer, command=command, wgt=weights.reshape(-1))


def assemble(tiles: list[Any], command: Conv, channels: int) -> Int64:
    """Put accumulator tiles together to [out_h, out_w, channels].

    Parameters
    ----------
    tiles : list of numpy.ndarray
        Vectors of each tile, [vectors, lanes].
    """
    per_channel_tile = -(-command.out_h // command.tile_rows)
    planes = [
        np.concatenate(tiles[at : at + per_channel_tile]).reshape(command.out_h, command.out_w, -1)
        for at in range(0, len(tiles), per_channel_tile)
    ]
    whole: Int64 = np.concatenate(planes, axis=2)[:, :, :channels].astype(np.int64)
    return whole
