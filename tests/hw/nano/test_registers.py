"""The registers of the firmware machine: the map of `hw/contract/regs.py`, as elsewhere."""

from __future__ import annotations

import random
from typing import Any

import pytest
from celosia.hw.contract.isa import Engine
from celosia.hw.contract.regs import ACCESS, REGISTERS, Register, address_of
from celosia.hw.nano.instructions import DATA_WORDS
from celosia.hw.nano.registers import Registers

from tests.kit.clocked import simulate
from tests.kit.traffic import register_traffic

IN_LOGIC = {"control", "status", "doorbell", "irq_enable", "irq_pending", "count_total"}
"""Registers that are no words of the processor's memory."""
DONE, ERROR = 1, 2
BUSY, WAS_DONE, WAS_ERROR = 1, 2, 4
ANSWER_CYCLES = range(4, 7)
WRITE_TO_ANSWER_CYCLES = 2
"""From the cycle in which a write takes effect."""


class Host:
    """The registers, with a processor whose data memory is free every other cycle."""

    def __init__(self, seed: int = 0) -> None:
        self.dut = Registers()
        self.rng = random.Random(seed)
        self.memory = [self.rng.getrandbits(32) for _ in range(DATA_WORDS)]
        self.writes: list[int] = []

    async def processor(self, ctx: Any) -> None:
        """Answer reads in the host's turn, take writes in the processor's."""
        dut = self.dut
        turn = False
        while True:
            # Now and then a restart: two turns of the processor, one after the other.
            turn = not turn and self.rng.random() < 0.95
            ctx.set(dut.host_turn, turn)
            _, _, address, mask, value = await ctx.tick().sample(
                dut.host_address, dut.host_write, dut.host_write_data
            )
            if mask:
                assert not turn, "a write in the processor's own turn"
                bits = sum(0xFF << 8 * lane for lane in range(4) if mask >> lane & 1)
                self.memory[address] = self.memory[address] & ~bits | value & bits
                self.writes.append(address)
            ctx.set(dut.host_data, self.memory[address] if turn else self.rng.getrandbits(32))

    async def access(
        self, ctx: Any, address: int, data: int | None = None, sel: int = 15
    ) -> tuple[str, int]:
        """Do one classic access; return the answer and what was read."""
        bus = self.dut.bus
        for port, value in (
            (bus.cyc, 1),
            (bus.stb, 1),
            (bus.adr, address // 4),
            (bus.we, data is not None),
            (bus.dat_w, data or 0),
            (bus.sel, sel),
        ):
            ctx.set(port, value)
        for cycles in range(1, 20):
            _, _, ack, err, dat_r = await ctx.tick().sample(bus.ack, bus.err, bus.dat_r)
            assert ack or not dat_r
            assert not (ack and err)
            if ack or err:
                assert cycles in ANSWER_CYCLES
                ctx.set(bus.cyc, 0)
                ctx.set(bus.stb, 0)
                return ("ack" if ack else "err", dat_r)
        raise AssertionError("no answer")

    async def read(self, ctx: Any, name: str) -> int:
        """Return a register."""
        answer, value = await self.access(ctx, address_of(name))
        assert answer == "ack"
        return value

    async def write(self, ctx: Any, name: str, value: int, sel: int = 15) -> None:
        """Write a register."""
        assert (await self.access(ctx, address_of(name), value, sel))[0] == "ack"

    async def pulse(self, ctx: Any, *ports: Any) -> None:
        """Let ports be high for a cycle."""
        for port in ports:
            ctx.set(port, 1)
        await ctx.tick()
        for port in ports:
            ctx.set(port, 0)

    def run(self, bench: Any) -> None:
        """Simulate."""
        simulate(self.dut, bench, processes=[self.processor])


def writable(entry: Register) -> int:
    """Return the bits that keep what is written."""
    return sum(
        ((1 << field.width_bits) - 1) << field.offset_bits
        for field in entry.fields
        if field.access is ACCESS.RW
    )


def test_every_register_of_the_map() -> None:
    """What is written is read where it can be; all else keeps its value, in memory as well."""
    host = Host(1)

    async def bench(ctx: Any) -> None:
        for entry in REGISTERS:
            word = entry.address // 4
            before = host.memory[word]
            # Bit 0 of these begins something.
            mask = ~1 if entry.name in ("control", "doorbell") else ~0
            written = host.rng.getrandbits(32) & mask
            await host.write(ctx, entry.name, written)
            kept = writable(entry)
            if entry.name in IN_LOGIC:
                expected = written & kept
                assert host.memory[word] == before
            else:
                assert kept in (0, (1 << 32) - 1)
                expected = written if kept else before
                assert host.memory[word] == expected
            assert await host.read(ctx, entry.name) == expected, entry.name
        whole = {entry.address // 4 for entry in REGISTERS if writable(entry) == (1 << 32) - 1}
        assert set(host.writes) == whole

    host.run(bench)


def test_bytes_that_are_left_out_are_not_written() -> None:
    host = Host(2)

    async def bench(ctx: Any) -> None:
        for entry in REGISTERS:
            if writable(entry) != (1 << 32) - 1:
                continue
            model = host.rng.getrandbits(32)
            await host.write(ctx, entry.name, model)
            for sel in host.rng.sample(range(16), 6):
                value = host.rng.getrandbits(32)
                await host.write(ctx, entry.name, value, sel)
                bits = sum(0xFF << 8 * lane for lane in range(4) if sel >> lane & 1)
                model = model & ~bits | value & bits
                assert await host.read(ctx, entry.name) == model
        for name in ("control", "irq_enable"):
            await host.write(ctx, name, 2)
            await host.write(ctx, name, 0, sel=0b1110)
            assert await host.read(ctx, name) == 2
        await host.write(ctx, "doorbell", 1, sel=0b1110)
        assert await host.read(ctx, "status") == 0
        await host.write(ctx, "doorbell", 1, sel=0b0001)
        await host.pulse(ctx, host.dut.finish)
        await host.write(ctx, "control", 1, sel=0b1110)
        await host.write(ctx, "irq_pending", 3, sel=0b1110)
        assert await host.read(ctx, "status") == WAS_DONE
        assert await host.read(ctx, "irq_pending") == DONE

    host.run(bench)


def test_an_address_without_a_register_is_an_error() -> None:
    host = Host(3)
    used = {entry.address for entry in REGISTERS}
    free = [4 * word for word in range(1 << len(host.dut.bus.adr)) if 4 * word not in used]
    assert free

    async def bench(ctx: Any) -> None:
        before = list(host.memory)
        for address in free:
            assert await host.access(ctx, address) == ("err", 0)
            assert (await host.access(ctx, address, 0x1234))[0] == "err"
            assert (await host.access(ctx, 0))[0] == "ack"
        assert host.memory == before

    host.run(bench)


# Start, end, error


def test_a_program_from_its_start_to_its_end() -> None:
    host = Host(4)
    dut = host.dut

    async def bench(ctx: Any) -> None:
        await host.write(ctx, "irq_enable", DONE | ERROR)
        await host.pulse(ctx, dut.finish)
        await host.pulse(ctx, dut.fail)
        # Nothing runs: nothing ends.
        assert await host.read(ctx, "status") == 0
        assert await host.read(ctx, "irq_pending") == 0
        assert not ctx.get(dut.running)
        await host.write(ctx, "doorbell", 1)
        assert ctx.get(dut.running)
        assert await host.read(ctx, "status") == BUSY
        for engine in Engine:
            ctx.set(dut.active, 1 << engine)
            assert await host.read(ctx, "status") == BUSY | 16 << engine
        ctx.set(dut.active, 0)
        assert not ctx.get(dut.irq)
        await host.pulse(ctx, dut.finish)
        total = await host.read(ctx, "count_total")
        assert total == ctx.get(dut.cycles) > 20
        assert ctx.get(dut.irq)
        assert await host.read(ctx, "status") == WAS_DONE
        assert await host.read(ctx, "irq_pending") == DONE
        await host.write(ctx, "irq_enable", ERROR)
        assert not ctx.get(dut.irq)
        await host.write(ctx, "irq_enable", DONE)
        assert ctx.get(dut.irq)
        await host.write(ctx, "irq_pending", ERROR)
        assert ctx.get(dut.irq)
        await host.write(ctx, "irq_pending", DONE)
        assert not ctx.get(dut.irq)
        assert await host.read(ctx, "status") == WAS_DONE
        # The count stands still until the next doorbell, which clears it.
        assert await host.read(ctx, "count_total") == total
        await host.write(ctx, "doorbell", 1)
        assert await host.read(ctx, "count_total") < 16
        assert await host.read(ctx, "status") == BUSY

    host.run(bench)


def test_after_an_error_only_the_soft_reset_helps() -> None:
    host = Host(5)
    dut = host.dut
    resets = 0

    async def count(ctx: Any) -> None:
        nonlocal resets
        while True:
            _, _, reset = await ctx.tick().sample(dut.reset)
            resets += reset

    def counted() -> int:
        return resets

    async def bench(ctx: Any) -> None:
        await host.write(ctx, "irq_enable", ERROR)
        await host.write(ctx, "scratch", 77)
        await host.write(ctx, "doorbell", 1)
        await host.pulse(ctx, dut.fail)
        assert await host.read(ctx, "status") == WAS_ERROR
        assert await host.read(ctx, "irq_pending") == ERROR
        assert ctx.get(dut.irq)
        await host.write(ctx, "doorbell", 1)
        assert await host.read(ctx, "status") == WAS_ERROR
        assert counted() == 0
        await host.write(ctx, "control", 1)
        assert counted() == 1
        assert await host.read(ctx, "status") == 0
        # It reads as 0, and leaves what is pending and enabled.
        assert await host.read(ctx, "control") == 0
        assert await host.read(ctx, "irq_pending") == ERROR
        assert await host.read(ctx, "irq_enable") == ERROR
        assert await host.read(ctx, "scratch") == 77
        await host.write(ctx, "doorbell", 1)
        assert await host.read(ctx, "status") == BUSY

    simulate(dut, bench, processes=[host.processor, count])


def test_random_events() -> None:
    """Register accesses, ends and errors in any order, against a model of a few lines."""
    host = Host(6)
    dut = host.dut
    rng = random.Random(7)
    seen: set[int] = set()

    async def bench(ctx: Any) -> None:
        status = pending = enable = sleep = 0
        for _ in range(250):
            value = rng.getrandbits(2)
            action = rng.choice(["doorbell", "doorbell", "control", "irq_enable", "irq_pending",
                                 "finish", "fail"])  # fmt: skip
            if action in ("finish", "fail"):
                await host.pulse(ctx, getattr(dut, action))
                if status & BUSY:
                    status = WAS_DONE if action == "finish" else WAS_ERROR
                    pending |= DONE if action == "finish" else ERROR
            else:
                await host.write(ctx, action, value)
            if action == "doorbell" and value & 1 and not status & (BUSY | WAS_ERROR):
                status = BUSY
            elif action == "control":
                sleep = value & 2
                status = 0 if value & 1 else status
            elif action == "irq_enable":
                enable = value
            elif action == "irq_pending":
                pending &= ~value
            await ctx.tick()
            assert ctx.get(dut.irq) == bool(pending & enable)
            assert ctx.get(dut.running) == bool(status & BUSY)
            assert await host.read(ctx, "status") == status
            assert await host.read(ctx, "irq_pending") == pending
            assert await host.read(ctx, "irq_enable") == enable
            assert await host.read(ctx, "control") == sleep
            seen.add(status)

    simulate(dut, bench, processes=[host.processor], limit_cycles=20_000)
    assert seen == {0, BUSY, WAS_DONE, WAS_ERROR}


@pytest.mark.parametrize("register", ["irq_pending", "control"])
@pytest.mark.parametrize("event", ["finish", "fail"])
def test_an_end_in_the_cycle_of_a_write(register: str, event: str) -> None:
    """Setting a pending bit wins over clearing it; a soft reset wins over the end."""
    host = Host(8)
    dut = host.dut
    flag = DONE if event == "finish" else ERROR
    outcomes: set[tuple[int, int]] = set()
    coincided = 0

    async def bench(ctx: Any) -> None:
        nonlocal coincided
        for delay in [*range(8)] * 3:
            together, written = False, 0
            await host.write(ctx, "control", 1)
            await host.write(ctx, "irq_pending", 3)
            await host.write(ctx, "doorbell", 1)
            bus = dut.bus
            for port, value in (
                (bus.cyc, 1), (bus.stb, 1), (bus.adr, address_of(register) // 4), (bus.we, 1),
                (bus.dat_w, 3 if register == "irq_pending" else 1), (bus.sel, 15),
            ):  # fmt: skip
                ctx.set(port, value)
            for cycle in range(12):
                ctx.set(getattr(dut, event), cycle == delay)
                _, _, ack, reset = await ctx.tick().sample(bus.ack, dut.reset)
                together |= bool(reset) and cycle == delay
                if ack:
                    written = cycle - WRITE_TO_ANSWER_CYCLES
                    ctx.set(bus.cyc, 0)
                    ctx.set(bus.stb, 0)
            outcome = (await host.read(ctx, "status"), await host.read(ctx, "irq_pending"))
            outcomes.add(outcome)
            if register == "irq_pending":
                assert outcome[1] == (flag if delay >= written else 0)
                coincided += delay == written
            elif together:
                coincided += 1
                assert outcome == (0, 0)

    host.run(bench)
    after = WAS_DONE if event == "finish" else WAS_ERROR
    if register == "irq_pending":
        # Before the write: cleared again. With it or after it: pending.
        assert outcomes == {(after, 0), (after, flag)}
    else:
        # Before the reset: pending, and no program. With it or after it: nothing has ended.
        assert outcomes == {(0, flag), (0, 0)}
    assert coincided


# The bus


def test_registers_in_pipelined_mode() -> None:
    """Back-to-back requests are answered once each, in order; nothing else is answered."""
    host = Host(9)
    names = ("scratch", "watchdog", "region2_size")
    model = {address_of(name): host.memory[address_of(name) // 4] for name in names}

    async def bench(ctx: Any) -> None:
        await register_traffic(ctx, host.dut.bus, random.Random(10), model, accesses=150)

    host.run(bench)


def test_who_gives_up_is_not_answered() -> None:
    """After any number of cycles; the next access gets its own answer."""
    host = Host(11)
    bus = host.dut.bus

    async def bench(ctx: Any) -> None:
        for cycles in range(1, 6):
            for is_write in (False, True):
                await host.write(ctx, "scratch", 5)
                for port, value in (
                    (bus.cyc, 1), (bus.stb, 1), (bus.adr, address_of("scratch") // 4),
                    (bus.we, is_write), (bus.dat_w, 6), (bus.sel, 15),
                ):  # fmt: skip
                    ctx.set(port, value)
                answered = False
                for _ in range(cycles):
                    _, _, ack = await ctx.tick().sample(bus.ack)
                    answered |= bool(ack)
                    ctx.set(bus.stb, 0)
                ctx.set(bus.cyc, 0)
                for _ in range(5):
                    _, _, ack, err = await ctx.tick().sample(bus.ack, bus.err)
                    assert not ack
                    assert not err
                scratch = await host.read(ctx, "scratch")
                assert scratch in ({5, 6} if is_write else {5})
                assert not (answered and is_write) or scratch == 6
                assert await host.read(ctx, "identity") == host.memory[0]

    host.run(bench)
