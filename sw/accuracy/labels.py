"""The class of each sample, from a file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.report.samples import read_file

__all__ = [
    "CLASS_COLUMN",
    "Labels",
    "labels_by_name",
    "labels_in_order",
    "names_samples",
    "text_rows",
]

Labels = npt.NDArray[np.int64]
MAX_BYTES = 1 << 26
_ARRAYS = (".npy", ".npz")
CLASS_COLUMN = 2
"""Of MLPerf Tiny's ``y_labels.csv``: file name, number of classes, class, and more."""
_MOST_CLASS = 1 << 31


def names_samples(path: Path) -> bool:
    """Whether a file of labels says which sample each is of: a CSV of two columns or more."""
    return path.suffix.lower() == ".csv" and any(len(row) > 1 for _, row in text_rows(path))


def labels_by_name(path: Path) -> dict[str, int]:
    """Read a CSV of file names and classes.

    Parameters
    ----------
    path : Path
        Rows are ``name, class``, or ``name, classes, class, ...`` as in MLPerf Tiny's
        ``y_labels.csv``. A first row whose class is no number is a heading.

    Raises
    ------
    InputError
        If it cannot be read, a class is no number, or a name is there twice.
    """
    found: dict[str, int] = {}
    rows = text_rows(path)
    for index, (line, row) in enumerate(rows):
        if len(row) < 2:
            raise _wrong(path, line, f"it has {len(row)} columns", "give file name and class")
        column = min(len(row) - 1, CLASS_COLUMN)
        if index == 0 and not _is_number(row[column]) and len(rows) > 1:
            continue
        name = row[0]
        if name in found:
            raise _wrong(path, line, f"{name!r} is there twice", "leave one of them out")
        found[name] = _class(path, line, row[column])
    return found


def labels_in_order(path: Path) -> Labels:
    """Read the classes of samples in their order.

    Parameters
    ----------
    path : Path
        ``.npy``, ``.npz`` (its array ``labels``, or its only one), or text with one class a line.

    Raises
    ------
    InputError
        If it cannot be read, or does not hold whole numbers from 0 along one axis.
    """
    if path.suffix.lower() not in _ARRAYS:
        return np.array([_class(path, line, row[0]) for line, row in text_rows(path)], np.int64)
    content = read_file(path)
    what = f"labels {path}"
    if isinstance(content, dict):
        if "labels" not in content and len(content) != 1:
            listed = ", ".join(map(repr, content)) or "none"
            raise InputError(what, f"it has arrays {listed}", "name the one of classes 'labels'")
        content = content.get("labels", next(iter(content.values())))
    if content.ndim == 2 and content.shape[1] == 1:
        content = content[:, 0]
    if content.ndim != 1 or content.dtype.kind not in "iub":
        raise InputError(
            what,
            f"the array is {content.dtype} of shape {list(content.shape)}",
            "give one whole number for each sample",
        )
    if content.size and not 0 <= int(content.min()) <= int(content.max()) < _MOST_CLASS:
        raise InputError(
            what, f"it has values from {content.min()} to {content.max()}", "number classes from 0"
        )
    return content.astype(np.int64)


def text_rows(path: Path) -> list[tuple[int, Sequence[str]]]:
    """Return the rows of a text that are not empty, with the numbers of their lines.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(
                f"labels {path}", f"it has {size} bytes, at most {MAX_BYTES} are read", "check it"
            )
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(text.splitlines(), skipinitialspace=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        cause = (error.strerror or "") if isinstance(error, OSError) else f"no text ({error})"
        raise InputError(
            f"cannot read labels {path}", cause, "give a .csv, .npy, .npz or .txt"
        ) from None
    return [(line, row) for line, row in rows if any(row)]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _class(path: Path, line: int, text: str) -> int:
    if not _is_number(text) or len(text) > len(str(_MOST_CLASS)) or int(text) >= _MOST_CLASS:
        raise _wrong(path, line, f"{text[:40]!r} is no class", "give its number, from 0")
    return int(text)


def _wrong(path: Path, line: int, cause: str, remedy: str) -> InputError:
    return InputError(f"labels {path}, line {line}", cause, remedy)
