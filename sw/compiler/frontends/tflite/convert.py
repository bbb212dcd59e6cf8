"""Reads a ``.tflite`` file into the compiler's graph.

`load` accepts any bytes: the result is a verified graph of `SourceOp`, or a `ModelError` that
says what is wrong with the file and what to do about it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import ModelError, UnsupportedError, printable
from celosia.sw.compiler.frontends.tflite.arithmetic import arithmetic_of
from celosia.sw.compiler.frontends.tflite.check import check_model
from celosia.sw.compiler.frontends.tflite.reader import FlatModel, damaged, guard
from celosia.sw.compiler.frontends.tflite.schema import COMPILED, tensor_type
from celosia.sw.compiler.frontends.tflite.state import Part, call_once, resolve_state
from celosia.sw.compiler.ir import DType, Graph, Origin, SourceOp, Tensor, with_state
from celosia.sw.compiler.verify import verify

__all__ = ["load"]

MAX_ELEMENTS = 1 << 28
"""More elements than any tensor of a microcontroller network; a larger shape is damage."""
MAX_RANK = 8
MAX_TENSORS = 1 << 15
MAX_OPERATORS = 1 << 12
"""More than any network of a microcontroller has; the tables of a small file can be shared, so
that its size is no bound on how many it lists."""
MAX_ACTIVATIONS = 1 << 25
"""Elements of all computed tensors together: eight times those of the largest model known."""
MAX_CONSTANTS = 1 << 28
"""Bytes of all constants as the operators read them, each time anew."""


def load(source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> Graph:
    """Read a TensorFlow Lite model.

    Parameters
    ----------
    source : path or bytes
        The file, or its contents.
    name : str, optional
        Name of the graph; by default the file's stem, or ``model``.

    Returns
    -------
    Graph
        Operators of the source level, in execution order; constants hold read-only arrays that
        may share the file's memory.

    Raises
    ------
    ModelError
        If the file cannot be read, is damaged, or contradicts itself.
    UnsupportedError
        If the model as a whole is of a kind the NPU does not run: not int8, several subgraphs,
        a batch, dynamic shapes.
    """
    if isinstance(source, bytes):
        data, file, stem = source, "<bytes>", "model"
    else:
        path = Path(source)
        data, file, stem = _read(path), printable(str(path)), printable(path.stem)
    flat = FlatModel.open(data, file)
    graph = _Converter(flat, name if name is not None else stem).convert()
    check_model(graph, file)
    verify(graph, file)
    return graph


def _read(path: Path) -> bytes:
    remedy = "check the path and its permissions"
    what = f"cannot read model {printable(str(path))}"
    try:
        if not path.is_file():
            cause = "it is not a regular file" if path.exists() else "there is no such file"
            raise ModelError(what, cause, remedy, file=str(path))
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ModelError(what, printable(str(error)), remedy, file=str(path)) from error


class _Converter:
    """Builds a `Graph` from the tables of one file."""

    def __init__(self, flat: FlatModel, name: str) -> None:
        self._flat = flat
        self._file = flat.file
        self._graph_name = name
        self._names: list[str] = []
        """Of the tensors of the subgraph that is read."""
        self._tensors_read = self._operators_read = 0

    def convert(self) -> Graph:
        flat = self._flat
        with guard(self._file, "the model table"):
            subgraphs = flat.length(flat.model, "Subgraphs")
            opcodes = flat.length(flat.model, "OperatorCodes")
            # Read once: many operators share one code.
            self._opcodes = [flat.opcode(index) for index in range(opcodes)]
        self._refuse_compiled()
        if subgraphs == 0:
            raise damaged(self._file, "it has no subgraph")
        main = self._part(0)
        called = {call_once(op) for op in main.ops if op.name == "CALL_ONCE"}
        for number in called:
            if not 0 < number < subgraphs:
                raise damaged(self._file, f"CALL_ONCE names subgraph {number} of {subgraphs}")
        if len(called) < subgraphs - 1:
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"it has {subgraphs} subgraphs (control flow or several signatures)",
                "export one inference function without IF, WHILE or CALL",
                file=self._file,
            )
        part, state = resolve_state(main, self._part, self._file)
        tensors = part.tensors
        graph = with_state(
            Graph(
                name=self._graph_name,
                tensors=tensors,
                ops=list(part.ops),
                inputs=part.inputs,
                # A tensor listed twice is one output: outputs are told apart by their names.
                outputs=list(dict.fromkeys(part.outputs)),
            ),
            state,
        )
        graph = _drop_unused(graph)
        written = {name for op in graph.ops for name in op.outputs}
        activations = sum(tensors[name].elements for name in written.union(graph.inputs))
        self._limit(activations, MAX_ACTIVATIONS, "elements in its activations")
        constants = sum(
            tensors[name].size_bytes
            for op in graph.ops
            for name in op.inputs
            if tensors[name].is_constant
        )
        self._limit(constants, MAX_CONSTANTS, "bytes of constants, counting each use,")
        return graph

    def _part(self, number: int) -> Part:
        """Read a subgraph."""
        flat = self._flat
        what = "the subgraph" if number == 0 else f"subgraph {number}"
        with guard(self._file, what):
            subgraph = flat.model.Subgraphs(number)
            tensor_count = flat.length(subgraph, "Tensors")
            operator_count = flat.length(subgraph, "Operators")
            inputs = flat.ints(subgraph, "Inputs")
            outputs = flat.ints(subgraph, "Outputs")
        self._tensors_read += tensor_count
        self._operators_read += operator_count
        self._limit(self._tensors_read, MAX_TENSORS, "tensors")
        self._limit(self._operators_read, MAX_OPERATORS, "operators")
        tensors: dict[str, Tensor] = {}
        self._names = []
        variables: list[str] = []
        for index in range(tensor_count):
            with guard(self._file, f"tensor {index}"):
                table = subgraph.Tensors(index)
                tensor = self._tensor(table, index, taken=tensors)
                if table.IsVariable():
                    variables.append(tensor.name)
            tensors[tensor.name] = tensor
            self._names.append(tensor.name)
        ops: list[SourceOp] = []
        for index in range(operator_count):
            with guard(self._file, f"operator {index}"):
                table = subgraph.Operators(index)
                op_type = self._operator_type(table)
            where = f"operator {index} ({op_type})"
            with guard(self._file, where, op_index=index, op_type=op_type):
                ops.append(self._operator(table, index, op_type))
        return Part(
            tensors=tensors,
            ops=ops,
            inputs=[self._tensor_name(i, "the list of inputs") for i in inputs],
            outputs=[self._tensor_name(i, "the list of outputs") for i in outputs],
            variables=tuple(variables),
        )

    def _limit(self, count: int, most: int, what: str) -> None:
        if count > most:
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"it has {count} {what}; at most {most} are supported",
                "give a network of a size that a microcontroller runs",
                file=self._file,
            )

    def _refuse_compiled(self) -> None:
        """Refuse a file that a compiler has already turned into another NPU's machine code."""
        for code in self._opcodes:
            name = code.removeprefix("CUSTOM(").removesuffix(")")
            if name != code and name in COMPILED:
                npu, compiler = COMPILED[name]
                raise UnsupportedError(
                    f"cannot compile model {self._file}",
                    f"it has already been compiled for {npu} by {compiler}: its operator {name!r} "
                    "is machine code of that NPU",
                    f"give the .tflite file from before {compiler}",
                    file=self._file,
                    op_type=code,
                )

    # ------------------------------------------------------------------ tensors

    def _tensor(self, table: Any, index: int, taken: dict[str, Tensor]) -> Tensor:
        flat = self._flat
        name = self._unique(flat.name(table) or f"tensor_{index}", index, taken)
        shape = flat.ints(table, "Shape")
        # A free batch is usual: converters write -1 into the signature and 1 into the shape
        # beside it, or -1 into both.
        if shape[:1] == (-1,):
            shape = (1, *shape[1:])
        self._check_shape(shape, index, name)
        code = int(table.Type())
        dtype = tensor_type(code)
        if dtype is None:
            raise ValueError(f"unknown element type {code}")
        if table.Sparsity() is not None:
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"tensor {index} {name!r} is stored sparse",
                "convert without the EXPERIMENTAL_SPARSITY optimisation",
                file=self._file,
                tensor=name,
            )
        scales, zero_points, axis = self._quantization(table, shape, dtype)
        per_channel = len(scales) > 1
        return Tensor(
            name=name,
            shape=shape,
            dtype=dtype,
            index=index,
            scale=float(scales[0]) if len(scales) == 1 else None,
            zero_point=next((z for z in zero_points if z), 0),
            channel_scales=scales if per_channel else None,
            channel_axis=axis if per_channel else None,
            data=self._constant(int(table.Buffer()), shape, dtype),
        )

    def _check_shape(self, shape: tuple[int, ...], index: int, name: str) -> None:
        # What is free in the signature only has a size in the shape: TFLite takes that.
        if any(d == -1 for d in shape):
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"tensor {index} {name!r} has a dynamic shape {list(shape)}",
                "convert with a fixed input shape, for example tf.TensorSpec([1, 96, 96, 3])",
                file=self._file,
                tensor=name,
            )
        if len(shape) > MAX_RANK or any(d < 1 for d in shape) or prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"impossible shape {list(shape)[:12]}")

    def _quantization(
        self, table: Any, shape: tuple[int, ...], dtype: DType
    ) -> tuple[npt.NDArray[np.float32], tuple[int, ...], int]:
        quantization = table.Quantization()
        if quantization is None:
            return np.zeros(0, np.float32), (), 0
        scales = self._flat.floats(quantization, "Scale")
        zero_points = self._flat.ints(quantization, "ZeroPoint")
        # A vector has one axis, whatever the file says: some converters copy the axis of the
        # weights to the bias.
        axis = int(quantization.QuantizedDimension()) if len(shape) != 1 else 0
        # Nothing is computed with the scales of a bias, which is what int32 tensors are.
        bad = not np.all(np.isfinite(scales)) or bool(np.any(scales < 0))
        if bad and dtype is not DType.INT32:
            raise ValueError("a scale is negative or not finite")
        if len(scales) == 0:
            zero_points = ()
        elif len(scales) > 1:
            if not 0 <= axis < len(shape) or shape[axis] != len(scales):
                raise ValueError(f"{len(scales)} scales along axis {axis} of {list(shape)}")
        elif len(zero_points) > 1:
            raise ValueError(f"{len(zero_points)} zero points for {len(scales)} scales")
        if any(abs(z) > 1 << 31 for z in zero_points):
            raise ValueError("a zero point does not fit in 32 bits")
        if len(scales) == 1 and scales[0] == 0:
            # Some converters write 0 for tensors without quantisation, such as shapes.
            scales = scales[:0]
        return scales, zero_points, axis

    def _constant(
        self, buffer: int, shape: tuple[int, ...], dtype: DType
    ) -> npt.NDArray[Any] | None:
        # Buffer 0 is empty by convention, and activations have empty buffers of their own.
        content = self._flat.buffer(buffer)
        if content is None:
            return None
        numpy_type = dtype.numpy
        if numpy_type is None:
            raise UnsupportedError(
                f"cannot compile model {self._file}",
                f"it has a constant of type {dtype}, shape {list(shape)}",
                "quantise weights to int8",
                file=self._file,
            )
        expected = prod(shape) * numpy_type.itemsize
        if len(content) != expected:
            raise ValueError(f"{len(content)} bytes of data for {list(shape)} {dtype}")
        array = np.frombuffer(content, numpy_type).reshape(shape)
        array.flags.writeable = False
        return array

    @staticmethod
    def _unique(name: str, index: int, taken: dict[str, Tensor]) -> str:
        if name not in taken:
            return name
        candidate = f"{name}#{index}"
        while candidate in taken:
            candidate += "'"
        return candidate

    # ------------------------------------------------------------------ operators

    def _operator_type(self, table: Any) -> str:
        opcode_index = int(table.OpcodeIndex())
        if opcode_index >= len(self._opcodes):
            raise ValueError(f"operator code {opcode_index} does not exist")
        return self._opcodes[opcode_index]

    def _operator(self, table: Any, index: int, name: str) -> SourceOp:
        flat = self._flat
        where = f"operator {index} ({name})"
        operands = tuple(
            None if i == -1 else self._tensor_name(i, where) for i in flat.ints(table, "Inputs")
        )
        results = tuple(self._tensor_name(i, where) for i in flat.ints(table, "Outputs"))
        return SourceOp(
            origin=Origin("tflite", index, name),
            name=name,
            operands=operands,
            results=results,
            arithmetic=arithmetic_of(name),
            options=MappingProxyType(flat.options(name, table)),
        )

    def _tensor_name(self, index: int, where: str) -> str:
        if not 0 <= index < len(self._names):
            raise damaged(self._file, f"{where} names tensor {index}; there are {len(self._names)}")
        return self._names[index]


def _drop_unused(graph: Graph) -> Graph:
    """Leave out tensors nothing refers to, which some converters and most fuzzers leave behind."""
    used = {*graph.inputs, *graph.outputs}
    for op in graph.ops:
        used.update(op.inputs, op.outputs)
    tensors = {name: t for name, t in graph.tensors.items() if name in used}
    return replace(graph, tensors=tensors)
