"""The register file and the control behind it, against a model of the register map."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.regs import (
    ACCESS,
    IDENTITY,
    REGISTERS,
    VERSION,
    ErrorCause,
    Register,
    address_of,
    capability_words,
)

from tests.kit.bfm.cycles import Cycles, Pins
from tests.kit.bfm.wishbone import BusError, RegisterBus
from tests.kit.designs import DESIGNS

CONFIG: NpuConfig = DESIGNS[os.environ["CELOSIA_DESIGN"]].config
BY_ADDRESS = {entry.address: entry for entry in REGISTERS}


def mask_of(entry: Register, *kinds: ACCESS) -> int:
    """Return the bits of a register whose fields have one of these kinds of access."""
    return sum(
        ((1 << field.width_bits) - 1) << field.offset_bits
        for field in entry.fields
        if field.access in kinds
    )


def spread(sel: int) -> int:
    """Return the bits that a byte select lets through."""
    return sum(0xFF << 8 * lane for lane in range(4) if sel >> lane & 1)


class Model:
    """What a host may expect of the registers while no program runs."""

    def __init__(self) -> None:
        self.values = {address: 0 for address in BY_ADDRESS}
        words = (IDENTITY, VERSION, CONFIG.hash, *capability_words(CONFIG))
        capabilities = (f"capability{i}" for i in range(len(words) - 3))
        names = ("identity", "version", "config_hash", *capabilities)
        for name, word in zip(names, words, strict=True):
            self.values[address_of(name)] = word

    def write(self, address: int, value: int, sel: int) -> None:
        entry = BY_ADDRESS[address]
        keep = mask_of(entry, ACCESS.RW) & spread(sel)
        clear = mask_of(entry, ACCESS.RW1C) & spread(sel) & value
        self.values[address] = (self.values[address] & ~keep | value & keep) & ~clear


class Rig:
    """The register bus and the pins of the machine behind it."""

    OUTPUTS = ("irq", "start", "halt", "sleep", "regions", "bus_timeout")
    INPUTS = ("done", "tag", "active", "busy", "bus_read")

    def __init__(self, dut: Any) -> None:
        self.random = random.Random(random.getrandbits(64))
        self.cycles = Cycles(dut)
        self.pins = Pins(dut, "", (*self.OUTPUTS, *self.INPUTS))
        self.fault = Pins(dut, "fault", ("valid", "cause", "address"))
        for name in self.INPUTS:
            self.pins.set(name, 0)
        for name in ("valid", "cause", "address"):
            self.fault.set(name, 0)
        self.bus = RegisterBus(self.cycles, dut, "bus", seed=self.random.getrandbits(32))
        self.starts = 0
        self.cycles.agents.append(self)

    def sample(self) -> None:
        self.starts += self.pins.get("start")

    def drive(self) -> None:
        pass

    async def pulse(self, name: str) -> None:
        """Raise an input for one cycle."""
        self.pins.set(name, 1)
        await self.cycles.wait(1)
        self.pins.set(name, 0)

    async def read(self, name: str) -> int:
        return await self.bus.read(address_of(name))

    async def write(self, name: str, value: int, sel: int = 15) -> None:
        await self.bus.write(address_of(name), value, sel)

    async def check(self, model: Model) -> None:
        """Compare every register but the counters and the pins behind them."""
        for address, entry in BY_ADDRESS.items():
            got = await self.bus.read(address)
            assert got == model.values[address], (
                f"{entry.name} is 0x{got:08x}, not 0x{model.values[address]:08x}"
            )
        regions = self.pins.get("regions")
        for place, address in enumerate(a for a, e in BY_ADDRESS.items() if "region" in e.name):
            assert regions >> 32 * place & 0xFFFF_FFFF == model.values[address]
        assert self.pins.get("bus_timeout") == model.values[address_of("bus_timeout")]
        assert self.pins.get("sleep") == model.values[address_of("control")] >> 1


async def start(dut: Any) -> Rig:
    rig = Rig(dut)
    await rig.cycles.start()
    return rig


@cocotb.test()
async def identity_and_state_after_reset(dut: Any) -> None:
    rig = await start(dut)
    await rig.check(Model())


@cocotb.test()
async def every_register_takes_its_own_bits_and_bytes(dut: Any) -> None:
    rig = await start(dut)
    model = Model()
    for address, entry in BY_ADDRESS.items():
        if entry.name == "doorbell":
            continue
        for value in (0xFFFF_FFFF, 0, rig.random.getrandbits(32)):
            sel = rig.random.randrange(16)
            await rig.bus.write(address, value, sel)
            model.write(address, value, sel)
        await rig.check(model)


@cocotb.test()
async def random_traffic(dut: Any) -> None:
    rig = await start(dut)
    model = Model()
    errors = 0
    addresses = range(0, 4 << rig.bus.adr_bits, 4)
    for _ in range(400):
        address = rig.random.choice(
            (rig.random.choice(addresses), rig.random.choice([*BY_ADDRESS]))
        )
        value, sel = rig.random.getrandbits(32), rig.random.randrange(16)
        if address == address_of("doorbell"):
            value &= ~1
        known = address in BY_ADDRESS
        try:
            if rig.random.random() < 0.5:
                await rig.bus.write(address, value, sel)
                if known:
                    model.write(address, value, sel)
            else:
                got = await rig.bus.read(address)
                assert not known or got == model.values[address], BY_ADDRESS[address].name
            assert known, f"no error at 0x{address:x}"
        except BusError:
            assert not known, f"an error at {BY_ADDRESS[address].name}"
            errors += 1
    assert errors
    assert rig.starts == 0
    await rig.check(model)


@cocotb.test()
async def a_program_that_ends(dut: Any) -> None:
    rig = await start(dut)
    for enabled in (0, 1, 2, 3):
        await rig.write("irq_enable", enabled)
        before = rig.starts
        await rig.write("doorbell", 1, sel=14)  # byte 0 is not selected
        assert rig.starts == before
        await rig.write("doorbell", 1)
        await rig.write("doorbell", 1)  # ignored while busy
        await rig.cycles.wait(4)
        assert rig.starts == before + 1
        active = rig.random.randrange(16)
        rig.pins.set("active", active)
        assert await rig.read("status") == 1 | active << 4
        words = rig.random.randint(1, 9)
        rig.pins.set("bus_read", 1)
        await rig.cycles.wait(words)
        rig.pins.set("bus_read", 0)
        rig.pins.set("active", 0)
        await rig.pulse("done")
        await rig.cycles.wait(4)
        assert await rig.read("status") == 2
        assert await rig.read("irq_pending") == 1
        assert await rig.read("count_bus_read") == words
        total = await rig.read("count_total")
        assert total >= words
        assert await rig.read("count_idle") == total  # nobody was busy
        assert rig.pins.get("irq") == enabled & 1
        await rig.write("irq_pending", 0xFFFF_FFFF, sel=14)
        await rig.write("irq_pending", 2)
        assert await rig.read("irq_pending") == 1
        await rig.write("irq_pending", 1)
        assert await rig.read("irq_pending") == 0
        await rig.cycles.wait(2)
        assert rig.pins.get("irq") == 0


@cocotb.test()
async def the_first_fault_is_kept_until_the_soft_reset(dut: Any) -> None:
    rig = await start(dut)
    await rig.write("irq_enable", 2)
    for _ in range(10):
        await rig.write("doorbell", 1)
        await rig.cycles.wait(rig.random.randrange(5))
        cause, address = rig.random.choice(list(ErrorCause)[1:]), rig.random.getrandbits(32)
        tag = rig.random.getrandbits(16)
        rig.pins.set("tag", tag)
        for c, a in ((cause, address), (ErrorCause.WATCHDOG, 0)):
            rig.fault.set("cause", c)
            rig.fault.set("address", a)
            rig.fault.set("valid", 1)
            await rig.cycles.wait(1)
        rig.fault.set("valid", 0)
        await rig.cycles.wait(4)
        rig.pins.set("tag", 0)
        assert rig.pins.get("irq") == 1
        assert rig.pins.get("halt") == 1
        assert await rig.read("status") == 4
        assert await rig.read("error_cause") == cause | 2 << 8 | tag << 16
        assert await rig.read("error_address") == address
        starts = rig.starts
        await rig.write("doorbell", 1)
        await rig.cycles.wait(4)
        assert rig.starts == starts, "the doorbell works in spite of the error"
        await rig.write("control", 1)
        await rig.cycles.wait(3)
        assert rig.pins.get("halt") == 0
        assert await rig.read("status") == 0
        assert await rig.read("irq_pending") == 2
        await rig.write("irq_pending", 3)
        await rig.cycles.wait(2)
        assert rig.pins.get("irq") == 0


@cocotb.test()
async def the_watchdog_ends_a_program(dut: Any) -> None:
    rig = await start(dut)
    limit = rig.random.randint(20, 60)
    await rig.write("watchdog", limit)
    await rig.write("doorbell", 1)
    began = rig.cycles.now
    await rig.cycles.until(lambda: rig.pins.get("halt") == 1)
    assert limit <= rig.cycles.now - began <= limit + 8
    assert await rig.read("error_cause") & 0xFF == ErrorCause.WATCHDOG
