"""Inputs of a run: from ``.npy`` and ``.npz`` files, or random."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.driver.inputs import quantize_array
from celosia.sw.program.file import Program
from celosia.sw.program.tensors import TensorInfo

__all__ = [
    "Sample",
    "in_turn",
    "load_labels",
    "load_samples",
    "random_samples",
    "read_arrays",
    "read_file",
    "typed",
]

Array = npt.NDArray[Any]
MOST_INDEX = 3
"""Of the random numbers of something."""
Sample = dict[str, Array]
"""One inference's inputs, by tensor name."""


def random_samples(program: Program, count: int, seed: int) -> list[Sample]:
    """Draw inputs, uniform over all values of their type.

    Floats are drawn from what the int8 tensor that they are converted to can say, and a little
    beyond. Wide integers without a scale are numbers of something (of words, of rows): small ones
    are drawn, which exist.

    Parameters
    ----------
    program : Program
        What they are for.
    count : int
        Inferences.
    seed : int
        Sample i depends on the seed and i alone, so more samples begin with the same ones.
    """
    samples, inner = [], program.inner
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        samples.append(
            {info.name: _random(rng, info, inner.get(info.name)) for info in program.inputs}
        )
    return samples


def _random(rng: np.random.Generator, info: TensorInfo, inner: TensorInfo | None) -> Array:
    kind = np.dtype(info.dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, info.shape).astype(kind)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        low, high = int(limits.min), int(limits.max)
        if kind.itemsize > 2:  # beyond what an int8 tensor can say there is little to see
            low, high = (-1000, 1000) if info.scale or inner is not None else (0, MOST_INDEX)
        return rng.integers(low, high + 1, info.shape, dtype=kind)
    if inner is None:
        return rng.standard_normal(info.shape).astype(kind)
    steps = rng.uniform(-130, 130, info.shape) - inner.zero_point
    return (steps * inner.scale).astype(kind)


def load_samples(
    inputs: Sequence[TensorInfo],
    path: Path,
    *,
    array: str | None = None,
    quantize: bool = False,
    batch: int = 1,
) -> list[Sample]:
    """Read the inputs of one or many inferences.

    Parameters
    ----------
    inputs : sequence of TensorInfo
        The model's inputs.
    path : Path
        ``.npy`` (models with one input) or ``.npz`` (arrays by tensor name; with one input its
        only array serves).
    array : str, optional
        The array of the ``.npz`` to take, for a model with one input.
    quantize : bool
        Whether floats are quantised with the model's parameters.
    batch : int
        Samples of a run, which the inputs have along their first axis.

    Returns
    -------
    list of dict
        One entry a run. An array of the input's shape is one sample; with one more leading
        dimension, or more than one entry in the batch dimension, it is as many as it has entries.

    Raises
    ------
    InputError
        If the file cannot be read or does not fit the model.
    """
    arrays = read_arrays(inputs, path, array)
    split = {
        info.name: _split(info, arrays[info.name], path, quantize=quantize, batch=batch)
        for info in inputs
    }
    return in_turn(split, path, "samples")


def in_turn(parts: Mapping[str, Sequence[Array]], path: Path, kind: str) -> list[Sample]:
    """Return one entry a run of what each input has, one after the other.

    Parameters
    ----------
    parts : mapping of str to sequence of ndarray
        By input name.
    path : Path
        The file that they are from.
    kind : str
        What a run takes, in the plural.

    Raises
    ------
    InputError
        If there are none, or not equally many of each input.
    """
    counts = {name: len(values) for name, values in parts.items()}
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise InputError(
            f"input file {path}", f"different numbers of {kind}: {listed}", "give equally many"
        )
    number = next(iter(counts.values()))
    if number == 0:
        raise InputError(f"input file {path}", f"it has no {kind}", "give at least one")
    return [{name: parts[name][index] for name in parts} for index in range(number)]


