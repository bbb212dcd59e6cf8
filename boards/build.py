"""Builds a board's bitstream: synthesis, place and route, packing; all of it or nothing."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from celosia.boards.board import Board
from celosia.boards.fpga.flows import CELLS, FLOWS, NETLIST, TIMING, Flow
from celosia.boards.fpga.report import BuildReport, read_clocks, read_utilisation
from celosia.boards.fpga.tools import YOSYS, FpgaToolError, find_tool, run_fpga_tool
from celosia.boards.identity import identity_of
from celosia.boards.registry import find_board
from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.named import resolve_config
from celosia.hw.contract.uart import Identity
from celosia.quantities import KIB, MHZ

__all__ = [
    "DEFAULT_FOLDER",
    "BuildRequest",
    "TimingError",
    "TooBigError",
    "bitstream_path",
    "build_board",
    "request_of",
    "write_project",
]

DEFAULT_FOLDER = Path("build/boards")
REPORT = "report.json"
SYNTHESIS_LOG, ROUTE_LOG = "synthesis.log", "route.log"
SYNTHESIS_TIME_OUT_S = 1800.0
ROUTE_TIME_OUT_S = 7200.0
PACK_TIME_OUT_S = 600.0


class TooBigError(CelosiaError):
    """The design takes more than the FPGA has.

    Members
    -------
    report : BuildReport
        By how much.
    """

    def __init__(self, what: str, cause: str, remedy: str, *, report: BuildReport) -> None:
        super().__init__(what, cause, remedy)
        self.report = report


class TimingError(CelosiaError):
    """The design is placed and routed, and is too slow for its clock.

    Members
    -------
    report : BuildReport
        With the clock that it can have.
    """

    def __init__(self, what: str, cause: str, remedy: str, *, report: BuildReport) -> None:
        super().__init__(what, cause, remedy)
        self.report = report


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What is to be built.

    Attributes
    ----------
    board : Board
    config : NpuConfig
    clock_hz : int, optional
        By default the board's.
    memory_bytes : int, optional
        Size of a system memory on the chip; by default the board's.
    seed : int
        Of the placer.
    allow_slow : bool
        Accept a bitstream whose clock is too fast for it.
    design : callable, optional
        Returns the top from board, configuration and identity; by default
        :class:`celosia.boards.design.BoardDesign`.

    Raises
    ------
    CelosiaError
        If the memory has another size.
    """

    board: Board
    config: NpuConfig
    clock_hz: int | None = None
    memory_bytes: int | None = None
    seed: int = 1
    allow_slow: bool = False
    design: Callable[[Board, NpuConfig, Identity], Any] | None = None

    def __post_init__(self) -> None:
        memory = self.board.memory
        if self.memory_bytes not in (None, memory.bytes) and not memory.on_chip:
            raise CelosiaError(
                f"board {self.board.name}",
                f"its memory is {memory.kind} of {memory.bytes // KIB} KiB, which has one size",
                "leave out --memory",
            )

    @property
    def identity(self) -> Identity:
        """What the board will say of itself."""
        memory_bytes = self.memory_bytes or self.board.memory.bytes
        # What the PLL makes, which may be a little off what is wanted.
        wanted_hz = self.clock_hz or self.board.clock_with(self.config)
        pll = self.board.plan_clocks(wanted_hz)
        return identity_of(
            self.board, self.config, clock_hz=round(pll.output_hz), memory_bytes=memory_bytes
        )


def request_of(
    board: str,
    config: str | os.PathLike[str] | NpuConfig | None = None,
    *,
    clock_mhz: float | None = None,
    memory_kib: int | None = None,
    seed: int = 1,
    allow_slow: bool = False,
) -> BuildRequest:
    """Return the request for a build of a board by its name.

    Parameters
    ----------
    board : str
        As ``celosia boards`` lists it.
    config : str, path or NpuConfig, optional
        Preset, file or configuration; by default the board's.
    clock_mhz : float, optional
        By default the board's.
    memory_kib : int, optional
        Size of a system memory on the chip; by default the board's.
    seed : int
        Of the placer.
    allow_slow : bool
        Accept a bitstream whose clock is too fast for it.

    Raises
    ------
    CelosiaError
        If there is no such board or configuration, or the memory has another size.
    """
    found = find_board(board)
    return BuildRequest(
        board=found,
        config=resolve_config(found.config if config is None else config),
        clock_hz=None if clock_mhz is None else round(clock_mhz * MHZ),
        memory_bytes=None if memory_kib is None else memory_kib * KIB,
        seed=seed,
        allow_slow=allow_slow,
    )


