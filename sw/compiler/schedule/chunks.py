"""Loading weights and parameters in chunks of output channel tiles.

A chunk is what one `Conv` works through: its weights are loaded with one command. Parameters are
few, so one command loads those of several chunks (a *section*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Space, Vector
from celosia.sw.compiler.arithmetic.whole import Range, ceil_div, split
from celosia.sw.compiler.ir import ConvOp, Int8Array, MatmulOp
from celosia.sw.compiler.place.mapping import ConvMapping, pack_parameters, pack_weights
from celosia.sw.compiler.schedule.constants import ConstantPool, Ring, constant_load
from celosia.sw.compiler.schedule.residents import Resident, ResidentWeights
from celosia.sw.compiler.steps import Step

__all__ = ["Chunk", "ChunkLoader", "WeightedLayer"]

LEAST_TAPERED_BYTES = 1024
"""Least size of the chunks at the end of a program, which become smaller and smaller."""

TAPER = 1.6
"""Ratio of two of them: the array takes 5/8 of the time of the bus for single pixels at 8x8."""


@dataclass
class Chunk:
    """Channel tiles whose weights are loaded together, and where they are at the moment.

    Attributes
    ----------
    tiles : (int, int)
        Output channel tiles.
    section : (int, int) or None
        Tiles whose parameters are loaded with this chunk; None: an earlier chunk's load had them.
    wgt_addr, param_addr : int
        Byte addresses of the chunk's weights and parameters.
    """

    tiles: Range
    section: Range | None = None
    wgt_addr: int = 0
    param_addr: int = 0


@dataclass(frozen=True)
class WeightedLayer:
    """A convolution as the loader sees it."""

    index: int
    mapping: ConvMapping
    pixel_pitch: int
    shared: bool
    """Parameter blocks are biases only; see `Vector.shared`."""
    phase: int = 0
    """Which one, of several convolutions that are a layer together."""

    def parameter_tile_bytes(self, config: NpuConfig) -> int:
        """Bytes of the parameters of one tile of output channels."""
        return Vector(shared=self.shared).block_lines * config.line_bytes


class ChunkLoader:
    """Makes the loads into WGT and PARAM.

    Parameters
    ----------
    config : NpuConfig
        The machine.
    pool : ConstantPool
        Where the constants go.
    weight_chunks : int
        A chunk takes at most the weight memory divided by this, or one tile.
    residents : sequence of Resident
        Weights that stay on chip from run to run.

    Attributes
    ----------
    wgt_bytes : int
        What there is of the weight memory for weights that do not stay.
    """

    def __init__(
        self,
        config: NpuConfig,
        pool: ConstantPool,
        weight_chunks: int,
        residents: Sequence[Resident] = (),
    ) -> None:
        self.config, self.pool = config, pool
        self._weight_chunks = weight_chunks
        self._staying = ResidentWeights(residents, pool, config)
        self.wgt_bytes = self._staying.room_bytes
        self._wgt = Ring(self.wgt_bytes)
        self._param = Ring(config.param_bytes)
        self._packs: dict[tuple[int, int, int], Int8Array] = {}
        self._section_addr = 0
        self._section_first = 0

    @property
    def setup(self) -> list[Step]:
        """The loads of weights that stay; they run once, before everything else."""
        return self._staying.steps

    def _passing(self, layer: WeightedLayer, group: Range) -> int:
        """Return how many tiles of a group have weights that do not stay."""
        staying = 0 if layer.phase else self._staying.tiles(layer.index)
        return group[1] - max(group[0], min(group[1], staying))

    def chunk_bytes(self, layer: WeightedLayer, chunk: Chunk) -> int:
        """Bytes of a chunk's weights and parameters on chip."""
        tile_bytes = layer.mapping.tile_weight_bytes(self.config)
        tile_bytes += layer.parameter_tile_bytes(self.config)
        return (chunk.tiles[1] - chunk.tiles[0]) * tile_bytes

    def cut(
        self, layer: WeightedLayer, group: Range, *, parts: int, taper: bool, ramp: bool = False
    ) -> list[Chunk] | None:
        """Cut a group of channel tiles into chunks; None when not even one tile is a command.

        Parameters
        ----------
        layer : WeightedLayer
            Whose weights.
        group : (int, int)
            Channel tiles.
        parts : int
            Chunks there shall be at least, as far as there are tiles.
        taper : bool
            Make the last chunks smaller and smaller: the array lags behind the bus by a chunk,
            and once the last weights of a program have come, nothing hides what it still does.
        ramp : bool
            Make the first chunk a tile and the next ones larger and larger: the array has nothing
            to do until they are there.
        """
        tile_bytes = layer.mapping.tile_weight_bytes(self.config)
        total, passing = group[1] - group[0], self._passing(layer, group)
        if (passing and tile_bytes > self.wgt_bytes) or not layer.mapping.fits_command:
            return None
        if 0 < passing < total:
            stay = group[1] - passing
            cuts = (
                self.cut(layer, (group[0], stay), parts=1, taper=False),
                self.cut(layer, (stay, group[1]), parts=parts - 1, taper=taper),
            )
            return [chunk for chunks in cuts for chunk in chunks or ()]
        section = max(1, self.config.param_bytes // 2 // layer.parameter_tile_bytes(self.config))
        most = max(1, self.wgt_bytes // self._weight_chunks // tile_bytes)
        if not passing:
            most, taper, ramp = total, False, False
        count = max(ceil_div(total, min(most, section)), min(parts, total))
        size = ceil_div(total, count)
        ranges = (
            _tapered(total, size, max(1, LEAST_TAPERED_BYTES // tile_bytes))
            if taper
            else (list(split(total, size)))
        )
        if ramp:
            ranges = _ramped(total, size)
        chunks: list[Chunk] = []
        section_end = 0
        for first, end in ranges:
            covers = None
            if end > section_end:
                small = ramp and end - first < size
                section_end = end if small else min(total, first + section)
                # Only whole chunks: the ranges that end inside.
                section_end = max(e for _, e in ranges if e <= section_end)
                covers = (group[0] + first, group[0] + section_end)
            chunks.append(Chunk((group[0] + first, group[0] + end), covers))
        return chunks

    def fits_together(self, layer: WeightedLayer, group: Range) -> bool:
        """Whether the weights and parameters of a whole group can stay for all stripes."""
        tiles, passing = group[1] - group[0], self._passing(layer, group)
        return (
            layer.mapping.fits_command
            and not layer.mapping.op.more_weights
            and passing * layer.mapping.tile_weight_bytes(self.config) <= self.wgt_bytes
            and tiles * layer.parameter_tile_bytes(self.config) <= self.config.param_bytes
        )

    def reserve(self, layer: WeightedLayer, group: Range) -> None:
        """Make the next loads, of a group that `fits_together`, leave one another alone."""
        tiles, passing = group[1] - group[0], self._passing(layer, group)
        self._wgt.reserve(passing * layer.mapping.tile_weight_bytes(self.config))
        self._param.reserve(tiles * layer.parameter_tile_bytes(self.config))

    def load(self, layer: WeightedLayer, chunk: Chunk) -> list[Step]:
        """Return the loads of a chunk, and note in it where they put things."""
        steps, chunk.wgt_addr = self.load_weights(layer, chunk.tiles)
        return [*steps, *self.load_section(layer, chunk)]

    def load_section(self, layer: WeightedLayer, chunk: Chunk) -> list[Step]:
        """Return the load of a chunk's parameters, unless an earlier one's had them; note where."""
        steps = []
        if chunk.section is not None:
            step, self._section_addr = self.load_parameters(layer, chunk.section)
            self._section_first = chunk.section[0]
            steps.append(step)
        behind = chunk.tiles[0] - self._section_first
        behind *= layer.parameter_tile_bytes(self.config)
        chunk.param_addr = self._section_addr + behind
        return steps

    def load_together(
        self, layers: Sequence[WeightedLayer], tiles: Range
    ) -> tuple[list[Step], list[Chunk]]:
        """Return the loads of small layers' weights and parameters, one of each for all of them.

        Parameters
        ----------
        layers : sequence of WeightedLayer
            Of one work; their weights and parameters fit together.
        tiles : (int, int)
            Channel tiles of each.

        Returns
        -------
        list of Step
            The two loads.
        list of Chunk
            Where each layer's weights and parameters are.
        """
        phases = tuple(layer.phase for layer in layers)
        index = layers[0].index
        steps, places = [], []
        for space, ring, contents in (
            (Space.WGT, self._wgt, [self._weights(layer, tiles, None) for layer in layers]),
            (
                Space.PARAM,
                self._param,
                [self._blocks(one.mapping.op, tiles, shared=one.shared) for one in layers],
            ),
        ):
            offset, size = self.pool.place(
                (space.name, index, phases, tiles), partial(b"".join, contents)
            )
            address = ring.take(size)
            steps.append(constant_load(space, address, offset, size, index, self.config))
            places.append([address + at for at in accumulate(map(len, contents[:-1]), initial=0)])
        chunks = [Chunk(tiles, None, wgt, param) for wgt, param in zip(*places, strict=True)]
        return steps, chunks

    def _weights(
        self, layer: WeightedLayer, tiles: Range, passes: Range | None, part: int = 0
    ) -> bytes:
        return self._packed(layer, tiles, passes, part).tobytes()

    def _blocks(self, op: ConvOp | MatmulOp, tiles: Range, *, shared: bool) -> bytes:
        packed = pack_parameters(op, self.config.rows, shared=shared)
        return packed[tiles[0] : tiles[1]].tobytes()

    def weight_parts(self, layer: WeightedLayer, tile: int, passes: Range | None) -> list[int]:
        """Return the numbers of `ConvOp.weight_parts` that some passes of a tile need."""
        more = range(1, len(layer.mapping.op.weight_parts))
        tiles = (tile, tile + 1)
        return [0, *(part for part in more if self._packed(layer, tiles, passes, part).any())]

    def _packed(
        self, layer: WeightedLayer, tiles: Range, passes: Range | None, part: int
    ) -> Int8Array:
        op = layer.mapping.op
        key = layer.index, layer.phase, part
        if key not in self._packs:
            mapping = replace(layer.mapping, op=replace(op, weights=op.weight_parts[part]))
            # Of the layer at hand only: packed weights are as large as the model.
            self._packs = {k: pack for k, pack in self._packs.items() if k[0] == layer.index}
            self._packs[key] = pack_weights(mapping, layer.pixel_pitch, self.config.rows)
        packed = self._packs[key][tiles[0] : tiles[1]]
        return packed if passes is None else packed[:, passes[0] : passes[1]]

    def load_weights(
        self,
        layer: WeightedLayer,
        tiles: Range,
        passes: Range | None = None,
        *,
        part: int = 0,
    ) -> tuple[list[Step], int]:
        """Return the load of the weights of some tiles (and passes), and their address.

        There is none if they stay. `part`: number of `ConvOp.weight_parts`.
        """
        if layer.phase == part == 0:
            there = self._staying.address(
                layer.index, tiles, passes, lambda all_of: self._weights(layer, all_of, None)
            )
            if there is not None:
                return [], there
        content = partial(self._weights, layer, tiles, passes, part)
        key = ("wgt", layer.index, layer.phase, tiles, passes, part)
        offset, size = self.pool.place(key, content)
        address = self._wgt.take(size)
        step = constant_load(Space.WGT, address, offset, size, layer.index, self.config)
        return [step], address

    def load_parameters(self, layer: WeightedLayer, tiles: Range) -> tuple[Step, int]:
        """Return the load of the parameters of some tiles, and their address."""
        op = layer.mapping.op
        return self.load_blocks(layer.index, op, tiles, shared=layer.shared, phase=layer.phase)

    def load_blocks(
        self,
        index: int,
        op: ConvOp | MatmulOp,
        tiles: Range,
        *,
        shared: bool,
        phase: int = 0,
    ) -> tuple[Step, int]:
        """Return the load of an operator's parameter blocks of some tiles, and their address."""
        content = partial(self._blocks, op, tiles, shared=shared)
        offset, size = self.pool.place(("param", index, phase, tiles), content)
        address = self._param.take(size)
        step = constant_load(Space.PARAM, address, offset, size, index, self.config)
        return step, address

    def take_weights(self, size_bytes: int) -> int:
        """Return the address of a block of the weight memory that something else will fill."""
        return self._wgt.take(size_bytes)


def _ramped(total: int, size: int) -> list[Range]:
    """Cut ``range(total)`` into ranges of `size`, the first ones larger and larger from 1 on."""
    ranges: list[Range] = []
    first, length = 0, 1.0
    while first < total:
        end = min(first + min(size, round(length)), total)
        ranges.append((first, end))
        first = end
        length *= TAPER
    return ranges


def _tapered(total: int, size: int, step: int) -> list[Range]:
    """Cut ``range(total)`` into ranges of `size`, the last ones smaller and smaller down to `step`.

    A range is at most TAPER times the one behind it: what the array does with it is then hidden by
    the load of the next one.
    """
    sizes: list[int] = []
    left, length = total, float(step)
    while left > 0:
        sizes.append(min(size, round(length), left))
        left -= sizes[-1]
        length *= TAPER
    ranges, first = [], 0
    for width in sorted(sizes, reverse=True):
        ranges.append((first, first + width))
        first += width
    return ranges
