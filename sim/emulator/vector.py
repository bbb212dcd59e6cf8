"""The vector engine of the emulator; arithmetic as in docs/arithmetic.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import vector_lines
from celosia.hw.contract.isa import (
    ADD_LEFT_SHIFT,
    SQUARE_LEFT_SHIFT,
    Engine,
    Rounding,
    Space,
    Vector,
    VectorOp,
)
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.state import (
    MAX_COMMAND_ELEMENTS,
    AccTile,
    EmulatorError,
    EngineFault,
    MachineState,
)

__all__ = ["requant_tile", "requantise", "vector_whole", "wrap32"]

Ints = npt.NDArray[np.int64]


def wrap32(values: Ints) -> Ints:
    """Return the low 32 bits of each value, signed, as int64."""
    return values.astype(np.int32).astype(np.int64)


def requantise(
    values: Ints | npt.NDArray[np.int32],
    multiplier: Ints | int,
    shift: Ints | int,
    rounding: Rounding,
) -> Ints:
    """Return ``values * multiplier * 2^(shift - 31)``, rounded as `rounding` says.

    Parameters
    ----------
    values : numpy.ndarray
        int32 values, perhaps as int64.
    multiplier : numpy.ndarray or int
        Q31; broadcast against `values`.
    shift : numpy.ndarray or int
        -31 to 31; positive shifts left.
    rounding : Rounding
        DOUBLE (twice, convolutions) or SINGLE (once, fully connected).
    """
    amount = np.asarray(shift, np.int64)
    left, right = np.maximum(amount, 0), np.maximum(-amount, 0)
    shifted = wrap32(values.astype(np.int64) << left) if left.any() else values
    # One array is worked on in place: with many samples, memory is what takes the time.
    result: Ints = np.multiply(shifted, multiplier, dtype=np.int64)
    result >>= 30
    if rounding == Rounding.SINGLE:
        result += np.int64(1) << right
        result >>= right + 1
        return result
    result += 1
    result >>= 1
    nudged = (result < 0) & (right > 0)
    result += (np.int64(1) << right) >> 1
    result -= nudged
    result >>= right
    return result


def _clamp(state: MachineState, values: Ints, low: int, high: int) -> npt.NDArray[np.int8]:
    # It shows which bound wins if a program has them the wrong way round: the vector engine looks
    # at the lower one first, the firmware has the upper one last.
    if state.config.firmware or low <= high:
        bounded = np.maximum(values, low)
        return np.minimum(bounded, high, out=bounded).astype(np.int8)
    return np.where(values < low, low, np.minimum(values, high)).astype(np.int8)


def _read(state: MachineState, lines: Ints) -> Ints:
    """Return lines of the activation SRAM, with axes ``[..., cols, samples]`` behind theirs."""
    _check(state, lines)
    return np.take(state.lines(), lines, axis=0).astype(np.int64)


def _write(state: MachineState, lines: Ints, values: npt.NDArray[np.int8]) -> None:
    _check(state, lines)
    memory = state.lines().reshape(state.config.act_lines, -1)
    memory[lines.ravel()] = values.reshape(-1, memory.shape[1])


def _check(state: MachineState, lines: Ints) -> None:
    bad = (lines >= state.config.act_lines).ravel()
    if bad.any():
        line = int(lines.ravel()[int(bad.argmax())])
        raise EngineFault(ErrorCause.ACT_RANGE, line * state.config.line_bytes)


def _check_beginning(state: MachineState, command: Vector, vectors: int) -> None:
    """Fault as the first vectors of a command do, without listing all of them."""
    width = min(command.out_w, vectors)
    part = replace(command, n_oc=1, out_w=width, out_h=min(command.out_h, max(1, vectors // width)))
    for operand in ("a", "d"):
        _check(state, vector_lines(part, operand))


def _scaled_a(command: Vector, a: Ints, left_shift: int) -> Ints:
    shifted = (a - command.zero_a) << left_shift
    return requantise(shifted, command.mult_a, -command.shift_a, Rounding.DOUBLE)


def _scaled_b(command: Vector, b: Ints, left_shift: int) -> Ints:
    shifted = (b - command.zero_b) << left_shift
    return requantise(shifted, command.mult_b, -command.shift_b, Rounding.DOUBLE)


def _sum(command: Vector, a: Ints, b: Ints) -> Ints:
    scaled_a = _scaled_a(command, a, ADD_LEFT_SHIFT)
    return wrap32(scaled_a + _scaled_b(command, b, ADD_LEFT_SHIFT))


def _product(command: Vector, a: Ints, b: Ints) -> Ints:
    shifted = (a - command.zero_a) << ADD_LEFT_SHIFT
    return (shifted * _scaled_b(command, b, ADD_LEFT_SHIFT)) >> 31 >> command.shift_a


def _square(command: Vector, a: Ints, b: Ints) -> Ints:
    """Return the square of the sum's low 16 bits."""
    total = _scaled_a(command, a, SQUARE_LEFT_SHIFT) + _scaled_b(command, b, SQUARE_LEFT_SHIFT)
    low: Ints = total.astype(np.int16).astype(np.int64)
    return low * low


