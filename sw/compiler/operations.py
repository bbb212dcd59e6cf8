"""What the machine's vector engine lacks: said as a reason before a program is made."""

from __future__ import annotations

from celosia.errors import UnsupportedError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command
from celosia.hw.contract.legal import LACKING_REMEDY, lacking
from celosia.hw.contract.needed import operations_of
from celosia.sw.compiler.place.works import Work

__all__ = ["require_operations"]


def require_operations(
    commands: list[Command], layers: list[int], works: list[Work], config: NpuConfig
) -> None:
    """Refuse commands with an operation that the machine lacks.

    Parameters
    ----------
    commands : list of Command
    layers : list of int
        Of each command: the index of its work.
    works : list of Work
    config : NpuConfig

    Raises
    ------
    UnsupportedError
        Naming the first operator that cannot run, what it needs, and how many others there are.
    """
    problems: dict[int, str] = {}
    for command, layer in zip(commands, layers, strict=True):
        for operation in operations_of(command):
            if not config.can(operation):
                problems.setdefault(layer, lacking(operation, config))
    if problems:
        first, *others = problems
        more = f"; {len(others)} more cannot run either" if others else ""
        work = works[first]
        error = UnsupportedError(
            work.title,
            problems[first] + more,
            LACKING_REMEDY,
            op_index=work.op.origin.index,
            op_type=work.op.origin.name,
        )
        error.parts = tuple(
            UnsupportedError(works[layer].title, problem, op_index=works[layer].op.origin.index)
            for layer, problem in problems.items()
        )
        raise error
