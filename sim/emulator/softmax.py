"""The softmax sequencer of the emulator; arithmetic as in docs/arithmetic.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import softmax_lines
from celosia.hw.contract.isa import TABLE_ENTRIES, Engine, Softmax, Space
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.state import EngineFault, MachineState

__all__ = ["softmax"]

Ints = npt.NDArray[np.int64]

_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_48_OVER_17 = 1515870810
_NEG_32_OVER_17 = -1010580540
_ACCUMULATION_INTEGER_BITS = 12


def _wrap(values: Ints) -> Ints:
    return values.astype(np.int32).astype(np.int64)


def _saturate(values: Ints) -> Ints:
    return np.minimum(np.maximum(values, _INT32_MIN), _INT32_MAX)


def _srdhm(a: Ints, b: Ints | int) -> Ints:
    return _saturate((a * b + (1 << 30)) >> 31)


def _rdbp(values: Ints, exponent: Ints | int) -> Ints:
    """Divide by 2^exponent, at least 2, halves away from zero."""
    return (values + (np.int64(1) << (exponent - 1)) - (values < 0)) >> exponent


def _scale_of(total: Ints) -> tuple[Ints, Ints]:
    """Return 1 / total (Q0.31, normalised) and the number of leading zeros of total."""
    leading = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    x = _wrap((total << leading) + _INT32_MIN)
    half_denominator = (x + _INT32_MAX + 1) >> 1
    r = _wrap(_48_OVER_17 + _srdhm(half_denominator, _NEG_32_OVER_17))
    for _ in range(3):
        error = _wrap((1 << 29) - _srdhm(half_denominator, r))
        r = _wrap(r + _saturate(_srdhm(r, error) << 2))
    return _saturate(r << 1), leading


def softmax(state: MachineState, command: Softmax) -> None:
    """Carry out a `Softmax`; bytes of the last line beyond `channels` keep their value.

    Raises
    ------
    EngineFault
        ACT_RANGE with the byte address of the line beyond the memory.
    """
    line_bytes = state.config.line_bytes
    exponentials = _exponentials(state)
    memory = state.lines()
    for row in range(command.n_rows):
        one = replace(
            command,
            n_rows=1,
            a_addr=command.a_addr + row * command.a_y,
            d_addr=command.d_addr + row * command.d_y,
        )
        source, target = (softmax_lines(one, line_bytes, operand)[0] for operand in "ad")
        # In the order in time: a vector is read, then written.
        lines = np.concatenate([source, target])
        bad = lines >= state.config.act_lines
        if bad.any():
            raise EngineFault(ErrorCause.ACT_RANGE, int(lines[int(bad.argmax())]) * line_bytes)
        state.charge(Engine.VECTOR, command.channels)
        values = memory[source].reshape(-1, state.samples)[: command.channels]
        keep = memory[target].reshape(-1, state.samples)
        keep[: command.channels] = _softmax_row(values.astype(np.int64), exponentials)
        memory[target] = keep.reshape(-1, line_bytes, state.samples)


def _exponentials(state: MachineState) -> npt.NDArray[np.int32]:
    """Return the 32-bit entries of the table, ``[256, samples or 1]``."""
    table = state.chip[Space.TABLE].reshape(TABLE_ENTRIES, state.config.cols, -1)[:, :4]
    return np.ascontiguousarray(table.swapaxes(1, 2)).view("<i4")[..., 0]


def _softmax_row(values: Ints, exponentials: npt.NDArray[np.int32]) -> npt.NDArray[np.int8]:
    """Return one vector of every sample, ``[channels, samples]``."""
    distance = values.max(axis=0) - values
    elements = np.take_along_axis(exponentials, distance, axis=0).astype(np.int64)
    total = _rdbp(elements, _ACCUMULATION_INTEGER_BITS).sum(axis=0) % (1 << 32)
    scale, leading = _scale_of(total)
    shift = (_ACCUMULATION_INTEGER_BITS - leading) + 31 - 8
    results = _rdbp(_srdhm(scale, elements), shift) - 128
    return np.clip(results, -128, 127).astype(np.int8)
