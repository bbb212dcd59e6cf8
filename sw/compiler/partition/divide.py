"""Divides a model: everything on the NPU that can be there, the rest on the host with its reason.

::

    read -> what the NPU cannot -> segments -> lower -> price -> compile -> program
                ^                                 |        |        |
                +---------------------------------+--------+--------+
                     what was refused, and why, goes to the host

An operator goes to the host when the compiler refuses it: its words are the reason. What is left
is divided anew, so each turn gives at least one more operator to the host, and the last turn
refuses none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from celosia.errors import CompileError, DefectError, ModelError, UnsupportedError
from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.fixed import QuantizationError
from celosia.sw.compiler.emit import tensor_info
from celosia.sw.compiler.ir import DType, Graph, NpuOp, SourceOp, Tensor
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.partition.assemble import assemble, host_layer
from celosia.sw.compiler.partition.macs import macs_of
from celosia.sw.compiler.partition.nodes import VARIABLES, SourceModel
from celosia.sw.compiler.partition.price import Crossing
from celosia.sw.compiler.partition.source import ModelFile
from celosia.sw.compiler.partition.variables import Variables
from celosia.sw.compiler.verify import verify_op
from celosia.sw.program.file import Program
from celosia.sw.program.segments import REFERENCE_KERNELS, HostSegment
from celosia.sw.program.tensors import DTYPES, TensorInfo

__all__ = ["divide"]

NPU = "npu"
_COPIED = "operators of the host need its result, which depends on no other operator"
_BETWEEN = "it is between operators of the host that have to run together"


def divide(
    graph: Graph,
    file: ModelFile,
    config: NpuConfig,
    back: Callable[[Graph], Program],
    *,
    keep_tensors: bool = False,
) -> Program:
    """Compile a model that is not wholly for the NPU.

    Parameters
    ----------
    graph : Graph
        As `celosia.sw.compiler.frontends.tflite.convert.load` reads anything.
    file : ModelFile
        The same file.
    config : NpuConfig
        The machine.
    back : callable
        Compiles a lowered graph to a program of one segment.
    keep_tensors : bool
        Let segments of the host give all that their operators write, to be looked at.

    Returns
    -------
    Program
        Segments of the host hold their operators as the file has them.

    Raises
    ------
    ModelError
        If the model contradicts itself.
    UnsupportedError
        If not even the host can run it.
    DefectError
        If the compiler has a defect.
    VariablesError
        If segments cannot hand on the variables of the graph.
    """
    return _Division(graph, file, config, back, keep_tensors).program()


@dataclass(frozen=True)
class _Part:
    """Operators that run one after the other in one place."""

    place: str
    numbers: tuple[int, ...]


class _RefusedError(Exception):
    """Operators that cannot be in a segment of the NPU, and why."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


