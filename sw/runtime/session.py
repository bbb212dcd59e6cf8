"""A program on a device: runs its segments in order and keeps what outlasts a run.

Those of the NPU run on the device, those of the host in a process of the interpreter.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.sw.driver.device import Device
from celosia.sw.driver.inputs import Inputs, prepare_inputs
from celosia.sw.driver.result import Result, SegmentResult
from celosia.sw.program.file import Program
from celosia.sw.program.segments import HostSegment, Segment
from celosia.sw.runtime.convert import convert
from celosia.sw.runtime.host import HostRunner, require_host

__all__ = ["Session"]

Array = npt.NDArray[Any]


class Session(Closing):
    """A program on a device; to be closed if it has segments of the host.

    Several sessions may use a device in turn; each has the variables of its program for itself, and
    what its operators on the host keep. Variables of a program of one segment stay in the device's
    memory from run to run, as far as the compiler has made it so; others are moved there and back
    in each run.

    Parameters
    ----------
    program : Program
        What to run.
    device : Device
        An open device of the program's configuration.

    Raises
    ------
    ProgramError
        If the program was compiled for another configuration.
    DeviceError
        If operators run on the host, and what runs them is not installed.
    """

    def __init__(self, program: Program, device: Device) -> None:
        program.require(device.config)
        require_host(program)
        self.program = program
        self.device = device
        self._infos = {info.name: info for info in program.tensors}
        self._stays = program.keeps_variables
        self._state: dict[str, Array] = {}
        """The variables; outdated while they are in the device's memory."""
        self._host = HostRunner(program.host_segments)
        self.reset()

    def close(self) -> None:
        """End the process of the host's segments; the device stays open."""
        self._host.close()

    @property
    def state(self) -> dict[str, Array]:
        """The variables as the last run left them, by name; `restore` takes them back.

        They are copies, read from the device's memory if they are there. What operators on the host
        keep inside the interpreter is not among them.

        Raises
        ------
        DeviceError
            If the device cannot be read any more.
        """
        if self.device.keeps(self):
            return self.device.kept()
        return {name: values.copy() for name, values in self._state.items()}

    def reset(self) -> None:
        """Let everything that outlasts a run be again as before the first one."""
        self._host.reset()
        self.device.forget(self)
        self._state = self.program.state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Let the variables hold what `state` says.

        Parameters
        ----------
        state : mapping of str to ndarray
            All of them by name, from `state` of a session of this program.

        Raises
        ------
        InputError
            If one is missing, unknown, or of the wrong shape or dtype.
        """
        taken = prepare_inputs(self.program.persistent, state, what="variable")
        self.device.forget(self)
        self._state = {name: values.copy() for name, values in taken.items()}

    def save(self) -> None:
        """Fetch the variables from the device, whose memory something else needs."""
        self._state = self.state

    def load(self) -> None:
        """Put the code and the weights of the first segment of the NPU into the device's memory.

        `run` does so when it is needed: this is for whoever wants to see it happen.

        Raises
        ------
        DeviceError
            If they do not fit.
        """
        for segment in self.program.npu_segments[:1]:
            self.device.load(segment)
        self._settle()

    def _settle(self) -> None:
        """Put the variables where they stay."""
        if self._stays and not self.device.keeps(self):
            self.device.keep(self, self.program.npu, self._state)

    def _samples(self, values: dict[str, Array]) -> list[dict[str, Array]]:
        """Return what each run of the segments begins with: all samples, or one after the other."""
        runs = self.program.runs
        if runs == 1:
            return [values]
        parts = {name: np.split(array, runs) for name, array in values.items()}
        return [{name: part[run] for name, part in parts.items()} for run in range(runs)]

    def _convert(self, values: dict[str, Array]) -> None:
        """Add what is converted from tensors that are there."""
        infos = self._infos
        for source, target in self.program.conversions:
            if source in values and target not in values:
                values[target] = convert(
                    infos[source],
                    infos[target],
                    values[source],
                    cast=target in self.program.casts,
                    even=target in self.program.even,
                    layout=self.program.layouts.get(target),
                )

    def _run_segment(
        self, segment: Segment, samples: Sequence[Mapping[str, Array]]
    ) -> list[SegmentResult]:
        """Run a segment for each of some samples that do not depend on one another."""
        taken = [
            {info.name: values[info.name] for info in segment.taken if info.name in values}
            for values in samples
        ]
        if isinstance(segment, HostSegment):
            return [self._host.run(segment, values) for values in taken]
        beside = self.program.npu_segments
        if len(beside) > 1:
            self.device.load(segment, beside)
        if self._stays:
            return [self.device.run_segment(segment, values, keeper=self) for values in taken]
        return self.device.run_samples(segment, taken)

    def run(self, inputs: Inputs, *, quantize: bool = False) -> Result:
        """Run one inference, or one of each sample if the program is of several.

        Parameters
        ----------
        inputs : Inputs
            Arrays by tensor name or in the model's order; one array for a model with one input.
            Several samples are one after the other along the first axis, here and in the outputs.
        quantize : bool
            Convert floating-point arrays with each tensor's scale and zero point, where the model
            takes integers.

        Returns
        -------
        Result
            Outputs, cycles and counters; also of each segment.

        Raises
        ------
        InputError
            If an input is missing or of the wrong shape or dtype.
        DeviceError
            If the device stops with a fault or does not end, or the host's interpreter does. The
            variables are then what they were before the run.
        """
        return self._run([inputs], quantize)[0]

    def run_many(self, inputs: Iterable[Inputs], *, quantize: bool = False) -> Iterator[Result]:
        """Run one inference after the other, or several at once where the device can.

        Results are those of `run`. A program with variables is run in order, one at a time.

        Parameters
        ----------
        inputs : iterable of Inputs
            Of each inference. No more of them are taken than the device runs at once.
        quantize : bool
            As of `run`.

        Yields
        ------
        Result
            Of each, in order, as soon as it is there.

        Raises
        ------
        InputError, DeviceError
            As of `run`; of inferences that were to be run at once, none is yielded then.
        """
        program = self.program
        at_once = 1
        if not program.persistent:
            # Those on the host take one at a time; between two on the NPU they wait for a group.
            segments = program.npu_segments
            most = min((self.device.samples_at_once(segment) for segment in segments), default=1)
            at_once = max(1, most // program.runs)
        source = iter(inputs)
        while group := list(itertools.islice(source, at_once)):
            yield from self._run(group, quantize)

    def _run(self, group: Sequence[Inputs], quantize: bool) -> list[Result]:
        """Run some inferences, several of them only if there are no variables."""
        program = self.program
        taken = [prepare_inputs(program.inputs, one, quantize=quantize) for one in group]
        if self._stays:
            self._settle()
        for values in taken:
            if not self._stays:
                values |= self._state
            self._convert(values)
        runs = [run for values in taken for run in self._samples(values)]
        results: list[list[SegmentResult]] = [[] for _ in runs]
        kept: list[dict[str, Array]] = [{} for _ in runs]
        after: dict[str, Array] = {}
        numbers = range(len(runs))
        # With variables, a run begins when the one before it is complete.
        for together in [[number] for number in numbers] if program.persistent else [numbers]:
            for segment in program.segments:
                parts = self._run_segment(segment, [runs[number] for number in together])
                for number, part in zip(together, parts, strict=True):
                    results[number].append(part)
                    # A variable's new value is for the next run: segments behind read the old one.
                    given = part.outputs
                    after |= {name: new for name, new in given.items() if name in self._state}
                    given = {name: new for name, new in given.items() if name not in after}
                    runs[number] |= given
                    # What one segment hands to another can be looked at, too.
                    kept[number] |= {**part.tensors, **given}
                    self._convert(runs[number])
        if not self._stays:
            self._state |= after
        each = program.runs
        return [
            self._result(
                runs[first : first + each],
                kept[first : first + each],
                [part for parts in results[first : first + each] for part in parts],
            )
            for first in range(0, len(runs), each)
        ]

    def _result(
        self,
        samples: list[dict[str, Array]],
        kept: list[dict[str, Array]],
        results: list[SegmentResult],
    ) -> Result:
        """Return what one inference gives, from the runs of its samples."""
        program = self.program
        values, tensors = _joined(samples), _joined(kept)
        # What is between a conversion and the NPU can be looked at like an intermediate tensor.
        made = {name for names in program.conversions for name in names}
        made -= {info.name for info in (*program.inputs, *program.outputs)}
        tensors |= {name: values[name] for name in made}
        cycles = [result.cycles for result in results if result.cycles is not None]
        counters: Counter[str] = Counter()
        for result in results:
            counters.update(result.counters)
        for info in program.outputs:
            tensors.pop(info.name, None)
        return Result(
            outputs={info.name: values[info.name] for info in program.outputs},
            cycles=sum(cycles) if cycles else None,
            counters=dict(counters),
            tensors=tensors,
            segments=tuple(results),
        )


def _joined(samples: list[dict[str, Array]]) -> dict[str, Array]:
    """Return the tensors of all samples, one after the other along their first axis."""
    if len(samples) == 1:
        return samples[0]
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}
