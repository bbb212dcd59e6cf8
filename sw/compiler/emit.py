"""Makes the program: encoded commands, tensor tables, memory plan and what reports need."""

from __future__ import annotations

from dataclasses import replace

from celosia.errors import CompileError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import COMMAND_BYTES, Command, Conv, End, Region, Transfer
from celosia.sw.compiler.arithmetic.whole import ceil_div
from celosia.sw.compiler.cost.engines import Prediction
from celosia.sw.compiler.ir import Graph, Tensor, fresh_name
from celosia.sw.compiler.ops.npu.kind import Placement
from celosia.sw.compiler.ops.npu.registry import kind_of
from celosia.sw.compiler.place.limits import field_limit
from celosia.sw.compiler.place.plan import MemoryPlan, WorkPlan
from celosia.sw.compiler.place.works import Work
from celosia.sw.compiler.schedule.schedule import Schedule
from celosia.sw.program.file import Program
from celosia.sw.program.origin import Origin
from celosia.sw.program.segments import MAX_COMMANDS, NO_LAYER, LayerInfo, NpuSegment
from celosia.sw.program.segments import MemoryPlan as ProgramMemory
from celosia.sw.program.tensors import PlacedTensor, TensorInfo

__all__ = ["emit_program", "encode_commands", "tensor_info"]


def emit_program(
    graph: Graph,
    plan: MemoryPlan,
    schedule: Schedule,
    commands: list[Command],
    layers: list[int],
    prediction: Prediction,
    config: NpuConfig,
    *,
    code: bytes,
    setup: bytes,
    keep_tensors: bool,
) -> Program:
    """Return the program.

    Parameters
    ----------
    graph : Graph
        Lowered.
    plan, schedule
        Its placement and schedule.
    commands : list of Command
        With tokens and tags, without `End`.
    layers : list of int
        The work that each command is for.
    prediction : Prediction
        Times of the commands.
    config : NpuConfig
        The machine.
    code : bytes
        The commands as `encode_commands` returns them.
    setup : bytes
        Likewise those that run once; empty if there are none.
    keep_tensors : bool
        List the intermediate tensors.
    """
    works = [work_plan.work for work_plan in plan.works]
    position = {work.index: index for index, work in enumerate(works)}
    before, after = _variables(graph, plan)
    taken, given = (
        tuple(_tensor(graph, plan, name) for name in names) for names in _interface(graph)
    )
    io = {tensor.name for tensor in (*taken, *given)} | {s.before for s in graph.state}
    kept = [name for name in plan.home_plan.homes if name not in io] if keep_tensors else []
    region_bytes = {
        Region.CODE.name: len(code) + len(setup),
        Region.CONST.name: len(schedule.constants),
        Region.IO.name: plan.home_plan.io_bytes,
        Region.SCRATCH.name: plan.home_plan.scratch_bytes,
    }
    segment = NpuSegment(
        name=graph.name,
        commands=code,
        setup=setup,
        constants=schedule.constants,
        inputs=(*taken, *before),
        outputs=(*given, *after),
        intermediates=tuple(_tensor(graph, plan, name) for name in kept),
        memory=ProgramMemory(region_bytes=region_bytes, plan=_allocations(plan)),
        layers=_layers(graph, plan, schedule, commands, layers, prediction, config),
        command_layers=(*(position[layer] for layer in layers), NO_LAYER),
    )
    if graph.interface is None:
        return Program.of(segment, config, model=graph.name)
    interface = graph.interface
    placed = {tensor.name: tensor.info for tensor in (*segment.inputs, *segment.outputs)}
    inputs, outputs, between = (
        tuple(placed.get(tensor.name) or tensor_info(graph, tensor) for tensor in tensors)
        for tensors in (interface.inputs, interface.outputs, interface.between)
    )
    return Program(
        config=config,
        model=graph.name,
        inputs=inputs,
        outputs=outputs,
        conversions=interface.conversions,
        between=between,
        casts=interface.casts,
        layouts=dict(interface.layouts),
        even=interface.even,
        segments=(segment,),
        initial_state=b"".join(variable.initial.tobytes() for variable in graph.state),
    )


