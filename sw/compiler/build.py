"""From a model to a program: the compiler's entry.

::

    load -> lower -> works -> plan -> schedule -> cut -> prefetch -> tokens -> predict -> emit
    -> check

with `fold_channels` behind `lower` if it is asked for. Where one of them refuses a part of the
model, the model is divided (`celosia.sw.compiler.partition`): what is refused is the host's, and
each of the other parts goes this way alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from celosia.errors import CompileError, DefectError, ModelError, UnsupportedError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, Load, Space
from celosia.hw.contract.named import has_room_for_weights
from celosia.hw.contract.operations import Operation
from celosia.sw.compiler.cost.engines import Prediction, predict
from celosia.sw.compiler.cost.times import MemoryTiming
from celosia.sw.compiler.emit import emit_program, encode_commands
from celosia.sw.compiler.frontends import formats
from celosia.sw.compiler.ir import Graph
from celosia.sw.compiler.lower import lower
from celosia.sw.compiler.operations import require_operations
from celosia.sw.compiler.partition.divide import divide
from celosia.sw.compiler.partition.variables import VariablesError
from celosia.sw.compiler.passes.copy_operands import copy_operands
from celosia.sw.compiler.passes.fold_channels import fold_channels
from celosia.sw.compiler.passes.fold_input import fold_input
from celosia.sw.compiler.passes.fold_output import fold_output
from celosia.sw.compiler.passes.one_sample import one_sample
from celosia.sw.compiler.passes.pack_image import pack_image
from celosia.sw.compiler.passes.shorten_moves import shorten_moves
from celosia.sw.compiler.passes.split_large import split_large
from celosia.sw.compiler.passes.stack_samples import stack_samples
from celosia.sw.compiler.place.plan import MemoryPlan, plan_memory
from celosia.sw.compiler.place.views import Sharing
from celosia.sw.compiler.place.works import Fusion, Work, works_of
from celosia.sw.compiler.schedule.cut import cut_steps
from celosia.sw.compiler.schedule.overlap import LEAST_VECTORS
from celosia.sw.compiler.schedule.prefetch import prefetch_loads
from celosia.sw.compiler.schedule.schedule import Manner, Schedule, schedule_works
from celosia.sw.compiler.schedule.staying import candidates_of, choices
from celosia.sw.compiler.schedule.tokens import place_tokens
from celosia.sw.compiler.verify import verify
from celosia.sw.program.contents import MAX_BATCH
from celosia.sw.program.file import Program
from celosia.sw.program.tensors import PlacedTensor, TensorInfo, over_samples
from celosia.sw.program.verify import check_program

__all__ = ["Host", "compile_graph", "compile_model"]

Host = Literal["allow", "refuse"]
"""What happens to operators that the NPU does not run."""

CHANGES: tuple[tuple[dict[str, Any], ...], ...] = (
    tuple({"weight_chunks": count} for count in (2, 3, 4, 8, 16)),
    tuple({"overlap": way} for way in (True, False)),
    tuple({"least": count} for count in (1, LEAST_VECTORS)),
    tuple({"postpone": way} for way in (True, False)),
    tuple({"fine": way} for way in (True, False)),
    tuple({"ramp": layers} for layers in ((0, 1), (1,), (0,), (1, 2), ())),
    tuple({"ahead": count} for count in (1, 2, 4, 8, 15)),
)
"""Other manners to try, one after the other, until none is faster by prediction."""
MAX_COMMANDS_FOR_SEARCH = 600
"""Longer programs are built once: they are long because memories are small, not for chunks."""


def compile_model(
    source: Path | str | bytes | os.PathLike[str],
    config: NpuConfig,
    *,
    keep_tensors: bool = False,
    fuse: bool = True,
    fold: bool = False,
    batch: int = 1,
    host: Host = "allow",
    resident: bool | None = None,
    memory: MemoryTiming | None = None,
    exact: bool = False,
) -> Program:
    """Compile a TensorFlow Lite or ONNX model for one configuration.

    Parameters
    ----------
    source : path or bytes
        The ``.tflite`` or ``.onnx`` file, or its contents.
    config : NpuConfig
        The machine.
    keep_tensors : bool
        Store the output of every operator to memory as well and list it in the program, for
        comparison with a reference. Implies no fusing.
    fuse : bool
        Do residual additions while the convolution before them is requantised.
    fold : bool
        Remove channels that are constant or that nothing reads (`fold_channels`): equal outputs
        with fewer multiplications. Intermediate tensors have the remaining channels only, which
        `TensorInfo.kept_channels` lists.
    batch : int
        Samples of a run, each as large as the model's inputs are. They are rows of the same
        tensors where the layers allow it and that takes fewer cycles; else they run one after the
        other, and `Program.one_by_one` says why.
    host : "allow" or "refuse"
        What happens to operators that the NPU does not run: the host runs them, in segments of
        their own with the reason, or the model is refused, with all reasons.
    resident : bool, optional
        Let weights stay on chip from run to run, as many as there is room for: they are loaded
        once, before the first run. Only if the model is one segment of the NPU. By default if the
        configuration is a board's own, which has memory for that.
    memory : MemoryTiming, optional
        The system memory that predictions are for, by which the fastest way is chosen.
    exact : bool
        Let the host compute what is not proven to equal its reference for all inputs; of an ONNX
        model that may be a few operators (`NpuOp.exactness`).

    Returns
    -------
    Program
        Checked for faults, deadlocks and races.

    Raises
    ------
    ModelError
        If the file is damaged.
    UnsupportedError
        If the NPU or the compiler does not know one of its operators, or the configuration lacks
        an operation that it needs. With ``host="allow"`` only if not even the host can run it.
    CompileError
        If it does not fit the configuration. With ``host="allow"`` never for a single layer.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise CompileError(
            f"a batch of {batch}", "that is no number of samples", f"give 1 to {MAX_BATCH}"
        )
    if host not in get_args(Host):
        raise CompileError("host", f"it is {host!r}", f"use one of {', '.join(get_args(Host))}")

    stays = has_room_for_weights(config) if resident is None else resident

    def back(graph: Graph, samples: int = 1) -> Program:
        if samples > 1 and graph.state:
            raise CompileError(
                f"a batch of {samples}",
                "the model has variables: its samples are steps in time, each begins with what the"
                " one before it left",
                "give them one after the other",
            )
        if fold:
            graph = fold_channels(graph)
            verify(graph)
        how = _How(keep_tensors=keep_tensors, fuse=fuse, resident=stays, memory=memory)
        if samples == 1:
            return _compile(graph, config, how)
        return _compile_samples(graph, config, samples, how)

    # Samples of a batch that is asked for are not the host's to tell apart.
    divisible = host == "allow" and batch == 1
    try:
        source_graph = formats.load(source, exact=exact)
    except UnsupportedError:
        if not divisible:
            raise
    else:
        try:
            graph, own = _lowered(source_graph)
            return back(graph, batch * own)
        except DefectError:
            raise
        except (ModelError, CompileError):
            if not divisible:
                raise
    # Segments take turns on chip: what stays would be another's.
    stays = False
    try:
        graph, file = formats.opened(source, exact=exact)
        program = divide(graph, file, config, back, keep_tensors=keep_tensors)
    except VariablesError:
        # Then the host keeps them, and runs all that has to do with them.
        graph, file = formats.opened(source, follow=False, exact=exact)
        program = divide(graph, file, config, back, keep_tensors=keep_tensors)
    check_program(program, limits=False)
    return program


