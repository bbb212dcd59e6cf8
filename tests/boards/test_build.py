"""Builds: what is kept, what is reported, and how each failure is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celosia.boards import build, program
from celosia.boards.build import BuildRequest, TimingError, TooBigError, build_board
from celosia.boards.fpga.flows import FLOWS
from celosia.boards.fpga.gowin import ALONE
from celosia.boards.fpga.report import read_clocks
from celosia.boards.fpga.tools import FpgaToolError, find_tool
from celosia.boards.registry import BOARDS
from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig, preset

pytest.importorskip("amaranth_boards")

START_TIME_OUT_S = 120.0
SIGNAL_TIME_OUT_S = 30.0

Tool = Callable[[list[str], Path], None]


def lamp(board: Any, config: NpuConfig, identity: Any) -> Any:
    """Return a design that is placed and routed in seconds: the board's clock and a counter."""
    from amaranth.hdl import ClockDomain, Module, Signal
    from amaranth.lib import io
    from amaranth.lib.wiring import Component
    from celosia.boards.fpga.clocking import BoardClock
    from celosia.boards.fpga.pll import PLANNERS

    class Lamp(Component):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__({})

        def elaborate(self, platform: Any) -> Any:
            m = Module()
            m.domains.sync = sync = ClockDomain()
            pll = PLANNERS[board.family](board.input_hz, identity.clock_hz)
            m.submodules.clock = clock = BoardClock(pll)
            count = Signal(24)
            m.submodules.lamp = buffer = io.Buffer("o", platform.request("led", 0, dir="-"))
            m.d.comb += [sync.clk.eq(clock.clk), sync.rst.eq(clock.rst), buffer.o.eq(count[-1])]
            m.d.sync += count.eq(count + 1)
            return m

    return Lamp()


def request(**changes: Any) -> BuildRequest:
    arguments: dict[str, Any] = {
        "board": BOARDS["ulx3s"],
        "config": preset("base"),
        "design": lamp,
    }
    return BuildRequest(**(arguments | changes))


class Tools:
    """Takes the place of Yosys, nextpnr and ecppack: writes what they would.

    Parameters
    ----------
    cells : dict
        By type.
    fmax_mhz : float
    fails : str
        Role that fails: ``yosys``, ``nextpnr``, ``ecppack``.
    """

    def __init__(
        self, cells: dict[str, int] | None = None, *, fmax_mhz: float = 90.0, fails: str = ""
    ) -> None:
        self.cells = cells or {"LUT4": 100, "CCU2C": 10, "TRELLIS_FF": 50}
        self.fmax_mhz = fmax_mhz
        self.fails = fails
        self.commands: list[list[str]] = []

    def __call__(self, command: Any, *, task: str, timeout_s: float, cwd: Path) -> str:
        words = [str(word) for word in command]
        self.commands.append(words)
        name = Path(words[0]).name
        if "yosys" in name:
            (cwd / "synthesis.log").write_text("log", encoding="utf-8")
            netlist = {"modules": {"top": {"ports": {}, "cells": {}}}}
            (cwd / "top.json").write_text(json.dumps(netlist), encoding="utf-8")
            stat = {"design": {"num_cells_by_type": self.cells}}
            (cwd / "cells.json").write_text(json.dumps(stat), encoding="utf-8")
        elif "nextpnr" in name:
            (cwd / "route.log").write_text("log", encoding="utf-8")
            timing = {
                "fmax": {"clk": {"achieved": self.fmax_mhz, "constraint": 80.0006}},
                "utilization": {
                    "TRELLIS_COMB": {"used": 130, "available": 83640},
                    "TRELLIS_FF": {"used": 51, "available": 83640},
                },
            }
            (cwd / "timing.json").write_text(json.dumps(timing), encoding="utf-8")
            (cwd / "routed").write_text("", encoding="utf-8")
        else:
            (cwd / words[words.index("--bit") + 1]).write_bytes(b"bits")
        if self.fails and self.fails in name:
            raise FpgaToolError(task, f"{name} failed with code 1\nERROR: no such thing", "look")
        return ""


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tools]:
    """Put other tools in place."""

    def put(*arguments: Any, **options: Any) -> Tools:
        made = Tools(*arguments, **options)
        monkeypatch.setattr(build, "run_fpga_tool", made)
        # Its netlist has no cells: what is left of them is what it says.
        flow = replace(FLOWS["ecp5"], refine=lambda netlist: made.cells)
        monkeypatch.setitem(FLOWS, "ecp5", flow)
        return made

    return put


