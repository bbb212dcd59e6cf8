"""What the emulated machine remembers, and the exceptions that its engines raise."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, Engine, Region, Space
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
        int32, ``[rows * out_w, cols, samples]``.
    rows, out_w : int
        Output rows of the tile and outputs of a row.
    """

    sums: npt.NDArray[np.int32]
    rows: int
    out_w: int


@dataclass
class MachineState:
    """The memories of the machine and the windows it has on system memory.

    The last axis of every memory is that of the samples: each command does the same for all of
    them. What is equal for all, as weights are, has one entry there until something of one sample
    is loaded.

    Parameters
    ----------
    config : NpuConfig
        The machine.
    memory : numpy.ndarray
        System memory, uint8, from bus address 0. With several samples it is what they share.
    samples : int
        Inferences that are run together.
    own : range, optional
        Bus addresses that each sample has for itself; without it there is one sample, whose
        memory is `memory`.

    Attributes
    ----------
    regions : dict
        Base and size in bytes of every region.
    own_memory : numpy.ndarray
        What is at the addresses `own`, uint8 ``[bytes, samples]``.
    chip : dict of Space to numpy.ndarray
        The memories on chip, uint8 ``[bytes, samples or 1]``.
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
    samples: int = 1
    own: range | None = None
    regions: dict[Region, tuple[int, int]] = field(init=False)
    own_memory: Bytes = field(init=False)
    chip: dict[Space, Bytes] = field(init=False)
    tiles: deque[AccTile] = field(init=False)
    held: AccTile | None = field(init=False, default=None)
    work_limit: int | None = field(init=False, default=None)
    work: dict[Engine, int] = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        assert self.own is not None or self.samples == 1, "several samples need memory of their own"
        self.regions = {region: (0, 0) for region in Region}
        self.own_memory = np.zeros((len(self.own or ()), self.samples), np.uint8)
        self.chip = {
            Space.ACT: np.zeros((config.act_bytes, self.samples), np.uint8),
            Space.WGT: np.zeros((config.wgt_bytes, 1), np.uint8),
            Space.PARAM: np.zeros((config.param_bytes, 1), np.uint8),
            Space.TABLE: np.zeros((TABLE_ENTRIES * config.cols, 1), np.uint8),
        }
        self.tiles = deque()
        self.work = dict.fromkeys(Engine, 0)

    @property
    def act(self) -> Bytes:
        """The first sample's activation SRAM, uint8 ``[act_bytes]``; a view."""
        return self.chip[Space.ACT][:, 0]

    @property
    def wgt(self) -> npt.NDArray[np.int8]:
        """The weight SRAM of a machine with one sample, int8 ``[wgt_lines, cols]``; a view."""
        return self.chip[Space.WGT].view(np.int8).reshape(self.config.wgt_lines, self.config.cols)

    @property
    def param(self) -> Bytes:
        """The first sample's parameter SRAM, uint8 ``[param_bytes]``; a view."""
        return self.chip[Space.PARAM][:, 0]

    @property
    def table(self) -> Bytes:
        """The look-up tables of a machine with one sample, uint8 ``[256, cols]``; a view."""
        return self.chip[Space.TABLE].reshape(TABLE_ENTRIES, self.config.cols)

    def lines(self) -> npt.NDArray[np.int8]:
        """Return the activation SRAM, int8 ``[act_lines, line_bytes, samples]``; a view."""
        config = self.config
        return self.chip[Space.ACT].view(np.int8).reshape(config.act_lines, config.line_bytes, -1)

    def window(self, region: Region) -> tuple[Bytes, int]:
        """Return the memory that a region is in, ``[bytes, samples or 1]``, and its first address.

        Raises
        ------
        EmulatorError
            If a part of the region is each sample's own and a part is not.
        """
        base, size = self.regions[region]
        if self.own is None or base + size <= self.own.start or base >= self.own.stop:
            return self.memory[:, None], 0
        if base < self.own.start or base + size > self.own.stop:
            raise EmulatorError(f"region {region.name} is not within the samples' own memory")
        return self.own_memory, self.own.start

    def widen(self, space: Space) -> Bytes:
        """Let every sample have a memory on chip for itself, from now on, and return it."""
        if self.chip[space].shape[1] < self.samples:
            self.chip[space] = np.repeat(self.chip[space], self.samples, axis=1)
        return self.chip[space]

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
