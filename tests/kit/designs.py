"""The designs under test: parts of the machine with the neighbours that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from amaranth.hdl import EnableInserter, Module, Mux, ResetInserter, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw import parts
from celosia.hw.array.engine import ArrayEngine
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.ports import REGION_TABLE, initiator_signature
from celosia.hw.contract.config import PRESETS, NpuConfig
from celosia.hw.contract.isa import Engine, Space
from celosia.hw.contract.operations import OPERATIONS
from celosia.hw.control.control import Control
from celosia.hw.dma.load import LoadEngine
from celosia.hw.dma.store import StoreEngine
from celosia.hw.fabric.enable import SpreadEnable
from celosia.hw.fabric.ports import CommandPort, FaultPort, Unit
from celosia.hw.memory.act import ArrayRead
from celosia.hw.memory.ports import AccRead, LineRead, LineWrite, WindowWrite, bank_of
from celosia.hw.memory.weights import WeightMemory
from celosia.hw.npu import Npu
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_timing import SDRAM_CHIPS
from celosia.hw.vector.engine import VectorEngine
from celosia.quantities import KIB
from celosia.sim.board.sdram_chip import STORAGE_VERILOG, SimulatedSdram

__all__ = ["DESIGNS", "Design"]


class ControlTop(Component):
    """The registers, with what the machine reports to them cut down to one fault and one event."""

    FAULTY = Unit.ARRAY

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "bus": In(csr_signature()),
                "irq": Out(1),
                "start": Out(1),
                "halt": Out(1),
                "sleep": Out(1),
                "regions": Out(REGION_TABLE),
                "bus_timeout": Out(32),
                "done": In(1),
                "fault": In(FaultPort()),
                "tag": In(16),
                "active": In(len(Engine)),
                "busy": In(len(Engine)),
                "bus_read": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        control = m.submodules.control = Control(self._config)
        fault = control.faults[self.FAULTY]
        connect(m, flipped(self.bus), control.bus)
        connect(m, flipped(self.fault), fault)
        m.d.comb += [
            control.done.eq(self.done),
            control.tags[self.FAULTY].eq(self.tag),
            control.active.eq(self.active),
            control.busy.eq(self.busy),
            control.events.bus_read.eq(self.bus_read),
        ]
        for name in ("irq", "start", "halt", "sleep", "regions", "bus_timeout"):
            m.d.comb += getattr(self, name).eq(getattr(control, name))
        return m


def read_by_line(m: Module, outer: Any, inner: Any) -> None:
    """Connect a LineRead from outside to a BankRead."""
    m.d.comb += [
        inner.bank.eq(Mux(outer.req, bank_of(outer.line), 0)),
        inner.line.eq(outer.line),
        outer.gnt.eq(inner.gnt),
        outer.data.eq(inner.data),
    ]


class DmaTop(Component):
    """Both DMA engines on the arbiter, with the memories that they fill and empty.

    `halt` resets all but the memories, as the machine does after an error. Writes to TABLE go to
    the outside; the activation SRAM's other ports are there to be in the way.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "halt": In(1),
                "load": In(CommandPort()),
                "store": In(CommandPort()),
                "load_done": Out(1),
                "load_fault": Out(FaultPort()),
                "store_fault": Out(FaultPort()),
                "bus_fault": Out(FaultPort()),
                "bus_fault_port": Out(1),
                "regions": In(REGION_TABLE),
                "timeout": In(32),
                "bus": Out(initiator_signature(config)),
                "table": Out(WindowWrite(config)),
                "array": In(ArrayRead(config)),
                "vector": In(LineRead(config)),
                "result": In(LineWrite(config)),
                "wgt": In(LineRead(config)),
                "param": In(LineRead(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        stage = parts.stage_buffer(config)
        load, store = LoadEngine(config, stage=stage), StoreEngine(config, stage=stage)
        arbiter = parts.bus_arbiter(config, ports=2)
        for name, part in (("load", load), ("store", store), ("arbiter", arbiter)):
            m.submodules[name] = ResetInserter(self.halt)(part)
        act = m.submodules.act = parts.act_sram(config)
        wgt = m.submodules.wgt = WeightMemory(config)
        param = parts.line_memory(config, lines=config.param_lines, reader="vector")
        m.submodules.param = param
        connect(m, flipped(self.load), load.command)
        connect(m, flipped(self.store), store.command)
        connect(m, load.mem, arbiter.ports[0])
        connect(m, store.mem, arbiter.ports[1])
        connect(m, arbiter.bus, flipped(self.bus))
        connect(m, store.read, act.store)
        for outer, inner in (
            (self.array, act.array),
            (self.result, act.result),
            (self.param, param.read),
        ):
            connect(m, flipped(outer), inner)
        read_by_line(m, self.vector, act.vector)
        # The weight memory gives lines in pairs.
        odd, odd_1 = Signal(), Signal()
        m.d.sync += [odd_1.eq(self.wgt.line[0]), odd.eq(odd_1)]
        m.d.comb += [
            wgt.read.req.eq(self.wgt.req),
            wgt.read.line.eq(self.wgt.line),
            self.wgt.gnt.eq(1),
            self.wgt.data.eq(Mux(odd, wgt.read.data[1], wgt.read.data[0])),
        ]
        targets = ((Space.ACT, act.load), (Space.WGT, wgt.write), (Space.PARAM, param.write),
                   (Space.TABLE, self.table))  # fmt: skip
        for space, target in targets:
            m.d.comb += [
                target.req.eq(load.write.req & (load.write.space == int(space))),
                target.space.eq(load.write.space),
                target.addr.eq(load.write.addr),
                target.data.eq(load.write.data),
                target.mask.eq(load.write.mask),
            ]
            with m.If(load.write.space == int(space)):
                m.d.comb += load.write.gnt.eq(target.gnt)
        for inner, outer in (
            (load.fault, self.load_fault),
            (store.fault, self.store_fault),
            (arbiter.fault, self.bus_fault),
        ):
            connect(m, inner, flipped(outer))
        m.d.comb += [
            self.load_done.eq(load.done),
            load.regions.eq(self.regions),
            store.regions.eq(self.regions),
            arbiter.timeout.eq(self.timeout),
            self.bus_fault_port.eq(arbiter.fault_port),
        ]
        return m


class ArrayTop(Component):
    """The array engine, its clock enable as in the machine, and the memories that it reads."""

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "halt": In(1),
                "cmd": In(CommandPort()),
                "done": Out(1),
                "fault": Out(FaultPort()),
                "acc": In(AccRead(config)),
                "result": In(LineWrite(config)),
                "vector": In(LineRead(config)),
                "weights": In(WindowWrite(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        engine = ArrayEngine(config)
        m.submodules.engine = ResetInserter(self.halt)(SpreadEnable(engine.working)(engine))
        act = m.submodules.act = parts.act_sram(config)
        wgt = m.submodules.wgt = WeightMemory(config)
        connect(m, engine.act, act.array)
        connect(m, engine.wgt, wgt.read)
        for outer, inner in (
            (self.cmd, engine.cmd),
            (self.acc, engine.acc),
            (self.result, act.result),
            (self.weights, wgt.write),
        ):
            connect(m, flipped(outer), inner)
        read_by_line(m, self.vector, act.vector)
        connect(m, engine.fault, flipped(self.fault))
        m.d.comb += self.done.eq(engine.done)
        return m


class VectorTop(Component):
    """The vector engine, its clock enable as in the machine; all its memories are models."""

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "halt": In(1),
                "cmd": In(CommandPort()),
                "fault": Out(FaultPort()),
                "acc": Out(AccRead(config)),
                "act": Out(LineRead(config)),
                "dst": Out(LineWrite(config)),
                "param": Out(LineRead(config)),
                "table": In(WindowWrite(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        engine = VectorEngine(self._config)
        enabled = EnableInserter(engine.cmd.valid | engine.table.req)(engine)
        m.submodules.engine = ResetInserter(self.halt)(enabled)
        for outer, inner in ((self.cmd, engine.cmd), (self.table, engine.table)):
            connect(m, flipped(outer), inner)
        for inner, outer in (
            (engine.fault, self.fault),
            (engine.acc, self.acc),
            (engine.dst, self.dst),
            (engine.param, self.param),
        ):
            connect(m, inner, flipped(outer))
        m.d.comb += [
            # With a wrong bank there is no request, and the bench would wait in vain.
            self.act.req.eq(engine.act.bank == bank_of(engine.act.line)),
            self.act.line.eq(engine.act.line),
            engine.act.gnt.eq(self.act.gnt),
            engine.act.data.eq(self.act.data),
        ]
        return m


class SdramTop(Component):
    """System memory: the SDRAM controller and a chip, all of its 32 MB."""

    CHIP = replace(
        SDRAM_CHIPS["W9825G6KH-6"],
        timing=replace(SDRAM_CHIPS["W9825G6KH-6"].timing, power_up_us=1.0),
    )
    CLOCK_HZ = 80e6

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__({"bus": In(initiator_signature(config)), "initialised": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.controller = controller = SdramController(
            self._config, chip=self.CHIP, clock_hz=self.CLOCK_HZ
        )
        m.submodules.chip = chip = SimulatedSdram(self.CHIP, verilog_storage=True)
        connect(m, flipped(self.bus), controller.bus)
        connect(m, controller.pins, chip.pins)
        m.d.comb += self.initialised.eq(controller.initialised)
        return m


@dataclass(frozen=True)
class Design:
    """A design under test.

    Attributes
    ----------
    top : callable
        Makes the component.
    config : NpuConfig
        Its configuration.
    bench : str
        The module with its cocotb tests.
    verilog : str
        Modules that the top instantiates and that are no Amaranth.
    """

    top: Callable[[NpuConfig], Component]
    config: NpuConfig
    bench: str
    verilog: str = ""


NANO, TINY = PRESETS["nano"], PRESETS["tiny"]
_SMALL = {"act_bytes": KIB, "wgt_bytes": KIB, "param_bytes": KIB, "max_outstanding": 8}

_ARRAY: dict[str, Any] = {"act_bytes": 8 * KIB, "acc_depth": 64, "lanes": None}
_WIDE: dict[str, Any] = {"lanes": None, "compact": False}

DESIGNS = {
    "csr": Design(ControlTop, NANO, "tests.cocotb.bench_csr"),
    "dma_narrow": Design(DmaTop, TINY.with_(**_SMALL), "tests.cocotb.bench_dma"),
    "dma_wide": Design(DmaTop, TINY.with_(**_SMALL, bus_bits=64), "tests.cocotb.bench_dma"),
    "array": Design(ArrayTop, TINY.with_(**_ARRAY, compact=False), "tests.cocotb.bench_array"),
    "array_compact": Design(ArrayTop, TINY.with_(**_ARRAY), "tests.cocotb.bench_array"),
    # With several beats a vector: the whole machines below, and tests/hw/vector/test_vector.py.
    "vector": Design(
        VectorTop,
        NANO.with_(param_bytes=4 * KIB, operations=OPERATIONS, firmware=False, **_WIDE),
        "tests.cocotb.bench_vector",
    ),
    "npu_nano": Design(Npu, NANO, "tests.cocotb.bench_npu"),
    "npu_tiny": Design(Npu, TINY, "tests.cocotb.bench_npu"),
    "sdram_narrow": Design(SdramTop, TINY, "tests.cocotb.bench_sdram", STORAGE_VERILOG),
    "sdram_wide": Design(SdramTop, PRESETS["large"], "tests.cocotb.bench_sdram", STORAGE_VERILOG),
}
"""Every design under test, by name."""
