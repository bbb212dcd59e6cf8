"""What ``--input`` and ``--labels`` name: samples in their order, and their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from celosia.errors import InputError
from celosia.sw.accuracy.folder import load_file, sample_files
from celosia.sw.accuracy.labels import Labels, labels_by_name, labels_in_order, names_samples
from celosia.sw.program.file import Program
from celosia.sw.report.samples import Sample, load_samples

__all__ = ["labelled_samples"]

_NAMED = 3
"""Files that a message names."""


def labelled_samples(
    program: Program,
    path: Path,
    labels_path: Path | None,
    *,
    array: str | None = None,
    quantize: bool = False,
    pixels: bool = False,
) -> tuple[list[Sample], Labels | None]:
    """Read samples, and the class of each.

    Parameters
    ----------
    program : Program
        What they are for.
    path : Path
        ``.npy``, ``.npz``, or a folder with a file for each sample (`load_file`).
    labels_path : Path, optional
        `labels_by_name` for a folder, or `labels_in_order`; files of a folder are in the order of
        their names.
    array, quantize : str, bool
        As `load_samples` takes them.
    pixels : bool
        As `load_file` takes it.

    Raises
    ------
    InputError
        If something cannot be read or does not fit; labels are read first.
    """
    files = sample_files(path) if path.is_dir() else None
    labels = None
    if labels_path is not None:
        if not names_samples(labels_path):
            labels = labels_in_order(labels_path)
        elif files is None:
            raise InputError(
                f"labels {labels_path}",
                f"its classes are by file name, but {path} is no folder",
                "give one class a line, in the order of the samples",
            )
        else:
            labels = _by_name(labels_path, path, files)
    if files is None:
        if pixels:
            raise InputError("--pixels", f"it is about .bin files, {path} is none", "leave it out")
        samples = load_samples(
            program.inputs, path, array=array, quantize=quantize, batch=program.batch
        )
    else:
        if array is not None or program.batch > 1:
            option = "--array" if array is not None else "--batch"
            raise InputError(option, f"{path} is a folder, of one sample a file", "leave it out")
        samples = [
            load_file(program.inputs, file, quantize=quantize, pixels=pixels) for file in files
        ]
    count = len(samples) * program.batch
    if labels is not None and len(labels) != count:
        raise InputError(
            f"labels {labels_path}",
            f"it has {len(labels)} labels, {path} has {count} samples",
            "give one label for each sample",
        )
    return samples, labels


def _by_name(labels_path: Path, folder: Path, files: list[Path]) -> Labels:
    found = labels_by_name(labels_path)
    names = [file.name for file in files]
    for missing, cause, remedy in (
        ([name for name in names if name not in found], "no class for", "add it to the labels"),
        (
            [name for name in found if name not in set(names)],
            f"{folder} has no file",
            "take it out of the labels",
        ),
    ):
        if missing:
            listed = ", ".join(map(repr, missing[:_NAMED]))
            more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
            raise InputError(f"labels {labels_path}", f"{cause} {listed}{more}", remedy)
    return np.array([found[name] for name in names], np.int64)
