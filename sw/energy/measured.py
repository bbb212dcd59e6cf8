"""What others have measured: energies of the closed division of MLPerf Tiny."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["MeasuredEnergy", "measured_energies"]


@dataclass(frozen=True, kw_only=True)
class MeasuredEnergy:
    """The energy of one inference of the reference model, as a submitter has measured it.

    Attributes
    ----------
    model : str
        Stem of the file name that the reference model has here.
    round : str
        Of the benchmark, the latest with this result.
    submitter, system : str
    latency_ms, energy_uj : float
        Of the whole chip, or of its core and memories as the rules have it.
    """

    model: str
    round: str
    submitter: str
    system: str
    latency_ms: float
    energy_uj: float

    @property
    def url(self) -> str:
        """Where it was published."""
        return f"https://github.com/mlcommons/tiny_results_{self.round}"


@cache
def measured_energies(model: str) -> tuple[MeasuredEnergy, ...]:
    """Return the results of a model, the least energy first; none of other models."""
    text = (resources.files("celosia.sw.energy") / "measured.json").read_text(encoding="utf-8")
    results = [MeasuredEnergy(**entry) for entry in json.loads(text)["results"]]
    found = [result for result in results if result.model == model]
    return tuple(sorted(found, key=lambda result: result.energy_uj))
