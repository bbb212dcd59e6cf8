"""Cycles of models on a board's RTL, its memory included, beside those that are predicted.

``python -m celosia.sw.report.board_cycles MODEL.tflite...`` simulates the whole board and prints
them, with weights that stay on chip and without; ``--json FILE`` writes what docs/sdram.md cites.
A model takes minutes: most of that is its upload, bit by bit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from celosia.errors import CelosiaError
from celosia.hw.contract.named import resolve_config
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends import formats as frontend
from celosia.sw.driver.uart.device import UartDevice
from celosia.sw.profile.profile import predicted_cycles
from celosia.sw.report.fit import board_memory
from celosia.sw.report.samples import random_samples

if TYPE_CHECKING:
    from celosia.boards.board import Board

__all__ = ["BoardCycles", "main", "measure"]


@dataclass(frozen=True, kw_only=True)
class BoardCycles:
    """A model on a board.

    Attributes
    ----------
    model, board : str
    resident : bool
        Whether weights stay on chip from run to run.
    predicted, cycles : int
        Of an inference with its weights where they stay: as ``celosia fit`` says, and on the RTL.
    """

    model: str
    board: str
    resident: bool
    predicted: int
    cycles: int

    @property
    def error(self) -> float:
        """Predicted over measured cycles, less one."""
        return self.predicted / self.cycles - 1


def measure(
    device: UartDevice, board: Board, model: str | Path | bytes, *, resident: bool
) -> BoardCycles:
    """Run a model twice, so that its weights are where they stay, and return the second's cycles.

    Raises
    ------
    CelosiaError
        If the model cannot be compiled, or the device fails.
    """
    memory = board_memory(board, device.config, board.clock_hz)
    program = compile_model(model, device.config, resident=resident, memory=memory)
    results = [device.run(program, sample) for sample in random_samples(program, 2, 0)]
    cycles = results[-1].cycles
    assert cycles is not None, "it has a clock"
    return BoardCycles(
        model=program.model if isinstance(model, bytes) else Path(model).stem,
        board=board.name,
        resident=resident,
        predicted=predicted_cycles(program, memory),
        cycles=cycles,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each model, or what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--board", default="ulx3s")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    try:
        _measure_all(options)
    except CelosiaError as error:
        parser.exit(1, f"{error}\n")


def _measure_all(options: argparse.Namespace) -> None:
    from celosia.boards.registry import find_board
    from celosia.sim.board.simulated import simulated_board

    board = find_board(options.board)
    config = resolve_config(board.config)
    for model in options.models:
        frontend.load(model)  # what is no model is said before the simulator is built
    found = []
    with UartDevice(config, port=simulated_board(board, config)) as device:
        for resident in (True, False):
            for model in options.models:
                one = measure(device, board, model, resident=resident)
                found.append(one)
                print(
                    f"{one.model} {'stays' if resident else 'loaded'} {one.cycles:,} cycles,"
                    f" {one.predicted:,} predicted ({one.error:+.1%})",
                    flush=True,
                )
                if options.json:
                    text = json.dumps([asdict(entry) for entry in found], indent=1)
                    options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
