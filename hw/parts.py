"""Which class each part of a machine is: the one place that asks a configuration for it.

Both variants of a part (:mod:`celosia.hw.contract.parts`) have the same ports, so that nobody but
this module knows which one is there. What is imported here imports nothing from here: a variant
that has parts inside is given them.
"""

from __future__ import annotations

from typing import TypeVar

from celosia.hw.array.accumulator import Accumulator, MirroredAccumulator
from celosia.hw.array.feed import Feed, MemoryFeed
from celosia.hw.array.grid import (
    DirectWeights,
    MemorySkew,
    RegisteredProducts,
    RegisterSkew,
    ShadowWeights,
    SystolicArray,
    WiredProducts,
)
from celosia.hw.array.products import NO_TABLES, TableRows
from celosia.hw.array.weights import WeightLoader
from celosia.hw.array.weights_direct import DirectWeightLoader
from celosia.hw.bus.arbiter import BusArbiter, PlainBusArbiter, SmallBusArbiter
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine, VectorOp
from celosia.hw.contract.needed import operation_of
from celosia.hw.contract.operations import Operation
from celosia.hw.contract.parts import Part
from celosia.hw.control.counters import Counters, MemoryCounters
from celosia.hw.control.errors import DirectErrorLatch, ErrorLatch
from celosia.hw.control.fetch import CommandFetch
from celosia.hw.control.queue import SeparateQueues
from celosia.hw.control.registers import MemoryRegisters, ShellRegisters
from celosia.hw.control.shared_queue import SharedQueues
from celosia.hw.control.tokens import SingleTransferGates, TokenGates
from celosia.hw.dma.engines import SingleTransfers, Transfers
from celosia.hw.fabric.buffer import StreamBuffer, StreamRegister, StreamWire
from celosia.hw.memory.act import ActSram, SharedActSram
from celosia.hw.memory.lines import LineMemory, PlainLineMemory
from celosia.hw.vector.counter import LoopCounter, PlainLoopCounter
from celosia.hw.vector.held import CommandInPlace, HeldCommand
from celosia.hw.vector.lane import Lane, SmallLane
from celosia.hw.vector.lending import LendingPipeline
from celosia.hw.vector.params import BeatParamLoader, ParamLoader
from celosia.hw.vector.pipeline import MemoryCarry, Pipeline, RegisterCarry
from celosia.hw.vector.scratch import NoScratch, Scratch
from celosia.hw.vector.softmax import LentSoftmax, NoSoftmax, SoftmaxUnit
from celosia.hw.vector.table import NoTable, PlainTable, Table
from celosia.hw.vector.walker import NoWalker, Walker

__all__ = [
    "accumulator",
    "act_sram",
    "bus_arbiter",
    "command_fetch",
    "command_queues",
    "counters",
    "error_latch",
    "feed",
    "has_enables",
    "held_command",
    "line_memory",
    "loop_counter",
    "param_loader",
    "pipeline",
    "second_walker",
    "shell_registers",
    "softmax_unit",
    "stage_buffer",
    "step_buffer",
    "systolic_array",
    "table",
    "token_gates",
    "transfers",
    "walker",
    "weight_loader",
]

Fast = TypeVar("Fast")
Small = TypeVar("Small")


def _choose(config: NpuConfig, part: Part, small: Small, fast: Fast) -> Small | Fast:
    return small if part in config.parts else fast


def _has_terms(config: NpuConfig) -> bool:
    """Whether something is kept of two tensors until both are there."""
    return any(op.has_b and config.can(operation_of(op)) for op in VectorOp)


# Between the parts.


def stage_buffer(config: NpuConfig) -> type[StreamBuffer | StreamWire]:
    """Return the class of what is between two stages that hand on a stream."""
    buffer = _choose(config, Part.SINGLE_BUFFERS, StreamRegister, StreamBuffer)
    return _choose(config, Part.PLAIN_STAGES, StreamWire, buffer)


def step_buffer(config: NpuConfig, shape: object) -> StreamBuffer:
    """Return what the planned steps of the vector engine wait in."""
    return _choose(config, Part.SINGLE_STEPS, StreamRegister, StreamBuffer)(shape)


def has_enables(config: NpuConfig) -> bool:
    """Return whether the engines have clock enables."""
    return Part.NO_ENABLES not in config.parts


# Control.


def command_fetch(config: NpuConfig) -> CommandFetch:
    """Return what reads the command stream."""
    return CommandFetch(
        config,
        ahead=_choose(config, Part.FETCH_ON_DEMAND, 0, 1),
        spare=Part.SINGLE_BUFFERS not in config.parts,
    )


def command_queues(config: NpuConfig) -> SharedQueues | SeparateQueues:
    """Return the queues of the four engines."""
    if Part.SHARED_QUEUES in config.parts:
        return SharedQueues(config)
    # Of stores there are few, and where one transfer runs at a time nothing waits for the next.
    return SeparateQueues(
        config, direct=_choose(config, Part.SINGLE_TRANSFERS, (Engine.LOAD, Engine.STORE), ())
    )


def token_gates(config: NpuConfig) -> TokenGates:
    """Return what commands wait at for their tokens."""
    gates = _choose(config, Part.SINGLE_TRANSFERS, SingleTransferGates, TokenGates)
    return gates(spare=Part.SINGLE_BUFFERS not in config.parts)


def error_latch(config: NpuConfig) -> ErrorLatch:
    """Return what keeps a program's first error."""
    return _choose(config, Part.PLAIN_ERRORS, DirectErrorLatch, ErrorLatch)()


