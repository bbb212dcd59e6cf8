"""Generates ``docs/parts.md`` from the parts and operations of the hardware contract."""

from __future__ import annotations

from celosia.hw.contract.config import FIRMWARE_OPERATIONS, PRESETS
from celosia.hw.contract.operations import OPERATIONS, Operation
from celosia.hw.contract.parts import Part

__all__ = ["parts_page"]

_TERMS = "addresses of a second tensor and its terms, if nothing else has them"

_OWN_HARDWARE = {
    Operation.SOFTMAX: "the softmax unit; the tables, if there is no TABLE either",
    Operation.TABLE: "the tables, if there is no SOFTMAX either",
    Operation.ADD: _TERMS,
    Operation.REQUANT_ADD: _TERMS,
    Operation.MUL: f"{_TERMS}; and the way from a term to the multiplier",
    Operation.SQUARED_DIFFERENCE: f"{_TERMS}; and the way from a term to the multiplier",
    Operation.PAIR: "addresses of a second tensor, if nothing else has one",
    Operation.SPREAD: "the way from the first channel to all",
    Operation.MIN: "nothing: it shares all it needs",
    Operation.AVERAGE: "nothing: it shares all it needs",
    Operation.MAX: "nothing: it shares all it needs",
    Operation.REQUANT: "it cannot be left out: nothing else takes what the array has summed up",
}
"""What a machine saves without an operation."""

_NOT_IN_FIRMWARE = [name for name in OPERATIONS if name not in FIRMWARE_OPERATIONS]

assert set(_OWN_HARDWARE) == set(Operation)


def parts_page() -> str:
    """Return ``docs/parts.md``: the parts of a machine, and its operations."""
    lines = [
        "<!-- Generated from hw/contract/parts.py by sw/docgen/parts.py; do not edit. -->",
        "# Parts and operations of a machine",
        "",
        "A machine with engines is made of the same parts whatever its sizes. The parts listed"
        " here exist in two variants with the same ports: a fast one, and a small one. The field"
        " `compact` of a configuration selects them: `true` stands for the small variant of every"
        " part, a list of names for that of some parts. Results are the same. `hw/parts.py` picks"
        " the class of each part; nothing else in `hw/` asks which one it is."
        " [extending.md](extending.md) says how to add a part.",
        "",
        "The compiler predicts cycles best for all parts fast, for all parts small, and for the"
        " choice of `base`. With other parts small its prediction is less exact; programs are as"
        " right.",
        "",
        "A machine with firmware (`nano`) has none of these parts: [firmware.md](firmware.md).",
        "",
        "| part | small variant | saves | costs | small in |",
        "|---|---|---|---|---|",
    ]
    for part in Part:
        small = part.value
        needs = f" Needs {', '.join(small.needs)}." if small.needs else ""
        presets = [f"`{name}`" for name, config in PRESETS.items() if part in config.parts]
        lines.append(
            f"| {part.name} | {small.does}{needs} | {small.saves} | {small.costs} |"
            f" {', '.join(presets)} |"
        )
    lines += [
        "",
        "## Operations",
        "",
        "The field `operations` of a configuration names what its vector engine can do; all"
        f" presets can do everything, but `nano` lacks {', '.join(_NOT_IN_FIRMWARE)}."
        " The set is part of the configuration's hash, and register `capability3` shows it"
        " ([registers.md](registers.md)). A command with an operation that"
        " the machine lacks stops the program: ILLEGAL_FIELD for a `Vector`, ILLEGAL_OPCODE for a"
        " `Softmax`. The compiler refuses an operator that needs a missing operation, and says"
        " which one; without REQUANT_ADD it computes the addition on its own.",
        "",
        "| operation | what it does | without it the gateware lacks |",
        "|---|---|---|",
        *(f"| {op.name} | {op.doc} | {_OWN_HARDWARE[op]} |" for op in Operation),
        "",
        "Firmware leaves out the code of every operation that its machine lacks. There is none for"
        f" {', '.join(_NOT_IN_FIRMWARE)}: its memory of instructions has no room.",
    ]
    return "\n".join(lines) + "\n"
