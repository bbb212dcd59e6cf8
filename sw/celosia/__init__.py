"""Celosia: an open microNPU in Python.

>>> import celosia
>>> program = celosia.compile("model.tflite", config="base")   # doctest: +SKIP
>>> with celosia.open("emu", config="base") as device:         # doctest: +SKIP
...     result = device.run(program, image)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
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

if TYPE_CHECKING:
    from celosia.boards.fpga.report import BuildReport
    from celosia.hw.contract.config import PRESETS, ConfigError, NpuConfig
    from celosia.sw.compiler.build import Host
    from celosia.sw.driver.device import Device
    from celosia.sw.driver.result import Result
    from celosia.sw.energy.model import Energy
    from celosia.sw.program.file import Program
    from celosia.sw.reference.check import CheckReport
    from celosia.sw.report.bench.bench import Measurement
    from celosia.sw.report.fit import Fit

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
    "bench",
    "build",
    "check",
    "compile",
    "energy",
    "fit",
    "from_keras",
    "load_program",
    "open",
]


def __getattr__(name: str) -> Any:
    # Found on first use, so that `import celosia` stays quick.
    if name in ("PRESETS", "ConfigError", "NpuConfig"):
        from celosia.hw.contract import config

        return getattr(config, name)
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


def open(
    kind: str, config: str | os.PathLike[str] | NpuConfig | None = None, **options: Any
) -> Device:
    """Open a device; a context manager.

    Parameters
    ----------
    kind : str
        ``emu``, the bit-exact emulator, ``sim``, the gateware under Verilator, ``netlist``, what
        synthesis makes of it, ``uart:PORT``, a board at a serial port, or ``uart:auto``, the only
        board there is.
    config : str, path or NpuConfig, optional
        Preset, JSON file of a configuration, or a configuration; by default ``base``, for a board
        what it is.
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
    model: str | os.PathLike[str] | bytes,
    config: str | os.PathLike[str] | NpuConfig = "base",
    **options: Any,
) -> Program:
    """Compile a TFLite model for the NPU, and for the host where the NPU cannot.

    Parameters
    ----------
    model : path or bytes
        The ``.tflite`` file or its contents.
    config : str, path or NpuConfig
        Preset, JSON file of a configuration, or a configuration.
    **options
        See `celosia.sw.compiler.build.compile_model`; ``host="refuse"`` refuses a model that is
        not wholly for the NPU.

    Raises
    ------
    ConfigError
        If there is no such preset.
    ModelError, UnsupportedError, CompileError
        If the model is damaged, or nothing can run it; with ``host="refuse"`` also if it uses what
        the NPU does not do, or does not fit.
    """
    from celosia.hw.contract.named import resolve_config
    from celosia.sw.compiler.build import compile_model

    return compile_model(model, resolve_config(config), **options)


def from_keras(model: Any, samples: Any, path: str | os.PathLike[str] | None = None) -> bytes:
    """Convert a Keras model to the ``.tflite`` file that the NPU wants: int8 throughout.

    Parameters
    ----------
    model : keras.Model
        With the shapes of its inputs known, all but the batch.
    samples : array, [count, ...], or sequence of arrays
        Typical inputs, a few hundred, from which the ranges of activations are taken; for a model
        with several inputs one array for each.
    path : path, optional
        Where to write the file as well.

    Returns
    -------
    bytes
        The file's contents, as `compile` takes them.

    Raises
    ------
    CelosiaError
        If TensorFlow is not installed (``pip install "celosia[keras]"``), or the file cannot be
        written.
    ModelError
        If it is no Keras model, a shape is not known, or the converter refuses it.
    InputError
        If the samples are not those of the model's inputs.
    """
    from celosia.sw.compiler.frontends.keras import convert_keras
    from celosia.sw.report.files import require_writable, write_bytes

    target = None if path is None else Path(path)
    require_writable(target)
    content = convert_keras(model, samples)
    if target is not None:
        write_bytes(target, content)
    return content


def check(
    model: str | os.PathLike[str],
    config: str | os.PathLike[str] | NpuConfig = "base",
    *,
    device: str = "emu",
    inputs: Sequence[Mapping[str, Any]] | None = None,
    count: int = 1,
    seed: int = 0,
    fold: bool = False,
    batch: int = 1,
    host: Host = "allow",
) -> CheckReport:
    """Run a model and compare every tensor with the golden model's, and with the interpreter's.

    Parameters
    ----------
    model : path
        The ``.tflite`` file.
    config : str, path or NpuConfig
        Preset, JSON file of a configuration, or a configuration.
    device : str
        As `open` takes it.
    inputs : sequence of mapping, optional
        One entry an inference: arrays by input name. By default random ones.
    count, seed : int
        Of the random inputs.
    fold : bool
        Remove channels that are constant.
    batch : int
        Samples of a run.
    host : "allow" or "refuse"
        What happens to operators that the NPU does not run.

    Raises
    ------
    CelosiaError
        If the model cannot be compiled or checked, or the device fails.
    """
    from celosia.hw.contract.named import resolve_config
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.driver.opening import open_device
    from celosia.sw.reference.check import check_model
    from celosia.sw.report.samples import random_samples

    path, chosen = Path(model), resolve_config(config)
    program = compile_model(path, chosen, fold=fold, batch=batch, host=host)
    samples = inputs
    if samples is None:
        samples = random_samples(program, count, seed)
    with open_device(device, chosen) as opened:
        return check_model(path, chosen, opened, samples, program=program)