def _lowered(graph: Graph) -> tuple[Graph, int]:
    """Return a model lowered, and how many samples it has that the graph is one of."""
    try:
        return lower(graph), 1
    except UnsupportedError:
        alone = one_sample(graph)
        if alone is None or alone[1] > MAX_BATCH:
            raise
        return lower(alone[0]), alone[1]


def _compile_samples(graph: Graph, config: NpuConfig, batch: int, how: _How) -> Program:
    """Compile a lowered graph for several samples, in the way that takes fewer cycles."""
    one, reason = None, ""
    try:
        stacked = stack_samples(graph, batch)
        verify(stacked)
        together = _compile(stacked, config, how)
        one = _compile(graph, config, how)
        if together.predicted_cycles <= batch * one.predicted_cycles:
            return replace(together, batch=batch)
        reason = f"together they would take {together.predicted_cycles:,} cycles"
    except (UnsupportedError, CompileError) as error:
        reason = f"{error.what}: {error.cause}"
    one = one or _compile(graph, config, how)
    return _one_by_one(one, batch, reason)


def _one_by_one(program: Program, batch: int, reason: str) -> Program:
    """Return a program that computes several samples one after the other."""

    def over(info: TensorInfo) -> TensorInfo:
        return replace(info, shape=over_samples(info.shape, batch))

    def sample(tensors: tuple[PlacedTensor, ...]) -> tuple[PlacedTensor, ...]:
        return tuple(replace(t, info=over(t.info).sample(batch)) for t in tensors)

    return replace(
        program,
        batch=batch,
        one_by_one=reason,
        inputs=tuple(over(info) for info in program.inputs),
        outputs=tuple(over(info) for info in program.outputs),
        between=tuple(over(info) for info in program.between),
        segments=tuple(
            replace(
                segment,
                inputs=sample(segment.inputs),
                outputs=sample(segment.outputs),
                intermediates=sample(segment.intermediates),
            )
            for segment in program.npu_segments
        ),
    )


