"""Transfers of any length, cut into requests whose size follows how good the line is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from celosia.hw.contract.uart import Kind, has_payload
from celosia.sw.driver.uart.codec import request

__all__ = ["Piece", "Progress", "Transfer", "TransferQueue", "write_transfer"]

WORD_BYTES = 4
LEAST_WORDS = 16
GROW_AFTER = 24
"""Pieces that go well before they become larger again."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


@dataclass
class Transfer:
    """A run of words to be read or written.

    Attributes
    ----------
    kind : Kind
    address : int
        Of the first word, in bytes.
    words : int
    content : bytes or bytearray
        What is written; what was read.
    first, last : int
        Bytes of the first and the last word that are written.
    """

    kind: Kind
    address: int
    words: int
    content: bytes | bytearray
    first: int = 0xF
    last: int = 0xF


@dataclass(frozen=True)
class Piece:
    """A part of a transfer, one request long: `words` from word `start`."""

    transfer: Transfer = field(repr=False)
    start: int
    words: int

    @property
    def kind(self) -> Kind:
        """Of its transfer."""
        return self.transfer.kind

    @property
    def address(self) -> int:
        """Of its first word, in bytes."""
        return self.transfer.address + self.start * WORD_BYTES

    @property
    def reply_bytes(self) -> int:
        """Payload that the reply must have."""
        if self.kind == Kind.CHECKSUM:
            return WORD_BYTES
        return 0 if has_payload(self.kind) else self.words * WORD_BYTES

    @property
    def carried_words(self) -> int:
        """Words of payload, in the request or in the reply."""
        return 1 if self.kind == Kind.CHECKSUM else self.words

    def request(self, sequence: int) -> bytes:
        """Return the characters of its request."""
        transfer = self.transfer
        payload = b""
        if has_payload(self.kind):
            begin = self.start * WORD_BYTES
            payload = bytes(transfer.content[begin : begin + self.words * WORD_BYTES])
        return request(
            self.kind,
            sequence,
            self.address,
            count=self.words,
            first=transfer.first if self.start == 0 else 0xF,
            last=transfer.last if self.start + self.words == transfer.words else 0xF,
            payload=payload,
        )

    def finish(self, payload: bytes) -> None:
        """Keep what a reply brought."""
        if not has_payload(self.kind):
            assert isinstance(self.transfer.content, bytearray)
            begin = self.start * WORD_BYTES
            self.transfer.content[begin : begin + len(payload)] = payload


class TransferQueue:
    """What is still to be asked, in order.

    Parameters
    ----------
    transfers : iterable of Transfer
    size : int
        Words of a piece.
    """

    def __init__(self, transfers: Iterable[Transfer], size: int) -> None:
        self.size = size
        self._pieces = deque(Piece(transfer, 0, transfer.words) for transfer in transfers)

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def words(self) -> int:
        """Words of all that is still to be asked."""
        return sum(piece.words for piece in self._pieces)

    def take(self) -> Piece:
        """Return the next piece."""
        piece = self._pieces.popleft()
        if piece.kind == Kind.CHECKSUM or piece.words <= self.size:
            return piece
        rest = Piece(piece.transfer, piece.start + self.size, piece.words - self.size)
        self._pieces.appendleft(rest)
        return Piece(piece.transfer, piece.start, self.size)

    def put_back(self, pieces: Iterable[Piece]) -> None:
        """Ask these again, before all others, in this order."""
        self._pieces.extendleft(reversed(list(pieces)))


def write_transfer(kind: Kind, address: int, data: bytes) -> Transfer:
    """Return the transfer that writes bytes from any byte address."""
    lead = address % WORD_BYTES
    tail = -(lead + len(data)) % WORD_BYTES
    content = bytes(lead) + data + bytes(tail)
    return Transfer(
        kind,
        address - lead,
        len(content) // WORD_BYTES,
        content,
        first=0xF << lead & 0xF,
        last=0xF >> tail,
    )
