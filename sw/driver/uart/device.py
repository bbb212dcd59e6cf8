"""A board on a serial line as a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from celosia.errors import DeviceError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.line import Port
from celosia.hw.contract.named import NAMED_CONFIGS
from celosia.hw.contract.regs import IDENTITY, address_of
from celosia.hw.contract.uart import DEFAULT_BAUD, Identity
from celosia.sw.driver.device import BUS_TIMEOUT_CYCLES, Device, field_of
from celosia.sw.driver.layout import Layout
from celosia.sw.driver.uart.channel import Patience
from celosia.sw.driver.uart.find import find_board
from celosia.sw.driver.uart.link import Link
from celosia.sw.driver.uart.port import SerialPort
from celosia.sw.driver.uart.transfers import Progress
from celosia.sw.program.segments import NpuSegment

__all__ = ["AUTO", "UartDevice", "config_of"]

AUTO = "auto"
WAIT_MARGIN_S = 1.0
"""What the host waits for an interrupt beyond the cycles that it may take."""


class UartDevice(Device):
    """A board, or a simulated one behind a terminal.

    What is uploaded stays: before a program's code and weights are sent, the board is asked for
    the CRC-32 of the memory where they belong, and what is there already is not sent again, not
    even by another process.

    Parameters
    ----------
    config : NpuConfig, optional
        What the board is expected to be; by default what it says it is.
    port : str or Port
        Path of a serial port, ``auto`` for the only one with a board, or an open port.
    baud : int, optional
        Rate of the line; by default the fastest that works.
    progress : callable, optional
        Called during uploads with the bytes done and the bytes in all.
    patience : Patience, optional
        How long to wait for answers, for lines that are unusually slow or quick.
    watchdog_cycles, bus_timeout_cycles : int, optional
        See `Device`.

    Attributes
    ----------
    link : Link
    board : Identity
        What the board said it is.

    Raises
    ------
    DeviceError
        If the port cannot be used, or no Celosia board of this version answers.
    """

    def __init__(
        self,
        config: NpuConfig | None,
        *,
        port: str | Port,
        baud: int | None = None,
        progress: Progress | None = None,
        patience: Patience | None = None,
        watchdog_cycles: int | None = None,
        bus_timeout_cycles: int = BUS_TIMEOUT_CYCLES,
    ) -> None:
        if isinstance(port, str):
            port = SerialPort(find_board() if port == AUTO else port)
        self.link = Link(port, patience=patience)
        try:
            self.board: Identity = self.link.open()
            self._set_rate(baud)
            super().__init__(
                config or config_of(self.link),
                memory_bytes=self.board.memory_bytes,
                watchdog_cycles=watchdog_cycles,
                bus_timeout_cycles=bus_timeout_cycles,
            )
        except BaseException:
            self.link.close()
            raise
        self.progress = progress

    def _set_rate(self, baud: int | None) -> None:
        if baud is None:
            self.link.negotiate()
        elif not self.link.set_baud(baud):
            raise DeviceError(
                f"port {self.link.name}",
                f"the line does not work at {baud} baud",
                f"choose a lower rate, or none; {DEFAULT_BAUD} always works",
            )

    # Primitives -------------------------------------------------------------------------------

    def read_register(self, name: str) -> int:
        return self.link.read_registers([address_of(name)])[0]

    def write_register(self, name: str, value: int) -> None:
        self._check_register(name, value)
        self.link.write_registers([(address_of(name), value)])

    def read_registers(self, names: Sequence[str]) -> list[int]:
        return self.link.read_registers([address_of(name) for name in names])

    def write_registers(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            self._check_register(name, value)
        self.link.write_registers([(address_of(name), value) for name, value in values.items()])

    def wait(self, timeout_cycles: int) -> bool:
        seconds = timeout_cycles / self.board.clock_hz * self.link.channel.patience.slowdown
        return self.link.wait_interrupt(seconds + WAIT_MARGIN_S)

    def close(self) -> None:
        self._end_session()
        self.link.close()

    def _read_memory(self, address: int, count: int) -> npt.NDArray[np.uint8]:
        return np.frombuffer(self.link.read_memory(address, count), np.uint8)

    def _write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self.link.write_memory(address, data.tobytes())

    # Programs ---------------------------------------------------------------------------------

    def _upload(self, contents: Mapping[int, bytes]) -> None:
        missing = {
            address: content
            for address, content in contents.items()
            if content and not self.link.holds(address, content)
        }
        total = sum(map(len, missing.values()))
        before = 0
        for address, content in missing.items():

            def report(done: int, _: int, before: int = before, size: int = len(content)) -> None:
                if self.progress is not None:
                    self.progress(before + min(done, size), total)

            self.link.write_memory(address, content, progress=report)
            before += len(content)

    def _place(self, segment: NpuSegment, first: int = 0) -> Layout:
        try:
            return super()._place(segment, first)
        except DeviceError as error:
            raise DeviceError(
                error.what,
                f"{error.cause} on board {self.board.board}",
                "use a smaller model, or a board with more memory",
            ) from None


def config_of(link: Link) -> NpuConfig:
    """Return the configuration of a board's NPU, one of those that have a name.

    Raises
    ------
    DeviceError
        If it is no Celosia NPU, or of a configuration of its own.
    """
    names = ("identity", "config_hash", "capability0")
    identity, config_hash, sizes = link.read_registers([address_of(name) for name in names])
    if identity != IDENTITY:
        raise DeviceError(
            f"port {link.name}",
            f"there is no Celosia NPU behind the link (identity 0x{identity:08x})",
            "load another bitstream",
        )
    for config in NAMED_CONFIGS.values():
        if config.hash == config_hash:
            return config
    rows, cols = (field_of("capability0", name, sizes) for name in ("rows", "cols"))
    raise DeviceError(
        f"port {link.name}",
        f"its NPU ({rows}x{cols}, hash 0x{config_hash:08x}) is none of {', '.join(NAMED_CONFIGS)}",
        "give the configuration that the bitstream was built from",
    )
