"""The study of one network: everything that the record has of it, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from celosia.hw.contract.config import NpuConfig, preset
from celosia.quantities import KIB
from celosia.sw.report.arrays.measure import Bench, Network, SplitCycles, UnequalError
from celosia.sw.report.arrays.network import best_choice, network_cycles, units
from celosia.sw.report.arrays.split import FOUR, ONE, TWO
from celosia.sw.report.bench.bench import Bench as NetworkBench
from celosia.sw.report.bench.bench import Measurement

__all__ = ["ARRAY", "BATCH", "BEST", "WIDE", "study_network"]

ARRAY = preset("large")
"""One of the arrays, with its memories and engines."""
WIDE = NpuConfig(
    name="32x32",
    rows=32,
    cols=32,
    bus_bits=128,
    act_bytes=512 * KIB,
    wgt_bytes=256 * KIB,
    param_bytes=32 * KIB,
    acc_depth=512,
)
"""One array with as many multipliers, and as much memory, as four of `ARRAY`."""
BATCH = 16
"""Samples of a run whose weights are loaded once: as many as an array has rows."""
ARRAYS = 4
"""How many share a bus."""
BEST = "best"
"""Organisation in which each layer is split as it is fastest."""


def study_network(
    path: Path, *, array: NpuConfig = ARRAY, wide: NpuConfig = WIDE, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure a network in all organisations.

    Parameters
    ----------
    path : Path
        The ``.tflite`` file; all of it has to run on the NPU.
    array : NpuConfig
        Of each of several arrays.
    wide : NpuConfig
        The array that they are compared with.
    say : function
        Gets a line about each measurement.

    Raises
    ------
    UnequalError
        If an output is not the golden model's.
    """
    alone, large = _whole(path, array, 1), _whole(path, wide, 1)
    together = _whole(path, array, BATCH)
    say(f"{path.stem}: {alone.cycles:,} cycles on {array.name}, {large.cycles:,} on {wide.name}")
    network = Network.load(path, array)
    with Bench.open(array) as bench:
        quarter, _ = bench.network(network, interval_cycles=ARRAYS)
        bench.measure(network, (ONE, *TWO, *FOUR))
        start, _ = bench.empty()
        organisations = _organisations(network, array, start, say)
        shared = {
            split.name: {
                str(samples): bench.with_input_shared(network, split, samples)
                for samples in (1, 2, 4)
            }
            for split in (ONE, *TWO)
        }
    return {
        "macs": network.macs,
        "array": {
            "cycles": alone.cycles,
            "words_read": alone.words_read,
            "quarter_bus": quarter,
            "batch": {"samples": together.batch, "cycles": together.cycles},
        },
        "wide": {
            "cycles": large.cycles,
            "reasons": {why.value: count for why, count in large.reasons.items()},
        },
        "organisations": organisations,
        "first_layer": shared,
        "layers": [
            {
                "name": work.name,
                "macs": work.op.macs,
                "cycles": {name: _pieces(split) for name, split in splits.items()},
                "pairs": {name: _pieces(split) for name, split in pairs.items()},
            }
            for work, splits, pairs in zip(
                network.works, network.splits, network.pairs, strict=True
            )
        ],
    }


def _whole(path: Path, config: NpuConfig, batch: int) -> Measurement:
    found = NetworkBench().measure(path, config, batch=batch)
    if not found.equal:
        raise UnequalError(
            f"model {path.stem} on {config.name}", "its outputs are not the golden model's", ""
        )
    return found


def _pieces(split: SplitCycles) -> list[int]:
    """Return the cycles of each array; 0 of one without work."""
    return [0 if piece is None else piece.cycles for piece in split.pieces]


def _organisations(
    network: Network, array: NpuConfig, start_cycles: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the cycles of each organisation, with weights over the bus and with those on chip."""
    result: dict[str, Any] = {}
    plans = [(split.name, split.arrays, [split.name]) for split in (ONE, *TWO, *FOUR)]
    plans += [
        (f"{BEST} of {splits[0].arrays}", splits[0].arrays, [split.name for split in splits])
        for splits in (TWO, FOUR)
    ]
    for title, arrays, names in plans:
        entry: dict[str, Any] = {"arrays": arrays}
        for kind, resident in (("loaded", False), ("resident", True)):
            choice = best_choice(network, names, array, arrays=arrays, resident=resident)
            cycles = network_cycles(
                network,
                choice,
                array,
                arrays=arrays,
                start_cycles=start_cycles,
                resident=resident,
            )
            entry[kind] = {field: round(value, 1) for field, value in asdict(cycles).items()}
            if len(names) > 1:
                entry[kind]["units"] = [
                    [choice[first], count] for first, count in units(network, choice)
                ]
            say(f"  {title}, weights {kind}: {cycles.total:,}, {cycles.ideal / cycles.total:.1%}")
        result[title] = entry
    return result
