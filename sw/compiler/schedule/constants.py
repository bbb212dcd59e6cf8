"""Constants in system memory, and the rings that they are loaded into.

Region CONST holds weights and parameters in the order in which they are first loaded. WGT and
PARAM are filled like rings: each block goes behind the last one, or to the start when it would run
over the end. What it overwrites there is the oldest; the commands that still read it come
before the load in program order, so tokens hold the load back until they are done.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Load, Region, Space
from celosia.sw.compiler.arithmetic.whole import round_up
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["ConstantPool", "Ring", "constant_load"]


class ConstantPool:
    """The bytes of region CONST; each block is stored once, under a key."""

    def __init__(self, alignment_bytes: int) -> None:
        self._alignment_bytes = alignment_bytes
        self._data = bytearray()
        self._places: dict[Hashable, tuple[int, int]] = {}

    def place(self, key: Hashable, content: Callable[[], bytes]) -> tuple[int, int]:
        """Return offset and size of a block; `content` makes it when the key is new."""
        if key not in self._places:
            data = content()
            offset = len(self._data)
            self._data += data + bytes(-len(data) % self._alignment_bytes)
            self._places[key] = (offset, len(data))
        return self._places[key]

    @property
    def data(self) -> bytes:
        """All blocks, in order of their first use."""
        return bytes(self._data)


class Ring:
    """Addresses in a memory that is written round and round; blocks are never cut in two."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._next = 0

    def take(self, size_bytes: int) -> int:
        """Return the address of a new block.

        Every block taken since the ring last held less than its capacity stays valid as long as
        their sizes add up, see `reserve`.
        """
        assert size_bytes <= self.capacity_bytes, "a block larger than its memory"
        if self._next + size_bytes > self.capacity_bytes:
            self._next = 0
        address = self._next
        self._next += size_bytes
        return address

    def reserve(self, size_bytes: int) -> None:
        """Make blocks of together `size_bytes`, taken next, lie one behind the other."""
        assert size_bytes <= self.capacity_bytes, "blocks larger than their memory"
        if self._next + size_bytes > self.capacity_bytes:
            self._next = 0


def constant_load(
    space: Space, address: int, offset: int, size_bytes: int, layer: int, config: NpuConfig
) -> Step:
    """Return the command that loads a block of constants."""
    size_bytes = round_up(size_bytes, config.bus_bytes)
    command = Load(
        region=int(Region.CONST),
        space=int(space),
        mem_addr=offset,
        sram_addr=address,
        row_bytes=size_bytes,
    )
    written = Footprint(Place.of_space(space), address, address + size_bytes)
    return Step(command=command, reads=(), writes=(written,), layer=layer)
