"""The figures of a run, for the terminal and for ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from celosia.sw.driver.result import Result
from celosia.sw.program.file import Program
from celosia.sw.program.tensors import TensorInfo

if TYPE_CHECKING:
    from celosia.sw.reference.check import CheckReport

__all__ = [
    "check_figures",
    "describe_output",
    "npu_macs",
    "run_figures",
    "state_figures",
    "utilisation",
]

MAX_SAMPLES = 3
"""Of a run whose outputs are described."""
MAX_SCORES = 32
"""Of a vector of at most so many elements the greatest one is shown, else the range."""


def utilisation(program: Program, cycles: int | None) -> float | None:
    """Return the share of the multipliers' cycles that the model's own products take.

    ``MACs / (cycles * rows * cols)``; None without cycles. MACs that folding removed do not count:
    no multiplier works on them. Nor do those of operators on the host.
    """
    if not cycles:
        return None
    return npu_macs(program) / (cycles * program.config.macs_per_cycle)


def npu_macs(program: Program) -> int:
    """Return the multiply-accumulates that the NPU does: neither folded away nor on the host."""
    own = [layer for layer in program.layers if layer.runs_on == "npu"]
    return program.runs * sum(layer.macs - layer.folded_macs for layer in own)


def run_figures(
    program: Program, device: str, results: Sequence[Result], seconds: float
) -> dict[str, Any]:
    """Return what is known of some inferences.

    Parameters
    ----------
    program : Program
        The program that was run.
    device : str
        The device's kind.
    results : sequence of Result
        One entry an inference.
    seconds : float
        Wall-clock time of all of them.

    Returns
    -------
    dict
        ``cycles``, ``utilisation`` and ``counters`` are those of the first inference; ``runs`` has
        the cycles of each.
    """
    cycles = results[0].cycles
    return {
        "model": program.model,
        "config": program.config.name,
        "config_fields": asdict(program.config),
        "device": device,
        "samples": len(results),
        "batch": program.batch,
        "one_by_one": program.one_by_one,
        "cycles": cycles,
        "predicted_cycles": program.predicted_cycles,
        "macs": program.runs * sum(layer.macs for layer in program.layers),
        "folded_macs": program.runs * program.folded_macs,
        "npu_macs": npu_macs(program),
        "utilisation": utilisation(program, cycles),
        "seconds": seconds,
        "equal": None,
        "counters": dict(results[0].counters),
        "segments": [
            {
                "name": part.name,
                "cycles": part.cycles,
                "counters": dict(part.counters),
                "milliseconds": part.milliseconds,
            }
            for part in results[0].segments
        ],
        "layers": [asdict(layer) for layer in program.layers],
        "state": state_figures(program),
        "runs": [
            {
                "cycles": result.cycles,
                "outputs": {
                    info.name: _describe_samples(info, result.outputs[info.name], program.batch)
                    for info in program.outputs
                },
            }
            for result in results
        ],
    }


def state_figures(program: Program) -> list[dict[str, Any]]:
    """Return the variables of a program."""
    return [
        {"name": info.name, "shape": list(info.shape), "bytes": info.size_bytes}
        for info in program.persistent
    ]


def check_figures(report: CheckReport) -> dict[str, Any]:
    """Return the part of the figures that a check adds."""
    difference = None
    if report.difference is not None:
        difference = asdict(report.difference)
        difference["text"] = str(report.difference)
    return {
        "equal": report.equal,
        "check": {
            "tensors": report.tensors,
            "absent": list(report.absent),
            "narrowed": {name: list(kept) for name, kept in report.narrowed.items()},
            "sources": list(report.sources),
            "unconfirmed": report.unconfirmed,
            "foreseen": list(report.foreseen),
            "elsewhere": report.elsewhere,
            "difference": difference,
        },
    }


def _describe_samples(info: TensorInfo, values: npt.NDArray[Any], batch: int) -> str:
    """Describe an output, of several samples those that are listed."""
    samples = np.split(values, batch)
    more = ", ..." if batch > MAX_SAMPLES else ""
    return ", ".join(describe_output(info, sample) for sample in samples[:MAX_SAMPLES]) + more


def describe_output(info: TensorInfo, values: npt.NDArray[Any]) -> str:
    """Say in a few words what an output is: the class of a classifier, the range of others."""
    flat = values.reshape(-1)
    real = np.issubdtype(flat.dtype, np.floating)
    if flat.size > MAX_SCORES and not _is_softmax(info):
        ends = f"{flat.min():.6g} to {flat.max():.6g}" if real else f"{flat.min()} to {flat.max()}"
        return f"{list(values.shape)}, {ends}, mean {flat.mean():.2f}"
    best = int(np.argmax(flat))
    score = f"{flat[best]:.6g}" if real else f"{int(flat[best])}{_real(info, int(flat[best]))}"
    if flat.size == 1:
        return score
    return f"{'class' if _is_softmax(info) else 'greatest is element'} {best} = {score}"


def _is_softmax(info: TensorInfo) -> bool:
    """Whether a tensor has the quantisation that TFLite prescribes for probabilities."""
    return info.scale == 1 / 256 and info.zero_point == -128


def _real(info: TensorInfo, value: int) -> str:
    return f" ({(value - info.zero_point) * info.scale:.3g})" if info.scale > 0 else ""
