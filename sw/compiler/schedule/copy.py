"""The commands that copy a tensor from memory to memory, through the chip."""

from __future__ import annotations

from collections.abc import Iterator

from celosia.hw.contract.isa import Load, Space, Store
from celosia.sw.compiler.arithmetic.whole import split
from celosia.sw.compiler.place.layout import MemoryHome
from celosia.sw.compiler.steps import Footprint, Place, Step

__all__ = ["copy_steps"]


def copy_steps(
    source: MemoryHome,
    target: MemoryHome,
    total_bytes: int,
    buffer: tuple[int, int],
    layer: int,
) -> Iterator[Step]:
    """Yield the loads and stores that copy `total_bytes` dense bytes.

    Parameters
    ----------
    source, target : MemoryHome
        Where from and where to; both dense.
    total_bytes : int
        How much.
    buffer : (int, int)
        Byte address and size of a buffer in ACT.
    layer : int
        Index of the work.
    """
    address, size_bytes = buffer
    for first, end in split(total_bytes, size_bytes):
        chip = Footprint(Place.ACT, address, address + end - first)
        for kind, home in ((Load, source), (Store, target)):
            memory = Footprint(Place.of_region(home.region), home.offset + first, home.offset + end)
            command = kind(
                region=int(home.region),
                space=int(Space.ACT),
                mem_addr=home.offset + first,
                sram_addr=address,
                row_bytes=end - first,
            )
            reads, writes = ((memory,), (chip,)) if kind is Load else ((chip,), (memory,))
            yield Step(command=command, reads=reads, writes=writes, layer=layer)
