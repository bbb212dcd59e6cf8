"""The board's end of the protocol in software, for tests of the driver: fast, and without tools.

What a board really does is in ``hw/uart``; a test holds this model to it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

from celosia.hw.contract.frames import decode_frame, encode_frame
from celosia.hw.contract.uart import (
    DEFAULT_BAUD,
    EVENT,
    REPLY,
    Flag,
    Identity,
    Kind,
    LinkState,
    Status,
    baud_of_increment,
    has_payload,
    is_sequenced,
)
from celosia.sim.board.served_line import ServedLine

__all__ = ["BoardModel", "BusError", "Machine", "PtyBoard"]

WORD_BYTES = 4
HEADER_BYTES = 8
POLL_S = 0.05
SAME_RATE = 0.03
"""Rates that differ by no more than this understand each other."""


class BusError(Exception):
    """There is nothing at an address."""


class Machine(Protocol):
    """What is behind the bridge; an address without anything raises `BusError`."""

    @property
    def irq(self) -> bool:
        """Level of the interrupt."""

    def read(self, registers: bool, address: int) -> int:
        """Return a word."""

    def write(self, registers: bool, address: int, value: int, select: int) -> None:
        """Write the bytes of a word that `select` has bits for."""


@dataclass
class _Request:
    kind: int
    sequence: int
    count: int
    first: int
    last: int
    argument: int
    payload: bytes


class BoardModel:
    """Answers requests as :class:`celosia.hw.uart.bridge.UartBridge` does.

    Parameters
    ----------
    identity : Identity
    machine : Machine
    """

    def __init__(self, identity: Identity, machine: Machine) -> None:
        self.identity = identity
        self.machine = machine
        self.reset()

    def reset(self) -> None:
        """Forget the session, as a reset does."""
        self.baud = float(DEFAULT_BAUD)
        self.dropped = 0
        self._session = False
        self._expected = 0
        self._errors = 0
        self._last = (0, 0)
        self._partial = bytearray()
        self._irq = False
        self._events = 0

    def feed(self, characters: bytes, baud: float | None = None) -> bytes:
        """Return what is answered to characters that came at a rate, events included."""
        answer = b""
        for byte in characters:
            if baud is not None and abs(baud / self.baud - 1) > SAME_RATE:
                self._partial += b"\1"  # whatever it is, it is not what was sent
                continue
            if byte:
                self._partial.append(byte)
                continue
            frame, self._partial = bytes(self._partial), bytearray()
            if frame:
                answer += self._frame(frame) + self._event()
        return answer

    def _event(self) -> bytes:
        before, self._irq = self._irq, self.machine.irq
        if before or not self._irq:
            return b""
        self._events = (self._events + 1) % 256
        if not self._session:
            return b""
        return encode_frame(bytes([EVENT, self._events, self._status(Status.OK)]))

    def _status(self, code: int) -> int:
        flags = Flag.SESSION * self._session | Flag.IRQ * self.machine.irq
        return code | flags

    def _frame(self, frame: bytes) -> bytes:
        content = decode_frame(frame)
        request = None if content is None else _parse(content)
        if request is None:
            self.dropped = (self.dropped + 1) % 256
            return b""
        payload, code = self._execute(request)
        head = bytes([request.kind | REPLY, request.sequence])
        reply = encode_frame(head + payload + bytes([self._status(code)]))
        if request.kind == Kind.BAUD and code == Status.OK:
            self.baud = baud_of_increment(request.argument, self.identity.clock_hz)
        return reply

    def _execute(self, request: _Request) -> tuple[bytes, int]:
        argument = request.argument.to_bytes(WORD_BYTES, "little")
        if is_sequenced(request.kind):
            return self._sequenced(request)
        if request.kind == Kind.HELLO:
            self._session, self._errors = True, 0
            self._expected = (request.sequence + 1) % 256
            return argument + self.identity.to_bytes(), Status.OK
        if request.kind == Kind.PING:
            state = LinkState(self._expected, self._errors, *self._last, self.dropped, 0, 0)
            return argument + state.to_bytes(), Status.OK
        if request.kind == Kind.BAUD and 0 < request.argument < 1 << 18:
            return argument, Status.OK
        return b"", Status.ILLEGAL

    def _sequenced(self, request: _Request) -> tuple[bytes, int]:
        if not self._session:
            return b"", Status.NO_SESSION
        if request.sequence != self._expected:
            return b"", Status.OUT_OF_SEQUENCE
        self._expected = (self._expected + 1) % 256
        payload = b""
        code: int = Status.ILLEGAL
        if request.kind in tuple(Kind) and request.argument % WORD_BYTES == 0:
            payload, code = self._access(request)
        if code != Status.OK:
            self._errors = (self._errors + 1) % 256
            self._last = (code, request.sequence)
        return payload, code

    def _access(self, request: _Request) -> tuple[bytes, int]:
        registers = request.kind in (Kind.READ_REGISTERS, Kind.WRITE_REGISTERS)
        count = request.count
        if request.kind == Kind.CHECKSUM:
            count += (request.first | request.last << 4) << 8
        data = b""
        address = request.argument
        try:
            for index in range(count):
                address = request.argument + index * WORD_BYTES
                if has_payload(request.kind):
                    word = request.payload[index * WORD_BYTES :][:WORD_BYTES]
                    select = request.first if index == 0 else 0xF
                    select &= request.last if index == count - 1 else 0xF
                    self.machine.write(registers, address, int.from_bytes(word, "little"), select)
                else:
                    data += self.machine.read(registers, address).to_bytes(WORD_BYTES, "little")
        except BusError:
            done = b"" if request.kind == Kind.CHECKSUM else data
            return done + address.to_bytes(WORD_BYTES, "little"), Status.BUS_ERROR
        if request.kind == Kind.CHECKSUM:
            data = zlib.crc32(data).to_bytes(WORD_BYTES, "little")
        return data, Status.OK


def _parse(content: bytes) -> _Request | None:
    """Return a request, or None if its length is not what its type says."""
    if len(content) < HEADER_BYTES:
        return None
    kind, sequence, count, masks = content[:4]
    payload = content[HEADER_BYTES:]
    if len(payload) != (WORD_BYTES * (count + 1) if has_payload(kind) else 0):
        return None
    argument = int.from_bytes(content[4:8], "little")
    # For CHECKSUM the masks are the upper bits of `count`, which is one less than the number.
    return _Request(kind, sequence, count + 1, masks & 0xF, masks >> 4, argument, payload)


class PtyBoard(ServedLine):
    """A board model behind a pseudo-terminal.

    Parameters
    ----------
    model : BoardModel
    """

    def __init__(self, model: BoardModel) -> None:
        super().__init__()
        self.model = model
        self._start()

    def _step(self) -> None:
        data = self.line.read(POLL_S)
        if data:
            self.line.write(self.model.feed(data, self.line.baud or None))

    def unplug(self) -> None:
        """Take the terminal away; may be called again."""
        self.close()