class _Division:
    def __init__(
        self,
        graph: Graph,
        file: ModelFile,
        config: NpuConfig,
        back: Callable[[Graph], Program],
        keep_tensors: bool,
    ) -> None:
        self._graph = graph
        self._file = file
        self._config = config
        self._back = back
        self._keep_tensors = keep_tensors
        self._model = SourceModel(graph, file.joined)
        self._variables = Variables(self._model, file, keep_tensors)
        self._reasons: dict[int, str] = {}
        self._lowered: dict[_Part, Graph] = {}
        self._compiled: dict[_Part, Program] = {}
        _check_interface(graph)

    def program(self) -> Program:
        """Divide until nothing is refused."""
        self._add(self._unfit())
        while True:
            parts = self._parts()
            refused = self._try(parts, self._lower)
            refused = refused or self._islands(parts)
            self._check_variables(parts)
            refused = refused or self._try(parts, self._compile)
            if not refused:
                break
            self._add(refused)
        finished: list[tuple[Program | HostSegment, Sequence[int]]] = [
            (self._compiled[part] if part.place == NPU else self._host_segment(part), part.numbers)
            for part in parts
        ]
        return assemble(self._graph, self._config, finished, self._variables)

    def _check_variables(self, parts: Sequence[_Part]) -> None:
        for part in parts:
            if part.place != NPU:
                self._variables.check_host(part.numbers)
            elif part in self._lowered:
                self._variables.check_npu(part.numbers, self._lowered[part].outputs)

    def _add(self, reasons: dict[int, str]) -> None:
        for number, reason in reasons.items():
            self._reasons.setdefault(number, reason)

    # What goes to the host without being tried -------------------------------------------------

    def _unfit(self) -> dict[int, str]:
        """Return operators that have to do with tensors that the NPU cannot have."""
        reasons: dict[int, str] = {}
        for number, op in self._model.ops.items():
            names = dict.fromkeys((*op.inputs, *op.results))
            tensors = [self._graph.tensors[name] for name in names]
            causes = [
                self._graph.host_only.get(name) or _unquantised(tensor)
                for name, tensor in zip(names, tensors, strict=True)
            ]
            cause = next((cause for cause in causes if cause), None)
            if cause is None:
                try:
                    verify_op(self._graph, op, self._graph.name)
                except UnsupportedError as error:
                    cause = error.cause
            if cause is not None:
                reasons[number] = cause
        return reasons

    # Segments ---------------------------------------------------------------------------------

    def _parts(self) -> list[_Part]:
        """Order the operators, by what is known to run on the host so far."""
        model = self._model
        together = [
            number
            for number, op in model.ops.items()
            if op.name in VARIABLES or op.name.startswith("HASHTABLE")
        ]
        if not any(number in self._reasons for number in together):
            together = []
        return [
            _Part(place, tuple(numbers)) for place, numbers in model.turns(together, self._place)
        ]

    def _place(self, group: Sequence[int]) -> str:
        if not any(number in self._reasons for number in group):
            return NPU
        for number in group:
            self._reasons.setdefault(number, _BETWEEN)
        kinds = {self._file.kernels(self._model.ops[number], self._graph)[0] for number in group}
        return kinds.pop() if len(kinds) == 1 else REFERENCE_KERNELS

    def _try(self, parts: Iterable[_Part], step: Callable[[_Part], object]) -> dict[int, str]:
        """Do a step for all parts of the NPU; return what was refused."""
        refused: dict[int, str] = {}
        for part in parts:
            if part.place == NPU:
                try:
                    step(part)
                except _RefusedError as error:
                    refused |= error.reasons
        return refused

    def _lower(self, part: _Part) -> None:
        if part in self._lowered:
            return
        graph = self._subgraph(part)
        try:
            lowered = lower(graph)
        except (ModelError, CompileError, QuantizationError) as error:
            raise self._refused(part, error) from None
        self._check_lowered(part, lowered)
        self._lowered[part] = lowered

    def _compile(self, part: _Part) -> None:
        if part in self._compiled:
            return
        try:
            self._compiled[part] = self._back(self._lowered[part])
        except (ModelError, CompileError) as error:
            raise self._refused(part, error) from None

    def _subgraph(self, part: _Part) -> Graph:
        """Return a part of the NPU as a model of its own."""
        model = self._model
        numbers = model.with_copies(part.numbers)
        ops = [model.ops[number] for number in numbers]
        names = {name for op in ops for name in (*op.inputs, *op.results)}
        return replace(
            self._graph,
            tensors={
                name: self._graph.tensors[name] for name in self._graph.tensors if name in names
            },
            ops=list(ops),
            inputs=model.reads(numbers),
            outputs=model.gives(numbers),
            # A variable is a tensor that the part takes, and one that it gives.
            interface=None,
            state=(),
        )

    def _check_lowered(self, part: _Part, lowered: Graph) -> None:
        """Refuse what is left with nothing to compute, or ends in what the NPU cannot give."""
        if not lowered.ops:
            raise _RefusedError(
                dict.fromkeys(part.numbers, "only conversions are left for the NPU here")
            )
        reasons: dict[int, str] = {}
        for name in (*lowered.inputs, *lowered.outputs):
            tensor = lowered.tensors[name]
            if tensor.dtype is not DType.INT8:
                cause = f"{name!r}, between NPU and host, is {tensor.dtype}"
                for number in part.numbers:
                    op = self._model.ops[number]
                    if name in (*op.inputs, *op.results):
                        reasons[number] = cause
        twice = set(lowered.inputs).intersection(lowered.outputs)
        for number in part.numbers:
            op = self._model.ops[number]
            if twice.intersection((*op.inputs, *op.results)):
                reasons.setdefault(number, "it hands a tensor on as it is")
        if reasons:
            raise _RefusedError(reasons)

    def _refused(
        self, part: _Part, error: ModelError | CompileError | QuantizationError
    ) -> Exception:
        """Return what to raise: which operators a refusal is about."""
        if isinstance(error, DefectError):
            return error
        errors: Sequence[Exception] = [error]
        if isinstance(error, ModelError) and error.parts:
            errors = error.parts
        reasons: dict[int, str] = {}
        for each in errors:
            number = getattr(each, "op_index", None)
            if number in part.numbers:
                reasons.setdefault(number, str(getattr(each, "cause", each)))
        if not reasons:
            # Of the program as a whole: the operator that takes most may be what makes it so.
            reasons[self._heaviest(part)] = str(getattr(error, "cause", error))
        return _RefusedError(reasons)

    def _heaviest(self, part: _Part) -> int:
        def size(number: int) -> int:
            op = self._model.ops[number]
            return sum(self._graph.tensors[name].size_bytes for name in (*op.inputs, *op.results))

        return max(part.numbers, key=size)

    # Price ------------------------------------------------------------------------------------

    def _islands(self, parts: Sequence[_Part]) -> dict[int, str]:
        """Return the operators of NPU segments that are not worth the way."""
        reasons: dict[int, str] = {}
        alone = all(part.place == NPU for part in parts)
        for part in parts:
            if part.place != NPU or alone:
                continue
            numbers = self._model.with_copies(part.numbers)
            tensors = [
                self._graph.tensors[name]
                for name in (*self._model.reads(numbers), *self._model.gives(numbers))
            ]
            lowered = self._lowered[part]
            written = sum(
                lowered.tensors[op.output].elements for op in lowered.ops if isinstance(op, NpuOp)
            )
            crossing = Crossing(
                bytes=sum(tensor.elements for tensor in tensors), work=lowered.macs + written
            )
            if not crossing.pays:
                reasons |= dict.fromkeys(part.numbers, crossing.reason)
        return reasons

    # The host ---------------------------------------------------------------------------------

    def _host_segment(self, part: _Part) -> HostSegment:
        model, graph = self._model, self._graph
        numbers = model.with_copies(part.numbers)
        tensors = graph.tensors
        inputs, outputs = model.reads(numbers), model.gives(numbers)
        if self._keep_tensors:
            outputs = [
                name
                for number in part.numbers
                for name in model.ops[number].results
                if tensors[name].dtype.value in DTYPES and name not in self._file.joined
            ]
        cut = self._file.cut(model, numbers, inputs, outputs)
        return HostSegment(
            model=cut,
            kernels=part.place,
            inputs=tuple(self._info(name) for name in inputs),
            outputs=tuple(self._info(name) for name in outputs),
            layers=tuple(
                host_layer(graph, op, self._reason(op), macs_of(graph, op))
                for op in (model.ops[number] for number in numbers)
            ),
        )

    def _reason(self, op: SourceOp) -> str:
        _, why = self._file.kernels(op, self._graph)
        reason = self._reasons.get(op.origin.index, _COPIED)
        return f"{reason}; default kernels: {why}" if why else reason

    def _info(self, name: str) -> TensorInfo:
        return tensor_info(self._graph, self._graph.tensors[name])


def _unquantised(tensor: Tensor) -> str:
    """Say why an int8 activation is nothing that the NPU computes with; empty if it is."""
    if tensor.dtype is not DType.INT8 or tensor.is_constant:
        return ""
    if tensor.scale is None:
        kind = "per-channel" if tensor.channel_scales is not None else "no"
        return f"int8 activation {tensor.name!r} has {kind} quantisation parameters"
    if not -128 <= tensor.zero_point <= 127:
        return f"zero point {tensor.zero_point} of {tensor.name!r} is not an int8 value"
    return ""


def _check_interface(graph: Graph) -> None:
    """Refuse what nobody can hand over, and models that compute nothing."""
    what = f"cannot compile model {graph.name}"
    for names, kind in ((graph.inputs, "input"), (graph.outputs, "output")):
        for name in names:
            dtype = graph.tensors[name].dtype
            if dtype.value not in DTYPES:
                raise UnsupportedError(
                    what,
                    f"{kind} {name!r} is {dtype}, which cannot be handed over",
                    f"give the model an {kind} of numbers",
                    file=graph.name,
                    tensor=name,
                )
