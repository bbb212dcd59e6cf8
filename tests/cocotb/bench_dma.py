"""Load and store engines through the arbiter, with the on-chip memories and others in their way."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, Load, Region, Space, Store
from celosia.hw.contract.regs import ErrorCause

from tests.kit.bfm.cycles import Cycles, Pins
from tests.kit.bfm.ports import (
    CommandDriver,
    FaultMonitor,
    LineReader,
    LineWriter,
    WindowSink,
)
from tests.kit.bfm.wishbone import WishboneMemory
from tests.kit.designs import DESIGNS
from tests.kit.transfers import (
    BASE,
    SIZE,
    Transfer,
    faulty_transfers,
    random_transfer,
    runs_of,
    space_bytes,
)

CONFIG: NpuConfig = DESIGNS[os.environ["CELOSIA_DESIGN"]].config
MEMORY_BYTES = 16 * 1024
LINE = CONFIG.line_bytes
SPACE_BYTES = space_bytes(CONFIG)
NOISE_LINES = 8
"""The last lines of ACT belong to the vector engine, which writes there all the time."""
FREE_BYTES = SPACE_BYTES | {Space.ACT: CONFIG.act_bytes - NOISE_LINES * LINE}
MOODS = (
    ((1, 1), 0.0, 0.0),
    ((8, 8), 0.0, 0.0),
    ((1, 30), 0.3, 0.3),
    ((2, 5), 0.6, 0.6),
)
"""Of system memory: latency, chance of a stall, chance of holding back an answer."""


def transfer(
    rng: random.Random, kind: type[Load] | type[Store], low: int = 0, high: int = SIZE
) -> Transfer:
    """Return a random command within offsets `low` to `high` of the region."""
    return random_transfer(rng, CONFIG, kind, low=low, high=high, free_bytes=FREE_BYTES)


class Rig:
    """The design with its surroundings, and the model of every memory."""

    def __init__(self, dut: Any, *, noise: float = 0.3) -> None:
        rng = self.random = random.Random(random.getrandbits(64))
        self.cycles = cycles = Cycles(dut)
        self.memory_data = bytearray(rng.randbytes(MEMORY_BYTES))
        self.chip = {space: bytearray(rng.randbytes(SPACE_BYTES[space])) for space in Space}
        self.table = bytearray(self.chip[Space.TABLE])
        self.noise = noise
        self.pins = Pins(dut, "", ("halt", "regions", "timeout", "bus_fault_port"))
        self.pins.set("halt", 0)
        self.pins.set("timeout", 0)
        self.pins.set("regions", (BASE | SIZE << 32) << 64 * Region.IO)

        def seed() -> int:
            return rng.getrandbits(32)

        self.memory = WishboneMemory(
            cycles, dut, "bus", self.memory_data, seed=seed(),
            max_outstanding=CONFIG.max_outstanding,
        )  # fmt: skip
        self.driver = {
            Load: CommandDriver(cycles, dut, "load", seed=seed(), done="load_done"),
            Store: CommandDriver(cycles, dut, "store", seed=seed()),
        }
        self.faults = {
            Load: FaultMonitor(cycles, dut, "load_fault"),
            Store: FaultMonitor(cycles, dut, "store_fault"),
        }
        self.bus_fault = FaultMonitor(cycles, dut, "bus_fault")
        self.vector = LineReader(
            cycles, dut, "vector", seed=seed(), noise_lines=CONFIG.act_lines, noise=noise
        )
        self.lines = {
            Space.WGT: LineReader(cycles, dut, "wgt", seed=seed()),
            Space.PARAM: LineReader(cycles, dut, "param", seed=seed()),
        }
        self.array = Pins(
            dut, "array", [f"{name}__{s}" for s in range(3) for name in ("bank", "line")]
        )
        self.result = LineWriter(cycles, dut, "result", noise=self._noise)
        self.table_port = WindowSink(
            cycles, dut, "table", self._write_table, seed=seed(), grant=1.0
        )
        cycles.agents.append(self)

    def _noise(self) -> tuple[int, int] | None:
        """Write as the vector engine does, in lines that no transfer touches."""
        if self.random.random() >= self.noise:
            return None
        line = CONFIG.act_lines - 1 - self.random.randrange(NOISE_LINES)
        data = self.random.getrandbits(8 * LINE)
        self.chip[Space.ACT][line * LINE : (line + 1) * LINE] = data.to_bytes(LINE, "little")
        return line, data

    def _write_table(self, addr: int, data: int, mask: int) -> None:
        for lane in range(LINE):
            if mask >> lane & 1:
                self.table[addr + lane] = data >> 8 * lane & 0xFF

    def sample(self) -> None:
        pass

    def drive(self) -> None:
        """Read as the array does: up to three lines of different banks, never refused."""
        wanted = self.random.random() < self.noise
        banks = self.random.sample(range(4), 3)
        for s in range(3):
            asks = wanted and self.random.random() < 0.7
            self.array.set(f"bank__{s}", asks << banks[s])
            self.array.set(
                f"line__{s}", 4 * self.random.randrange(CONFIG.act_lines // 4) + banks[s]
            )

    async def start(self) -> None:
        """Reset, and bring the on-chip memories into a known state."""
        quiet, self.noise = self.noise, 0.0
        await self.cycles.start()
        act = self.chip[Space.ACT]
        await self.result.write(dict(enumerate(lines_of(act))))
        self.noise = quiet
        for space, limit in SPACE_BYTES.items():
            if space is Space.ACT:
                continue
            # Through the engine: these memories have no other way in.
            self.memory_data[BASE : BASE + limit] = self.chip[space]
            self.push(Load(region=Region.IO, space=space, row_bytes=limit))
            await self.idle()
        await self.check()

    def push(self, command: Transfer) -> None:
        self.driver[type(command)].push(command.encode())

    async def idle(self) -> None:
        await self.cycles.until(lambda: all(driver.idle for driver in self.driver.values()))

    def model(self, command: Transfer) -> None:
        """Do to the models what a command does to the memories."""
        for offset, place in runs_of(command):
            chip = self.chip[Space(command.space)]
            on_chip = slice(place, place + command.row_bytes)
            in_memory = slice(BASE + offset, BASE + offset + command.row_bytes)
            if isinstance(command, Load):
                chip[on_chip] = self.expected[in_memory]
            else:
                self.expected[in_memory] = chip[on_chip]

    async def execute(self, *commands: Transfer) -> None:
        """Run commands and check everything; those of different engines at the same time."""
        self.expected = bytearray(self.memory_data)
        mood = self.random.choice(MOODS)
        self.memory.latency, self.memory.stall, self.memory.delay = mood
        self.table_port.grant = self.random.choice((1.0, 0.5, 0.2))
        for command in commands:
            self.push(command)
            self.model(command)
        await self.idle()
        assert self.memory_data == self.expected, "system memory"
        await self.check()

    async def check(self) -> None:
        """Compare the on-chip memories with the models."""
        quiet, self.noise = self.noise, 0.0
        self.vector.noise = 0.0
        await self.cycles.wait(3)
        got = await self.vector.read(range(CONFIG.act_lines))
        assert got == lines_of(self.chip[Space.ACT]), "ACT"
        for space, reader in self.lines.items():
            got = await reader.read(range(SPACE_BYTES[space] // LINE))
            assert got == lines_of(self.chip[space]), space.name
        assert self.table == self.chip[Space.TABLE], "TABLE"
        self.noise = self.vector.noise = quiet
        for fault in (*self.faults.values(), self.bus_fault):
            assert fault.seen is None, f"fault {fault.seen}"

    async def recover(self) -> None:
        """Reset the engines, as the machine does after an error."""
        self.pins.set("halt", 1)
        for driver in self.driver.values():
            driver.drop()
        self.table_port.forget()
        await self.cycles.wait(2)
        self.pins.set("halt", 0)
        for fault in (*self.faults.values(), self.bus_fault):
            fault.seen = None
        await self.cycles.wait(2)


def lines_of(data: bytes | bytearray) -> list[int]:
    return [int.from_bytes(data[at : at + LINE], "little") for at in range(0, len(data), LINE)]


@cocotb.test()
async def loads_move_every_byte(dut: Any) -> None:
    rig = Rig(dut)
    await rig.start()
    for _ in range(25):
        await rig.execute(*(transfer(rig.random, Load) for _ in range(rig.random.randint(1, 3))))


@cocotb.test()
async def stores_move_every_byte(dut: Any) -> None:
    rig = Rig(dut)
    await rig.start()
    for _ in range(25):
        count = rig.random.randint(1, 3)
        await rig.execute(*(transfer(rig.random, Store) for _ in range(count)))


@cocotb.test()
async def loads_and_stores_at_the_same_time(dut: Any) -> None:
    """Of a store and a load that runs meanwhile neither may touch what the other one reads."""
    rig = Rig(dut)
    await rig.start()
    done = 0
    while done < 25:
        store = transfer(rig.random, Store, 0, SIZE // 2)
        load = transfer(rig.random, Load, SIZE // 2, SIZE)
        read, written = (
            {at for _, place in runs_of(c) for at in range(place, place + c.row_bytes)}
            for c in (store, load)
        )
        if load.space == Space.ACT and read & written:
            continue
        await rig.execute(store, load)
        done += 1


@cocotb.test()
async def faults_stop_the_engine_until_it_is_reset(dut: Any) -> None:
    rig = Rig(dut)
    await rig.start()
    faulty = faulty_transfers(CONFIG)
    rig.random.shuffle(faulty)
    for name, command, cause, address in faulty:
        fault, driver = rig.faults[type(command)], rig.driver[type(command)]
        completed = driver.completed
        before = bytes(rig.memory_data)
        rig.push(command)
        await rig.cycles.until(lambda f=fault: f.seen is not None)
        await rig.cycles.wait(rig.random.randint(0, 40))
        assert fault.seen == (cause, address), name
        assert driver.completed == completed, name
        # A word of the first run may have been moved; put everything back.
        await rig.recover()
        changed = [at for at in range(MEMORY_BYTES) if rig.memory_data[at] != before[at]]
        assert all(BASE <= at < BASE + SIZE for at in changed), name
        rig.push(Load(region=Region.IO, row_bytes=FREE_BYTES[Space.ACT]))
        await rig.idle()
        rig.chip[Space.ACT][: FREE_BYTES[Space.ACT]] = rig.memory_data[
            BASE : BASE + FREE_BYTES[Space.ACT]
        ]
        await rig.execute(transfer(rig.random, rig.random.choice((Load, Store))))


async def _bus_fault(rig: Rig, command: Command, address: int, cause: ErrorCause) -> None:
    """Wait for a bus fault of a command, reset, and see that all is well."""
    assert isinstance(command, Load | Store)
    driver = rig.driver[type(command)]
    completed = driver.completed
    rig.push(command)
    await rig.cycles.until(lambda: rig.bus_fault.seen is not None)
    assert rig.bus_fault.seen == (cause, address)
    assert rig.pins.get("bus_fault_port") == int(isinstance(command, Store))
    assert driver.completed == completed
    await rig.cycles.wait(rig.random.randint(0, 30))
    await rig.recover()
    rig.memory.error_words.clear()
    rig.memory.mute = False
    # What the broken transfer has moved is not defined: start from known contents.
    rig.push(Load(region=Region.IO, row_bytes=FREE_BYTES[Space.ACT]))
    await rig.idle()
    free = FREE_BYTES[Space.ACT]
    rig.chip[Space.ACT][:free] = rig.memory_data[BASE : BASE + free]
    await rig.execute(transfer(rig.random, Load), transfer(rig.random, Load))


@cocotb.test()
async def a_bus_error_is_reported_with_its_address(dut: Any) -> None:
    rig = Rig(dut)
    await rig.start()
    word = CONFIG.bus_bytes
    for kind in (Load, Store) * 4:
        words = rig.random.randint(1, 40)
        bad = (BASE + rig.random.randrange(0, SIZE // 2)) // word
        rig.memory.error_words = {bad, bad + words}
        before = rig.random.randrange(min(words, bad - BASE // word) + 1)
        command = kind(
            region=Region.IO,
            mem_addr=(bad - before) * word - BASE,
            row_bytes=min((before + words + 1) * word, FREE_BYTES[Space.ACT]),
        )
        await _bus_fault(rig, command, bad * word, ErrorCause.BUS_ERROR)


@cocotb.test()
async def a_memory_that_does_not_answer_is_reported(dut: Any) -> None:
    rig = Rig(dut)
    await rig.start()
    rig.pins.set("timeout", 120)
    word = CONFIG.bus_bytes
    for kind in (Load, Store):
        await rig.cycles.wait(rig.random.randint(0, 9))
        rig.memory.mute = True
        start = rig.random.randrange(SIZE // 2)
        command = kind(region=Region.IO, mem_addr=start, row_bytes=rig.random.randint(1, 90))
        began = rig.cycles.now
        await _bus_fault(rig, command, (BASE + start) // word * word, ErrorCause.BUS_TIMEOUT)
        assert rig.cycles.now - began >= 120
