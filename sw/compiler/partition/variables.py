"""Variables of a divided model.

Segments of either place take a variable's value as any tensor, and give the next one. The session
keeps it in between: an NPU's operators and the host's can have to do with the same variable. What
cannot be handed on so is the host's, whose interpreter keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from celosia.sw.compiler.emit import tensor_info
from celosia.sw.compiler.ir import fresh_name
from celosia.sw.compiler.partition.nodes import VARIABLES, SourceModel
from celosia.sw.compiler.partition.source import ModelFile
from celosia.sw.program.segments import HostSegment, Segment
from celosia.sw.program.tensors import DTYPES, PlacedTensor, TensorInfo

__all__ = ["Variables", "VariablesError"]


class VariablesError(Exception):
    """Segments cannot hand a variable on; says why."""


@dataclass(frozen=True, eq=False)
class Variables:
    """What the segments of a divided model take and give of its variables.

    Parameters
    ----------
    model : SourceModel
        The model, variables followed.
    file : ModelFile
        Its file.
    looked_at : bool
        Whether a value that the NPU gives is a tensor of its own in any case.

    Raises
    ------
    VariablesError
        If one has no operator that computes its next value, or that has another shape; or nothing
        assigns to one, and it is an output.
    """

    model: SourceModel
    file: ModelFile
    looked_at: bool
    _infos: dict[str, TensorInfo] = field(init=False, default_factory=dict)
    """By the tensor of the value before a run."""
    _given: dict[str, list[TensorInfo]] = field(init=False, default_factory=dict)
    """By the tensor of the value behind it."""
    _ends: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.model.graph
        object.__setattr__(self, "_ends", frozenset(graph.interface_names[1]))
        if any(self._set_before(name) for name in self._ends):
            raise VariablesError("an output is a variable that is constant")
        taken = set(graph.tensors)
        for variable in graph.state:
            before, after = (graph.tensors[name] for name in (variable.before, variable.after))
            if (
                self.model.writer(after.name) is None
                or before.name in self._ends
                or before.shape != after.shape
                or before.dtype.value not in DTYPES
            ):
                raise VariablesError(f"{variable.name!r} is more than an operator's result")
            name = fresh_name(taken, variable.name)
            taken.add(name)
            info = replace(tensor_info(graph, before), name=name, persistent=True)
            self._infos[before.name] = info
            self._given.setdefault(after.name, []).append(info)

    def initial(self) -> dict[str, bytes]:
        """Return what the variables hold before the first run, by name."""
        return {
            self._infos[variable.before].name: variable.initial.tobytes()
            for variable in self.model.graph.state
        }

    def check_npu(self, numbers: Collection[int], outputs: Collection[str]) -> None:
        """Refuse operators of the NPU that would give a variable's value by a conversion.

        Parameters
        ----------
        numbers : collection of int
            The operators.
        outputs : collection of str
            What they give when they are lowered.
        """
        for name in self._given:
            if self.model.writer(name) in numbers and name not in outputs:
                raise VariablesError(f"{name!r} is converted")

    def check_host(self, numbers: Sequence[int]) -> None:
        """Refuse operators of the host that are not in the file as they are here."""
        own = self.model.with_copies(numbers)
        for number in own:
            op = self.model.ops[number]
            if op.origin.name in VARIABLES - {op.name}:
                raise VariablesError(f"{op.label} moves a variable's value")
            if any(self._set_before(name) for name in op.inputs):
                raise VariablesError(f"{op.label} reads a variable that is constant")
        for name, infos in self._given.items():
            if self.model.writer(name) in own and (len(infos) > 1 or self._needed(name, own)):
                raise VariablesError(f"{name!r} is needed as more than one variable's value")

    def _set_before(self, name: str) -> bool:
        """Whether a tensor is constant because nothing assigns to its variable."""
        tensor = self.model.graph.tensors[name]
        if not tensor.is_constant or not tensor.elements:
            return False
        return self.file.is_unset(tensor)

    def _needed(self, name: str, numbers: Collection[int]) -> bool:
        """Whether a variable's next value is also something else for others than these."""
        return name in self._ends or any(
            name in op.inputs for number, op in self.model.ops.items() if number not in numbers
        )

    def in_segment(self, segment: Segment, numbers: Sequence[int]) -> Segment:
        """Return a segment that takes and gives variables by their names.

        Parameters
        ----------
        segment : Segment
            Of operators that the checks have let through.
        numbers : sequence of int
            The operators.
        """
        own = self.model.with_copies(numbers)
        if isinstance(segment, HostSegment):
            given = {name: infos[0] for name, infos in self._given.items()}
            return replace(
                segment,
                inputs=tuple(self._infos.get(info.name, info) for info in segment.inputs),
                outputs=tuple(given.get(info.name, info) for info in segment.outputs),
            )
        outputs: list[PlacedTensor] = []
        for tensor in segment.outputs:
            infos = self._given.get(tensor.name, [])
            if not infos or self.looked_at or self._needed(tensor.name, own):
                outputs.append(tensor)
            outputs += [replace(tensor, info=info) for info in infos]
        inputs = [
            replace(tensor, info=self._infos.get(tensor.name, tensor.info))
            for tensor in segment.inputs
        ]
        return replace(segment, inputs=tuple(inputs), outputs=tuple(outputs))

    def renamed(self, conversions: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return conversions, of variables by their names."""
        names: Mapping[str, str] = {before: info.name for before, info in self._infos.items()}
        return [(names.get(source, source), target) for source, target in conversions]
