"""Which bytes each command reads and writes, as exact sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import (
    conv_passes,
    conv_stream,
    conv_tiles,
    softmax_lines,
    transfer_runs,
    vector_lines,
)
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import (
    ADDRESS_MASK,
    TABLE_ENTRIES,
    Command,
    Conv,
    Load,
    Mode,
    Region,
    Softmax,
    Space,
    Transfer,
    Vector,
    VectorOp,
)

__all__ = ["Access", "OutOfRangeError", "accesses", "memory_bytes"]

Ints = npt.NDArray[np.int64]


class OutOfRangeError(Exception):
    """A command leaves a memory; the text says where."""


@dataclass(frozen=True)
class Access:
    """One set of bytes that a command reads or writes.

    Parameters
    ----------
    memory : str
        Name of a `Space` or a `Region`.
    write : bool
        Whether the bytes are written.
    starts, ends : numpy.ndarray
        int64, sorted, disjoint intervals, ends not included.
    after_first : bool
        Whether the access waits for the command's accumulator half.
    """

    memory: str
    write: bool
    starts: Ints
    ends: Ints
    after_first: bool = False

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """First byte and the byte after the last."""
        return int(self.starts[0]), int(self.ends[-1])

    def overlaps(self, other: Access) -> bool:
        """Return whether both have a byte in common."""
        # The interval of `other` that could reach into each of ours: the first to end after
        # ours begins.
        index = np.searchsorted(other.ends, self.starts, side="right")
        within = index < len(other.ends)
        return bool((other.starts[index[within]] < self.ends[within]).any())


def memory_bytes(config: NpuConfig) -> dict[str, int]:
    """Return the sizes of the on-chip memories by the names of `Space`."""
    return {
        Space.ACT.name: config.act_bytes,
        Space.WGT.name: config.wgt_bytes,
        Space.PARAM.name: config.param_bytes,
        Space.TABLE.name: TABLE_ENTRIES * config.line_bytes,
    }


def accesses(command: Command, config: NpuConfig) -> list[Access]:
    """Return all accesses of a command.

    Raises
    ------
    OutOfRangeError
        If it leaves an on-chip memory or meets a bank conflict. Regions are not checked here.
    """
    found: Iterator[Access] = iter(())
    if isinstance(command, Transfer):
        found = _transfer(command)
    elif isinstance(command, Conv):
        found = _conv(command, config)
    elif isinstance(command, Vector):
        found = _vector(command, config)
    elif isinstance(command, Softmax):
        found = _softmax(command, config)
    result = [access for access in found if len(access.starts)]
    sizes = memory_bytes(config)
    for access in result:
        size = sizes.get(access.memory)
        if size is not None and access.bounds[1] > size:
            verb = "writes" if access.write else "reads"
            raise OutOfRangeError(
                f"{verb} {access.memory} up to byte {access.bounds[1]}, it has {size}"
            )
    return result


def _runs(memory: str, write: bool, starts: Ints, length: int, after_first: bool = False) -> Access:
    """Merge runs of equal length."""
    ordered = np.unique(starts)
    if not len(ordered):
        return Access(memory, write, ordered, ordered, after_first)
    new = np.concatenate([[True], ordered[1:] > ordered[:-1] + length])
    last = np.concatenate([new[1:], [True]])
    return Access(memory, write, ordered[new], ordered[last] + length, after_first)


def _lines(
    memory: str, write: bool, lines: Ints, config: NpuConfig, after_first: bool = False
) -> Access:
    size = config.line_bytes
    return _runs(memory, write, lines.ravel() * size, size, after_first)


def _transfer(transfer: Transfer) -> Iterator[Access]:
    memory, chip = transfer_runs(transfer)
    is_load = isinstance(transfer, Load)
    length = transfer.row_bytes
    yield _runs(Region(transfer.region).name, not is_load, memory, length)
    yield _runs(Space(transfer.space).name, is_load, chip, length)


def _conv(conv: Conv, config: NpuConfig) -> Iterator[Access]:
    passes = conv_passes(conv)
    n_passes = conv.n_oc * len(passes.address)
    first = conv.wgt_addr * config.line_bytes
    weights = np.array([first], np.int64)
    yield _runs("WGT", False, weights, n_passes * config.rows * config.line_bytes)
    # A mask of the 20-bit address space, so that a layer costs its bytes and not its reads.
    touched = np.zeros(ADDRESS_MASK + 1, np.bool_)
    for tile in range(conv_tiles(conv)):
        stream = conv_stream(conv, 0, tile)
        for index in range(len(passes.address)):
            address = stream.address + passes.address[index]
            row = stream.row + passes.row[index]
            x = stream.x + passes.x[index]
            if conv.mode == Mode.WINDOW:
                _touch_windows(touched, conv, config, address, row, x)
            else:
                _touch_pixels(touched, conv, config, address, row, x)
    if conv.step_oc:
        base = touched.copy()
        for oc in range(1, conv.n_oc):
            touched |= np.roll(base, oc * conv.step_oc)
    framed = np.concatenate([[False], touched, [False]])
    edges = np.flatnonzero(framed[1:] != framed[:-1])
    yield Access("ACT", False, edges[::2], edges[1::2], after_first=True)


def _touch_windows(
    touched: npt.NDArray[np.bool_], conv: Conv, config: NpuConfig, address: Ints, row: Ints, x: Ints
) -> None:
    inside = (row >= 0) & (row < conv.in_h)
    for byte in range(config.rows):
        used = inside & (x + byte >= 0) & (x + byte < conv.row_bytes)
        touched[(address[used] + byte) & ADDRESS_MASK] = True


def _touch_pixels(
    touched: npt.NDArray[np.bool_], conv: Conv, config: NpuConfig, address: Ints, row: Ints, x: Ints
) -> None:
    inside_row = (x >= 0) & (x < conv.row_bytes)
    segments = 1 if conv.mode == Mode.TAPS else config.dw_segments
    banks: list[tuple[Ints, npt.NDArray[np.bool_]]] = []
    for segment in range(segments):
        inside = inside_row & (row + segment >= 0) & (row + segment < conv.in_h)
        place = (address + segment * conv.row_pitch) & ADDRESS_MASK
        if (place[inside] % config.line_bytes).any():
            raise OutOfRangeError("a pixel does not begin on a line")
        bank = place // config.line_bytes % config.act_banks
        for other, other_inside in banks:
            if ((bank == other) & inside & other_inside).any():
                raise OutOfRangeError("two kernel rows are in the same bank: BANK_CONFLICT")
        banks.append((bank, inside))
        lines = place[inside] & -config.line_bytes
        for byte in range(config.line_bytes):
            touched[lines + byte] = True


def _vector(vector: Vector, config: NpuConfig) -> Iterator[Access]:
    op = VectorOp(vector.op)
    if op.reads_acc:
        blocks = vector.block_lines * np.arange(vector.n_oc, dtype=np.int64)
        block_bytes = vector.block_lines * config.line_bytes
        starts = (vector.param_addr + blocks) * config.line_bytes
        yield _runs("PARAM", False, starts, block_bytes)
    else:
        yield _lines("ACT", False, vector_lines(vector, "a"), config)
    if op.has_b:
        yield _lines("ACT", False, vector_lines(vector, "b"), config)
    if op.reads_table:
        yield _lines("TABLE", False, np.arange(TABLE_ENTRIES, dtype=np.int64), config)
    yield _lines("ACT", True, vector_lines(vector, "d"), config, after_first=op.reads_acc)


def _softmax(softmax: Softmax, config: NpuConfig) -> Iterator[Access]:
    size = config.line_bytes
    yield _lines("ACT", False, softmax_lines(softmax, size, "a"), config)
    yield _lines("TABLE", False, np.arange(TABLE_ENTRIES, dtype=np.int64), config)
    yield _lines("ACT", True, softmax_lines(softmax, size, "d"), config)
