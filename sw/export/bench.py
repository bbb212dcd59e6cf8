"""The testbench of an exported NPU: one program, its memory and what must come out, as files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from celosia.errors import InputError
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.ports import word_addr_bits
from celosia.hw.contract.isa import Region
from celosia.hw.contract.regs import address_of
from celosia.sw.driver.device import FIRST_ADDRESS
from celosia.sw.driver.emu import STATUS_DONE, EmuDevice
from celosia.sw.driver.inputs import Inputs
from celosia.sw.driver.layout import Layout
from celosia.sw.driver.result import Result
from celosia.sw.export.verilog import BENCH
from celosia.sw.program.file import Program
from celosia.sw.program.tensors import PlacedTensor

__all__ = ["Bench", "make_bench"]

LEAST_CYCLES = 100_000
MARGIN = 4
"""Times the predicted cycles: what a run may take before the testbench gives up."""
ADDRESS_SPACE_BYTES = 1 << 32


@dataclass(frozen=True)
class Bench:
    """A testbench with its data.

    Attributes
    ----------
    files : dict of str to bytes
        Contents by file name.
    result : Result
        What the emulator makes of the program, to which the outputs are compared.
    """

    files: dict[str, bytes]
    result: Result


class _Recorder(EmuDevice):
    """An emulated device that remembers what the driver did to run a program."""

    def __init__(self, program: Program) -> None:
        layout = Layout.of(program.npu, first=FIRST_ADDRESS, memory_bytes=ADDRESS_SPACE_BYTES)
        super().__init__(program.config, memory_bytes=layout.end)
        self.layout = layout
        self.writes: list[tuple[int, int]] = []
        self.before: npt.NDArray[np.uint8] | None = None

    def write_register(self, name: str, value: int) -> None:
        if self.before is None:  # what follows the doorbell clears the interrupt
            self.writes.append((address_of(name), value))
        if name == "doorbell":
            self.before = self.emulator.memory.copy()
        super().write_register(name, value)

    def addresses(self, tensor: PlacedTensor) -> npt.NDArray[np.int64]:
        """Return where the tensor's bytes are in system memory, in the order of its elements."""
        place = self.layout[Region[tensor.region]]
        own = np.arange(place.base, place.end)
        lanes = [
            np.ascontiguousarray(tensor.gather((own >> shift & 0xFF).astype(np.uint8)))
            for shift in (0, 8, 16, 24)
        ]
        stacked = np.stack([lane.reshape(-1).view(np.uint8) for lane in lanes], axis=-1)
        return stacked.view("<u4").reshape(-1).astype(np.int64)


def make_bench(
    program: Program, inputs: Inputs, *, module: str = "npu", latency_cycles: int = 8
) -> Bench:
    """Return the testbench that runs a program on the exported NPU.

    Parameters
    ----------
    program : Program
        Its configuration is that of the NPU.
    inputs : Inputs
        One sample.
    module : str
        Name of the NPU's module.
    latency_cycles : int
        From a request to the answer of system memory, at least 1. With that of ``celosia run``,
        8, the program takes as many cycles as there.

    Raises
    ------
    InputError
        If an input is missing or of the wrong shape or dtype, or the program runs several samples
        one after the other.
    """
    if program.runs > 1:
        raise InputError(
            f"program {program.model!r}",
            f"its {program.batch} samples run one after the other, a testbench runs once",
            "compile the model without --batch",
        )
    device = _Recorder(program)
    result = device.run(program, inputs)
    assert device.before is not None
    bus_bytes = program.config.bus_bytes
    words = device.before.reshape(-1, bus_bytes)[:, ::-1]  # the first byte is the lowest
    memory = device.emulator.memory
    expected = [
        (int(address), int(memory[address]))
        for tensor in program.npu.outputs
        for address in device.addresses(tensor)
    ]
    files = {
        BENCH.name: BENCH.read_bytes(),
        "memory.hex": _lines(word.tobytes().hex() for word in words),
        "registers.hex": _lines(f"{address:08x}{value:08x}" for address, value in device.writes),
        "expected.hex": _lines(f"{address:08x}{value:02x}" for address, value in expected),
    }
    predicted = program.predicted_cycles
    macros = {
        "MODULE": module,
        "CSR_ADR_BITS": csr_signature().addr_width,
        "BUS_BITS": program.config.bus_bits,
        "BUS_ADR_BITS": word_addr_bits(program.config),
        "LATENCY": latency_cycles,
        "WORDS": len(words),
        "WRITES": len(device.writes),
        "EXPECTED": len(expected),
        "MOST_CYCLES": max(LEAST_CYCLES, MARGIN * predicted),
        "CONFIG_HASH": f"32'h{program.config.hash:08x}",
        "STATUS_DONE": STATUS_DONE,
        "CONFIG_HASH_ADDRESS": address_of("config_hash"),
        "STATUS_ADDRESS": address_of("status"),
        "TOTAL_ADDRESS": address_of("count_total"),
    }
    files["npu_tb.vh"] = _lines(f"`define NPU_{name} {value}" for name, value in macros.items())
    return Bench(files, result)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
