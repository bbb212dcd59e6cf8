"""The tables of ``docs/uart.md``, from the protocol's declarations in ``hw/contract/uart.py``."""

from __future__ import annotations

import inspect
import re
from enum import IntEnum

from celosia.hw.contract import uart as protocol
from celosia.hw.contract.uart import REPLY, Flag, Kind, Status, has_payload, is_sequenced

__all__ = ["BEGIN", "END", "protocol_tables", "with_protocol_tables"]

BEGIN = "<!-- Generated from hw/contract/uart.py by sw/docgen/uart.py; do not edit. -->"
END = "<!-- End of what is generated. -->"


def _notes(enum: type[IntEnum]) -> dict[str, str]:
    """Return what stands below each member in the source."""
    pattern = r'^    (\w+) = \w+\n    """(.*?)"""'
    found = re.findall(pattern, inspect.getsource(enum), re.M | re.S)
    return {name: " ".join(text.split()) for name, text in found}


def protocol_tables() -> str:
    """Return the generated part of ``docs/uart.md``, its first and last line included."""
    notes = _notes(Kind)
    lines = [
        BEGIN,
        "",
        f"Version {protocol.PROTOCOL_VERSION >> 16}.{protocol.PROTOCOL_VERSION & 0xFFFF}.",
        "",
        "| type | request | sequenced | payload | |",
        "|--:|---|---|---|---|",
    ]
    for kind in Kind:
        sequenced = "yes" if is_sequenced(kind) else "no"
        payload = "`count` words" if has_payload(kind) else "none"
        lines.append(
            f"| 0x{kind.value:02x} | {kind.name} | {sequenced} | {payload} | {notes[kind.name]} |"
        )
    lines += [
        "",
        f"The type of a reply is that of its request plus 0x{REPLY:02x}; the event has type"
        f" 0x{protocol.EVENT:02x}.",
        "",
        "| status | name | |",
        "|--:|---|---|",
    ]
    notes = _notes(Status)
    lines += [f"| {code.value} | {code.name} | {notes.get(code.name, '')} |" for code in Status]
    notes = _notes(Flag)
    lines += [f"| bit {f.value.bit_length() - 1} | {f.name} | {notes[f.name]} |" for f in Flag]
    lines += [
        "",
        "| constant | value |",
        "|---|--:|",
        f"| default rate | {protocol.DEFAULT_BAUD} baud |",
        f"| bits of the phase accumulator | {protocol.PHASE_BITS} |",
        f"| words of an identification | {protocol.IDENTITY_WORDS} |",
        f"| words of the state | {protocol.STATE_WORDS} |",
        f"| words of one CHECKSUM | {protocol.CHECKSUM_MAX_WORDS} at most |",
        "",
        END,
    ]
    return "\n".join(lines) + "\n"


def with_protocol_tables(page: str) -> str:
    """Return a page with its generated part made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + protocol_tables().rstrip("\n") + after
