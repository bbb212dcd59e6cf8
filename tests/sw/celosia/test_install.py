"""What is printed has its brackets, and the advice to install fits the installation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from celosia import install
from celosia.errors import CelosiaError
from celosia.install import install_advice
from celosia.sw.cli import tools as cli_tools
from celosia.sw.cli.app import app
from celosia.sw.cli.common import error_console, output_console, show_error
from celosia.sw.report.example import load_digits
from rich.table import Table
from typer.testing import CliRunner

from tests.kit.places import ROOT

TEXTS = ("celosia[sim]", "[red]a[/red]", "a[/]", "[1, 2]", "back\\[slash]", ":smile: [/nothing]")


def test_a_checkout_is_installed_from_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert install_advice("sim") == 'run: pip install ".[sim]"'
    monkeypatch.chdir(tmp_path)
    assert install_advice("sim,boards") == f'run: pip install "{ROOT}[sim,boards]"'


def test_an_installed_package_is_installed_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    assert install_advice("sim") == 'run: pip install "celosia[sim]"'
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n', encoding="utf-8")
    assert install_advice("sim") == 'run: pip install "celosia[sim]"'


@pytest.mark.parametrize("text", TEXTS)
def test_errors_are_printed_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_error(CelosiaError(text, f"cause {text}", f"do {text}"))
    assert capsys.readouterr().err == f"error: {text}: cause {text}\n  Do {text}\n"


@pytest.mark.parametrize("text", TEXTS)
def test_consoles_print_lines_and_tables_as_they_are(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for console in (output_console, error_console):
        table = Table(title=text, box=None)
        table.add_column(text, min_width=30, no_wrap=True)
        table.add_row(text)
        console().print(text)
        console().print(table)
        captured = capsys.readouterr()
        found = [line.strip() for line in (captured.out + captured.err).splitlines()]
        assert found == [text] * 4


def test_info_and_devices_print_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ROOT", Path("/nowhere"))

    def missing() -> Any:
        raise CelosiaError("x", "Yosys is not installed", install_advice("sim"))

    monkeypatch.setattr(cli_tools, "_found", lambda find: f"none: {install_advice('sim')}")
    assert '"celosia[sim]"' in CliRunner().invoke(app, ["info"]).output
    monkeypatch.setattr("celosia.toolchain.missing_tools", lambda: install_advice("sim"))
    output = CliRunner().invoke(app, ["devices"]).output
    assert "celosia[sim]" in re.sub(r"\s+", "", output.replace("│", " "))


def test_a_model_with_brackets_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "digits[v2].tflite"
    path.write_bytes(load_digits().model)
    for arguments in (["compile", str(path), "-o", str(tmp_path / "o[v3].celosia")],
                      ["run", str(path), "--device", "emu"]):  # fmt: skip
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert "[v" in result.output
