"""What commands print, and where: ``--json -``, ``--quiet``, and what the shell completes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celosia.hw.contract.config import PRESETS
from celosia.sim.board.terminals import recorded, simulated_terminals
from celosia.sw.cli.app import COMMANDS
from celosia.sw.cli.completing import complete_config
from celosia.sw.report.example import load_digits
from serial.tools import list_ports

from tests.kit.command_line import run_cli


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELOSIA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "digits.tflite").write_bytes(load_digits().model)
    return tmp_path


RUN = ("run", "digits.tflite", "--device", "emu")


@pytest.mark.parametrize("command", [RUN, ("boards",), ("compile", "digits.tflite", "-o", "d.x")])
def test_json_on_standard_output_is_alone_there(command: tuple[str, ...]) -> None:
    result = run_cli(*command, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    assert len(result.stderr.splitlines()) > 1, "the tables are on standard error"
    assert not Path("-").exists()
    quiet = run_cli("--quiet", *command, "--json", "-")
    assert json.loads(quiet.stdout).keys() == json.loads(result.stdout).keys()
    assert quiet.stderr == ""


def test_quiet_leaves_what_was_asked_for_and_errors() -> None:
    for arguments in (("-q", *RUN), (*RUN, "--quiet")):
        result = run_cli(*arguments)
        assert result.exit_code == 0
        (line,) = result.stdout.splitlines()
        assert "class" in line
        assert result.stderr == ""
    # A report is left out, a listing is what the command is for.
    assert run_cli("compile", "digits.tflite", "-o", "d.celosia", "-q").output == ""
    assert "ulx3s" in run_cli("boards", "-q").stdout
    assert "ulx3s" in run_cli("fit", "digits.tflite", "-q").stdout
    assert "CONV_2D" in run_cli("analyze", "digits.tflite", "--quick", "-q").stdout
    failed = run_cli("-q", "run", "none.tflite")
    assert failed.exit_code == 2
    assert "none.tflite" in failed.stderr
    # What one command was told is over with it.
    assert len(run_cli(*RUN).stdout.splitlines()) > 2


def complete(words: str) -> list[str]:
    """Return what zsh would be offered behind some words, from a process as the shell starts it."""
    environment = os.environ | {"_CELOSIA_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
    script = Path(sys.executable).with_name("celosia")
    done = subprocess.run(
        [script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return [part.split('"')[0].replace("\\", "") for part in done.stdout.split('"')[1::2]]


def test_the_shell_completes_commands_presets_boards_and_devices() -> None:
    assert complete("celosia b") == [name for name in COMMANDS if name.startswith("b")]
    assert complete("celosia fit m.tflite --board ice") == ["icebreaker"]
    # The presets, and the ULX3S's own machine.
    assert complete_config("") == [*PRESETS, "ulx3s"]
    controller, terminal = pty.openpty()
    try:
        path = os.ttyname(terminal)
        with recorded(path, "icebreaker"):
            offered = complete("celosia run m.tflite --device ")
    finally:
        os.close(controller)
        os.close(terminal)
    assert {"emu", "sim", "netlist", "uart:auto", f"uart:{path}"} <= set(offered)


@pytest.fixture
def terminal() -> Iterator[str]:
    controller, line = pty.openpty()
    yield os.ttyname(line)
    os.close(controller)
    os.close(line)


def test_devices_lists_simulated_boards_and_drops_stale_records(
    terminal: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_ports, "comports", list)
    records = folder / "cache" / "terminals"
    with recorded(terminal, "icebreaker"):
        (entry,) = records.iterdir()
        content = json.loads(entry.read_text())
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        stale = {
            "a": json.dumps(content | {"pid": ended.pid}),
            "b": json.dumps(content | {"path": "/dev/pts/none"}),
            "c": json.dumps(content | {"path": str(folder)}),
            "d": json.dumps(content | {"pid": -1}),
            "e": "{",
        }
        for name, text in stale.items():
            (records / f"{name}.json").write_text(text)
        assert [found.path for found in simulated_terminals()] == [terminal]
        assert list(records.iterdir()) == [entry]
        # Nothing answers at this one: it is listed with what it should be.
        text = " ".join(run_cli("devices").stdout.replace("│", " ").split())
        assert f"uart:{terminal}" in text
        assert f"celosia board-sim icebreaker, process {os.getpid()}" in text
    assert list(records.iterdir()) == []
