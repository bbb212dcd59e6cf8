"""What every tensor of a model must be: the golden model, and the reference interpreter.

The reference interpreter has a process of its own (see :mod:`celosia.sw.runtime.interpreter`), and
what happens to it there is a sentence here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.errors import ModelError, UnsupportedError
from celosia.sw.compiler.frontends.formats import is_onnx
from celosia.sw.compiler.frontends.tflite.convert import load as load_tflite
from celosia.sw.compiler.frontends.tflite.convert import open_model
from celosia.sw.compiler.ir import Graph
from celosia.sw.reference.golden import GoldenModel, UnsupportedModelError
from celosia.sw.reference.graph import live_operators
from celosia.sw.reference.pieces import Pieces
from celosia.sw.runtime.interpreter import (
    InterpreterError,
    InterpreterProcess,
    interpreter_installed,
    onnxruntime_installed,
)

if TYPE_CHECKING:
    from celosia.sw.compiler.frontends.onnx.convert import Converted
    from celosia.sw.reference.onnx import OnnxPieces
    from celosia.sw.reference.onnx_golden import OnnxGolden

__all__ = ["Expected", "ReferenceModel", "interpreter_installed"]

Array = npt.NDArray[Any]
REFERENCE = "reference interpreter"


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


class ReferenceModel(Closing):
    """One model in everything that can say what its tensors are; to be closed after use.

    Parameters
    ----------
    path : Path
        The ``.tflite`` file.
    interpreter : bool, optional
        Whether to ask the reference interpreter too; by default if it is installed.

    Attributes
    ----------
    operators : dict of str to int
        Every computed tensor that the outputs depend on, in the order in which they are computed,
        and the number of the operator that writes it.
    unconfirmed : str or None
        Why the reference interpreter says nothing, or nothing more, of this model; None while it
        does, and when nobody asked it.

    Raises
    ------
    ModelError
        If the model cannot be read.
    UnsupportedError
        If neither the golden model nor the interpreter can compute it.
    """

    def __init__(self, path: Path, *, interpreter: bool | None = None) -> None:
        self._path = path
        self._converted: Converted | None = None
        if is_onnx(path):
            # Late: it needs packages of its own.
            from celosia.sw.compiler.frontends.onnx.convert import convert

            self._converted = convert(path, anything=True)
        graph = _read(path) if self._converted is None else self._converted.graph
        self.operators: dict[str, int] = {
            read_name: op.position for op, names in live_operators(graph) for read_name in names
        }
        self._golden: GoldenModel | OnnxGolden | None = None
        self._lacking = ""
        try:
            if self._converted is None:
                self._golden = GoldenModel(graph)
            else:
                from celosia.sw.reference.onnx_golden import OnnxGolden

                self._golden = OnnxGolden(self._converted)
        except UnsupportedModelError as error:
            self._lacking = str(error)
        inputs, _ = graph.interface_names
        self._input_names = list(inputs)
        self._input_shapes = [graph.tensors[name].shape for name in inputs]
        self.unconfirmed: str | None = None
        self._name = REFERENCE
        self._pieces: Pieces | OnnxPieces | None = None
        self._interpreter: InterpreterProcess | None = None
        installed = interpreter_installed if self._converted is None else onnxruntime_installed
        if installed() if interpreter is None else interpreter:
            self._start(graph)
        if self._golden is None and self._interpreter is None:
            raise self._cannot(self._lacking)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of what the results are compared with."""
        names = ["golden model"] if self._golden is not None else []
        return (*names, *([self._name] if self._interpreter is not None else []))

    def samples(self, shape: Sequence[int]) -> int:
        """Return how many samples a first input of this shape has."""
        return math.prod(shape) // max(1, math.prod(self._input_shapes[0]))

    def run(self, inputs: Mapping[str, Array]) -> list[Expected]:
        """Run one inference; the next one begins with the variables that it leaves.

        Parameters
        ----------
        inputs : mapping of str to ndarray
            By input name; several samples are one after the other, and each runs alone.

        Returns
        -------
        list of Expected
            One entry a source; tensors of several samples have these as a new first axis.

        Raises
        ------
        UnsupportedError
            If neither source can compute one of the operators as it is here.
        """
        ordered = [inputs[name] for name in self._input_names]
        samples = self.samples(ordered[0].shape)
        if samples <= 1:
            return self._run_one(ordered)
        split = [
            array.reshape(samples, *shape)
            for array, shape in zip(ordered, self._input_shapes, strict=True)
        ]
        runs = [self._run_one([array[number] for array in split]) for number in range(samples)]
        # A source that gave up on the way says nothing of the samples before either.
        return [
            Expected(each[0].source, _stacked([expected.tensors for expected in each]))
            for each in zip(*runs, strict=False)
        ]

    @property
    def elsewhere(self) -> int:
        """Elements of outputs so far that onnxruntime's default options make others of here."""
        return 0 if self._pieces is None else self._pieces.elsewhere

    def _run_one(self, ordered: list[Array]) -> list[Expected]:
        results = []
        if self._golden is not None:
            try:
                values = self._golden.run(ordered)
            except ValueError as error:
                raise self._cannot(str(error)) from None
            own = {name: values[name] for name in self.operators if name in values}
            results.append(Expected("golden model", own))
        if self._interpreter is not None and self._pieces is not None:
            try:
                found = self._pieces.run(
                    self._interpreter, dict(zip(self._input_names, ordered, strict=True))
                )
            except InterpreterError as failure:
                self._give_up(failure)
            else:
                results.append(Expected(self._name, found))
        if not results:
            raise self._cannot(f"{self._lacking}, and {self.unconfirmed}")
        return results

    def restore(self, values: Mapping[int, Array]) -> None:
        """Let the variables hold these values; before the first inference.

        The interpreter's variables cannot be set from outside: from here on it says nothing.

        Parameters
        ----------
        values : mapping of int to ndarray
            By the number, in the file, of the tensor of the value before an inference.

        Raises
        ------
        UnsupportedError
            If the golden model does not compute the model.
        """
        if not isinstance(self._golden, GoldenModel):
            raise self._cannot(f"only the golden model begins with a given state: {self._lacking}")
        self._golden.restore(values)
        if self._interpreter is not None:
            self._give_up(InterpreterError("cannot begin with a given state"))

    def close(self) -> None:
        """End the interpreter's process."""
        if self._interpreter is not None:
            self._interpreter.close()

    def _start(self, graph: Graph) -> None:
        if self._converted is not None:
            from celosia.sw.reference.onnx import OnnxPieces, saturates

            of_onnx = OnnxPieces(self._converted, list(self.operators))
            self._pieces, self._name = of_onnx, of_onnx.name
            if self._golden is not None and saturates():
                self._give_up(
                    InterpreterError(
                        "loses sums beyond 16 bits on this processor, which has no VNNI (its"
                        " quantize_static has reduce_range for that)"
                    )
                )
                return
        else:
            # The interpreter keeps variables itself.
            unfollowed = load_tflite(self._path, anything=True, follow=False)
            numbers = {name: graph.tensors[name].index for name in self.operators}
            pieces = Pieces(unfollowed, open_model(self._path), numbers)
            others = ", ".join(pieces.others)
            self._pieces = pieces
            self._name = REFERENCE + (f" (default kernels for {others})" if others else "")
        try:
            self._interpreter = InterpreterProcess(self._pieces.opened)
        except InterpreterError as failure:
            self._give_up(failure)

    def _give_up(self, failure: InterpreterError) -> None:
        self.unconfirmed = f"the {self._name} {failure}"
        if self._interpreter is not None:
            self._interpreter.close()
            self._interpreter = None

    def _cannot(self, cause: str) -> UnsupportedError:
        return UnsupportedError(
            f"cannot check {self._path}",
            cause,
            "run it without --check",
            file=str(self._path),
        )


def _read(path: Path) -> Graph:
    """Read a ``.tflite`` file, whatever it has."""
    try:
        return load_tflite(path)
    except ModelError:
        return load_tflite(path, anything=True)


def _stacked(samples: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.stack([tensors[name] for tensors in samples]) for name in samples[0]}
