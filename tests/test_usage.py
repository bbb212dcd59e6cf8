"""Nothing public in the sources is there for tests alone: what only tests need is in tests/kit.

A name counts as used where code that is itself used mentions it: what runs when a module is
imported, the commands of the command line, and all that they lead to. Names are compared, not the
things behind them, so that a test cannot complain of what is used.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("hw", "sw", "sim", "boards", "examples")
KIT = "tests.kit"

ALLOWED = {
    # What README.md promises to those who import Celosia.
    "bench": "sw/celosia/__init__.py",
    "build": "sw/celosia/__init__.py",
    "check": "sw/celosia/__init__.py",
    "compile": "sw/celosia/__init__.py",
    "energy": "sw/celosia/__init__.py",
    "fit": "sw/celosia/__init__.py",
    "from_keras": "sw/celosia/__init__.py",
    "load_program": "sw/celosia/__init__.py",
    "open": "sw/celosia/__init__.py",
    # What docs/own_model.md promises of a device: the variables of the program that it has run.
    "Device.reset_state": "sw/driver/device.py",
    "Device.restore_state": "sw/driver/device.py",
    # The builder of models describes variables as completely as everything else.
    "ModelBuilder.assign_variable": "sim/models/tflite_builder.py",
    "ModelBuilder.into": "sim/models/tflite_builder.py",
    "ModelBuilder.read_variable": "sim/models/tflite_builder.py",
    "ModelBuilder.variable_tensor": "sim/models/tflite_builder.py",
    # The emulator without a driver: a command stream in memory, and run.
    "Emulator.load_code": "sim/emulator/machine.py",
    # What onnxruntime's tool asks for inputs.
    "Reader.get_next": "examples/shapes/make.py",
    # What a port of simulated time says of itself, beside its other counts.
    "UartRtl.unsent": "sim/board/uart_rtl.py",
    # The entry point in pyproject.toml; what Amaranth and typer call.
    "main": "sw/cli/app.py",
    "SpreadEnable.on_fragment": "hw/fabric/enable.py",
    "_Commands.list_commands": "sw/cli/app.py",
    "_Commands.get_command": "sw/cli/app.py",
    "_Commands.shell_complete": "sw/cli/app.py",
    "CommandGroup.make_context": "sw/cli/common.py",
}
"""What no other source mentions, and why it may stay."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Unit:
    """A piece of code: a definition, or what a module or a class does besides.

    Attributes
    ----------
    path, name : str
        The name is empty for a module's own code.
    mentions : frozenset of str
    within : str
        The class that it is in.
    """

    path: str
    name: str
    mentions: frozenset[str]
    within: str = ""


def mentions(*nodes: ast.AST) -> frozenset[str]:
    """Return the names and attributes in some code."""
    inside = [node for top in nodes for node in ast.walk(top)]
    return frozenset(
        [node.id for node in inside if isinstance(node, ast.Name)]
        + [node.attr for node in inside if isinstance(node, ast.Attribute)]
    )


def units(path: str, tree: ast.Module) -> Iterator[Unit]:
    """Yield the pieces of a module."""
    rest: list[ast.AST] = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            own: list[ast.AST] = [*node.bases, *node.keywords, *node.decorator_list]
            for inner in node.body:
                # What has underscores around it is called by Python.
                if isinstance(inner, Definition) and not inner.name.startswith("__"):
                    yield Unit(path, inner.name, mentions(inner), node.name)
                else:
                    own.append(inner)
            yield Unit(path, node.name, mentions(*own))
        elif isinstance(node, Definition) and not node.name.startswith("__"):
            yield Unit(path, node.name, mentions(node))
            rest += node.decorator_list
        elif not (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"):
            rest.append(node)
    yield Unit(path, "", mentions(*rest))


def unused() -> dict[str, str]:
    """Return what no used code mentions, with its file."""
    every = [
        unit
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for unit in units(str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(every) > 2000
    known = {name.split(".")[-1] for name in ALLOWED}
    waiting = list(every)
    while True:
        found = [unit for unit in waiting if unit.name in known or not unit.name]
        if not found:
            break
        waiting = [unit for unit in waiting if unit.name and unit.name not in known]
        known = known.union(*(unit.mentions for unit in found))
    return {f"{unit.within}.{unit.name}".lstrip("."): unit.path for unit in waiting}


def test_nothing_public_is_used_by_tests_alone() -> None:
    assert unused() == {}


def test_what_is_allowed_is_there() -> None:
    for name, path in ALLOWED.items():
        last = name.split(".")[-1]
        assert re.search(rf"\bdef {last}\b", (ROOT / path).read_text(encoding="utf-8")), name


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the modules that a source imports; relative ones with their dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_tests_import_from_the_kit_alone() -> None:
    paths = sorted((ROOT / "tests").rglob("*.py"))
    own = {path.stem for path in paths} - {"__init__"}
    against, from_kit = [], 0
    for path in paths:
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            first = name.split(".")[0]
            kit = f"{name}.".startswith(f"{KIT}.")
            from_kit += kit
            # A bare name finds a neighbour where Python puts a script's folder on its path.
            if not kit and (first in ("", "tests") or first in own):
                against.append(f"{path.relative_to(ROOT)} imports {name}")
    assert from_kit > 50
    assert not against


def test_folders_of_tests_are_those_of_the_sources() -> None:
    folders = {
        path.parent.relative_to(ROOT / "tests")
        for top in FOLDERS
        for path in (ROOT / "tests" / top).rglob("test_*.py")
    }
    assert len(folders) > 20
    assert not [folder for folder in sorted(folders) if not (ROOT / folder).is_dir()]
