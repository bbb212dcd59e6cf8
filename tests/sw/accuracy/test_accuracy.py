"""Accuracy of labelled samples: what is read, counted and printed; several processes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import pytest
from celosia.errors import CelosiaError, InputError
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.accuracy.figures import Accuracy, Kind, auc, kind_of, measure
from celosia.sw.accuracy.folder import load_file
from celosia.sw.accuracy.inputs import labelled_samples
from celosia.sw.accuracy.labels import labels_in_order
from celosia.sw.accuracy.table import accuracy_lines
from celosia.sw.accuracy.workers import require_independent, run_in_processes
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.report.samples import random_samples
from celosia.sw.runtime.session import Session

from tests.kit.command_line import run_cli
from tests.kit.places import DIGITS, SAMPLES
from tests.kit.stateful_models import window_model

BASE = preset("base")


def dense(inputs: int, outputs: int, *, scale: float = 0.5, zero_point: int = 3) -> Program:
    b = ModelBuilder()
    x = b.input((1, inputs), scale=0.25, zero_point=-1)
    weights = np.random.default_rng(0).integers(-127, 128, (outputs, inputs), np.int8)
    y = b.fully_connected(x, weights, None, w_scales=0.01, scale=scale, zero_point=zero_point)
    return compile_model(b.finish([y]), BASE)


def answers(program: Program, outputs: Any) -> list[Result]:
    name = program.outputs[0].name
    return [Result(outputs={name: np.array([row], np.int8)}) for row in outputs]


# ------------------------------------------------------------------------------- figures


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        scores = rng.integers(0, 9, 40).astype(np.float64)
        positive = rng.random(40) < 0.4
        pairs = [
            1.0 if a > b else 0.5 if a == b else 0.0
            for a in scores[positive]
            for b in scores[~positive]
        ]
        assert auc(scores, positive) == pytest.approx(np.mean(pairs))
    assert auc(scores, np.ones(40, np.bool_)) is None


def test_classes_are_counted_with_their_ties() -> None:
    program = dense(4, 3)
    labels = np.array([0, 1, 2, 2])
    got = answers(program, [[9, 1, 2], [7, 7, 0], [0, 5, 6], [1, 2, 0]])
    found = measure(program, [], got, labels)
    assert (found.kind, found.right, found.tied) == (Kind.CLASSES, 2, 1)
    assert found.confusion is not None
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    # Of class 0: 3 of 3 pairs; of 1: 3; of 2: one sample above the two others, one equal to one.
    assert found.auc == pytest.approx((1 + 1 + (2 + 0.5) / 4) / 3)
    assert (found.auc_classes, found.top1) == (3, 0.5)


def test_one_value_is_a_score_and_an_answer_only_as_a_probability() -> None:
    labels = np.array([0, 1, 1])
    plain = dense(4, 1)
    found = measure(plain, [], answers(plain, [[-5], [7], [-6]]), labels)
    assert (found.kind, found.right, found.auc) == (Kind.SCORE, None, 0.5)
    assert any("no top-1" in line for line in accuracy_lines(found))
    sigmoid = dense(4, 1, scale=1 / 256, zero_point=-128)
    found = measure(sigmoid, [], answers(sigmoid, [[-1], [0], [-100]]), labels)
    assert (found.right, found.auc) == (2, 0.5)


def test_an_output_like_the_input_is_a_reconstruction() -> None:
    program = dense(4, 4)
    name = program.inputs[0].name
    given = [[-1, -1, -1, -1], [3, -1, -1, -1], [-1, -1, 7, -1]]
    samples = [{name: np.array([row], np.int8)} for row in given]
    # Real outputs 0: the error is the square of what was given, 0, 1/4 and 1.
    got = answers(program, [[3] * 4] * 3)
    found = measure(program, samples, got, np.array([0, 0, 1]))
    assert (found.kind, found.auc, found.right) == (Kind.RECONSTRUCTION, 1.0, None)
    assert "squared difference" in accuracy_lines(found)[0]
    assert measure(program, samples, got, np.array([0, 1, 0])).auc == 0.5
    # With more than two classes the same shape is a classifier's.
    assert kind_of(program, np.array([0, 3])) is Kind.CLASSES
    with pytest.raises(InputError, match="label 4 is there, but the output has 4 values"):
        kind_of(program, np.array([0, 4]))


@pytest.mark.parametrize("classes", [2, 12, 60])
def test_confusion_is_readable_in_80_columns(classes: int) -> None:
    confusion = np.zeros((classes, classes), np.int64)
    np.fill_diagonal(confusion, 1000)
    confusion[1, 0], confusion[0, classes - 1] = 77, 5
    found = Accuracy(
        kind=Kind.CLASSES, samples=int(confusion.sum()), classes=classes,
        right=int(np.trace(confusion)), tied=3, confusion=confusion, auc=0.5, auc_classes=classes,
    )  # fmt: skip
    lines = accuracy_lines(found)
    assert max(map(len, lines)) <= 80
    if classes == 60:
        assert lines[-2:] == [
            "  label 1 taken for 0: 77 of 1077",
            "  label 0 taken for 59: 5 of 1005",
        ]
    else:
        assert lines[-classes].split() == ["label", "0", "1000", *["."] * (classes - 2), "5"]


# ------------------------------------------------------------------------------- files


def test_labels_that_are_wrong_say_so(tmp_path: Path) -> None:
    def text(name: str, content: str) -> Path:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return tmp_path / name

    program = dense(4, 3)
    folder = tmp_path / "inputs"
    folder.mkdir()
    for number in range(3):
        np.full((1, 4), number, np.int8).tofile(folder / f"{number}.bin")
    (folder / "y.csv").write_text("2.bin, 3, 0\n0.bin, 3, 2\n1.bin, 3, 1\n", encoding="utf-8")
    samples, labels = labelled_samples(program, folder, folder / "y.csv")
    assert labels is not None
    assert [int(sample[program.inputs[0].name][0, 0]) for sample in samples] == [0, 1, 2]
    assert labels.tolist() == [2, 1, 0]
    headed = text("headed.csv", "file,class\n0.bin,0\n1.bin,2\n2.bin,1\n")
    of_heading = labelled_samples(program, folder, headed)[1]
    assert of_heading is not None
    assert of_heading.tolist() == [0, 2, 1]
    np.savez(tmp_path / "l.npz", labels=np.array([2, 0, 1]), other=np.zeros(9))
    assert labels_in_order(tmp_path / "l.npz").tolist() == [2, 0, 1]
    np.save(tmp_path / "float.npy", np.zeros(3))
    np.save(tmp_path / "inputs.npy", np.zeros((3, 4), np.int8))
    for path, labels_path, words in (
        (folder, text("a.csv", "0.bin,0\n1.bin,1\n"), "no class for '2.bin'"),
        (folder, text("b.csv", "0.bin,0\n1.bin,1\n2.bin,1\nx.bin,1\n"), "has no file 'x.bin'"),
        (folder, text("c.csv", "0.bin,0\n0.bin,1\n"), "line 2.*is there twice"),
        (folder, text("d.csv", "0.bin,0\n1.bin,cat\n"), "line 2.*'cat' is no class"),
        (folder, text("e.txt", "0\n1\n"), "has 2 labels, .* has 3 samples"),
        (folder, text("f.txt", "0\n-1\n1\n"), "line 2.*'-1' is no class"),
        (folder, tmp_path / "float.npy", "is float64"),
        (folder, tmp_path / "none.txt", "No such file"),
        (tmp_path / "inputs.npy", folder / "y.csv", "is no folder"),
    ):
        with pytest.raises(InputError, match=words):
            labelled_samples(program, path, labels_path)


def test_files_of_a_folder_that_are_wrong_say_so(tmp_path: Path) -> None:
    program = dense(4, 3)
    inputs, name = program.inputs, program.inputs[0].name
    raw = tmp_path / "a.bin"
    raw.write_bytes(bytes([0, 128, 255, 1]))
    assert load_file(inputs, raw)[name].tolist() == [[0, -128, -1, 1]]
    assert load_file(inputs, raw, pixels=True)[name].tolist() == [[-128, 0, 127, -127]]
    np.array([0.0, 0.25, -0.5, 99], "<f4").tofile(raw)
    assert load_file(inputs, raw, quantize=True)[name].tolist() == [[-1, 0, -3, 127]]
    with pytest.raises(InputError, match="16 bytes, .* takes 4"):
        load_file(inputs, raw)
    np.save(tmp_path / "two.npy", np.zeros((2, 1, 4), np.int8))
    with pytest.raises(InputError, match="holds 2 samples"):
        load_file(inputs, tmp_path / "two.npy")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match="has no file that ends in"):
        labelled_samples(program, tmp_path / "pictures", None)


# ------------------------------------------------------------------------------- processes


def test_processes_give_what_one_gives_and_none_is_left() -> None:
    program = dense(4, 3)
    samples = random_samples(program, 7, 0)
    with celosia.open("emu", BASE) as device, Session(program, device) as session:
        single = list(session.run_many(samples))
    done: list[int] = []
    opener = partial(celosia.open, "emu", BASE)
    found = run_in_processes(program, opener, samples, 2, done.append)
    assert [r.output.tolist() for r in found] == [r.output.tolist() for r in single]
    assert done[-1] == len(samples)
    assert not multiprocessing.active_children()
    failing: Callable[[], Any] = partial(celosia.open, "emu", BASE, memory_bytes=64)
    with pytest.raises(CelosiaError, match="bytes of system memory, there are 64"):
        run_in_processes(program, failing, samples, 2, done.append)

    def interrupted(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_processes(program, opener, samples, 2, interrupted)
    assert not multiprocessing.active_children()


# ------------------------------------------------------------------------------- the command


def test_run_prints_accuracy_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with np.load(SAMPLES) as digits:
        inputs, labels = digits["inputs"], digits["labels"]
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "y.npy", labels)
    run = partial(run_cli, "run", DIGITS, "--device", "emu")
    json_file = tmp_path / "r.json"
    given = ("--input", tmp_path / "x.npy", "--labels", tmp_path / "y.npy")
    result = run(*given, "--json", json_file)
    assert result.exit_code == 0, result.output
    assert "top-1 accuracy: 19 of 20 right, 95.0 %" in result.output
    figures = json.loads(json_file.read_text(encoding="utf-8"))["accuracy"]
    assert (figures["right"], figures["classes"], figures["top1"]) == (19, 10, 0.95)
    assert np.sum(figures["confusion"]) == 20
    assert np.trace(figures["confusion"]) == 19
    for arguments, words in (
        (("--labels", tmp_path / "y.npy"), "--labels: they are of the samples of an --input"),
        ((*given, "--random", "2"), "without --random"),
        ((*given, "--pixels"), "it is about .bin files"),
        ((*given, "--jobs", "2", "--check"), "--jobs: a check is one process"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.output.split())


def test_a_model_with_variables_is_a_sequence() -> None:
    program = compile_model(window_model(), BASE)
    with pytest.raises(InputError, match="keeps state"):
        require_independent(program)
