"""Functions of one value by table: `TableOp`, which the vector engine computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, VectorOp
from celosia.sw.compiler.arithmetic.fixed import INT8_MIN
from celosia.sw.compiler.arithmetic.ranges import Ranges
from celosia.sw.compiler.ir import Graph, Int8Array, TableOp
from celosia.sw.compiler.ops.npu.checks import differing_elements
from celosia.sw.compiler.ops.npu.job import VectorJob, elementwise_step
from celosia.sw.compiler.ops.npu.kind import Kind
from celosia.sw.compiler.steps import Step

__all__ = ["TABLE"]


def _verify(graph: Graph, op: TableOp) -> str | None:
    if op.table.shape != (TABLE_ENTRIES,) or op.table.dtype != np.int8:
        return f"table is {op.table.dtype}{list(op.table.shape)}"
    return differing_elements(graph, op.input, op.output)


def _ranges(graph: Graph, op: TableOp, sources: tuple[Ranges, ...]) -> Ranges:
    """Tables need not be monotone: look at all values of the interval."""
    (source,) = sources
    ordered = np.roll(op.table, 128).astype(np.int64)  # by value from -128 on
    parts = [
        ordered[low - INT8_MIN : high - INT8_MIN + 1]
        for low, high in zip(source.low, source.high, strict=True)
    ]
    return Ranges(
        np.array([part.min() for part in parts], np.int64),
        np.array([part.max() for part in parts], np.int64),
    )


def _compose(op: TableOp, table: Int8Array) -> TableOp:
    return replace(op, table=table[op.table.view(np.uint8)])


def _content(op: TableOp, line_bytes: int) -> bytes:
    """Return the table with each entry once for every lane of a line."""
    return np.repeat(op.table.view(np.uint8), line_bytes).tobytes()


def _steps(op: TableOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    fields = {"op": int(VectorOp.TABLE)}
    yield elementwise_step(job, {"a": job.sources[0]}, fields, config, table=True)


TABLE = Kind(
    op=TableOp,
    where="vector engine",
    verify=_verify,
    channelwise=lambda graph, op: True,
    ranges=_ranges,
    compose=_compose,
    in_place=True,
    table=_content,
    steps=_steps,
)
