"""What the emulated machine remembers, and the exceptions that its engines raise."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, Engine, Region
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.contract.units import Unit

__all__ = [
    "AccTile",
    "MAX_COMMAND_ELEMENTS",
    "EmulatorError",
    "EmulatorFault",
    "EngineFault",
    "MachineState",
]

MAX_COMMAND_ELEMENTS = 1 << 22
"""Of what a step lists at once; the static check refuses programs that need more."""

Bytes = npt.NDArray[np.uint8]


class EmulatorError(RuntimeError):
    """A program that no machine could finish (deadlock), or that leaves the defined behaviour."""


class EmulatorFault(EmulatorError):  # noqa: N818 - the word of the register map is fault
    """The fault with which the hardware would stop the program.

    Parameters
    ----------
    cause : ErrorCause
        As register ``error_cause`` gives it.
    unit : int
        0 load, 1 store, 2 array, 3 vector, 4 fetch.
    tag : int
        Tag of the command in error.
    address : int
        System memory address or on-chip byte address; 0 where there is none.
    detail : str
        The reason in words.
    """

    def __init__(
        self, cause: ErrorCause, unit: int, tag: int, address: int, detail: str = ""
    ) -> None:
        super().__init__(
            f"{cause.name} in unit {unit}, command tag {tag}, address 0x{address:x}"
            + (f": {detail}" if detail else "")
        )
        self.cause = cause
        self.unit = unit
        self.tag = tag
        self.address = address
        self.detail = detail


class EngineFault(Exception):  # noqa: N818
    """Raised inside an engine; the scheduler adds unit and tag and makes an `EmulatorFault`."""

    def __init__(self, cause: ErrorCause, address: int = 0, detail: str = "") -> None:
        super().__init__(cause, address, detail)
        self.cause = cause
        self.address = address
        self.detail = detail


@dataclass(frozen=True)
class AccTile:
    """One filled half of the accumulator.

    Parameters
    ----------
    sums : numpy.ndarray
        int32, ``[rows * out_w, cols]``.
    rows, out_w : int
        Output rows of the tile and outputs of a row.
    """

    sums: npt.NDArray[np.int32]
    rows: int
    out_w: int


@dataclass
class MachineState:
    """The memories of the machine and the windows it has on system memory.

    Attributes
    ----------
    memory : numpy.ndarray
        System memory, uint8, from bus address 0.
    regions : dict
        Base and size in bytes of every region.
    act : numpy.ndarray
        Activation SRAM, uint8 ``[act_bytes]``.
    wgt : numpy.ndarray
        Weight SRAM, int8 ``[wgt_lines, cols]``.
    param : numpy.ndarray
        Parameter SRAM, uint8 ``[param_bytes]``.
    table : numpy.ndarray
        Look-up tables, uint8 ``[256, cols]``.
    tiles : collections.deque
        Full halves of the accumulator, oldest first; with `held` at most two.
    held : AccTile or None
        The half that a `Conv` with `hold` has kept for the next one.
    work_limit : int or None
        Cycles that an engine may take in a run; None: no limit.
    work : dict of Engine to int
        Cycles that each has taken at least, whatever the memory does: vectors, windows, words.
    """

    config: NpuConfig
    memory: Bytes
    regions: dict[Region, tuple[int, int]] = field(init=False)
    act: Bytes = field(init=False)
    wgt: npt.NDArray[np.int8] = field(init=False)
    param: Bytes = field(init=False)
    table: Bytes = field(init=False)
    tiles: deque[AccTile] = field(init=False)
    held: AccTile | None = field(init=False, default=None)
    work_limit: int | None = field(init=False, default=None)
    work: dict[Engine, int] = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        self.regions = {region: (0, 0) for region in Region}
        self.act = np.zeros(config.act_bytes, np.uint8)
        self.wgt = np.zeros((config.wgt_lines, config.cols), np.int8)
        self.param = np.zeros(config.param_bytes, np.uint8)
        self.table = np.zeros((TABLE_ENTRIES, config.cols), np.uint8)
        self.tiles = deque()
        self.work = dict.fromkeys(Engine, 0)

    def charge(self, engine: Engine, cycles: int) -> None:
        """Count cycles that an engine takes at least; no engine may take more than the limit.

        Raises
        ------
        EmulatorFault
            WATCHDOG, as the hardware's would by then.
        """
        self.work[engine] += cycles
        if self.work_limit is not None and self.work[engine] > self.work_limit:
            raise EmulatorFault(
                ErrorCause.WATCHDOG,
                Unit.FETCH,
                0,
                0,
                f"engine {engine.name} takes more than {self.work_limit} cycles",
            )
