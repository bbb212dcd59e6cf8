"""Accuracy in lines of at most 80 columns."""

from __future__ import annotations

import numpy as np
from celosia.sw.accuracy.figures import TWO, Accuracy, Kind

__all__ = ["accuracy_lines"]

WIDTH = 80
MOST_PAIRS = 10
_SCORES = {
    Kind.SCORE: "the output, class 1 the higher",
    Kind.RECONSTRUCTION: "mean squared difference of output and input, class 1 the higher",
}


def accuracy_lines(accuracy: Accuracy) -> list[str]:
    """Return what `celosia run --labels` prints."""
    lines = []
    if accuracy.right is not None:
        share = 100 * accuracy.right / accuracy.samples
        lines.append(
            f"top-1 accuracy: {accuracy.right:,} of {accuracy.samples:,} right, {share:.1f} %"
        )
    if accuracy.tied:
        lines.append(
            f"{accuracy.tied:,} of them share the highest score with another class; the first"
            " counts"
        )
    lines.append(_auc_line(accuracy))
    if accuracy.right is None:
        lines.append("no top-1: a score alone gives no answer, a threshold is the user's choice")
    if accuracy.confusion is not None:
        lines += _matrix(accuracy) or _pairs(accuracy)
    return lines


def _auc_line(accuracy: Accuracy) -> str:
    if accuracy.auc is None:
        return "AUC: none, samples of one class alone have no curve"
    text = f"AUC: {accuracy.auc:.4f}"
    if accuracy.kind in _SCORES:
        return f"{text} (score: {_SCORES[accuracy.kind]})"
    if accuracy.classes > TWO:
        return f"{text} (mean over {accuracy.auc_classes} classes, each against the rest)"
    return text


def _matrix(accuracy: Accuracy) -> list[str]:
    """Return the confusion as a table; nothing if it is too wide."""
    assert accuracy.confusion is not None
    numbers = range(accuracy.classes)
    cell = max(len(str(int(accuracy.confusion.max()))), len(str(accuracy.classes - 1))) + 1
    head = len("label ") + len(str(accuracy.classes - 1))
    if head + cell * accuracy.classes > WIDTH:
        return []
    lines = ["confusion: samples by label (line) and answer (column)"]
    lines.append(" " * head + "".join(f"{number:>{cell}}" for number in numbers))
    for number, row in zip(numbers, accuracy.confusion, strict=True):
        cells = "".join(f"{count or '.':>{cell}}" for count in row.tolist())
        lines.append(f"label {number:>{head - len('label ')}}{cells}")
    return lines


def _pairs(accuracy: Accuracy) -> list[str]:
    """Return which labels were most often taken for which other class."""
    assert accuracy.confusion is not None
    wrong = accuracy.confusion.copy()
    np.fill_diagonal(wrong, 0)
    most = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [(int(place) // accuracy.classes, int(place) % accuracy.classes) for place in most]
    lines = [f"most confused, of {accuracy.classes} classes:"]
    for label, answer in pairs:
        if wrong[label, answer]:
            of = int(accuracy.confusion[label].sum())
            lines.append(f"  label {label} taken for {answer}: {wrong[label, answer]} of {of}")
    return lines if len(lines) > 1 else []
