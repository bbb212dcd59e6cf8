"""Frames as bytes: round trips, damage, and any way of cutting them up."""

from __future__ import annotations

import dataclasses

import pytest
from celosia.hw.contract.frames import DELIMITER, decode_frame, encode_frame
from celosia.hw.contract.uart import (
    EVENT,
    IDENTITY_WORDS,
    PROTOCOL_VERSION,
    REPLY,
    Identity,
    Kind,
    LinkState,
    baud_of_increment,
    has_payload,
    increment_of_baud,
    is_sequenced,
    max_payload_words,
)
from celosia.sw.driver.uart.codec import FrameSplitter, Reply, request
from celosia.sw.driver.uart.session import BAUD_RATES
from celosia.sw.driver.uart.transfers import Piece, Transfer, TransferQueue, write_transfer
from hypothesis import given
from hypothesis import strategies as st

IDENTITY = Identity(
    board="ulx3s",
    clock_hz=80_000_000,
    memory_bytes=1 << 20,
    build=7,
    revision="0123456789abcdef",
    simulated=True,
)


@given(st.binary(max_size=1100))
def test_frames_round_trip(content: bytes) -> None:
    characters = encode_frame(content)
    assert characters[-1:] == DELIMITER
    assert DELIMITER not in characters[:-1]
    assert decode_frame(characters[:-1]) == content


@given(st.binary(min_size=3, max_size=300), st.data())
def test_a_frame_with_a_wrong_bit_is_none(content: bytes, data: st.DataObject) -> None:
    characters = bytearray(encode_frame(content)[:-1])
    place = data.draw(st.integers(0, 8 * len(characters) - 1))
    characters[place // 8] ^= 1 << place % 8
    assert decode_frame(bytes(characters)) is None


@given(st.binary(max_size=300))
def test_garbage_is_no_frame(characters: bytes) -> None:
    splitter = FrameSplitter()
    assert splitter.feed(characters + DELIMITER) == []
    assert splitter.characters == len(characters) + 1


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8), st.data())
def test_replies_come_out_however_they_are_cut(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(
        encode_frame(bytes([0x90, index]) + payload + b"\xc0")
        for index, payload in enumerate(payloads)
    )
    splitter, replies = FrameSplitter(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        replies += splitter.feed(stream[:cut])
        stream = stream[cut:]
    assert [reply.payload for reply in replies] == payloads
    assert [reply.sequence for reply in replies] == list(range(len(payloads)))
    assert all(reply.ok and reply.irq and reply.session for reply in replies)


def test_what_never_ends_is_thrown_away() -> None:
    splitter = FrameSplitter()
    for _ in range(100):
        assert splitter.feed(b"\x55" * 1000) == []
    assert splitter.damaged > 0
    assert splitter.feed(DELIMITER + encode_frame(b"\x84\1\0")) != []


def test_a_request_is_no_reply() -> None:
    content = decode_frame(request(Kind.PING, 3, 0x01020304)[:-1])
    assert content == bytes([Kind.PING, 3, 0, 0, 4, 3, 2, 1])
    assert Reply.parse(content) is None
    assert Reply.parse(b"\x84\0") is None


def test_requests_have_counts_and_masks() -> None:
    frame = request(Kind.WRITE_MEMORY, 1, 8, count=2, first=0xE, last=0x3, payload=bytes(8))
    content = decode_frame(frame[:-1])
    assert content == bytes([0x11, 1, 1, 0x3E, 8, 0, 0, 0]) + bytes(8)
    content = decode_frame(request(Kind.CHECKSUM, 1, 0, count=0x1234 + 1)[:-1])
    assert content is not None
    assert content[2:4] == b"\x34\x12"


def test_identity_round_trips() -> None:
    content = IDENTITY.to_bytes()
    assert len(content) == 4 * IDENTITY_WORDS == 4 * len(IDENTITY.words)
    assert Identity.from_bytes(content) == IDENTITY
    plain = dataclasses.replace(IDENTITY, revision="", simulated=False, dirty=True)
    assert Identity.from_bytes(plain.to_bytes()) == plain
    assert plain.version == PROTOCOL_VERSION
    for bad in (content[:-1], b"\0" + content[1:]):
        with pytest.raises(ValueError, match="identification"):
            Identity.from_bytes(bad)


@pytest.mark.parametrize(
    "change", [{"board": ""}, {"board": "x" * 17}, {"revision": "12"}, {"clock_hz": -1}]
)
def test_impossible_identities_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(IDENTITY, **change)  # type: ignore[arg-type]


def test_state_round_trips() -> None:
    state = LinkState(1, 2, 3, 4, 5, 6, 7)
    assert LinkState.from_bytes(state.to_bytes()) == state


def test_kinds_say_what_they_are() -> None:
    for kind in Kind:
        assert not kind & REPLY
        assert kind | REPLY != EVENT
        assert is_sequenced(kind) == (kind not in (Kind.HELLO, Kind.PING, Kind.BAUD))
        assert has_payload(kind) == kind.name.startswith("WRITE")


@pytest.mark.parametrize("clock_hz", [24_000_000, 25_000_000, 48_000_000, 80_000_000, 100_000_000])
def test_rates_are_close_enough(clock_hz: int) -> None:
    for baud in (115_200, *BAUD_RATES):
        increment = increment_of_baud(baud, clock_hz)
        assert abs(baud_of_increment(increment, clock_hz) / baud - 1) < 1e-3


def test_rates_that_cannot_be_made_are_refused() -> None:
    for baud in (0, 3_000_001, 10):
        with pytest.raises(ValueError, match="baud"):
            increment_of_baud(baud, 24_000_000)


def test_a_buffer_holds_two_requests() -> None:
    for words in (32, 64, 256, 512):
        assert 2 * (max_payload_words(words) + 3) < words


@given(st.integers(0, 50), st.binary(min_size=1, max_size=80), st.integers(1, 9))
def test_pieces_write_exactly_the_bytes(address: int, data: bytes, size: int) -> None:
    memory = bytearray(b"\xee" * 160)
    transfer = write_transfer(Kind.WRITE_MEMORY, address, data)
    queue = TransferQueue([transfer], size)
    while queue:
        piece = queue.take()
        content = decode_frame(piece.request(5)[:-1])
        assert content is not None
        words, masks, at = content[2] + 1, content[3], int.from_bytes(content[4:8], "little")
        for index in range(4 * words):
            mask = masks & 0xF if index < 4 else 0xF
            mask &= masks >> 4 if index >= 4 * words - 4 else 0xF
            if mask >> index % 4 & 1:
                memory[at + index] = content[8 + index]
    expected = bytearray(b"\xee" * 160)
    expected[address : address + len(data)] = data
    assert memory == expected


def test_pieces_that_were_put_back_come_first() -> None:
    transfer = Transfer(Kind.READ_MEMORY, 0, 10, bytearray(40))
    queue = TransferQueue([transfer], 4)
    first, second = queue.take(), queue.take()
    queue.put_back([first, second])
    assert queue.words == 10
    queue.size = 3
    assert [(piece.start, piece.words) for piece in _all(queue)] == [
        (0, 3),
        (3, 1),
        (4, 3),
        (7, 1),
        (8, 2),
    ]


def _all(queue: TransferQueue) -> list[Piece]:
    pieces = []
    while queue:
        pieces.append(queue.take())
    return pieces
