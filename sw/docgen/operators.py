"""Generates ``docs/operators.md`` from the compiler's records of operators."""

from __future__ import annotations

from celosia.sw.compiler.frontends.tflite.arithmetic import REFERENCE
from celosia.sw.compiler.frontends.tflite.state import FOLLOWED
from celosia.sw.compiler.ops.operator import Operator
from celosia.sw.compiler.ops.registry import OPERATORS
from celosia.sw.compiler.passes.fold_islands import ISLAND_OPERATORS
from celosia.sw.docgen.coverage import ETHOS_U55, TFLITE_MICRO
from celosia.sw.program.conversion import CASTS

__all__ = ["operators_page"]


def operators_page() -> str:
    """Return ``docs/operators.md``: what runs where, with which limits, and what does not."""
    records = sorted(dict.fromkeys(OPERATORS.values()), key=lambda record: record.names)
    runs = [record for record in records if record.lower is not None and not record.made]
    others = [record for record in records if record.remedy]
    lines = [
        "<!-- Generated from sw/compiler/ops/ by sw/docgen/operators.py; do not edit. -->",
        "# Operators",
        "",
        "Operators of TFLite models that run on the NPU. Activations are int8 with one scale and"
        " zero point a tensor, weights int8 with one scale, or one a channel. Results are equal bit"
        f" for bit to the {REFERENCE}; [arithmetic.md](arithmetic.md) says how. The batch is 1"
        " unless the table says *any batch*; of images it is any if windows do not reach from one"
        " into the next. A model that has a batch otherwise, and whose operators keep its samples"
        " apart, runs once for each.",
        "",
        "| operator | inputs | types | what computes it | limits |",
        "|---|--:|---|---|---|",
        *(
            f"| {_names(r)} | {_inputs(r)} | {', '.join(r.dtypes)} | {r.where} | {_limits(r)} |"
            for r in runs
        ),
        "",
        "What only moves elements moves none where tensors can share a place, and the vector engine"
        " copies whole lines ([compiler.md](compiler.md#movements)). The rest goes through system"
        " memory: its inputs are stored there, and the load engine loads run after run of bytes"
        " that lie side by side in both places. A run takes a cycle for each bus word.",
        "",
        "Rows, strides, dilations and windows may be of any size. What a command has no room for is"
        " several commands, rows that do not fit on chip are cut into columns, and a window that"
        " does not fit is summed up in parts; a larger machine runs what a smaller one does.",
        "",
        f"{', '.join(FOLLOWED[:-1])} and {FOLLOWED[-1]} cost nothing: a variable is memory that"
        " outlasts an inference, as is a variable tensor that an operator has as its output. The"
        " subgraph of CALL_ONCE sets variables to constants, in front of all other uses; a variable"
        " keeps its size.",
        "",
        "QUANTIZE, DEQUANTIZE and CAST between an input of the model of another type and the first"
        " int8 tensor, or between the last one and an output, are done by the host, with the"
        f" reference's bits. CAST is from and to {', '.join(sorted(CASTS))}.",
        "",
        "Between DEQUANTIZE (or CAST) and QUANTIZE whatever is a function of one int8 tensor and of"
        " float32 constants, one for all or one a channel, becomes one table:"
        f" {', '.join(ISLAND_OPERATORS)}. It is refused where a result depends on the last bits of"
        " the C library's functions.",
        "",
        "A uint8 model of TensorFlow 1 has the same operators: its tensors become int8 ones, 128"
        " less, and the host converts at its ends. Its weights may have any zero point. "
        f"{', '.join(_names(r) for r in runs if not r.uint8)} do not run on the NPU there: most"
        " have no uint8 kernel in TFLite.",
        "",
        "Any other operator runs on the host, by TFLite's own kernels, in a segment of its own"
        " ([program_file.md](program_file.md)); with --host refuse it is refused before anything is"
        " compiled, with its name and place. The compiler itself evaluates RESHAPE, SQUEEZE,"
        " EXPAND_DIMS, QUANTIZE and DEQUANTIZE of"
        " constants, and leaves out whatever only computes the shape for a RESHAPE. For some there"
        " is advice:",
        "",
        "| operator | inputs | instead |",
        "|---|--:|---|",
        *(f"| {_names(r)} | {_inputs(r)} | {r.remedy} |" for r in others),
        "",
        *_coverage(),
    ]
    return "\n".join(lines) + "\n"


def _coverage() -> list[str]:
    """Return the section that holds the operators against those of other tools."""
    lowered = {name: r for name, r in OPERATORS.items() if r.lower is not None and not r.made}
    here = {name: r.where for name, r in lowered.items()}
    here |= dict.fromkeys(FOLLOWED, "memory that outlasts an inference")
    lines = [
        "## Held against other tools",
        "",
        "Every operator that TensorFlow Lite Micro registers, that Arm's Vela places on an"
        " Ethos-U55, or that the NPU runs here (its limits are above). Here run "
        f"{len(here.keys() & TFLITE_MICRO)} of the {len(TFLITE_MICRO)} of TensorFlow Lite Micro and"
        f" {len(here.keys() & ETHOS_U55)} of the {len(ETHOS_U55)} of the Ethos-U55.",
        "",
        "| operator | TensorFlow Lite Micro | Ethos-U55 | here |",
        "|---|:-:|:-:|---|",
    ]
    for name in sorted(TFLITE_MICRO | ETHOS_U55 | here.keys()):
        micro, ethos = ("x" if name in names else "" for names in (TFLITE_MICRO, ETHOS_U55))
        place = f"NPU: {here[name]}" if name in here else _elsewhere(name)
        lines.append(f"| {name} | {micro} | {ethos} | {place} |")
    return lines


ELSEWHERE = "host"
"""What becomes of an operator that the NPU does not run."""


def _elsewhere(name: str) -> str:
    """Say what becomes of an operator that has no record, or only as a part of something else."""
    if name in ("CAST", "DEQUANTIZE"):
        return "host, at the ends of a model"
    if name in ISLAND_OPERATORS:
        return "NPU: table, of float32 between DEQUANTIZE and QUANTIZE"
    return ELSEWHERE


def _names(record: Operator) -> str:
    return ", ".join(record.names)


def _inputs(record: Operator) -> str:
    fewest, most = record.operands
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def _limits(record: Operator) -> str:
    notes = [record.limits] if record.limits else []
    if record.batches:
        notes.append("any batch")
    return "; ".join(notes)
