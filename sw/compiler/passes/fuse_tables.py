"""Merges tables into the operators before them.

A table that only clamps (a RELU between equal scales, say) narrows the clamp of the convolution,
addition or pooling that feeds it; a table after a table composes with it. Both are exact by
construction, whatever operator the table came from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from celosia.sw.compiler.ir import Graph, Int8Array, NpuOp, Op, ReshapeOp, TableOp
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.passes.rewrite import same_quantisation, with_ops

__all__ = ["fuse_tables"]


def fuse_tables(graph: Graph) -> Graph:
    """Fuse every table whose input nobody else needs; identities become reshapes."""
    ops: list[Op] = []
    for op in graph.ops:
        if not isinstance(op, TableOp):
            ops.append(op)
            continue
        position = _sole_producer(graph, ops, op.input)
        merged = None if position is None else _merge(graph, ops[position], op)
        if position is not None and merged is not None:
            ops[position] = merged
        elif _clamp_of(op.table) == (-128, 127):
            ops.append(_as_reshape(op))
        else:
            ops.append(op)
    return with_ops(graph, ops)


def _sole_producer(graph: Graph, ops: list[Op], name: str) -> int | None:
    """Position of the operator that writes `name`, if one reader of the graph is all it has."""
    if name in graph.outputs or len(graph.consumers(name)) != 1:
        return None
    return next((i for i, op in enumerate(ops) if name in op.outputs), None)


def _merge(graph: Graph, producer: Op, table: TableOp) -> NpuOp | None:
    if not isinstance(producer, NpuOp):
        return None
    kind = kind_of(producer)
    merged: NpuOp
    if kind.compose is not None:
        merged = kind.compose(producer, table.table)
    else:
        clamp = _clamp_of(table.table)
        if clamp is None or kind.clamp is None:
            return None
        # The output stage's zero point and scale must stay those of the tensor it writes.
        if not same_quantisation(graph.tensors[table.input], graph.tensors[table.output]):
            return None
        merged = kind.clamp(producer, *clamp)
    fused = (*producer.fused, table.origin.index, *table.fused)
    return replace(merged, output=table.output, fused=fused)


def _clamp_of(table: Int8Array) -> tuple[int, int] | None:
    """Bounds when the table is ``min(max(x, low), high)`` for all channels, else None."""
    if table.ndim == 2:
        return None
    values = np.arange(-128, 128, dtype=np.int16)
    mapped = table[values.astype(np.int8).view(np.uint8)]
    low, high = int(mapped.min()), int(mapped.max())
    if np.array_equal(mapped, np.clip(values, low, high)):
        return low, high
    return None


def _as_reshape(op: TableOp) -> ReshapeOp:
    return ReshapeOp(
        origin=op.origin,
        fused=op.fused,
        input=op.input,
        output=op.output,
    )
