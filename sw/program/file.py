"""The program file: everything that is needed to run a compiled model.

The format is described in ``docs/program_file.md``. What a program is stands in
`celosia.sw.program.contents`, what its file holds in `celosia.sw.program.encode` and
`celosia.sw.program.decode`.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from celosia.errors import ProgramError, printable
from celosia.hw.contract.isa import COMMAND_BYTES
from celosia.sw.program.contents import Contents
from celosia.sw.program.decode import decode
from celosia.sw.program.encode import encode
from celosia.sw.program.remedies import REBUILD

__all__ = ["Program"]

MAX_FILE_BYTES = 128 << 20


@dataclass(frozen=True, kw_only=True)
class Program(Contents):
    """A compiled program: what it is (`Contents`), to and from a file."""

    def __repr__(self) -> str:
        """Return one line: a program is megabytes."""
        code, constants = (
            sum(len(getattr(segment, part)) for segment in self.npu_segments)
            for part in ("commands", "constants")
        )
        host = len(self.segments) - len(self.npu_segments)
        parts = f"{len(self.segments)} segment{'s' * (len(self.segments) != 1)}"
        return (
            f"<Program {printable(self.model)} for {printable(self.config.name)}"
            f"{f', batch {self.batch}' if self.batch > 1 else ''}: {parts}"
            f"{f' ({host} on the host)' if host else ''}, {code // COMMAND_BYTES} commands,"
            f" {constants:,} bytes of constants, {self.predicted_cycles:,} cycles predicted>"
        )

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return encode(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a reader sees the old file or the whole new one, never a part.

        Raises
        ------
        OSError
            If the folder cannot be written.
        """
        target = Path(path)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(self.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner can read.
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, check: bool = True) -> Self:
        """Read a file.

        Parameters
        ----------
        path : path
            Of the file.
        check : bool
            Refuse what the static check refuses (`celosia.sw.program.verify`). Without it the
            program is to be looked at, not run.

        Raises
        ------
        ProgramError
            If the file cannot be read, is damaged, or is of a version that is not known.
        """
        what = f"program file {os.fspath(path)}"
        try:
            with open(path, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ProgramError(what, "it is no regular file", "check the path")
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ProgramError(what, error.strerror or str(error), "check the path") from None
        except ValueError as error:  # a path with a zero byte
            raise ProgramError(what, str(error), "check the path") from None
        if len(data) > MAX_FILE_BYTES:
            raise ProgramError(what, f"it has more than {MAX_FILE_BYTES} bytes", REBUILD)
        program = cls.from_bytes(data, os.fspath(path))
        if check:
            # Late: what only makes programs does without the check.
            from celosia.sw.program.verify import check_program

            check_program(program)
        return program

    @classmethod
    def from_bytes(cls, data: bytes, source: str = "program") -> Self:
        """Return the program that `data` holds; `source` names it in errors.

        Raises
        ------
        ProgramError
            If the data is damaged, or of a version that is not known.
        """
        return decode(cls, data, source)
