"""Celosia: an open microNPU in Python.

>>> import celosia
>>> program = celosia.compile("model.tflite", config="base")   # doctest: +SKIP
>>> with celosia.open("emu", config="base") as device:         # doctest: +SKIP
...     result = device.run(program, image)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celosia.errors import (
    CelosiaError,
    CompileError,
    DeviceError,
    InputError,
    ModelError,
    ProgramError,
    UnsupportedError,
)
from celosia.hw.contract.config import PRESETS, ConfigError, NpuConfig

if TYPE_CHECKING:
    from celosia.sw.driver.device import Device
    from celosia.sw.driver.result import Result
    from celosia.sw.program.file import Program

__all__ = [
    "PRESETS",
    "CelosiaError",
    "CompileError",
    "ConfigError",
    "Device",
    "DeviceError",
    "InputError",
    "ModelError",
    "NpuConfig",
    "Program",
    "ProgramError",
    "Result",
    "UnsupportedError",
    "compile",
    "load_program",
    "open",
]


def __getattr__(name: str) -> Any:
    # Found on first use, so that `import celosia` stays quick.
    if name == "Device":
        from celosia.sw.driver.device import Device

        return Device
    if name == "Program":
        from celosia.sw.program.file import Program

        return Program
    if name == "Result":
        from celosia.sw.driver.result import Result

        return Result
    raise AttributeError(f"module 'celosia' has no attribute {name!r}")


def open(kind: str, config: str | NpuConfig | None = None, **options: Any) -> Device:
    """Open a device; a context manager.

    Parameters
    ----------
    kind : str
        ``emu``, the bit-exact emulator, ``sim``, the gateware under Verilator, ``netlist``, what
        synthesis makes of it, ``uart:PORT``, a board at a serial port, or ``uart:auto``, the only
        board there is.
    config : str or NpuConfig, optional
        Name of a preset, or a configuration; by default ``base``, for a board what it is.
    **options
        See `celosia.sw.driver.opening.open_device`.

    Raises
    ------
    ConfigError
        If there is no such preset.
    DeviceError
        If there is no such device or option, the simulator cannot be built, or no board answers.
    """
    from celosia.sw.driver.opening import open_device

    return open_device(kind, config, **options)


def compile(
    model: str | os.PathLike[str] | bytes, config: str | NpuConfig = "base", **options: Any
) -> Program:
    """Compile an int8 TFLite model.

    Parameters
    ----------
    model : path or bytes
        The ``.tflite`` file or its contents.
    config : str or NpuConfig
        Name of a preset, or a configuration.
    **options
        See `celosia.sw.compiler.build.compile_model`.

    Raises
    ------
    ConfigError
        If there is no such preset.
    ModelError, UnsupportedError, CompileError
        If the model is damaged, uses what the NPU does not do, or does not fit.
    """
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.driver.opening import resolve_config

    return compile_model(model, resolve_config(config), **options)


def load_program(path: str | os.PathLike[str]) -> Program:
    """Read a program file.

    Raises
    ------
    ProgramError
        If it cannot be read, is damaged, or is of a version that is not known.
    """
    from celosia.sw.program.file import Program

    return Program.load(path)
