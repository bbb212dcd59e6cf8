# amaranth: UnusedElaboratable=no
"""The parts of the bridge on Amaranth's simulator: lines, frames in, pieces out."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("amaranth")
from celosia.hw.contract.frames import decode_frame, encode_frame
from celosia.hw.contract.uart import PHASE_BITS, Identity, Kind, increment_of_baud
from celosia.hw.uart.cobs import CobsDecoder
from celosia.hw.uart.crc import CRC_BITS, SerialCrc
from celosia.hw.uart.rate import LineRate
from celosia.hw.uart.receiver import FrameReceiver
from celosia.hw.uart.ring import Ring
from celosia.hw.uart.uart import UartReceiver, UartTransmitter
from celosia.sw.driver.uart.codec import request
from cobs import cobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.clocked import simulate

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
CHARACTER_BITS = 10
Levels = list[tuple[int, float]]


def levels(data: bytes, bit_cycles: float) -> Levels:
    """Return the line's levels for characters, each with its duration in cycles."""
    result: Levels = [(1, 3 * bit_cycles)]
    for byte in data:
        bits = [0, *(byte >> index & 1 for index in range(8)), 1]
        result += [(bit, bit_cycles) for bit in bits]
    return result


async def drive_line(ctx: Any, line: Any, wanted: Levels) -> None:
    """Put levels on a line, to the nearest cycle."""
    end, now = 0.0, 0
    for level, cycles in wanted:
        end += cycles
        ctx.set(line, level)
        while now + 0.5 < end:
            await ctx.tick()
            now += 1


def receive(wanted: Levels, increment: int) -> tuple[bytes, int]:
    """Return the characters received, and the number of errors."""
    dut = UartReceiver()
    data, errors = bytearray(), 0

    async def watch(ctx: Any) -> None:
        nonlocal errors
        async for _, _, valid, byte, error in ctx.tick().sample(dut.valid, dut.data, dut.error):
            if valid:
                data.append(byte)
            errors += error

    async def bench(ctx: Any) -> None:
        ctx.set(dut.increment, increment)
        await drive_line(ctx, dut.rx, wanted)
        for _ in range(40):
            await ctx.tick()

    simulate(dut, bench, processes=[watch], limit_cycles=100_000)
    return bytes(data), errors


@pytest.mark.parametrize("bit_cycles", [8.0, 8 + 1 / 3, 17.36, 69.4])
@pytest.mark.parametrize("mismatch", [-0.03, -0.01, 0.0, 0.01, 0.03])
def test_characters_without_gaps_at_rates_that_differ(bit_cycles: float, mismatch: float) -> None:
    data = random.Random(1).randbytes(30 if bit_cycles < 20 else 10) + b"\0\xff\x55\xaa"
    increment = round((1 << PHASE_BITS) / bit_cycles)
    # Between characters the receiver finds the edge anew: only ten bits have to fit.
    if bit_cycles <= 8 + 1 / 3 and abs(mismatch) > 0.02:
        mismatch = 0.02 if mismatch > 0 else -0.02
    assert receive(levels(data, bit_cycles * (1 + mismatch)), increment) == (data, 0)


def test_a_glitch_is_no_character() -> None:
    increment = (1 << PHASE_BITS) // 16
    wanted = [(1, 20.0), (0, 5.0), (1, 40.0), *levels(b"A", 16), (0, 6.0), (1, 30.0)]
    assert receive(wanted, increment) == (b"A", 0)


def test_a_break_is_one_error() -> None:
    increment = (1 << PHASE_BITS) // 16
    wanted = [(1, 20.0), (0, 1000.0), *levels(b"AB", 16)]
    assert receive(wanted, increment) == (b"AB", 1)


@pytest.mark.parametrize("clock_hz", [24_000_000, 25_000_000, 80_000_000])
def test_characters_are_sent_without_gaps(clock_hz: int) -> None:
    dut = UartTransmitter()
    increment = increment_of_baud(3_000_000, clock_hz)
    bit_cycles = clock_hz / 3_000_000
    data = bytes(random.Random(2).randbytes(20))
    line: list[int] = []

    async def watch(ctx: Any) -> None:
        async for _, _, level in ctx.tick().sample(dut.tx):
            line.append(level)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.increment, increment)
        assert ctx.get(dut.idle)
        for byte in data:
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().until(dut.idle)
        for _ in range(20):
            await ctx.tick()

    simulate(dut, bench, processes=[watch], limit_cycles=20_000)
    first = line.index(0)
    bits = [
        line[first + int((index + 0.5) * bit_cycles)] for index in range(CHARACTER_BITS * len(data))
    ]
    for index, byte in enumerate(data):
        character = bits[CHARACTER_BITS * index : CHARACTER_BITS * (index + 1)]
        assert character == [0, *(byte >> bit & 1 for bit in range(8)), 1]


