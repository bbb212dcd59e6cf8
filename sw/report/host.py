"""What of a program the host runs, why, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celosia.sw.program.file import Program
from celosia.sw.program.segments import ONNXRUNTIME, HostSegment, LayerInfo
from celosia.sw.program.tensors import DTYPES
from celosia.sw.runtime.interpreter import (
    InterpreterError,
    InterpreterProcess,
    Opened,
    interpreter_installed,
)

__all__ = [
    "HostTime",
    "host_figures",
    "measure_host",
    "share_line",
    "shares",
    "total_milliseconds",
]

NOT_INSTALLED = "ai-edge-litert is not installed"


@dataclass(frozen=True)
class HostTime:
    """What an operator on the host takes.

    Attributes
    ----------
    layer : LayerInfo
        The operator.
    milliseconds : float or None
        An inference of it alone, on zeros, in the process that runs it: the best of a few.
    unmeasured : str
        Why there is no such figure.
    """

    layer: LayerInfo
    milliseconds: float | None = None
    unmeasured: str = ""


def measure_host(program: Program) -> list[HostTime]:
    """Measure each operator that a program runs on the host, on this machine.

    Parameters
    ----------
    program : Program

    Returns
    -------
    list of HostTime
        One entry a layer on the host, in the program's order; empty if there is none.
    """
    layers = [layer for segment in program.host_segments for layer in segment.layers]
    models = [model for segment in program.host_segments for model in _single(segment)]
    found: dict[int, HostTime] = {
        index: HostTime(layers[index], unmeasured=model)
        for index, model in enumerate(models)
        if isinstance(model, str)
    }
    left = [index for index in range(len(layers)) if index not in found]
    while left:
        # One that ends the process leaves the others unmeasured: they get another process.
        opened = [model for model in (models[index] for index in left) if isinstance(model, Opened)]
        for index, time in _measured(opened, left, layers):
            found[index] = time
            left.remove(index)
    return [found[index] for index in range(len(layers))]


def total_milliseconds(times: Sequence[HostTime]) -> float | None:
    """Return what all operators take, one after the other; None if one was not measured."""
    known = [time.milliseconds for time in times if time.milliseconds is not None]
    return sum(known) if len(known) == len(times) else None


def _measured(
    opened: Sequence[Opened], numbers: Sequence[int], layers: Sequence[LayerInfo]
) -> list[tuple[int, HostTime]]:
    """Measure models until one of them fails; at least one is in the result."""
    times: list[tuple[int, HostTime]] = []
    number = 0
    try:
        with InterpreterProcess(opened) as process:
            for number, index in enumerate(numbers):
                times.append((index, HostTime(layers[index], process.time(number))))
    except InterpreterError as error:
        index = numbers[error.model if error.model is not None else number]
        times.append((index, HostTime(layers[index], unmeasured=f"the interpreter {error}")))
    return times


def _single(segment: HostSegment) -> list[Opened | str]:
    """Return a model of each operator of a segment alone, or why it cannot be alone."""
    if segment.kernels == ONNXRUNTIME:
        return ["onnxruntime runs it with those around it"] * len(segment.layers)
    if not interpreter_installed():
        return [NOT_INSTALLED] * len(segment.layers)
    # Late: commands import this module for their tables before there is anything to measure.
    from celosia.sw.compiler.frontends.tflite.cut import cut_operators
    from celosia.sw.compiler.frontends.tflite.reader import FlatModel
    from celosia.sw.compiler.frontends.tflite.schema import tensor_type

    flat = FlatModel.open(segment.model, segment.name)
    graph = flat.model.Subgraphs(0)
    models: list[Opened | str] = []
    for index in range(len(segment.layers)):
        table = graph.Operators(index)
        inputs, outputs = (
            [number for number in flat.ints(table, field) if number >= 0]
            for field in ("Inputs", "Outputs")
        )
        tensors = {number: graph.Tensors(number) for number in (*inputs, *outputs)}
        kinds = {tensor_type(int(tensor.Type())) for tensor in tensors.values()}
        if not outputs or any(kind is None or kind.value not in DTYPES for kind in kinds):
            models.append("it works on handles, which nothing else has")
            continue
        free = dict.fromkeys(
            number
            for number in inputs
            if flat.buffer(int(tensors[number].Buffer())) is None
            and not tensors[number].IsVariable()
        )
        model = cut_operators(flat, [index], list(free), outputs, {})
        models.append(Opened(model=model, kernels=segment.kernels))
    return models


def shares(program: Program) -> tuple[float, float]:
    """Return what share of the multiply-accumulates, and of the operators, the NPU has.

    Of a model without multiply-accumulates the first is that of the operators.
    """
    layers = program.layers
    own = [layer for layer in layers if layer.runs_on == "npu"]
    operators = len(own) / len(layers) if layers else 1.0
    macs = sum(layer.macs for layer in layers)
    return (sum(layer.macs for layer in own) / macs if macs else operators), operators


def host_figures(program: Program, times: Sequence[HostTime]) -> dict[str, Any]:
    """Return the figures for ``--json``.

    Parameters
    ----------
    program : Program
    times : sequence of HostTime
        From `measure_host`.
    """
    macs, operators = shares(program)
    return {
        "host_operators": len(times),
        "host_milliseconds": total_milliseconds(times),
        "npu_share": {"macs": macs, "operators": operators},
        "host": [
            {
                "operator": time.layer.op,
                "index": time.layer.origin.index,
                "layer": time.layer.name,
                "reason": time.layer.reason,
                "macs": time.layer.macs,
                "milliseconds": time.milliseconds,
                "unmeasured": time.unmeasured or None,
            }
            for time in times
        ],
    }


def share_line(program: Program, times: Sequence[HostTime]) -> str:
    """Say in a line what runs where; empty if everything is on the NPU."""
    if not times:
        return ""
    macs, operators = shares(program)
    layers = len(program.layers)
    known = [time.milliseconds for time in times if time.milliseconds is not None]
    how_long = f"{sum(known):.3g} ms here, one by one" if known else "not measured"
    if len(known) < len(times):
        first = next(time for time in times if time.milliseconds is None)
        how_long += f"; {len(times) - len(known)} not measured" if known else ""
        how_long += f": {first.unmeasured}"
    if len(times) == layers:
        return f"on the host: all {layers} operators ({how_long}); the NPU has nothing to do"
    crossings = len(program.segments) - 1
    return (
        f"on the NPU: {macs:.1%} of the MACs, {operators:.1%} of the operators; on the host:"
        f" {len(times)} of {layers} operators ({how_long}), {crossings}"
        f" {'change' if crossings == 1 else 'changes'} between them"
    )
