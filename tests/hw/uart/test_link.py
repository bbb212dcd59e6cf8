"""The driver's link against the bridge's RTL, over bits on a line, with and without faults."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("amaranth")
import celosia.hw.uart
from celosia.errors import DeviceError
from celosia.hw.contract.frames import DELIMITER
from celosia.hw.contract.regs import ACCESS, REGISTERS, address_of
from celosia.hw.contract.uart import Identity, Kind
from celosia.sim.board.line_faults import FaultRates
from celosia.sim.board.uart_rtl import HARNESS, UartRtl
from celosia.sim.board.uart_serve import ServedRtl
from celosia.sim.rtl.verilator import Build, build_component
from celosia.sw.driver.uart.channel import Patience
from celosia.sw.driver.uart.codec import FrameSplitter, request
from celosia.sw.driver.uart.link import Link
from celosia.sw.driver.uart.port import SerialPort

from tests.kit.board_model import BoardModel, BusError
from tests.kit.faulty_port import FaultyPort
from tests.kit.link_board import DEAD_ADDRESS, LinkBoard
from tests.kit.tools import skip_without_simulator

CLOCK_HZ = 24_000_000
"""The slowest that does 3 Mbaud: eight clocks a bit."""
MEMORY_BYTES = 64 * 1024
SILENCE_MS = 60
PATIENCE = Patience(latency_s=0.003, hello_s=0.5)
"""There is no latency here, and simulated time is dear."""
IDENTITY = Identity(
    board="link",
    clock_hz=CLOCK_HZ,
    memory_bytes=MEMORY_BYTES,
    silence_ms=SILENCE_MS,
    build=0x1234_5678,
    revision="0123456789abcdef",
    dirty=True,
)
SCRATCH, DOORBELL, RINGS = (address_of(name) for name in ("scratch", "doorbell", "count_total"))


def sources() -> str:
    """Return the gateware's text, the key of the simulator in the cache."""
    folder = Path(inspect.getfile(celosia.hw.uart)).parent
    files = [*sorted(folder.glob("*.py")), Path(inspect.getfile(LinkBoard))]
    return "\0".join(file.read_text(encoding="utf-8") for file in files) + repr(IDENTITY)


@pytest.fixture(scope="module")
def build() -> Build:
    skip_without_simulator()
    return build_component(lambda: LinkBoard(identity=IDENTITY), sources(), harness=HARNESS)


@pytest.fixture
def board(build: Build) -> Iterator[UartRtl]:
    board = UartRtl(build, clock_hz=CLOCK_HZ)
    yield board
    board.close()


@pytest.fixture
def link(board: UartRtl) -> Link:
    link = Link(board, patience=PATIENCE, seed=1)
    link.open()
    return link


def faulty_link(board: UartRtl, baud: int, seed: int, **rates: float) -> tuple[Link, FaultyPort]:
    """Return a link at a rate, over a line that is good until now."""
    port = FaultyPort(board, FaultRates(**rates), seed=seed, stall_s=0.01)
    link = Link(port, patience=PATIENCE, seed=seed)
    link.open()
    link.set_baud(baud)
    return link, port


def test_a_board_says_what_it_is(link: Link) -> None:
    assert link.identity == IDENTITY


@pytest.mark.parametrize("baud", [115_200, 921_600, 3_000_000])
def test_bursts_take_nine_tenths_of_the_line(board: UartRtl, link: Link, baud: int) -> None:
    assert link.set_baud(baud)
    data = random.Random(baud).randbytes(20_000 if baud > 200_000 else 8_000)
    times = [board.now()]
    link.write_memory(0, data)
    times.append(board.now())
    assert link.read_memory(0, len(data)) == data
    times.append(board.now())
    line_s = 10 * len(data) / baud
    write, read = (line_s / (end - begin) for begin, end in zip(times, times[1:], strict=False))
    print(f"{baud} baud: write {write:.3f}, read {read:.3f} of the line rate")
    assert write >= 0.9
    assert read >= 0.9
    assert link.statistics.recoveries == 0
    assert board.framing_errors == 0


