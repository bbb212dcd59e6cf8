"""Divides the program of a piece into what comes before a layer, the layer, and what comes after.

In a network a layer's weights come while the layers before it compute, and its activations are on
chip. So the weights and the inputs are loaded by programs of their own; the program that is
measured has the commands of the layer alone, and another one stores what it left on chip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from celosia.hw.contract.isa import Command, Engine, Load, Space, Store
from celosia.sw.program.file import Program
from celosia.sw.program.segments import NO_LAYER
from celosia.sw.program.verify import check_program
from celosia.sw.report.arrays.cut import ON_CHIP
from celosia.sw.report.arrays.resident import NotResidentError, make_resident

__all__ = ["Phases", "divide_program", "keep_commands"]


@dataclass(frozen=True, kw_only=True)
class Phases:
    """Programs that do the work of one together, to be run in this order.

    Attributes
    ----------
    inputs : Program or None
        Brings what the layer reads; None of the first layer, which loads the network's inputs.
    weights : Program or None
        Loads weights, parameters and a table; None if the weight memory does not have room for all
        of them: then the layer loads them.
    layer : Program
        The layer's own commands. Those of the last layer store its output.
    output : Program or None
        Stores what the layer has computed.
    """

    inputs: Program | None
    weights: Program | None
    layer: Program
    output: Program | None


def divide_program(program: Program, *, begins: bool, ends: bool) -> Phases:
    """Divide the program of a `celosia.sw.report.arrays.cut.Piece`.

    Parameters
    ----------
    program : Program
        From the compiler.
    begins, ends : bool
        Of the piece.
    """
    filling: Program | None = None
    try:
        variants = make_resident(program)
        filling, program = variants.filling, variants.resident
    except NotResidentError:
        pass
    brings = {i for i, layer in enumerate(program.layers) if layer.origin.name == ON_CHIP}

    def is_output(command: Command, layer: int) -> bool:
        return isinstance(command, Store) and not ends

    tables = sum(
        _loads(command, Space.TABLE) and layer not in brings
        for command, layer in zip(program.npu.decode(), program.npu.command_layers, strict=True)
    )

    def is_weights(command: Command, layer: int) -> bool:
        # Of several tables each would take the place of the one before it.
        own_table = tables == 1 and layer not in brings and _loads(command, Space.TABLE)
        return _loads(command, Space.WGT, Space.PARAM) or own_table

    def is_layer(command: Command, layer: int) -> bool:
        moved = filling is not None and is_weights(command, layer)
        return layer not in brings and not moved and not is_output(command, layer)

    return Phases(
        inputs=None if begins else keep_commands(program, lambda _, layer: layer in brings),
        weights=None if filling is None else keep_commands(filling, is_weights),
        layer=keep_commands(program, is_layer),
        output=None if ends else keep_commands(program, is_output),
    )


def _loads(command: Command, *spaces: Space) -> bool:
    return isinstance(command, Load) and command.space in spaces


def keep_commands(program: Program, keep: Callable[[Command, int], bool]) -> Program:
    """Return the program with some of its commands, and the tokens that these give one another.

    Parameters
    ----------
    program : Program
        Of one segment.
    keep : function
        Says of a command and the number of its layer whether it stays.

    Raises
    ------
    ProgramError
        If what is left could get stuck, or its result depends on timing.
    """
    *commands, end = program.npu.decode()
    layers = program.npu.command_layers
    kept = [keep(command, layers[tag]) for tag, command in enumerate(commands)]
    waits, signals = [0] * len(commands), [0] * len(commands)
    for giver in Engine:
        for taker in Engine:
            for one, other in _pairs(commands, giver, taker):
                if kept[one] and kept[other]:
                    signals[one] |= 1 << taker
                    waits[other] |= 1 << giver
    chosen = [tag for tag, stays in enumerate(kept) if stays]
    made = [
        replace(commands[old], tag=new, wait=waits[old], signal=signals[old])
        for new, old in enumerate(chosen)
    ]
    code = b"".join(command.encode() for command in (*made, replace(end, tag=len(made))))
    owners = (*(layers[old] for old in chosen), NO_LAYER)
    result = program.with_npu(commands=code, command_layers=owners)
    check_program(result)
    return result


def _pairs(commands: Sequence[Command], giver: Engine, taker: Engine) -> list[tuple[int, int]]:
    """Return giver and taker of each token: the n-th wait takes the n-th signal."""
    gives = [i for i, c in enumerate(commands) if c.engine is giver and c.signal >> taker & 1]
    takes = [i for i, c in enumerate(commands) if c.engine is taker and c.wait >> giver & 1]
    return list(zip(gives, takes, strict=True))
