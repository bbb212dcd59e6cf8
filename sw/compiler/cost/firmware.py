"""Predicts the cycles of a machine with firmware, where commands run one after another.

What a command takes is a sum over its loops. The constants are the cycles of the firmware's loops
(two an instruction), fitted to the counters of the RTL (docs/firmware.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from celosia.hw.contract.config import FIRMWARE_OPERATIONS, NpuConfig
from celosia.hw.contract.isa import (
    COMMAND_BYTES,
    Command,
    Conv,
    Mode,
    Softmax,
    Transfer,
    Vector,
    VectorOp,
)
from celosia.hw.contract.needed import operation_of
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.cost.times import CommandTimes, MemoryTiming, Prediction

__all__ = ["FEATURE_CYCLES", "features_of", "predict_firmware"]

ROWS_TAPS = 3
WORD_BYTES = 4
TAP_CYCLES = 6
"""Beside its windows: to read the weights, and to let the last sum be written."""
ROW_CYCLES = 66
"""Of the firmware for a row, while the array works on the one before."""

COMMAND_WORDS = COMMAND_BYTES // WORD_BYTES
START_CYCLES = 2483
"""From the doorbell to the first command."""

FEATURE_CYCLES = {
    "command": 1910,
    "transfer_loaded": 448,
    "run_loaded": 151,
    "word_loaded": 37,
    "byte_loaded": 30,
    "byte_skipped": 9,
    "word_of_bytes": 48,
    "transfer_stored": 449,
    "run_stored": 146,
    "word_stored": 41,
    "byte_stored": 54,
    "turn": 32,
    "conv": 734,
    "conv_tile": 203,
    "conv_pass": 92,
    "conv_row": 1,
    "conv_tap": 84,
    "conv_far": 130,
    "vector": 722,
    "vector_tile": 48,
    "vector_channel": 192,
    "vector_row": 77,
    "requant": 50,
    "requant_add": 256,
    "add": 199,
    "average": 179,
    "max": 151,
    "window": 29,
    "table": 78,
    "softmax_row": 592,
    "softmax_element": 224,
}
"""Cycles of each thing that :func:`features_of` counts."""

_ELEMENT = {op: op.name.lower() for op in VectorOp}


def features_of(command: Command, config: NpuConfig) -> dict[str, float]:
    """Return how often a command does what :data:`FEATURE_CYCLES` has the cycles of."""
    counts: dict[str, float] = {"command": 1}
    if isinstance(command, Transfer):
        counts |= _transfer(command)
    elif isinstance(command, Conv):
        counts |= _conv(command, config)
    elif isinstance(command, Vector):
        counts |= _vector(command, config)
    else:
        assert isinstance(command, Softmax)
        elements = command.n_rows * command.channels
        counts |= {"softmax_row": command.n_rows, "softmax_element": elements}
    return counts


def _transfer(transfer: Transfer) -> dict[str, float]:
    # A run is copied word by word if both its places and its length are whole words.
    inner = np.arange(transfer.n1)[None, :]
    outer = np.arange(transfer.n2)[:, None]
    memory = transfer.mem_addr + inner * transfer.mem_stride1 + outer * transfer.mem_stride2
    chip = transfer.sram_addr + inner * transfer.sram_stride1 + outer * transfer.sram_stride2
    odd = (memory | chip | transfer.row_bytes) % WORD_BYTES != 0
    runs, words = transfer.n1 * transfer.n2, transfer.row_bytes // WORD_BYTES
    if transfer.OPCODE >> 4 != 1:
        return {
            "transfer_stored": 1,
            "turn": transfer.n2,
            "run_stored": runs,
            "word_stored": int((~odd).sum()) * words,
            "byte_stored": int(odd.sum()) * transfer.row_bytes,
        }
    # Bytes come out of words; the first one may begin with some that are not wanted.
    skipped = memory % WORD_BYTES
    return {
        "transfer_loaded": 1,
        "turn": transfer.n2,
        "run_loaded": runs,
        "word_loaded": int((~odd).sum()) * words,
        "byte_loaded": int(odd.sum()) * transfer.row_bytes,
        "byte_skipped": int((skipped * odd).sum()),
        "word_of_bytes": int((((skipped + transfer.row_bytes + 3) // WORD_BYTES) * odd).sum()),
    }


def _conv(conv: Conv, config: NpuConfig) -> dict[str, float]:
    taps, n_ic, n_kx = config.rows, conv.n_ic, conv.n_kx
    if conv.mode == Mode.WINDOW:
        # Passes that follow one another along a row of bytes are one.
        if n_ic == 1 or conv.step_ic == taps:
            taps, n_ic = taps * n_ic, 1
            if n_kx == 1 or conv.step_kx == taps:
                taps, n_kx = taps * n_kx, 1
    elif conv.mode == Mode.ROWS:
        taps = ROWS_TAPS
    tiles = conv.n_oc * ceil_div(conv.out_h, conv.tile_rows)
    passes = conv.n_ky * n_kx * n_ic
    rows = conv.n_oc * conv.out_h * passes
    far = [0] * taps
    if conv.mode != Mode.WINDOW:
        for tap in range(taps):
            last = (conv.out_w - 1) * conv.stride_x + tap - conv.row_len
            far[tap] = 0 if last < 0 else min(conv.out_w, last // conv.stride_x + 1)
    counts: dict[str, float] = {"conv": 1, "conv_tile": tiles, "conv_pass": tiles * passes}
    if any(far):
        counts["conv_tap"] = rows * taps
        counts["conv_far"] = rows * sum(far)
        counts["conv_row"] = rows * (taps * conv.out_w)
    else:
        counts["conv_row"] = rows * max(ROW_CYCLES, taps * (conv.out_w + TAP_CYCLES) + 20)
    return counts


def _vector(vector: Vector, config: NpuConfig) -> dict[str, float]:
    tile_rows = vector.out_h
    op = VectorOp(vector.op)
    if op.reads_acc:
        tile_rows = vector.tile_rows
    tiles = vector.n_oc * ceil_div(vector.out_h, tile_rows)
    elements = vector.n_oc * vector.out_h * vector.out_w * config.cols
    return {
        "vector": 1,
        "vector_tile": tiles,
        "vector_channel": tiles * config.cols,
        "vector_row": vector.n_oc * vector.out_h * config.cols,
        # What there is no firmware for is refused: it takes no time.
        **({_ELEMENT[op]: elements} if operation_of(op).name in FIRMWARE_OPERATIONS else {}),
        "window": elements * (vector.n_ky * vector.n_kx - 1),
    }


def predict_firmware(
    commands: Sequence[Command], config: NpuConfig, memory: MemoryTiming
) -> Prediction:
    """Add up a program's commands.

    Parameters and result are those of :func:`celosia.sw.compiler.cost.engines.predict`.
    """
    late = memory.latency_cycles - MemoryTiming().latency_cycles
    times = []
    now = START_CYCLES
    for command in commands:
        counts = features_of(command, config)
        cycles = sum(FEATURE_CYCLES[name] * count for name, count in counts.items())
        words = COMMAND_WORDS + sum(
            counts.get(name, 0)
            for name in (
                "word_loaded",
                "word_stored",
                "byte_stored",
                "word_of_bytes",
            )
        )
        cycles += max(late, -5) * words
        times.append(CommandTimes(now, now + round(cycles)))
        now += round(cycles)
    return Prediction(times, now)
