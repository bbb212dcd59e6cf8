"""What a model is compared with: the ideal, the roofline, and cycles of an Ethos.

Ideal and roofline are worked out for any model. What is known of an Ethos and where it comes from
is in ``baselines.json`` beside this file; where Vela is installed, it is asked for the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from celosia.hw.contract.config import NpuConfig
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.frontends import formats
from celosia.sw.compiler.ir import Graph
from celosia.sw.report.bench.roofline import roofline_cycles
from celosia.sw.report.bench.vela import FAMILIES, vela_cycles

__all__ = ["Baseline", "baseline_of", "sources"]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Cycles that one inference takes elsewhere, for as many multipliers as a configuration has.

    Attributes
    ----------
    ideal_cycles : int
        MACs divided by the multipliers; known for every model.
    roofline_cycles : int or None
        With memory ports as wide as the configuration's bus; None if it was not worked out.
    ethos_u55_cycles, ethos_u65_cycles, ethos_u85_cycles : int or None
        None if there is no such Ethos with as many multipliers, or if the model is not in the file
        and Vela cannot be asked, or refuses it.
    """

    ideal_cycles: int
    roofline_cycles: int | None = None
    ethos_u55_cycles: int | None = None
    ethos_u65_cycles: int | None = None
    ethos_u85_cycles: int | None = None


@dataclass(frozen=True)
class _Data:
    sources: dict[str, str] = field(default_factory=dict)
    by_digest: dict[str, dict[str, Any]] = field(default_factory=dict)


@cache
def _data() -> _Data:
    text = (resources.files("celosia.sw.report.bench") / "baselines.json").read_text(
        encoding="utf-8"
    )
    content = json.loads(text)
    models = content["models"].values()
    return _Data(content["sources"], {model["sha256"]: model for model in models})


def sources() -> dict[str, str]:
    """Return where each kind of number comes from."""
    return dict(_data().sources)


def baseline_of(
    model: bytes, macs: int, config: NpuConfig, without: Collection[int] = ()
) -> Baseline:
    """Return what a model on a configuration is compared with.

    Parameters
    ----------
    model : bytes
        The ``.tflite`` file; known by its contents, so that no other model of the same name gets
        its numbers.
    macs : int
        Its multiplications.
    config : NpuConfig
        The configuration.
    without : collection of int
        Numbers of the file's operators that the host runs.
    """
    multipliers = config.macs_per_cycle
    known = _data().by_digest.get(hashlib.sha256(model).hexdigest(), {})
    ethos = {}
    for family in FAMILIES:
        cycles = known.get(f"{family}_cycles", {}).get(str(multipliers))
        if cycles is None and not without:
            cycles = vela_cycles(model, family, multipliers)
        ethos[f"{family}_cycles"] = cycles
    return Baseline(
        ideal_cycles=ceil_div(macs, multipliers),
        roofline_cycles=roofline_cycles(_graph(model), multipliers, config.bus_bytes, without),
        **ethos,
    )


@lru_cache(maxsize=16)
def _graph(model: bytes) -> Graph:
    """Return a model as the reader makes it: a run under each condition asks for it."""
    return formats.load(model, anything=True)
