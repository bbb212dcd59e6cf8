"""The NPU: the component to drop into a system."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from celosia.hw import parts
from celosia.hw.array.engine import ArrayEngine
from celosia.hw.array.products import NO_TABLES, TableRows
from celosia.hw.bus.arbiter import BusArbiter
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.ports import REGION_TABLE, initiator_signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine, Load, Region, Space
from celosia.hw.contract.trace import TAG_BITS, TRACE_STATES
from celosia.hw.control.control import EVENTS, Control
from celosia.hw.control.decode import command_layout
from celosia.hw.control.frontend import ENGINES, FrontEnd
from celosia.hw.dma.engines import Transfers
from celosia.hw.fabric.gating import resets, stops
from celosia.hw.fabric.ports import FaultPort, Unit
from celosia.hw.memory.weights import WeightMemory
from celosia.hw.nano.core import FirmwareCore
from celosia.hw.nano.local import LocalMemory
from celosia.hw.vector.engine import VectorEngine

__all__ = ["Npu", "NpuCore", "TracePort"]


class TracePort(Signature):
    """What the engines do in this cycle, for profilers and testbenches, seen from the NPU.

    Plain wires to signals that are there anyway: left unconnected they cost nothing.

    Members
    -------
    tags : Out(64)
        Tag of the command of each :class:`celosia.hw.contract.isa.Engine`, 16 bits each, LOAD's
        lowest; means something while the engine is active.
    state : Out(14)
        Bits by :data:`celosia.hw.contract.trace.TRACE_STATES`.
    """

    def __init__(self) -> None:
        super().__init__({"tags": Out(TAG_BITS * ENGINES), "state": Out(len(TRACE_STATES))})


class NpuCore(Component):
    """Everything but the registers: what an error resets and what sleep stops.

    Members
    -------
    bus : Out(Wishbone)
    start : In(1), sleep : In(1), done : Out(1)
    regions, bus_timeout : In; region_select : Out
    faults, tags, overflow, active, busy, wait_token, bus_fault, bus_unit, events : Out
        As :class:`celosia.hw.control.control.Control` takes them.
    trace : Out(TracePort)
    """

    def __init__(self, config: NpuConfig, *, tables: TableRows = NO_TABLES) -> None:
        self._config = config
        self._tables = tables
        super().__init__(
            {
                "bus": Out(initiator_signature(config)),
                "start": In(1),
                "sleep": In(1),
                "done": Out(1),
                "regions": In(REGION_TABLE),
                "region_select": Out(range(len(Region))),
                "bus_timeout": In(32),
                "faults": Out(FaultPort()).array(len(Unit)),
                "tags": Out(16).array(len(Unit)),
                "overflow": Out(ENGINES),
                "active": Out(ENGINES),
                "busy": Out(ENGINES),
                "wait_token": Out(ENGINES),
                "bus_fault": Out(FaultPort()),
                "bus_unit": Out(range(len(Unit))),
                "events": Out(Signature({name: Out(1) for name in EVENTS})),
                "trace": Out(TracePort()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        # The clock enable of an engine falls while it has nothing to do, which is so whenever
        # the machine sleeps; that of the rest falls then. Each is known a cycle ahead.
        frontend = FrontEnd(config)
        transfers = parts.transfers(config)
        # Commands are fetched through the first port.
        arbiter = parts.bus_arbiter(config, ports=1 + len(transfers.mems), readers=1)
        array = ArrayEngine(config, tables=self._tables)
        vector = VectorEngine(config)
        # Seen before the first entry comes.
        load = data.View(command_layout(Load), transfers.load.payload)
        fills = transfers.load.valid & (load.space == int(Space.TABLE))
        # Nothing begins without a command, so what goes on after one was there a cycle ago.
        fills_table, array_works = Signal(), Signal()
        m.d.sync += [fills_table.eq(fills), array_works.eq(array.working)]
        awake, wake = ~self.sleep, frontend.wake
        for name, part, enable, ahead, waits in (
            ("frontend", frontend, awake, awake, ~frontend.moves),
            ("bus", arbiter, awake, awake, arbiter.idle),
            *transfers.domains(wake),
            (
                "array",
                array,
                array.cmd.valid | array_works,
                wake[Engine.ARRAY] | array_works,
                None,
            ),
            (
                "vector",
                vector,
                vector.cmd.valid | fills_table,
                wake[Engine.VECTOR] | fills,
                vector.waits & ~fills_table,
            ),
        ):
            m.submodules[name] = stops(
                m,
                part,
                enable,
                ahead=ahead,
                domain=name,
                platform=platform,
                waits=waits,
                enables=parts.has_enables(config),
            )
        act = m.submodules.act = parts.act_sram(config)
        wgt = m.submodules.wgt = WeightMemory(config)
        param = parts.line_memory(config, lines=config.param_lines, reader="vector")
        m.submodules.param = param

        engines = {
            Engine.LOAD: transfers.load,
            Engine.STORE: transfers.store,
            Engine.ARRAY: array.cmd,
            Engine.VECTOR: vector.cmd,
        }
        for engine, port in engines.items():
            connect(m, frontend.commands[engine], port)
        for index, port in enumerate((frontend.mem, *transfers.mems)):
            connect(m, port, arbiter.ports[index])
        connect(m, arbiter.bus, flipped(self.bus))
        connect(m, array.act, act.array)
        connect(m, array.wgt, wgt.read)
        connect(m, vector.acc, array.acc)
        connect(m, vector.act, act.vector)
        connect(m, vector.dst, act.result)
        connect(m, vector.param, param.read)
        connect(m, transfers.read, act.store)
        self._route_loads(
            m,
            transfers.write,
            {
                Space.ACT: act.load,
                Space.WGT: wgt.write,
                Space.PARAM: param.write,
                Space.TABLE: vector.table,
            },
        )
        m.d.comb += [
            frontend.start.eq(self.start),
            self.done.eq(frontend.done),
            arbiter.timeout.eq(self.bus_timeout),
            frontend.rested.eq(arbiter.rested),
            frontend.loaded.eq(transfers.done),
            frontend.streamed.eq(array.done),
            frontend.regions.eq(self.regions),
            *(part.regions.eq(self.regions) for part in transfers.engines),
            # Before a program's first transfer its commands are fetched.
            self.region_select.eq(transfers.region),
            self.active.eq(frontend.active),
            self.busy.eq(frontend.busy),
            self.wait_token.eq(frontend.wait_token),
            self.overflow.eq(frontend.overflow),
        ]
        faults = (*transfers.faults, array.fault, vector.fault, frontend.fault)
        self._report(m, frontend, arbiter, faults)
        self._report_bus(m, arbiter, transfers)
        self._count(m, arbiter, array, vector)
        self._trace(m, frontend)
        return m

    def _route_loads(self, m: Module, write: Signature, targets: dict[Space, Signature]) -> None:
        """Give each write of the load engine to the memory that it names."""
        for space, target in targets.items():
            selected = Signal(name=f"load_to_{space.name.lower()}")
            m.d.comb += [
                selected.eq(write.space == int(space)),
                target.req.eq(write.req & selected),
                target.space.eq(write.space),
                target.addr.eq(write.addr),
                target.data.eq(write.data),
                target.mask.eq(write.mask),
            ]
            with m.If(selected):
                m.d.comb += write.gnt.eq(target.gnt)

    def _report(
        self, m: Module, frontend: FrontEnd, arbiter: BusArbiter, faults: tuple[Any, ...]
    ) -> None:
        """Bring errors and the tags they are about to the register shell."""
        for unit, fault in zip(Unit, faults, strict=True):
            tag = frontend.tag if unit is Unit.FETCH else frontend.tags[unit]
            m.d.comb += [
                self.faults[unit].valid.eq(fault.valid),
                self.faults[unit].cause.eq(fault.cause),
                self.faults[unit].address.eq(fault.address),
                self.tags[unit].eq(tag),
            ]

    def _report_bus(self, m: Module, arbiter: BusArbiter, transfers: Transfers) -> None:
        """Bring the bus's errors there, with the unit that they belong to."""
        m.d.comb += [
            self.bus_fault.valid.eq(arbiter.fault.valid),
            self.bus_fault.cause.eq(arbiter.fault.cause),
            self.bus_fault.address.eq(arbiter.fault.address),
        ]
        with m.Switch(arbiter.fault_port):
            for index, unit in enumerate((Unit.FETCH, *transfers.units)):
                with m.Case(index):
                    m.d.comb += self.bus_unit.eq(int(unit))
        for place in transfers.also_stores:
            with m.If((arbiter.fault_port == 1 + place) & self.busy[Engine.STORE]):
                m.d.comb += self.bus_unit.eq(int(Unit.STORE))

    def _count(
        self, m: Module, arbiter: BusArbiter, array: ArrayEngine, vector: VectorEngine
    ) -> None:
        events = self.events
        m.d.comb += [
            events.array_busy.eq(array.busy),
            events.array_wait_weights.eq(array.wait_weights),
            events.array_wait_acc.eq(array.wait_acc),
            events.array_start.eq(array.starting),
            events.vector_busy.eq(vector.busy),
            events.vector_wait_acc.eq(vector.wait_acc),
            events.vector_wait_act.eq(vector.wait_act),
            events.bus_read.eq(arbiter.read),
            events.bus_write.eq(arbiter.write),
            events.bus_wait.eq(arbiter.wait),
        ]

    def _trace(self, m: Module, frontend: FrontEnd) -> None:
        events = self.events
        signals = {
            "array_stream": events.array_busy,
            "array_wait_weights": events.array_wait_weights,
            "array_wait_acc": events.array_wait_acc,
            "vector_stream": events.vector_busy,
            "vector_wait_acc": events.vector_wait_acc,
            "vector_wait_act": events.vector_wait_act,
        }
        for engine in Engine:
            name = engine.name.lower()
            signals[f"{name}_active"] = frontend.active[engine]
            signals[f"{name}_busy"] = frontend.busy[engine]
        m.d.comb += [
            self.trace.tags.eq(Cat(frontend.tags[engine] for engine in Engine)),
            self.trace.state.eq(Cat(signals[name] for name in TRACE_STATES)),
        ]


