"""What a compiled program is: its tensors, conversions and segments, and that they fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from celosia.errors import ProgramError
from celosia.hw.contract.config import NpuConfig, differences
from celosia.hw.contract.legal import LACKING_REMEDY, lacking
from celosia.hw.contract.needed import operations_in
from celosia.hw.contract.operations import OPERATIONS
from celosia.sw.program.conversion import CASTS, DEQUANTISED, QUANTISED
from celosia.sw.program.remedies import REBUILD
from celosia.sw.program.segments import HostSegment, LayerInfo, NpuSegment, Segment
from celosia.sw.program.tensors import TensorInfo

__all__ = ["MAX_BATCH", "MAX_RATIO", "MIN_RATIO", "Contents"]

MAX_BATCH = 1 << 12
"""Samples of one run."""
MIN_RATIO, MAX_RATIO = 2.0**-28, 2.0**28
"""Of the scales of two integer tensors of which one is converted to the other."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a compiled program is.

    Parameters
    ----------
    config : NpuConfig
        The configuration it was compiled for.
    model : str
        Name of the model, for people.
    batch : int
        Samples of one run, which the first axis of every tensor has one after the other.
    one_by_one : str
        Why the segments compute one sample at a time: they run `batch` times, and their tensors
        are those of one sample. Empty: they compute all samples at once.
    inputs, outputs : tuple of TensorInfo
        Of the model, in its order.
    conversions : tuple of (str, str)
        Names of tensors that the host converts, and of what they become: from one of the inputs, or
        one that a segment gives, to one that a segment takes or to one of the outputs; in order,
        also by way of others.
    between : tuple of TensorInfo
        The others: tensors that only the host has.
    casts : tuple of str
        Names of those tensors that a conversion makes as CAST does, and not QUANTIZE or DEQUANTIZE.
    layouts : mapping of str to tuple of int
        Of those tensors that a conversion makes with axes in another order: the axes of what it is
        made of, in the order of the tensor's own.
    even : tuple of str
        Names of those that are quantised as ONNX does, halves to even; others as TFLite does.
    segments : tuple of NpuSegment or HostSegment
        What is to be done, in order. A segment takes tensors that are inputs of the model, outputs
        of segments before it, or persistent.
    initial_state : bytes
        What the persistent tensors hold before the first run: one after the other in the order of
        `persistent`, without gaps.

    Raises
    ------
    ProgramError
        If there is no segment, two tensors have one name, or a tensor comes from nowhere.
    """

    config: NpuConfig
    model: str = ""
    batch: int = 1
    one_by_one: str = ""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    conversions: tuple[tuple[str, str], ...] = ()
    between: tuple[TensorInfo, ...] = ()
    casts: tuple[str, ...] = ()
    layouts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    even: tuple[str, ...] = ()
    segments: tuple[Segment, ...]
    initial_state: bytes = b""

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= MAX_BATCH:
            raise ProgramError(
                "the program", f"its batch is {self.batch}, not 1 to {MAX_BATCH}", REBUILD
            )
        if not self.segments:
            raise ProgramError("the program", "it has no segments", REBUILD)
        tensors: dict[str, TensorInfo] = {}
        for info in self._all_infos():
            if self.batch > 1 and info.persistent:
                raise ProgramError(
                    f"tensor {info.name!r}", "it is persistent, and of several samples", REBUILD
                )
            if self.batch > 1:
                info.sample(self.batch)
            if tensors.setdefault(info.name, info) != info:
                raise ProgramError(f"tensor {info.name!r}", "two tensors have this name", REBUILD)
        known = {info.name for info in self.inputs}
        known |= {info.name for info in tensors.values() if info.persistent}
        for info in self.inputs:
            if info.persistent:
                raise ProgramError(
                    f"tensor {info.name!r}", "it is an input, and persistent", REBUILD
                )
        self._check_conversions(tensors)
        self._add_converted(known)
        for segment in self.segments:
            self._require(segment.taken, known)
            known |= {tensor.name for tensor in segment.given}
            self._add_converted(known)
        self._require(self.outputs, known)
        size = sum(info.size_bytes for info in self.persistent)
        if len(self.initial_state) != size:
            raise ProgramError(
                "the program's state",
                f"{len(self.initial_state)} bytes for persistent tensors of {size}",
                REBUILD,
            )

    def _add_converted(self, known: set[str]) -> None:
        for source, target in self.conversions:
            if source in known:
                known.add(target)

    def _check_conversions(self, tensors: dict[str, TensorInfo]) -> None:
        made = {tensor.name for segment in self.segments for tensor in segment.given}
        made |= {info.name for info in self.inputs}
        casts = frozenset(self.casts)
        for names in self.conversions:
            source, target = (tensors.get(name) for name in names)
            if source is None or target is None:
                raise ProgramError(f"conversion of {names[0]!r}", "no such tensor", REBUILD)
            what = f"conversion of {source.name!r} to {target.name!r}"
            shape, layout = source.shape, self.layouts.get(target.name)
            if layout is not None and sorted(layout) == list(range(len(shape))):
                shape = tuple(shape[axis] for axis in layout)
            if shape != target.shape:
                raise ProgramError(what, f"{source.shape} to {target.shape}", REBUILD)
            self._check_kinds(what, source, target, cast=target.name in casts)
            if target.name in made:
                raise ProgramError(what, "something else makes it, too", REBUILD)
            made.add(target.name)

    @staticmethod
    def _check_kinds(what: str, source: TensorInfo, target: TensorInfo, *, cast: bool) -> None:
        kinds = source.dtype, target.dtype
        if cast:
            if not set(kinds) <= CASTS:
                raise ProgramError(what, f"{source.dtype} to {target.dtype}", REBUILD)
            return
        if kinds not in QUANTISED | DEQUANTISED:
            raise ProgramError(what, f"{source.dtype} to {target.dtype}", REBUILD)
        integers = [info for info in (source, target) if not info.dtype.startswith("float")]
        if any(not info.scale > 0 for info in integers):
            raise ProgramError(what, "one of them has no scale", REBUILD)
        if len(integers) == 2 and not MIN_RATIO < source.scale / target.scale < MAX_RATIO:
            raise ProgramError(what, "their scales are too far apart", REBUILD)

    @staticmethod
    def _require(infos: Sequence[TensorInfo], known: set[str]) -> None:
        for info in infos:
            if info.name not in known:
                raise ProgramError(
                    f"tensor {info.name!r}", "it is needed before anything makes it", REBUILD
                )

    def _all_infos(self) -> list[TensorInfo]:
        found = [*self.inputs, *self.outputs, *self.between]
        for segment in self.segments:
            infos = segment.infos
            found += [info.over(self.runs) for info in infos] if self.runs > 1 else infos
        return found

    @property
    def runs(self) -> int:
        """How many times the segments run in one run of the program."""
        return self.batch if self.one_by_one else 1

    @classmethod
    def of(
        cls, segment: NpuSegment, config: NpuConfig, *, model: str = "", initial_state: bytes = b""
    ) -> Self:
        """Return the program of one segment.

        What the segment takes and gives is the model's, but for persistent tensors.
        """
        inputs, outputs = (
            tuple(info for info in infos if not info.persistent)
            for infos in (segment.taken, segment.given)
        )
        return cls(
            config=config,
            model=model,
            inputs=inputs,
            outputs=outputs,
            segments=(segment,),
            initial_state=initial_state,
        )

    @property
    def npu(self) -> NpuSegment:
        """The segment of a program that has one, of the NPU.

        Raises
        ------
        ProgramError
            If there are several, or it is the host's.
        """
        what = f"program {self.model!r}"
        if len(self.segments) != 1:
            raise ProgramError(
                what,
                f"it has {len(self.segments)} segments, this is for programs of one",
                "take a program that is one segment",
            )
        segment = self.segments[0]
        if isinstance(segment, HostSegment):
            raise ProgramError(
                what, "it runs on the host, this is for programs of the NPU", "take another model"
            )
        return segment

    @property
    def npu_segments(self) -> tuple[NpuSegment, ...]:
        """The segments that run on the NPU, in order."""
        return tuple(part for part in self.segments if isinstance(part, NpuSegment))

    @property
    def host_segments(self) -> tuple[HostSegment, ...]:
        """The segments that run on the host, in order."""
        return tuple(part for part in self.segments if isinstance(part, HostSegment))

    def with_npu(self, **changes: Any) -> Self:
        """Return the program with fields of its only segment changed.

        Raises
        ------
        ProgramError
            If it has several segments.
        """
        return replace(self, segments=(replace(self.npu, **changes),))

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """All tensors that have a place in system memory: inputs, outputs, then the segments'."""
        return tuple({info.name: info for info in self._all_infos()}.values())

    @property
    def persistent(self) -> tuple[TensorInfo, ...]:
        """Those tensors whose contents outlast a run."""
        return tuple(info for info in self.tensors if info.persistent)

    @property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What persistent tensors hold before the first run, by name; copies."""
        state, position = {}, 0
        for info in self.persistent:
            content = self.initial_state[position : position + info.size_bytes]
            state[info.name] = np.frombuffer(content, info.item).reshape(info.shape).copy()
            position += info.size_bytes
        return state

    @property
    def keeps_variables(self) -> bool:
        """Whether its variables stay in the device's memory from run to run."""
        return len(self.segments) == 1 and any(part.exchanges for part in self.npu_segments)

    @property
    def inner(self) -> dict[str, TensorInfo]:
        """What inputs are converted to in the end, by their names; of several the last."""
        infos = {info.name: info for info in self.tensors}
        targets = dict(self.conversions)
        found = {}
        for name in (info.name for info in self.inputs if info.name in targets):
            target = targets[name]
            while target in targets:
                target = targets[target]
            found[name] = infos[target]
        return found

    @property
    def intermediates(self) -> tuple[TensorInfo, ...]:
        """Tensors that are left in system memory only to be looked at."""
        return tuple(tensor.info for segment in self.segments for tensor in segment.intermediates)

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The layers of all segments."""
        return tuple(layer for segment in self.segments for layer in segment.layers)

    @property
    def folded_macs(self) -> int:
        """Multiplications of the model that are not computed; more than 0 if it was folded."""
        return sum(layer.folded_macs for layer in self.layers)

    @property
    def predicted_cycles(self) -> int:
        """The compiler's estimate of the time that all segments take, for all samples."""
        return self.runs * sum(segment.predicted_cycles for segment in self.segments)

    def require(self, config: NpuConfig) -> None:
        """Refuse to run on another configuration than the program's own.

        Raises
        ------
        ProgramError
            Naming the parameters that differ, or the operation that the machine lacks.
        """
        if config.hash == self.config.hash:
            self._require_operations(config)
            return
        raise ProgramError(
            f"the program does not fit configuration {config.name!r}",
            ", ".join(differences(config, self.config, "the program needs")),
            f"compile the model for {config.name!r}",
        )

    def _require_operations(self, config: NpuConfig) -> None:
        if len(config.operations) == len(OPERATIONS):
            return
        for segment in self.npu_segments:
            for index, operation in operations_in(segment.commands):
                if not config.can(operation):
                    raise ProgramError(
                        f"the program's command {index}", lacking(operation, config), LACKING_REMEDY
                    )
