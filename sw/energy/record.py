"""The record of energies, ``docs/figures/energy.json``: kept, so that documents can cite it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celosia.errors import CelosiaError
from celosia.sw.energy.model import Energy, Range
from celosia.sw.report.records import damaged_record, put_entry, read_entries

__all__ = ["RecordedEnergy", "find_energy", "put_energy", "read_energies"]


@dataclass(frozen=True, kw_only=True)
class RecordedEnergy:
    """What a document cites of an energy; the fields are as in `Energy`."""

    model: str
    config: str
    input: str
    memory: str
    cycles: float
    macs: int
    parts: Mapping[str, Range]
    chip: Range
    total: Range
    accumulator_memory_share: tuple[float, float]
    pj_a_mac: tuple[float, float]
    gops_a_watt: tuple[float, float]


def put_energy(path: Path, energy: Energy) -> None:
    """Put an energy into the record, in place of an older one of the same model and machine.

    Raises
    ------
    CelosiaError
        If the record is damaged or cannot be written.
    """
    read_energies(path)

    def ends(energy: Range) -> list[float]:
        return [round(energy.low_uj, 4), round(energy.high_uj, 4)]

    def pair(values: tuple[float, float]) -> list[float]:
        return [round(value, 4) for value in values]

    entry = {
        "input": energy.conditions.input,
        "cycles": energy.cycles,
        "macs": energy.macs,
        "parts": {part.value: ends(own) for part, own in energy.parts.items()},
        "chip": ends(energy.chip),
        "total": ends(energy.total),
        "accumulator_memory_share": pair(energy.accumulator_memory_share),
        "pj_a_mac": pair(energy.pj_a_mac),
        "gops_a_watt": pair(energy.gops_a_watt),
    }
    put_entry(path, f"{energy.model} {energy.config} {energy.conditions.memory}", entry)


def read_energies(path: Path) -> dict[tuple[str, str, str], RecordedEnergy]:
    """Return all energies of a record, by model, configuration and kind of system memory.

    Raises
    ------
    CelosiaError
        If the file is damaged.
    """
    found = {}
    for name, entry in read_entries(path).items():
        try:
            model, config, memory = name.rsplit(" ", 2)
            found[model, config, memory] = _recorded(model, config, memory, entry)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged_record(path, f"{name!r} is no energy ({error})") from None
    return found


def _recorded(model: str, config: str, memory: str, entry: Mapping[str, Any]) -> RecordedEnergy:
    def pair(name: str) -> tuple[float, float]:
        low, high = entry[name]
        return float(low), float(high)

    return RecordedEnergy(
        model=model,
        config=config,
        memory=memory,
        input=str(entry["input"]),
        cycles=float(entry["cycles"]),
        macs=int(entry["macs"]),
        parts={part: Range(*own) for part, own in entry["parts"].items()},
        chip=Range(*pair("chip")),
        total=Range(*pair("total")),
        accumulator_memory_share=pair("accumulator_memory_share"),
        pj_a_mac=pair("pj_a_mac"),
        gops_a_watt=pair("gops_a_watt"),
    )


def find_energy(path: Path, model: str, config: str, memory: str = "dram") -> RecordedEnergy:
    """Return an energy of a record.

    Raises
    ------
    CelosiaError
        If it is not there.
    """
    found = read_energies(path).get((model, config, memory))
    if found is None:
        raise CelosiaError(
            f"energy of {model} on {config}",
            "the record does not have it",
            f"celosia energy {model}.tflite --config {config} --record {path}",
        )
    return found
