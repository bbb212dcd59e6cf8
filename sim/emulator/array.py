"""The systolic array of the emulator: one accumulator tile of a `Conv` at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import (
    ConvStream,
    conv_outputs,
    conv_passes,
    conv_stream,
)
from celosia.hw.contract.isa import ADDRESS_MASK, Conv, Engine, Mode
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.state import (
    MAX_COMMAND_ELEMENTS,
    AccTile,
    EmulatorError,
    EngineFault,
    MachineState,
)

__all__ = ["conv_tile"]

_CHUNK_BYTES = 1 << 22
"""Activations gathered at once: bounds the emulator's memory, has no effect on results."""


def conv_tile(state: MachineState, conv: Conv, oc: int, tile: int) -> AccTile:
    """Return the sums of one tile of output rows for one tile of output channels.

    Raises
    ------
    EngineFault
        WGT_RANGE, ACT_RANGE (a byte inside the image but beyond the memory) or BANK_CONFLICT;
        the address is that of the line in error, for BANK_CONFLICT that of the first pixel.
    """
    rows = min(conv.tile_rows, conv.out_h - tile * conv.tile_rows)
    weights = _weights(state, conv, oc)
    positions = rows * conv.row_len + conv.extra
    state.charge(Engine.ARRAY, positions * len(weights))
    if positions > MAX_COMMAND_ELEMENTS:
        raise EmulatorError(
            f"command tag {conv.tag} streams {positions} positions a tile, at most"
            f" {MAX_COMMAND_ELEMENTS} are emulated"
        )
    stream = conv_stream(conv, oc, tile)
    passes = conv_passes(conv)
    if conv.mode == Mode.WINDOW:
        sums = _windows(state, conv, stream, passes, weights)
    else:
        sums = _taps(state, conv, stream, passes, weights, conv_outputs(conv, rows))
    # The accumulator is 32 bits wide and wraps.
    return AccTile(sums.astype(np.int32), rows, conv.out_w)


def _weights(state: MachineState, conv: Conv, oc: int) -> npt.NDArray[np.int8]:
    """Return the weights of all passes of one channel tile, ``[passes, rows, cols]``."""
    size = state.config.rows
    n_passes = conv.n_ky * conv.n_kx * conv.n_ic
    first = conv.wgt_addr + oc * n_passes * size
    last = first + n_passes * size
    if last > state.config.wgt_lines:
        line = max(first, state.config.wgt_lines)
        raise EngineFault(ErrorCause.WGT_RANGE, line * state.config.line_bytes)
    return state.wgt[first:last].reshape(n_passes, size, state.config.cols)


def _windows(
    state: MachineState,
    conv: Conv,
    stream: ConvStream,
    passes: ConvStream,
    weights: npt.NDArray[np.int8],
) -> npt.NDArray[np.int64]:
    size = state.config.rows
    byte = np.arange(size, dtype=np.int64)
    n_windows, n_passes = len(stream.address), len(passes.address)
    sums = np.zeros((n_windows, state.config.cols), np.int64)
    chunk = max(1, _CHUNK_BYTES // (n_windows * size))
    for start in range(0, n_passes, chunk):
        part = slice(start, min(start + chunk, n_passes))
        address = stream.address[:, None] + passes.address[part]
        row = stream.row[:, None] + passes.row[part]
        x = (stream.x[:, None] + passes.x[part])[..., None] + byte
        inside = ((row >= 0) & (row < conv.in_h))[..., None] & (x >= 0) & (x < conv.row_bytes)
        place = (address[..., None] + byte) & ADDRESS_MASK
        limit = len(state.act)
        # In the order in time: pass by pass.
        bad = inside & (place >= limit)
        _check_act(state, place.swapaxes(0, 1), bad.swapaxes(0, 1))
        values = state.act.view(np.int8)[place % len(state.act)]
        values = np.where(inside, values, np.int8(conv.zero_point))
        # Doubles are exact here: a part sums fewer than 2^22 products of at most 2^14.
        products = values.reshape(n_windows, -1).astype(np.float64) @ weights[part].reshape(
            -1, state.config.cols
        ).astype(np.float64)
        sums += products.astype(np.int64)
    return sums


def _taps(
    state: MachineState,
    conv: Conv,
    stream: ConvStream,
    passes: ConvStream,
    weights: npt.NDArray[np.int8],
    outputs: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Modes TAPS and ROWS: one channel a column, FIR segments of taps along the stream."""
    if conv.mode == Mode.TAPS:
        segments, taps = 1, state.config.rows
    else:
        segments, taps = state.config.dw_segments, 3
    sums = np.zeros((len(outputs), state.config.cols), np.int64)
    for index in range(len(passes.address)):
        segment = np.arange(segments)
        address = stream.address[:, None] + passes.address[index] + segment * conv.row_pitch
        row = stream.row[:, None] + passes.row[index] + segment
        x = (stream.x + passes.x[index])[:, None]
        inside = (row >= 0) & (row < conv.in_h) & (x >= 0) & (x < conv.row_bytes)
        pixels = _pixels(state, conv, address, inside)
        for s in range(segments):
            for k in range(taps):
                weight = weights[index, taps * s + k].astype(np.int64)
                if weight.any():
                    sums += weight * pixels[outputs + k, s]
    return sums


def _pixels(
    state: MachineState,
    conv: Conv,
    address: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int64]:
    """Return the lines at ``[position, segment]``, ``[position + rows, segment, cols]``.

    The positions after the end of the stream read as 0: only taps of weight 0 may meet them.
    """
    config = state.config
    line = (address & ADDRESS_MASK) // config.line_bytes
    _check_act(state, address, inside & (line >= config.act_lines))
    conflict = np.zeros(len(address), np.bool_)
    for first in range(address.shape[1]):
        for second in range(first):
            same = (line[:, first] - line[:, second]) % config.act_banks == 0
            conflict |= same & inside[:, first] & inside[:, second]
    if conflict.any():
        where = int(conflict.argmax())
        raise EngineFault(ErrorCause.BANK_CONFLICT, int(address[where, 0]) & ADDRESS_MASK)
    lines = state.act.view(np.int8).reshape(-1, config.line_bytes)
    values = np.where(
        inside[..., None], lines[line % config.act_lines], np.int8(conv.zero_point)
    ).astype(np.int64)
    tail = np.zeros((config.rows, *values.shape[1:]), np.int64)
    return np.concatenate([values, tail])


def _check_act(
    state: MachineState, address: npt.NDArray[np.int64], bad: npt.NDArray[np.bool_]
) -> None:
    """Fault on the first window (all axes but the last) with a bad byte or line: its last one."""
    if bad.any():
        wide = bad.shape[-1]
        window = int(bad.argmax()) // wide
        column = wide - 1 - int(bad.reshape(-1, wide)[window, ::-1].argmax())
        first = int(address.reshape(-1, wide)[window, column]) & ADDRESS_MASK
        raise EngineFault(ErrorCause.ACT_RANGE, first - first % state.config.line_bytes)
