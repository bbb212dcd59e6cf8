"""Keras models to int8 ``.tflite`` files, by TensorFlow's converter.

TensorFlow is imported when a model is converted, and not before: nothing else needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError, InputError, ModelError

__all__ = ["EXTRA", "convert_keras"]

Array: TypeAlias = npt.NDArray[Any]
EXTRA = "celosia[keras]"


def convert_keras(model: Any, samples: Any) -> bytes:
    """Convert a Keras model as the NPU wants it: int8 throughout, a batch of one.

    The converter's full integer quantisation (TensorFlow, "Post-training quantization", "Full
    integer quantization"): inputs and outputs are int8, the ranges of activations are those that
    `samples` give, weights have a scale for each output channel.

    Parameters
    ----------
    model : keras.Model
        With the shapes of its inputs known, all but the batch.
    samples : array, [count, ...], or sequence of arrays
        Typical inputs; for a model with several inputs one array for each, in their order.

    Raises
    ------
    CelosiaError
        If TensorFlow is not installed.
    ModelError
        If it is no Keras model, a shape is not known, or the converter refuses it.
    InputError
        If the samples are not those of the model's inputs.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise CelosiaError(
            "a Keras model",
            f"TensorFlow cannot be imported ({error})",
            f'install it: pip install "{EXTRA}"',
        ) from None
    inputs = _inputs(model)
    arrays = _samples(samples, inputs)
    single = _of_one_sample(tf, model, inputs)

    def representative() -> Iterator[list[Array]]:
        for index in range(len(arrays[0])):
            yield [array[index][None] for array in arrays]

    converter = tf.lite.TFLiteConverter.from_keras_model(single)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    try:
        return bytes(converter.convert())
    except Exception as error:  # of many types, most of them the converter's own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            _name(model),
            f"TensorFlow's converter does not make it int8: {lines[0]}",
            "look at the layers that it names; the whole message is this error's __cause__",
        ) from error


def _name(model: Any) -> str:
    return f"Keras model {getattr(model, 'name', type(model).__name__)!r}"


def _inputs(model: Any) -> list[Any]:
    """Return the model's inputs."""
    try:
        inputs = list(model.inputs or ())
    except (AttributeError, ValueError, TypeError):
        inputs = []
    if not inputs:
        raise ModelError(
            _name(model),
            "it is no Keras model whose inputs are known",
            "begin it with keras.Input(shape), or call it once",
        )
    for number, each in enumerate(inputs):
        if any(size is None for size in each.shape[1:]):
            raise ModelError(
                _name(model),
                f"input {number} has a free dimension: {_shape(each)}",
                "give keras.Input all sizes but the batch",
            )
        if each.shape[0] not in (None, 1):
            raise ModelError(
                _name(model),
                f"input {number} has a batch of {each.shape[0]}",
                "make it with a free batch; celosia compile --batch makes larger ones",
            )
    return inputs


def _shape(each: Any) -> str:
    sizes = ("free" if size is None else str(size) for size in each.shape[1:])
    return f"[{', '.join(sizes)}]"


def _samples(samples: Any, inputs: Sequence[Any]) -> list[Array]:
    """Return an array for each input, of the input's type."""
    given = [samples] if len(inputs) == 1 else samples
    if not isinstance(given, tuple | list) or len(given) != len(inputs):
        raise InputError(
            "samples",
            f"the model has {len(inputs)} inputs",
            "give a sequence with an array for each, in their order",
        )
    arrays = []
    for number, (each, values) in enumerate(zip(inputs, given, strict=True)):
        array = np.asarray(values)
        shape = tuple(int(size) for size in each.shape[1:])
        what = f"samples of input {number}"
        if array.dtype.kind not in "fiub":
            raise InputError(what, f"they are of type {array.dtype}", "give numbers")
        if array.shape[1:] != shape or not array.size:
            raise InputError(
                what,
                f"they have shape {list(array.shape)}, the input takes {_shape(each)}",
                f"give an array of shape [count, {', '.join(map(str, shape))}], count at least 1",
            )
        if not np.isfinite(array).all():
            raise InputError(what, "there is a NaN or an infinity in them", "remove it")
        arrays.append(array.astype(np.dtype(getattr(each.dtype, "as_numpy_dtype", each.dtype))))
    if len({len(array) for array in arrays}) > 1:
        raise InputError("samples", "the inputs have different numbers of them", "give as many")
    return arrays


def _of_one_sample(tf: Any, model: Any, inputs: Sequence[Any]) -> Any:
    """Return the model with a batch of one, so that no batch is computed at run time."""
    if all(each.shape[0] == 1 for each in inputs):
        return model
    ones = [
        tf.keras.Input(batch_shape=(1, *each.shape[1:]), dtype=each.dtype, name=each.name)
        for each in inputs
    ]
    return tf.keras.Model(ones, model(ones if len(ones) > 1 else ones[0]))
