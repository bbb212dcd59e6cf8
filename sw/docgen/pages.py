"""Generates the reference pages and the C header from the schemas in `celosia.hw`.

``python -m celosia.sw.docgen.pages`` writes ``docs/isa.md``, ``docs/registers.md``,
``docs/operators.md``, ``docs/parts.md`` and ``docs/celosia_regs.h`` of the source tree, and the
tables in ``docs/uart.md``; a test holds the committed files against it.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from celosia.hw.contract import isa, regs
from celosia.hw.contract.isa import COMMANDS, Command, FieldSpec, fields_of
from celosia.hw.contract.regs import REGISTERS, Register, RegisterField
from celosia.sw.docgen.header import c_header
from celosia.sw.docgen.operators import operators_page
from celosia.sw.docgen.parts import parts_page
from celosia.sw.docgen.uart import with_protocol_tables

__all__ = ["DOCUMENTS", "c_header", "isa_page", "main", "registers_page"]

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


DOCUMENTS: dict[str, Callable[[], str]] = {
    "isa.md": isa_page,
    "registers.md": registers_page,
    "operators.md": operators_page,
    "parts.md": parts_page,
    "celosia_regs.h": c_header,
}
"""What is generated: file name in ``docs`` to the function that returns its text."""


def main(arguments: list[str] | None = None) -> None:
    """Write every generated document."""
    parser = argparse.ArgumentParser(description="Generate the reference pages and the C header.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(__file__).resolve().parents[2] / "docs",
        help="where to write (default: docs of the source tree)",
    )
    folder: Path = parser.parse_args(arguments).folder
    for name, generate in DOCUMENTS.items():
        (folder / name).write_text(generate(), encoding="utf-8")
        print(folder / name)
    link = folder / "uart.md"
    if link.exists():
        text = link.read_text(encoding="utf-8")
        link.write_text(with_protocol_tables(text), encoding="utf-8")
        print(link)


if __name__ == "__main__":
    main()