def decode(characters: bytes, errors: set[int]) -> list[bytes | None]:
    """Return the frames that end in `characters`, None for damaged ones; empty ones left out."""
    dut = CobsDecoder()
    frames: list[bytes | None] = []
    frame = bytearray()

    async def bench(ctx: Any) -> None:
        for index, byte in enumerate(characters):
            if index in errors:
                ctx.set(dut.i_valid, 0)
                ctx.set(dut.i_error, 1)
                await ctx.tick()
                ctx.set(dut.i_error, 0)
            ctx.set(dut.i_valid, 1)
            ctx.set(dut.i_data, byte)
            if ctx.get(dut.valid):
                frame.append(ctx.get(dut.data))
                assert not ctx.get(dut.end)
            if ctx.get(dut.end):
                if not ctx.get(dut.empty):
                    frames.append(bytes(frame) if ctx.get(dut.good) else None)
                frame.clear()
            await ctx.tick()
        ctx.set(dut.i_valid, 0)

    simulate(dut, bench)
    return frames


def reference_decode(characters: bytes) -> list[bytes | None]:
    frames: list[bytes | None] = []
    for piece in characters.split(b"\0")[:-1]:
        if piece:
            try:
                frames.append(cobs.decode(piece))
            except cobs.DecodeError:
                frames.append(None)
    return frames


@QUICK
@given(st.lists(st.binary(min_size=1, max_size=600), max_size=3))
def test_decoder_undoes_the_encoding(contents: list[bytes]) -> None:
    characters = b"".join(cobs.encode(content) + b"\0" for content in contents)
    assert decode(characters, set()) == contents


@QUICK
@given(st.lists(st.sampled_from([0, 1, 2, 3, 254, 255]), max_size=500).map(bytes))
def test_decoder_finds_the_same_frames_in_garbage(garbage: bytes) -> None:
    assert decode(garbage, set()) == reference_decode(garbage)


def test_a_lost_character_spoils_its_frame_only() -> None:
    good = cobs.encode(b"good") + b"\0"
    assert decode(good * 3, {len(good) + 2}) == [b"good", None, b"good"]
    assert decode(b"\0\0" + good, {1}) == [None, b"good"]


class FrameBench:
    """Feeds characters to a receiver and takes its words."""

    def __init__(self, buffer_words: int) -> None:
        self.dut = FrameReceiver(buffer_words=buffer_words)
        self.words: list[int] = []
        self.counters = (0, 0, 0)

    def run(
        self, characters: bytes, *, take: bool = True, errors: frozenset[int] = frozenset()
    ) -> FrameBench:
        """Feed characters; those in `errors` come without a stop bit."""
        dut = self.dut

        async def watch(ctx: Any) -> None:
            ctx.set(dut.o.ready, take)
            async for _, _, valid, word in ctx.tick().sample(dut.o.valid, dut.o.payload):
                if valid and take:
                    self.words.append(word)

        async def bench(ctx: Any) -> None:
            for index, byte in enumerate(characters):
                ctx.set(dut.valid, index not in errors)
                ctx.set(dut.error, index in errors)
                ctx.set(dut.data, byte)
                await ctx.tick()
                ctx.set(dut.valid, 0)
                ctx.set(dut.error, 0)
                for _ in range(9):
                    await ctx.tick()
            for _ in range(800):
                await ctx.tick()
            counters = (dut.dropped, dut.overflows, dut.framing_errors)
            self.counters = tuple(ctx.get(counter) for counter in counters)

        simulate(dut, bench, processes=[watch], limit_cycles=60_000)
        return self


def words_of(frame: bytes) -> list[int]:
    content = decode_frame(frame[:-1])
    assert content is not None
    return [int.from_bytes(content[at : at + 4], "little") for at in range(0, len(content), 4)]


def test_words_of_good_requests_come_out() -> None:
    frames = [
        request(Kind.PING, 1, 0x12345678),
        request(Kind.WRITE_MEMORY, 2, 64, count=5, payload=bytes(range(20))),
        request(Kind.READ_MEMORY, 3, 0, count=256),
        request(Kind.WRITE_REGISTERS, 4, 0, count=100, payload=bytes(400)),
    ]
    bench = FrameBench(256).run(b"".join(frames))
    assert bench.words == [word for frame in frames for word in words_of(frame)]
    assert bench.counters == (0, 0, 0)


