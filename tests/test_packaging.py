"""What is installed: one namespace, `celosia`, mapped onto the top-level folders."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from celosia.version import VERSION

from tests.kit.places import tracked_files

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
MAPPING: dict[str, str] = SETUPTOOLS["package-dir"]
FOLDERS = ("hw", "sw", "sim", "boards", "examples")

# A home folder, a scratch folder or a drive: a path of somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.$~])(/home/\w|/root/|/tmp/\w|/work/|/Users/\w|[A-Z]:\\\\)")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".cpp", ".h", ".txt", ".cfg", ""}


def sources() -> list[Path]:
    """Return the project's files, without what tools leave behind."""
    return [path for path in tracked_files() if path.suffix in TEXT_SUFFIXES]


def packages_in_tree() -> set[str]:
    """Return the packages that the mapped folders hold: every folder with an ``__init__.py``."""
    found = set()
    for package, folder in MAPPING.items():
        top = ROOT / folder
        for init in top.rglob("__init__.py"):
            inside = init.parent.relative_to(top)
            if package == "celosia.sw" and inside.parts[:1] == ("celosia",):
                continue  # the namespace's own __init__, mapped separately
            found.add(".".join((package, *inside.parts)))
    return found


def test_the_list_of_packages_is_the_tree() -> None:
    assert sorted(SETUPTOOLS["packages"]) == sorted(packages_in_tree())


def test_the_version_is_the_one_that_is_shown() -> None:
    module, _, name = SETUPTOOLS["dynamic"]["version"]["attr"].rpartition(".")
    assert getattr(import_module(module), name) == VERSION
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert PROJECT["project"]["dynamic"] == ["version"]


def test_every_python_that_is_promised_is_tested() -> None:
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    matrix = re.search(r"^ *python: \[(.*)\]$", workflow, re.MULTILINE)
    assert matrix is not None
    tested = re.findall(r"[\d.]+", matrix[1])
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert tested == promised
    assert PROJECT["project"]["requires-python"] == f">={promised[0]}"


def test_every_folder_with_python_is_a_package() -> None:
    without = [
        str(path.parent.relative_to(ROOT))
        for folder in ("hw", "sw", "sim", "boards")
        for path in (ROOT / folder).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    ]
    assert not without


def test_every_top_level_folder_is_mapped() -> None:
    assert {f"celosia.{name}": name for name in FOLDERS} | {"celosia": "sw/celosia"} == MAPPING


@pytest.mark.parametrize("package", sorted(SETUPTOOLS["packages"]))
def test_package_comes_from_this_tree(package: str) -> None:
    # The gateware needs Amaranth, everything else must do without.
    if package.startswith("celosia.hw."):
        pytest.importorskip("amaranth")
    longest = max((name for name in MAPPING if f"{package}.".startswith(f"{name}.")), key=len)
    inside = package.removeprefix(longest).lstrip(".").replace(".", "/")
    module = import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / MAPPING[longest] / inside


@pytest.mark.parametrize("name", FOLDERS)
def test_bare_import_is_an_error(name: str, tmp_path: Path) -> None:
    for folder, message in (
        (tmp_path, f"No module named '{name}'"),
        (ROOT, f"import celosia.{name}, not {name}"),  # where Python finds the folder
    ):
        result = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode != 0
        assert message in result.stderr


def test_no_source_imports_a_bare_folder() -> None:
    bare = re.compile(rf"^\s*(?:from|import)\s+(?:{'|'.join(FOLDERS)})\b(?!\s*=)", re.MULTILINE)
    guilty = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.suffix == ".py" and bare.search(path.read_text(encoding="utf-8"))
    ]
    assert not guilty


def test_software_and_contract_do_without_amaranth() -> None:
    contract = [f"celosia.hw.contract.{path.stem}" for path in (ROOT / "hw/contract").glob("*.py")]
    names = [
        "celosia",
        *(name.removesuffix(".__init__") for name in contract),
        "celosia.sw.cli.app",
        "celosia.sw.program.file",
        "celosia.sim.emulator.machine",
        "celosia.sw.driver.uart.device",
        "celosia.sim.board.served_line",
    ]
    script = (
        "import sys, importlib; sys.modules['amaranth'] = None\n"
        f"for name in {names}: importlib.import_module(name)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_machine_paths() -> None:
    this = Path(__file__).resolve()
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        if path != this
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_examples_are_shipped() -> None:
    patterns = SETUPTOOLS["package-data"]["celosia.examples"]
    shipped = {path for pattern in patterns for path in (ROOT / "examples").glob(pattern)}
    models = {
        path
        for ending in ("tflite", "onnx")
        for path in (ROOT / "examples").rglob(f"*_int8.{ending}")
    }
    inputs = {*(ROOT / "examples").rglob("*.np[yz]")}
    # A licence goes wherever what it is of goes.
    assert shipped >= models | inputs | set((ROOT / "examples").rglob("LICENSE"))
    assert len(models) >= 7


def test_readme_names_the_operators_that_are_supported() -> None:
    from celosia.sw.compiler.ops.registry import SUPPORTED

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Operators") : text.index("## Layout")]
    named = set(re.findall(r"\b[A-Z][A-Z0-9_]{2,}\b", section)) - {"BUILTIN_REF", "NPU", "ONNX"}
    assert named == set(SUPPORTED)


def test_files_that_texts_name_exist() -> None:
    named = re.compile(r"`((?:hw|sw|sim|boards|tests|examples)/[\w/.]*)`")
    missing = [
        f"{path.relative_to(ROOT)} names {name}"
        for path in sources()
        for name in named.findall(path.read_text(encoding="utf-8", errors="replace"))
        if not (ROOT / name).exists()
    ]
    assert not missing


def test_files_that_code_names_exist() -> None:
    """Code spells the path of a project's file in one piece: so a renaming finds it."""
    whole = re.compile(
        r"(?<![\w./])(?:docs|hw|sw|sim|boards|tests|examples)(?:/[\w-]+)+\.(?:py|md|cpp|h|v|json)\b"
    )
    pieces = re.compile(r'/ "(?:docs|hw|sw|sim|boards|tests|examples)" / f?"')
    missing, named = [], 0
    for path in sources():
        if path.suffix != ".py":
            continue
        text = path.read_text(encoding="utf-8")
        here = path.relative_to(ROOT)
        missing += [f"{here} makes a path of {piece}..." for piece in pieces.findall(text)]
        for name in whole.findall(text):
            named += 1
            missing += [] if (ROOT / name).exists() else [f"{here} names {name}"]
    assert named > 40
    assert not missing
