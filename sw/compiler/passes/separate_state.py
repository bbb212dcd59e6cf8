"""Gives every variable a tensor of its own as its value after an inference.

What is assigned to a variable may be an input of the model, a constant, another variable's value,
or assigned to two variables. Each of them is a place in memory, so such a value is copied.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from celosia.sw.compiler.ir import Graph, Op, Origin, SourceOp, State, Tensor, made_like
from celosia.sw.compiler.passes.rewrite import with_ops

__all__ = ["separate_state"]


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
        ops.append(_copy(ops, source, copy))
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


def _copy(ops: list[Op], source: Tensor, copy: Tensor) -> SourceOp:
    """Return an operator that gives the same bytes; of one input both are the same."""
    like = next(op for op in ops if isinstance(op, SourceOp))
    constant = source.data is not None
    return SourceOp(
        origin=Origin("", -1, "ASSIGN_VARIABLE"),
        name="CONCATENATION" if constant else "RESHAPE",
        operands=(source.name,),
        results=(copy.name,),
        arithmetic=like.arithmetic,
        options=MappingProxyType({"axis": 0} if constant else {}),
    )