def counters(config: NpuConfig) -> Counters | MemoryCounters:
    """Return the performance counters."""
    return _choose(config, Part.MEMORY_COUNTERS, MemoryCounters, Counters)()


def shell_registers(config: NpuConfig) -> ShellRegisters:
    """Return the registers of the machine."""
    return _choose(config, Part.MEMORY_REGISTERS, MemoryRegisters, ShellRegisters)()


# Bus and memories.


def bus_arbiter(config: NpuConfig, *, ports: int, readers: int = 0) -> BusArbiter:
    """Return what so many users share the bus by, of whom the first ones only read."""
    small = _choose(config, Part.PLAIN_STAGES, PlainBusArbiter, SmallBusArbiter)
    kind = _choose(config, Part.SINGLE_BUFFERS, small, BusArbiter)
    return kind(config, ports=ports, readers=readers)


def transfers(config: NpuConfig) -> Transfers:
    """Return what executes loads and stores."""
    kind = _choose(config, Part.SINGLE_TRANSFERS, SingleTransfers, Transfers)
    return kind(config, stage=stage_buffer(config))


def act_sram(config: NpuConfig) -> ActSram:
    """Return the activation SRAM."""
    return _choose(config, Part.SHARED_ACT_PORTS, SharedActSram, ActSram)(config)


def line_memory(config: NpuConfig, *, lines: int, reader: str) -> LineMemory:
    """Return a memory of weights or parameters, as of LineMemory."""
    kind = _choose(config, Part.PLAIN_OUTPUTS, PlainLineMemory, LineMemory)
    return kind(config, lines=lines, reader=reader)


# The array.


def weight_loader(config: NpuConfig) -> WeightLoader | DirectWeightLoader:
    """Return what brings weights to the array."""
    return _choose(config, Part.DIRECT_WEIGHTS, DirectWeightLoader, WeightLoader)(config)


def systolic_array(config: NpuConfig, tables: TableRows = NO_TABLES) -> SystolicArray:
    """Return the multipliers, of which those of some rows are tables."""
    return SystolicArray(
        config,
        weights=_choose(config, Part.DIRECT_WEIGHTS, DirectWeights, ShadowWeights),
        products=_choose(config, Part.COMBINATIONAL_PRODUCTS, WiredProducts, RegisteredProducts),
        skew=_choose(config, Part.MEMORY_DELAYS, MemorySkew, RegisterSkew),
        tables=tables,
    )


def feed(config: NpuConfig, *, tag_delay_cycles: int) -> Feed:
    """Return what reads the array's operands, with tags that are late by so many cycles."""
    kind = _choose(config, Part.MEMORY_DELAYS, MemoryFeed, Feed)
    return kind(config, tag_delay_cycles=tag_delay_cycles)


def accumulator(config: NpuConfig, *, sum_bits: int) -> Accumulator:
    """Return the halves that sums are added up in."""
    kind = _choose(config, Part.MIRRORED_ACCUMULATOR, MirroredAccumulator, Accumulator)
    return kind(config, sum_bits=sum_bits)


# The vector engine.


def loop_counter(config: NpuConfig) -> type[LoopCounter]:
    """Return the class of what counts a loop."""
    return _choose(config, Part.PLAIN_LOOPS, PlainLoopCounter, LoopCounter)


def walker(config: NpuConfig, *, windowed: bool) -> Walker:
    """Return what walks over a tensor."""
    return Walker(windowed=windowed, counter=loop_counter(config))


def second_walker(config: NpuConfig) -> Walker:
    """Return what walks over a second tensor."""
    kind = Walker if _has_terms(config) or config.can(Operation.PAIR) else NoWalker
    return kind(windowed=False, counter=loop_counter(config))


def held_command(config: NpuConfig) -> type[HeldCommand | CommandInPlace]:
    """Return where the vector engine's command is while it runs."""
    return _choose(config, Part.COMMAND_IN_PLACE, CommandInPlace, HeldCommand)


def pipeline(config: NpuConfig) -> Pipeline:
    """Return the lanes and what tells them what to do."""
    lends = config.can(Operation.SOFTMAX) and Part.LENT_SOFTMAX in config.parts
    return (LendingPipeline if lends else Pipeline)(
        config,
        lane=_choose(config, Part.SMALL_LANES, SmallLane, Lane),
        carry=_choose(config, Part.MEMORY_DELAYS, MemoryCarry, RegisterCarry),
        scratch=Scratch if _has_terms(config) else NoScratch,
    )


def softmax_unit(config: NpuConfig) -> SoftmaxUnit:
    """Return what computes softmax, with what :func:`pipeline` lends it."""
    if not config.can(Operation.SOFTMAX):
        return NoSoftmax(config)
    return _choose(config, Part.LENT_SOFTMAX, LentSoftmax, SoftmaxUnit)(config)


def param_loader(config: NpuConfig) -> ParamLoader:
    """Return what reads the blocks of parameters."""
    return _choose(config, Part.SHIFTS_BY_BEATS, BeatParamLoader, ParamLoader)(config)


def table(config: NpuConfig) -> Table:
    """Return the look-up tables, which softmax reads as well."""
    if not (config.can(Operation.TABLE) or config.can(Operation.SOFTMAX)):
        return NoTable(config)
    return _choose(config, Part.PLAIN_TABLE_WRITES, PlainTable, Table)(config)
