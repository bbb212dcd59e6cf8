"""From the name of a device to the device."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from celosia.hw.config import NpuConfig, preset
from celosia.sw.driver.device import Device
from celosia.sw.errors import DeviceError

__all__ = ["KINDS", "open_device", "resolve_config"]

KINDS = ("emu", "sim")
MEMORY_BYTES = 16 * 1024 * 1024


def resolve_config(config: str | NpuConfig) -> NpuConfig:
    """Return a configuration by the name of its preset, or as it is.

    Raises
    ------
    ConfigError
        If there is no such preset.
    """
    return preset(config) if isinstance(config, str) else config


def open_device(
    kind: str,
    config: str | NpuConfig = "base",
    *,
    memory_bytes: int = MEMORY_BYTES,
    **options: Any,
) -> Device:
    """Open a device and check that it is what it should be.

    Parameters
    ----------
    kind : str
        ``emu`` (emulator: bit-exact, no clock, needs nothing but numpy) or ``sim`` (the gateware
        under Verilator: cycle-exact).
    config : str or NpuConfig
        Name of a preset, or a configuration.
    memory_bytes : int
        System memory.
    **options
        Of the device: `celosia.sw.driver.emu.EmuDevice`, `celosia.sw.driver.sim.SimDevice`.

    Raises
    ------
    ConfigError
        If there is no such preset.
    DeviceError
        If there is no such device, it takes no such option, or it is not what was expected.
    """
    resolved = resolve_config(config)
    make: Callable[..., Device]
    if kind == "emu":
        from celosia.sw.driver.emu import EmuDevice

        make = EmuDevice
    elif kind == "sim":
        from celosia.sw.driver.sim import SimDevice

        make = SimDevice
    elif kind == "uart" or kind.startswith("uart:"):
        raise DeviceError(
            f"device {kind!r}", "boards are not in this version", 'use "emu" or "sim"'
        )
    else:
        raise DeviceError(
            f"device {kind!r}", "there is no such device", f"use one of {', '.join(KINDS)}"
        )
    allowed = [name for name in inspect.signature(make).parameters if name != "config"]
    for name in options:
        if name not in allowed:
            raise DeviceError(
                f"device {kind!r}",
                f"it takes no option {name!r}",
                f"use {', '.join(sorted(allowed))}",
            )
    device = make(resolved, memory_bytes=memory_bytes, **options)
    try:
        device.identify()
    except BaseException:
        device.close()
        raise
    return device
