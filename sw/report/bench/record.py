"""The record of measured cycles, ``docs/figures/cycles.json``: kept, so that documents can cite it.

One run a line. A run is known by its model, configuration and conditions; measuring it again
replaces it, and what was not measured stays. The record has presets only, with the bus they have or
another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.sw.profile.attribute import LayerProfile, Reason
from celosia.sw.program.origin import Origin
from celosia.sw.program.segments import LayerInfo
from celosia.sw.report.bench.baselines import Baseline
from celosia.sw.report.bench.bench import Conditions, Measurement
from celosia.sw.report.files import write_bytes
from celosia.sw.report.records import damaged_record, read_entries

__all__ = ["CycleRecord", "preset_name", "read_record", "write_record"]

ABOUT = (
    "Cycles on the RTL, written by `celosia bench --record` and read by `make docs`. A layer:"
    " operator, number in the model, MACs, folded MACs, predicted cycles, cycles by reason."
)
DEFAULTS: dict[str, Any] = {**asdict(Conditions()), "resident": False, "fold": False}
"""What a run leaves out."""

_Key = tuple[Any, ...]


@dataclass
class CycleRecord:
    """What has been measured.

    Attributes
    ----------
    entries : dict
        Runs as plain values, by what they are known by.
    """

    entries: dict[_Key, dict[str, Any]] = field(default_factory=dict)

    def add(self, runs: Iterable[Measurement]) -> None:
        """Put measurements in, in place of older ones of the same runs.

        Raises
        ------
        CelosiaError
            If the configuration of one is no preset.
        """
        for run in runs:
            entry = _entry(run)
            self.entries[_key(entry)] = entry

    def add_impossible(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Put in what was asked for and cannot be; see ``impossible`` in docs/bench_json.md."""
        for entry in entries:
            self.entries[_key(entry)] = dict(entry)

    def find(
        self,
        model: str,
        config: str,
        *,
        bus_bits: int | None = None,
        resident: bool = False,
        fold: bool = False,
        **conditions: Any,
    ) -> Measurement | str | None:
        """Return a run, why it cannot be, or None if it was not measured.

        Parameters
        ----------
        model : str
            Stem of the file's name.
        config : str
            A preset.
        bus_bits : int, optional
            Width of the bus; by default the preset's.
        resident, fold : bool
            As in `Measurement`.
        **conditions
            Fields of `Conditions` that are not the default.
        """
        wanted = {"model": model, "config": config, "resident": resident, "fold": fold}
        if bus_bits not in (None, PRESETS[config].bus_bits):
            wanted["bus_bits"] = bus_bits
        for key in ({**wanted, **conditions}, {"config": config, "bus_bits": bus_bits}):
            entry = self.entries.get(_key(key))
            if entry is not None:
                return entry["reason"] if "reason" in entry else _measurement(entry)
        return None

    def cycles(self, model: str, config: str, *, fold: bool = False) -> int:
        """Return the cycles of a run under the default conditions.

        Raises
        ------
        CelosiaError
            If it was not measured.
        """
        found = self.find(model, config, fold=fold)
        if not isinstance(found, Measurement):
            raise CelosiaError(
                f"cycles of {model} on {config}",
                "the record does not have them",
                f"celosia bench --config {config} --record docs/figures/cycles.json",
            )
        return found.cycles


def read_record(path: Path) -> CycleRecord:
    """Read a record; an empty one if there is no such file.

    Raises
    ------
    CelosiaError
        If the file is damaged.
    """
    if not path.exists():
        return CycleRecord()
    runs = read_entries(path).get("runs")
    if not isinstance(runs, list) or not all(isinstance(entry, dict) for entry in runs):
        raise damaged_record(path, "it is no record of cycles: it has no list of runs")
    return CycleRecord({_key(entry): entry for entry in runs})


