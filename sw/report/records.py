"""Records of figures that take long to measure: JSON files, by name, that documents are made from.

They are in ``docs/figures``. The command that measures a figure puts it there (``--record``), and
``make docs`` writes it wherever a document cites it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from celosia.errors import CelosiaError
from celosia.sw.report.files import write_bytes

__all__ = ["damaged_record", "put_entry", "read_entries"]


def read_entries(path: Path) -> dict[str, Any]:
    """Return a record's entries by name; none if there is no such file.

    Raises
    ------
    CelosiaError
        If the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        return content
    except (OSError, ValueError) as error:
        raise damaged_record(path, str(error)) from None


def damaged_record(path: Path, cause: str) -> CelosiaError:
    """Make the error for a record that cannot be read; the caller raises it."""
    return CelosiaError(f"record {path}", cause, "measure anew into another file")


def put_entry(path: Path, name: str, value: Any) -> None:
    """Put a figure into a record, in place of the older one of this name.

    Raises
    ------
    CelosiaError
        If the record is damaged or cannot be written.
    """
    entries = dict(sorted((read_entries(path) | {name: value}).items()))
    text = json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())
