"""The firmware machine: what takes the place of registers, engines and memories."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine
from celosia.hw.contract.trace import TAG_BITS, TRACE_STATES
from celosia.hw.nano.firmware.image import firmware
from celosia.hw.nano.initiator import MemoryAccess
from celosia.hw.nano.instructions import In as InputPort
from celosia.hw.nano.instructions import Out as OutputPort
from celosia.hw.nano.layout import LocalMap
from celosia.hw.nano.local import LocalPort
from celosia.hw.nano.multiplier import Multiplier
from celosia.hw.nano.processor import Processor
from celosia.hw.nano.registers import Registers
from celosia.hw.nano.runs import ArrayRuns

__all__ = ["FirmwareCore"]

WORD_BITS = 32
LANE_BITS = 2


class FirmwareCore(Component):
    """A processor, an array and the memories, behind the ports of the NPU.

    Parameters
    ----------
    config : NpuConfig
        With ``firmware``.

    Members
    -------
    csr, bus, irq
        As of :class:`celosia.hw.npu.Npu`.
    tags, state : Out
        As of :class:`celosia.hw.npu.TracePort`.
    local : Out(LocalPort)
        To a local memory, a cycle from an address to its word.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "csr": In(csr_signature()),
                "bus": Out(initiator_signature(config)),
                "irq": Out(1),
                "tags": Out(TAG_BITS * len(Engine)),
                "state": Out(len(TRACE_STATES)),
                "local": Out(LocalPort(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.processor = cpu = Processor(firmware(config))
        m.submodules.multiplier = multiplier = Multiplier()
        m.submodules.runs = runs = ArrayRuns(config)
        m.submodules.access = access = MemoryAccess(config)
        m.submodules.registers = registers = Registers()
        connect(m, flipped(self.csr), registers.bus)
        connect(m, access.bus, flipped(self.bus))
        finishes = self._written(m, cpu, OutputPort.FINISH)
        m.d.comb += [
            self.irq.eq(registers.irq),
            registers.host_turn.eq(cpu.host_turn),
            cpu.host_address.eq(registers.host_address),
            registers.host_data.eq(cpu.host_data),
            cpu.host_write.eq(registers.host_write),
            cpu.host_write_data.eq(registers.host_write_data),
            registers.finish.eq(finishes & cpu.write_data[0]),
            registers.fail.eq(finishes & cpu.write_data[1]),
            # From the doorbell, too: so that a program takes as many cycles each time.
            cpu.restart.eq(registers.reset | registers.start),
            cpu.stay.eq(registers.asleep),
            access.cancel.eq(registers.reset | registers.fail),
            cpu.hold.eq(runs.busy),
            multiplier.load_a.eq(cpu.factor_a | self._written(m, cpu, OutputPort.FACTOR_A)),
            multiplier.load_b.eq(cpu.factor_b | self._written(m, cpu, OutputPort.FACTOR_B)),
            multiplier.factor.eq(Mux(cpu.write, cpu.write_data, cpu.factor)),
        ]
        for part in (runs, access):
            m.d.comb += [
                part.port.eq(cpu.port),
                part.write.eq(cpu.write),
                part.write_data.eq(cpu.write_data),
            ]
        m.d.comb += [
            runs.acc_load.eq(self._written(m, cpu, OutputPort.ACCUMULATOR_ADDRESS)),
            runs.acc_next.eq(cpu.read & (cpu.port == InputPort.ACCUMULATOR)),
        ]
        local_byte = self._local(m, cpu, runs)
        with m.Switch(cpu.port):
            for port, value in (
                (
                    InputPort.STATUS,
                    Cat(registers.running, access.ready, access.failed, runs.beyond),
                ),
                (InputPort.PRODUCT_LOW, multiplier.low),
                (InputPort.PRODUCT_Q31, multiplier.high),
                (InputPort.PRODUCT_ROUNDED, multiplier.rounded),
                (InputPort.ACCUMULATOR, runs.acc_data),
                (InputPort.LOCAL_WORD, self.local.read_data),
                (InputPort.LOCAL_BYTE, local_byte),
                (InputPort.MEMORY, access.data),
                (InputPort.CYCLES, registers.cycles),
                (InputPort.MEMORY_ADDRESS, access.address),
                (InputPort.ARRAY_ADDRESS, runs.beyond_address),
            ):
                with m.Case(port):
                    m.d.comb += cpu.read_data.eq(value)
        self._trace(m, cpu, runs, registers)
        return m

    @staticmethod
    def _written(m: Module, cpu: Processor, port: OutputPort) -> Any:
        flag = Signal(name=f"written_{port.name.lower()}")
        m.d.comb += flag.eq(cpu.write & (cpu.port == port))
        return flag

    def _local(self, m: Module, cpu: Processor, runs: ArrayRuns) -> Signal:
        """Local memory: the array's while it runs, else the processor's. Return the byte."""
        local = self.local
        address = Signal(range(LocalMap(self._config).bytes))
        step = Signal.like(address)
        lane = Signal(LANE_BITS)
        m.d.comb += lane.eq(address)
        word = self._written(m, cpu, OutputPort.LOCAL_WORD)
        byte = self._written(m, cpu, OutputPort.LOCAL_BYTE)
        read = cpu.read & ((cpu.port == InputPort.LOCAL_WORD) | (cpu.port == InputPort.LOCAL_BYTE))
        with m.If(self._written(m, cpu, OutputPort.LOCAL_ADDRESS)):
            m.d.sync += address.eq(cpu.write_data)
        with m.Elif(word | byte | read):
            m.d.sync += address.eq(address + step)
        with m.If(self._written(m, cpu, OutputPort.LOCAL_STEP)):
            m.d.sync += step.eq(cpu.write_data)
        one = Signal(WORD_BITS // 8)
        m.d.comb += [
            one.eq(byte << lane),
            local.address.eq(Mux(runs.busy, runs.local_address, address[LANE_BITS:])),
            local.write.eq(one | word.replicate(WORD_BITS // 8)),
            local.write_data.eq(
                Mux(byte, cpu.write_data[:8].replicate(WORD_BITS // 8), cpu.write_data)
            ),
            runs.local_data.eq(local.read_data),
        ]
        value = Signal(WORD_BITS)
        m.d.comb += value.eq(local.read_data.word_select(lane, 8).as_signed())
        return value

    def _trace(self, m: Module, cpu: Processor, runs: ArrayRuns, registers: Registers) -> None:
        active = Signal(len(Engine))
        current = Signal(len(Engine))
        begins = self._written(m, cpu, OutputPort.TRACE)
        with m.If(begins):
            with m.Switch(cpu.write_data[TAG_BITS : TAG_BITS + 2]):
                for engine in Engine:
                    with m.Case(int(engine)):
                        m.d.sync += [
                            self.tags.word_select(int(engine), TAG_BITS).eq(cpu.write_data),
                            active[engine].eq(cpu.write_data[TAG_BITS + 2]),
                            current.eq(1 << int(engine)),
                        ]
        with m.If(~registers.running):
            m.d.sync += active.eq(0)
        states = {f"{engine.name.lower()}_active": active[engine] for engine in Engine}
        states |= {f"{engine.name.lower()}_busy": active[engine] for engine in Engine}
        # Of two coroutines one goes on while the other waits for it.
        states["array_stream"] = runs.busy
        states["array_wait_acc"] = active[Engine.ARRAY] & current[Engine.VECTOR]
        states["vector_stream"] = active[Engine.VECTOR] & current[Engine.VECTOR]
        states["vector_wait_acc"] = active[Engine.VECTOR] & current[Engine.ARRAY]
        m.d.comb += [
            registers.active.eq(active),
            self.state.eq(Cat(states.get(name, 0) for name in TRACE_STATES)),
        ]
