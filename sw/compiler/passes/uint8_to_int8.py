"""Makes int8 tensors of a model's uint8 ones: values and zero points less 128.

Equal real numbers, and what follows holds for int8 alone. Inputs and outputs of the model stay what
they are: the host converts them. What uint8 kernels do otherwise than those of int8, an operator's
arithmetic says (`Arithmetic.unsigned`), which the front end has set.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from celosia.errors import UnsupportedError
from celosia.sw.compiler.ir import DType, Graph, Op, SourceOp, Tensor, fresh_name
from celosia.sw.compiler.passes.rewrite import rename_inputs

__all__ = ["uint8_to_int8"]

OFFSET = 128
"""A uint8 value less the int8 value that stands for it."""


def uint8_to_int8(graph: Graph) -> Graph:
    """Return the graph without uint8 tensors, but for its interface.

    Parameters
    ----------
    graph : Graph
        Source level, with an interface if the host converts something.

    Raises
    ------
    UnsupportedError
        If a variable is uint8.
    """
    unsigned = {
        name
        for name, tensor in graph.tensors.items()
        if tensor.dtype is DType.UINT8 and (tensor.scale is not None or tensor.is_constant)
    }
    for variable in graph.state:
        if unsigned.intersection((variable.before, variable.after)):
            raise UnsupportedError(
                f"cannot compile model {graph.name}",
                f"its variable {variable.name!r} is uint8",
                "quantise the model to int8",
                file=graph.name,
                tensor=variable.before,
            )
    interface = graph.own_interface
    outer = {tensor.name for tensor in (*interface.inputs, *interface.outputs)}
    ends = [name for name in (*graph.inputs, *graph.outputs) if name in unsigned and name in outer]
    if not unsigned.intersection((*graph.inputs, *graph.outputs, *_used(graph))):
        return graph
    tensors = dict(graph.tensors)
    names: dict[str, str] = {}
    for name in dict.fromkeys(ends):
        names[name] = fresh_name(tensors, f"{name}/int8")
        tensors[names[name]] = replace(_signed(graph.tensors[name]), name=names[name])
    for name in unsigned - outer:
        tensors[name] = _signed(graph.tensors[name])
    conversions = [
        *((name, names[name]) for name in graph.inputs if name in names),
        *((names[name], name) for name in graph.outputs if name in names),
    ]
    return replace(
        graph,
        tensors=tensors,
        ops=[_renamed(op, names) for op in graph.ops],
        inputs=[names.get(name, name) for name in graph.inputs],
        outputs=[names.get(name, name) for name in graph.outputs],
        interface=replace(interface, conversions=(*interface.conversions, *conversions))
        if graph.state or interface.conversions or conversions
        else None,
    )


def _used(graph: Graph) -> set[str]:
    return {name for op in graph.ops for name in (*op.inputs, *op.outputs)}


def _renamed(op: Op, names: dict[str, str]) -> Op:
    op = rename_inputs(op, names)
    if not isinstance(op, SourceOp) or not any(name in names for name in op.results):
        return op
    return replace(op, results=tuple(names.get(name, name) for name in op.results))


def _signed(tensor: Tensor) -> Tensor:
    data = tensor.data
    if data is not None:
        data = (data.astype(np.int16) - OFFSET).astype(np.int8)
        data.flags.writeable = False
    return replace(tensor, dtype=DType.INT8, zero_point=tensor.zero_point - OFFSET, data=data)
