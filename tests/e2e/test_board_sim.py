"""Models on a whole simulated board, through its serial line, by the driver for real boards.

What they give is what the NPU's own simulator gives, with a good line and with a bad one.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import celosia
import numpy as np
import pytest
from celosia.boards.registry import find_board
from celosia.hw.contract.config import PRESETS
from celosia.sim.board.terminals import simulated_terminals
from celosia.sw.driver.device import Device
from celosia.sw.driver.uart.device import UartDevice
from celosia.sw.program.file import Program
from celosia.sw.report.board_cycles import measure

from tests.kit.places import DIGITS, KWS_INPUT, benchmark_model
from tests.kit.tools import needs_simulator

BOARD = "ulx3s"
CONFIG = "ulx3s"
START_S = 600.0
FAULT_RATE = 0.001
MOST_ERROR = 0.05
"""Of a prediction for a board."""

pytestmark = [
    needs_simulator,
    pytest.mark.xdist_group("rtl-ulx3s"),
]


class ServedBoard:
    """``celosia board-sim`` in a process of its own."""

    def __init__(self, *options: str, board: str = BOARD) -> None:
        script = Path(sys.executable).with_name("celosia")
        self._process = subprocess.Popen(
            [script, "board-sim", board, *options], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        found = None
        give_up = time.monotonic() + START_S
        while found is None and time.monotonic() < give_up and self._process.poll() is None:
            found = re.match(r"simulated \w+: (\S+)", self._process.stdout.readline())
        assert found, "the board did not start"
        self.device = f"uart:{found[1]}"

    def close(self) -> None:
        with self._process as process:
            try:
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 0
            finally:
                process.kill()


@pytest.fixture(scope="module")
def board() -> Iterator[ServedBoard]:
    served = ServedBoard()
    yield served
    served.close()


def test_the_board_is_listed_while_it_runs(board: ServedBoard) -> None:
    assert board.device in [f"uart:{terminal.path}" for terminal in simulated_terminals()]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Device]:
    with celosia.open("sim", CONFIG) as device:
        yield device


def model(name: str) -> Program:
    return celosia.compile(benchmark_model(name), config=CONFIG)


def compare(device: Device, simulator: Device, program: Program, samples: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(samples):
        values = rng.integers(-128, 128, program.inputs[0].shape, np.int8)
        got, want = device.run(program, [values]), simulator.run(program, [values])
        np.testing.assert_array_equal(got.output, want.output)
        # Another memory, so not the same cycles; an SDRAM is the slower one.
        assert got.cycles is not None
        assert want.cycles is not None
        assert 0.95 * want.cycles < got.cycles < 4 * want.cycles


@pytest.mark.parametrize("name", ["kws"])
def test_models_on_a_board_equal_the_simulator(
    board: ServedBoard, simulator: Device, name: str
) -> None:
    program = model(name)
    with celosia.open(board.device, CONFIG) as device:
        assert device.memory_bytes == 32 << 20
        compare(device, simulator, program, samples=2)


def test_the_keyword_is_recognised(board: ServedBoard) -> None:
    program = model("kws")
    values = np.load(KWS_INPUT).reshape(program.inputs[0].shape)
    with celosia.open(board.device, CONFIG) as device:
        output = device.run(program, [values]).output.ravel()
    assert int(output[5]) == 127
    assert all(output[np.arange(output.size) != 5] == -128)


@pytest.mark.parametrize("resident", [True, False])
def test_what_fit_foresees_is_what_the_board_takes(board: ServedBoard, resident: bool) -> None:
    # The other models, which take minutes to upload: celosia.sw.report.board_cycles.
    with celosia.open(board.device, CONFIG) as device:
        assert isinstance(device, UartDevice)
        found = measure(device, find_board(BOARD), benchmark_model("sww"), resident=resident)
    assert abs(found.error) < MOST_ERROR


def test_another_configuration_is_refused(board: ServedBoard) -> None:
    with pytest.raises(celosia.DeviceError, match="configuration"):
        celosia.open(board.device, PRESETS["tiny"])


def test_the_smallest_board_runs_what_it_has_room_for() -> None:
    served = ServedBoard(board="icebreaker")
    try:
        with (
            celosia.open(served.device, "nano") as device,
            celosia.open("sim", "nano") as simulator,
        ):
            assert device.memory_bytes == 64 << 10
            compare(device, simulator, celosia.compile(DIGITS, config="nano"), samples=1)
    finally:
        served.close()


def test_a_bad_line_costs_time_only(simulator: Device) -> None:
    """One character in a thousand each is flipped, lost, doubled, cut off or late."""
    kinds = ("flip", "drop", "duplicate", "truncate", "stall")
    served = ServedBoard(*(word for kind in kinds for word in (f"--{kind}", str(FAULT_RATE))))
    try:
        with celosia.open(served.device, CONFIG) as device:
            compare(device, simulator, celosia.compile(DIGITS, config=CONFIG), samples=1)
    finally:
        served.close()
