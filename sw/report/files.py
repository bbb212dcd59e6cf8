"""Output files: written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.errors import CelosiaError

__all__ = ["STANDARD_OUTPUT", "require_writable", "write_arrays", "write_bytes", "write_json"]

STANDARD_OUTPUT = Path("-")
"""As a target of JSON."""


def require_writable(*paths: Path | None) -> None:
    """Check before the work begins that results can be written; None stands for "not asked for".

    Raises
    ------
    CelosiaError
        Naming the first path that cannot be written, and why.
    """
    for path in paths:
        if path is None:
            continue
        if path.is_dir():
            raise CelosiaError(f"cannot write {path}", "it is a folder", "give a file name")
        if not path.parent.is_dir():
            raise CelosiaError(
                f"cannot write {path}", f"there is no folder {path.parent}", "create it first"
            )
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise CelosiaError(
                f"cannot write {path}",
                f"the folder {path.parent} is not writable",
                "write to another folder",
            )


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one.

    Raises
    ------
    CelosiaError
        If it cannot be written; nothing is left behind then.
    """
    require_writable(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files that only their owner can read.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        cause = error.strerror or str(error)
        raise CelosiaError(f"cannot write {path}", cause, "write to another folder") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON; numpy scalars and arrays become numbers and lists.

    `STANDARD_OUTPUT` is no file of that name.
    """
    text = json.dumps(value, indent=2, default=_plain, allow_nan=False)
    if path == STANDARD_OUTPUT:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    else:
        write_bytes(path, f"{text}\n".encode())


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as ``.npz``, by name.

    TFLite's names contain ``/``, which a zip member may; numpy reads them back as they are.
    """
    buffer = io.BytesIO()
    # By keyword: names such as "file" would collide with savez's own parameters.
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type,unused-ignore]
    write_bytes(path, buffer.getvalue())


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