_OF_TWO = {
    VectorOp.ADD: _sum,
    VectorOp.REQUANT_ADD: _sum,
    VectorOp.MUL: _product,
    VectorOp.SQUARED_DIFFERENCE: _square,
}
"""What is rescaled to the result, of the operations that have a second tensor."""


def _of_two(state: MachineState, command: Vector, a: Ints, b: Ints) -> npt.NDArray[np.int8]:
    whole = _OF_TWO[VectorOp(command.op)](command, a, b)
    total = requantise(whole, command.mult_o, -command.shift_o, Rounding.DOUBLE)
    return _clamp(state, total + command.zero_out, command.act_min, command.act_max)


def _read_b(state: MachineState, command: Vector) -> Ints:
    """Return the second tensor, of which one channel may be there for all."""
    values = _read(state, vector_lines(command, "b"))
    return np.broadcast_to(values[..., :1, :], values.shape) if command.b_oc else values


def _extreme(state: MachineState, command: Vector, a: Ints) -> npt.NDArray[np.int8]:
    """Return the greatest or the least of a window's values, or of two tensors'."""
    if command.pair:
        values = np.stack((a[:, :, :, 0, 0], _read_b(state, command)))
        axes: tuple[int, ...] = (0,)
    else:
        values, axes = a, (3, 4)
    result = values.min(axis=axes) if command.least else values.max(axis=axes)
    return _clamp(state, result, command.act_min, command.act_max)


