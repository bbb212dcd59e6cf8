"""The units that are scheduled: one lowered operator each, or a convolution with the ADD behind it.

REQUANT_ADD lets the vector engine add the residual while it drains the accumulator, so the
convolution's own output never exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from celosia.sw.compiler.arithmetic.whole import Range
from celosia.sw.compiler.ir import AddOp, ConvOp, Graph, NpuOp
from celosia.sw.compiler.ops.npu.kind import Kind
from celosia.sw.compiler.ops.npu.registry import kind_of

__all__ = ["Fusion", "Work", "works_of"]


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
    per_channel : bool
        Whether an output channel depends on the same channel of the inputs only.
    """

    index: int
    op: NpuOp
    add: AddOp | None = None
    inputs: tuple[str, ...]
    output: str
    per_channel: bool

    @property
    def kind(self) -> Kind[Any]:
        """What the compiler knows of operators like `op`."""
        return kind_of(self.op)

    @property
    def in_memory(self) -> tuple[int, ...]:
        """Places of the inputs that it takes from memory."""
        return tuple(place for place in self.kind.in_memory if place < len(self.inputs))

    @property
    def on_chip(self) -> tuple[str, ...]:
        """The inputs that it reads on chip."""
        return tuple(name for place, name in enumerate(self.inputs) if place not in self.in_memory)

    @property
    def name(self) -> str:
        """What the report calls it."""
        return self.op.label if self.add is None else f"{self.op.label} + {self.add.label}"

    @property
    def title(self) -> str:
        """What refusals call it: the name, with the tensors that its operators compute."""
        return self.op.title if self.add is None else f"{self.op.title} + {self.add.title}"

    def input_rows(self, operand: int, height: int, rows: Range) -> Range:
        """Return the rows of an input of `height` rows that some output rows need; at least one."""
        if operand == 0:
            return self.kind.rows(self.op, height, rows)
        return rows if height > 1 else (0, 1)

    def input_columns(self, operand: int, width: int, columns: Range) -> Range:
        """Return the columns of an input that some output columns need; at least one."""
        if operand == 0 and self.kind.columns is not None:
            return self.kind.columns(self.op, width, columns)
        return columns if width > 1 else (0, 1)


class Fusion(Enum):
    """Which convolution takes in an ADD of two convolutions' results."""

    NONE = "none"
    LATEST = "latest"
    """The one computed last: the order of the operators stays as it is."""
    HEAVIEST = "heaviest"
    """The one with most work for the array, which hides the vector engine's; it runs last."""


def works_of(graph: Graph, *, fusion: Fusion) -> list[Work]:
    """Return the works of a lowered graph, in order.

    Parameters
    ----------
    graph : Graph
        Lowered.
    fusion : Fusion
        Whether and how to fuse convolutions with the ADD behind them.
    """
    ops = graph.npu_ops
    position = {op.output: index for index, op in enumerate(ops)}
    partner = _fusions(graph, ops, position, fusion)
    absorbed = {id(op) for pair in partner.values() for op in pair}
    works: list[Work] = []

    def append(op: NpuOp, add: AddOp | None, inputs: tuple[str, ...], output: str) -> None:
        works.append(
            Work(
                index=len(works),
                op=op,
                add=add,
                inputs=inputs,
                output=output,
                per_channel=kind_of(op).channelwise(graph, op),
            )
        )

    # A fused pair takes the place of the later of the ADD's operands.
    due: dict[int, list[tuple[ConvOp, AddOp]]] = {}
    for conv, add in partner.values():
        due.setdefault(max(position.get(name, -1) for name in add.inputs), []).append((conv, add))
    for index, op in enumerate(ops):
        if id(op) not in absorbed:
            append(op, None, op.inputs, op.output)
        for conv, add in due.get(index, []):
            other = add.input_b if add.input_a == conv.output else add.input_a
            append(conv, add, (*conv.inputs, other), add.output)
    return works


def _fusions(
    graph: Graph, ops: list[NpuOp], position: dict[str, int], fusion: Fusion
) -> dict[str, tuple[ConvOp, AddOp]]:
    """Return the pairs to fuse, by the convolution's output."""
    partner: dict[str, tuple[ConvOp, AddOp]] = {}
    if fusion is Fusion.NONE:
        return partner
    uses: dict[str, int] = {}
    for op in ops:
        for name in op.inputs:
            uses[name] = uses.get(name, 0) + 1
    for op in ops:
        if not isinstance(op, AddOp) or op.input_a == op.input_b:
            continue
        if len({graph.hwc(name) for name in (*op.inputs, op.output)}) > 1:
            continue  # an operand is read again and again
        producers = [ops[position[name]] for name in op.inputs if name in position]
        convs = [
            conv
            for conv in producers
            if isinstance(conv, ConvOp)
            and uses[conv.output] == 1
            and conv.output not in graph.outputs
        ]
        if fusion is Fusion.LATEST:
            # Only what is computed last finds the other operand there without moving.
            last = max(position.get(name, -1) for name in op.inputs)
            convs = [conv for conv in convs if position[conv.output] == last]
        if convs:
            chosen = max(convs, key=lambda conv: (conv.macs, position[conv.output]))
            partner[chosen.output] = (chosen, op)
    return partner