def write_record(path: Path, record: CycleRecord) -> None:
    """Write a record, its runs sorted."""
    runs = (record.entries[key] for key in sorted(record.entries, key=str))
    lines = ",\n".join(f"  {json.dumps(entry)}" for entry in runs)
    text = f'{{\n "about": {json.dumps(ABOUT)},\n "runs": [\n{lines}\n ]\n}}\n'
    write_bytes(path, text.encode())


def _key(entry: Mapping[str, Any]) -> _Key:
    names = ("config", "bus_bits", "model", *DEFAULTS)
    return tuple(entry.get(name, DEFAULTS.get(name)) for name in names)


def preset_name(config: NpuConfig) -> str:
    """Return the preset that a configuration is, but for the width of its bus.

    Raises
    ------
    CelosiaError
        If it is none.
    """
    name = config.name.split("-bus")[0]
    known = PRESETS.get(name)
    if known is not None and config.with_(bus_bits=known.bus_bits).hash == known.hash:
        return name
    raise CelosiaError(
        f"configuration {config.name}",
        "the record is of presets only",
        "leave --record out, or take a preset",
    )


def _entry(run: Measurement) -> dict[str, Any]:
    name = preset_name(run.config)
    known = PRESETS[name]
    conditions = {**asdict(run.conditions), "resident": run.resident, "fold": run.fold}
    changes = {key: value for key, value in conditions.items() if value != DEFAULTS[key]}
    entry: dict[str, Any] = {"model": run.model, "config": name}
    if run.config.bus_bits != known.bus_bits:
        entry["bus_bits"] = run.config.bus_bits
    entry |= changes
    entry |= {"equal": run.equal, "cycles": run.cycles, "macs": run.macs}
    if not changes.keys() - {"resident"} and "bus_bits" not in entry:
        entry |= {"words_read": run.words_read, "words_written": run.words_written}
    if not changes and "bus_bits" not in entry:
        entry["predicted_cycles"] = run.predicted_cycles
        entry["baseline"] = {k: v for k, v in asdict(run.baseline).items() if v is not None}
        entry["layers"] = [_layer_entry(profile) for profile in run.layers]
    return entry


def _layer_entry(profile: LayerProfile) -> list[Any]:
    layer = profile.layer
    reasons = {why.value: count for why, count in profile.reasons.items() if count}
    if layer is None:
        return ["end", -1, 0, 0, 0, reasons]
    numbers = (layer.origin.index, layer.macs, layer.folded_macs, layer.predicted_cycles)
    return [layer.op, *numbers, reasons]


def _measurement(entry: Mapping[str, Any]) -> Measurement:
    config: NpuConfig = PRESETS[entry["config"]]
    if "bus_bits" in entry:
        bits = entry["bus_bits"]
        config = config.with_(bus_bits=bits, name=f"{config.name}-bus{bits}")
    conditions = Conditions(**{key: entry[key] for key in asdict(Conditions()) if key in entry})
    macs = entry["macs"]
    return Measurement(
        model=entry["model"],
        config=config,
        conditions=conditions,
        resident=entry.get("resident", False),
        fold=entry.get("fold", False),
        equal=entry["equal"],
        cycles=entry["cycles"],
        macs=macs,
        predicted_cycles=entry.get("predicted_cycles", 0),
        words_read=entry.get("words_read", 0),
        words_written=entry.get("words_written", 0),
        layers=[_profile(*layer) for layer in entry.get("layers", ())],
        baseline=Baseline(
            **entry.get("baseline", {"ideal_cycles": -(-macs // config.macs_per_cycle)})
        ),
    )


def _profile(
    op: str, index: int, macs: int, folded_macs: int, predicted: int, reasons: Mapping[str, int]
) -> LayerProfile:
    layer = LayerInfo(
        name="",
        op=op,
        origin=Origin("tflite", index, op),
        macs=macs,
        folded_macs=folded_macs,
        predicted_cycles=predicted,
    )
    return LayerProfile(
        layer=None if op == "end" else layer,
        cycles=sum(reasons.values()),
        reasons={why: reasons.get(why.value, 0) for why in Reason},
    )
