"""What a command runs: inputs from files or at random, and which options of them go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.driver.opening import UART
from celosia.sw.program.file import Program
from celosia.sw.report.samples import Sample, load_labels, random_samples
from rich.console import Console

__all__ = ["check_input_options", "check_jobs", "check_labels", "chosen_samples"]

Labels = npt.NDArray[np.int64]


def check_input_options(
    path: Path | None, *, array: str | None, quantize: bool, pixels: bool = False
) -> None:
    """Refuse what is said of an input that is not given.

    Raises
    ------
    InputError
        Naming the option.
    """
    if path is None and (array is not None or quantize or pixels):
        option = "--array" if array is not None else "--quantize" if quantize else "--pixels"
        raise InputError(option, "it needs an --input", "add one")


def chosen_samples(
    console: Console,
    program: Program,
    path: Path | None,
    labels: Path | None,
    array: str | None,
    count: int,
    seed: int,
    *,
    quantize: bool,
    pixels: bool,
) -> tuple[list[Sample], list[int], Labels | None]:
    """Return the inputs of a run.

    Parameters
    ----------
    console : Console
        Is told if the input is random without having been asked for.
    program : Program
    path, labels : Path, optional
        ``--input`` and ``--labels``.
    array, quantize, pixels
        How the input is read.
    count, seed : int
        Random inputs behind it.

    Returns
    -------
    list of Sample
    list of int
        The labels of the first of them, if their own file has any.
    ndarray of int64 or None
        Those of ``--labels``.
    """
    check_input_options(path, array=array, quantize=quantize, pixels=pixels)
    samples: list[Sample] = []
    known: list[int] = []
    classes: Labels | None = None
    if path is not None:
        from celosia.sw.accuracy.figures import kind_of
        from celosia.sw.accuracy.inputs import labelled_samples

        samples, classes = labelled_samples(
            program, path, labels, array=array, quantize=quantize, pixels=pixels
        )
        if classes is not None:
            kind_of(program, classes)  # refuses what is meaningless before anything runs
        elif path.is_file():
            found = load_labels(path, len(samples))
            known = [] if found is None else [int(label) for label in found]
    elif count == 0:
        console.print(f"no --input given: one random input, seed {seed}")
        count = 1
    return samples + random_samples(program, count, seed), known, classes


def check_labels(
    labels: Path | None, input_: Path | None, random: int, stream: Path | None
) -> None:
    """Refuse labels of what is no input from a file.

    Raises
    ------
    InputError
        Saying what labels are for.
    """
    if labels is not None and (input_ is None or random or stream is not None):
        raise InputError(
            "--labels", "they are of the samples of an --input", "give it alone, without --random"
        )


def check_jobs(
    program: Program, device: str, jobs: int, *, check: bool, stalls: float | None
) -> None:
    """Refuse several processes where one after the other is meant.

    Raises
    ------
    InputError
        With the reason.
    """
    if jobs == 1:
        return
    if device.startswith(UART) or check or stalls:
        cause = (
            f"{device} is one device"
            if device.startswith(UART)
            else "a check is one process"
            if check
            else "with --stalls, cycles depend on what was run before"
        )
        raise InputError("--jobs", cause, "leave it out")
    from celosia.sw.accuracy.workers import require_independent

    require_independent(program)
