"""What `mlperf-run` computes itself, against what `run --labels` does of the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from celosia.sw.accuracy.figures import measure_classes
from celosia.sw.mlperf.truth import TRUTH, own_accuracy


def write(folder: Path, text: str) -> None:
    (folder / TRUTH).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("classes", [2, 5])
def test_figures_are_those_of_the_command_run(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, 2, 40)
    # Coarse, so that there are ties; two scores are not each other's complement.
    scores = rng.integers(0, 6, (40, classes)) / 8 + np.eye(classes)[labels] / 4
    write(tmp_path, "".join(f"{i}.bin,{classes},{label}\n" for i, label in enumerate(labels)))
    # The public runner takes shares of a sample's sum.
    shares = np.array([[score / sum(row) for score in row] for row in scores.tolist()])
    own, wanted = own_accuracy(tmp_path, scores.tolist()), measure_classes(shares, labels)
    assert own is not None
    assert wanted.right is not None
    assert (own.inputs, own.auc, own.top1_percent) == (40, wanted.auc, 100 * wanted.right / 40)


def test_windows_of_a_file_are_averaged(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(12))
    (tmp_path / "b.bin").write_bytes(bytes(8))
    write(tmp_path, "a.bin, 2, 0, 8, 4\nb.bin, 2, 1, 8, 4\n")
    # Of a.bin 1 and 4, which is above b.bin's 2.
    own = own_accuracy(tmp_path, [[1.0], [4.0], [2.0]])
    assert own is not None
    assert (own.inputs, own.top1_percent, own.auc) == (2, None, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "0.bin,3,0\n1.bin,3,2\n",  # one score is for class 1, which is not there
        "0.bin,3,0\n1.bin\n",
        "0.bin,3,0\n1.bin,3,cat\n",
        f"0.bin,3,0\n1.bin,3,{10**30}\n",
        f"0.bin,3,0\n1.bin,3,1,{'9' * 200_000}\n",
        "0.bin,3,0\n1.bin,3,1\n2.bin,3,1\n",
        "",
    ],
)
def test_a_data_set_that_says_nothing_gives_no_figures(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    assert own_accuracy(tmp_path, [[0.5], [0.25]]) is None
