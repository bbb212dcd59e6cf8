"""Random operators and networks through compiler, emulator and RTL: all tensors are equal.

The machines called "small" have memories of a few lines, so that rows have to be cut into stripes,
weights into chunks and reductions into several commands; memory answers late, stalls and delays at
random. Everything of one case comes from its seed. More of them::

    python -m tests.e2e.test_rtl_random --config small8 --seeds 1000 2000
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import CompileError, UnsupportedError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Conv, Region
from celosia.hw.contract.regs import COUNTERS
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.driver.result import Result
from celosia.sw.driver.sim import SimDevice
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.machines import MACHINES, random_memory
from tests.kit.manners import EAGER, forced
from tests.kit.random_joins import random_joined_network
from tests.kit.random_models import OPERATORS, RandomModel, random_network, random_operator
from tests.kit.random_moves import MOVES, random_move
from tests.kit.tools import skip_without_simulator

MEMORY_BYTES = 1 << 20
ATTEMPTS = 8
"""Draws until a model is one that the compiler takes: no batches, dilations and the like."""
LAYERS = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D",
    "AVERAGE_POOL_2D", "QUANTIZE", "LEAKY_RELU", "HARD_SWISH", "RELU6",
)  # fmt: skip
CODES = tuple(dict.fromkeys((*OPERATORS, *MOVES)))

Tensors = dict[str, npt.NDArray[Any]]


def random_model(seed: int, attempt: int) -> tuple[str, RandomModel]:
    """Return a model and what it is.

    Even seeds are operators, one after the other; of the odd ones every second is a network whose
    branches part and join.
    """
    rng = np.random.default_rng((seed, attempt))
    if seed % 2 == 0:
        code = CODES[seed // 2 % len(CODES)]
        if code == "PAD":
            return code, random_pad(rng)
        return code, (random_move if code in MOVES else random_operator)(code, rng)
    if seed % 4 == 3:
        return "joined", random_joined_network(rng, depth=int(rng.integers(3, 12)))
    height, width, depth = (int(n) for n in rng.integers((1, 1, 2), (25, 25, 8)))
    return "network", random_network(rng, depth=depth, size=(height, width), codes=LAYERS)


def random_pad(rng: np.random.Generator) -> RandomModel:
    """Return a PAD of height and width; nearly all of `random_operator` pad the batch as well."""
    builder = ModelBuilder()
    shape = (1, *(int(n) for n in rng.integers(1, 10, 3)))
    x = builder.input(shape, scale=0.1, zero_point=int(rng.integers(-128, 128)))
    top, bottom, left, right = (int(n) for n in rng.integers(0, 4, 4))
    y = builder.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)])
    return RandomModel(builder.finish([y]), [rng.integers(-128, 128, shape, np.int8)])


def compiled(seed: int, config: NpuConfig) -> tuple[str, RandomModel, Program] | None:
    """Return the first model of a seed that the compiler takes, or None."""
    for attempt in range(ATTEMPTS):
        kind, model = random_model(seed, attempt)
        keep = bool(np.random.default_rng(seed).random() < 0.6)
        manner = forced(EAGER) if seed % 3 == 0 else nullcontext()
        try:
            with manner:
                program = compile_model(model.model, config, keep_tensors=keep, host="refuse")
            return kind, model, program
        except (CompileError, UnsupportedError):
            continue
    return None


def assert_exact(result: Result, want: Tensors, what: str) -> int:
    """Compare every tensor of a result that the model has; return how many these are."""
    got = {**result.tensors, **result.outputs}
    # The others are the compiler's own, between two operators that one becomes.
    common = [name for name in got if name in want]
    for name in common:
        np.testing.assert_array_equal(got[name], want[name], err_msg=f"{what}: tensor {name}")
    assert result.outputs.keys() <= want.keys(), what
    return len(common)


def assert_nothing_else_written(
    device: SimDevice, before: npt.NDArray[np.uint8], what: str
) -> None:
    """Assert that system memory has changed in regions IO and SCRATCH only."""
    changed = np.flatnonzero(device.rtl.memory != before)
    for region in (Region.IO, Region.SCRATCH):
        base, size = (
            device.read_register(f"region{region.value}_{part}") for part in ("base", "size")
        )
        changed = changed[(changed < base) | (changed >= base + size)]
    assert not changed.size, f"{what}: byte {changed[0]:#x} of system memory was written"


def run_case(seed: int, rtl: SimDevice, emu: EmuDevice) -> Counter[str]:
    """Run one seed and assert that all is exact; return what there was to it."""
    found = compiled(seed, rtl.config)
    if found is None:
        return Counter({"refused": 1})
    kind, model, program = found
    what = f"{kind}, seed {seed}, configuration {rtl.config.name}"
    rng = np.random.default_rng((seed, ATTEMPTS))
    want = dict(GoldenModel(model.model).run(model.inputs))

    # Reading what nothing wrote is to show: all memories begin with random contents. On the RTL
    # the on-chip ones hold what the programs before left there.
    for memory in (emu.emulator.memory, emu.emulator.act, emu.emulator.param, rtl.rtl.memory):
        memory[:] = rng.integers(0, 256, memory.shape, np.uint8)
    emu.emulator.wgt[:] = rng.integers(-128, 128, emu.emulator.wgt.shape, np.int8)
    emu._order, emu._seed = "random", seed
    assert assert_exact(emu.run(program, model.inputs), want, f"emulator: {what}")

    rtl.rtl.set_memory_model(random_memory(rng))
    rtl.load(program.npu)
    before = rtl.rtl.memory.copy()
    result = rtl.run(program, model.inputs)
    tensors = assert_exact(result, want, f"RTL: {what}")
    assert_nothing_else_written(rtl, before, what)
    assert rtl.rtl.statistics.violations == 0, what
    return Counter(
        {
            "exact": 1,
            kind: 1,
            "tensors": tensors,
            "cycles": result.cycles or 0,
            "cut": any("stripes" in layer.reason for layer in program.layers),
            "split": any(isinstance(c, Conv) and c.hold for c in program.npu.decode()),
        }
    )


def open_pair(config: NpuConfig) -> tuple[SimDevice, EmuDevice]:
    rtl = celosia.open("sim", config, memory_bytes=MEMORY_BYTES)
    emu = celosia.open("emu", config, memory_bytes=MEMORY_BYTES)
    assert isinstance(rtl, SimDevice)
    assert isinstance(emu, EmuDevice)
    return rtl, emu


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[SimDevice, EmuDevice]]:
    """RTL and emulator of a configuration."""
    skip_without_simulator()
    rtl, emu = open_pair(MACHINES[request.param])
    with rtl, emu:
        yield rtl, emu


@pytest.mark.parametrize(
    ("pair", "seeds"),
    [
        pytest.param(name, seeds, marks=pytest.mark.xdist_group(f"rtl-{name}"), id=name)
        for name, seeds in (
            ("small4", range(0, 80)),
            ("small8", range(80, 200)),
            ("base", range(200, 280)),
        )
    ],
    indirect=["pair"],
)
def test_random_models_are_exact(pair: tuple[SimDevice, EmuDevice], seeds: range) -> None:
    total: Counter[str] = Counter()
    for seed in seeds:
        total += run_case(seed, *pair)
    print(f"seeds {seeds.start} to {seeds.stop - 1}: {dict(total)}")
    # The seeds are worth something only if nearly all of them run and reach what they are to.
    assert total["exact"] >= 0.85 * len(seeds)
    if len(seeds) >= 2 * len(CODES):
        assert all(total[code] for code in CODES)
    if pair[0].config.name.startswith("small"):
        assert total["cut"] >= 10
        assert total["split"] >= 5


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(f"rtl-{name}"), id=name)
        for name in ("small4", "tiny")
    ],
    indirect=True,
)
def test_gated_clocks_change_nothing(pair: tuple[SimDevice, EmuDevice]) -> None:
    """The machine with one clock, which FPGAs get, takes the same cycles for the same results."""
    from celosia.hw.npu import Npu
    from celosia.sim.rtl.rtl import RtlSimulator
    from celosia.sim.rtl.verilator import build_verilog, export_verilog, gateware_text

    gated, emu = pair
    config = gated.config
    with celosia.open("sim", config, memory_bytes=MEMORY_BYTES) as plain:
        assert isinstance(plain, SimDevice)
        plain.rtl.close()
        build = build_verilog(
            lambda: export_verilog(Npu(config), keep_names=False),
            f"one clock {config.hash:08x} {gateware_text(npu_only=True)}",
            title=f"RTL simulator of {config.name} with one clock",
        )
        plain.rtl = RtlSimulator(build, memory_bytes=MEMORY_BYTES)
        total: Counter[str] = Counter()
        for seed in range(80, 120):
            with_gates = run_case(seed, gated, emu)
            assert run_case(seed, plain, emu) == with_gates, f"seed {seed}"
            for name, _ in COUNTERS:
                register = f"count_{name}"
                assert plain.read_register(register) == gated.read_register(register), (
                    f"seed {seed}: {register}"
                )
            total += with_gates
        assert total["cycles"] > 100_000


def main() -> int:
    """Run many seeds; stop at the first that is not exact."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--config", default="small8", choices=list(MACHINES))
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 1100), metavar=("A", "B"))
    options = parser.parse_args()
    rtl, emu = open_pair(MACHINES[options.config])
    total: Counter[str] = Counter()
    with rtl, emu:
        for seed in range(*options.seeds):
            total += run_case(seed, rtl, emu)
    print(dict(total))
    return 0


if __name__ == "__main__":
    sys.exit(main())
