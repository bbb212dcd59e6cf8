"""What a model is compared with: cycles of an Ethos-U55, the ideal and the roofline.

The numbers and where they come from are in ``baselines.json`` beside this file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from celosia.hw.contract.config import NpuConfig

__all__ = ["Baseline", "baseline_of", "sources"]


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Cycles that one inference takes elsewhere, for as many multipliers as a configuration has.

    Attributes
    ----------
    ideal_cycles : int
        MACs divided by the multipliers; known for every model.
    roofline_cycles : int or None
        With memory ports as wide as the configuration's bus; None if the model is not in the file.
    ethos_u55_cycles : int or None
        None if the model is not in the file, or there is no Ethos-U55 with as many multipliers.
    """

    ideal_cycles: int
    roofline_cycles: int | None = None
    ethos_u55_cycles: int | None = None


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


def baseline_of(model: bytes, macs: int, config: NpuConfig) -> Baseline:
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
    """
    multipliers = config.macs_per_cycle
    ideal = -(-macs // multipliers)
    known = _data().by_digest.get(hashlib.sha256(model).hexdigest())
    if known is None:
        return Baseline(ideal_cycles=ideal)
    rooflines = known["roofline_cycles"].get(str(multipliers), {})
    return Baseline(
        ideal_cycles=ideal,
        roofline_cycles=rooflines.get(str(config.bus_bytes)),
        ethos_u55_cycles=known["ethos_u55_cycles"].get(str(multipliers)),
    )