def _interface(graph: Graph) -> tuple[list[str], list[str]]:
    """Return the inputs and outputs of a graph without its variables."""
    if graph.interface is None:
        return graph.inputs, graph.outputs
    before = {variable.before for variable in graph.state}
    after = {variable.after for variable in graph.state}
    # What is assigned to a variable may be an output as well.
    sources = {target: source for source, target in graph.interface.conversions}
    after -= {sources.get(tensor.name, tensor.name) for tensor in graph.interface.outputs}
    return (
        [name for name in graph.inputs if name not in before],
        [name for name in graph.outputs if name not in after],
    )


def _variables(
    graph: Graph, plan: MemoryPlan
) -> tuple[tuple[PlacedTensor, ...], tuple[PlacedTensor, ...]]:
    """Return the places of the variables before and after a run."""
    taken = set(graph.tensors) - {variable.before for variable in graph.state}
    if graph.interface is not None:
        taken |= {tensor.name for tensor in (*graph.interface.inputs, *graph.interface.outputs)}
    before: list[PlacedTensor] = []
    after: list[PlacedTensor] = []
    for variable in graph.state:
        name = fresh_name(taken, variable.name)
        taken.add(name)
        info = replace(
            tensor_info(graph, graph.tensors[variable.before]), name=name, persistent=True
        )
        _, pixels, channels = info.extents
        for places, tensor in ((before, variable.before), (after, variable.after)):
            home = plan.home_plan.homes[tensor]
            places.append(
                PlacedTensor(
                    info=info,
                    region=home.region.name,
                    offset=home.offset,
                    row_pitch=pixels * channels * info.item.itemsize,
                    pixel_pitch=channels * info.item.itemsize,
                )
            )
    return tuple(before), tuple(after)


def encode_commands(commands: list[Command], layers: list[int], works: list[Work]) -> bytes:
    """Return the command stream, with `End`.

    Raises
    ------
    CompileError
        If a layer needs more than a command has room for, or there are too many commands.
    """
    if len(commands) >= MAX_COMMANDS:
        raise CompileError(
            "the program",
            f"it takes {len(commands)} commands, tags have room for {MAX_COMMANDS - 1}",
            "use a configuration with larger memories",
        )
    code = bytearray()
    for command, layer in zip(commands, layers, strict=True):
        if limit := field_limit(command):
            raise CompileError(
                works[layer].title,
                f"it is too large for the NPU: {limit}",
                "make the layer smaller, or divide it into several",
                op_index=works[layer].op.origin.index,
            )
        code += command.encode()
    return bytes(code + End(tag=len(commands)).encode())


def _tensor(graph: Graph, plan: MemoryPlan, name: str) -> PlacedTensor:
    tensor, home = graph.tensors[name], plan.home_plan.homes[name]
    pixels = tensor.shape[-2] if len(tensor.shape) > 1 else 1
    return PlacedTensor(
        info=tensor_info(graph, tensor),
        region=home.region.name,
        offset=home.offset,
        row_pitch=pixels * home.pixel_pitch,
        pixel_pitch=home.pixel_pitch,
    )


def tensor_info(graph: Graph, tensor: Tensor) -> TensorInfo:
    """Return what a program says of a tensor of a graph, wherever it lies."""
    return TensorInfo(
        name=tensor.name,
        shape=tensor.shape,
        dtype=tensor.dtype.value,
        scale=float(tensor.scale or 0.0),
        zero_point=tensor.zero_point,
        kept_channels=tensor.kept_channels,
        origin=Origin(_format(graph) if tensor.index >= 0 else "", tensor.index, tensor.name),
    )


def _format(graph: Graph) -> str:
    """Return the format of the file that a graph comes from."""
    return next((op.origin.format for op in graph.ops if op.origin.format), "")


def _allocations(plan: MemoryPlan) -> list[dict[str, int | str]]:
    """Describe where tensors and stripe buffers are on chip, and when."""
    entries: list[dict[str, int | str]] = []
    for name, storage in plan.table.storages.items():
        if name in plan.addresses:
            entries.append(
                {
                    "memory": "ACT",
                    "what": ", ".join(storage.tensors),
                    "address": plan.addresses[name],
                    "bytes": storage.size_bytes,
                    "first_layer": storage.first,
                    "last_layer": storage.last,
                }
            )
    for work_plan in plan.works:
        if work_plan.tiling is None:
            continue
        sizes = (*work_plan.tiling.in_bytes, work_plan.tiling.out_bytes)
        buffers = (*work_plan.in_buffers, work_plan.out_buffers)
        names = (*work_plan.work.inputs, work_plan.work.output)
        for name, size, addresses in zip(names, sizes, buffers, strict=True):
            for address in addresses:
                entries.append(
                    {
                        "memory": "ACT",
                        "what": f"stripe of {name}",
                        "address": address,
                        "bytes": size,
                        "first_layer": work_plan.work.index,
                        "last_layer": work_plan.work.index,
                    }
                )
    for name, home in plan.home_plan.homes.items():
        entries.append(
            {
                "memory": home.region.name,
                "what": name,
                "address": home.offset,
                "bytes": home.size_bytes(plan.table.tensors[name].height),
            }
        )
    return entries


