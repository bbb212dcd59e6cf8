"""A simulated board behind a pseudo-terminal, which any serial program can open."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import select
import struct
import tty
from collections.abc import Callable

from celosia.hw.uart.protocol import DEFAULT_BAUD
from celosia.sim.uart_rtl import UartRtl

__all__ = ["BoardTerminal"]

TCGETS2 = 0x802C542A
"""Gives a terminal's rates as numbers; the C library's call knows only the usual ones."""
TERMIOS2_BYTES = 44
INPUT_RATE_OFFSET, OUTPUT_RATE_OFFSET = 36, 40

READ_BYTES = 4096
BUSY_CYCLES = 20_000
"""Run at a time while there is something to do: a byte at 3 Mbaud and 80 MHz has 267."""
IDLE_AFTER_CYCLES = 4_000_000
"""Without a byte in either direction: more than any inference of a small network takes."""
IDLE_WAIT_S = 0.02
"""Between two runs when idle, so that the board's clocks go on but the processor rests."""


class BoardTerminal:
    """Connects a simulated board's serial line with a new pseudo-terminal.

    The rate that a program sets on the terminal is the rate of the host's end of the line: with a
    wrong one the board sees, and sends, garbage, as on a cable.

    Parameters
    ----------
    line : UartRtl
        The board.
    transmit, receive : callable, optional
        What happens to bytes on their way to the board and from it: takes bytes, returns bytes.

    Attributes
    ----------
    path : str
        Of the terminal, for a serial program.
    """

    def __init__(
        self,
        line: UartRtl,
        *,
        transmit: Callable[[bytes], bytes] | None = None,
        receive: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._line = line
        self._transmit, self._receive = transmit, receive
        self._master, self._slave = pty.openpty()
        # The slave is kept open: else the master would end with the first program that leaves.
        for end in (self._master, self._slave):
            tty.setraw(end)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._baud = DEFAULT_BAUD
        self._to_host = b""
        self._last_byte = line.cycles

    def __enter__(self) -> BoardTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the terminal away: to programs that have it open the board is unplugged."""
        for end in ("_master", "_slave"):
            descriptor = getattr(self, end)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, end, -1)

    def serve(self, stop: Callable[[], bool]) -> None:
        """Run the board until `stop` returns true; it is asked many times a second."""
        while not stop():
            self.step()

    def step(self) -> None:
        """Move bytes both ways and let the board's clock run for a while."""
        idle = self._line.cycles - self._last_byte > IDLE_AFTER_CYCLES
        wanted = [self._master] if idle else []
        if wanted:
            select.select(wanted, [], [], IDLE_WAIT_S)
        self._follow_rate()
        data = self._read()
        if data:
            self._line.write(self._transmit(data) if self._transmit else data)
        self._line.run(BUSY_CYCLES)
        received = self._line.read(0)
        if data or received or self._line.unsent:
            self._last_byte = self._line.cycles
        self._to_host += self._receive(received) if self._receive and received else received
        if self._to_host:
            # A program that does not read loses nothing before the system's buffer is full.
            with contextlib.suppress(BlockingIOError):
                self._to_host = self._to_host[os.write(self._master, self._to_host) :]

    def _read(self) -> bytes:
        try:
            return os.read(self._master, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno == errno.EIO:  # nobody has it open
                return b""
            raise

    def _follow_rate(self) -> None:
        """Take over the rate that the program has set."""
        content = fcntl.ioctl(self._slave, TCGETS2, bytes(TERMIOS2_BYTES))
        (rate,) = struct.unpack_from("<I", content, OUTPUT_RATE_OFFSET)
        if rate and rate != self._baud:
            self._baud = rate
            self._line.set_baud(rate)
