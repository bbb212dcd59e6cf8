"""Which serial ports have a Celosia board."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from celosia.errors import DeviceError
from celosia.hw.contract.named import NAMED_CONFIGS
from celosia.hw.contract.regs import address_of
from celosia.hw.contract.uart import Identity
from celosia.sw.driver.uart.channel import Patience
from celosia.sw.driver.uart.link import Link
from celosia.sw.driver.uart.port import SerialPort
from serial.tools import list_ports

__all__ = ["FoundPort", "find_board", "probe", "probe_all", "system_ports"]

PROBES_AT_A_TIME = 16
PROBE_PATIENCE = Patience(hello_s=2.6)
"""Longer than a board that was left at another rate takes to return."""


@dataclass(frozen=True)
class FoundPort:
    """A serial port and what answers there.

    Attributes
    ----------
    path : str
    description : str
        What the system knows about it, such as the name of a USB adapter.
    board : Identity or None
        What the board says it is.
    config : str
        Name of the NPU's preset, or its hash; empty without a board.
    problem : str
        Why there is no board, in words; empty with one.
    """

    path: str
    description: str
    board: Identity | None = None
    config: str = ""
    problem: str = ""


def system_ports() -> list[tuple[str, str]]:
    """Return path and description of the system's serial ports."""
    ports = [(port.device, str(port.description or "")) for port in list_ports.comports()]
    return sorted((path, "" if text == "n/a" else text) for path, text in ports)


def probe(path: str, description: str = "", patience: Patience = PROBE_PATIENCE) -> FoundPort:
    """Ask what is at a port; at most some seconds."""
    try:
        with Link(SerialPort(path), patience=patience) as link:
            board = link.open()
            (config_hash,) = link.read_registers([address_of("config_hash")])
    except DeviceError as error:
        return FoundPort(path, description, problem=error.cause)
    names = [name for name, config in NAMED_CONFIGS.items() if config.hash == config_hash]
    return FoundPort(path, description, board, names[0] if names else f"0x{config_hash:08x}")


def probe_all(ports: Sequence[tuple[str, str]] | None = None) -> list[FoundPort]:
    """Ask at all ports, at the same time; by default those of the system."""
    ports = system_ports() if ports is None else ports
    with ThreadPoolExecutor(PROBES_AT_A_TIME) as pool:
        return list(pool.map(lambda port: probe(*port), ports))


def find_board() -> str:
    """Return the path of the only port with a board.

    Raises
    ------
    DeviceError
        If there is none, or more than one.
    """
    found = probe_all()
    boards = [port for port in found if port.board is not None]
    if len(boards) == 1:
        return boards[0].path
    if boards:
        names = ", ".join(f"{port.path} ({port.board.board})" for port in boards if port.board)
        raise DeviceError(
            "device 'uart:auto'",
            f"there are several boards: {names}",
            f"choose one, for example --device uart:{boards[0].path}",
        )
    if not found:
        raise DeviceError(
            "device 'uart:auto'",
            "this machine has no serial port",
            "plug the board in, or name a port (a simulated board's): uart:PATH",
        )
    problems = "; ".join(f"{port.path}: {port.problem}" for port in found)
    raise DeviceError(
        "device 'uart:auto'",
        f"no Celosia board at any serial port ({problems})",
        "check the cable and the bitstream, or name the port: uart:PATH",
    )
