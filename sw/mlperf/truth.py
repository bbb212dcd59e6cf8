"""What the data set of a test says, and how right the device's scores are by it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["OwnAccuracy", "own_accuracy"]

TRUTH = "y_labels.csv"
FIELDS = ("file", "classes", "class", "bytes_to_send", "stride")


@dataclass(frozen=True)
class OwnAccuracy:
    """How right the scores are.

    Attributes
    ----------
    inputs : int
        Files of the data set.
    top1_percent : float, optional
        Share of the files whose class has the highest score; None where there is one score.
    auc : float
        Area below the ROC curve, of several classes the mean over each against all others.
    """

    inputs: int
    top1_percent: float | None
    auc: float


def own_accuracy(folder: Path, scores: list[list[float]]) -> OwnAccuracy | None:
    """Return how right `scores` are, one list an inference in the order of the data set.

    Parameters
    ----------
    folder : Path
        Of the test's data: ``y_labels.csv`` and the files that it names, of which one may be of
        several inferences (windows, whose scores are averaged).
    scores : list of list of float
        As they were sent.

    Returns
    -------
    OwnAccuracy or None
        None if the data set cannot be read, has one class, or another number of inferences.
    """
    try:
        with open(folder / TRUTH, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file, fieldnames=FIELDS) if row["file"]]
        labels = np.array([int(row["class"]) for row in rows])
        counts = [_inferences(folder, row) for row in rows]
        values = np.array(scores, np.float64)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if values.ndim != 2 or sum(counts) != len(values) or len(set(labels)) < 2 or 0 in counts:
        return None
    ends = np.cumsum(counts)
    means = np.array([values[e - n : e].mean(axis=0) for e, n in zip(ends, counts, strict=True)])
    if means.shape[1] == 1:
        return OwnAccuracy(len(rows), None, _auc(means[:, 0], labels == 1))
    if not 0 <= labels.min() <= labels.max() < means.shape[1]:
        return None
    areas = [_auc(means[:, label], labels == label) for label in sorted(set(labels))]
    right = int(np.sum(means.argmax(axis=1) == labels))
    return OwnAccuracy(len(rows), 100 * right / len(rows), float(np.mean(areas)))


def _inferences(folder: Path, row: dict[str, str]) -> int:
    """Return how many windows the runner makes of a file."""
    if not row.get("stride"):
        return 1
    size = (folder / row["file"]).stat().st_size
    return max(0, (size - int(row["bytes_to_send"])) // int(row["stride"]) + 1)


def _auc(values: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Return the chance that a positive value exceeds another one (Mann-Whitney's U)."""
    others = np.sort(values[~positive])
    below = np.searchsorted(others, values[positive], "left")
    equal = np.searchsorted(others, values[positive], "right") - below
    return float(np.mean((below + equal / 2) / len(others)))
