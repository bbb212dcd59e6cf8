"""What the data set of a test says, and how right the device's scores are by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from celosia.errors import InputError
from celosia.sw.accuracy.figures import auc, measure_classes
from celosia.sw.accuracy.labels import CLASS_COLUMN, text_rows

__all__ = ["OwnAccuracy", "own_accuracy"]

TRUTH = "y_labels.csv"
_BYTES_COLUMN, _STRIDE_COLUMN = 3, 4
"""Of a file that is of several inferences: the bytes of one, and from one to the next."""


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
        Area below the ROC curve, as `celosia run --labels` has it (`Accuracy.auc`).
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
        rows = [row for _, row in text_rows(folder / TRUTH)]
        labels = np.array([int(row[CLASS_COLUMN]) for row in rows], np.int64)
        counts = [_inferences(folder, row) for row in rows]
        # As the runner has them: of several scores, shares of their sum.
        shares = [[s / sum(row) for s in row] if len(row) > 1 else row for row in scores]
        values = np.array(shares, np.float64)
    except (InputError, OSError, ValueError, IndexError, ArithmeticError):
        return None
    if values.ndim != 2 or sum(counts) != len(values) or len(set(labels)) < 2 or 0 in counts:
        return None
    ends = np.cumsum(counts)
    means = np.array([values[e - n : e].mean(axis=0) for e, n in zip(ends, counts, strict=True)])
    if means.shape[1] == 1:
        area = auc(means[:, 0], labels == 1)
        return None if area is None else OwnAccuracy(len(rows), None, area)
    if not 0 <= labels.min() <= labels.max() < means.shape[1]:
        return None
    found = measure_classes(means, labels)
    assert found.right is not None
    assert found.auc is not None, "there are two classes"
    return OwnAccuracy(len(rows), 100 * found.right / len(rows), found.auc)


def _inferences(folder: Path, row: Sequence[str]) -> int:
    """Return how many windows the runner makes of a file."""
    if len(row) <= _STRIDE_COLUMN or not row[_STRIDE_COLUMN]:
        return 1
    size = (folder / row[0]).stat().st_size
    return max(0, (size - int(row[_BYTES_COLUMN])) // int(row[_STRIDE_COLUMN]) + 1)