class Npu(Component):
    """Celosia: a microNPU with a Wishbone target for its registers and a Wishbone initiator.

    Parameters
    ----------
    config : NpuConfig
    local_memory : Component, optional
        Of a machine with ``firmware``: in place of
        :class:`celosia.hw.nano.local.LocalMemory`, which is block RAM.
    tables : TableRows
        Of a machine with engines: rows of the array whose multipliers are tables.

    Members
    -------
    csr : In(Wishbone)
        Register bus, 32 bits (docs/registers.md).
    bus : Out(Wishbone)
        To system memory: B4 pipelined, ``config.bus_bits`` wide, word addresses.
    irq : Out(1)
        Level; see ``irq_enable`` and ``irq_pending``.
    trace : Out(TracePort)
        For profilers; leave it unconnected in a design.
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        local_memory: Component | None = None,
        tables: TableRows = NO_TABLES,
    ) -> None:
        self._config = config
        self._local_memory = local_memory
        self._tables = tables
        super().__init__(
            {
                "csr": In(csr_signature()),
                "bus": Out(initiator_signature(config)),
                "irq": Out(1),
                "trace": Out(TracePort()),
            }
        )

    @property
    def config(self) -> NpuConfig:
        """The configuration."""
        return self._config

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self._config.firmware:
            self._run_firmware(m)
        else:
            self._run_engines(m, platform)
        return m

    def _run_firmware(self, m: Module) -> None:
        m.submodules.core = core = FirmwareCore(self._config)
        m.submodules.local = local = self._local_memory or LocalMemory(self._config)
        connect(m, flipped(self.csr), core.csr)
        connect(m, core.bus, flipped(self.bus))
        connect(m, core.local, local.port)
        m.d.comb += [
            self.irq.eq(core.irq),
            self.trace.tags.eq(core.tags),
            self.trace.state.eq(core.state),
        ]

    def _run_engines(self, m: Module, platform: object) -> None:
        control = m.submodules.control = Control(self._config)
        core = NpuCore(self._config, tables=self._tables)
        m.submodules.core = resets(m, core, control.halt, platform=platform)
        connect(m, flipped(self.csr), control.bus)
        connect(m, core.bus, flipped(self.bus))
        connect(m, core.trace, flipped(self.trace))
        m.d.comb += [
            self.irq.eq(control.irq),
            core.start.eq(control.start),
            core.sleep.eq(control.sleep),
            control.done.eq(core.done),
            core.regions.eq(control.regions),
            control.region_select.eq(core.region_select),
            core.bus_timeout.eq(control.bus_timeout),
            control.overflow.eq(core.overflow),
            control.active.eq(core.active),
            control.busy.eq(core.busy),
            control.wait_token.eq(core.wait_token),
            control.bus_unit.eq(core.bus_unit),
        ]
        ports = [(control.bus_fault, core.bus_fault)]
        ports += [(control.faults[unit], core.faults[unit]) for unit in Unit]
        for sink, source in ports:
            m.d.comb += [
                sink.valid.eq(source.valid),
                sink.cause.eq(source.cause),
                sink.address.eq(source.address),
            ]
        for unit in Unit:
            m.d.comb += control.tags[unit].eq(core.tags[unit])
        for name in EVENTS:
            m.d.comb += getattr(control.events, name).eq(getattr(core.events, name))
