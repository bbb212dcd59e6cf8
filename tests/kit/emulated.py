"""Programs on the emulator without a driver."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.isa import Region
from celosia.sim.emulator.machine import Emulator, Order
from celosia.sw.program.file import Program

__all__ = ["run"]

Int8 = npt.NDArray[np.int8]
REGION_GAP_BYTES = 64


def run(
    program: Program, inputs: Sequence[Int8], order: Order = "program", seed: int = 0
) -> dict[str, npt.NDArray[np.generic]]:
    """Run a program on a fresh emulator and return its outputs and intermediate tensors."""
    rng = np.random.default_rng(seed)
    bases, total = {}, 0
    for region in Region:
        bases[region] = total
        total += -(-program.npu.region_bytes(region) // 64) * 64 + REGION_GAP_BYTES
    emulator = Emulator(program.config, total)
    for memory in (emulator.memory, emulator.act, emulator.param):
        memory[:] = rng.integers(0, 256, memory.shape, dtype=np.uint8)
    emulator.wgt[:] = rng.integers(-128, 128, emulator.wgt.shape, dtype=np.int8)
    for region in (Region.CONST, Region.IO, Region.SCRATCH):
        emulator.set_region(region, bases[region], max(1, program.npu.region_bytes(region)))
    constants = np.frombuffer(program.npu.constants, np.uint8)
    emulator.memory[bases[Region.CONST] :][: len(constants)] = constants

    def window(region: str) -> npt.NDArray[np.uint8]:
        place = Region[region]
        return emulator.memory[bases[place] :][: program.npu.region_bytes(place)]

    for tensor, values in zip(program.npu.inputs, inputs, strict=True):
        tensor.scatter(window(tensor.region), values)
    # First what brings the weights that stay, if any do.
    for code in filter(None, (program.npu.setup, program.npu.commands)):
        emulator.load_code(code, bases[Region.CODE])
        emulator.run(order, seed)
    tensors = (*program.npu.outputs, *program.npu.intermediates)
    return {tensor.name: tensor.gather(window(tensor.region)) for tensor in tensors}
