"""Windows of a stream, and files of a model's variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.driver.inputs import prepare_inputs
from celosia.sw.program.file import Program
from celosia.sw.program.tensors import TensorInfo
from celosia.sw.report.samples import Sample, in_turn, read_arrays, read_file, typed

__all__ = ["Stream", "load_state", "load_stream", "require_state"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Stream:
    """A recording that has been cut into the inputs of consecutive inferences.

    Attributes
    ----------
    windows : list of dict
        One entry an inference.
    left : int
        Entries at the end of the recording that fill no window.
    """

    windows: list[Sample]
    left: int


def load_stream(
    inputs: Sequence[TensorInfo],
    path: Path,
    *,
    array: str | None = None,
    quantize: bool = False,
    hop: int | None = None,
) -> Stream:
    """Read a recording and cut it into windows along time.

    Parameters
    ----------
    inputs : sequence of TensorInfo
        The model's inputs. Time is the first axis that is longer than 1.
    path : Path
        ``.npy`` (models with one input) or ``.npz`` (arrays by tensor name). An array is as an
        input, with a longer time, axes of 1 aside; with one more axis in front each of its entries
        is a window.
    array : str, optional
        The array of the ``.npz`` to take, for a model with one input.
    quantize : bool
        Whether floats are quantised with the model's parameters.
    hop : int, optional
        Entries from the beginning of a window to that of the next; by default the window's length.

    Raises
    ------
    InputError
        If the file cannot be read or does not fit the model.
    """
    arrays = read_arrays(inputs, path, array)
    cut: dict[str, list[Array]] = {}
    left = 0
    for info in inputs:
        values = typed(info, arrays[info.name], path, quantize=quantize)
        cut[info.name], left = _windows(info, values, path, hop)
    return Stream(in_turn(cut, path, "windows"), left)


def _windows(
    info: TensorInfo, values: Array, path: Path, hop: int | None
) -> tuple[list[Array], int]:
    """Return the windows of one input, and how many entries are left behind the last."""
    window = tuple(size for size in info.shape if size != 1) or (1,)
    wanted = ", ".join(["time", *map(str, window[1:])])
    frames = values.reshape([size for size in values.shape if size != 1] or [1])
    if frames.shape[1:] == window:
        # Each entry is a window.
        length, hop = 1, hop or 1
    elif frames.ndim == len(window) and frames.shape[1:] == window[1:]:
        length, hop = window[0], hop or window[0]
    else:
        raise InputError(
            f"input file {path}",
            f"a window of input {info.name!r} is {list(window)}, the array {list(values.shape)}",
            f"give [{wanted}]",
        )
    if len(frames) < length:
        raise InputError(
            f"input file {path}",
            f"it has {len(frames)} entries along time, a window of input {info.name!r} takes"
            f" {length}",
            "give a longer recording",
        )
    starts = range(0, len(frames) - length + 1, hop)
    left = len(frames) - (starts[-1] + length)
    return [frames[start : start + length].reshape(info.shape) for start in starts], left


def load_state(program: Program, path: Path) -> dict[str, Array]:
    """Read a program's variables from an ``.npz``.

    Raises
    ------
    InputError
        If the program has none, the file cannot be read, or they are not this program's.
    """
    require_state(program, "a state to begin with")
    arrays = read_file(path)
    if isinstance(arrays, np.ndarray):
        raise InputError(
            f"state file {path}", "it holds one array", "give an .npz, as --state-out writes it"
        )
    try:
        return prepare_inputs(program.persistent, arrays, what="variable")
    except InputError as error:
        raise InputError(
            f"state file {path}",
            f"{error.what}: {error.cause}",
            f"give one that --state-out wrote for {program.model}",
        ) from None


def require_state(program: Program, what: str) -> None:
    """Refuse what needs variables for a program that has none."""
    if not program.persistent:
        cause = f"{program.model} has no variables"
        if program.host_segments:
            cause += " but what the host's interpreter keeps, which cannot be read"
        raise InputError(what, cause, "leave it out")