def vector_whole(state: MachineState, command: Vector) -> None:
    """Carry out an operation that reads its A from the activation SRAM.

    Raises
    ------
    EngineFault
        ACT_RANGE with the byte address of the line beyond the memory.
    """
    window = command.n_ky * command.n_kx
    elements = command.n_oc * command.out_h * command.out_w * window
    if elements > MAX_COMMAND_ELEMENTS:
        _check_beginning(state, command, MAX_COMMAND_ELEMENTS // window)
        state.charge(Engine.VECTOR, elements)
        raise EmulatorError(
            f"command tag {command.tag} reads {elements} vectors, at most {MAX_COMMAND_ELEMENTS}"
            " are emulated"
        )
    state.charge(Engine.VECTOR, elements)
    a = _read(state, vector_lines(command, "a"))
    op = VectorOp(command.op)
    if op.has_b:
        result = _of_two(state, command, a[:, :, :, 0, 0], _read_b(state, command))
    elif op == VectorOp.AVERAGE:
        total = a.sum(axis=(3, 4))
        magnitude = ((np.abs(total) + command.half) * command.mult_o) >> (30 + command.shift_o)
        # A sum of 0 is not negative: the engine keeps what `half` adds to it. The firmware does
        # not look at `half` then. It shows only if `half` is no less than the window's size, which
        # the static check refuses.
        if state.config.firmware:
            magnitude = np.where(total == 0, 0, magnitude)
        signed = np.where(total < 0, -magnitude, magnitude)
        result = _clamp(state, signed, command.act_min, command.act_max)
    elif op == VectorOp.MAX:
        result = _extreme(state, command, a)
    else:
        assert op == VectorOp.TABLE, f"{op.name} takes its A from the accumulator"
        table = state.chip[Space.TABLE]
        lane = np.arange(state.config.cols)[:, None]
        entry = (a[:, :, :, 0, 0] & 255) * state.config.cols + lane
        # Of every sample's own table, or of the one of all.
        place = entry * table.shape[1] + np.arange(table.shape[1])
        result = np.take(table.view(np.int8).reshape(-1), place)
    _write(state, vector_lines(command, "d"), result)


def requant_tile(state: MachineState, command: Vector, oc: int, tile: int, sums: AccTile) -> None:
    """Requantise one accumulator tile (REQUANT, REQUANT_ADD).

    Raises
    ------
    EngineFault
        PARAM_RANGE or ACT_RANGE with the byte address of the line beyond the memory.
    EmulatorError
        If the tile is not the one that the command expects, or a shift is beyond 31.
    """
    first = tile * command.tile_rows
    rows = min(command.tile_rows, command.out_h - first)
    if (sums.rows, sums.out_w) != (rows, command.out_w):
        raise EmulatorError(
            f"command tag {command.tag} expects a tile of {rows} rows of {command.out_w} vectors,"
            f" the array filled {sums.rows} rows of {sums.out_w}"
        )
    state.charge(Engine.VECTOR, rows * command.out_w)
    bias, multiplier, shift = _parameters(state, command, oc)
    # The tile's part of the command.
    part = replace(
        command,
        n_oc=1,
        out_h=rows,
        b_addr=command.b_addr + (0 if command.b_oc else oc) + first * command.b_y,
        d_addr=command.d_addr + oc + first * command.d_y,
    )
    shape = (rows, command.out_w, *sums.sums.shape[1:])
    # int32 addition wraps, as the engine's does.
    total = sums.sums.reshape(shape) + bias
    value = requantise(total, multiplier, shift, Rounding(command.rounding))
    value += command.zero_a
    if command.op == VectorOp.REQUANT:
        result = _clamp(state, value, command.act_min, command.act_max)
    else:
        a = _clamp(state, value, command.mid_min, command.mid_max).astype(np.int64)
        result = _of_two(state, command, a, _read_b(state, part)[0])
    _write(state, vector_lines(part, "d")[0], result)


def _parameters(
    state: MachineState, command: Vector, oc: int
) -> tuple[npt.NDArray[np.int32], Ints, Ints]:
    """Return biases, multipliers and shifts of a channel tile, ``[cols, samples or 1]`` each."""
    config = state.config
    line = command.param_addr + command.block_lines * oc
    if line + command.block_lines > config.param_lines:
        beyond = max(line, config.param_lines)
        raise EngineFault(ErrorCause.PARAM_RANGE, beyond * config.line_bytes)
    start = line * config.line_bytes
    # [samples or 1, bytes]: a sample's words are one after the other.
    block = state.chip[Space.PARAM][start : start + command.block_lines * config.line_bytes].T
    block = np.ascontiguousarray(block)
    words = 4 * config.cols
    if command.shared:
        ones = np.ones((config.cols, 1), np.int64)
        bias = block.view("<i4").T
        return bias, command.mult_a * ones, -command.shift_a * ones
    shift = block[:, 2 * words :].view(np.int8).astype(np.int64)
    if (np.abs(shift) > 31).any():
        raise EmulatorError(f"command tag {command.tag}: a shift parameter is beyond 31")
    return (
        block[:, :words].view("<i4").T,
        block[:, words : 2 * words].view("<i4").astype(np.int64).T,
        shift.T,
    )
