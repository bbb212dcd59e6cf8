"""Weights that stay on chip from run to run: where they are, and the commands that bring them once.

What stays is at the end of the weight memory; what crosses the bus in every run goes round in what
is left in front of it (`constants.Ring`). A layer stays with its first channel tiles: all of them,
or as many as there is room for. Parameters do not stay: they are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Space
from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.schedule.constants import ConstantPool, constant_load
from celosia.sw.compiler.steps import Step

__all__ = ["Resident", "ResidentWeights"]


@dataclass(frozen=True, kw_only=True)
class Resident:
    """Channel tiles of a layer that stay, from the first one on.

    Attributes
    ----------
    layer : int
        Index of the work.
    tiles : int
        How many.
    tile_bytes : int
        Of the weights of each.
    """

    layer: int
    tiles: int
    tile_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the weight memory."""
        return self.tiles * self.tile_bytes


class ResidentWeights:
    """Where the weights are that stay, and the loads that fill them.

    Parameters
    ----------
    residents : sequence of Resident
        What stays.
    pool : ConstantPool
        Where the constants go.
    config : NpuConfig
        The machine.

    Attributes
    ----------
    room_bytes : int
        What is left of the weight memory.
    steps : list of Step
        Loads of the layers that have been asked for; they run once.
    """

    def __init__(
        self, residents: Sequence[Resident], pool: ConstantPool, config: NpuConfig
    ) -> None:
        self._pool, self._config = pool, config
        self._places: dict[int, tuple[Resident, int]] = {}
        address = config.wgt_bytes
        for resident in residents:
            address -= resident.size_bytes
            self._places[resident.layer] = resident, address
        assert address >= 0, "more stays than there is room for"
        self.room_bytes = address
        self.steps: list[Step] = []
        self._filled: set[int] = set()

    def tiles(self, layer: int) -> int:
        """Return how many channel tiles of a layer stay."""
        return self._places[layer][0].tiles if layer in self._places else 0

    def address(
        self, layer: int, tiles: Range, passes: Range | None, content: Callable[[Range], bytes]
    ) -> int | None:
        """Return the byte address of some weights of a layer; None if they do not stay.

        Parameters
        ----------
        layer : int
            Index of the work.
        tiles : (int, int)
            Channel tiles.
        passes : (int, int) or None
            Passes of a single tile; None: all of them.
        content : callable
            Returns the weights of channel tiles, all passes.
        """
        if tiles[1] > self.tiles(layer) or (passes is not None and tiles[1] - tiles[0] > 1):
            return None
        resident, place = self._places[layer]
        if layer not in self._filled:
            self._filled.add(layer)
            offset, size = self._pool.place(
                ("resident", layer), lambda: content((0, resident.tiles))
            )
            assert size == resident.size_bytes, "all passes of its tiles"
            self.steps.append(constant_load(Space.WGT, place, offset, size, layer, self._config))
        matrix_bytes = self._config.rows * self._config.line_bytes
        skipped = 0 if passes is None else passes[0] * matrix_bytes
        return place + tiles[0] * resident.tile_bytes + skipped
