"""A command in progress on an engine of the emulator, in indivisible steps.

A command is one step, except that ARRAY and the accumulator operations of VECTOR take one step a
tile, which is where the two wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from celosia.hw.contract.addresses import conv_tiles
from celosia.hw.contract.isa import ACC_HALVES, Command, Conv, Softmax, Transfer, Vector
from celosia.hw.contract.legal import field_problem
from celosia.sim.emulator.array import conv_tile
from celosia.sim.emulator.dma import transfer
from celosia.sim.emulator.softmax import softmax
from celosia.sim.emulator.state import AccTile, EmulatorError, EngineFault, MachineState
from celosia.sim.emulator.vector import requant_tile, vector_whole

__all__ = ["Job", "RunStats"]


@dataclass
class RunStats:
    """What a program did.

    Attributes
    ----------
    commands : int
        Commands completed, End included.
    bytes_loaded, bytes_stored : int
        Payload bytes that crossed the bus, without the command stream.
    tiles : int
        Accumulator tiles filled.
    macs : int
        Products that the array formed, zero weights and padding included.
    order : list of int
        Indices of the commands in the order in which they were completed.
    """

    commands: int = 0
    bytes_loaded: int = 0
    bytes_stored: int = 0
    tiles: int = 0
    macs: int = 0
    order: list[int] = field(default_factory=list)


class Job:
    """One command at the head of its engine's queue, with its tokens taken."""

    def __init__(self, state: MachineState, command: Command, stats: RunStats) -> None:
        problem = field_problem(command, state.config)
        if problem:
            raise EngineFault(problem[0], 0, problem[1])
        self._state = state
        self._command = command
        self._stats = stats
        self._steps_done = 0

    @property
    def waits_for(self) -> str:
        """What keeps the next step from being made; empty if nothing does."""
        if isinstance(self._command, Conv):
            # A half that is held belongs to the array already.
            taken = len(self._state.tiles)
            if self._state.held is None and taken >= ACC_HALVES:
                return "a free accumulator half"
        if self._takes_tiles and not self._state.tiles:
            return "a full accumulator half"
        return ""

    @property
    def _takes_tiles(self) -> bool:
        return self._command.reads_acc

    def _accumulate(self, tile: AccTile) -> AccTile:
        """Add what a command with `hold` has left, if the command says so."""
        held, command = self._state.held, self._command
        assert isinstance(command, Conv), "only the array accumulates"
        if not command.accumulate:
            return tile
        if held is None:
            raise EmulatorError(f"command tag {command.tag} accumulates, but no half is held")
        if (held.rows, held.out_w) != (tile.rows, tile.out_w):
            raise EmulatorError(
                f"command tag {command.tag} accumulates {tile.rows} rows of {tile.out_w} vectors"
                f" onto {held.rows} rows of {held.out_w}"
            )
        # int32 addition wraps, as the accumulator does.
        return AccTile(held.sums + tile.sums, tile.rows, tile.out_w)

    def step(self) -> bool:
        """Make the next step and return whether the command is complete."""
        command, state, stats = self._command, self._state, self._stats
        steps = 1
        if isinstance(command, Transfer):
            moved = transfer(state, command)
            if command.OPCODE >> 4 == 1:
                stats.bytes_loaded += moved
            else:
                stats.bytes_stored += moved
        elif isinstance(command, Conv):
            tiles = conv_tiles(command)
            steps = command.n_oc * tiles
            filled = self._accumulate(conv_tile(state, command, *divmod(self._steps_done, tiles)))
            if command.hold:
                state.held = filled
            else:
                state.held = None
                state.tiles.append(filled)
                stats.tiles += 1
            n_passes = command.n_ky * command.n_kx * command.n_ic
            stats.macs += len(filled.sums) * n_passes * state.config.rows * state.config.cols
        elif isinstance(command, Vector):
            if self._takes_tiles:
                tiles = -(-command.out_h // command.tile_rows)
                steps = command.n_oc * tiles
                oc, tile = divmod(self._steps_done, tiles)
                requant_tile(state, command, oc, tile, state.tiles.popleft())
            else:
                vector_whole(state, command)
        else:
            assert isinstance(command, Softmax)
            softmax(state, command)
        self._steps_done += 1
        return self._steps_done == steps
