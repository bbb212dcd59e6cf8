"""The link to a board: requests, what goes wrong with them, and what is done about it.

Requests carry a sequence number and are executed in order, each once. Several are on their way at
a time. When a reply does not come, the host asks for the state of the link (PING); the answer says
which request is the next, and so which of those without a reply were executed: what was not is
sent again, what was read and got lost is read again. Reads and writes are never on their way
together, so a repeated read sees what the first one would have seen.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from celosia.hw.uart.protocol import (
    CHECKSUM_MAX_WORDS,
    DEFAULT_BAUD,
    EVENT,
    IDENTITY_WORDS,
    MAGIC,
    PROTOCOL_VERSION,
    REPLY,
    STATE_WORDS,
    Identity,
    Kind,
    LinkState,
    Status,
    has_payload,
    increment_of_baud,
)
from celosia.sw.driver.uart.codec import DELIMITER, FrameSplitter, Reply, request
from celosia.sw.driver.uart.port import Port
from celosia.sw.driver.uart.transfers import (
    GROW_AFTER,
    LEAST_WORDS,
    Piece,
    Progress,
    Transfer,
    TransferQueue,
    write_transfer,
)
from celosia.sw.errors import DeviceError

__all__ = ["Link", "LinkStatistics", "Patience"]

WORD_BYTES = 4
WINDOW = 8
"""Requests on their way at a time."""
FRAME_OVERHEAD = 24
"""More characters than a frame has beside its payload, to reckon time-outs with."""
CHARACTER_BITS = 10
HELLO_BYTES = 110
"""HELLO and its reply."""
LEAST_SIMULATED_SLOWDOWN = 20.0
HALF = 128
"""Of the sequence numbers: what is less than this ahead is later, else earlier."""
FRUITLESS_RECOVERIES = 25
BAUD_RATES = (3_000_000, 2_000_000, 1_000_000, 921_600, 460_800, 230_400)
"""What is tried, fastest first; all of them are rates that systems have a name for."""
CONFIRMING_PINGS = 4


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long the host waits.

    Attributes
    ----------
    latency_s : float
        For an answer, beyond the time that the characters take on the line: USB, scheduling.
    hello_s : float
        For the first sign of a board, in all.
    tries : int
        For an answer to PING before the board is given up.
    slowdown : float
        How much longer than the rate says characters take: simulated boards are slow.
    """

    latency_s: float = 0.15
    hello_s: float = 4.0
    tries: int = 14
    slowdown: float = 1.0


@dataclass
class LinkStatistics:
    """What happened on a link since it was opened.

    Attributes
    ----------
    requests, replies, events : int
        Sequenced requests sent; replies that were taken; interrupts reported.
    recoveries : int
        Times that replies were missing and the board was asked for its state.
    repeated : int
        Requests that were sent again.
    damaged : int
        Frames of the board that were not good.
    sent_bytes, received_bytes : int
        Characters on the line.
    """

    requests: int = 0
    replies: int = 0
    events: int = 0
    recoveries: int = 0
    repeated: int = 0
    damaged: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


