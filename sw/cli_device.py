"""Opening the device that a command names."""

from __future__ import annotations

from typing import Any

from celosia.sw.cli_common import error_console
from celosia.sw.driver.device import Device
from celosia.sw.errors import CelosiaError
from celosia.sw.program import Program

__all__ = ["LATENCY_CYCLES", "memory_options", "open_device_for"]

MEMORY_BYTES = 16 * 1024 * 1024
LATENCY_CYCLES = 8
"""Of the simulated memory, unless a command says otherwise."""


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
    if device != "sim":
        raise CelosiaError(
            f"device {device!r}",
            "--latency and --stalls are about time, which only the device 'sim' has",
            "leave them out, or use --device sim",
        )
    from celosia.sim.rtl import MemoryModel

    chance = stalls or 0.0
    return {
        "memory_model": MemoryModel(
            latency_cycles=latency_cycles or LATENCY_CYCLES,
            stall_probability=chance,
            delay_probability=chance,
            seed=seed + 1,
        )
    }


def open_device_for(program: Program, device: str, **options: Any) -> Device:
    """Open a device with the program's configuration; a build shows its progress on stderr."""
    from celosia.sw.driver.opening import open_device

    if device == "sim":
        console = error_console()
        options["console"] = console if console.is_terminal else None
    needed = len(program.commands) + len(program.constants)
    needed += sum(program.memory.region_bytes.values())
    # Twice: the instrumented program of a check keeps every tensor.
    return open_device(
        device, program.config, memory_bytes=max(MEMORY_BYTES, _whole_mib(2 * needed)), **options
    )


def _whole_mib(size: int) -> int:
    mib = 1024 * 1024
    return -(-size // mib) * mib
