"""Operators of two tensors, with broadcasting of every kind, equal to the golden model.

More of them, with the reference interpreter beside it::

    python -m tests.e2e.test_random_binary --seeds 0 600
    python -m tests.e2e.test_random_binary --seeds 0 60 --device sim --config base tiny
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import celosia
import numpy as np
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle

from tests.kit.graph_runs import MEMORY_BYTES, run_graph
from tests.kit.machines import MACHINES as CONFIGS
from tests.kit.random_binary import OPERATORS, random_binary
from tests.kit.random_graphs import RandomGraph

MACHINES = ("small4", "tiny", "base", "large", "nano")


def run_seeds(
    seeds: range, machines: tuple[str, ...], kind: str = "emu", *, interpreter: bool | None = None
) -> tuple[Counter[str], list[str]]:
    """Run seeds, each with one operator on one of the configurations; count what came out."""
    total: Counter[str] = Counter()
    faults: list[str] = []
    devices = {
        name: celosia.open(kind, CONFIGS[name], memory_bytes=MEMORY_BYTES) for name in machines
    }
    try:
        for seed in seeds:
            case = random_binary(seed, OPERATORS[seed % len(OPERATORS)])
            name = machines[seed // len(OPERATORS) % len(machines)]
            outcome, text = run_graph(case.graph, seed, devices[name], interpreter=interpreter)
            total[outcome] += 1
            if outcome not in ("exact", "refused"):
                faults.append(f"seed {seed}, {name}: {outcome}: {case.text}: {text}")
                print(faults[-1], flush=True)
    finally:
        for device in devices.values():
            device.close()
    return total, faults


def test_random_operators_of_two_tensors_are_exact() -> None:
    total, faults = run_seeds(range(96), MACHINES, interpreter=False)
    assert not faults, "\n".join(faults)
    # On nano there is no product, and no channel for all.
    assert total["exact"] >= 80, dict(total)


def _excite(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    """Squeeze and excite: each channel by a number of its own, then by one for each pixel."""
    axes = b.constant(np.array([1, 2], np.int32))
    keep = ("ReducerOptions", {"KeepDims": True})
    channels = (1, 1, 1, x.shape[3])
    pixels = (*x.shape[:3], 1)
    squeezed = b.operator("MEAN", [x, axes], channels, scale=x.scale, options=keep)
    x = b.mul(x, b.logistic(squeezed), scale=x.scale, zero_point=3, activation="RELU6")
    axis = b.constant(np.array([3], np.int32))
    mean = b.operator("MEAN", [x, axis], pixels, scale=x.scale, options=keep)
    return b.mul(b.logistic(mean), x, scale=x.scale)


def _normalise(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    """Layer normalisation as Keras' converter writes it, its NEG in int8."""
    axis = b.constant(np.array([len(x.shape) - 1], np.int32))
    keep = ("ReducerOptions", {"KeepDims": True})
    one = (*x.shape[:-1], 1)
    channel = (x.shape[-1],)

    def constant(low: float, high: float) -> TensorHandle:
        values = np.linspace(low, high, channel[0]).round().astype(np.int8)
        return b.constant(values, scales=0.01)

    mean = b.operator("MEAN", [x, axis], one, scale=0.01, options=keep)
    squares = b.operator(
        "SQUARED_DIFFERENCE", [x, mean], x.shape, scale=x.scale * 2, zero_point=-128,
        options=("SquaredDifferenceOptions", {}),
    )  # fmt: skip
    variance = b.operator(
        "MEAN", [squares, axis], one, scale=x.scale, zero_point=-128, options=keep
    )
    epsilon = b.add(variance, b.constant(np.array([7], np.int8), scales=1e-4), scale=x.scale)
    inverse = b.operator("RSQRT", [epsilon], one, scale=0.03, zero_point=-128)
    factor = b.mul(inverse, constant(60, 127), scale=0.02, zero_point=-128)
    scaled = b.mul(x, factor, scale=0.03)
    minus = b.operator("NEG", [mean], one, scale=0.01, options=("NegOptions", {}))
    shift = b.mul(minus, factor, scale=0.01, zero_point=5)
    return b.add(scaled, b.add(shift, constant(-90, 100), scale=0.02), scale=0.03)


def test_excitation_and_normalisation_are_exact() -> None:
    """Blocks that networks have, as a whole on the NPU."""
    rng = np.random.default_rng(3)
    for block, shape in ((_excite, (1, 7, 5, 19)), (_normalise, (1, 9, 21))):
        b = ModelBuilder()
        x = b.input(shape, scale=0.04, zero_point=-11)
        model = b.finish([block(b, x)])
        for name in ("small4", "base", "large"):
            values = [rng.integers(-128, 128, shape).astype(np.int8)]
            graph = RandomGraph(model, values, (block.__name__,))
            with celosia.open("emu", CONFIGS[name], memory_bytes=MEMORY_BYTES) as device:
                assert run_graph(graph, 0, device, interpreter=False) == ("exact", ""), name


def main() -> int:
    """Run many seeds and say what came of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 300), metavar=("A", "B"))
    parser.add_argument("--config", nargs="*", default=MACHINES, choices=list(CONFIGS))
    parser.add_argument("--device", default="emu", choices=["emu", "sim"])
    options = parser.parse_args()
    total, faults = run_seeds(range(*options.seeds), tuple(options.config), options.device)
    print({key: total[key] for key in sorted(total)})
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
