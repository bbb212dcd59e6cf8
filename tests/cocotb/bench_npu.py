"""The whole machine as a host sees it: registers, interrupt and system memory."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, End, Load, Region
from celosia.hw.contract.regs import ErrorCause, address_of, register
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.layout import Layout
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.bfm.cycles import Cycles, Pins
from tests.kit.bfm.wishbone import RegisterBus, WishboneMemory
from tests.kit.designs import DESIGNS
from tests.kit.random_models import RandomModel, random_network

CONFIG: NpuConfig = DESIGNS[os.environ["CELOSIA_DESIGN"]].config
MEMORY_BYTES = 1 << 18
FIRST_ADDRESS = 4096
DRAWS = 200
MOST_PREDICTED_CYCLES = 90_000 if CONFIG.firmware else 12_000
"""Larger networks would make the bench slow and show nothing else."""
NETWORKS = 1 if CONFIG.firmware else 3
LIMIT_CYCLES = 4_000_000 if CONFIG.firmware else 400_000
MOODS = (
    ((8, 8), 0.0, 0.0),
    ((1, 4), 0.5, 0.3),
    ((1, 40), 0.1, 0.1),
)
"""Of system memory: latency, chance of a stall, chance of holding back an answer."""


class Host:
    """What a driver does, access by access."""

    def __init__(self, dut: Any) -> None:
        rng = self.random = random.Random(random.getrandbits(64))
        self.numpy = np.random.default_rng(rng.getrandbits(32))
        self.cycles = Cycles(dut, limit=LIMIT_CYCLES)
        self.data = bytearray(rng.randbytes(MEMORY_BYTES))
        self.memory = WishboneMemory(
            self.cycles, dut, "bus", self.data, seed=rng.getrandbits(32),
            max_outstanding=CONFIG.max_outstanding,
        )  # fmt: skip
        self.set_mood(rng.choice(MOODS))
        self.bus = RegisterBus(self.cycles, dut, "csr", seed=rng.getrandbits(32))
        self.irq = Pins(dut, "", ("irq",))

    def set_mood(self, mood: tuple[tuple[int, int], float, float]) -> None:
        self.memory.latency, self.memory.stall, self.memory.delay = mood

    async def start(self) -> None:
        await self.cycles.start()
        assert await self.read("config_hash") == CONFIG.hash
        await self.write("irq_enable", 3)
        await self.write("bus_timeout", 1000)

    async def read(self, name: str) -> int:
        return await self.bus.read(address_of(name))

    async def write(self, name: str, value: int) -> None:
        await self.bus.write(address_of(name), value)

    async def field(self, name: str, field: str) -> int:
        word = await self.read(name)
        place = next(entry for entry in register(name).fields if entry.name == field)
        return word >> place.offset_bits & ((1 << place.width_bits) - 1)

    async def place(self, region: Region, base: int, size: int) -> None:
        await self.write(f"region{region.value}_base", base)
        await self.write(f"region{region.value}_size", size)

    async def run(self) -> None:
        """Ring the doorbell and sleep until the interrupt; now and then look at the status."""
        await self.write("doorbell", 1)
        while not self.irq.get("irq"):
            if self.random.random() < 0.3:
                await self.read("status")
            await self.cycles.wait(self.random.randint(1, 200))

    async def load(self, program: Program) -> Layout:
        """Put a program into memory; return where its regions are."""
        layout = Layout.of(program.npu, first=FIRST_ADDRESS, memory_bytes=MEMORY_BYTES)
        for region, content in (
            (Region.CODE, program.npu.commands),
            (Region.CONST, program.npu.constants),
        ):
            base = layout[region].base
            self.data[base : base + len(content)] = content
        for region in Region:
            await self.place(region, layout[region].base, layout[region].size)
        return layout

    async def infer(
        self, program: Program, layout: Layout, inputs: list[npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """Run a program that is loaded; return its outputs."""
        whole = np.frombuffer(self.data, np.uint8)
        for tensor, values in zip(program.npu.inputs, inputs, strict=True):
            place = layout[Region[tensor.region]]
            tensor.scatter(whole[place.base : place.end], values)
        before = bytes(self.data)
        await self.run()
        assert await self.read("error_cause") == 0
        assert await self.field("status", "done")
        assert not await self.field("status", "busy")
        await self.write("irq_pending", 3)
        await self.cycles.wait(3)
        assert not self.irq.get("irq")
        low = min(layout[region].base for region in (Region.IO, Region.SCRATCH))
        assert self.data[:low] == before[:low], "the program has written over its own code"
        end = -(-layout[Region.SCRATCH].end // 64) * 64
        assert self.data[end:] == before[end:], "the program has written behind its regions"
        assert await self.read("count_bus_write") == self.memory.writes
        assert await self.read("count_bus_read") == self.memory.reads
        self.memory.reads = self.memory.writes = 0
        outputs = []
        for tensor in program.npu.outputs:
            place = layout[Region[tensor.region]]
            outputs.append(tensor.gather(whole[place.base : place.end]))
        return outputs

    def network(self) -> tuple[Program, RandomModel]:
        """Return a random network that fits the machine."""
        for _ in range(DRAWS):
            candidate = random_network(self.numpy, depth=self.random.randint(1, 4), size=(6, 6))
            try:
                program = compile_model(candidate.model, CONFIG)
            except CelosiaError as error:  # too large for so small a machine
                cocotb.log.info("drawn again: %s", error)
                continue
            cycles = sum(layer.predicted_cycles for layer in program.layers)
            if cycles <= MOST_PREDICTED_CYCLES:
                return program, candidate
        raise AssertionError(f"none of {DRAWS} random networks compiles")


async def start(dut: Any) -> Host:
    host = Host(dut)
    await host.start()
    return host


async def check_inference(host: Host, program: Program, candidate: RandomModel) -> None:
    """Load and run a network once more and compare all outputs with the golden model."""
    layout = await host.load(program)
    model = GoldenModel(candidate.model)
    host.set_mood(host.random.choice(MOODS))
    inputs: list[npt.NDArray[Any]] = [
        host.numpy.integers(-128, 128, x.shape).astype(np.int8) for x in candidate.inputs
    ]
    values = model.run(inputs)
    host.memory.reads = host.memory.writes = 0
    outputs = await host.infer(program, layout, inputs)
    for info, output in zip(model.outputs, outputs, strict=True):
        np.testing.assert_array_equal(output, values[info.name])


@cocotb.test()
async def random_networks_equal_the_golden_model(dut: Any) -> None:
    host = await start(dut)
    for _ in range(NETWORKS):
        program, candidate = host.network()
        for _ in range(2):
            await check_inference(host, program, candidate)


@cocotb.test()
async def errors_stop_the_machine_and_a_soft_reset_recovers_it(dut: Any) -> None:
    host = await start(dut)
    program, candidate = host.network()
    word = CONFIG.bus_bytes
    size = 16 * COMMAND_BYTES
    base = FIRST_ADDRESS
    good = Load(region=Region.CODE, row_bytes=word, tag=7)
    late = Load(region=Region.CODE, mem_addr=size, row_bytes=1, tag=0x1234)

    def garbage(opcode: int) -> bytes:
        # The tag is in bytes 2 and 3.
        return bytes([opcode, 0, 0x55, 0xAA]) + bytes(COMMAND_BYTES - 4)

    cases: list[tuple[bytes, ErrorCause, int, int, int | None]] = [
        # The code, and the cause, unit, tag and address expected.
        (good.encode() + garbage(0x77), ErrorCause.ILLEGAL_OPCODE, 4, 0xAA55, None),
        (garbage(0), ErrorCause.ILLEGAL_OPCODE, 4, 0xAA55, None),
        (garbage(0x10) + End().encode(), ErrorCause.ILLEGAL_FIELD, 0, 0xAA55, None),
        (late.encode() + End().encode(), ErrorCause.MEM_WINDOW, 0, 0x1234, base + size),
        (16 * good.encode(), ErrorCause.FETCH_WINDOW, 4, 0, base + size),
    ]
    host.random.shuffle(cases)
    for code, cause, unit, tag, address in cases:
        host.data[base : base + size] = (code + bytes(size))[:size]
        await host.place(Region.CODE, base, size)
        await host.run()
        assert await host.field("status", "error")
        assert await host.field("error_cause", "cause") == cause, cause.name
        assert await host.field("error_cause", "unit") == unit, cause.name
        if cause is not ErrorCause.FETCH_WINDOW:
            assert await host.field("error_cause", "tag") == tag, cause.name
        if address is not None:
            assert await host.read("error_address") == address
        await recover(host)
    await check_inference(host, program, candidate)


async def recover(host: Host) -> None:
    """Do a soft reset and see that the machine is as after power-up."""
    await host.write("control", 1)
    await host.cycles.wait(3)
    assert await host.read("status") == 0
    await host.write("irq_pending", 3)
    await host.cycles.wait(2)
    assert not host.irq.get("irq")


@cocotb.test()
async def bus_errors_timeouts_and_the_watchdog(dut: Any) -> None:
    host = await start(dut)
    program, candidate = host.network()
    await check_inference(host, program, candidate)
    layout = await host.load(program)
    word = CONFIG.bus_bytes
    code = layout[Region.CODE]
    for trial in range(6):
        kind = ("error", "mute", "watchdog")[trial % 3]
        # Of End nothing but its first word need be read.
        bad = host.random.randrange(code.base, code.end - COMMAND_BYTES, word)
        if kind == "error":
            host.memory.error_words = {bad // word}
        elif kind == "mute":
            host.memory.mute = True
            await host.write("bus_timeout", 200)
        else:
            await host.write("watchdog", host.random.randint(50, 400))
        await host.run()
        assert await host.field("status", "error"), kind
        cause = await host.field("error_cause", "cause")
        wanted = {
            "error": ErrorCause.BUS_ERROR,
            "mute": ErrorCause.BUS_TIMEOUT,
            "watchdog": ErrorCause.WATCHDOG,
        }[kind]
        assert cause == wanted, kind
        if kind == "error":
            assert await host.read("error_address") == bad
        host.memory.error_words.clear()
        host.memory.mute = False
        await recover(host)
        await host.write("watchdog", 0)
        await host.write("bus_timeout", 1000)
    await check_inference(host, program, candidate)


@cocotb.test()
async def a_soft_reset_ends_a_program(dut: Any) -> None:
    """In the middle of whatever it is doing, with requests on the bus."""
    host = await start(dut)
    program, candidate = host.network()
    await host.load(program)
    for _ in range(4):
        await host.write("doorbell", 1)
        await host.cycles.wait(host.random.randint(1, 600))
        await recover(host)
        assert not host.memory.in_flight
    await check_inference(host, program, candidate)


@cocotb.test()
async def sleep_stops_the_machine_and_the_doorbell_wakes_it(dut: Any) -> None:
    host = await start(dut)
    program, candidate = host.network()
    await host.write("control", 2)
    await host.cycles.wait(host.random.randint(1, 20))
    await check_inference(host, program, candidate)
    assert await host.field("control", "sleep")
    await check_inference(host, program, candidate)
