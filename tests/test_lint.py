"""The sources pass the linters: ruff, mypy (strict) and codespell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIME_OUT_S = 300
PACKAGES = ("celosia.hw", "celosia.sw", "celosia.sim", "celosia.boards", "tests.kit")
"""What is annotated throughout."""


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a tool from this interpreter's environment; fail with what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=TIME_OUT_S,
        check=False,
    )
    if result.returncode:
        pytest.fail(f"{' '.join(command)}\n{result.stdout}{result.stderr}", pytrace=False)


def test_ruff_check() -> None:
    run("ruff", "check", ".")


def test_ruff_format() -> None:
    run("ruff", "format", "--check", ".")


def test_codespell() -> None:
    run("codespell_lib", ".")


def namespace_tree(root: Path) -> None:
    """Lay the top-level folders out as the installed namespace, and the tests' kit beside it.

    mypy reads files, not the installed package's import hooks: it has to find ``celosia.hw`` as
    ``celosia/hw``.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    mapping: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
    shutil.rmtree(root, ignore_errors=True)
    top = root / "celosia"
    top.mkdir(parents=True)
    for package, folder in mapping.items():
        if package == "celosia":
            for entry in (ROOT / folder).glob("*.py"):
                (top / entry.name).symlink_to(entry)
            continue
        target = top / package.removeprefix("celosia.")
        target.mkdir()
        for entry in (ROOT / folder).iterdir():
            # sw/celosia is the namespace's own __init__, above; it is no part of celosia.sw.
            if entry != ROOT / mapping["celosia"] and entry.name != "__pycache__":
                (target / entry.name).symlink_to(entry)
    (root / "tests").mkdir()
    (root / "tests/kit").symlink_to(ROOT / "tests/kit")


def test_mypy_strict() -> None:
    tree = ROOT / "build" / "mypy"
    namespace_tree(tree)
    run(
        "mypy",
        "--config-file",
        "pyproject.toml",
        "--cache-dir",
        "build/mypy_cache",
        *(word for package in PACKAGES for word in ("-p", package)),
        environment={"MYPYPATH": str(tree)},
    )
