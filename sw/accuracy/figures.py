"""Top-1 accuracy, confusion and AUC, of what an output's shape allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.accuracy.labels import Labels
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.program.tensors import TensorInfo
from celosia.sw.report.samples import Sample

__all__ = ["Accuracy", "Kind", "auc", "kind_of", "measure", "measure_classes"]

Reals = npt.NDArray[np.float64]
TWO = 2
_THRESHOLD = 0.5
"""Of a probability: from here on the answer is class 1."""


class Kind(StrEnum):
    """What an output is taken for."""

    CLASSES = "classes"
    """A score of each class: the greatest is the answer."""
    SCORE = "score"
    """One number: the greater, the more likely class 1."""
    RECONSTRUCTION = "reconstruction"
    """The input again: the worse, the more likely an anomaly, class 1."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How well some labelled samples were answered.

    Attributes
    ----------
    kind : Kind
        What the output was taken for.
    samples, classes : int
        How many there are.
    right, tied : int or None
        Samples whose answer is their label; those of which another class has the same highest
        score, so that the first counted. None where an output gives no answer, only a score.
    confusion : ndarray of int64, shape [classes, classes], or None
        Samples by label (row) and answer (column).
    auc : float or None
        Area under the ROC curve, ties counted half; with more than two classes the mean of each
        class against the rest. None if it needs samples of a class that has none.
    auc_classes : int
        Classes in that mean.
    """

    kind: Kind
    samples: int
    classes: int
    right: int | None
    tied: int | None
    confusion: npt.NDArray[np.int64] | None
    auc: float | None
    auc_classes: int

    @property
    def top1(self) -> float | None:
        """Share of right answers."""
        return None if self.right is None else self.right / self.samples

    def figures(self) -> dict[str, object]:
        """Return the figures for JSON."""
        return {
            "kind": self.kind.value,
            "samples": self.samples,
            "classes": self.classes,
            "right": self.right,
            "tied": self.tied,
            "top1": self.top1,
            "auc": self.auc,
            "auc_classes": self.auc_classes,
            "confusion": None if self.confusion is None else self.confusion.tolist(),
        }


def kind_of(program: Program, labels: Labels) -> Kind:
    """Return what a program's output is taken for, before anything runs.

    Raises
    ------
    InputError
        If accuracy means nothing for its outputs, or a label is beyond its classes.
    """
    if len(program.outputs) != 1:
        raise InputError(
            "--labels",
            f"the model has {len(program.outputs)} outputs: it is not clear which one answers",
            "leave --labels out and judge what --save writes",
        )
    size = _size(program.outputs[0], program.batch)
    most = int(labels.max())
    same = len(program.inputs) == 1 and _size(program.inputs[0], program.batch) == size
    if size > TWO and same and most < TWO:
        return Kind.RECONSTRUCTION
    classes = max(size, TWO)
    if most >= classes:
        raise InputError(
            "--labels",
            f"label {most} is there, but the output has {size} value{'s'[: size > 1]}: classes 0 to"
            f" {classes - 1}",
            "check that the labels are of this model, and numbered from 0",
        )
    return Kind.CLASSES if size > 1 else Kind.SCORE


def measure(
    program: Program, samples: Sequence[Sample], results: Sequence[Result], labels: Labels
) -> Accuracy:
    """Compare what a program answered with the labels.

    Parameters
    ----------
    program : Program
        What was run.
    samples, results : sequence
        Of each run, in order; of a batch, several samples along the first axis.
    labels : ndarray of int64
        Class of each sample.

    Raises
    ------
    InputError
        As of `kind_of`.
    """
    kind = kind_of(program, labels)
    out = program.outputs[0]
    raw = np.concatenate(
        [result.outputs[out.name].reshape(program.batch, -1) for result in results]
    )
    assert len(raw) == len(labels), "one label a sample"
    if kind is Kind.CLASSES:
        return measure_classes(raw, labels)
    if kind is Kind.SCORE:
        return _score(out, raw[:, 0], labels)
    given = np.concatenate(
        [sample[program.inputs[0].name].reshape(program.batch, -1) for sample in samples]
    )
    error = (_real(program.inputs[0], given) - _real(out, raw)) ** 2
    return _two_classes(Kind.RECONSTRUCTION, error.mean(axis=1), labels, None)


def auc(scores: Reals, positive: npt.NDArray[np.bool_]) -> float | None:
    """Return the chance that a positive sample's score is above a negative one's, ties half.

    That is the area under the ROC curve (Mann and Whitney's U over the number of pairs).

    Parameters
    ----------
    scores : ndarray, shape [samples]
        The greater, the more likely positive.
    positive : ndarray of bool, shape [samples]
        What the samples are.

    Returns
    -------
    float or None
        None without a sample of either kind.
    """
    wanted = int(positive.sum())
    others = len(scores) - wanted
    if not wanted or not others:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # the mean of the ranks that ties share, from 1
    above = rank[place][positive].sum() - wanted * (wanted + 1) / 2
    return float(above / (wanted * others))


def measure_classes(scores: npt.NDArray[np.generic], labels: Labels) -> Accuracy:
    """Compare a score of each class with the labels.

    Parameters
    ----------
    scores : ndarray, shape [samples, classes]
        The greatest is the answer.
    labels : ndarray of int64, shape [samples]
        Class of each sample.
    """
    values = scores.astype(np.float64)
    classes = values.shape[1]
    answers = values.argmax(axis=1)
    highest = values == values.max(axis=1, keepdims=True)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, answers), 1)
    if classes == TWO:
        found = [auc(values[:, 1] - values[:, 0], labels == 1)]
    else:
        found = [auc(values[:, one], labels == one) for one in range(classes)]
    areas = [area for area in found if area is not None]
    return Accuracy(
        kind=Kind.CLASSES,
        samples=len(labels),
        classes=classes,
        right=int((answers == labels).sum()),
        tied=int((highest.sum(axis=1) > 1).sum()),
        confusion=confusion,
        auc=float(np.mean(areas)) if areas else None,
        auc_classes=len(areas),
    )


def _score(out: TensorInfo, raw: npt.NDArray[np.generic], labels: Labels) -> Accuracy:
    real = _real(out, raw)
    # Only what TFLite's logistic gives is known to be a probability.
    probability = out.scale == 1 / 256 and out.zero_point == -128
    return _two_classes(Kind.SCORE, real, labels, real >= _THRESHOLD if probability else None)


def _two_classes(
    kind: Kind, scores: Reals, labels: Labels, answers: npt.NDArray[np.bool_] | None
) -> Accuracy:
    confusion = None
    if answers is not None:
        confusion = np.zeros((TWO, TWO), np.int64)
        np.add.at(confusion, (labels, answers.astype(np.int64)), 1)
    return Accuracy(
        kind=kind,
        samples=len(labels),
        classes=TWO,
        right=None if confusion is None else int(np.trace(confusion)),
        tied=None if confusion is None else 0,
        confusion=confusion,
        auc=auc(scores, labels == 1),
        auc_classes=1,
    )


def _size(info: TensorInfo, batch: int) -> int:
    return int(np.prod(info.shape)) // batch


def _real(info: TensorInfo, values: npt.NDArray[np.generic]) -> Reals:
    wide = values.astype(np.float64)
    return (wide - info.zero_point) * info.scale if info.scale > 0 else wide
