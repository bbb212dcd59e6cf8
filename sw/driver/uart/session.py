"""A session with a board: how it begins, how it is kept alive, and how its rate changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from celosia.errors import DeviceError
from celosia.hw.contract.frames import DELIMITER
from celosia.hw.contract.uart import (
    DEFAULT_BAUD,
    IDENTITY_WORDS,
    MAGIC,
    PROTOCOL_VERSION,
    REPLY,
    STATE_WORDS,
    Identity,
    Kind,
    LinkState,
    Status,
    increment_of_baud,
)
from celosia.sw.driver.uart.channel import CHARACTER_BITS, Channel
from celosia.sw.driver.uart.codec import Reply, request

__all__ = ["BAUD_RATES", "FRAME_OVERHEAD", "Session", "status_text", "word_of"]

WORD_BYTES = 4
FRAME_OVERHEAD = 24
"""More characters than a frame has beside its payload, to reckon time-outs with."""
HELLO_BYTES = 110
"""HELLO and its reply."""
HELLO_BACKOFF = 1.5
LEAST_SIMULATED_SLOWDOWN = 20.0
BAUD_RATES = (3_000_000, 2_000_000, 1_000_000, 921_600, 460_800, 230_400)
"""What is tried, fastest first; all of them are rates that systems have a name for."""
CONFIRMING_PINGS = 4
PING_TRIES = 3

OnReply = Callable[[Reply], None]


class Session:
    """The messages that are not sequenced: HELLO, PING and BAUD.

    Parameters
    ----------
    channel : Channel
    seed : int, optional
        Of the nonces; without it they differ from run to run, as they should.

    Attributes
    ----------
    errors : int
        Of the board's counter of errors, what we know about.
    """

    def __init__(self, channel: Channel, *, seed: int | None = None) -> None:
        self.channel = channel
        self.errors = 0
        self._identity: Identity | None = None
        self._lost = False  # the board did not answer any more
        self._nonces = random.Random(seed)

    @property
    def identity(self) -> Identity:
        """What the board said it is; after :meth:`open`."""
        assert self._identity is not None, "the link has not been opened"
        return self._identity

    @property
    def what(self) -> str:
        """The port, as errors name it."""
        return f"port {self.channel.port.name}"

    # Beginning --------------------------------------------------------------------------------

    def open(self) -> Identity:
        """Begin a session; the next sequence number is 1.

        Raises
        ------
        DeviceError
            If there is no answer, or not one of a Celosia board of this protocol.
        """
        channel, port = self.channel, self.channel.port
        port.discard()
        begun = port.now()
        nonce = self._nonces.getrandbits(32)
        wait_s = channel.time_for(HELLO_BYTES)
        while port.now() < begun + channel.patience.hello_s:
            # The delimiter ends whatever another program or noise has begun.
            channel.send(DELIMITER + request(Kind.HELLO, 0, nonce))
            deadline_s = port.now() + wait_s
            while (reply := channel.receive(deadline_s)) is not None:
                if reply.kind == Kind.HELLO | REPLY and word_of(reply.payload, 0) == nonce:
                    self._identity = self._read_identity(reply.payload[WORD_BYTES:])
                    self._measure(port.now() - begun)
                    return self._identity
            wait_s *= HELLO_BACKOFF
        raise self._no_board()

    def _measure(self, seconds: float) -> None:
        if self.identity.simulated:
            # How slow depends on the machine; the first answer tells.
            line_s = HELLO_BYTES * CHARACTER_BITS / self.channel.baud
            slowdown = max(4 * seconds / line_s, LEAST_SIMULATED_SLOWDOWN)
            self.channel.patience = replace(self.channel.patience, slowdown=slowdown)

    def _read_identity(self, payload: bytes) -> Identity:
        version = word_of(payload, 1)
        if word_of(payload, 0) != MAGIC or version is None:
            raise DeviceError(
                self.what, "what answers is not a Celosia board", "choose another port"
            )
        if version >> 16 != PROTOCOL_VERSION >> 16:
            raise DeviceError(
                self.what,
                f"the board's bitstream speaks version {version >> 16}.{version & 0xFFFF} of the"
                f" link, this software {PROTOCOL_VERSION >> 16}.{PROTOCOL_VERSION & 0xFFFF}",
                "build and load a bitstream with this version, or install the software of the"
                " bitstream's",
            )
        try:
            return Identity.from_bytes(payload[: IDENTITY_WORDS * WORD_BYTES])
        except ValueError as error:
            raise DeviceError(
                self.what, f"the board's identification makes no sense: {error}", "load it anew"
            ) from None

    def _no_board(self) -> DeviceError:
        seen, baud = self.channel.statistics.received_bytes, self.channel.baud
        if not seen:
            return DeviceError(
                self.what,
                f"nothing answers at {baud} baud",
                "check that the board is powered, its bitstream loaded, and rx and tx not swapped",
            )
        return DeviceError(
            self.what,
            f"what answers is not a Celosia board, or not at {baud} baud ({seen} characters came,"
            " no identification among them)",
            "choose another port, or reset the board",
        )

    def leave(self) -> None:
        """End the session: the next program finds the board at the rate it begins with.

        Raises
        ------
        DeviceError
            If the board does not answer any more.
        """
        if self._identity is not None and not self._lost:
            self.set_baud(DEFAULT_BAUD)
        self._identity = None

    # State ------------------------------------------------------------------------------------

    def recover(
        self,
        on_reply: OnReply | None = None,
        *,
        characters: int = 0,
        tolerate_errors: bool = False,
    ) -> LinkState:
        """Ask for the state of the link until it comes.

        The line keeps the order of what is sent: when the answer is there, every request sent
        before has been executed or is lost, and so is every reply.

        Parameters
        ----------
        on_reply : callable, optional
            Takes replies to requests that still come meanwhile.
        characters : int
            Of these, about.
        tolerate_errors : bool
            An error that we have not been told of is not one for the caller.

        Raises
        ------
        DeviceError
            If a request has failed whose reply was lost, the board was reset, or does not answer.
        """
        channel = self.channel
        nonce = self._nonces.getrandbits(32)
        tries = channel.patience.tries
        for attempt in range(tries):
            if attempt == tries // 2 and channel.baud != DEFAULT_BAUD:
                channel.switch(DEFAULT_BAUD)  # to where the board returns when it hears nothing
            state = self._ping(nonce, on_reply, characters, patience=1 + attempt // 2)
            if state is None:
                continue
            unknown = (state.errors - self.errors) % 256
            self.errors = state.errors
            if unknown and not tolerate_errors:
                raise DeviceError(
                    self.what,
                    f"request {state.last_sequence} failed: {status_text(state.last_status)}",
                    "check the address and the bitstream",
                )
            self._lost = False
            return state
        self._lost = True
        raise DeviceError(
            self.what,
            f"the board has stopped answering (at {channel.baud} baud, {tries} tries)",
            "check the cable and the power, reset the board, and open the device again",
        )

    def _ping(
        self,
        nonce: int,
        on_reply: OnReply | None = None,
        characters: int = 0,
        patience: int = 1,
    ) -> LinkState | None:
        """Ask for the state once; None if there is no answer in time."""
        channel = self.channel
        channel.send(DELIMITER + request(Kind.PING, 0, nonce))
        wait_s = channel.time_for(2 * FRAME_OVERHEAD + characters)
        deadline_s = channel.port.now() + patience * wait_s
        while (reply := channel.receive(deadline_s)) is not None:
            if reply.kind == Kind.PING | REPLY and word_of(reply.payload, 0) == nonce:
                if not reply.session:
                    raise self.was_reset()
                if len(reply.payload) == (1 + STATE_WORDS) * WORD_BYTES:
                    return LinkState.from_bytes(reply.payload[WORD_BYTES:])
            elif on_reply is not None:
                on_reply(reply)
        return None

    def was_reset(self) -> DeviceError:
        """Return the error for a board that has forgotten the session."""
        return DeviceError(
            self.what,
            "the board was reset since the device was opened; what was loaded is lost",
            "open the device again",
        )

    def _answers(self) -> bool:
        return any(self._ping(self._nonces.getrandbits(32)) is not None for _ in range(PING_TRIES))

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
        return self.channel.baud

    def set_baud(self, baud: int) -> bool:
        """Change the rate of the line and return whether the new one works.

        If it does not, the board and the port go back to `DEFAULT_BAUD`.

        Raises
        ------
        DeviceError
            If the rate cannot be made from the board's clock, or the board is lost.
        """
        channel = self.channel
        try:
            increment = increment_of_baud(baud, self.identity.clock_hz)
        except ValueError as error:
            raise DeviceError(self.what, str(error), "choose another rate") from None
        if baud == channel.baud:
            return True
        self.revive()
        self.recover()  # nothing else is on its way
        for _ in range(channel.patience.tries):
            answered = self._ask_for_rate(baud, increment)
            old = channel.baud
            try:
                channel.switch(baud)
            except DeviceError:
                channel.switch(old)
                break
            if all(self._answers() for _ in range(CONFIRMING_PINGS)):
                return True
            if answered:
                break
            channel.switch(old)  # perhaps the request was lost, not the reply
            if not self._answers():
                break
        self._return_to_default()
        return baud == channel.baud

    def _ask_for_rate(self, baud: int, increment: int) -> bool:
        """Return whether the board said that it will change its rate."""
        channel = self.channel
        channel.send(DELIMITER + request(Kind.BAUD, 0, increment))
        deadline_s = channel.port.now() + channel.time_for(2 * FRAME_OVERHEAD)
        while (reply := channel.receive(deadline_s)) is not None:
            if reply.kind != Kind.BAUD | REPLY:
                continue
            if not reply.ok:
                raise DeviceError(
                    self.what, f"the board refuses {baud} baud", "choose another rate"
                )
            if word_of(reply.payload, 0) == increment:
                return True
        return False

    def _return_to_default(self) -> None:
        """Wait until the board, hearing nothing, returns to the rate that it begins with."""
        channel = self.channel
        channel.switch(DEFAULT_BAUD)
        silence_s = self.identity.silence_ms / 1000 * channel.patience.slowdown
        give_up = channel.port.now() + 1.5 * silence_s
        while channel.port.now() < give_up:
            if self._answers():
                return
        self.recover()

    def revive(self) -> None:
        """See to it that the board still has our rate, if it may have lost it."""
        channel = self.channel
        if channel.baud == DEFAULT_BAUD:
            return
        if channel.port.now() - channel.heard_s < self.identity.silence_ms / 2000:
            return
        wanted = channel.baud
        if self._answers():
            return
        self._return_to_default()
        self.set_baud(wanted)


_STATUS_TEXTS = {
    Status.BUS_ERROR: "the bus answered with an error",
    Status.BUS_TIMEOUT: "the bus did not answer",
    Status.ILLEGAL: "the board does not know this request",
}


def status_text(code: int) -> str:
    """Return a status in words."""
    try:
        return _STATUS_TEXTS.get(Status(code), Status(code).name)
    except ValueError:
        return f"status {code}"


def word_of(payload: bytes, index: int) -> int | None:
    """Return a word of a payload, or None if it is not that long."""
    content = payload[index * WORD_BYTES : (index + 1) * WORD_BYTES] if index >= 0 else b""
    return int.from_bytes(content, "little") if len(content) == WORD_BYTES else None
