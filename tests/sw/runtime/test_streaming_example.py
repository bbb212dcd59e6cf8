"""The streaming example: its files are the script's, and it hears the call."""

from __future__ import annotations

import runpy
from typing import Any

import celosia
import numpy as np

from tests.kit.places import ROOT

FOLDER = ROOT / "examples/streaming"


def test_the_detector_hears_both_calls() -> None:
    made: dict[str, Any] = runpy.run_path(str(FOLDER / "make.py"))
    recording = np.load(FOLDER / "recording.npy")
    assert (FOLDER / "call_int8.tflite").read_bytes() == made["model"]()
    np.testing.assert_array_equal(recording, made["recording"]())
    program = celosia.compile(FOLDER / "call_int8.tflite")
    with celosia.open("emu") as device:
        steps = recording.reshape(-1, 1, made["NEW"], *recording.shape[1:])
        scores = [int(device.run(program, step).output.item()) for step in steps]
    ends = [(begin + made["WINDOW"]) // made["NEW"] - 1 for begin in made["CALLS"]]
    assert [step for step, score in enumerate(scores) if score > 0] == ends