def load_labels(path: Path, count: int) -> npt.NDArray[np.int64] | None:
    """Return the array ``labels`` of an ``.npz`` that `load_samples` has read, if it fits.

    Parameters
    ----------
    path : Path
        The file.
    count : int
        Samples in it.

    Returns
    -------
    ndarray of int64, shape [count], or None
        The class of each sample; None when the file has no such array.
    """
    content = np.load(path, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return None
    with content:
        labels = content["labels"] if "labels" in content.files else None
    if labels is None or labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        return None
    return np.asarray(labels, np.int64)


def read_file(path: Path) -> Sample | Array:
    """Read an ``.npy``, or all arrays of an ``.npz`` by name.

    Raises
    ------
    InputError
        If it is neither.
    """
    if not path.is_file():
        cause = "it is not a regular file" if path.exists() else "there is no such file"
        raise InputError(f"cannot read input {path}", cause, "check the path")
    try:
        with path.open("rb") as file:
            # Never pickles: a data file must not run code.
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return content
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"cannot read input {path}",
            f"not a NumPy array file ({error})",
            "write it with numpy.save or numpy.savez",
        ) from None


def read_arrays(inputs: Sequence[TensorInfo], path: Path, array: str | None) -> Sample:
    """Read one array for each input of a model.

    Parameters
    ----------
    inputs : sequence of TensorInfo
        The inputs.
    path : Path
        ``.npy`` for one input, or ``.npz``.
    array : str, optional
        The array of the ``.npz`` to take for one input.

    Raises
    ------
    InputError
        If the file cannot be read, or it is not clear which array is whose.
    """
    loaded = read_file(path)
    names = [info.name for info in inputs]
    if isinstance(loaded, np.ndarray):
        if len(names) != 1:
            listed = ", ".join(map(repr, names))
            raise InputError(
                f"input file {path}",
                f"it holds one array, the model has {len(names)} inputs",
                f"give an .npz with arrays {listed}",
            )
        return {names[0]: loaded}
    return _choose(names, loaded, path, array)


def _choose(names: list[str], loaded: Sample, path: Path, array: str | None) -> Sample:
    present = ", ".join(map(repr, loaded)) or "none"
    if array is not None:
        if array not in loaded or len(names) != 1:
            cause = (
                f"it has no array {array!r}; it has {present}"
                if array not in loaded
                else f"the model has {len(names)} inputs"
            )
            raise InputError(f"input file {path}", cause, "choose another --array, or name none")
        return {names[0]: loaded[array]}
    if all(name in loaded for name in names):
        return {name: loaded[name] for name in names}
    if len(names) == len(loaded) == 1:
        return {names[0]: next(iter(loaded.values()))}
    wanted = ", ".join(map(repr, names))
    remedy = "choose one with --array" if len(names) == 1 else "name the arrays after the inputs"
    raise InputError(
        f"input file {path}", f"it has arrays {present}, the model's inputs are {wanted}", remedy
    )


def _split(
    info: TensorInfo, values: Array, path: Path, *, quantize: bool, batch: int
) -> list[Array]:
    values = typed(info, values, path, quantize=quantize)
    shape = tuple(info.shape)
    if values.shape == shape:
        return [values]
    if values.shape[1:] == shape:
        return list(values)
    if batch == 1 and shape[:1] == (1,) and values.shape[1:] == shape[1:]:
        return [entry[np.newaxis] for entry in values]
    if batch > 1 and values.shape[1:] == shape[1:] and len(values) % shape[0] == 0:
        return np.split(values, len(values) // shape[0])
    if (1, *values.shape) == shape:
        return [values[np.newaxis]]
    raise InputError(
        f"input file {path}",
        f"input {info.name!r} has shape {list(shape)}, the array {list(values.shape)}",
        f"give {list(shape)}, or [samples, {', '.join(map(str, shape))}]",
    )


def typed(info: TensorInfo, values: Array, path: Path, *, quantize: bool) -> Array:
    """Return an array of a file in the element type of an input.

    Raises
    ------
    InputError
        If it has another one, and may not be converted.
    """
    what = f"input file {path}"
    floating = np.issubdtype(np.dtype(info.dtype), np.floating)
    if floating and np.issubdtype(values.dtype, np.floating):
        values = values.astype(info.item)
    elif np.issubdtype(values.dtype, np.floating):
        if not quantize:
            raise InputError(
                what,
                f"input {info.name!r} is {info.dtype}, the array is {values.dtype}",
                "quantise it first, or add --quantize to do so with the model's parameters",
            )
        values = quantize_array(info, values)
    elif values.dtype != np.dtype(info.dtype):
        raise InputError(
            what,
            f"input {info.name!r} is {info.dtype}, the array is {values.dtype}",
            f"convert it to {info.dtype}",
        )
    return values
