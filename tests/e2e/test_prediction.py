"""Predicted cycles against those of the RTL: networks, configurations and memories that vary.

`main` draws configurations and memories at random::

    python -m tests.e2e.test_prediction --seeds 0 20
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import celosia
import numpy as np
import pytest
from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.parts import Part
from celosia.quantities import KIB
from celosia.sim.rtl.rtl import MemoryModel
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.driver.sim import SimDevice
from celosia.sw.profile.profile import predicted_cycles
from celosia.sw.report.samples import random_samples

from tests.kit.places import DIGITS, benchmark_model
from tests.kit.tools import needs_simulator

MODELS = ("ad01", "kws", "resnet8", "sww", "vww_96")
MEMORIES = 2
"""Of each random configuration, beside the usual one."""
BOUND = 0.10
RANKS = 0.99


@dataclass(frozen=True)
class Point:
    """What was predicted and measured of one inference."""

    config: NpuConfig
    model: str
    memory: MemoryTiming
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    def __str__(self) -> str:
        latency, interval = self.memory.latency_cycles, self.memory.interval_cycles
        return (
            f"{self.model:8} latency {latency:3} interval {interval}"
            f" {self.measured:10,} {self.predicted:10,} {self.error:+7.1%}"
        )


def random_config(rng: np.random.Generator, name: str) -> NpuConfig:
    """Return any legal configuration with engines, of sizes that the five networks fit."""

    def choice(*values: int) -> int:
        return int(rng.choice(values))

    n = choice(4, 8, 8, 16)
    words = [bits for bits in (32, 64, 128) if bits <= 8 * n]
    compact: bool | tuple[str, ...] = bool(rng.integers(2))
    if rng.random() < 0.3:
        chosen = {part for part in Part if rng.random() < 0.3}
        needed = {name for part in chosen for name in part.value.needs}
        compact = tuple({part.name for part in chosen} | needed)
    lanes = [count for count in (1, 2, 4, 8, 16) if n // 16 <= count <= n]
    return NpuConfig(
        name=name,
        rows=n,
        cols=n,
        bus_bits=choice(*words),
        act_bytes=choice(32, 64, 128, 256) * KIB,
        wgt_bytes=choice(4, 8, 16, 32, 64) * KIB,
        param_bytes=choice(4, 8, 16) * KIB,
        acc_depth=choice(64, 128, 256, 512, 1024),
        queue_depth=choice(2, 4, 8, 16),
        max_outstanding=choice(2, 4, 8, 16, 32),
        lanes=choice(*lanes),
        compact=compact,
    )


def random_timing(rng: np.random.Generator) -> MemoryTiming:
    return MemoryTiming(
        latency_cycles=int(rng.choice([1, 2, 4, 8, 16, 32, 64])),
        interval_cycles=int(rng.choice([1, 1, 2, 4])),
    )


def measure(
    device: SimDevice, config: NpuConfig, model: Path, memories: list[MemoryTiming]
) -> list[Point]:
    """Return the points of one model on one machine."""
    program = compile_model(model, config)
    (sample,) = random_samples(program, 1, seed=1)
    points = []
    for timing in memories:
        device.rtl.set_memory_model(
            MemoryModel(
                latency_cycles=timing.latency_cycles, interval_cycles=timing.interval_cycles
            )
        )
        cycles = device.run(program, sample).cycles
        assert cycles is not None
        predicted = predicted_cycles(program, timing)
        points.append(Point(config, model.stem, timing, predicted, cycles))
    return points


def rank_correlation(points: list[Point]) -> float:
    """Return Spearman's coefficient of predicted and measured cycles."""

    def ranks(values: list[int]) -> list[float]:
        return [float(np.searchsorted(sorted(values), value)) for value in values]

    predicted = ranks([point.predicted for point in points])
    measured = ranks([point.measured for point in points])
    return float(np.corrcoef(predicted, measured)[0, 1])


@needs_simulator
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("tiny", "base", "wide")],
)
def test_prediction_follows_memory(name: str) -> None:
    """From a memory that answers at once to one that is slow and narrow."""
    config = preset(name)
    memories = [
        MemoryTiming(latency_cycles=latency, interval_cycles=interval)
        for latency, interval in ((1, 1), (8, 1), (30, 1), (8, 4))
    ]
    points = []
    # On `wide` the digits take 4,000 cycles, most of them the beginnings of short transfers.
    first = benchmark_model("kws") if name == "wide" else DIGITS
    with celosia.open("sim", config) as device:
        assert isinstance(device, SimDevice)
        for model in (first, benchmark_model("sww"), benchmark_model("ad01")):
            points += measure(device, config, model, memories)
        device.rtl.set_memory_model(MemoryModel())
    for point in points:
        assert abs(point.error) < BOUND, str(point)
    assert rank_correlation(points) > RANKS


def main() -> int:
    """Print predicted and measured cycles of random configurations; return the exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 20), metavar=("A", "B"))
    options = parser.parse_args()
    if options.seeds[0] >= options.seeds[1]:
        parser.error(f"seeds {options.seeds[0]} to {options.seeds[1]} are none: give A below B")
    found: list[Point] = []
    for seed in range(*options.seeds):
        rng = np.random.default_rng(seed)
        config = random_config(rng, f"random{seed}")
        memories = [MemoryTiming(), *(random_timing(rng) for _ in range(MEMORIES))]
        print(
            f"seed {seed}: {config.rows}x{config.cols}, bus {config.bus_bits},"
            f" act {config.act_bytes // KIB}, wgt {config.wgt_bytes // KIB},"
            f" param {config.param_bytes // KIB}, acc {config.acc_depth},"
            f" queue {config.queue_depth}, outstanding {config.max_outstanding},"
            f" lanes {config.lanes}, compact {config.compact}",
            flush=True,
        )
        with celosia.open("sim", config) as device:
            assert isinstance(device, SimDevice)
            for name in MODELS:
                try:
                    points = measure(device, config, benchmark_model(name), memories)
                except CelosiaError as error:
                    print(f"  {name}: {error}", flush=True)
                    continue
                found += points
                for point in points:
                    print(f"  {point}", flush=True)
    errors = [abs(point.error) for point in found]
    ranks = rank_correlation(found)
    within = sum(error <= BOUND for error in errors)
    print(
        f"{len(found)} runs: error {np.mean(errors):.1%} on average, {max(errors):.1%} at most,"
        f" {within} within {BOUND:.0%}; rank correlation {ranks:.4f}"
    )
    for name in MODELS:
        of_model = [point for point in found if name in point.model]
        print(f"  {name}: rank correlation {rank_correlation(of_model):.4f}")
    return 0 if max(errors) <= BOUND and ranks >= RANKS else 1


if __name__ == "__main__":
    sys.exit(main())
