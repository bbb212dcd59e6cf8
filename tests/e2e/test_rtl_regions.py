"""A region whose base is no multiple of the bus word: every machine stops at its first access.

The driver and the emulator refuse such a base, so the registers are written past them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import End, Engine, Load, Region, Store
from celosia.hw.contract.regs import ErrorCause, address_of
from celosia.hw.contract.units import Unit

from tests.kit.tools import needs_simulator

MEMORY_BYTES = 1 << 16
CODE, DATA, SIZE = 0x1000, 0x8000, 0x100
OFFSET = 32
LIMIT_CYCLES = 20_000
DONE, ERROR = 1, 2

pytestmark = needs_simulator


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.xdist_group(f"rtl-{name}"), id=name)
        for name in ("nano", "tiny", "base", "wide", "large")
    ]
)
def config(request: Any) -> NpuConfig:
    return preset(request.param)


@pytest.fixture
def rtl(config: NpuConfig) -> Iterator[Any]:
    from celosia.sim.rtl.rtl import RtlSimulator
    from celosia.sim.rtl.verilator import build_npu

    simulator = RtlSimulator(build_npu(config), memory_bytes=MEMORY_BYTES)
    yield simulator
    simulator.close()


def start(rtl: Any, bases: dict[Region, int], *, moved: Region) -> int:
    """Run a copy from `moved` to IO to its interrupt; return what is pending."""
    commands = (
        Load(region=moved, mem_addr=OFFSET, row_bytes=16, signal=1 << Engine.STORE, tag=1),
        Store(region=Region.IO, row_bytes=16, wait=1 << Engine.LOAD, tag=2),
        End(tag=3),
    )
    code = b"".join(command.encode() for command in commands)
    rtl.memory[CODE : CODE + len(code)] = bytearray(code)
    writes = {"control": 1, "irq_pending": DONE | ERROR, "irq_enable": DONE | ERROR}
    for region in Region:
        first = CODE if region == Region.CODE else DATA
        writes[f"region{int(region)}_base"] = bases.get(region, first)
        writes[f"region{int(region)}_size"] = SIZE
    for name, value in (writes | {"doorbell": 1}).items():
        rtl.write_csr(address_of(name), value)
    assert rtl.run_until_irq(LIMIT_CYCLES) is not None
    return int(rtl.read_csr(address_of("irq_pending")))


@pytest.mark.parametrize("region", [Region.CONST, Region.SCRATCH])
def test_a_transfer(config: NpuConfig, rtl: Any, region: Region) -> None:
    for lane in range(1, config.bus_bytes):
        assert start(rtl, {region: DATA + lane}, moved=region) == ERROR
        cause = rtl.read_csr(address_of("error_cause"))
        assert cause == ErrorCause.MEM_WINDOW | Unit.LOAD << 8 | 1 << 16
        assert rtl.read_csr(address_of("error_address")) == DATA + OFFSET
        assert start(rtl, {}, moved=region) == DONE


def test_the_commands(config: NpuConfig, rtl: Any) -> None:
    for lane in range(1, config.bus_bytes):
        assert start(rtl, {Region.CODE: CODE + lane}, moved=Region.IO) == ERROR
        cause = rtl.read_csr(address_of("error_cause")) & 0xFFFF
        assert cause == ErrorCause.FETCH_WINDOW | Unit.FETCH << 8
        assert rtl.read_csr(address_of("error_address")) == CODE
        assert start(rtl, {}, moved=Region.IO) == DONE


def test_a_region_that_nothing_uses_may_be_anywhere(rtl: Any) -> None:
    assert start(rtl, {Region.SCRATCH: DATA + 1}, moved=Region.CONST) == DONE
