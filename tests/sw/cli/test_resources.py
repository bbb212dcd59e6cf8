"""``celosia resources`` and ``clock``: refusals, help, and how nextpnr's report is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celosia.boards.fpga import clock, resources
from celosia.boards.fpga.tools import FpgaToolError
from celosia.install import install_advice

from tests.kit.command_line import run_cli


@pytest.mark.parametrize("command", ["resources", "clock"])
def test_help_has_examples(command: str) -> None:
    result = run_cli(command, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert f"celosia {command}" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resources", "--family", "ice40"], ["ice40", "no such family", "ecp5"]),
        (["resources", "--config", "huge"], ["huge", "nano"]),
        (["resources", "--json", "no/r.json"], ["no/r.json", "no folder no"]),
        (["clock", "--device", "LFE5U-12F"], ["LFE5U-12F", "LFE5U-85F"]),
        (["clock", "--speed", "9"], ["--speed", "8"]),
    ],
)
def test_bad_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_cli(*arguments)
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    for word in words:
        assert word in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        ("resources", resources, "YOSYS"),
        ("clock", clock, "YOSYS"),
        ("clock", clock, "NEXTPNR_ECP5"),
    ],
)
def test_missing_tool_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, command: str, module: Any, name: str
) -> None:
    monkeypatch.setattr(module, name, ("no-such-tool",))
    # The tools are looked for before anything is generated for them.
    result = run_cli(command, "--config", "nano")
    assert result.exit_code == 2
    assert "no-such-tool is not installed" in result.stderr
    assert install_advice("boards")[5:] in result.stderr


def step(kind: str, delay: float, start: str, end: str, net: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": kind,
        "delay": delay,
        "from": {"cell": start, "port": "Q"},
        "to": {"cell": end, "port": "DI"},
    }
    return entry | ({"net": net} if net else {})


def test_report_is_read() -> None:
    inside = [
        step("clk-to-q", 0.5, "a", "a"),
        step("routing", 2.0, "a", "lut", "n1"),
        step("logic", 0.25, "lut", "lut"),
        step("routing", 1.5, "lut", "b", "n2"),
        step("setup", 0.0, "b", "b"),
    ]
    content = {
        "fmax": {"clk": {"achieved": 235.3, "constraint": 80.0}},
        "critical_paths": [
            {"from": "<async>", "to": "posedge clk", "path": [step("routing", 9.0, "p", "q", "x")]},
            {"from": "posedge clk", "to": "posedge clk", "path": inside},
        ],
        "utilization": {"TRELLIS_FF": {"used": 7, "available": 9}, "DCUA": {"used": 0}},
    }
    found = clock.read_report(content, config="nano", device="LFE5U-25F", speed=6, seed=1)
    assert found.fmax_mhz == 235.3
    assert found.utilisation == {"TRELLIS_FF": 7}
    assert found.critical.logic_ns == 0.75
    assert found.critical.routing_ns == 3.5
    assert found.critical.delay_ns == 4.25
    assert found.critical.nets == ("n1", "n2")
    assert (found.critical.start, found.critical.end) == ("a.Q", "b.DI")


def test_report_without_a_path_is_an_error() -> None:
    with pytest.raises(FpgaToolError, match="no path between registers"):
        clock.read_report({}, config="nano", device="LFE5U-25F", speed=6, seed=1)
