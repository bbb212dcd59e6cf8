"""An SDRAM chip as gateware, for simulations of a whole board: storage, but no checks."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In
from celosia.hw.system.sdram_pins import DATA_BITS, SdramCommand, SdramPins
from celosia.hw.system.sdram_timing import SdramChip

__all__ = ["SimulatedSdram"]

LONGEST_BURST = 8


class SimulatedSdram(Component):
    """A chip that believes its controller.

    It knows MODE (burst length, CAS latency), ACTIVATE, READ, WRITE with masks, PRECHARGE (which
    ends a burst) and BURST STOP, and nothing of time: :class:`celosia.sim.sdram_model.SdramModel`
    does. Its clock is ``sync``, without delay: the controller's default `capture_cycles` is right.

    Parameters
    ----------
    chip : SdramChip
        Its size; ``dataclasses.replace(chip, rows=...)`` makes it, and the controller's memory,
        smaller.

    Attributes
    ----------
    memory : Memory
        Its content: 16-bit words by row, bank, column, the latter in the lowest bits. So byte
        address a of the bus is in word a // 2.

    Members
    -------
    pins : In(SdramPins)
    """

    def __init__(self, chip: SdramChip) -> None:
        self._chip = chip
        self.memory = Memory(shape=DATA_BITS, depth=chip.memory_bytes // 2, init=[])
        super().__init__({"pins": In(SdramPins(chip))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = self.memory
        write, read = memory.write_port(granularity=8), memory.read_port()
        pins, chip = self.pins, self._chip
        column_bits = (chip.columns - 1).bit_length()
        row_bits = (chip.rows - 1).bit_length()

        rows = Array(Signal(row_bits, name=f"row_{index}") for index in range(chip.banks))
        length_bits, latency = Signal(3), Signal(3)
        left = Signal(range(LONGEST_BURST))
        writing = Signal()
        bank, row, column = Signal.like(pins.ba), Signal(row_bits), Signal(column_bits)

        command = Signal(SdramCommand, init=SdramCommand.NOP)
        starts = Signal()
        now_bank, now_row = Signal.like(bank), Signal.like(row)
        now_column, now_writing = Signal.like(column), Signal()
        active = Signal()
        last = (1 << length_bits) - 1
        with m.If(pins.cke & ~pins.cs_n):
            m.d.comb += command.eq(Cat(pins.we_n, pins.cas_n, pins.ras_n))
        m.d.comb += [
            starts.eq((command == SdramCommand.READ) | (command == SdramCommand.WRITE)),
            now_bank.eq(Mux(starts, pins.ba, bank)),
            now_row.eq(Mux(starts, rows[pins.ba], row)),
            now_column.eq(Mux(starts, pins.a, column)),
            now_writing.eq(Mux(starts, command == SdramCommand.WRITE, writing)),
            active.eq(starts | (left != 0)),
            read.addr.eq(Cat(now_column, now_bank, now_row)),
            write.addr.eq(read.addr),
            write.data.eq(pins.dq_o),
            read.en.eq(active & ~now_writing),
            write.en.eq(Mux(active & now_writing, ~pins.dqm, 0)),
        ]
        # A burst stays in its block: only the lowest bits of the column count.
        m.d.sync += [
            bank.eq(now_bank),
            row.eq(now_row),
            column.eq((now_column & ~last) | ((now_column + 1) & last)),
            writing.eq(now_writing),
        ]
        with m.If(starts):
            m.d.sync += left.eq(last)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)

        with m.Switch(command):
            with m.Case(SdramCommand.MODE):
                m.d.sync += [length_bits.eq(pins.a[:3]), latency.eq(pins.a[4:7])]
            with m.Case(SdramCommand.ACTIVATE):
                m.d.sync += rows[pins.ba].eq(pins.a)
            with m.Case(SdramCommand.BURST_STOP):
                m.d.comb += active.eq(0)
                m.d.sync += left.eq(0)
            with m.Case(SdramCommand.PRECHARGE):
                with m.If(pins.a[10] | (pins.ba == bank)):
                    m.d.comb += active.eq(0)
                    m.d.sync += left.eq(0)

        # The memory's own register is the first cycle of latency.
        second, third = Signal(DATA_BITS), Signal(DATA_BITS)
        m.d.sync += [second.eq(read.data), third.eq(second)]
        m.d.comb += pins.dq_i.eq(Mux(latency == 3, third, second))
        return m
