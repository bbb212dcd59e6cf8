"""Which bytes each command reads and writes, as exact sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.addresses import (
    conv_own_bytes,
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

BLOCK_POSITIONS = 1 << 16
"""Positions of a `Conv` that are looked at together."""


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
        few, many = sorted((self, other), key=lambda access: len(access.starts))
        # The interval of the many that could reach into each of the few: the first to end after
        # that one begins.
        index = np.searchsorted(many.ends, few.starts, side="right")
        within = index < len(many.ends)
        return bool((many.starts[index[within]] < few.ends[within]).any())


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
    n_passes = conv.n_oc * conv.n_ky * conv.n_kx * conv.n_ic
    first = conv.wgt_addr * config.line_bytes
    weights = np.array([first], np.int64)
    yield _runs("WGT", False, weights, n_passes * config.rows * config.line_bytes)
    # Commands for groups of channels read the same activations.
    yield _conv_reads(
        replace(conv, wait=0, signal=0, tag=0, wgt_addr=0, hold=0, accumulate=0), config
    )


@lru_cache(maxsize=256)
def _conv_reads(conv: Conv, config: NpuConfig) -> Access:
    """Return what a `Conv` reads of ACT."""
    passes = conv_passes(conv)
    own = conv_own_bytes(conv, passes, config.rows)
    touched = _Touched(config.act_bytes)
    for tile in range(conv_tiles(conv)):
        stream = conv_stream(conv, 0, tile)
        step = max(1, BLOCK_POSITIONS // len(stream.address))
        for begin in range(0, len(passes.address), step):
            some = slice(begin, begin + step)
            address = np.add.outer(passes.address[some], stream.address).ravel()
            row = np.add.outer(passes.row[some], stream.row).ravel()
            x = np.add.outer(passes.x[some], stream.x).ravel()
            if Mode(conv.mode).windows:
                ends = np.repeat(own[some], len(stream.address))
                _touch_windows(touched, conv, config, (address, row, x), 0, ends)
                if conv.mode == Mode.JOINED:
                    below = address + conv.row_pitch, row + 1, x - conv.step_kx
                    _touch_windows(touched, conv, config, below, ends, config.rows)
            else:
                _touch_pixels(touched, conv, config, address, row, x)
    bytes_read = touched.repeated(conv.n_oc, conv.step_oc)
    framed = np.concatenate([[False], bytes_read, [False]])
    edges = np.flatnonzero(framed[1:] != framed[:-1])
    return Access("ACT", False, edges[::2], edges[1::2], after_first=True)


class _Touched:
    """The bytes of ACT that reads touch, as masks, so that a layer costs its bytes, not its reads.

    Parameters
    ----------
    size : int
        Bytes of the memory. Masks grow to the whole address space, whose addresses wrap, when
        something beyond the memory is touched.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._starts: dict[int, npt.NDArray[np.bool_]] = {}
        """By the length of a read: whether one begins at an address."""

    def add(self, address: Ints, length: int) -> None:
        """Touch `length` bytes from each address on."""
        if not len(address):
            return
        address = address & ADDRESS_MASK
        if int(address.max()) + length > self._size:
            self._grow()
        if length not in self._starts:
            self._starts[length] = np.zeros(self._size, np.bool_)
        self._starts[length][address] = True

    def repeated(self, count: int, step: int) -> npt.NDArray[np.bool_]:
        """Return whether each byte is touched if all is done `count` times, `step` bytes apart."""
        found = self._bytes()
        last = np.flatnonzero(found)[-1:]
        if step and len(last) and int(last[0]) + (count - 1) * step >= self._size:
            self._grow()
            found = self._bytes()
        once = found.copy()
        for turn in range(1, count if step else 1):
            found |= np.roll(once, turn * step)
        return found

    def _bytes(self) -> npt.NDArray[np.bool_]:
        found = np.zeros(self._size, np.bool_)
        for length, mask in self._starts.items():
            wide, width = mask.copy(), 1
            while width < length:
                step = min(width, length - width)
                wide |= np.roll(wide, step)
                width += step
            found |= wide
        return found

    def _grow(self) -> None:
        more = ADDRESS_MASK + 1 - self._size
        self._size += more
        self._starts = {length: np.pad(mask, (0, more)) for length, mask in self._starts.items()}


def _touch_windows(
    touched: _Touched,
    conv: Conv,
    config: NpuConfig,
    windows: tuple[Ints, Ints, Ints],
    begin: Ints | int,
    end: Ints | int,
) -> None:
    """Touch bytes `begin` to `end` - 1 of windows that have an address, a row and an x."""
    address, row, x = windows
    inside = (row >= 0) & (row < conv.in_h)
    first = np.maximum(x + begin, 0)
    length = np.where(inside, np.minimum(x + end, conv.row_bytes) - first, 0)
    begins = address + first - x
    for size in range(1, config.rows + 1):
        touched.add(begins[length == size], size)


def _touch_pixels(
    touched: _Touched, conv: Conv, config: NpuConfig, address: Ints, row: Ints, x: Ints
) -> None:
    inside_row = (x >= 0) & (x < conv.row_bytes)
    segments = 1 if conv.mode == Mode.TAPS else min(config.dw_segments, max(conv.ky_rows, 1))
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
        touched.add(place[inside] & -config.line_bytes, config.line_bytes)


def _vector(vector: Vector, config: NpuConfig) -> Iterator[Access]:
    op = VectorOp(vector.op)
    if op.reads_acc:
        blocks = vector.block_lines * np.arange(vector.n_oc, dtype=np.int64)
        block_bytes = vector.block_lines * config.line_bytes
        starts = (vector.param_addr + blocks) * config.line_bytes
        yield _runs("PARAM", False, starts, block_bytes)
    else:
        yield _lines("ACT", False, vector_lines(vector, "a"), config)
    if vector.has_b:
        yield _lines("ACT", False, vector_lines(vector, "b"), config)
    if op.reads_table:
        yield _lines("TABLE", False, np.arange(TABLE_ENTRIES, dtype=np.int64), config)
    yield _lines("ACT", True, vector_lines(vector, "d"), config, after_first=op.reads_acc)


def _softmax(softmax: Softmax, config: NpuConfig) -> Iterator[Access]:
    size = config.line_bytes
    yield _lines("ACT", False, softmax_lines(softmax, size, "a"), config)
    yield _lines("TABLE", False, np.arange(TABLE_ENTRIES, dtype=np.int64), config)
    yield _lines("ACT", True, softmax_lines(softmax, size, "d"), config)