def _layers(
    graph: Graph,
    plan: MemoryPlan,
    schedule: Schedule,
    commands: list[Command],
    layers: list[int],
    prediction: Prediction,
    config: NpuConfig,
) -> tuple[LayerInfo, ...]:
    tags: dict[int, list[int]] = {}
    for index, layer in enumerate(layers):
        tags.setdefault(layer, []).append(index)
    infos = []
    done_cycles = 0
    for work_plan in plan.works:
        work = work_plan.work
        own = tags.get(work.index, [])
        end_cycles = max((prediction.commands[tag].end for tag in own), default=0)
        infos.append(
            LayerInfo(
                name=work.output,
                op=work.op.origin.name if work.add is None else f"{work.op.origin.name} + ADD",
                origin=work.op.origin,
                first_tag=min(own, default=-1),
                last_tag=max(own, default=-1),
                tiles=sum(_tiles(commands[tag]) for tag in own),
                macs=work.op.macs,
                folded_macs=work.op.folded_macs,
                # What the layer adds to the time at which all layers so far are complete.
                predicted_cycles=max(0, end_cycles - done_cycles),
                sram_bytes=_sram_bytes(work_plan, plan) + schedule.weight_bytes[work.index],
                dram_bytes=sum(_transferred(commands[tag]) for tag in own)
                + COMMAND_BYTES * len(own),
                reason=_reason(graph, plan, work_plan, config),
            )
        )
        done_cycles = max(done_cycles, end_cycles)
    return tuple(infos)


def _tiles(command: Command) -> int:
    if not isinstance(command, Conv) or command.hold:
        return 0
    return command.n_oc * ceil_div(command.out_h, command.tile_rows)


def _transferred(command: Command) -> int:
    if not isinstance(command, Transfer):
        return 0
    return command.row_bytes * command.n1 * command.n2


def _sram_bytes(work_plan: WorkPlan, plan: MemoryPlan) -> int:
    """Bytes of a work's operands on chip: whole tensors, or all of its stripe buffers."""
    work, total = work_plan.work, 0
    for name in dict.fromkeys([*work.inputs, work.output]):
        if name in plan.addresses:
            total += plan.table.tensors[name].chip_bytes
    if work_plan.tiling is not None:
        total += sum(work_plan.tiling.buffer_sizes)
    return total


def _reason(graph: Graph, plan: MemoryPlan, work_plan: WorkPlan, config: NpuConfig) -> str:
    """Say why the work is done as it is."""
    tiling, work = work_plan.tiling, work_plan.work
    if work.kind.placement is Placement.VIEW:
        return "copy through the chip" if work_plan.out_buffers else "moves no data"
    if work.index in plan.table.moves:
        return plan.table.moves[work.index].describe
    if work.index in plan.stored:
        return plan.stored[work.index].describe
    if work.kind.reason is not None:
        text = work.kind.reason(work.op)
    elif tiling is None:
        raise AssertionError(f"no words for {type(work.op).__name__}")
    elif tiling.mapping is not None:
        folded = any(op.output == work.inputs[0] and kind_of(op).packed for op in graph.npu_ops)
        text = tiling.mapping.describe(folded_input=folded)
    elif tiling.phases is not None:
        text = tiling.phases.describe()
    else:
        text = f"{work.kind.where}, {config.vector_lanes} lanes"
    if tiling is not None and any((*tiling.in_bytes, tiling.out_bytes)):
        text += f"; {len(tiling.stripes)} stripes x {len(tiling.groups)} channel groups"
    known = [str(op.exactness) for op in (work.op, work.add) if op is not None and op.exactness]
    return "; ".join([text, *dict.fromkeys(known)])
