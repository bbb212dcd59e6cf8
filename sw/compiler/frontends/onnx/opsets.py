"""Which versions of the standard operators are read.

`onnx` may know operators of a version that `onnxruntime` does not compute yet. Such a model is
brought to the newest one that it does, as a user of onnxruntime would have to.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from celosia.errors import UnsupportedError

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
    import numpy as np
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]
    from onnx import TensorProto, helper, numpy_helper

    values = {"s": np.float32(1), "z": np.uint8(0)}
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1]) for name in "xy"]
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["x", "s", "z"], ["r"]),
            helper.make_node("QuantizeLinear", ["r", "s", "z"], ["y"]),
        ],
        "opset",
        ends[:1],
        ends[1:],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # its errors have no class of their own that all versions share
        return False
    return True