def bench(
    model: str | os.PathLike[str],
    config: str | os.PathLike[str] | NpuConfig = "base",
    *,
    latency_cycles: int = 8,
    stall_probability: float = 0.0,
    resident: bool = False,
    fold: bool = False,
    batch: int = 1,
    seed: int = 0,
    host: Host = "allow",
) -> Measurement:
    """Measure an inference on the RTL: cycles, what they went on, and whether it is right.

    Parameters
    ----------
    model : path
        The ``.tflite`` file.
    config : str, path or NpuConfig
        Preset, JSON file of a configuration, or a configuration.
    latency_cycles : int
        From the acceptance of a request to the answer of system memory.
    stall_probability : float
        Chance, each cycle, that memory refuses requests, and that it holds an answer back.
    resident : bool
        With the weights on chip already.
    fold : bool
        Remove channels that are constant.
    batch : int
        Samples of a run; where they would run one after the other, one is measured.
    seed : int
        Of the random input and of the stalls.
    host : "allow" or "refuse"
        What happens to operators that the NPU does not run; the host's time is not in the cycles.

    Raises
    ------
    CelosiaError
        If the model cannot be compiled or checked, the simulator cannot be built, or the run fails.
    """
    from celosia.hw.contract.named import resolve_config
    from celosia.sw.report.bench.bench import Bench, Conditions

    conditions = Conditions(latency_cycles=latency_cycles, stall_probability=stall_probability)
    return Bench(seed=seed, host=host).measure(
        Path(model), resolve_config(config), conditions, resident=resident, fold=fold, batch=batch
    )


def energy(
    model: str | os.PathLike[str] | bytes | Program,
    config: str | os.PathLike[str] | NpuConfig = "base",
    **options: Any,
) -> Energy:
    """Say what energy an inference takes: an estimate, as a range, from a run on the RTL.

    Parameters
    ----------
    model : path, bytes or Program
        The ``.tflite`` file, its contents, or a compiled program.
    config : str, path or NpuConfig
        Preset, JSON file of a configuration, or a configuration; a program has its own.
    **options
        See `celosia.sw.energy.measure.energy_of`.

    Raises
    ------
    CelosiaError
        If the model cannot be compiled or there is no account for the machine, or the simulator
        cannot be built.
    """
    from celosia.sw.energy.measure import energy_of

    return energy_of(model, config, **options)


def fit(
    model: str | os.PathLike[str] | bytes,
    board: str,
    config: str | os.PathLike[str] | NpuConfig | None = None,
    **options: Any,
) -> Fit:
    """Say before any synthesis whether a model fits a board, and how long an inference takes.

    Parameters
    ----------
    model : path or bytes
        The ``.tflite`` file or its contents.
    board : str
        As ``celosia boards`` lists it.
    config : str, path or NpuConfig, optional
        Preset, JSON file of a configuration, or a configuration; by default the board's.
    **options
        See `celosia.sw.report.fit.fit_model`.

    Raises
    ------
    CelosiaError
        If there is no such board or configuration, or the model cannot be compiled.
    """
    from celosia.sw.report.fit import fit_model

    return fit_model(model, board, config, **options)


def build(
    board: str,
    config: str | os.PathLike[str] | NpuConfig | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    **options: Any,
) -> BuildReport:
    """Build a board's bitstream.

    Parameters
    ----------
    board : str
        As ``celosia boards`` lists it.
    config : str, path or NpuConfig, optional
        Preset, JSON file of a configuration, or a configuration; by default the board's.
    folder : path, optional
        Where the board's folder is made; by default ``build/boards``.
    **options
        See `celosia.boards.build.request_of`.

    Raises
    ------
    CelosiaError
        If there is no such board or configuration, a tool is missing or fails, or the design is too
        large or too slow for the FPGA.
    """
    from celosia.boards.build import DEFAULT_FOLDER, build_board, request_of

    request = request_of(board, config, **options)
    return build_board(request, folder=DEFAULT_FOLDER if folder is None else Path(folder))


def load_program(path: str | os.PathLike[str]) -> Program:
    """Read a program file.

    Raises
    ------
    ProgramError
        If it cannot be read, is damaged, or is of a version that is not known.
    """
    from celosia.sw.program.file import Program

    return Program.load(path)
