"""Serial ports of the system, by pyserial."""

from __future__ import annotations

import contextlib
import errno
import time

import serial
from celosia.errors import DeviceError
from celosia.hw.contract.uart import DEFAULT_BAUD

__all__ = ["SerialPort"]

WRITE_TIME_OUT_S = 20.0
"""Longer than the system's buffers take at the slowest rate."""


class SerialPort:
    """A serial port of the system, or anything with a terminal's interface.

    Parameters
    ----------
    path : str
        Such as ``/dev/ttyUSB0`` or ``COM3``.

    Raises
    ------
    DeviceError
        If there is no such port, it may not be used, or another program uses it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._serial = serial.Serial(
                path,
                DEFAULT_BAUD,
                exclusive=True,
                timeout=0,
                write_timeout=WRITE_TIME_OUT_S,
            )
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise _open_error(path, error) from None
        if hasattr(self._serial, "set_low_latency_mode"):
            # A matter of speed only; not every adapter has it.
            with contextlib.suppress(OSError, ValueError):
                self._serial.set_low_latency_mode(True)

    @property
    def name(self) -> str:
        """Path of the port."""
        return self._path

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except serial.SerialTimeoutException:
            raise DeviceError(
                f"port {self._path}",
                f"it has not taken data for {WRITE_TIME_OUT_S:g} s",
                "check the cable and reset the board",
            ) from None
        except (OSError, TypeError) as error:
            raise self._gone(error) from None

    def read(self, timeout_s: float) -> bytes:
        try:
            self._serial.timeout = max(timeout_s, 0.0)
            data: bytes = self._serial.read(1)
            if data:
                data += self._serial.read(self._serial.in_waiting)
        except (OSError, TypeError) as error:
            raise self._gone(error) from None
        return data

    def set_baud(self, baud: int) -> None:
        try:
            self._serial.flush()
            self._serial.baudrate = baud
        except ValueError:
            raise DeviceError(
                f"port {self._path}", f"it cannot do {baud} baud", "choose another rate"
            ) from None
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTSUP):
                raise DeviceError(
                    f"port {self._path}", f"it cannot do {baud} baud", "choose another rate"
                ) from None
            raise self._gone(error) from None

    def discard(self) -> None:
        try:
            self._serial.reset_input_buffer()
        except OSError as error:
            raise self._gone(error) from None

    def now(self) -> float:
        return time.monotonic()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it went away before: that is what was wanted
            self._serial.close()

    def _gone(self, error: Exception) -> DeviceError:
        # pyserial has a TypeError of its own for a descriptor that vanished meanwhile.
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return DeviceError(
            f"port {self._path}",
            f"the connection was lost ({detail})",
            "plug the board in again and open the device anew",
        )


def _open_error(path: str, error: OSError | ValueError) -> DeviceError:
    number = getattr(error, "errno", None)
    what = f"port {path}"
    if number == errno.ENOENT:
        return DeviceError(
            what, "there is no such port", "plug the board in; 'celosia devices' lists the ports"
        )
    if number in (errno.EACCES, errno.EPERM):
        return DeviceError(
            what,
            "you may not use it",
            "become a member of the port's group (often dialout or uucp) and log in again",
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in str(error):
        return DeviceError(
            what, "another program uses it", "close that program (a terminal, another run)"
        )
    if number in (errno.ENOTTY, errno.EINVAL) or "configure port" in str(error):
        return DeviceError(what, "it is not a serial port", "'celosia devices' lists the ports")
    return DeviceError(what, f"cannot be opened: {error}", "check the name and the cable")
