"""Building a simulator: a cache that is read-only, and builds that are interrupted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from celosia.sim.rtl import verilator
from celosia.toolchain import BuildError, RunningTools, run_tool

KEY = "0123"


def never() -> str:
    raise AssertionError("nothing is to be built")


def build() -> verilator.Build:
    kind = verilator._Kind(gated=False)
    return verilator._build(KEY, never, kind, title="simulator", console=None)


def finished(root: Path) -> Path:
    """Put a build into a cache."""
    folder = root / "rtl" / KEY
    folder.mkdir(parents=True)
    (folder / verilator.LIBRARY).write_bytes(b"library")
    manifest = {"sha256": hashlib.sha256(b"library").hexdigest()}
    (folder / verilator.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder / verilator.LIBRARY


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache folder in which nothing can be written, for root as for others."""
    root = tmp_path / "cache"
    root.mkdir()
    monkeypatch.setenv("CELOSIA_CACHE", str(root))

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(verilator.os, "utime", refuse)
    monkeypatch.setattr(verilator.tempfile, "mkdtemp", refuse)
    monkeypatch.setattr(verilator.Path, "mkdir", mkdir_read_only(verilator.Path.mkdir))
    return root


def mkdir_read_only(real: Any) -> Any:
    def mkdir(path: Path, *arguments: Any, **options: Any) -> None:
        if "rtl" in path.parts and not ALLOWED:
            if path.is_dir() and options.get("exist_ok"):
                return
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(path, *arguments, **options)

    return mkdir


ALLOWED: list[bool] = []


@pytest.fixture
def entry(cache: Path) -> Path:
    ALLOWED.append(True)
    library = finished(cache)
    ALLOWED.clear()
    return library


def test_a_build_in_a_read_only_cache_is_used(entry: Path) -> None:
    assert build() == verilator.Build(entry, 0.0, traced=False)


def test_a_read_only_cache_without_the_build_is_an_error(cache: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot be written: .*Read-only.*CELOSIA_CACHE"):
        build()


def test_a_read_only_cache_with_other_builds_is_an_error(entry: Path) -> None:
    entry.write_bytes(b"damaged")
    with pytest.raises(BuildError, match=r"cannot be written: .*Read-only.*CELOSIA_CACHE"):
        build()
    # The lock is the first thing to be written.
    lock = entry.parent.parent / f"{KEY}.lock"
    lock.unlink()
    lock.write_text("")
    lock.unlink()
    os.mkdir(lock)
    with pytest.raises(BuildError, match=r"cannot be written: .*CELOSIA_CACHE"):
        build()


# ---------------------------------------------------------------------- interrupts

BUILD = """
import os, sys
from pathlib import Path
from celosia.sim.rtl import verilator
from celosia import toolchain

compiler = toolchain.CxxCompiler("fake", (sys.argv[1],))
verilator.find_compiler = lambda: compiler
verilator.find_verilator = lambda: toolchain.Verilator(Path("none"), Path("none"))


def verilog():
    # The compiler of the warm-up is running: wait as the compilation does, in the main thread.
    import threading
    threading.Event().wait(60)


from celosia.sw.cli.app import ENDING, _end
import signal
for number in ENDING:
    signal.signal(number, _end)
kind = verilator._Kind(gated=False)
verilator._build("0123", verilog, kind, title="simulator", console=None)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_build_and_its_compilers(
    number: signal.Signals, tmp_path: Path
) -> None:
    numbers = tmp_path / "numbers"
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"#!/bin/sh\nsleep 60 &\necho $$ $! > {numbers}.new\nmv {numbers}.new {numbers}\nwait\n",
        encoding="utf-8",
    )
    compiler.chmod(0o755)
    cache = tmp_path / "cache"
    environment = {**os.environ, "CELOSIA_CACHE": str(cache)}
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, str(compiler)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(numbers.exists)
        started = time.monotonic()
        process.send_signal(number)
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()
    assert time.monotonic() - started < 15
    assert process.returncode != 0
    for text in numbers.read_text(encoding="utf-8").split():
        until(lambda text=text: gone(int(text)))
    assert [path.name for path in (cache / "rtl").iterdir()] == [f"{KEY}.lock"]


def test_a_build_that_was_stopped_starts_nothing_more() -> None:
    running = RunningTools()
    assert run_tool(["echo", "1"], timeout_s=10, running=running) == "1\n"
    running.stop()
    with pytest.raises(BuildError, match="stopped"):
        run_tool(["echo", "1"], timeout_s=10, running=running)


def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return True
    return state.split()[0] == "Z"
