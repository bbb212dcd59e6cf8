"""Inputs from a folder with one file for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.sw.driver.inputs import centre_pixels
from celosia.sw.program.tensors import TensorInfo
from celosia.sw.report.samples import Sample, load_samples, typed

__all__ = ["SUFFIXES", "load_file", "sample_files"]

SUFFIXES = (".npy", ".bin")
_PICTURES = (".png", ".jpg", ".jpeg")


def sample_files(folder: Path) -> list[Path]:
    """Return the files of a folder that can be samples, by name.

    Raises
    ------
    InputError
        If there is none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        pictures = any(path.suffix.lower() in _PICTURES for path in folder.iterdir())
        raise InputError(
            f"input folder {folder}",
            f"it has no file that ends in {' or '.join(SUFFIXES)}",
            "convert the pictures to .npy, with the model's preprocessing"
            if pictures
            else "give one .npy, or one .bin of the input's bytes, for each sample",
        )
    return files


def load_file(
    inputs: Sequence[TensorInfo], path: Path, *, quantize: bool = False, pixels: bool = False
) -> Sample:
    """Read one sample.

    Parameters
    ----------
    inputs : sequence of TensorInfo
        The model's inputs.
    path : Path
        ``.npy`` as `load_samples` takes it; ``.bin`` (models with one input): the elements of the
        input, little-endian, without a header.
    quantize : bool
        Whether floats are quantised with the model's parameters; those of a ``.bin`` are float32.
    pixels : bool
        Whether the bytes of a ``.bin`` are uint8 pixels; int8 inputs get them less 128.

    Raises
    ------
    InputError
        If the file cannot be read, has another size, or holds not one sample.
    """
    if path.suffix.lower() == ".bin":
        return _raw(inputs, path, quantize=quantize, pixels=pixels)
    samples = load_samples(inputs, path, quantize=quantize)
    if len(samples) != 1:
        raise InputError(
            f"input file {path}",
            f"it holds {len(samples)} samples",
            "give one sample in each file of a folder, or the file itself as --input",
        )
    return samples[0]


def _raw(inputs: Sequence[TensorInfo], path: Path, *, quantize: bool, pixels: bool) -> Sample:
    what = f"input file {path}"
    if len(inputs) != 1:
        raise InputError(
            what, f"the model has {len(inputs)} inputs", "give an .npz with all of them"
        )
    info = inputs[0]
    count = int(np.prod(info.shape))
    kinds: list[Any] = [np.dtype(np.uint8) if pixels else info.item]
    if quantize and not pixels:
        kinds.append(np.dtype("<f4"))
    try:
        size = path.stat().st_size
        kind = next((kind for kind in kinds if kind.itemsize * count == size), None)
        content = b"" if kind is None else path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what}", error.strerror or "", "check the path") from None
    if kind is None or len(content) != size:
        wanted = " or ".join(f"{kind.itemsize * count} ({kind.name})" for kind in kinds)
        raise InputError(
            what,
            f"it has {size} bytes, the model's input {info.name!r} takes {wanted}",
            "write the input's elements and nothing else"
            + ("" if quantize or pixels else "; for float32 add --quantize"),
        )
    values: npt.NDArray[Any] = np.frombuffer(content, kind)
    if pixels:
        values = _of_pixels(info, values, what)
    return {info.name: typed(info, values, path, quantize=quantize).reshape(info.shape)}


def _of_pixels(info: TensorInfo, values: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    if info.item == np.int8:
        return centre_pixels(values)
    if info.item != np.uint8:
        raise InputError(
            what, f"pixels are uint8, the model's input is {info.dtype}", "leave --pixels out"
        )
    return values