def corrupt_cases() -> dict[str, tuple[bytes, frozenset[int]]]:
    good = request(Kind.WRITE_MEMORY, 2, 64, count=5, payload=bytes(range(20)))
    content = decode_frame(good[:-1])
    assert content is not None
    flipped = bytearray(good)
    flipped[9] ^= 0x40
    return {
        "crc": (bytes(flipped), frozenset()),
        "count too large": (encode_frame(b"\x11\2\5" + content[3:]), frozenset()),
        "count too small": (encode_frame(b"\x11\2\3" + content[3:]), frozenset()),
        "no payload expected": (encode_frame(b"\x10" + content[1:]), frozenset()),
        "not whole words": (encode_frame(content + b"x"), frozenset()),
        "short": (encode_frame(content[:4]), frozenset()),
        "nothing but a CRC": (encode_frame(b""), frozenset()),
        "framing error": (good[:5] + b"\1" + good[5:], frozenset([5])),
        "truncated": (good[:-6] + b"\0", frozenset()),
        "two without a delimiter": (good[:-1] + good, frozenset()),
    }


@pytest.mark.parametrize("case", corrupt_cases())
def test_nothing_of_a_damaged_request_comes_out(case: str) -> None:
    characters, errors = corrupt_cases()[case]
    after = request(Kind.PING, 7, 1)
    bench = FrameBench(64).run(characters + after, errors=errors)
    assert bench.words == words_of(after)
    assert bench.counters == (1, 0, len(errors))


def test_what_does_not_fit_is_left_out_whole() -> None:
    small = request(Kind.WRITE_MEMORY, 1, 0, count=20, payload=bytes(80))
    large = request(Kind.WRITE_MEMORY, 2, 0, count=62, payload=bytes(248))
    bench = FrameBench(64).run(small + large + small + small, take=False)
    assert bench.counters == (0, 2, 0)
    bench = FrameBench(64).run(large + small + small + small)
    assert bench.words == 3 * words_of(small)


@QUICK
@given(st.binary(max_size=400))
def test_no_garbage_comes_out(garbage: bytes) -> None:
    after = request(Kind.PING, 7, 1)
    bench = FrameBench(64).run(garbage + b"\0" + after)
    assert bench.words == words_of(after)


@pytest.mark.parametrize("make", [lambda: Ring(width=8, depth=3), lambda: Ring(width=8, depth=1)])
def test_impossible_rings_are_refused(make: Callable[[], Ring]) -> None:
    with pytest.raises(ValueError, match="power of two"):
        make()


@pytest.mark.parametrize("words", [16, 1024])
def test_impossible_buffers_are_refused(words: int) -> None:
    with pytest.raises(ValueError, match="buffer_words"):
        FrameReceiver(buffer_words=words)


def test_the_bridge_refuses_payloads_that_do_not_fit() -> None:
    from celosia.hw.uart.bridge import UartBridge

    identity = Identity(
        board="b", clock_hz=48_000_000, memory_bytes=1, max_words=61, buffer_words=128
    )
    with pytest.raises(ValueError, match="max_words must be 1 to 60 with a buffer of 128 words"):
        UartBridge(identity=identity)


def test_silence_returns_the_rate() -> None:
    dut = LineRate(clock_hz=48_000_000, silence_ticks=50)
    default = increment_of_baud(115_200, 48_000_000)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.tick, 1)
        assert ctx.get(dut.increment) == default
        ctx.set(dut.wanted, 1234)
        ctx.set(dut.change, 1)
        await ctx.tick()
        ctx.set(dut.change, 0)
        for _ in range(4):
            for _ in range(40):
                await ctx.tick()
            ctx.set(dut.good, 1)
            await ctx.tick()
            ctx.set(dut.good, 0)
            assert ctx.get(dut.increment) == 1234
        for _ in range(60):
            await ctx.tick()
        assert ctx.get(dut.increment) == default

    simulate(dut, bench)


@QUICK
@given(st.binary(min_size=1, max_size=64))
def test_the_crc_is_that_of_zlib(data: bytes) -> None:
    dut = SerialCrc()
    crc = zlib.crc32(data)

    async def shift(ctx: Any, value: int, count: int) -> None:
        for index in range(count):
            ctx.set(dut.bit, value >> index & 1)
            await ctx.tick()

    async def bench(ctx: Any) -> None:
        for _ in range(2):
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            ctx.set(dut.shift, 1)
            await shift(ctx, int.from_bytes(data, "little"), 8 * len(data))
            assert not ctx.get(dut.match)
            await shift(ctx, crc, CRC_BITS)
            assert ctx.get(dut.match)
            ctx.set(dut.shift, 0)

    simulate(dut, bench)


@QUICK
@given(st.binary(min_size=1, max_size=64))
def test_the_crc_comes_out_bit_by_bit(data: bytes) -> None:
    dut = SerialCrc()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.shift, 1)
        for byte in data:
            for index in range(8):
                ctx.set(dut.bit, byte >> index & 1)
                await ctx.tick()
        ctx.set(dut.drain, 1)
        given_bits = 0
        for index in range(CRC_BITS):
            given_bits |= ctx.get(dut.first) << index
            await ctx.tick()
        assert given_bits == zlib.crc32(data)

    simulate(dut, bench)
