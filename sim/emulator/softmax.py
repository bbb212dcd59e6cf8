"""The softmax sequencer of the emulator; arithmetic as in docs/arithmetic.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import softmax_lines
from celosia.hw.contract.isa import Engine, Softmax
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.state import EngineFault, MachineState

__all__ = ["softmax"]

_INT32_MIN, _INT32_MAX = -(1 << 31), (1 << 31) - 1
_48_OVER_17 = 1515870810
_NEG_32_OVER_17 = -1010580540
_ACCUMULATION_INTEGER_BITS = 12


def _wrap(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _saturate(value: int) -> int:
    return min(max(value, _INT32_MIN), _INT32_MAX)


def _srdhm(a: int, b: int) -> int:
    return _saturate((a * b + (1 << 30)) >> 31)


def _rdbp(value: int, exponent: int) -> int:
    if exponent == 0:
        return value
    return (value + (1 << (exponent - 1)) - (value < 0)) >> exponent


def _scale_of(total: int) -> tuple[int, int]:
    """Return 1 / total (Q0.31, normalised) and the number of leading zeros of total."""
    leading = 32 - total.bit_length()
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
    exponentials = np.ascontiguousarray(state.table[:, :4]).view("<i4").ravel()
    memory = state.act.view(np.int8).reshape(-1, line_bytes)
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
        values = memory[source].ravel()
        values[: command.channels] = _softmax_row(values[: command.channels], exponentials)
        keep = memory[target].ravel()
        keep[: command.channels] = values[: command.channels]
        memory[target] = keep.reshape(-1, line_bytes)


def _softmax_row(
    values: npt.NDArray[np.int8], exponentials: npt.NDArray[np.int32]
) -> npt.NDArray[np.int8]:
    wide = values.astype(np.int64)
    elements = [int(e) for e in exponentials[wide.max() - wide]]
    total = sum(_rdbp(e, _ACCUMULATION_INTEGER_BITS) for e in elements) % (1 << 32)
    scale, leading = _scale_of(total)
    shift = (_ACCUMULATION_INTEGER_BITS - leading) + 31 - 8
    results = [_rdbp(_srdhm(scale, e), shift) - 128 for e in elements]
    return np.clip(results, -128, 127).astype(np.int8)
