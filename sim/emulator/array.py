"""The systolic array of the emulator: one accumulator tile of a `Conv` at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import (
    ConvStream,
    conv_outputs,
    conv_own_bytes,
    conv_passes,
    conv_stream,
)
from celosia.hw.contract.isa import ADDRESS_MASK, Conv, Engine, Mode, Space
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
_SERIAL_PRODUCTS = 1 << 18
"""Of a matrix product: OpenBLAS divides larger ones among threads, which wait for one another by
spinning. On a machine with other work that took three times as long."""
_LEAST_COLUMNS = 64
_EXACT_PRODUCTS = 1 << 10
"""Products of two int8 whose sum a float32 holds exactly, in whatever order they are added."""


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
    if Mode(conv.mode).windows:
        sums = _windows(state, conv, stream, passes, weights)
    else:
        sums = _taps(state, conv, stream, passes, weights, conv_outputs(conv, rows))
    return AccTile(sums, rows, conv.out_w)


def _weights(state: MachineState, conv: Conv, oc: int) -> npt.NDArray[np.int8]:
    """Return the weights of all passes of one tile, ``[passes, rows, cols, samples or 1]``."""
    size, line_bytes = state.config.rows, state.config.line_bytes
    n_passes = conv.n_ky * conv.n_kx * conv.n_ic
    first = conv.wgt_addr + oc * n_passes * size
    last = first + n_passes * size
    if last > state.config.wgt_lines:
        line = max(first, state.config.wgt_lines)
        raise EngineFault(ErrorCause.WGT_RANGE, line * line_bytes)
    lines = state.chip[Space.WGT][first * line_bytes : last * line_bytes]
    return lines.view(np.int8).reshape(n_passes, size, state.config.cols, -1)


def _windows(
    state: MachineState,
    conv: Conv,
    stream: ConvStream,
    passes: ConvStream,
    weights: npt.NDArray[np.int8],
) -> npt.NDArray[np.int32]:
    """Modes WINDOW and JOINED: matrices of windows times those of weights, many passes at once."""
    size, cols, samples = state.config.rows, state.config.cols, state.samples
    byte = np.arange(size, dtype=np.int64)[:, None]
    n_windows, n_passes = len(stream.address), len(passes.address)
    act = state.chip[Space.ACT].view(np.int8)
    limit = len(act)
    own = conv_own_bytes(conv, passes, size)
    sums = np.zeros((cols, n_windows, samples), np.int32)
    chunk = max(1, min(_CHUNK_BYTES // (n_windows * size * samples), _EXACT_PRODUCTS // size))
    for start in range(0, n_passes, chunk):
        part = slice(start, min(start + chunk, n_passes))
        # [pass, window], which is the order in time.
        address = (passes.address[part, None] + stream.address) & ADDRESS_MASK
        row = passes.row[part, None] + stream.row
        x = passes.x[part, None] + stream.x
        in_rows = (row >= 0) & (row < conv.in_h)
        # [pass, byte of the window, window]
        place = address[:, None] + byte
        joined = own[part].min() < size
        whole = in_rows.all() and x.min() >= 0 and x.max() + size <= conv.row_bytes and not joined
        if whole and address.max() + size <= limit:
            values = np.take(act, place, axis=0)
        else:
            byte_x, byte_row = x[:, None] + byte, row[:, None]
            if joined:
                below = byte >= own[part, None, None]
                place += below * conv.row_pitch
                byte_x = byte_x - below * conv.step_kx
                byte_row = byte_row + below
            place &= ADDRESS_MASK
            inside = (byte_row >= 0) & (byte_row < conv.in_h)
            inside = inside & (byte_x >= 0) & (byte_x < conv.row_bytes)
            _check_act(state, place.swapaxes(1, 2), (inside & (place >= limit)).swapaxes(1, 2))
            values = np.take(act, place % limit, axis=0)
            values[~inside] = conv.zero_point
        sums += _products(values.reshape(-1, n_windows, samples), weights[part])
    return sums.swapaxes(0, 1)


def _products(values: npt.NDArray[np.int8], weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Return ``[cols, windows, samples]`` from ``[k, windows, samples]`` and weights.

    float32 is exact here: at most 2^10 products of at most 2^14.
    """
    depth, n_windows, samples = values.shape
    flat = weights.reshape(depth, weights.shape[2], -1).astype(np.float32)
    if flat.shape[2] == 1:
        left, right = np.ascontiguousarray(flat[..., 0].T), values.reshape(depth, -1)
        sums = np.empty((len(left), right.shape[1]), np.int32)
        step = max(_LEAST_COLUMNS, _SERIAL_PRODUCTS // left.size)
        for first in range(0, right.shape[1], step):
            part = slice(first, first + step)
            sums[:, part] = left @ right[:, part].astype(np.float32)
        return sums.reshape(-1, n_windows, samples)
    # Every sample has weights of its own.
    left = np.ascontiguousarray(flat.transpose(2, 1, 0))
    right = np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)
    return (left @ right).astype(np.int32).transpose(1, 2, 0)


def _taps(
    state: MachineState,
    conv: Conv,
    stream: ConvStream,
    passes: ConvStream,
    weights: npt.NDArray[np.int8],
    outputs: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """Modes TAPS and ROWS: one channel a column, FIR segments of taps along the stream."""
    config = state.config
    taps_of = [config.segment_taps(segment) for segment in range(config.dw_segments)]
    if conv.mode == Mode.TAPS:
        taps_of = [config.rows]
    segments = len(taps_of)
    # The accumulator is 32 bits wide and wraps, as this does.
    sums = np.zeros((len(outputs), state.config.cols, state.samples), np.int32)
    for index in range(len(passes.address)):
        segment = np.arange(segments)
        address = stream.address[:, None] + passes.address[index] + segment * conv.row_pitch
        row = stream.row[:, None] + passes.row[index] + segment
        x = (stream.x + passes.x[index])[:, None]
        inside = (row >= 0) & (row < conv.in_h) & (x >= 0) & (x < conv.row_bytes)
        inside[:, max(conv.ky_rows, 1) :] = False
        pixels = _pixels(state, conv, address, inside)
        for s in range(segments):
            for k in range(taps_of[s]):
                weight = weights[index, taps_of[0] * s + k]
                if weight.any():
                    # A product of two int8 fits 16 bits.
                    sums += weight.astype(np.int16) * pixels[outputs + k, s]
    return sums


def _pixels(
    state: MachineState,
    conv: Conv,
    address: npt.NDArray[np.int64],
    inside: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int16]:
    """Return the lines at ``[position, segment]``, ``[position + rows, segment, cols, samples]``.

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
    lines = state.lines()
    values = np.zeros((len(line) + config.rows, *line.shape[1:], *lines.shape[1:]), np.int16)
    values[: len(line)] = np.take(lines, line % config.act_lines, axis=0)
    values[: len(line)][~inside] = conv.zero_point
    return values


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
