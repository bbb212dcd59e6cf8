"""Each kind of NPU operator has one record, and nobody else tells kinds apart."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from celosia.sw.compiler import ir
from celosia.sw.compiler.ir import NpuOp
from celosia.sw.compiler.ops.npu.kind import Kind, Placement
from celosia.sw.compiler.ops.npu.registry import KINDS

ROOT = Path(__file__).resolve().parents[5]
MOST_DISPATCHES = 6
"""What is about one kind: a pass for tables, one for movements, two for an ADD behind a
convolution, one that folds its input, and a page that shows one."""


def test_every_kind_has_a_record() -> None:
    kinds = {kind for kind in vars(ir).values() if isinstance(kind, type)}
    # What others derive from is no kind of its own.
    operators = {kind for kind in kinds if issubclass(kind, NpuOp) and not kind.__subclasses__()}
    assert len(operators) > 5
    assert operators < set(KINDS)
    assert all(kind.op is op for op, kind in KINDS.items())


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.op.__name__)
def test_a_record_says_how_its_operators_are_done(kind: Kind[Any]) -> None:
    means = (kind.map, kind.multiply, kind.phases, kind.steps, kind.load, kind.part)
    ways = sum(way is not None for way in means)
    assert ways == (kind.placement is not Placement.VIEW)
    assert (kind.load is not None) == (kind.placement is Placement.LOADED)
    assert (kind.part is not None) == (kind.placement is Placement.STORED)
    assert kind.reason is not None or kind.load is None


def test_kinds_are_told_apart_by_their_records() -> None:
    names = {op.__name__ for op in KINDS}
    found = []
    for folder in ("hw", "sw", "sim", "boards"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.is_relative_to(ROOT / "sw/compiler/ops"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and ast.unparse(node.func) == "isinstance"
                    and names & {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                ):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(found) <= MOST_DISPATCHES, found
