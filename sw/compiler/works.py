"""The units that are scheduled: one lowered operator each, or a convolution with the ADD behind it.

REQUANT_ADD lets the vector engine add the residual while it drains the accumulator, so the
convolution's own output never exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from celosia.sw.compiler.fold_input import FoldedConvOp, FoldOp
from celosia.sw.compiler.ir import (
    AddOp,
    ConvOp,
    Graph,
    NpuOp,
    PoolOp,
    ReshapeOp,
    SoftmaxOp,
    hwc,
)

__all__ = ["Work", "image", "works_of"]

Range = tuple[int, int]


def image(graph: Graph, name: str) -> tuple[int, int, int]:
    """Return a tensor as [H, W, C]; other ranks than `hwc` knows become a column of pixels."""
    shape = graph.tensors[name].shape
    try:
        return hwc(shape)
    except ValueError:
        return prod(shape[:-1]), 1, shape[-1]


@dataclass(frozen=True, eq=False, kw_only=True)
class Work:
    """One layer as the NPU runs it.

    Attributes
    ----------
    index : int
        Its place in the program.
    op : NpuOp
        The operator, or the convolution of a fused pair.
    add : AddOp or None
        The ADD that is done while the convolution's results are requantised.
    inputs : tuple of str
        Tensors read; of a fused pair the convolution's input and the other operand.
    output : str
        Tensor written.
    """

    index: int
    op: NpuOp
    add: AddOp | None = None
    inputs: tuple[str, ...]
    output: str

    @property
    def name(self) -> str:
        """What the report calls it."""
        return self.op.label if self.add is None else f"{self.op.label} + {self.add.label}"

    @property
    def per_channel(self) -> bool:
        """Whether an output channel depends on the same channel of the inputs only."""
        if isinstance(self.op, ConvOp):
            return self.op.depthwise
        return not isinstance(self.op, SoftmaxOp | ReshapeOp | FoldOp)

    def input_rows(self, operand: int, height: int, rows: Range) -> Range:
        """Return the rows of an input of `height` rows that some output rows need; at least one."""
        op = self.op
        if operand == 0 and isinstance(op, ConvOp | PoolOp):
            first = max(0, rows[0] * op.stride_h - op.pad_top)
            reach = op.kernel_h
            if isinstance(op, FoldedConvOp):
                reach = (op.kernel_h - 1) * op.dilation_h + 1
            end = min(height, (rows[1] - 1) * op.stride_h + reach - op.pad_top)
            first = min(first, height - 1)
            return first, max(end, first + 1)
        return rows


def works_of(graph: Graph, *, fuse: bool) -> list[Work]:
    """Return the works of a lowered graph, in order.

    Parameters
    ----------
    graph : Graph
        Lowered.
    fuse : bool
        Whether to fuse convolutions with the ADD behind them.
    """
    ops = graph.npu_ops
    partner = _fusions(graph, ops) if fuse else {}
    fused_adds = {id(add) for add in partner.values()}
    works: list[Work] = []
    for op in ops:
        if id(op) in fused_adds:
            continue
        add = partner.get(id(op))
        if add is None:
            inputs, output = op.inputs, op.output
        else:
            other = add.input_b if add.input_a == op.output else add.input_a
            inputs, output = (*op.inputs, other), add.output
        works.append(Work(index=len(works), op=op, add=add, inputs=inputs, output=output))
    return works


def _fusions(graph: Graph, ops: list[NpuOp]) -> dict[int, AddOp]:
    """Return the ADD of each convolution that takes one in, by the convolution's identity."""
    position = {op.output: index for index, op in enumerate(ops)}
    uses: dict[str, int] = {}
    for op in ops:
        for name in op.inputs:
            uses[name] = uses.get(name, 0) + 1
    partner: dict[int, AddOp] = {}
    for op in ops:
        if not isinstance(op, AddOp) or op.input_a == op.input_b or op.left_shift != 20:
            continue
        # The later operand: when it is computed, the other one is there already.
        last = max(op.inputs, key=lambda name: position.get(name, -1))
        index = position.get(last, -1)
        if index < 0 or uses[last] != 1 or last in graph.outputs:
            continue
        producer = ops[index]
        if isinstance(producer, ConvOp):
            partner[id(producer)] = op
    return partner
