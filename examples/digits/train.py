"""Train the digit classifier, quantise it to int8 and write the example's files.

Needs ``celosia[keras,check]`` and ``scikit-learn``; TensorFlow is large, so give them a virtual
environment of their own. scikit-learn carries the images inside its wheel: nothing is downloaded.
Two processor cores take half a minute.

The network has the parts of a real TinyML one at a size that a simulator runs in moments::

    16x16x1 -> conv 3x3 /2 -> 8x8x16
            -> depthwise 3x3, pointwise -> 8x8x32 --+
            -> depthwise 3x3, pointwise -> 8x8x32 --+ add (residual)
            -> depthwise 3x3 /2, pointwise -> 4x4x64
            -> average pool 4x4 -> 64 -> fully connected -> 10 -> softmax
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import celosia
import keras  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy as np
import numpy.typing as npt
import tensorflow as tf  # type: ignore[import-not-found,import-untyped,unused-ignore]
from evaluate import Quantised, score
from sklearn.datasets import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    load_digits,
)
from sklearn.model_selection import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    train_test_split,
)

__all__ = ["augment", "build_model", "load_split", "quantise", "upsample"]

SEED = 20
EPOCHS = 60
BATCH = 32
HELD_OUT_FRACTION = 0.2
SAMPLES_PER_CLASS = 2
CLASSES = 10

#: The operators the example promises to stay within.
OPERATORS = frozenset(
    {
        "ADD",
        "AVERAGE_POOL_2D",
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "RESHAPE",
        "SOFTMAX",
    }
)

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


def upsample(images: npt.NDArray[np.float64]) -> U8:
    """Double the sides of the 8x8 images, bilinear with half-pixel centres and clamped edges.

    Parameters
    ----------
    images : float64 [n, 8, 8]
        Ink counts from 0 to 16, as the data set has them.

    Returns
    -------
    uint8 [n, 16, 16]
        Brightness from 0 (paper) to 255 (ink).
    """
    side = images.shape[1]
    centres = np.clip((np.arange(2 * side) + 0.5) / 2 - 0.5, 0, side - 1)
    # Row i of the matrix is the triangle ("hat") around output pixel i's centre.
    weights = np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(side)))
    return np.rint(weights @ images @ weights.T * (255 / 16)).astype(np.uint8)


def load_split() -> tuple[U8, I64, U8, I64]:
    """Load the data set and hold out a fifth of it, the same proportion of every class.

    Returns
    -------
    train_images, train_labels, test_images, test_labels
        uint8 [n, 16, 16] and int64 [n] of 1437 training and 360 held-out images.
    """
    digits = load_digits()
    images, labels = upsample(digits.images), digits.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=HELD_OUT_FRACTION, random_state=SEED, stratify=labels
    )
    return train_images, train_labels, test_images, test_labels


def to_input(images: U8) -> F32:
    """Scale uint8 [n, 16, 16] to the float32 [n, 16, 16, 1] from 0 to 1 that the network takes."""
    return (images[..., None] / np.float32(255)).astype(np.float32)


def augment(inputs: F32, rng: np.random.Generator) -> F32:
    """Shift, fade and add noise, a fresh draw for every image.

    Parameters
    ----------
    inputs : float32 [n, 16, 16, 1]
        Network inputs from 0 to 1.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    float32 [n, 16, 16, 1]
        Shifted by up to two pixels each way, contrast 0.7 to 1, Gaussian noise of deviation
        0.04; again from 0 to 1.
    """
    reach = 2
    count, height, width, _ = inputs.shape
    padded = np.pad(inputs, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    out = np.empty_like(inputs)
    for i, (dy, dx) in enumerate(rng.integers(0, 2 * reach + 1, size=(count, 2))):
        out[i] = padded[i, dy : dy + height, dx : dx + width]
    out *= rng.uniform(0.7, 1.0, size=(count, 1, 1, 1)).astype(np.float32)
    out += rng.normal(0.0, 0.04, size=out.shape).astype(np.float32)
    return np.clip(out, 0.0, 1.0)


def build_model(batch: int | None = None) -> Any:
    """Build the float network of the module's docstring.

    Parameters
    ----------
    batch : int, optional
        The number of images to fix the input to; any number when not given.

    Returns
    -------
    keras.Model
        float32 [batch, 16, 16, 1] to class probabilities float32 [batch, 10]. Every convolution
        is without bias and followed by a batch normalisation, which the converter folds.
    """
    layers = keras.layers

    def norm(x: Any, name: str, *, relu: bool = True) -> Any:
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    def separable(x: Any, channels: int, name: str, *, stride: int = 1, relu: bool = True) -> Any:
        x = layers.DepthwiseConv2D(
            3, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise"
        )(x)
        x = norm(x, f"{name}_depthwise")
        x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise")(x)
        return norm(x, f"{name}_pointwise", relu=relu)

    image = keras.Input((16, 16, 1), batch_size=batch, name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = norm(x, "stem")
    x = separable(x, 32, "block1")
    # The branch ends without a ReLU, so that what is added may be negative.
    x = layers.Add(name="residual")([x, separable(x, 32, "block2", relu=False)])
    x = layers.ReLU(name="residual_relu")(x)
    x = separable(x, 64, "block3", stride=2)
    # Not GlobalAveragePooling2D, which becomes MEAN; nor Flatten, which may compute its shape.
    x = layers.AveragePooling2D(4, name="pool")(x)
    x = layers.Reshape((64,), name="features")(x)
    x = layers.Dropout(0.1, seed=SEED, name="dropout")(x)
    x = layers.Dense(CLASSES, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name="digits")


def train(model: Any, images: U8, labels: I64) -> None:
    """Train in place with Adam under a cosine schedule, a new augmentation every epoch.

    The number of epochs is fixed beforehand: nothing is selected by the held-out images.

    Parameters
    ----------
    model : keras.Model
        From `build_model`.
    images : uint8 [n, 16, 16]
    labels : int64 [n]
    """
    rng = np.random.default_rng(SEED)
    inputs = to_input(images)
    steps = EPOCHS * -(-len(inputs) // BATCH)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    for epoch in range(EPOCHS):
        history = model.fit(augment(inputs, rng), labels, batch_size=BATCH, verbose=0).history
        loss, accuracy = history["loss"][0], history["accuracy"][0]
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {loss:.4f}  accuracy {accuracy:.4f}")


def quantise(model: Any, calibration: F32) -> bytes:
    """Convert to a fully int8 ``.tflite`` with a batch of one.

    Parameters
    ----------
    model : keras.Model
        The trained float network.
    calibration : float32 [n, 16, 16, 1]
        Inputs from which the converter takes the ranges of the activations.

    Returns
    -------
    bytes
        The model file: int8 input and output, weights per channel, biases int32.
    """
    # Of fixed shape throughout, so that the converter has no batch size to compute at run time.
    single = build_model(batch=1)
    single.set_weights(model.get_weights())
    return celosia.from_keras(single, calibration)


def save_images(path: Path, quantised: Quantised, images: U8, labels: I64) -> None:
    """Write ``images`` uint8, ``inputs`` int8 and ``labels`` to a compressed ``.npz``.

    Parameters
    ----------
    path : Path
        File to write.
    quantised : Quantised
        Gives the input's scale and zero point.
    images : uint8 [n, 16, 16]
    labels : int64 [n]
    """
    inputs = quantised.to_int8(to_input(images))
    np.savez_compressed(path, images=images, inputs=inputs, labels=labels)


def main() -> None:
    """Train, quantise, measure and write ``digits_int8.tflite`` and ``samples.npz``."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Train the digit classifier.")
    parser.add_argument("--out", type=Path, default=here, help="folder to write to")
    parser.add_argument("--held-out", type=Path, help="also write the whole held-out split (.npz)")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    train_images, train_labels, test_images, test_labels = load_split()
    model = build_model()
    train(model, train_images, train_labels)

    content = quantise(model, to_input(train_images))
    quantised = Quantised(content)
    if unwanted := sorted(set(quantised.operators) - OPERATORS):
        raise SystemExit(f"the converter emitted {', '.join(unwanted)}: nothing was written")

    test_inputs = to_input(test_images)
    guesses = {
        "float": model.predict(test_inputs, verbose=0).argmax(axis=1),
        "int8": quantised.predict(quantised.to_int8(test_inputs)),
    }
    print(f"parameters: {model.count_params()}, file: {len(content)} bytes")
    for name, classes in guesses.items():
        print(f"{name}: {score(classes, test_labels)}")

    # The first of every class, right or wrong: picked, they would flatter the model.
    shown = np.sort(
        np.concatenate(
            [np.flatnonzero(test_labels == c)[:SAMPLES_PER_CLASS] for c in range(CLASSES)]
        )
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "digits_int8.tflite").write_bytes(content)
    save_images(arguments.out / "samples.npz", quantised, test_images[shown], test_labels[shown])
    if arguments.held_out is not None:
        save_images(arguments.held_out, quantised, test_images, test_labels)


if __name__ == "__main__":
    main()
