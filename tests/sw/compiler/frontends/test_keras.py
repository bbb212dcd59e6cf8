"""`celosia.from_keras`: TensorFlow gets the recipe, and a user's mistakes get words.

The recipe is tried on a stand-in that notes what it is asked for, and where TensorFlow is
installed, on TensorFlow.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import celosia
import numpy as np
import pytest
from celosia.errors import CelosiaError, InputError, ModelError


class Converter:
    """Stands for TFLiteConverter."""

    asked: Converter
    refuses: str = ""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.target_spec = SimpleNamespace()

    @classmethod
    def from_keras_model(cls, model: Any) -> Converter:
        cls.asked = cls(model)
        return cls.asked

    def convert(self) -> bytes:
        if self.refuses:
            raise RuntimeError(self.refuses)
        return b"the file"


def tensor(*shape: int | None, dtype: str = "float32") -> Any:
    return SimpleNamespace(shape=shape, dtype=dtype, name="x")


class Model:
    """Stands for a Keras model."""

    name = "stand-in"

    def __init__(self, *inputs: Any) -> None:
        self.inputs = list(inputs)

    def __call__(self, inputs: Any) -> Any:
        return ("called with", inputs)


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> type[Converter]:
    def make_input(batch_shape: tuple[int, ...], dtype: str, name: str) -> Any:
        return tensor(*batch_shape, dtype=dtype)

    monkeypatch.setattr(Converter, "refuses", "")
    stand_in = SimpleNamespace(
        int8="int8",
        keras=SimpleNamespace(Input=make_input, Model=lambda ins, out: (ins, out)),
        lite=SimpleNamespace(
            TFLiteConverter=Converter,
            Optimize=SimpleNamespace(DEFAULT="default"),
            OpsSet=SimpleNamespace(TFLITE_BUILTINS_INT8="int8 only"),
        ),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", stand_in)
    return Converter


def test_the_recipe_is_int8_throughout(converter: type[Converter], tmp_path: Path) -> None:
    samples = np.arange(5 * 12, dtype=np.float64).reshape(5, 4, 3), np.ones((5, 2), np.uint8)
    model = Model(tensor(None, 4, 3), tensor(None, 2))
    path = tmp_path / "model.tflite"
    assert celosia.from_keras(model, samples, path) == path.read_bytes() == b"the file"
    asked: Any = converter.asked
    assert asked.optimizations == ["default"]
    assert asked.target_spec.supported_ops == ["int8 only"]
    assert asked.inference_input_type == asked.inference_output_type == "int8"
    inputs, output = asked.model
    assert [one.shape for one in inputs] == [(1, 4, 3), (1, 2)]
    assert output == ("called with", inputs)
    steps = list(asked.representative_dataset())
    assert len(steps) == 5
    for index, (one, other) in enumerate(steps):
        np.testing.assert_array_equal(one, samples[0][index : index + 1])
        assert (one.dtype, other.shape, other.dtype) == (np.float32, (1, 2), np.float32)


ROWS = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("model", "samples", "kind", "words"),
    [
        ("a path", ROWS, ModelError, "it is no Keras model"),
        (Model(), ROWS, ModelError, "keras.Input"),
        (Model(tensor(None, None, 4)), ROWS, ModelError, "input 0 has a free dimension: [free, 4]"),
        (Model(tensor(8, 4)), ROWS, ModelError, "a batch of 8"),
        (Model(tensor(None, 4)), ROWS[0], InputError, "shape [4], the input takes [4]"),
        (Model(tensor(None, 4)), ROWS[:0], InputError, "count at least 1"),
        (Model(tensor(None, 4)), ROWS + np.nan, InputError, "a NaN"),
        (Model(tensor(None, 4)), ROWS.astype(str), InputError, "they are of type"),
        (Model(tensor(None, 4), tensor(None, 4)), ROWS, InputError, "the model has 2 inputs"),
        (Model(*[tensor(None, 4)] * 2), [ROWS, ROWS[:2]], InputError, "different numbers"),
    ],
)
def test_mistakes_are_named(
    converter: type[Converter],
    tmp_path: Path,
    model: Any,
    samples: Any,
    kind: type[CelosiaError],
    words: str,
) -> None:
    with pytest.raises(kind) as caught:
        celosia.from_keras(model, samples, tmp_path / "model.tflite")
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_converters_refusal_is_passed_on(converter: type[Converter], tmp_path: Path) -> None:
    converter.refuses = "no int8 kernel for FOO\nand a long trace"
    with pytest.raises(ModelError, match="'stand-in'.*no int8 kernel for FOO\\. Look") as caught:
        celosia.from_keras(Model(tensor(1, 4)), ROWS, tmp_path / "model.tflite")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not list(tmp_path.iterdir())


def test_without_tensorflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(CelosiaError, match=r'pip install "celosia\[keras\]"'):
        celosia.from_keras(Model(tensor(None, 4)), ROWS)


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs celosia[keras]")
@pytest.mark.filterwarnings("ignore")
def test_tensorflow_makes_what_the_npu_runs(tmp_path: Path) -> None:
    import tensorflow as tf

    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input((16, 16, 1)),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    path = tmp_path / "model.tflite"
    celosia.from_keras(model, np.random.default_rng(0).random((32, 16, 16, 1)), path)
    program = celosia.compile(path, host="refuse")
    assert [each.dtype for each in (*program.inputs, *program.outputs)] == ["int8", "int8"]
    assert program.inputs[0].shape == (1, 16, 16, 1)
    assert celosia.check(path).equal
