"""How many samples the emulator runs at once: as many as fit in a bounded amount of memory."""

from __future__ import annotations

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Command, Conv, IsaError, Mode, Vector

__all__ = ["GROUP_BYTES", "MOST_SAMPLES", "samples_at_once"]

GROUP_BYTES = 1 << 26
"""Of a group's memories and of what its widest step lists; one sample may take more."""
MOST_SAMPLES = 128
"""With more, a command's own time is little beside that of its samples already."""
_VECTOR_BYTES = 24
"""Of an element of a vector operation: two operands and a result, int64."""
_WINDOW_BYTES = 5
"""Of an element of a window: int8, then float32."""
_PIXEL_BYTES = 4
"""Of an element of TAPS and ROWS: int16, and its product."""


def samples_at_once(config: NpuConfig, commands: bytes, own_bytes: int) -> int:
    """Return how many samples of a program are run together, 1 to `MOST_SAMPLES`.

    Parameters
    ----------
    config : NpuConfig
        The machine.
    commands : bytes
        The program.
    own_bytes : int
        System memory that each sample has for itself.
    """
    stream = (
        Command.decode(commands[start : start + COMMAND_BYTES])
        for start in range(0, len(commands), COMMAND_BYTES)
    )
    try:
        widest = max((_step_bytes(config, command) for command in stream), default=0)
    except IsaError:
        return 1  # a run says what is wrong
    one = config.act_bytes + own_bytes + widest
    return max(1, min(MOST_SAMPLES, GROUP_BYTES // one))


def _step_bytes(config: NpuConfig, command: Command) -> int:
    """Return what a step of a command lists of one sample."""
    if isinstance(command, Conv):
        positions = command.tile_rows * command.row_len + command.extra
        if Mode(command.mode).windows:
            return positions * config.rows * _WINDOW_BYTES
        segments = 1 if command.mode == Mode.TAPS else config.dw_segments
        return positions * segments * config.cols * _PIXEL_BYTES
    if isinstance(command, Vector):
        rows, tiles = command.out_h, command.n_oc
        if command.reads_acc:
            rows, tiles = command.tile_rows, 1
        window = command.n_ky * command.n_kx
        return tiles * rows * command.out_w * window * config.cols * _VECTOR_BYTES
    return 0
