"""Gives every variable a tensor of its own as its value after an inference.

What is assigned to a variable may be an input of the model, a constant, another variable's value,
or assigned to two variables. Each of them is a place in memory, so such a value is copied.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from celosia.hw.contract.isa import Rounding
from celosia.sw.compiler.ir import (
    Arithmetic,
    Graph,
    Op,
    Origin,
    Scaling,
    SourceOp,
    State,
    Tensor,
    made_like,
)
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["separate_state"]

_COPIED = Arithmetic("the value that is assigned", Rounding.DOUBLE, Scaling.NEAREST)
"""Of an operator that computes nothing."""


def separate_state(graph: Graph) -> Graph:
    """Return a graph in which an operator computes each variable's value for it alone.

    Parameters
    ----------
    graph : Graph
        Source level.
    """
    taken: set[str] = set(graph.inputs)
    ops: list[Op] = list(graph.ops)
    tensors = dict(graph.tensors)
    copies: dict[str, str] = {}
    state: list[State] = []
    for variable in graph.state:
        source = tensors[variable.after]
        if source.name not in taken and source.data is None:
            taken.add(source.name)
            state.append(variable)
            continue
        copy = made_like(source, tensors, f"{variable.name}/copy")
        tensors[copy.name] = copy
        ops.append(_copy(source, copy))
        copies[copy.name] = source.name
        state.append(replace(variable, after=copy.name))
    if not copies:
        return graph
    # What was an output only as a variable's value is none any more.
    kept = {variable.after for variable in state}
    if graph.interface is not None:
        sources = {target: source for source, target in graph.interface.conversions}
        kept |= {sources.get(t.name, t.name) for t in graph.interface.outputs}
    outputs = [name for name in graph.outputs if name in kept]
    changed = replace(graph, outputs=[*outputs, *copies], state=tuple(state))
    return with_ops(changed, ops, tensors.values())


def _copy(source: Tensor, copy: Tensor) -> SourceOp:
    """Return an operator that gives the same bytes; of one input both are the same."""
    constant = source.data is not None
    return SourceOp(
        origin=Origin("", -1, "ASSIGN_VARIABLE"),
        name="CONCATENATION" if constant else "RESHAPE",
        operands=(source.name,),
        results=(copy.name,),
        arithmetic=_COPIED,
        options=MappingProxyType({"axis": 0} if constant else {}),
    )