def test_a_build_leaves_bitstream_report_and_logs(
    tmp_path: Path, tools: Callable[..., Tools]
) -> None:
    made = tools()
    stages: list[str] = []
    report = build_board(request(), folder=tmp_path, progress=stages.append)
    assert stages == ["elaboration", "synthesis", "place and route", "bitstream"]
    files = {path.name for path in (tmp_path / "ulx3s").iterdir()}
    assert files == {"ulx3s.bit", "report.json", "synthesis.log", "route.log", "top.lpf"}
    assert [path.name for path in tmp_path.iterdir()] == ["ulx3s"]
    assert (report.fmax_mhz, report.late) == (90.0, ())
    assert report.used == {"LUT4": 130, "FF": 51, "DP16KD": 0, "MULT18X18D": 0}
    written = json.loads((tmp_path / "ulx3s" / "report.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(report.figures()))
    assert written["bitstream_bytes"] == 4
    route = made.commands[1]
    for words in (["--85k"], ["--package", "CABGA381"], ["--speed", "6"], ["--freq", "80"]):
        start = route.index(words[0])
        assert route[start : start + len(words)] == words


def test_too_big_ends_before_placing_and_says_what(
    tmp_path: Path, tools: Callable[..., Tools]
) -> None:
    made = tools({"LUT4": 90_000, "CCU2C": 1, "TRELLIS_DPR16X4": 1, "MULT18X18D": 157})
    with pytest.raises(TooBigError) as caught:
        build_board(request(), folder=tmp_path)
    message = str(caught.value)
    assert "90,008 LUT4 are needed and there are 83,640" in message
    assert "157 MULT18X18D are needed and there are 156" in message
    assert "--config" in caught.value.remedy
    assert len(made.commands) == 1
    assert caught.value.report.excess == {"LUT4": (90_008, 83_640), "MULT18X18D": (157, 156)}
    assert [path.name for path in tmp_path.iterdir()] == ["ulx3s.failed"]


def test_missed_timing_is_an_error_that_leaves_the_older_build(
    tmp_path: Path, tools: Callable[..., Tools]
) -> None:
    tools()
    build_board(request(), folder=tmp_path)
    made = tools(fmax_mhz=61.26)
    with pytest.raises(TimingError) as caught:
        build_board(request(seed=4), folder=tmp_path)
    assert "61.3 MHz" in caught.value.cause
    for way in ("--clock 61", "--seed 5", "--allow-slow", "ulx3s.failed"):
        assert way in caught.value.remedy
    assert caught.value.report.fmax_mhz == 61.26
    assert not any("ecppack" in command[0] for command in made.commands)
    assert (tmp_path / "ulx3s" / "ulx3s.bit").exists()
    failed = {path.name for path in (tmp_path / "ulx3s.failed").iterdir()}
    assert failed == {"synthesis.log", "route.log", "timing.json", "top.lpf"}


def test_missed_timing_may_be_allowed(tmp_path: Path, tools: Callable[..., Tools]) -> None:
    tools(fmax_mhz=61.26)
    report = build_board(request(allow_slow=True), folder=tmp_path)
    assert [clock.net for clock in report.late] == ["clk"]
    assert (tmp_path / "ulx3s" / "ulx3s.bit").exists()


@pytest.mark.parametrize("role", ["yosys", "nextpnr", "ecppack"])
def test_a_failing_tool_is_shown_and_leaves_nothing_half_written(
    tmp_path: Path, tools: Callable[..., Tools], role: str
) -> None:
    tools(fails=role)
    with pytest.raises(FpgaToolError, match="ERROR: no such thing") as caught:
        build_board(request(), folder=tmp_path)
    assert "ulx3s.failed" in caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["ulx3s.failed"]
    left = {path.name for path in (tmp_path / "ulx3s.failed").iterdir()}
    assert left <= {"synthesis.log", "route.log", "timing.json", "top.lpf"}


@pytest.mark.parametrize("role", ["YOSYS", "router", "packer"])
def test_a_missing_tool_is_found_out_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    if role == "YOSYS":
        monkeypatch.setattr(build, "YOSYS", ("no-such-tool",))
    else:
        flow = replace(FLOWS["ecp5"], **{role: ("no-such-tool",)})
        monkeypatch.setitem(FLOWS, "ecp5", flow)
    with pytest.raises(FpgaToolError, match=r'no-such-tool.*pip install "\.\[boards\]"'):
        build_board(request(), folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_memory_of_one_size_has_no_other() -> None:
    with pytest.raises(CelosiaError, match="SDRAM of 32768 KiB"):
        request(memory_bytes=1024)
    assert request(board=BOARDS["orangecrab"], memory_bytes=1024).identity.memory_bytes == 1024


def test_a_clock_that_is_a_little_off_is_said_so() -> None:
    # 25 MHz times 10 / 3 is what comes next to 83.3 MHz.
    assert request(clock_hz=83_300_000).identity.clock_hz == 83_333_333


def test_nextpnr_rounds_the_clock() -> None:
    timing = {
        "fmax": {
            "a": {"achieved": 79.9, "constraint": 80.0064},
            "b": {"achieved": 30.0, "constraint": 25.0},
        }
    }
    clocks = read_clocks(timing, 80.0)
    assert [(clock.net, clock.wanted_mhz) for clock in clocks] == [("a", 80.0), ("b", 25.0)]


@pytest.mark.parametrize(
    ("family", "cells", "expected"),
    [
        (
            "ice40",
            {"SB_LUT4": 10, "SB_DFF": 3, "SB_DFFESR": 8, "SB_RAM40_4K": 2, "SB_MAC16": 1},
            {"logic cells": 11, "EBR": 2, "SPRAM": 0, "DSP": 1},
        ),
        (
            "gowin",
            {"LUT4": 5, "LUT2": 2, "ALU": 3, "RAM16SDP4": 1, "DFFRE": 7, "SDPB": 2, "MULT18X18": 3},
            {"places": 18, "LUT4": 18, "FF": 13, "BSRAM": 2, "MULT9X9": 6},
        ),
        (
            "gowin",
            {"LUT3": 4, "DFFE": 7, ALONE: 3},
            {"places": 7, "LUT4": 4, "FF": 7, "BSRAM": 0, "MULT9X9": 0},
        ),
        (
            "xilinx7",
            {"LUT6": 4, "LUT1": 1, "RAM32M": 2, "FDRE": 9, "RAMB36E1": 2, "RAMB18E1": 1},
            {"LUT6": 13, "FF": 9, "RAMB18": 5, "DSP48E1": 0},
        ),
    ],
)
def test_cells_are_counted(family: str, cells: dict[str, int], expected: dict[str, int]) -> None:
    assert FLOWS[family].count(cells) == expected


def _has(names: tuple[str, ...]) -> bool:
    try:
        find_tool(names, task="test")
    except FpgaToolError:
        return False
    return True


@pytest.mark.skipif(
    not (_has(build.YOSYS) and _has(FLOWS["ecp5"].router)), reason="Yosys or nextpnr is missing"
)
def test_the_real_tools_make_a_bitstream(tmp_path: Path) -> None:
    report = build_board(request(), folder=tmp_path)
    content = (tmp_path / "ulx3s" / "ulx3s.bit").read_bytes()
    # The comment, then the preamble of an ECP5's bitstream (Lattice FPGA-TN-02039).
    assert b"Part: LFE5U-85F-6CABGA381" in content[:200]
    assert b"\xff\xff\xbd\xb3" in content[:400]
    assert report.bitstream_bytes == len(content)
    assert report.fmax_mhz is not None
    assert report.fmax_mhz > 80.0
    assert 24 <= report.used["FF"] <= 60


def test_project_for_vivado(tmp_path: Path) -> None:
    import zipfile

    target = tmp_path / "arty.zip"
    files = build.write_project(request(board=BOARDS["arty-a7-100t"]), target)
    assert {"top.v", "top.tcl", "top.xdc"} <= set(files)
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == files
        assert "PLLE2_BASE" in archive.read("top.v").decode()
        assert "xc7a100ticsg324-1L" in archive.read("top.tcl").decode()
    assert [path.name for path in tmp_path.iterdir()] == ["arty.zip"]


def test_programming_needs_a_bitstream_and_a_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = BOARDS["ulx3s"]
    bitstream = build.bitstream_path(board, tmp_path)
    with pytest.raises(CelosiaError, match="celosia build ulx3s"):
        program.program_board(board, bitstream)
    bitstream.parent.mkdir()
    bitstream.write_bytes(b"bits")
    monkeypatch.setattr(program, "LOADER", ("no-such-loader",))
    with pytest.raises(FpgaToolError, match="no-such-loader is not installed.*apt install"):
        program.program_board(board, bitstream)


def test_programming_calls_the_loader_and_shows_why_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitstream = tmp_path / "ulx3s.bit"
    bitstream.write_bytes(b"bits")
    loader = tmp_path / "openFPGALoader"
    loader.write_text('#!/bin/sh\necho "$@"\n', encoding="utf-8")
    loader.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    board = BOARDS["ulx3s"]
    assert program.program_board(board, bitstream).split() == ["--board", "ulx3s", str(bitstream)]
    assert "--write-flash" in program.program_board(board, bitstream, flash=True)
    loader.write_text("#!/bin/sh\necho 'JTAG init failed' >&2\nexit 1\n", encoding="utf-8")
    with pytest.raises(FpgaToolError, match="JTAG init failed.*cable"):
        program.program_board(board, bitstream)


ENDLESS_TOOL = """#!/bin/sh
echo $$ > "$0.pid"
sleep 300 &
echo $! > "$0.child"
wait
"""
COMMAND = """
import sys
from celosia.boards import build
_, tool, folder = sys.argv
build.find_tool = lambda names, *, task: tool
sys.argv[:] = ["celosia", "build", "icebreaker", "--output", folder]
from celosia.sw.cli.app import main
main()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_build_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Neither its folder nor the tool, nor what the tool has started."""
    tool, folder = tmp_path / "tool", tmp_path / "boards"
    tool.write_text(ENDLESS_TOOL, encoding="utf-8")
    tool.chmod(0o755)
    command = [sys.executable, "-c", COMMAND, str(tool), str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            child = wait_for(tmp_path / "tool.child", process)
            parent = wait_for(tmp_path / "tool.pid", process)
            assert [path.name[:12] for path in folder.iterdir()] == [".icebreaker-"]
            process.send_signal(number)
            code = process.wait(timeout=SIGNAL_TIME_OUT_S)
        finally:
            process.kill()
    assert code == (128 + number if number is signal.SIGTERM else 130)
    assert list(folder.iterdir()) == []
    give_up = time.monotonic() + SIGNAL_TIME_OUT_S
    while any(is_running(number) for number in (parent, child)):
        assert time.monotonic() < give_up, "the tool still runs"
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_command_below_nohup_goes_on() -> None:
    """A signal that is ignored stays ignored."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from celosia.sw.cli.app import main\n"
        "sys.argv = ['celosia', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
        "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=START_TIME_OUT_S)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> int:
    """Return the number that a file gets."""
    give_up = time.monotonic() + START_TIME_OUT_S
    while not path.exists() or not path.read_text(encoding="utf-8").endswith("\n"):
        assert process.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return int(path.read_text(encoding="utf-8"))


def is_running(pid: int) -> bool:
    """Whether there is a process that has not ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