def write_anywhere(link: Link, seed: int, count: int) -> None:
    """Write bytes at any address and compare memory with a model."""
    rng = random.Random(seed)
    model = bytearray(8000)
    link.write_memory(0, bytes(model))
    for _ in range(count):
        size = rng.choice([1, 2, 3, 4, 5, 7, 8, 255, 256, 1007, 1008, 1009, 2500])
        address = rng.randrange(3000)
        data = bytes(rng.choice([0, 1, 0xFF, rng.randrange(256)]) for _ in range(size))
        link.write_memory(address, data)
        model[address : address + size] = data
        start = rng.randrange(3000)
        assert link.read_memory(start, 600) == model[start : start + 600]
    assert link.read_memory(0, 8000) == model


def test_any_bytes_at_any_address(link: Link) -> None:
    link.set_baud(3_000_000)
    write_anywhere(link, 3, 60)


def test_wider_memory() -> None:
    """The widest; boards that are simulated whole have one of 64 bits."""
    skip_without_simulator()
    memory_bits = 128
    build = build_component(
        lambda: LinkBoard(identity=IDENTITY, memory_bits=memory_bits),
        f"{sources()} {memory_bits}",
        harness=HARNESS,
    )
    with Link(UartRtl(build, clock_hz=CLOCK_HZ), patience=PATIENCE, seed=1) as link:
        link.open()
        link.set_baud(3_000_000)
        write_anywhere(link, memory_bits, 25)
        with pytest.raises(DeviceError, match="0x00010000: the bus answered with an error"):
            link.write_memory(MEMORY_BYTES - 8, bytes(12))


def test_registers_are_written_in_order_and_once(link: Link) -> None:
    link.write_registers([(SCRATCH, 5), (DOORBELL, 1), (SCRATCH, 6), (DOORBELL, 1), (SCRATCH, 8)])
    assert link.read_registers([SCRATCH, RINGS]) == [8, 2]


def test_the_checksum_is_that_of_the_contents(link: Link) -> None:
    link.set_baud(3_000_000)
    data = random.Random(4).randbytes(5003)
    link.write_memory(8, data)
    assert link.holds(8, data)
    assert not link.holds(8, data[:-1] + bytes([data[-1] ^ 1]))
    assert not link.holds(8, bytes([data[0] ^ 0x80]) + data[1:])
    assert not link.holds(12, data)


def test_the_interrupt_is_reported(board: UartRtl, link: Link) -> None:
    assert not link.wait_interrupt(0.02)
    link.write_registers([(SCRATCH, 1)])
    begun = board.now()
    assert link.wait_interrupt(0.2, poll_s=0.1)
    assert board.now() - begun < 0.01
    link.write_registers([(SCRATCH, 0)])
    assert not link.wait_interrupt(0.02)
    link.read_registers([SCRATCH])
    assert link.statistics.events == 1


