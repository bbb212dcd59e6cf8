"""Memory for a system: block RAM, and its sharing between the NPU and the host."""

from __future__ import annotations

import gc
import random
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, connect, flipped
from amaranth.sim import Simulator
from celosia.hw.bus.lanes import WordLanes, memory_signature
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.system.ram import BlockRam
from celosia.hw.system.share import MemoryShare

MEMORY_BYTES = 1536
CYCLES = 6000


class Shared(Component):
    """Both sides in front of a block RAM that may be made to stall; the host's are 32 bits."""

    def __init__(self, config: NpuConfig, *, output_register: bool) -> None:
        self._config = config
        self._output_register = output_register
        super().__init__(
            {
                "npu": In(initiator_signature(config)),
                "host": In(memory_signature()),
                "hold": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.share = share = MemoryShare(self._config)
        m.submodules.ram = ram = BlockRam(
            self._config, memory_bytes=MEMORY_BYTES, output_register=self._output_register
        )
        connect(m, flipped(self.npu), share.npu)
        m.submodules.lanes = lanes = WordLanes(data_width=self._config.bus_bits)
        connect(m, flipped(self.host), lanes.i)
        connect(m, lanes.o, share.host)
        connect(m, share.mem, ram.bus)
        m.d.comb += [ram.bus.stb.eq(share.mem.stb & ~self.hold), share.mem.stall.eq(self.hold)]
        return m


def config_of(bus_bits: int) -> NpuConfig:
    preset = PRESETS["large" if bus_bits == 128 else "tiny"]
    return replace(preset, name="test", bus_bits=bus_bits, max_outstanding=4)


def merged(old: int, new: int, sel: int) -> int:
    mask = sum(0xFF << 8 * lane for lane in range(16) if sel >> lane & 1)
    return (old & ~mask) | (new & mask)


class Memory:
    """What ought to be in it, by byte."""

    def __init__(self) -> None:
        self.data = bytearray(MEMORY_BYTES)

    def access(self, adr: int, width: int, we: int, value: int, sel: int) -> int | None:
        """Return the word before the access, or None if there is none."""
        place = adr * width
        if place + width > MEMORY_BYTES:
            return None
        old = int.from_bytes(self.data[place : place + width], "little")
        if we:
            self.data[place : place + width] = merged(old, value, sel).to_bytes(width, "little")
        return old


@pytest.mark.parametrize("bus_bits", [32, 64, 128])
@pytest.mark.parametrize(("seed", "output_register"), [(1, True), (2, False)])
def test_both_see_one_memory(bus_bits: int, seed: int, output_register: bool) -> None:
    """Random requests of both; the NPU gives up now and then with requests in flight."""
    rng = random.Random(f"{bus_bits} {seed}")
    config = config_of(bus_bits)
    dut = Shared(config, output_register=output_register)
    memory = Memory()
    width = bus_bits // 8
    words = MEMORY_BYTES // width
    counts = {"npu": 0, "host": 0, "errors": 0, "dropped": 0}

    async def bench(ctx: Any) -> None:
        npu, host = dut.npu, dut.host
        waiting: deque[tuple[int | None, bool]] = deque()  # what the NPU is to be answered
        asked: tuple[int | None, bool] | None = None
        request = None  # of the host
        quiet = 0
        held = False
        for _ in range(CYCLES):
            # Drive.
            ctx.set(dut.hold, rng.random() < 0.2)
            if quiet:
                quiet -= 1
            if not held and not quiet and len(waiting) < config.max_outstanding:
                ctx.set(npu.stb, rng.random() < 0.7)
                ctx.set(npu.adr, rng.randrange(words + 4))
                ctx.set(npu.we, rng.random() < 0.4)
                ctx.set(npu.dat_w, rng.getrandbits(bus_bits))
                ctx.set(npu.sel, rng.getrandbits(width))
            elif not held or quiet:
                ctx.set(npu.stb, 0)
            ctx.set(npu.cyc, not quiet and (ctx.get(npu.stb) or bool(waiting)))
            if request is None and asked is None and rng.random() < 0.1:
                request = (
                    rng.randrange(MEMORY_BYTES // 4 + 4),
                    rng.getrandbits(1),
                    rng.getrandbits(32),
                    rng.getrandbits(4),
                )
                for name, value in zip(("adr", "we", "dat_w", "sel"), request, strict=True):
                    ctx.set(getattr(host, name), value)
            ctx.set(host.stb, request is not None)
            ctx.set(host.cyc, request is not None or asked is not None)
            # Settle, look.
            await ctx.delay(4e-7)
            held = bool(ctx.get(npu.cyc) and ctx.get(npu.stb) and ctx.get(npu.stall))
            if ctx.get(npu.cyc) and ctx.get(npu.stb) and not held:
                values = [ctx.get(getattr(npu, n)) for n in ("adr", "we", "dat_w", "sel")]
                word = memory.access(values[0], width, *values[1:])
                waiting.append((word, bool(values[1])))
            if request is not None and not ctx.get(host.stall):
                word = memory.access(request[0], 4, *request[1:])
                asked, request = (word, bool(request[1])), None
            if ctx.get(npu.ack) or ctx.get(npu.err):
                word, we = waiting.popleft()
                assert ctx.get(npu.err) == (word is None)
                counts["npu"] += 1
                counts["errors"] += word is None
                if word is not None and not we:
                    assert ctx.get(npu.dat_r) == word
            if ctx.get(host.ack) or ctx.get(host.err):
                assert asked is not None
                word, we = asked
                asked = None
                assert ctx.get(host.err) == (word is None)
                counts["host"] += 1
                if word is not None and not we:
                    assert ctx.get(host.dat_r) == word
            if waiting and not quiet and rng.random() < 0.02:
                quiet = rng.randrange(2, 7)
                counts["dropped"] += len(waiting)
                waiting.clear()
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run_until((CYCLES + 2) * 1e-6)
    assert counts["npu"] > 500
    assert counts["host"] > 100
    assert min(counts.values()) > 10, counts


def test_block_ram_refuses_an_impossible_size(monkeypatch: pytest.MonkeyPatch) -> None:
    # Amaranth warns of components that nobody elaborates.
    monkeypatch.setattr(BlockRam, "_MustUse__silence", True)
    with pytest.raises(ValueError, match="multiple of the bus word"):
        BlockRam(PRESETS["base"], memory_bytes=1001)
    gc.collect()
