"""Random graphs over all operators: every output equal to the golden model and to the reference.

Where `test_random_wide` draws parameters that no network has, here operators meet: a graph has 3 to
15 of them, of any kind, with branches, views of views, outputs inside and variables. The campaign::

    python -m tests.e2e.test_random_graphs --seeds 0 1000
    python -m tests.e2e.test_random_graphs --seeds 0 200 --device sim

The seeds go round six configurations. On `sim` the memory answers late and stalls at random.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import celosia
import numpy as np
import pytest
from celosia.sw.reference.interpreter import interpreter_installed

from tests.kit.graph_runs import MEMORY_BYTES, run_graph
from tests.kit.machines import MACHINES
from tests.kit.random_graphs import OPERATORS, random_graph
from tests.kit.tools import skip_without_simulator

SIX = ("small4", "small8", "nano", "tiny", "base", "large")
SOUND = ("exact", "refused")


def run_seeds(
    seeds: range,
    machines: tuple[str, ...],
    kind: str = "emu",
    *,
    interpreter: bool | None = None,
    show: bool = False,
) -> tuple[Counter[str], list[str], Counter[str]]:
    """Run seeds, each on one of the configurations.

    Returns
    -------
    Counter
        How many came out how.
    list of str
        The faults.
    Counter
        How often each operator was part of a graph that ran.
    """
    total: Counter[str] = Counter()
    faults: list[str] = []
    codes: Counter[str] = Counter()
    devices = {
        name: celosia.open(kind, MACHINES[name], memory_bytes=MEMORY_BYTES) for name in machines
    }
    try:
        for seed in seeds:
            name = machines[seed % len(machines)]
            graph = random_graph(np.random.default_rng(seed))
            outcome, text = run_graph(graph, seed, devices[name], interpreter=interpreter)
            total[outcome] += 1
            if outcome == "exact":
                codes.update(set(graph.codes))
            line = f"seed {seed}, {name}: {outcome}: {' '.join(graph.codes)}: {text}"
            if outcome not in SOUND:
                faults.append(line)
            if outcome not in SOUND or show:
                print(line, flush=True)
    finally:
        for device in devices.values():
            device.close()
    return total, faults, codes


def test_random_graphs_are_exact() -> None:
    total, faults, _ = run_seeds(range(48), SIX, interpreter=False)
    assert not faults, "\n".join(faults)
    assert total["exact"] >= 20, dict(total)


@pytest.mark.skipif(not interpreter_installed(), reason="needs ai-edge-litert")
def test_random_graphs_equal_the_reference() -> None:
    total, faults, _ = run_seeds(range(100, 124), SIX)
    assert not faults, "\n".join(faults)
    assert total["exact"] >= 10, dict(total)


@pytest.mark.xdist_group("rtl-small8")
def test_random_graphs_are_exact_on_the_rtl() -> None:
    skip_without_simulator()
    total, faults, _ = run_seeds(range(200, 212), ("small8",), "sim", interpreter=False)
    assert not faults, "\n".join(faults)
    assert total["exact"] >= 5, dict(total)


def main() -> int:
    """Run many seeds and say what came of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 200), metavar=("A", "B"))
    parser.add_argument("--config", nargs="*", default=SIX, choices=list(MACHINES))
    parser.add_argument("--device", default="emu", choices=["emu", "sim"])
    parser.add_argument("--show", action="store_true", help="print every outcome")
    options = parser.parse_args()
    machines = tuple(options.config)
    total, faults, codes = run_seeds(
        range(*options.seeds), machines, options.device, show=options.show
    )
    print({key: total[key] for key in sorted(total)})
    print("operators of the graphs that ran:", {code: codes[code] for code in sorted(codes)})
    print("never:", sorted(set(OPERATORS) - set(codes)))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
