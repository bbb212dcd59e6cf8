"""Runs the host's segments of a program, in TFLite's interpreter or in onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.errors import DeviceError, InputError
from celosia.install import install_advice
from celosia.sw.driver.result import SegmentResult
from celosia.sw.program.file import Program
from celosia.sw.program.segments import ONNXRUNTIME, HostSegment
from celosia.sw.runtime.interpreter import (
    InterpreterError,
    InterpreterProcess,
    Opened,
    interpreter_installed,
    onnxruntime_installed,
)

__all__ = ["HostRunner", "host_label", "require_host"]

Array = npt.NDArray[Any]
MAX_NAMED = 3


def require_host(program: Program) -> None:
    """Refuse to run a program with operators on the host where nothing can run them.

    Raises
    ------
    DeviceError
        Saying what to install.
    """
    for segment in program.host_segments:
        of_onnx = segment.kernels == ONNXRUNTIME
        if onnxruntime_installed() if of_onnx else interpreter_installed():
            continue
        package, extra = ("onnxruntime", "onnx") if of_onnx else ("ai-edge-litert", "host")
        count = sum(len(each.layers) for each in program.host_segments)
        raise DeviceError(
            f"program {program.model!r}",
            f"{count} of its operators run on the host, for which {package} is not installed",
            install_advice(extra),
        )


def host_label(segment: HostSegment) -> str:
    """Return how messages call a segment: its name, and what it computes."""
    kinds = list(dict.fromkeys(layer.op for layer in segment.layers))
    more = f" and {len(kinds) - MAX_NAMED} more" if len(kinds) > MAX_NAMED else ""
    return f"the host's part of {segment.name!r} ({', '.join(kinds[:MAX_NAMED])}{more})"


class HostRunner(Closing):
    """The host's segments of one program, in a process that begins with the first run.

    What operators keep from run to run (variables, the state of recurrent layers) is kept in the
    process.

    Parameters
    ----------
    segments : sequence of HostSegment
    """

    def __init__(self, segments: Sequence[HostSegment]) -> None:
        self._segments = list(segments)
        self._process: InterpreterProcess | None = None

    def run(self, segment: HostSegment, inputs: Mapping[str, Array]) -> SegmentResult:
        """Run one of the segments.

        Parameters
        ----------
        segment : HostSegment
            One of those that the runner was made for.
        inputs : mapping of str to ndarray
            By tensor name, in each tensor's shape and dtype.

        Raises
        ------
        DeviceError
            If the interpreter refuses it, ends, or does not answer. The next run begins anew:
            what operators kept is lost.
        InputError
            If an array is of the wrong dtype.
        """
        number = next(i for i, own in enumerate(self._segments) if own is segment)
        for info in segment.inputs:
            if inputs[info.name].dtype != info.item:
                raise InputError(
                    f"tensor {info.name!r}", f"it is {inputs[info.name].dtype}, not {info.dtype}"
                )
        try:
            if self._process is None:
                self._process = InterpreterProcess(
                    [
                        Opened(
                            model=own.model,
                            kernels=own.kernels,
                            keeps_int8=own.kernels == ONNXRUNTIME,
                        )
                        for own in self._segments
                    ]
                )
            started = time.perf_counter()
            found = self._process.run(number, [inputs[info.name] for info in segment.inputs])
            milliseconds = 1000 * (time.perf_counter() - started)
        except InterpreterError as error:
            self.close()
            raise self._failed(error, segment) from None
        except BaseException:
            # What is half done would be taken for the next answer.
            self.close()
            raise
        outputs = {
            info.name: np.asarray(values).astype(info.dtype, copy=False)
            for info, values in zip(segment.outputs, found, strict=True)
        }
        return SegmentResult(name=segment.name, outputs=outputs, milliseconds=milliseconds)

    def _failed(self, error: InterpreterError, segment: HostSegment) -> DeviceError:
        if error.model is not None and error.model < len(self._segments):
            segment = self._segments[error.model]
        name = "onnxruntime" if segment.kernels == ONNXRUNTIME else "TFLite's interpreter"
        return DeviceError(
            host_label(segment),
            f"{name}, which runs it, {error}",
            "the next run begins anew; 'celosia compile --host refuse' says which operators the NPU"
            " does not run, and why",
        )

    def reset(self) -> None:
        """Let operators forget what they kept from run to run."""
        if self._process is not None:
            try:
                self._process.reset()
            except InterpreterError:
                self.close()

    def close(self) -> None:
        """End the process; may be called again."""
        if self._process is not None:
            self._process.close()
            self._process = None