class Link:
    """A connection to a board.

    Parameters
    ----------
    port : Port
        Belongs to the link from now on.
    patience : Patience, optional
    seed : int, optional
        Of the nonces; without it they differ from run to run, as they should.

    Attributes
    ----------
    identity : Identity
        What the board said it is; after :meth:`open`.
    statistics : LinkStatistics
    baud : int
        The rate at present.
    """

    def __init__(
        self, port: Port, *, patience: Patience | None = None, seed: int | None = None
    ) -> None:
        self.port = port
        self.baud = DEFAULT_BAUD
        self.statistics = LinkStatistics()
        self._patience = patience or Patience()
        self._nonces = random.Random(seed)
        self._splitter = FrameSplitter()
        self._arrived: list[Reply] = []
        self._identity: Identity | None = None
        self._sequence = 0
        self._errors = 0  # of the board's counter, what we know about
        self._irq = False
        self._size = LEAST_WORDS
        self._good_pieces = 0
        self._heard_s = port.now()
        self._wanted_baud: int | None = None

    # Session ----------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """What the board said it is."""
        assert self._identity is not None, "the link has not been opened"
        return self._identity

    def open(self) -> Identity:
        """Begin a session.

        Raises
        ------
        DeviceError
            If there is no answer, or not one of a Celosia board of this protocol.
        """
        self.port.discard()
        begun = self.port.now()
        nonce = self._nonces.getrandbits(32)
        wait_s = self._time_for(HELLO_BYTES)
        while self.port.now() < begun + self._patience.hello_s:
            # The delimiter ends whatever another program or noise has begun.
            self._send(DELIMITER + request(Kind.HELLO, 0, nonce))
            deadline = self.port.now() + wait_s
            while (reply := self._receive(deadline)) is not None:
                if reply.kind == Kind.HELLO | REPLY and _word(reply.payload, 0) == nonce:
                    self._identity = self._read_identity(reply.payload[WORD_BYTES:])
                    self._begin(self.port.now() - begun)
                    return self._identity
            wait_s *= 1.5
        raise self._no_board()

    def _begin(self, seconds: float) -> None:
        self._sequence = 1
        self._errors = 0
        self._size = self.identity.max_words
        if self.identity.simulated:
            # How slow depends on the machine; the first answer tells.
            line_s = HELLO_BYTES * CHARACTER_BITS / self.baud
            slowdown = max(4 * seconds / line_s, LEAST_SIMULATED_SLOWDOWN)
            self._patience = replace(self._patience, slowdown=slowdown)

    def _read_identity(self, payload: bytes) -> Identity:
        what = f"port {self.port.name}"
        version = _word(payload, 1)
        if _word(payload, 0) != MAGIC or version is None:
            raise DeviceError(what, "what answers is not a Celosia board", "choose another port")
        if version >> 16 != PROTOCOL_VERSION >> 16:
            raise DeviceError(
                what,
                f"the board's bitstream speaks version {version >> 16}.{version & 0xFFFF} of the"
                f" link, this software {PROTOCOL_VERSION >> 16}.{PROTOCOL_VERSION & 0xFFFF}",
                "build and load a bitstream with this version, or install the software of the"
                " bitstream's",
            )
        try:
            return Identity.from_bytes(payload[: IDENTITY_WORDS * WORD_BYTES])
        except (ValueError, UnicodeDecodeError) as error:
            raise DeviceError(
                what, f"the board's identification makes no sense: {error}", "load it anew"
            ) from None

    def _no_board(self) -> DeviceError:
        what = f"port {self.port.name}"
        seen = self._splitter.characters
        if not seen:
            return DeviceError(
                what,
                f"nothing answers at {self.baud} baud",
                "check that the board is powered, its bitstream loaded, and rx and tx not swapped",
            )
        return DeviceError(
            what,
            f"what answers is not a Celosia board, or not at {self.baud} baud"
            f" ({seen} characters, none of them a good frame)",
            "choose another port, or reset the board",
        )

    def close(self) -> None:
        """End the session and give up the port; may be called again."""
        try:
            if self._identity is not None and self.baud != DEFAULT_BAUD:
                # So that the next program need not wait until the board returns by itself.
                self.set_baud(DEFAULT_BAUD)
        except DeviceError:
            pass  # it went away before
        finally:
            self._identity = None
            self.port.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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
        self._revive()
        return self._recover({})

    def wait_interrupt(self, timeout_s: float, *, poll_s: float = 0.25) -> bool:
        """Wait until the interrupt is high and return whether it came in time.

        Normally the board reports it; it is also asked, every `poll_s` seconds, so that a report
        that got lost costs no more than that, and the board's rate stays what it is.
        """
        give_up = self.port.now() + timeout_s
        while not self._irq:
            now = self.port.now()
            if now >= give_up:
                return False
            reply = self._receive(min(now + poll_s, give_up))
            if reply is None and not self._irq:
                self.ping()
        return True

    # Rate of the line -------------------------------------------------------------------------

    def negotiate(self, most: int = BAUD_RATES[0]) -> int:
        """Find the fastest rate that works, up to `most`, and return it."""
        for baud in BAUD_RATES:
            if baud > most:
                continue
            try:
                increment_of_baud(baud, self.identity.clock_hz)
            except ValueError:
                continue
            if self.set_baud(baud):
                return baud
        return self.baud

    def set_baud(self, baud: int) -> bool:
        """Change the rate of the line and return whether the new one works.

        If it does not, the board and the port go back to `DEFAULT_BAUD`.

        Raises
        ------
        DeviceError
            If the rate cannot be made from the board's clock, or the board is lost.
        """
        try:
            increment = increment_of_baud(baud, self.identity.clock_hz)
        except ValueError as error:
            raise DeviceError(f"port {self.port.name}", str(error), "choose another rate") from None
        if baud == self.baud:
            return True
        self._revive()
        self._recover({})  # nothing else on its way
        for _ in range(self._patience.tries):
            self._send(DELIMITER + request(Kind.BAUD, 0, increment))
            deadline = self.port.now() + self._time_for(FRAME_OVERHEAD)
            reply = self._receive(deadline)
            while reply is not None and (
                reply.kind != Kind.BAUD | REPLY or _word(reply.payload, 0) not in (None, increment)
            ):
                reply = self._receive(deadline)
            if reply is not None and not reply.ok:
                raise DeviceError(
                    f"port {self.port.name}",
                    f"the board refuses {baud} baud",
                    "choose another rate",
                )
            old = self.baud
            try:
                self._switch(baud)
            except DeviceError:
                self._switch(old)
                self._return_to_default()
                return False
            if self._confirm():
                self._wanted_baud = baud
                return True
            if reply is not None:
                break
            self._switch(old)  # perhaps the request was lost, not the reply
            if not self._confirm():
                break
        self._return_to_default()
        return baud == self.baud

    def _switch(self, baud: int) -> None:
        self.port.set_baud(baud)
        self.baud = baud
        self.port.discard()
        self._splitter.clear()
        self._arrived.clear()

    def _confirm(self) -> bool:
        """Return whether the board is heard at the present rate, several times."""
        for _ in range(CONFIRMING_PINGS):
            if all(self._ping_once() is None for _ in range(3)):
                return False
        return True

    def _return_to_default(self) -> None:
        """Wait until the board, hearing nothing, returns to the rate that it begins with."""
        self._switch(DEFAULT_BAUD)
        give_up = self.port.now() + 1.5 * self.identity.silence_ms / 1000
        while self.port.now() < give_up:
            if self._ping_once() is not None:
                return
        self._recover({})

    def _revive(self) -> None:
        """See to it that the board still has our rate, if it may have lost it."""
        if self.baud == DEFAULT_BAUD:
            return
        silent_s = self.port.now() - self._heard_s
        if silent_s < self.identity.silence_ms / 2000:
            return
        wanted = self.baud
        if any(self._ping_once() is not None for _ in range(3)):
            return
        self._return_to_default()
        self.set_baud(wanted)

    # Requests ---------------------------------------------------------------------------------

    def _run(self, transfers: Sequence[Transfer], progress: Progress | None = None) -> None:
        """Do transfers, all reads or all writes, in order."""
        self._revive()
        queue = TransferQueue(transfers, self._size)
        flight: dict[int, Piece] = {}
        total = sum(transfer.words for transfer in transfers) * WORD_BYTES
        done = 0
        fruitless = 0
        if progress is not None:
            progress(0, total)
        while queue or flight:
            while queue and len(flight) < WINDOW:
                self._request(queue.take(), flight)
            finished, lost = self._collect(flight)
            if finished:
                fruitless = 0
                done += finished.words * WORD_BYTES
                queue.size = self._grown()
                if progress is not None:
                    progress(done, total)
            if lost:
                fruitless += 1
                if fruitless > FRUITLESS_RECOVERIES:
                    raise DeviceError(
                        f"port {self.port.name}",
                        f"no request has come through in {fruitless} attempts, at {self.baud} baud",
                        "use a shorter cable or a lower rate",
                    )
                before = sum(piece.words for piece in flight.values())
                state = self._recover(flight)
                again = self._unfinished(flight, state)
                flight.clear()
                left = sum(piece.words for piece in again)
                done += (before - left) * WORD_BYTES
                if left < before:
                    fruitless = 0
                queue.put_back(again)
                queue.size = self._shrunk()
                self.statistics.repeated += len(again)
                if progress is not None:
                    progress(done, total)

    def _request(self, piece: Piece, flight: dict[int, Piece]) -> None:
        self._send(piece.request(self._sequence))
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
        characters = sum(
            FRAME_OVERHEAD + piece.reply_bytes + WORD_BYTES * piece.words * has_payload(piece.kind)
            for piece in flight.values()
        )
        checked = sum(p.words for p in flight.values() if p.kind == Kind.CHECKSUM)
        work_s = 64 * checked / self.identity.clock_hz
        reply = self._receive(self.port.now() + self._time_for(characters) + work_s)
        if reply is None:
            return None, True
        return self._finish(reply, flight)

    def _finish(self, reply: Reply, flight: dict[int, Piece]) -> tuple[Piece | None, bool]:
        piece = flight.get(reply.sequence)
        if piece is None or reply.kind != piece.kind | REPLY:
            return None, False  # an answer to something that has been settled
        if reply.code == Status.OUT_OF_SEQUENCE:
            return None, True
        if reply.code == Status.NO_SESSION:
            raise self._was_reset()
        if not reply.ok:
            address = _word(reply.payload, len(reply.payload) // WORD_BYTES - 1)
            self._settle()
            raise self._access_error(piece, reply.code, address)
        if len(reply.payload) != piece.reply_bytes:
            raise DeviceError(
                f"port {self.port.name}",
                f"the board answered {len(reply.payload)} bytes instead of {piece.reply_bytes}",
                "load a bitstream that was built with this version",
            )
        lost = next(iter(flight)) != reply.sequence
        piece.finish(reply.payload)
        del flight[reply.sequence]
        self.statistics.replies += 1
        return piece, lost

    def _settle(self) -> None:
        """Come to terms with the board after an error, so that the next request works."""
        state = self._recover({}, tolerate_errors=True)
        self._sequence = state.expected
        self._errors = state.errors

    def _unfinished(self, flight: dict[int, Piece], state: LinkState) -> list[Piece]:
        """Return what has to be asked again, given what the board expects next."""
        first = next(iter(flight), self._sequence)
        if (state.expected - first) % 256 > (self._sequence - first) % 256:
            raise DeviceError(
                f"port {self.port.name}",
                "another program has used the board since the device was opened",
                "end that program and open the device again",
            )
        self._sequence = state.expected
        return [
            piece
            for sequence, piece in flight.items()
            if (state.expected - sequence - 1) % 256 >= HALF or not has_payload(piece.kind)
        ]

    def _recover(self, flight: dict[int, Piece], *, tolerate_errors: bool = False) -> LinkState:
        """Ask for the state of the link until it comes.

        The line keeps the order of what is sent: when the answer is there, every request sent
        before has been executed or is lost, and so is every reply. Replies that still come
        meanwhile are taken.
        """
        if flight:
            self.statistics.recoveries += 1
        nonce = self._nonces.getrandbits(32)
        for attempt in range(self._patience.tries):
            if attempt == self._patience.tries // 2 and self.baud != DEFAULT_BAUD:
                self._switch(DEFAULT_BAUD)  # to where the board returns when it hears nothing
            state = self._ping_once(nonce, flight, patience=1 + attempt // 2)
            if state is None:
                continue
            if (state.errors - self._errors) % 256 and not tolerate_errors:
                self._errors, self._sequence = state.errors, state.expected
                raise DeviceError(
                    f"port {self.port.name}",
                    f"request {state.last_sequence} failed: {_status_text(state.last_status)}",
                    "check the address and the bitstream",
                )
            return state
        raise DeviceError(
            f"port {self.port.name}",
            f"the board has stopped answering (at {self.baud} baud, {self._patience.tries} tries)",
            "check the cable and the power, reset the board, and open the device again",
        )

    def _ping_once(
        self, nonce: int | None = None, flight: dict[int, Piece] | None = None, patience: int = 1
    ) -> LinkState | None:
        """Ask for the state once; None if there is no answer in time."""
        if nonce is None:
            nonce = self._nonces.getrandbits(32)
        flight = {} if flight is None else flight
        self._send(DELIMITER + request(Kind.PING, 0, nonce))
        # Before the answer may come what the lost requests are still answered with.
        characters = 2 * FRAME_OVERHEAD + sum(
            FRAME_OVERHEAD + piece.words * WORD_BYTES for piece in flight.values()
        )
        deadline = self.port.now() + patience * self._time_for(characters)
        while (reply := self._receive(deadline)) is not None:
            if reply.kind == Kind.PING | REPLY and _word(reply.payload, 0) == nonce:
                if not reply.session and self._identity is not None:
                    raise self._was_reset()
                if len(reply.payload) != (1 + STATE_WORDS) * WORD_BYTES:
                    continue
                return LinkState.from_bytes(reply.payload[WORD_BYTES:])
            if reply.ok and reply.sequence in flight:
                self._finish(reply, flight)
        return None

    def _grown(self) -> int:
        """Return the size of the next pieces after one that went well."""
        self._good_pieces += 1
        if self._good_pieces >= GROW_AFTER:
            self._good_pieces = 0
            self._size = min(2 * self._size, self.identity.max_words)
        return self._size

    def _shrunk(self) -> int:
        """Return the size of the next pieces after one that was lost."""
        self._good_pieces = 0
        self._size = max(self._size // 2, min(LEAST_WORDS, self.identity.max_words))
        return self._size

    # Characters -------------------------------------------------------------------------------

    def _time_for(self, characters: int) -> float:
        """Return how long to wait for something so long, in seconds."""
        line_s = 1.25 * characters * CHARACTER_BITS / self.baud
        return self._patience.latency_s + line_s * self._patience.slowdown

    def _send(self, data: bytes) -> None:
        self.port.write(data)
        self.statistics.sent_bytes += len(data)

    def _receive(self, deadline: float) -> Reply | None:
        """Return the next good reply, or event, or None at the deadline."""
        while not self._arrived:
            left = deadline - self.port.now()
            data = self.port.read(max(left, 0.0))
            self.statistics.received_bytes += len(data)
            self._arrived += self._splitter.feed(data)
            self.statistics.damaged = self._splitter.damaged
            if left <= 0 and not self._arrived:
                return None
        reply = self._arrived.pop(0)
        self._heard_s = self.port.now()
        self._irq = reply.irq
        if reply.kind == EVENT:
            self.statistics.events += 1
        return reply

    # Errors -----------------------------------------------------------------------------------

    def _was_reset(self) -> DeviceError:
        return DeviceError(
            f"port {self.port.name}",
            "the board was reset since the device was opened; what was loaded is lost",
            "open the device again",
        )

    def _access_error(self, piece: Piece, code: int, address: int | None) -> DeviceError:
        where = piece.address if address is None else address
        verb = "write" if has_payload(piece.kind) else "read"
        place = "register" if piece.kind in _REGISTERS else "system memory"
        return DeviceError(
            f"port {self.port.name}: {verb} of {place} at 0x{where:08x}",
            _status_text(code),
            "check the address and the bitstream",
            address=where,
        )


_REGISTERS = (Kind.READ_REGISTERS, Kind.WRITE_REGISTERS)
_STATUS_TEXTS = {
    Status.BUS_ERROR: "the bus answered with an error",
    Status.BUS_TIMEOUT: "the bus did not answer",
    Status.ILLEGAL: "the board does not know this request",
}


def _status_text(code: int) -> str:
    try:
        return _STATUS_TEXTS.get(Status(code), Status(code).name)
    except ValueError:
        return f"status {code}"


def _word(payload: bytes, index: int) -> int | None:
    """Return a word of a payload, or None if it is not that long."""
    content = payload[index * WORD_BYTES : (index + 1) * WORD_BYTES] if index >= 0 else b""
    return int.from_bytes(content, "little") if len(content) == WORD_BYTES else None
