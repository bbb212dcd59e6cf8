"""Imports go one way between the rooms of the house, those inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ground", "contract", "hw", "boards", "sim", "sw", "cli", "door")
"""From the bottom up: a room imports from itself and from those before it."""
FOLDERS = ("hw", "sw", "sim", "boards")


def room_of(module: str) -> str:
    """Return the room that a module is in."""
    match module.split("."):
        case ["celosia"]:
            return "door"
        case ["celosia", "hw", "contract", *_]:
            return "contract"
        case ["celosia", "sw", "cli", *_]:
            return "cli"
        case ["celosia", folder, *_] if folder in FOLDERS:
            return folder
    return "ground"


def module_of(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[2:] if parts[:2] == ("sw", "celosia") else parts
    return ".".join(("celosia", *parts)).removesuffix(".__init__")


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the names of Celosia's modules that a source imports, wherever in it."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # What is imported from a package that is not a room's inside may be a module.
            bare = node.module in ("celosia", *(f"celosia.{folder}" for folder in FOLDERS))
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = inside if bare else [node.module]
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            values = (
                argument.value for argument in node.args if isinstance(argument, ast.Constant)
            )
            assert not any(str(value).startswith("celosia") for value in values), (
                f"{ast.unparse(node)}: import it in the function, so that types are checked"
            )
        yield from (name for name in names if name.split(".")[0] == "celosia")


def test_imports_go_one_way() -> None:
    against, crossings = [], 0
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = module_of(path)
            for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
                here, there = ROOMS.index(room_of(module)), ROOMS.index(room_of(name))
                crossings += here != there
                if there > here:
                    against.append(f"{module} imports {name}")
    assert crossings > 300
    assert not against
