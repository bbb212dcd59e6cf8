"""What lies in the on-chip memories: within them, and until something else comes to its place."""

from __future__ import annotations

from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.profile.occupancy import occupancies
from celosia.sw.profile.profile import predicted_profile

from tests.kit.machines import MACHINES


def test_loads_of_several_runs_of_bytes_take_turns() -> None:
    """Rows of run-time weights lie apart, and two of their loads between one another."""
    b = ModelBuilder()
    x = b.input((1, 4, 3), scale=0.1, zero_point=0)
    y = b.input((1, 3, 20), scale=0.1, zero_point=0)
    product = b.operator("BATCH_MATMUL", [x, y], (1, 4, 20), scale=0.5, zero_point=0)
    profile = predicted_profile(compile_model(b.finish([product]), MACHINES["small4"]))
    (weights,) = (memory for memory in occupancies(profile) if memory.memory == "WGT")
    assert len({block.address for block in weights.blocks}) < len(weights.blocks)
    assert 0 < weights.peak_bytes <= weights.size_bytes
    for block in weights.blocks:
        assert 0 <= block.begin < block.end <= profile.cycles
        assert block.address + block.size_bytes <= weights.size_bytes
