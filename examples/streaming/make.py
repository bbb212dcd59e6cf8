"""Make the streaming example: a detector that hears three new rows at a time, and a recording.

The detector is a matched filter. Its window of twelve rows is longer than its input: the nine rows
before are in a variable, as in a streaming wake word. The recording is noise, with the call in it
twice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

NEW, WINDOW, BANDS = 3, 12, 8
SCALE = 1 / 32
LENGTH, CALLS = 60, (12, 39)
"""Rows of the recording, and where the call begins in it."""
SEED = 1


def call() -> npt.NDArray[np.int8]:
    """Return the call, [rows, bands]: a tone that rises through the bands, silence elsewhere."""
    rows = np.arange(WINDOW)[:, None]
    distance = rows * (BANDS - 1) / (WINDOW - 1) - np.arange(BANDS)[None]
    return np.round(100 * np.exp(-(distance**2))).astype(np.int8)


def model() -> bytes:
    """Return the detector: input [1, 3, 1, 8], output [1, 1, 1, 1], a probability."""
    b = ModelBuilder()
    new = b.input((1, NEW, 1, BANDS), scale=SCALE)
    kept = WINDOW - NEW
    quiet = np.zeros((1, kept, 1, BANDS), np.int8)
    state = b.variable(quiet, scale=SCALE, name="window")
    window = b.operator(
        "CONCATENATION",
        [b.read_variable(state), new],
        (1, WINDOW, 1, BANDS),
        scale=SCALE,
        options=("ConcatenationOptions", {"Axis": 1}),
    )
    b.assign_variable(state, newest(b, window, kept))
    template = call().astype(int)
    # Zero for silence, and without answer to a level that all bands have alike.
    weights = (template - round(template.mean())).astype(np.int8)
    # The sum over the call itself is brought to 8; at half of that a call counts as heard.
    scale = 8 / (int((weights * template).sum()) * SCALE)
    bias = np.array([round(-4 / (scale * SCALE))], np.int32)
    score = b.conv2d(
        window, weights[None, :, None], bias, w_scales=scale, scale=1 / 16, padding="VALID"
    )
    return b.finish([b.logistic(score)])


def newest(b: ModelBuilder, x: TensorHandle, rows: int) -> TensorHandle:
    """Return the last rows of a tensor, as converters write it."""
    begin, end = [0, WINDOW - rows, 0, 0], [0, WINDOW, 0, 0]
    places = [b.constant(np.array(numbers, np.int32)) for numbers in (begin, end, [1] * 4)]
    others = 0b1101
    options = ("StridedSliceOptions", {"BeginMask": others, "EndMask": others})
    shape = (1, rows, 1, BANDS)
    return b.operator("STRIDED_SLICE", [x, *places], shape, scale=x.scale, options=options)


def recording() -> npt.NDArray[np.int8]:
    """Return the recording, [rows, 1, bands]."""
    heard = np.random.default_rng(SEED).normal(0, 12, (LENGTH, BANDS))
    for begin in CALLS:
        heard[begin : begin + WINDOW] += call()
    return np.clip(np.round(heard), -128, 127).astype(np.int8)[:, None]


def main() -> None:
    """Write both files beside this script."""
    folder = Path(__file__).resolve().parent
    (folder / "call_int8.tflite").write_bytes(model())
    np.save(folder / "recording.npy", recording())


if __name__ == "__main__":
    main()
