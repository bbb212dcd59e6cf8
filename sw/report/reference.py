"""What every tensor of a model must be: the golden model, and the reference interpreter."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from celosia.sim.golden_model import GoldenModel, UnsupportedModelError
from celosia.sw.compiler.frontend import load
from celosia.sw.errors import UnsupportedError

__all__ = ["Expected", "ReferenceModel", "interpreter_installed"]

Array = npt.NDArray[Any]


def interpreter_installed() -> bool:
    """Whether ``ai-edge-litert`` is there (``pip install "celosia[check]"``)."""
    return importlib.util.find_spec("ai_edge_litert") is not None


@dataclass(frozen=True)
class Expected:
    """The tensors of one inference, as one source computes them.

    Attributes
    ----------
    source : str
        ``golden model`` or ``reference interpreter``.
    tensors : dict of str to ndarray
        By the compiler's name, in the order in which the model's operators write them.
    """

    source: str
    tensors: dict[str, Array]


class ReferenceModel:
    """One model in everything that can say what its tensors are.

    Parameters
    ----------
    path : Path
        The ``.tflite`` file.
    interpreter : bool, optional
        Whether to ask the reference interpreter too; by default if it is installed.

    Attributes
    ----------
    operators : dict of str to int
        Every computed tensor, in the order in which they are computed, and the number of the
        operator that writes it.

    Raises
    ------
    ModelError
        If the model cannot be read.
    UnsupportedError
        If the golden model lacks one of its operators.
    """

    def __init__(self, path: Path, *, interpreter: bool | None = None) -> None:
        graph = load(path)
        content = path.read_bytes()
        try:
            self._golden = GoldenModel(content)
        except UnsupportedModelError as error:
            raise UnsupportedError(
                f"cannot check {path}", str(error), "run it without --check", file=str(path)
            ) from None
        self._input_names = list(graph.inputs)
        # By number, since a file may give two tensors the same name.
        self._order: dict[str, int] = {}
        self.operators: dict[str, int] = {}
        for op in graph.ops:
            for name in op.outputs:
                if not graph.tensors[name].is_constant:
                    self._order[name] = graph.tensors[name].tflite_index
                    self.operators[name] = op.tflite_index
        use = interpreter_installed() if interpreter is None else interpreter
        self._interpreter = _open_interpreter(content) if use else None

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of what the results are compared with."""
        return ("golden model", *(["reference interpreter"] if self._interpreter else []))

    def run(self, inputs: Mapping[str, Array]) -> list[Expected]:
        """Run one inference.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            int8, by input name.

        Returns
        -------
        list of Expected
            One entry a source.
        """
        ordered = [inputs[name] for name in self._input_names]
        values = self._golden.run_by_index(ordered)
        golden = {name: values[index] for name, index in self._order.items()}
        results = [Expected("golden model", golden)]
        if self._interpreter is not None:
            for detail, array in zip(self._interpreter.get_input_details(), ordered, strict=True):
                self._interpreter.set_tensor(detail["index"], array)
            self._interpreter.invoke()
            tensors = {
                name: self._interpreter.get_tensor(index) for name, index in self._order.items()
            }
            results.append(Expected("reference interpreter", tensors))
        return results


def _open_interpreter(content: bytes) -> Any:
    from ai_edge_litert.interpreter import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        Interpreter,
        OpResolverType,
    )

    # The named reference: the default resolver's kernels (XNNPACK) round differently.
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter
