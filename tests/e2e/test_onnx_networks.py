"""Ten kinds of networks, quantised by onnxruntime's tool in eight ways, equal its results.

All of them, with the share of channels that are proven equal::

    python -m tests.e2e.test_onnx_networks --device sim --samples 20
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.device import Device
from celosia.sw.driver.opening import open_device
from celosia.sw.program.file import Program
from celosia.sw.reference.check import check_model

from tests.kit.onnx_models import needs_whole_sums
from tests.kit.onnx_networks import NETWORKS, VARIANTS, Variant, float_model, quantise
from tests.kit.tools import skip_without_simulator

pytestmark = needs_whole_sums

CONFIG = preset("base")
SEED = 5


@dataclass(frozen=True)
class Found:
    """What came of a network.

    Attributes
    ----------
    program : Program
    cycles : int
        Of the last inference.
    foreseen : int
        Inferences in which an element is a step away, where the compiler says that it could.
    proven, channels : int
        Channels that are proven equal, of those that are requantised.
    """

    program: Program
    cycles: int
    foreseen: int
    proven: int
    channels: int


def channels_of(program: Program) -> tuple[int, int]:
    """Return how many channels of a program's layers are proven equal, and how many there are."""
    proven = channels = 0
    for layer in program.layers:
        for unproven, whole in re.findall(
            r"exact: (?:proven|unproven)(?: for (?:(\d+) of|all) (\d+) channels)?", layer.reason
        ):
            count = int(whole or 1)
            channels += count
            proven += count - int(unproven or ("unproven" in layer.reason and not whole))
    return proven, channels


def run_network(
    name: str, variant: Variant, device: Device, folder: Path, *, samples: int, exact: bool = False
) -> Found:
    """Quantise a network, run it, and hold every tensor to onnxruntime's and the golden model's."""
    model = float_model(name)
    path = quantise(model, variant, folder / f"{name}.onnx")
    program = compile_model(path, CONFIG, exact=exact)
    rng = np.random.default_rng(SEED)
    inputs = [model.sample(rng) for _ in range(samples)]
    report = check_model(path, CONFIG, device, inputs, program=program, exact=exact)
    assert report.equal, f"{name} {variant}: {report.difference}"
    assert any(source.startswith("onnxruntime") for source in report.sources)
    assert not (exact and report.foreseen)
    cycles = report.results[-1].cycles or 0
    return Found(program, cycles, len(report.foreseen), *channels_of(program))


@pytest.mark.parametrize("number", range(len(NETWORKS)))
def test_a_network_equals_onnxruntime(number: int, tmp_path: Path) -> None:
    """Each network in one of the eight ways, on the RTL."""
    skip_without_simulator()
    name, variant = list(NETWORKS)[number], VARIANTS[number % len(VARIANTS)]
    with open_device("sim", CONFIG) as device:
        found = run_network(name, variant, device, tmp_path, samples=2)
        assert found.program.layers
        assert found.channels
        if found.foreseen:
            run_network(name, variant, device, tmp_path, samples=2, exact=True)


def test_nothing_differs_where_it_is_asked_for(tmp_path: Path) -> None:
    """With `exact`, layers that are not proven equal are the host's."""
    with open_device("emu", CONFIG) as device:
        plain = run_network("squeeze_excite", VARIANTS[1], device, tmp_path, samples=1)
        exact = run_network("squeeze_excite", VARIANTS[1], device, tmp_path, samples=1, exact=True)
    assert plain.proven < plain.channels
    assert exact.proven == exact.channels
    assert exact.program.host_segments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all networks in all ways; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="emu", choices=("emu", "sim"))
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--network", action="append", choices=list(NETWORKS))
    options = parser.parse_args(arguments)
    proven = channels = foreseen = runs = 0
    with tempfile.TemporaryDirectory() as folder, open_device(options.device, CONFIG) as device:
        for name in options.network or NETWORKS:
            for variant in VARIANTS:
                found = run_network(name, variant, device, Path(folder), samples=options.samples)
                hosts = sum(len(part.layers) for part in found.program.host_segments)
                line = f"{name:15} {variant!s:24} {found.cycles:7,} cycles, equal"
                line += f", {found.proven} of {found.channels} channels proven"
                line += f", {hosts} operators on the host" if hosts else ""
                if found.foreseen:
                    line += f", {found.foreseen} inferences a step away where that is foreseen"
                    again = run_network(
                        name, variant, device, Path(folder), samples=options.samples, exact=True
                    )
                    line += f"; with exact none, {again.cycles:,} cycles"
                print(line, flush=True)
                proven, channels = proven + found.proven, channels + found.channels
                foreseen, runs = foreseen + found.foreseen, runs + options.samples
    print(
        f"{runs:,} inferences equal, {foreseen} of them but for a step that is foreseen;"
        f" {proven:,} of {channels:,} channels proven ({100 * proven / channels:.1f} %)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
