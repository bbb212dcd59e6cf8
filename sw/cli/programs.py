"""The program that a command names: compiled first, or read from its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from celosia.errors import CelosiaError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sw.cli.common import HostChoice
from celosia.sw.program.file import Program

if TYPE_CHECKING:
    from celosia.sw.compiler.cost.times import MemoryTiming

__all__ = ["PROGRAM_SUFFIX", "program_of"]

PROGRAM_SUFFIX = ".celosia"


def program_of(
    model: Path,
    config: NpuConfig | None,
    *,
    fold: bool = False,
    batch: int = 1,
    host: HostChoice = HostChoice.ALLOW,
    resident: bool | None = None,
    memory: MemoryTiming | None = None,
    exact: bool = False,
) -> Program:
    """Return the program of a model, or of a file that ``celosia compile`` wrote.

    Parameters
    ----------
    model : Path
        A ``.tflite``, an ``.onnx`` or a ``.celosia`` file.
    config : NpuConfig, optional
        The machine; by default what the program was compiled for, or base.
    fold, batch, host, resident, memory, exact
        Of the compiler: a program has been compiled already.

    Raises
    ------
    CelosiaError
        If the file cannot be read or compiled, or the program is another than these ask for.
    """
    if model.suffix != PROGRAM_SUFFIX:
        from celosia.sw.compiler.build import compile_model

        return compile_model(
            model,
            config or preset("base"),
            fold=fold,
            batch=batch,
            host=host.value,
            resident=resident,
            memory=memory,
            exact=exact,
        )
    asked = (
        ("--fold", fold),
        ("--batch", batch > 1),
        ("--exact", exact),
        ("--resident", resident is not None),
    )
    for option, given in asked:
        if given:
            raise CelosiaError(
                option, f"{model} is compiled already", f"give {option} to celosia compile"
            )
    program = Program.load(model)
    if host is HostChoice.REFUSE and program.host_segments:
        raise CelosiaError(
            "--host refuse",
            f"{len(program.host_segments)} parts of {model} run on the host",
            "leave --host out, or compile the model with --host refuse to see why",
        )
    if config is not None:
        program.require(config)
    return program
