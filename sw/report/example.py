"""The digit classifier that comes with Celosia."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError

__all__ = ["Digits", "load_digits"]


@dataclass(frozen=True)
class Digits:
    """The example model and its samples.

    Attributes
    ----------
    model : bytes
        The ``.tflite`` file.
    images : ndarray of uint8, shape [samples, H, W]
        To show: 0 paper, 255 ink.
    inputs : ndarray of int8, shape [samples, H, W, 1]
        To run.
    labels : ndarray of int64, shape [samples]
        The digit.
    """

    model: bytes
    images: npt.NDArray[np.uint8]
    inputs: npt.NDArray[np.int8]
    labels: npt.NDArray[np.int64]


def load_digits() -> Digits:
    """Read the example from the installed package (or the source tree, if installed from there).

    Raises
    ------
    CelosiaError
        If its files are missing.
    """
    try:
        folder = resources.files("celosia.examples") / "digits"
        model = (folder / "digits_int8.tflite").read_bytes()
        with (folder / "samples.npz").open("rb") as file, np.load(file) as samples:
            return Digits(model, samples["images"], samples["inputs"], samples["labels"])
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise CelosiaError(
            "the example model", f"it is not installed ({error})", "install celosia again"
        ) from None
