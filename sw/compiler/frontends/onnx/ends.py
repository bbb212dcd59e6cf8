"""What an ``.onnx`` file of a host's segment takes and gives."""

from __future__ import annotations

from typing import Any

import numpy as np
from celosia.errors import ProgramError
from celosia.sw.compiler.frontends.onnx.reader import first_line, require_onnx
from celosia.sw.program.remedies import REBUILD

__all__ = ["ends_of"]

Ends = list[tuple[tuple[int, ...], str]]


def ends_of(content: bytes, name: str) -> tuple[Ends, Ends]:
    """Return shapes and element types of the inputs and the outputs of a model.

    Raises
    ------
    ProgramError
        If it is no model.
    """
    require_onnx()
    import onnx

    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
        return [_end(v) for v in model.graph.input], [_end(v) for v in model.graph.output]
    except Exception as error:  # whatever the package raises, the file is why
        raise ProgramError(
            f"the host's segment {name!r}", f"its model is damaged: {first_line(error)}", REBUILD
        ) from None


def _end(value: Any) -> tuple[tuple[int, ...], str]:
    from onnx import helper

    tensor = value.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return tuple(int(size.dim_value) for size in tensor.shape.dim), dtype.name
