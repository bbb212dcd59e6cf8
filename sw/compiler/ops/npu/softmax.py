"""Softmax: `SoftmaxOp`, which the vector engine computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import TABLE_ENTRIES, Softmax
from celosia.sw.compiler.ir import Graph, SoftmaxOp
from celosia.sw.compiler.ops.npu.checks import differing_elements
from celosia.sw.compiler.ops.npu.job import VectorJob, table_footprint
from celosia.sw.compiler.ops.npu.kind import Kind, same_positions
from celosia.sw.compiler.steps import Step

__all__ = ["SOFTMAX"]


def _verify(graph: Graph, op: SoftmaxOp) -> str | None:
    if op.rows * op.channels != graph.tensors[op.input].elements:
        return f"{op.rows} rows of {op.channels}"
    if op.exp_table.shape != (TABLE_ENTRIES,) or op.exp_table.dtype != np.int32:
        return f"table is {op.exp_table.dtype}{list(op.exp_table.shape)}"
    if not 1 <= op.cutoff <= TABLE_ENTRIES or np.any(op.exp_table[op.cutoff :]):
        return f"cut-off {op.cutoff}"
    return differing_elements(graph, op.input, op.output)


def _content(op: SoftmaxOp, line_bytes: int, tile: int) -> bytes:
    """Return the exponentials, one int32 at the beginning of each line."""
    entries = np.zeros((TABLE_ENTRIES, line_bytes), np.uint8)
    entries[:, :4] = op.exp_table.astype("<i4").view(np.uint8).reshape(TABLE_ENTRIES, 4)
    return entries.tobytes()


def _steps(op: SoftmaxOp, job: VectorJob, config: NpuConfig) -> Iterator[Step]:
    source, target, line = job.sources[0], job.target, config.line_bytes
    table = table_footprint(config)
    height = job.rows[1] - job.rows[0]
    if job.width == 1 or (source.layout.is_dense and target.layout.is_dense):
        # Pixels at equal distances all over the image: one command.
        starts, count = [job.rows[0]], height * job.width
    else:
        starts, count = list(range(*job.rows)), job.width
    column = job.width == 1
    for y in starts:
        command = Softmax(
            channels=op.channels,
            n_rows=count,
            a_addr=source.address(y) // line,
            a_y=(source.layout.row_pitch if column else source.layout.pixel_pitch) // line,
            d_addr=target.address(y) // line,
            d_y=(target.layout.row_pitch if column else target.layout.pixel_pitch) // line,
        )
        yield Step(
            command=command,
            reads=(source.footprint, table),
            writes=(target.footprint,),
            layer=job.layer,
        )


SOFTMAX = Kind(
    op=SoftmaxOp,
    where="vector engine",
    verify=_verify,
    channelwise=lambda graph, op: False,
    grouped=False,
    columns=same_positions,
    table=_content,
    steps=_steps,
    stack=lambda graph, op, samples: replace(op, rows=samples * op.rows),
)
