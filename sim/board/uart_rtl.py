"""A simulated design with a serial line, as a port that the driver can use.

Time is the design's own: :meth:`UartRtl.now` counts clock cycles, and waiting runs the clock. So
time-outs and rates mean what they mean on a board, however slow the simulation is, and every run
is reproducible.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from celosia.errors import DeviceError
from celosia.hw.contract.uart import DEFAULT_BAUD
from celosia.sim.rtl.library import Function, load_library
from celosia.sim.rtl.verilator import Build

__all__ = ["HARNESS", "UartRtl"]

HARNESS = Path(__file__).with_name("uart_harness.cpp")
ROOM = 4096


_HANDLE, _U64 = ctypes.c_void_p, ctypes.c_uint64
_FUNCTIONS: tuple[Function, ...] = (
    ("uart_create", _HANDLE),
    ("uart_destroy", None, _HANDLE),
    ("uart_message", ctypes.c_char_p, _HANDLE),
    ("uart_reset", ctypes.c_int32, _HANDLE),
    ("uart_set_bit", None, _HANDLE, ctypes.c_double),
    ("uart_set_memory", None, _HANDLE, ctypes.c_double),
    ("uart_send", None, _HANDLE, ctypes.c_char_p, _U64),
    ("uart_run", ctypes.c_int32, _HANDLE, _U64, _U64),
    ("uart_receive", _U64, _HANDLE, ctypes.c_void_p, _U64),
    ("uart_received", _U64, _HANDLE),
    ("uart_unsent", _U64, _HANDLE),
    ("uart_cycles", _U64, _HANDLE),
    ("uart_framing_errors", _U64, _HANDLE),
)


class UartRtl:
    """A running simulation of a design with pins ``rx`` and ``tx``.

    Has the interface of :class:`celosia.hw.contract.line.Port`.

    Parameters
    ----------
    build : Build
        From :func:`celosia.sim.rtl.verilator.build_component` with :data:`HARNESS`.
    clock_hz : int
        Of the design.
    memory_hz : int
        Of its memory, if that has a clock of its own.
    """

    name = "simulated line"

    def __init__(self, build: Build, *, clock_hz: int, memory_hz: int = 0) -> None:
        self._handle: int | None = None
        self._library = load_library(build.library, _FUNCTIONS)
        self._clock_hz = clock_hz
        self._handle = self._library.uart_create()
        if self._handle is None:
            raise DeviceError("RTL simulator", "the model cannot be set up")
        if memory_hz:
            self._library.uart_set_memory(self._handle, clock_hz / memory_hz)
        self.set_baud(DEFAULT_BAUD)

    # The driver's interface -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._library.uart_send(self._open(), data, len(data))

    def read(self, timeout_s: float) -> bytes:
        if not self._library.uart_received(self._open()):
            self.run(max(1, round(timeout_s * self._clock_hz)), wanted=1)
        return self.take()

    def set_baud(self, baud: int) -> None:
        # As on a system's port: what was written goes out at the rate that it was written for.
        while self._handle is not None and self._library.uart_unsent(self._handle):
            self.run(1000)
        self.run(2 * 10 * self._clock_hz // baud)  # the character on the line
        self._library.uart_set_bit(self._open(), self._clock_hz / baud)

    def discard(self) -> None:
        while self._library.uart_received(self._open()):
            self.take()

    def now(self) -> float:
        return self.cycles / self._clock_hz

    def close(self) -> None:
        if self._handle is not None:
            self._library.uart_destroy(self._handle)
            self._handle = None

    # Simulation -------------------------------------------------------------------------------

    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        return int(self._library.uart_cycles(self._open()))

    @property
    def framing_errors(self) -> int:
        """Characters of the design without a stop bit at the host's rate."""
        return int(self._library.uart_framing_errors(self._open()))

    @property
    def unsent(self) -> int:
        """Characters that the host has written and that are not on the line yet."""
        return int(self._library.uart_unsent(self._open()))

    def take(self) -> bytes:
        """Return what has come, without running the clock; 4096 characters at most."""
        buffer = ctypes.create_string_buffer(ROOM)
        count = self._library.uart_receive(self._open(), buffer, ROOM)
        return buffer.raw[:count]

    def run(self, cycles: int, *, wanted: int = 1 << 62) -> None:
        """Run the clock, until `wanted` characters are there at most."""
        if self._library.uart_run(self._open(), cycles, wanted):
            message = self._library.uart_message(self._open()).decode(errors="replace")
            raise DeviceError("RTL simulator", message)

    def reset(self) -> None:
        """Pulse the design's reset."""
        if self._library.uart_reset(self._open()):
            message = self._library.uart_message(self._open()).decode(errors="replace")
            raise DeviceError("RTL simulator", message)

    def __del__(self) -> None:
        self.close()

    def _open(self) -> int:
        if self._handle is None:
            raise DeviceError("RTL simulator", "it has been closed", "open the device again")
        return self._handle
