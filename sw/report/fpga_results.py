"""What others have published of the same tasks on FPGAs.

The numbers and where they come from are in ``fpga_results.json`` beside this file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["PublishedResult", "published_results"]


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """A measurement of one inference on an FPGA.

    Attributes
    ----------
    model : str
        Stem of the file name of the reference model that the task has here.
    board : str
    design : str
        Tool and network.
    same_model : bool
        Whether it ran the reference model; otherwise a network of its own for the same task.
    milliseconds : float
        An inference; what comes over the serial line is not counted.
    quality : str
        As published; empty if it was not, or is the reference model's.
    source, url : str
        Where it was published.
    """

    model: str
    board: str
    design: str
    same_model: bool
    milliseconds: float
    quality: str
    source: str
    url: str


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """Return all results, those of a model beside one another."""
    text = (resources.files("celosia.sw.report") / "fpga_results.json").read_text(encoding="utf-8")
    results = []
    for entry in json.loads(text)["results"]:
        # Each as its source states it: a throughput, or cycles and a clock.
        if "inferences_per_s" in entry:
            milliseconds = 1e3 / entry.pop("inferences_per_s")
        else:
            milliseconds = 1e3 * entry.pop("cycles") / entry.pop("clock_hz")
        results.append(PublishedResult(milliseconds=milliseconds, **entry))
    return tuple(results)
