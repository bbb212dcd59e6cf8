"""Writes everything in README.md and docs/ that is generated; ``make docs`` runs it.

Whole pages (`DOCUMENTS`) come from the schemas in `celosia.hw` and the compiler's records. In the
other pages the figures are written anew (`celosia.sw.docgen.marks`): cheap ones are worked out,
those that take long come from the records in ``docs/figures``. A second run changes nothing; a test
holds the committed files against it.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from celosia.hw.contract import isa, regs
from celosia.hw.contract.isa import COMMANDS, Command, FieldSpec, fields_of
from celosia.hw.contract.regs import REGISTERS, Register, RegisterField
from celosia.sw.docgen.figures import Figures
from celosia.sw.docgen.header import c_header
from celosia.sw.docgen.marks import marks_of, render
from celosia.sw.docgen.operators import operators_page
from celosia.sw.docgen.parts import parts_page
from celosia.sw.docgen.picture import compiler_picture
from celosia.sw.docgen.sources import Sources
from celosia.sw.docgen.uart import with_protocol_tables
from celosia.sw.docgen.walk import walk_of

__all__ = ["DOCUMENTS", "ROOT", "c_header", "isa_page", "main", "marked_pages", "registers_page"]

ROOT = Path(__file__).resolve().parents[2]
"""The source tree."""

_ENUMS: tuple[type[IntEnum], ...] = (
    isa.Engine,
    isa.Region,
    isa.Space,
    isa.Mode,
    isa.Rounding,
    isa.VectorOp,
)


def isa_page() -> str:
    """Return ``docs/isa.md``: every command with its fields, and the enumerations."""
    lines = [
        "<!-- Generated from hw/contract/isa.py by sw/docgen/pages.py; do not edit. -->",
        "# The instruction set",
        "",
        f"Version {isa.FORMAT_VERSION}. A program is a stream of commands of"
        f" {isa.COMMAND_BYTES} bytes in region CODE, which the machine fetches by itself and runs"
        " to its `End`. A command is one little-endian number; its fields begin at the bits given"
        " here, bits that belong to no field are zero, signed fields are two's complement."
        " Everything else about the machine is in [machine.md](machine.md), the arithmetic in"
        " [arithmetic.md](arithmetic.md).",
        "",
        "The version changes where a command that was legal comes to mean something else. A code or"
        " a bit that was refused may be given a meaning without: old programs do not have it. What"
        " a machine can do of it its register `capability3` says ([registers.md](registers.md)).",
        "",
        "| opcode | command | engine | |",
        "|--:|---|---|---|",
    ]
    for opcode, kind in COMMANDS.items():
        engine = opcode >> 4
        name = isa.Engine(engine - 1).name if engine else "dispatcher"
        lines.append(
            f"| 0x{opcode:02x} | [{kind.__name__}](#{kind.__name__.lower()}) | {name} |"
            f" {kind.SUMMARY} |"
        )
    lines += [
        "",
        "A command waits for one token of every engine in `wait`, and gives one to every engine in"
        " `signal` when it is complete.",
        "",
    ]
    for kind in COMMANDS.values():
        lines += _command_section(kind)
    lines += ["## Enumerations", ""]
    for enum in _ENUMS:
        lines += _enum_section(enum)
    return "\n".join(lines).rstrip() + "\n"


def _command_section(kind: type[Command]) -> list[str]:
    lines = [f"## {kind.__name__}", "", *_docstring(kind), ""]
    lines += ["| bits | field | range | |", "|--:|---|---|---|"]
    for spec in fields_of(kind):
        lines.append(
            f"| {_bits(spec.offset_bits, spec.width_bits)} | `{spec.name}` | {_range(kind, spec)} |"
            f" {spec.doc} |"
        )
    used = sum(spec.width_bits for spec in fields_of(kind))
    if used < isa.COMMAND_BITS:
        lines.append(f"| {_bits(used, isa.COMMAND_BITS - used)} | | 0 | reserved |")
    return [*lines, ""]


def _docstring(kind: type[Command]) -> list[str]:
    """Return a docstring as Markdown: its literal blocks become fenced ones."""
    result: list[str] = []
    fenced = False
    for line in inspect.cleandoc(kind.__doc__ or "").splitlines():
        if fenced and line and not line.startswith(" "):
            result[-1:] = ["```", ""]
            fenced = False
        if line.endswith("::"):
            result += [line[:-1], "", "```"]
            fenced = True
        elif not (fenced and not line and result[-1] == "```"):
            result.append(line)
    if fenced:
        result.append("```")
    return [re.sub(r":class:`(?:[^`]*\.)?([^`.]+)`", r"`\1`", line) for line in result]


def _enum_section(enum: type[IntEnum]) -> list[str]:
    # A member's own docstring stands after it in the source and is not kept at run time.
    notes = dict(re.findall(r'^    (\w+) = \w+\n    """(.*?)"""', inspect.getsource(enum), re.M))
    lines = [f"### {enum.__name__}", "", *inspect.cleandoc(enum.__doc__ or "").splitlines(), ""]
    lines += ["| value | name | |", "|--:|---|---|"]
    lines += [f"| {m.value} | {m.name} | {notes.get(m.name, '')} |" for m in enum]
    return [*lines, ""]


def _bits(offset_bits: int, width_bits: int) -> str:
    last = offset_bits + width_bits - 1
    return f"{offset_bits}" if width_bits == 1 else f"{last}:{offset_bits}"


def _range(kind: type[Command], spec: FieldSpec) -> str:
    if spec.name == "opcode":
        return f"0x{kind.OPCODE:02x}"
    if spec.enum is not None:
        return f"[{spec.enum.__name__}](#{spec.enum.__name__.lower()})"
    least = spec.minimum if spec.least is None else spec.least
    whole = f", multiples of {spec.multiple_of}" if spec.multiple_of > 1 else ""
    words = ", whole bus words off ACT" if spec.whole_words and kind is not isa.Store else ""
    return f"{least} to {spec.maximum}{whole}{words}"


def registers_page() -> str:
    """Return ``docs/registers.md``: the register map and the causes of errors."""
    lines = [
        "<!-- Generated from hw/contract/regs.py by sw/docgen/pages.py; do not edit. -->",
        "# The registers",
        "",
        f"Version {regs.VERSION >> 16}.{regs.VERSION & 0xFFFF} of the hardware interface. Registers"
        " are 32 bits wide; addresses are byte offsets in the Wishbone target. C names are in"
        " [celosia_regs.h](celosia_regs.h).",
        "",
        "| address | register | |",
        "|--:|---|---|",
    ]
    lines += [f"| 0x{r.address:02x} | `{r.name}` | {r.doc} |" for r in REGISTERS]
    lines += ["", "Access: " + "; ".join(f"{a.name}: {a.value}" for a in regs.ACCESS) + ".", ""]
    lines += ["## Fields", "", "A register that is not listed here is one field.", ""]
    lines += ["| register | bits | field | access | |", "|---|--:|---|---|---|"]
    lines += [_field_row(r, f) for r in REGISTERS for f in r.fields if f.width_bits < 32]
    lines += ["", "## Causes of errors", "", "| value | name |", "|--:|---|"]
    lines += [f"| {cause.value} | {cause.name} |" for cause in regs.ErrorCause]
    return "\n".join(lines) + "\n"


def _field_row(register: Register, field: RegisterField) -> str:
    return (
        f"| `{register.name}` | {_bits(field.offset_bits, field.width_bits)} | `{field.name}` |"
        f" {field.access.name} | {field.doc} |"
    )


def picture() -> str:
    """Return ``docs/compiler.svg``."""
    return compiler_picture(walk_of(Sources(ROOT)))


DOCUMENTS: dict[str, Callable[[], str]] = {
    "isa.md": isa_page,
    "registers.md": registers_page,
    "operators.md": operators_page,
    "parts.md": parts_page,
    "celosia_regs.h": c_header,
    "compiler.svg": picture,
}
"""What is generated as a whole: file name in ``docs`` to the function that returns its text."""


def marked_pages(root: Path = ROOT) -> list[Path]:
    """Return the pages with figures in them."""
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return [page for page in pages if marks_of(page.read_text(encoding="utf-8"))]


def main(arguments: list[str] | None = None) -> None:
    """Write every generated document, and the figures in the others."""
    parser = argparse.ArgumentParser(description="Write what is generated in README.md and docs/.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="where to write the documents that are generated as a whole, and nothing else"
        " (default: all of the source tree)",
    )
    folder: Path | None = parser.parse_args(arguments).folder
    for name, generate in DOCUMENTS.items():
        _write((folder or ROOT / "docs") / name, generate())
    if folder is not None:
        return
    link = ROOT / "docs/uart.md"
    _write(link, with_protocol_tables(link.read_text(encoding="utf-8")))
    figures, problems = Figures(ROOT), list[str]()
    for page in marked_pages():
        _write(page, render(page.read_text(encoding="utf-8"), figures, problems))
    for problem in problems:
        print(problem, file=sys.stderr)


def _write(path: Path, text: str) -> None:
    """Write a file if that changes it, and say so."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.write_text(text, encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
