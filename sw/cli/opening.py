"""Opening the device that a command names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.uart import Identity
from celosia.sw.cli.common import error_console
from celosia.sw.cli.options import LATENCY_CYCLES
from celosia.sw.driver.device import Device
from celosia.sw.driver.opening import SIMULATED, UART
from celosia.sw.program.file import Program
from rich.progress import BarColumn, DownloadColumn, Progress

__all__ = ["board_line", "find_device", "memory_options", "open_device_for"]


def memory_options(
    device: str, latency_cycles: int | None, stalls: float | None, seed: int
) -> dict[str, Any]:
    """Return the options for a simulated memory that behaves in a certain way.

    Parameters
    ----------
    device : str
        The device's kind.
    latency_cycles : int, optional
        From a request to its answer.
    stalls : float, optional
        Chance, each cycle, that requests are refused, and that a due answer is held back.
    seed : int
        Of these.

    Raises
    ------
    CelosiaError
        If something is asked of a device that has no clock.
    """
    if latency_cycles is None and stalls is None:
        return {}
    if device not in SIMULATED:
        raise CelosiaError(
            f"device {device!r}",
            "--latency and --stalls are about time, which only 'sim' and 'netlist' have",
            "leave them out, or use --device sim",
        )
    from celosia.sim.rtl.rtl import MemoryModel

    chance = stalls or 0.0
    return {
        "memory_model": MemoryModel(
            latency_cycles=latency_cycles or LATENCY_CYCLES,
            stall_probability=chance,
            delay_probability=chance,
            seed=seed + 1,
        )
    }


def find_device(device: str, config: NpuConfig | None) -> tuple[str, NpuConfig]:
    """Return the device's full name, and the configuration that programs for it need.

    Parameters
    ----------
    device : str
        As the user named it; ``uart:auto`` is looked for.
    config : NpuConfig, optional
        As the user named it; by default that of a board, else ``base``.

    Raises
    ------
    DeviceError
        If there is no board to ask.
    """
    if not device.startswith(UART):
        return device, config or preset("base")
    from celosia.sw.driver.uart.device import AUTO, config_of
    from celosia.sw.driver.uart.find import find_board
    from celosia.sw.driver.uart.link import Link
    from celosia.sw.driver.uart.port import SerialPort

    path = device.removeprefix(UART)
    if path == AUTO:
        path = find_board()
    if config is None:
        with Link(SerialPort(path)) as link:
            link.open()
            config = config_of(link)
    return f"{UART}{path}", config


def open_device_for(program: Program, device: str, **options: Any) -> Device:
    """Open a device with the program's configuration; builds and uploads show their progress.

    Raises
    ------
    DeviceError
        If there is no such device, or operators run on the host and what runs them is missing.
    """
    from celosia.sw.driver.opening import memory_for, open_device
    from celosia.sw.runtime.host import require_host

    require_host(program)  # before a simulator is built

    if device.startswith(UART):
        return _open_board(program, device, **options)
    if device in SIMULATED:
        console = error_console()
        options["console"] = console if console.is_terminal else None
    return open_device(device, program.config, memory_bytes=memory_for(program), **options)


def board_line(device: Device, cycles: int | None) -> str:
    """Return how long so many cycles last on a board, in words; empty on other devices."""
    board = getattr(device, "board", None)
    if not isinstance(board, Identity) or cycles is None:
        return ""
    clock = f"{board.clock_hz / 1e6:g} MHz"
    how = f"{board.board}, simulated" if board.simulated else board.board
    return f"{1000 * cycles / board.clock_hz:.3g} ms at {clock} ({how})"


def _open_board(program: Program, device: str, **options: Any) -> Device:
    """Open a board and upload the program, so that the bar has the terminal for itself."""
    from celosia.sw.driver.opening import open_device

    with _upload_bar() as progress:
        opened = open_device(device, program.config, progress=progress, **options)
        try:
            program.require(opened.config)
            for segment in program.npu_segments[:1]:
                opened.load(segment)
        except BaseException:
            opened.close()
            raise
    return opened


@contextlib.contextmanager
def _upload_bar() -> Iterator[Callable[[int, int], None]]:
    """Show uploads on standard error, if it is a terminal."""
    console = error_console()
    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("uploading", total=None, visible=False)
        yield lambda done, total: bar.update(
            task, completed=done, total=total, visible=done < total
        )
