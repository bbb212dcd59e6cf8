"""COBS in gateware against the reference library, streams with random back-pressure."""

from __future__ import annotations

import random
import zlib
from typing import Any

import pytest

pytest.importorskip("amaranth")
from celosia.hw.contract.frames import decode_frame
from celosia.hw.uart.cobs import CobsEncoder
from celosia.hw.uart.transmitter import FrameTransmitter
from cobs import cobs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.clocked import simulate

RUNS = [0, 1, 2, 252, 253, 254, 255, 256, 507, 508, 509, 510, 760]
SHAPES = [b"\1" * run + tail for run in RUNS for tail in (b"", b"\0", b"\0\0", b"\0\7")]
FRAMES = [shape for shape in SHAPES if shape]
QUICK = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FRAME = st.one_of(
    st.binary(min_size=1, max_size=600),
    st.lists(st.sampled_from([0, 1, 255]), min_size=1, max_size=600).map(bytes),
)


async def feed_frames(ctx: Any, stream: Any, frames: list[bytes], pause: float) -> None:
    """Send frames into a stream of BYTE_OF_FRAME."""
    rng = random.Random(1)
    for frame in frames:
        for index, byte in enumerate(frame):
            while rng.random() < pause:
                await ctx.tick()
            ctx.set(stream.payload, {"data": byte, "last": index == len(frame) - 1})
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
            ctx.set(stream.valid, 0)


async def feed_bits(ctx: Any, stream: Any, frames: list[bytes], silent: bytes) -> None:
    """Send frames into a stream of BIT_OF_FRAME; before each, what only enters the CRC."""
    for frame in frames:
        for content, is_silent in ((silent, 1), (frame, 0)):
            for index in range(8 * len(content)):
                bit = content[index // 8] >> index % 8 & 1
                last = not is_silent and index // 8 == len(frame) - 1
                ctx.set(stream.payload, {"bit": bit, "last": last, "silent": is_silent})
                ctx.set(stream.valid, 1)
                await ctx.tick().until(stream.ready)
                ctx.set(stream.valid, 0)


async def take_frames(ctx: Any, stream: Any, count: int, pause: float) -> list[bytes]:
    """Take characters up to the delimiter of the last frame."""
    rng = random.Random(2)
    frames, frame = [], bytearray()
    while len(frames) < count:
        while rng.random() < pause:
            await ctx.tick()
        ctx.set(stream.ready, 1)
        (byte,) = await ctx.tick().sample(stream.payload).until(stream.valid)
        ctx.set(stream.ready, 0)
        if byte:
            frame.append(byte)
        else:
            frames.append(bytes(frame))
            frame.clear()
    return frames


def run_encoder(dut: Any, frames: list[bytes], pause: float) -> list[bytes]:
    """Return what the frames become."""
    results: list[bytes] = []

    async def source(ctx: Any) -> None:
        await feed_frames(ctx, dut.i, frames, pause)

    async def sink(ctx: Any) -> None:
        results.extend(await take_frames(ctx, dut.o, len(frames), pause))
        for _ in range(4):
            await ctx.tick()
        assert ctx.get(dut.empty)

    simulate(dut, sink, processes=[source], limit_cycles=200_000)
    return results


@pytest.mark.parametrize("pause", [0.0, 0.7])
def test_encoder_gives_the_shortest_encoding(pause: float) -> None:
    frames = FRAMES if not pause else FRAMES[::3]
    assert run_encoder(CobsEncoder(), frames, pause) == [cobs.encode(f) for f in frames]


@QUICK
@given(frames=st.lists(FRAME, min_size=1, max_size=4))
def test_encoder_is_the_reference(frames: list[bytes]) -> None:
    assert run_encoder(CobsEncoder(), frames, 0.0) == [cobs.encode(f) for f in frames]


def run_transmitter(frames: list[bytes], silent: bytes) -> list[bytes]:
    """Return the characters of frames, without delimiters."""
    dut = FrameTransmitter()
    results: list[bytes] = []

    async def source(ctx: Any) -> None:
        await feed_bits(ctx, dut.i, frames, silent)

    async def sink(ctx: Any) -> None:
        results.extend(await take_frames(ctx, dut.o, len(frames), 0.0))
        for _ in range(4):
            await ctx.tick()
        assert ctx.get(dut.empty)

    simulate(dut, sink, processes=[source], limit_cycles=200_000)
    return results


@QUICK
@given(frames=st.lists(FRAME, min_size=1, max_size=4))
def test_transmitter_appends_the_crc(frames: list[bytes]) -> None:
    encoded = run_transmitter(frames, b"")
    assert [decode_frame(frame) for frame in encoded] == frames
    assert all(cobs.encode(cobs.decode(frame)) == frame for frame in encoded)


def test_silent_bits_enter_the_crc_and_are_not_sent() -> None:
    encoded = run_transmitter([b"one", b"\0two"], b"silent")
    for frame, content in zip(encoded, [b"one", b"\0two"], strict=True):
        crc = zlib.crc32(b"silent" + content).to_bytes(4, "little")
        assert cobs.decode(frame) == content + crc
