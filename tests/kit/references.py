"""The golden model against the interpreter it is defined by."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.sw.reference.golden import GoldenModel

__all__ = ["assert_every_tensor_equal", "reference_interpreter"]

Array = npt.NDArray[Any]


def reference_interpreter(model: bytes) -> Any:
    """Return the named reference for `model`, its tensors allocated."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(
        model_content=model,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def assert_every_tensor_equal(model: bytes, *batches: list[Array], what: str) -> None:
    """Compare the golden model with the reference on each list of inputs."""
    interpreter = reference_interpreter(model)
    golden_model = GoldenModel(model)
    for batch, inputs in enumerate(batches):
        for info, value in zip(golden_model.inputs, inputs, strict=True):
            interpreter.set_tensor(info.index, value)
        interpreter.invoke()
        computed = golden_model.run_by_index(inputs)
        for op in golden_model.operators:
            index = op.outputs[0]
            np.testing.assert_array_equal(
                computed[index],
                interpreter.get_tensor(index),
                err_msg=f"{what}, input {batch}: operator {op.position} ({op.name})",
                strict=True,
            )
