"""The passes from a source-level graph to NPU operators, in order."""

from __future__ import annotations

from collections.abc import Callable

from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.ops.registry import lower_ops
from celosia.sw.compiler.passes.dead_code import eliminate_dead_code
from celosia.sw.compiler.passes.flatten_fully_connected import flatten_fully_connected
from celosia.sw.compiler.passes.fold_constants import fold_constants
from celosia.sw.compiler.passes.fold_dilation import fold_dilation
from celosia.sw.compiler.passes.fold_islands import fold_islands
from celosia.sw.compiler.passes.fold_pad import fold_pad
from celosia.sw.compiler.passes.fuse_tables import fuse_tables
from celosia.sw.compiler.passes.remove_identities import remove_identities
from celosia.sw.compiler.passes.separate_state import separate_state
from celosia.sw.compiler.passes.static_shapes import make_shapes_static
from celosia.sw.compiler.passes.strip_edges import strip_edges
from celosia.sw.compiler.passes.uint8_to_int8 import uint8_to_int8
from celosia.sw.compiler.verify import verify

__all__ = ["PASSES", "lower"]

PASSES: tuple[Callable[[Graph], Graph], ...] = (
    eliminate_dead_code,
    fold_islands,
    eliminate_dead_code,
    strip_edges,
    uint8_to_int8,
    make_shapes_static,
    fold_constants,
    separate_state,
    remove_identities,
    fold_dilation,
    fold_pad,
    flatten_fully_connected,
    eliminate_dead_code,
    lower_ops,
    fuse_tables,
    eliminate_dead_code,
)
"""Every pass takes a verified graph and returns one."""


def lower(graph: Graph) -> Graph:
    """Lower a graph of `SourceOp` to one of `NpuOp`.

    Parameters
    ----------
    graph : Graph
        As `celosia.sw.compiler.frontends.tflite.convert.load` returns it.

    Returns
    -------
    Graph
        Only NPU operators, int8 tensors and no constants; weights are inside the operators.

    Raises
    ------
    UnsupportedError
        If operators cannot run on the NPU: all of them, with reasons.
    ModelError
        If the model contradicts itself.
    """
    for run in PASSES:
        graph = run(graph)
        verify(graph)
    return graph