@dataclass
class _Stages:
    """Runs stages and keeps the time they take."""

    progress: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.progress(name)
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def bitstream_path(board: Board, folder: Path) -> Path:
    """Return where a board's bitstream is, below the folder of all boards."""
    return folder / board.name / f"{board.name}{FLOWS[board.family].suffix}"


def build_board(
    request: BuildRequest,
    *,
    folder: Path = DEFAULT_FOLDER,
    progress: Callable[[str], None] = lambda stage: None,
) -> BuildReport:
    """Build a bitstream, or where there is no router for the board count what it takes.

    What was in ``folder/NAME`` is replaced at the end: bitstream, report, constraints and logs. If
    a tool fails or the clock is missed, it stays, and what the tools said is in
    ``folder/NAME.failed``.

    Parameters
    ----------
    request : BuildRequest
    folder : Path
        Of all boards.
    progress : callable
        Is told which stage begins.

    Raises
    ------
    TooBigError
        If the FPGA is too small.
    TimingError
        If the design is too slow, unless the request allows it.
    FpgaToolError
        If a tool is missing, fails, or takes too long.
    """
    board = request.board
    flow = FLOWS[board.family]
    what = f"build of {board.name}"
    identity = request.identity  # refuses a clock that cannot be made
    for names in filter(None, (YOSYS, flow.router, flow.packer)):
        find_tool(names, task=what)  # before minutes have passed
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{board.name}-", dir=folder))
    except OSError as error:
        raise CelosiaError(f"cannot write {folder}", str(error), "choose another folder") from None
    try:
        # mkdtemp makes folders that only their owner can read.
        work.chmod(0o755)
        report = _build(request, identity, flow, work, _Stages(progress))
        _keep(work, {REPORT, report.bitstream, SYNTHESIS_LOG, ROUTE_LOG, *flow.constraints})
        _replace(folder / board.name, work)
        shutil.rmtree(folder / f"{board.name}.failed", ignore_errors=True)
        return report
    except CelosiaError as error:
        _keep(work, {SYNTHESIS_LOG, ROUTE_LOG, TIMING, *flow.constraints})
        if any(work.iterdir()):
            failed = folder / f"{board.name}.failed"
            _replace(failed, work)
            error.remedy = f"{error.remedy}; the tools' logs are in {failed}"
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(
    request: BuildRequest, identity: Identity, flow: Flow, work: Path, stages: _Stages
) -> BuildReport:
    board = request.board
    what = f"build of {board.name}"
    with stages.stage("elaboration"):
        platform = _elaborate(request, identity, work)
    with stages.stage("synthesis"):
        cells = _synthesise(board, flow, work)
        if flow.refine is not None:
            cells = dict(flow.refine(work / NETLIST))
        if flow.arrange is not None:
            flow.arrange(work / NETLIST, board.device)
    report = BuildReport(
        board=board.name,
        title=board.title,
        device=board.device,
        config=request.config.name,
        macs=request.config.macs_per_cycle,
        clock_mhz=identity.clock_hz / 1e6,
        memory=board.memory.kind,
        memory_bytes=identity.memory_bytes,
        stage="synthesis",
        used=flow.count(cells),
        capacity=board.capacity,
        seed=request.seed,
        seconds=stages.seconds,
        build=identity.build,
        revision=identity.revision,
        dirty=identity.dirty,
    )
    _require_room(request, report)
    if flow.route is not None and flow.pack is not None:
        with stages.stage("place and route"):
            run_fpga_tool(
                [
                    find_tool(flow.router, task=what),
                    *flow.route(board, platform, report.clock_mhz, request.seed),
                ],
                task=f"{what}, place and route",
                timeout_s=ROUTE_TIME_OUT_S,
                cwd=work,
            )
            timing = json.loads((work / TIMING).read_text(encoding="utf-8"))
        report = replace(
            report,
            stage="place and route",
            used={**report.used, **read_utilisation(timing, flow.routed_names)},
            clocks=read_clocks(timing, report.clock_mhz),
        )
        _require_clock(request, report)
        name = f"{board.name}{flow.suffix}"
        with stages.stage("bitstream"):
            run_fpga_tool(
                [find_tool(flow.packer, task=what), *flow.pack(board, name)],
                task=f"{what}, packing",
                timeout_s=PACK_TIME_OUT_S,
                cwd=work,
            )
        report = replace(report, bitstream=name, bitstream_bytes=(work / name).stat().st_size)
    (work / REPORT).write_text(json.dumps(report.figures(), indent=2) + "\n", encoding="utf-8")
    return report


