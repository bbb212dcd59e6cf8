"""From the name of a device to the device."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from celosia.errors import DeviceError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.named import resolve_config
from celosia.sw.driver.device import Device
from celosia.sw.program.file import Program

__all__ = ["KINDS", "SIMULATED", "UART", "memory_for", "open_device"]

UART = "uart:"
KINDS = ("emu", "sim", "netlist", "uart:PORT", "uart:auto")
SIMULATED = ("sim", "netlist")
"""Those that have a clock and a memory which are simulated."""
MIB = 1024 * 1024
MEMORY_BYTES = 16 * MIB
DEFAULT_CONFIG = "base"


def memory_for(program: Program) -> int:
    """Return the bytes of system memory that a device which has no size of its own gets.

    Parameters
    ----------
    program : Program
        What it is to run; also the program of a check, which keeps every tensor.
    """
    needed = sum(
        len(segment.code) + len(segment.constants) + sum(segment.memory.region_bytes.values())
        for segment in program.npu_segments
    )
    return max(MEMORY_BYTES, -(-2 * needed // MIB) * MIB)


def open_device(
    kind: str, config: str | os.PathLike[str] | NpuConfig | None = None, **options: Any
) -> Device:
    """Open a device and check that it is what it should be.

    Parameters
    ----------
    kind : str
        ``emu`` (emulator: bit-exact, no clock, needs nothing but numpy), ``sim`` (the gateware
        under Verilator: cycle-exact), ``netlist`` (what synthesis makes of it, likewise),
        ``uart:PORT`` (a board at a serial port) or ``uart:auto`` (the only board there is).
    config : str, path or NpuConfig, optional
        As :func:`celosia.hw.contract.named.resolve_config` takes it; by default ``base``, for a
        board what it is.
    **options
        Of the device: `celosia.sw.driver.emu.EmuDevice`, `celosia.sw.driver.sim.SimDevice`,
        `celosia.sw.driver.netlist.NetlistDevice`, `celosia.sw.driver.uart.device.UartDevice`.
        ``memory_bytes``, of all but the last, is 16 MiB by default.

    Raises
    ------
    ConfigError
        If there is no such preset.
    DeviceError
        If there is no such device, it takes no such option, or it is not what was expected.
    """
    resolved = None if config is None else resolve_config(config)
    make, fixed = _maker(kind)
    allowed = [
        name for name in inspect.signature(make).parameters if name not in ("config", *fixed)
    ]
    for name in options:
        if name not in allowed:
            raise DeviceError(
                f"device {kind!r}",
                f"it takes no option {name!r}",
                f"use {', '.join(sorted(allowed))}",
            )
    if "memory_bytes" in allowed:
        options.setdefault("memory_bytes", MEMORY_BYTES)
        resolved = resolved or resolve_config(DEFAULT_CONFIG)
    device = make(resolved, **fixed, **options)
    try:
        device.identify()
    except BaseException:
        device.close()
        raise
    return device


def _maker(kind: str) -> tuple[Callable[..., Device], dict[str, Any]]:
    """Return what makes a device of this kind, and the options that its name decides on."""
    if kind == "emu":
        from celosia.sw.driver.emu import EmuDevice

        return EmuDevice, {}
    if kind == "sim":
        from celosia.sw.driver.sim import SimDevice

        return SimDevice, {}
    if kind == "netlist":
        from celosia.sw.driver.netlist import NetlistDevice

        return NetlistDevice, {}
    if kind.startswith(UART) and len(kind) > len(UART):
        from celosia.sw.driver.uart.device import UartDevice

        return UartDevice, {"port": kind.removeprefix(UART)}
    if kind in ("uart", UART):
        raise DeviceError(
            f"device {kind!r}", "the port is missing", "use uart:PORT, for example uart:auto"
        )
    raise DeviceError(
        f"device {kind!r}", "there is no such device", f"use one of {', '.join(KINDS)}"
    )