def compile_graph(
    graph: Graph, config: NpuConfig, *, keep_tensors: bool = False, fuse: bool = True
) -> Program:
    """Compile a lowered graph; see `compile_model`."""
    return _compile(graph, config, _How(keep_tensors=keep_tensors, fuse=fuse))


@dataclass(frozen=True, kw_only=True)
class _How:
    """What `compile_model` was asked for beside the model and the machine."""

    keep_tensors: bool = False
    fuse: bool = True
    resident: bool = False
    memory: MemoryTiming | None = None


def _compile(graph: Graph, config: NpuConfig, how: _How) -> Program:
    graph = split_large(copy_operands(graph, config), config)
    verify(graph)
    graphs = [graph]
    if not how.keep_tensors:
        graphs.append(fold_output(graph, config))
        graphs += [pack_image(one, config) for one in graphs]
    graphs += [fold_input(one, config) for one in graphs]
    graphs = list(dict.fromkeys(graphs))
    for one in graphs[1:]:
        verify(one)
    for longer in list(graphs):
        shorter = shorten_moves(longer)
        verify(shorter)
        graphs += [] if shorter is longer else [shorter]
    best: _Variant | None = None
    problem: CompileError | None = None
    fuse = how.fuse and not how.keep_tensors and config.can(Operation.REQUANT_ADD)
    for works_graph, works in _distinct_works(graphs, fuse=fuse):
        try:
            variant = _best_schedule(works_graph, works, config, how)
        except CompileError as error:
            # Folded images and reordered layers may need more room: the first way has it.
            problem = problem or error
            continue
        if best is None or variant.prediction.cycles < best.prediction.cycles:
            best = variant
    if best is None:
        assert problem is not None, "at least one way was tried"
        raise problem
    program = emit_program(
        best.graph,
        best.plan,
        best.schedule,
        best.commands,
        best.layers,
        best.prediction,
        config,
        code=best.code,
        setup=best.setup,
        keep_tensors=how.keep_tensors,
    )
    check_program(program, limits=False)
    return program


@dataclass(frozen=True)
class _Variant:
    """One way to place and schedule a graph."""

    graph: Graph
    plan: MemoryPlan
    schedule: Schedule
    commands: list[Command]
    layers: list[int]
    prediction: Prediction
    manner: Manner
    code: bytes = b""
    """The commands encoded; of the schedule that was chosen."""
    setup: bytes = b""
    """Likewise what brings the weights that stay on chip; empty if none do."""


def _distinct_works(graphs: list[Graph], *, fuse: bool) -> Iterator[tuple[Graph, list[Work]]]:
    """Yield the ways to make works of the graphs, leaving out those that come out the same."""
    fusions = (Fusion.LATEST, Fusion.HEAVIEST) if fuse else (Fusion.NONE,)
    for graph in graphs:
        seen = []
        for fusion in fusions:
            works = works_of(graph, fusion=fusion)
            what = [(id(work.op), id(work.add)) for work in works]
            if what not in seen:
                seen.append(what)
                yield graph, works


