"""The link to a board: requests, what goes wrong with them, and what is done about it.

Requests carry a sequence number and are executed in order, each once. Several are on their way at
a time. When a reply does not come, the host asks for the state of the link (PING); the answer says
which request is the next, and so which of those without a reply were executed: what was not is
sent again, what was read and got lost is read again. Reads and writes are never on their way
together, so a repeated read sees what the first one would have seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from celosia.closing import Closing
from celosia.errors import DeviceError
from celosia.hw.contract.line import Port
from celosia.hw.contract.uart import (
    CHECKSUM_MAX_WORDS,
    REPLY,
    Identity,
    Kind,
    LinkState,
    Status,
    has_payload,
)
from celosia.sw.driver.uart.channel import Channel, LinkStatistics, Patience
from celosia.sw.driver.uart.codec import Reply
from celosia.sw.driver.uart.session import (
    BAUD_RATES,
    FRAME_OVERHEAD,
    Session,
    status_text,
    word_of,
)
from celosia.sw.driver.uart.transfers import (
    GROW_AFTER,
    LEAST_WORDS,
    Piece,
    Progress,
    Transfer,
    TransferQueue,
    write_transfer,
)

__all__ = ["Link"]

WORD_BYTES = 4
WINDOW = 8
"""Requests on their way at a time, on a good line: all that follow a lost one are sent again."""
HALF = 128
"""Of the sequence numbers: what is less than this ahead is later, else earlier."""
FRUITLESS_RECOVERIES = 25
CHECKSUM_WORD_CYCLES = 64
"""More than the bridge takes for a word."""

_REGISTERS = (Kind.READ_REGISTERS, Kind.WRITE_REGISTERS)


class Link(Closing):
    """A connection to a board.

    Parameters
    ----------
    port : Port
        Belongs to the link from now on.
    patience : Patience, optional
    seed : int, optional
        Of the nonces; without it they differ from run to run, as they should.
    """

    def __init__(
        self, port: Port, *, patience: Patience | None = None, seed: int | None = None
    ) -> None:
        self.channel = Channel(port, patience or Patience())
        self.session = Session(self.channel, seed=seed)
        self._sequence = 0
        self._size = LEAST_WORDS
        self._window = WINDOW
        self._good_pieces = 0
        self._opened = False
        self._settled = True  # what was asked last has been answered, or given up in words

    @property
    def identity(self) -> Identity:
        """What the board said it is; after :meth:`open`."""
        return self.session.identity

    @property
    def statistics(self) -> LinkStatistics:
        """What happened since the link was made."""
        return self.channel.statistics

    @property
    def baud(self) -> int:
        """The rate at present."""
        return self.channel.baud

    @property
    def name(self) -> str:
        """The port, as the user knows it."""
        return self.channel.port.name

    def open(self) -> Identity:
        """Begin a session.

        Raises
        ------
        DeviceError
            If there is no answer, or not one of a Celosia board of this protocol.
        """
        identity = self.session.open()
        self._sequence = 1
        self._size = identity.max_words
        self._opened = True
        return identity

    def close(self) -> None:
        """End the session and give up the port; may be called again."""
        try:
            if self._opened:
                self.session.leave()
        except DeviceError:
            pass  # the board went away before
        finally:
            self._opened = False
            self.channel.port.close()

    # Memory and registers ---------------------------------------------------------------------

    def read_memory(self, address: int, count: int) -> bytes:
        """Return `count` bytes of system memory from any byte address.

        Raises
        ------
        DeviceError
            If the bus answered with an error, or the link failed.
        """
        lead = address % WORD_BYTES
        words = -(-(lead + count) // WORD_BYTES)
        if not count:
            return b""
        transfer = Transfer(Kind.READ_MEMORY, address - lead, words, bytearray(words * WORD_BYTES))
        self._run([transfer])
        return bytes(transfer.content[lead : lead + count])

    def write_memory(self, address: int, data: bytes, *, progress: Progress | None = None) -> None:
        """Write bytes to system memory, from any byte address; returns when all is confirmed.

        Raises
        ------
        DeviceError
            If the bus answered with an error, or the link failed.
        """
        if data:
            self._run([write_transfer(Kind.WRITE_MEMORY, address, data)], progress)

    def read_registers(self, addresses: Sequence[int]) -> list[int]:
        """Return registers by byte address; runs of neighbours are read together."""
        transfers: list[Transfer] = []
        for address in addresses:
            last = transfers[-1] if transfers else None
            if last is not None and address == last.address + WORD_BYTES * last.words:
                last.words += 1
            else:
                transfers.append(Transfer(Kind.READ_REGISTERS, address, 1, b""))
        for transfer in transfers:
            transfer.content = bytearray(transfer.words * WORD_BYTES)
        self._run(transfers)
        content = b"".join(transfer.content for transfer in transfers)
        return [
            int.from_bytes(content[at : at + WORD_BYTES], "little")
            for at in range(0, len(content), WORD_BYTES)
        ]

    def write_registers(self, values: Sequence[tuple[int, int]]) -> None:
        """Write registers, pairs of byte address and value, in this order, each once."""
        transfers: list[Transfer] = []
        for address, value in values:
            word = value.to_bytes(WORD_BYTES, "little")
            last = transfers[-1] if transfers else None
            if last is not None and address == last.address + WORD_BYTES * last.words:
                last.words += 1
                last.content += word
            else:
                transfers.append(Transfer(Kind.WRITE_REGISTERS, address, 1, word))
        self._run(transfers)

    def checksum(self, address: int, count: int) -> list[int]:
        """Return CRC-32s of system memory as the board computes them.

        Parameters
        ----------
        address, count : int
            In bytes, multiples of 4.

        Returns
        -------
        list of int
            One for each `CHECKSUM_MAX_WORDS` words, the last for what is left.
        """
        assert address % WORD_BYTES == 0
        assert count % WORD_BYTES == 0
        transfers = [
            Transfer(
                Kind.CHECKSUM,
                address + WORD_BYTES * start,
                min(CHECKSUM_MAX_WORDS, count // WORD_BYTES - start),
                bytearray(WORD_BYTES),
            )
            for start in range(0, count // WORD_BYTES, CHECKSUM_MAX_WORDS)
        ]
        self._run(transfers)
        return [int.from_bytes(transfer.content, "little") for transfer in transfers]

    def holds(self, address: int, data: bytes) -> bool:
        """Return whether memory holds these bytes, by their CRC-32.

        Both ends are whole words: `address` is a multiple of 4, and bytes beyond the last whole
        word are read.
        """
        whole = len(data) // WORD_BYTES * WORD_BYTES
        step = CHECKSUM_MAX_WORDS * WORD_BYTES
        expected = [zlib.crc32(data[at : min(at + step, whole)]) for at in range(0, whole, step)]
        if self.checksum(address, whole) != expected:
            return False
        return self.read_memory(address + whole, len(data) - whole) == data[whole:]

    # State and interrupt ----------------------------------------------------------------------

    def ping(self) -> LinkState:
        """Return the state of the link as the board sees it."""
        self.session.revive()
        return self.session.recover()

    def wait_interrupt(self, timeout_s: float, *, poll_s: float = 0.25) -> bool:
        """Wait until the interrupt is high and return whether it came in time.

        Normally the board reports it; it is also asked, every `poll_s` seconds, so that a report
        that got lost costs no more than that, and the board's rate stays what it is.
        """
        channel = self.channel
        give_up = channel.port.now() + timeout_s
        while not channel.irq:
            now = channel.port.now()
            if now >= give_up:
                return False
            reply = channel.receive(min(now + poll_s, give_up))
            if reply is None and not channel.irq:
                self.ping()
        return True

    def negotiate(self, most: int = BAUD_RATES[0]) -> int:
        """Find the fastest rate that works, up to `most`, and return it."""
        return self.session.negotiate(most)

    def set_baud(self, baud: int) -> bool:
        """Change the rate; see :meth:`Session.set_baud`."""
        return self.session.set_baud(baud)

    # Requests ---------------------------------------------------------------------------------

    def _run(self, transfers: Sequence[Transfer], progress: Progress | None = None) -> None:
        """Do transfers, all reads or all writes, in order."""
        self.session.revive()
        if not self._settled:
            self._sequence = self.session.recover(tolerate_errors=True).expected
        self._settled = False
        queue = TransferQueue(transfers, self._size)
        flight: dict[int, Piece] = {}
        total = sum(transfer.words for transfer in transfers)
        left = total
        fruitless = 0
        while queue or flight:
            if progress is not None:
                progress((total - left) * WORD_BYTES, total * WORD_BYTES)
            while queue and len(flight) < self._window:
                self._request(queue.take(), flight)
            finished, lost = self._collect(flight)
            if finished:
                left -= finished.words
                fruitless = 0
                queue.size = self._grown()
            if lost:
                fruitless += 1
                if fruitless > FRUITLESS_RECOVERIES:
                    raise DeviceError(
                        self.session.what,
                        f"no request has come through in {fruitless} attempts, at {self.baud} baud",
                        "use a shorter cable or a lower rate",
                    )
                again = self._recover(flight)
                queue.put_back(again)
                queue.size = self._shrunk()
                if queue.words < left:
                    fruitless = 0
                left = queue.words
        if progress is not None:
            progress(total * WORD_BYTES, total * WORD_BYTES)
        self._settled = True

    def _request(self, piece: Piece, flight: dict[int, Piece]) -> None:
        self.channel.send(piece.request(self._sequence))
        flight[self._sequence] = piece
        self._sequence = (self._sequence + 1) % 256
        self.statistics.requests += 1

    def _collect(self, flight: dict[int, Piece]) -> tuple[Piece | None, bool]:
        """Wait for a reply to one of the requests.

        Returns
        -------
        finished : Piece or None
        lost : bool
            A reply before this one, or all of them, did not come; or a request was lost.
        """
        checked = sum(p.words for p in flight.values() if p.kind == Kind.CHECKSUM)
        work_s = CHECKSUM_WORD_CYCLES * checked / self.identity.clock_hz
        work_s *= self.channel.patience.slowdown
        wait_s = self.channel.time_for(_characters(flight)) + work_s
        reply = self.channel.receive(self.channel.port.now() + wait_s)
        if reply is None:
            return None, True
        return self._finish(reply, flight)

    def _finish(self, reply: Reply, flight: dict[int, Piece]) -> tuple[Piece | None, bool]:
        piece = flight.get(reply.sequence)
        if piece is None or reply.kind != piece.kind | REPLY:
            return None, False  # an event, or an answer to something that has been settled
        if reply.code == Status.OUT_OF_SEQUENCE:
            return None, True
        if reply.code == Status.NO_SESSION:
            raise self.session.was_reset()
        if not reply.ok:
            address = word_of(reply.payload, len(reply.payload) // WORD_BYTES - 1)
            raise self._access_error(piece, reply.code, address)
        if len(reply.payload) != piece.reply_bytes:
            raise DeviceError(
                self.session.what,
                f"the board answered {len(reply.payload)} bytes instead of {piece.reply_bytes}",
                "load a bitstream that was built with this version",
            )
        lost = next(iter(flight)) != reply.sequence
        piece.finish(reply.payload)
        del flight[reply.sequence]
        self.statistics.replies += 1
        return piece, lost

    def _recover(self, flight: dict[int, Piece]) -> list[Piece]:
        """Find out what became of requests without a reply; return those to be asked again."""
        self.statistics.recoveries += 1

        def take_late(reply: Reply) -> None:
            if reply.ok:
                self._finish(reply, flight)

        first = next(iter(flight))
        state = self.session.recover(take_late, characters=_characters(flight))
        if (state.expected - first) % 256 > (self._sequence - first) % 256:
            raise DeviceError(
                self.session.what,
                "another program has used the board since the device was opened",
                "end that program and open the device again",
            )
        self._sequence = state.expected
        again = [
            piece
            for sequence, piece in flight.items()
            if (state.expected - sequence - 1) % 256 >= HALF or not has_payload(piece.kind)
        ]
        flight.clear()
        self.statistics.repeated += len(again)
        return again

    def _grown(self) -> int:
        """Widen the window and return the size of the next pieces, after one that went well."""
        self._good_pieces += 1
        self._window = min(self._window + 1, WINDOW)
        if self._good_pieces >= GROW_AFTER:
            self._good_pieces = 0
            self._size = min(2 * self._size, self.identity.max_words)
        return self._size

    def _shrunk(self) -> int:
        """Narrow the window and return the size of the next pieces, after one that was lost."""
        self._good_pieces = 0
        self._window = max(self._window // 2, 1)
        self._size = max(self._size // 2, min(LEAST_WORDS, self.identity.max_words))
        return self._size

    def _access_error(self, piece: Piece, code: int, address: int | None) -> DeviceError:
        where = piece.address if address is None else address
        verb = "write" if has_payload(piece.kind) else "read"
        place = "register" if piece.kind in _REGISTERS else "system memory"
        return DeviceError(
            f"{self.session.what}: {verb} of {place} at 0x{where:08x}",
            status_text(code),
            "check the address and the bitstream",
            address=where,
        )


def _characters(flight: dict[int, Piece]) -> int:
    """Return about how many characters these requests and their replies are."""
    return sum(2 * FRAME_OVERHEAD + WORD_BYTES * piece.carried_words for piece in flight.values())