def _elaborate(request: BuildRequest, identity: Identity, work: Path) -> Any:
    """Write the design and its constraints; return the platform."""
    board = request.board
    platform = board.make_platform()
    plan = _plan(request, platform, identity)
    for name in ("top.il", "top.v", *FLOWS[board.family].constraints):
        if name in plan.files:
            content = plan.files[name]
            (work / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return platform


def _plan(request: BuildRequest, platform: Any, identity: Identity) -> Any:
    """Return Amaranth's build plan of the design."""
    if request.design is not None:
        top = request.design(request.board, request.config, identity)
    else:
        from celosia.boards import design

        top = design.BoardDesign(request.board, request.config, identity=identity)
    return platform.prepare(top, "top", emit_src=False)


def _synthesise(board: Board, flow: Flow, work: Path) -> dict[str, int]:
    """Make the netlist and return its cells by type."""
    read = "read_rtlil top.il" if (work / "top.il").exists() else "read_verilog top.v"
    script = f"{read}; {flow.synthesis(board)}; write_json {NETLIST}; tee -q -o {CELLS} stat -json"
    run_fpga_tool(
        [find_tool(YOSYS, task="synthesis"), "-q", "-l", SYNTHESIS_LOG, "-p", script],
        task=f"build of {board.name}, synthesis",
        timeout_s=SYNTHESIS_TIME_OUT_S,
        cwd=work,
    )
    content: dict[str, Any] = json.loads((work / CELLS).read_text(encoding="utf-8"))
    return dict(content["design"]["num_cells_by_type"])


def _require_room(request: BuildRequest, report: BuildReport) -> None:
    excess = report.excess
    if not excess:
        return
    counted = ", ".join(
        f"{used:,} {name} are needed and there are {there:,}"
        for name, (used, there) in excess.items()
    )
    ways = ["choose a smaller configuration with --config"]
    if request.board.memory.on_chip:
        ways.append("less memory with --memory")
    ways.append("another board ('celosia boards' lists them)")
    raise TooBigError(
        f"{report.config} with {report.memory_bytes // KIB} KiB of {report.memory} on"
        f" {report.title}",
        f"it is too big for {report.device}: {counted}",
        ", or ".join(ways),
        report=report,
    )


def _require_clock(request: BuildRequest, report: BuildReport) -> None:
    if not report.clocks:
        raise FpgaToolError(
            f"build of {report.board}, place and route",
            "the router reports no clock",
            "report it as a defect",
        )
    if not report.late or request.allow_slow:
        return
    clock = min(report.late, key=lambda late: late.achieved_mhz / late.wanted_mhz)
    raise TimingError(
        f"{report.config} on {report.title}",
        f"the clock can be {clock.achieved_mhz:.1f} MHz, and it is {clock.wanted_mhz:g} MHz",
        f"build it slower (--clock {int(clock.achieved_mhz)}), try another placement"
        f" (--seed {report.seed + 1}), or take it as it is (--allow-slow)",
        report=report,
    )


def _keep(work: Path, names: set[str]) -> None:
    """Delete all other files of a folder: netlists of tens of megabytes."""
    for path in work.iterdir():
        if path.name not in names:
            path.unlink()


def _replace(target: Path, work: Path) -> None:
    """Put a folder in another's place, so that there is the old one or the whole new one."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(work, target)
    shutil.rmtree(old, ignore_errors=True)


def write_project(request: BuildRequest, target: Path) -> list[str]:
    """Write the design, constraints and scripts for the vendor's tools into a ZIP archive.

    Parameters
    ----------
    request : BuildRequest
    target : Path
        The archive.

    Returns
    -------
    list of str
        The files in it.

    Raises
    ------
    CelosiaError
        If Amaranth is missing or the archive cannot be written.
    """
    plan = _plan(request, request.board.make_platform(), request.identity)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        plan.archive(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise CelosiaError(f"cannot write {target}", str(error), "choose another place") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
    return sorted(plan.files)