def _best_schedule(graph: Graph, works: list[Work], config: NpuConfig, how: _How) -> _Variant:
    """Return the fastest way to move and schedule, by prediction.

    Raises
    ------
    CompileError
        If there is none: why the first one failed.
    """
    problem: CompileError | None = None
    plans = _distinct_plans(graph, works, config, keep_tensors=how.keep_tensors)
    variants = [_build(graph, plan, config, Manner(), how.memory) for plan in plans]
    for best in sorted(variants, key=lambda variant: variant.prediction.cycles):
        if how.resident:
            best = _with_residents(best, config, how.memory)
        if len(best.commands) <= MAX_COMMANDS_FOR_SEARCH:
            best = _searched(best, config, how.memory)
        require_operations(best.commands, best.layers, works, config)
        try:
            # Before another way to place the graph is given up for this one: do its commands exist?
            code = encode_commands(best.commands, best.layers, works)
            setup = best.schedule.setup
            brought = [replace(step.command, tag=tag) for tag, step in enumerate(setup)]
            first = encode_commands(brought, [step.layer for step in setup], works)
            return replace(best, code=code, setup=first if setup else b"")
        except CompileError as error:
            problem = problem or error
    assert problem is not None, "at least one way was tried"
    raise problem


def _searched(best: _Variant, config: NpuConfig, memory: MemoryTiming | None) -> _Variant:
    """Return a variant in the manner from which no single change is for the better."""
    tried = {best.manner}
    while True:
        before = best
        for changes in CHANGES:
            for change in changes:
                manner = replace(best.manner, **change)
                if manner in tried:
                    continue
                tried.add(manner)
                other = _build(best.graph, best.plan, config, manner, memory)
                if other.prediction.cycles < best.prediction.cycles:
                    best = other
        if best is before:
            return best


def _distinct_plans(
    graph: Graph, works: list[Work], config: NpuConfig, *, keep_tensors: bool
) -> list[MemoryPlan]:
    """Return the ways to move elements, leaving out those that come out the same."""
    plans: list[MemoryPlan] = []
    moving = any(work.kind.movement is not None for work in works)
    for sharing in reversed(Sharing) if moving else (Sharing.NONE,):
        plan = plan_memory(graph, works, config, keep_tensors=keep_tensors, sharing=sharing)
        moves = plan.table.moves, plan.stored
        if all(moves != (other.table.moves, other.stored) for other in plans):
            plans.append(plan)
    return plans


def _with_residents(variant: _Variant, config: NpuConfig, memory: MemoryTiming | None) -> _Variant:
    """Return the same with weights that stay on chip, if that is faster in the runs that follow."""
    plan = variant.plan
    candidates = candidates_of(plan, variant.commands, variant.layers, config)
    of_convs = {one.whole.layer for one in candidates}
    others = sum(
        command.row_bytes * command.n1
        for command, layer in zip(variant.commands, variant.layers, strict=True)
        if isinstance(command, Load) and command.space == Space.WGT and layer not in of_convs
    )
    word_cycles = (memory or MemoryTiming()).word_cycles(config.max_outstanding)
    found = [variant]
    for residents in choices(candidates, word_cycles, other_bytes=others, config=config):
        manner = replace(variant.manner, residents=residents)
        found.append(_build(variant.graph, plan, config, manner, memory))
    return min(found, key=lambda one: one.prediction.cycles)


def _build(
    graph: Graph,
    plan: MemoryPlan,
    config: NpuConfig,
    manner: Manner,
    memory: MemoryTiming | None = None,
) -> _Variant:
    schedule = schedule_works(graph, plan, config, manner)
    most_ahead = min(manner.ahead, config.queue_depth - 1)
    steps = prefetch_loads(cut_steps(schedule.steps), most_ahead)
    schedule = replace(schedule, steps=steps)
    commands = place_tokens(steps, config.queue_depth)
    layers = [step.layer for step in steps]
    prediction = predict(commands, config, memory=memory)
    return _Variant(graph, plan, schedule, commands, layers, prediction, manner)
