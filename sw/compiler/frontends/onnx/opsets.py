"""Which versions of the standard operators are read.

`onnx` may know operators of a version that `onnxruntime` does not compute yet. Such a model is
brought to the newest one that it does, as a user of onnxruntime would have to.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
from celosia.errors import UnsupportedError
from celosia.sw.compiler.frontends.onnx.kernels import RefusedError, computed

if TYPE_CHECKING:
    import onnx

__all__ = ["LEAST_OPSET", "computable", "opset_of"]

LEAST_OPSET = 10
"""The first with quantised operators."""
_EVERYWHERE = 19
"""What every onnxruntime computes that is installed with this package."""


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of a model's standard operators; 0 if it names none."""
    versions = [int(e.version) for e in model.opset_import if e.domain in ("", "ai.onnx")]
    return versions[-1] if versions else 0


def computable(model: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """Return a model with operators of a version that onnxruntime computes.

    Raises
    ------
    UnsupportedError
        If there is none.
    """
    opset = opset_of(model)
    what = f"cannot compile model {file}"
    if opset < LEAST_OPSET:
        raise UnsupportedError(
            what,
            f"its operators are those of opset {opset}, {LEAST_OPSET} is the first that is read",
            "convert it: onnx.version_converter.convert_version(model, 13)",
            file=file,
        )
    if opset <= _EVERYWHERE or _computes(opset):
        return model
    from onnx import defs, version_converter

    newest = next((n for n in range(defs.onnx_opset_version(), 0, -1) if _computes(n)), 0)
    try:
        return version_converter.convert_version(model, newest)
    except Exception as error:  # whatever it raises: it has no way back
        raise UnsupportedError(
            what,
            f"its operators are those of opset {opset}, onnxruntime"
            f" {version('onnxruntime')} computes those up to {newest}",
            f"export it with opset {newest}",
            file=file,
        ) from error


@cache
def _computes(opset: int) -> bool:
    """Whether onnxruntime has quantisation of a version."""
    from onnx import helper

    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["real"]),
        helper.make_node("QuantizeLinear", ["real", "scale", "zero"], ["y"]),
    ]
    constants = {"scale": np.float32(1), "zero": np.uint8(0)}
    try:
        computed(nodes, {"x": np.zeros(1, np.uint8)}, constants, np.uint8, opset=opset)
    except RefusedError:
        return False
    return True