def test_a_lost_report_of_the_interrupt_costs_one_poll(board: UartRtl, link: Link) -> None:
    link.write_registers([(SCRATCH, 1)])
    board.run(CLOCK_HZ // 100)
    board.discard()
    link.channel.irq = False
    assert link.wait_interrupt(1.0, poll_s=0.05)


@pytest.mark.parametrize(
    ("address", "words"),
    [(MEMORY_BYTES, "answered with an error"), (DEAD_ADDRESS, "did not answer")],
)
def test_bus_errors_have_an_address(link: Link, address: int, words: str) -> None:
    with pytest.raises(DeviceError, match=words) as read:
        link.read_memory(address, 8)
    assert read.value.address == address
    with pytest.raises(DeviceError, match=words) as write:
        link.write_memory(address, bytes(16))
    assert write.value.address == address
    with pytest.raises(DeviceError, match=words) as checksum:
        link.checksum(address, 8)
    assert checksum.value.address == address
    # The link works as before.
    link.write_memory(0, b"hello")
    assert link.read_memory(0, 5) == b"hello"


def test_a_burst_stops_where_memory_ends(link: Link) -> None:
    link.write_memory(MEMORY_BYTES - 8, bytes(8))
    with pytest.raises(DeviceError) as error:
        link.write_memory(MEMORY_BYTES - 8, b"0123456789")
    assert error.value.address == MEMORY_BYTES
    assert link.read_memory(MEMORY_BYTES - 8, 8) == b"01234567"
    with pytest.raises(DeviceError, match="register at 0x000000c4"):
        link.read_registers([0xBC, 0xC0, 0xC4])
    with pytest.raises(DeviceError, match="register at 0x00000800"):
        link.read_registers([0x800])


def test_a_request_that_comes_twice_is_executed_once(board: UartRtl, link: Link) -> None:
    ring = request(Kind.WRITE_REGISTERS, 1, DOORBELL, payload=(1).to_bytes(4, "little"))
    for _ in range(3):
        board.write(ring)
    replies = []
    splitter = FrameSplitter()
    while len(replies) < 3:
        replies += splitter.feed(board.read(0.1))
    assert [reply.code for reply in replies] == [0, 4, 4]
    assert link.ping().expected == 2
    link._sequence = 2
    assert link.read_registers([RINGS]) == [1]


def test_unknown_requests_are_refused(board: UartRtl, link: Link) -> None:
    splitter = FrameSplitter()
    replies = []
    for kind, payload in ((0x08, b""), (0x09, bytes(8)), (0x50, b""), (0x51, bytes(8))):
        sequence = len([r for r in replies if r.kind & 0x70]) + 1
        board.write(request(kind, sequence, 0, count=max(1, len(payload) // 4), payload=payload))
        while (found := splitter.feed(board.read(0.1))) == []:
            pass
        replies += found
    board.write(request(Kind.READ_MEMORY, 3, 2))  # not a multiple of 4
    board.write(request(Kind.BAUD, 0, 0) + request(Kind.BAUD, 0, 1 << 18))
    while len(replies) < 7:
        replies += splitter.feed(board.read(0.1))
    assert [reply.code for reply in replies] == [3] * 7
    link._settled = False
    assert link.read_registers([RINGS]) == [0]


@pytest.mark.parametrize("seed", range(4))
def test_garbage_at_any_byte_is_overcome(board: UartRtl, link: Link, seed: int) -> None:
    rng = random.Random(seed)
    link.set_baud(3_000_000)
    for count in range(1, 40):
        garbage = rng.randbytes(rng.choice([1, 2, 3, 14, 300, 1500]))
        frame = request(Kind.WRITE_REGISTERS, link._sequence, DOORBELL, payload=bytes(4))
        if count % 3 == 0:
            garbage += frame[: rng.randrange(len(frame))]
        board.write(garbage)
        link.write_registers([(SCRATCH, count << 1)])
        assert link.read_registers([SCRATCH]) == [count << 1]
    assert link.read_registers([RINGS]) == [0]


def test_a_rate_that_the_cable_cannot_do_is_given_up(board: UartRtl) -> None:
    class SlowCable(FaultyPort):
        def set_baud(self, baud: int) -> None:
            board.set_baud(min(baud, 1_000_000))

    link = Link(SlowCable(board, FaultRates(), seed=1), patience=PATIENCE, seed=1)
    link.open()
    assert link.negotiate() == 1_000_000
    link.write_memory(0, b"hello")
    assert link.read_memory(0, 5) == b"hello"


def test_a_silent_host_finds_the_board_again(board: UartRtl, link: Link) -> None:
    link.set_baud(3_000_000)
    link.write_memory(100, b"kept")
    board.run(CLOCK_HZ * SILENCE_MS // 1000 * 2)
    assert link.read_memory(100, 4) == b"kept"
    assert link.baud == 3_000_000


def test_a_new_host_finds_a_board_that_was_left_at_another_rate(board: UartRtl, link: Link) -> None:
    link.set_baud(3_000_000)
    board.write(request(Kind.WRITE_MEMORY, 1, 0, payload=bytes(4))[:9])  # and in mid-frame
    board.set_baud(115_200)
    again = Link(board, patience=PATIENCE, seed=2)
    assert again.open() == IDENTITY


def test_a_board_that_was_reset_is_noticed(board: UartRtl, link: Link) -> None:
    link.write_memory(0, b"hello")
    board.reset()
    with pytest.raises(DeviceError, match="reset since the device was opened"):
        link.read_memory(0, 5)


def test_a_dead_line_ends_in_words(board: UartRtl, link: Link) -> None:
    port = FaultyPort(board, FaultRates(drop=1.0), seed=1)
    link.channel.port = port
    with pytest.raises(DeviceError, match="has stopped answering"):
        link.read_memory(0, 4)


def model_transactions(link: Link, count: int, seed: int) -> None:
    """Do random transactions and compare each with a model."""
    rng = random.Random(seed)
    memory = bytearray(4096)
    link.write_memory(0, bytes(memory))
    (rings,) = link.read_registers([RINGS])
    for _ in range(count):
        action = rng.randrange(5)
        address = rng.randrange(4096 - 300)
        length = rng.choice([1, 4, 9, 40, 128, 300])
        if action == 0:
            data = rng.randbytes(length)
            link.write_memory(address, data)
            memory[address : address + length] = data
        elif action == 1:
            assert link.read_memory(address, length) == memory[address : address + length]
        elif action == 2:
            value = rng.getrandbits(31) << 1
            link.write_registers([(SCRATCH, value), (DOORBELL, 1)])
            rings += 1
            assert link.read_registers([SCRATCH]) == [value]
        elif action == 3:
            assert link.read_registers([RINGS]) == [rings]
        else:
            start = address & ~3
            assert link.holds(start, bytes(memory[start : start + length]))
    assert link.read_memory(0, 4096) == memory


@pytest.mark.parametrize("fault", ["flip", "drop", "duplicate", "truncate", "stall"])
def test_faults_change_nothing_but_time(board: UartRtl, fault: str) -> None:
    link, port = faulty_link(board, 3_000_000, seed=7, **{fault: 1e-3})
    model_transactions(link, 1000, seed=11)
    seen = port.outward.counts[fault] + port.inward.counts[fault]
    print(fault, seen, link.statistics)
    assert seen > 20
    assert fault == "stall" or link.statistics.recoveries > 10


def test_all_faults_at_once(board: UartRtl) -> None:
    rates = dict.fromkeys(["flip", "drop", "duplicate", "truncate", "stall"], 1e-3)
    link, port = faulty_link(board, 1_000_000, seed=8, **rates)
    model_transactions(link, 200, seed=12)
    assert all(port.inward.counts.values())


class LinkMachine:
    """What is behind the bridge of a `LinkBoard`, as a machine of the model."""

    def __init__(self) -> None:
        self.memory = bytearray(MEMORY_BYTES)
        self.values = dict.fromkeys((entry.address for entry in REGISTERS), 0)

    @property
    def irq(self) -> bool:
        return bool(self.values[SCRATCH] & 1)

    def read(self, registers: bool, address: int) -> int:
        if registers:
            if address not in self.values:
                raise BusError
            return self.values[address]
        if address >= MEMORY_BYTES:
            raise BusError
        return int.from_bytes(self.memory[address : address + 4], "little")

    def write(self, registers: bool, address: int, value: int, select: int) -> None:
        self.read(registers, address)
        mask = sum(0xFF << 8 * lane for lane in range(4) if select >> lane & 1)
        if not registers:
            old = int.from_bytes(self.memory[address : address + 4], "little")
            word = old & ~mask | value & mask
            self.memory[address : address + 4] = word.to_bytes(4, "little")
            return
        writable = 0
        for field in next(entry for entry in REGISTERS if entry.address == address).fields:
            if field.access is ACCESS.RW:
                writable |= ((1 << field.width_bits) - 1) << field.offset_bits
        mask &= writable
        self.values[address] = self.values[address] & ~mask | value & mask
        if address == DOORBELL and select & 1:
            self.values[RINGS] += value & 1


def random_request(rng: random.Random, expected: int) -> bytes:
    """Return a request, most of them sensible, now and then damaged."""
    kind = rng.choice([*Kind, *Kind, 0x08, 0x41, 0x50])
    sequence = expected if rng.random() < 0.9 else rng.randrange(256)
    count = rng.choice([1, 1, 2, 3, 30])
    payload = rng.randbytes(4 * count) if kind & 1 else b""
    argument = 4 * rng.choice([0, 1, 7, MEMORY_BYTES // 4 - 2, MEMORY_BYTES // 4])
    if kind in (Kind.READ_REGISTERS, Kind.WRITE_REGISTERS):
        argument = rng.choice([SCRATCH, DOORBELL, RINGS, RINGS + 4 * 15])
    if kind == Kind.BAUD:
        argument = rng.choice([0, 1 << 18])  # both are refused
    elif rng.random() < 0.05:
        argument |= 2
    masks = {"first": rng.randrange(16), "last": rng.randrange(16)} if kind & 1 else {}
    frame = bytearray(request(kind, sequence, argument, count=count, payload=payload, **masks))
    if rng.random() < 0.1:
        frame[rng.randrange(len(frame) - 1)] ^= 1 << rng.randrange(8)
    return DELIMITER + bytes(frame) + DELIMITER


@pytest.mark.parametrize("seed", range(2))
def test_the_model_answers_as_the_bridge_does(board: UartRtl, seed: int) -> None:
    rng = random.Random(seed)
    model = BoardModel(IDENTITY, LinkMachine())
    begin = request(Kind.READ_MEMORY, 1, 0) + request(Kind.HELLO, 0, 5)
    requests = [begin]
    model.feed(begin)
    for _ in range(150):
        requests.append(random_request(rng, model._expected))
        model.feed(requests[-1])
    model = BoardModel(IDENTITY, LinkMachine())
    for index, frames in enumerate(requests):
        board.write(frames)
        while board.unsent:
            board.run(10_000)
        # Until what is answered has been sent, which nothing else tells.
        found = b""
        while more := board.read(0.004):
            found += more
        assert found == model.feed(frames), f"request {index}: {frames.hex()}"


def test_an_unmodified_program_talks_to_the_rtl(build: Build) -> None:
    rtl = UartRtl(build, clock_hz=CLOCK_HZ)
    data = random.Random(6).randbytes(5000)
    with ServedRtl(rtl) as served, Link(SerialPort(served.path)) as link:
        link.channel.patience = Patience(latency_s=0.3, hello_s=20.0, slowdown=40.0)
        assert link.open() == IDENTITY
        assert link.set_baud(3_000_000)
        link.write_memory(4, data)
        assert link.read_memory(4, len(data)) == data
        link.write_registers([(SCRATCH, 1)])
        assert link.wait_interrupt(5.0)
        assert served.problem is None
    rtl.close()


def test_a_wrong_rate_is_garbage_to_the_rtl(build: Build) -> None:
    rtl = UartRtl(build, clock_hz=CLOCK_HZ)
    hasty = Patience(latency_s=0.3, hello_s=1.5)
    with ServedRtl(rtl) as served, Link(SerialPort(served.path), patience=hasty) as link:
        link.channel.switch(57_600)
        with pytest.raises(DeviceError, match="nothing answers at 57600 baud|not at 57600 baud"):
            link.open()
        link.channel.switch(115_200)
        link.channel.patience = Patience(latency_s=0.3, hello_s=20.0)
        assert link.open() == IDENTITY
    rtl.close()
