"""Which front end reads a model: told by its name, or by how its bytes begin."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from celosia.sw.compiler.ir import Graph

if TYPE_CHECKING:
    from celosia.sw.compiler.partition.source import ModelFile

__all__ = ["is_onnx", "load", "opened"]

_TFLITE = b"TFL3"
"""At byte 4 of a TensorFlow Lite model."""


def is_onnx(source: str | os.PathLike[str] | bytes) -> bool:
    """Return whether a model is an ONNX one.

    A file is one by its ending; bytes are one if they are no TensorFlow Lite model and begin as a
    protocol buffer with the fields of an ONNX model does.
    """
    if isinstance(source, bytes):
        return source[4:8] != _TFLITE and source[:1] == b"\x08" and len(source) > 8
    return Path(source).suffix.lower() == ".onnx"


def load(
    source: str | os.PathLike[str] | bytes,
    *,
    name: str | None = None,
    anything: bool = False,
    follow: bool = True,
    exact: bool = False,
) -> Graph:
    """Read a model of any format; see `celosia.sw.compiler.frontends.tflite.convert.load`.

    With `exact` the NPU computes only what is proven equal to its reference; of TFLite models
    everything that it computes is.
    """
    if is_onnx(source):
        from celosia.sw.compiler.frontends.onnx.convert import load as load_onnx

        return load_onnx(source, name=name, anything=anything, exact=exact)
    from celosia.sw.compiler.frontends.tflite.convert import load as load_tflite

    return load_tflite(source, name=name, anything=anything, follow=follow)


def opened(
    source: str | os.PathLike[str] | bytes, *, follow: bool = True, exact: bool = False
) -> tuple[Graph, ModelFile]:
    """Return a model with all that it has, and its file; see `load` with `anything`."""
    if is_onnx(source):
        from celosia.sw.compiler.frontends.onnx.convert import convert
        from celosia.sw.compiler.frontends.onnx.cut import OnnxFile

        converted = convert(source, anything=True, exact=exact)
        return converted.graph, OnnxFile(converted)
    from celosia.sw.compiler.frontends.tflite.convert import load as load_tflite
    from celosia.sw.compiler.frontends.tflite.convert import open_model
    from celosia.sw.compiler.partition.source import TfliteFile

    flat = open_model(source)
    return load_tflite(source, anything=True, follow=follow), TfliteFile(flat)
