"""Functions of one value by table: `TableOp`, which the vector engine computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, VectorOp
from celosia.sw.compiler.arithmetic.fixed import INT8_MIN
from celosia.sw.compiler.arithmetic.ranges import BoolArray, Ranges
from celosia.sw.compiler.ir import Graph, Int8Array, TableOp
from celosia.sw.compiler.ops.npu.checks import differing_elements, stack_rows
from celosia.sw.compiler.ops.npu.job import VectorJob, elementwise_step
from celosia.sw.compiler.ops.npu.kind import Kind, same_positions
from celosia.sw.compiler.steps import Step

__all__ = ["TABLE"]


def _verify(graph: Graph, op: TableOp) -> str | None:
    channels = graph.hwc(op.input)[2]
    shape = (channels, TABLE_ENTRIES) if op.per_channel else (TABLE_ENTRIES,)
    if op.table.shape != shape or op.table.dtype != np.int8:
        return f"table is {op.table.dtype}{list(op.table.shape)}"
    if op.per_channel and graph.hwc(op.output)[2] != channels:
        return f"{channels} channels in, {graph.hwc(op.output)[2]} out"
    return differing_elements(graph, op.input, op.output)


def _ranges(graph: Graph, op: TableOp, sources: tuple[Ranges, ...]) -> Ranges:
    """Tables need not be monotone: look at all values of the interval."""
    (source,) = sources
    ordered = np.roll(op.table, 128, axis=-1).astype(np.int64)  # by value from -128 on
    each = np.broadcast_to(ordered, (len(source.low), TABLE_ENTRIES))
    parts = [
        table[low - INT8_MIN : high - INT8_MIN + 1]
        for table, low, high in zip(each, source.low, source.high, strict=True)
    ]
    return Ranges(
        np.array([part.min() for part in parts], np.int64),
        np.array([part.max() for part in parts], np.int64),
    )


def _narrow(
    graph: Graph, op: TableOp, source: Ranges, inputs: BoolArray, outputs: BoolArray
) -> TableOp:
    return replace(op, table=op.table[outputs]) if op.per_channel else op


def _compose(op: TableOp, table: Int8Array) -> TableOp:
    """Look up `table` behind; the outcome is for each channel if either is."""
    index = op.table.view(np.uint8)
    if table.ndim == 1:
        return replace(op, table=table[index])
    each = np.broadcast_to(index, table.shape).astype(np.intp)
    return replace(op, table=np.take_along_axis(table, each, axis=1))


def _content(op: TableOp, line_bytes: int, tile: int) -> bytes:
    """Return the memory's lines: entry by entry, a byte for each lane."""
    if not op.per_channel:
        return np.repeat(op.table.view(np.uint8), line_bytes).tobytes()
    lanes = np.zeros((TABLE_ENTRIES, line_bytes), np.int8)
    own = op.table[tile * line_bytes : (tile + 1) * line_bytes]
    lanes[:, : len(own)] = own.T
    return lanes.tobytes()


def _steps(op: TableOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    fields = {"op": int(VectorOp.TABLE)}
    yield elementwise_step(job, {"a": 0}, fields, config, table=True)


TABLE = Kind(
    op=TableOp,
    where="vector engine",
    verify=_verify,
    channelwise=lambda graph, op: True,
    ranges=_ranges,
    narrow=_narrow,
    compose=_compose,
    in_place=True,
    stack=stack_rows,
    columns=same_positions,
    table=_content,
    table_per_tile=lambda op: op.per_channel,
    steps=_steps,
)
