"""What onnxruntime's kernels give, asked of themselves: small graphs, while a model is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MICROSOFT", "RefusedError", "computed"]

Array = npt.NDArray[Any]

MICROSOFT = "com.microsoft"
"""The domain of onnxruntime's own operators."""
IR_VERSION = 8


class RefusedError(Exception):
    """onnxruntime does not compute a graph."""


def computed(
    nodes: Sequence[Any],
    inputs: Mapping[str, Array],
    constants: Mapping[str, Any],
    result: npt.DTypeLike,
    *,
    opset: int,
) -> Array:
    """Return what a graph computes.

    Parameters
    ----------
    nodes : sequence of NodeProto
        The last one writes ``y``.
    inputs, constants : mapping of str to ndarray
    result : dtype
        Of ``y``.
    opset : int
        Version of the standard operators.

    Raises
    ------
    RefusedError
        If onnxruntime does not.
    """
    import onnxruntime  # type: ignore[import-untyped,unused-ignore]
    from onnx import helper, numpy_helper

    def value_info(name: str, dtype: npt.DTypeLike, shape: Sequence[int] | None) -> Any:
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
        )

    graph = helper.make_graph(
        list(nodes),
        "asked",
        [value_info(name, value.dtype, value.shape) for name, value in inputs.items()],
        [value_info("y", result, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, dict(inputs))
    except Exception as error:  # its errors have no class of their own that all versions share
        raise RefusedError from error
    array: Array = found
    return array
