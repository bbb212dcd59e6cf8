"""An SDRAM chip as gateware, for simulations of a whole board: storage, but no checks."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, ClockSignal, Instance, Module, Mux, Signal
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In
from celosia.hw.system.sdram_pins import DATA_BITS, SdramCommand, SdramPins
from celosia.hw.system.sdram_timing import SdramChip

__all__ = ["STORAGE_VERILOG", "SimulatedSdram"]

LONGEST_BURST = 8

STORAGE = "celosia_sdram_storage"
STORAGE_VERILOG = f"""
module {STORAGE} #(parameter ADDRESS_BITS = 24) (
    input clk,
    input read_en,
    input [1:0] write_en,
    input [ADDRESS_BITS-1:0] address,
    input [15:0] write_data,
    output reg [15:0] read_data
);
  reg [15:0] words [0:(1 << ADDRESS_BITS) - 1];
  always @(posedge clk) begin
    if (read_en) read_data <= words[address];
    if (write_en[0]) words[address][7:0] <= write_data[7:0];
    if (write_en[1]) words[address][15:8] <= write_data[15:8];
  end
endmodule
"""
"""The storage as Verilog: to be put behind that of a design with `verilog_storage`."""


class SimulatedSdram(Component):
    """A chip that believes its controller.

    It knows MODE (burst length, CAS latency), ACTIVATE, READ, WRITE with masks, PRECHARGE (which
    ends a burst) and BURST STOP, and nothing of time:
    :class:`celosia.sim.board.sdram_model.SdramModel` does. Its clock is ``sync``, without delay:
    the controller's default `capture_cycles` is right.

    Parameters
    ----------
    chip : SdramChip
        Its size; ``dataclasses.replace(chip, rows=...)`` makes it, and the controller's memory,
        smaller.
    verilog_storage : bool
        The storage is :data:`STORAGE_VERILOG`, without initial content. The export of a `Memory`
        writes each word's initial value: 15 s a megabyte, where this takes no time. Amaranth's own
        simulator cannot run it.

    Attributes
    ----------
    memory : Memory or None
        Without `verilog_storage`, its content: 16-bit words by row, bank and column, the latter
        in the lowest bits. So byte address a of the bus is in word a // 2.

    Members
    -------
    pins : In(SdramPins)
    """

    def __init__(self, chip: SdramChip, *, verilog_storage: bool = False) -> None:
        self._chip = chip
        depth = chip.memory_bytes // 2
        self.memory = None if verilog_storage else Memory(shape=DATA_BITS, depth=depth, init=[])
        super().__init__({"pins": In(SdramPins(chip))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pins, chip = self.pins, self._chip
        address = Signal((chip.memory_bytes // 2 - 1).bit_length())
        read_en, write_en = Signal(), Signal(DATA_BITS // 8)
        read_data = Signal(DATA_BITS)
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
            address.eq(Cat(now_column, now_bank, now_row)),
            read_en.eq(active & ~now_writing),
            write_en.eq(Mux(active & now_writing, ~pins.dqm, 0)),
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

        self._elaborate_storage(m, address, read_en, write_en, read_data)
        # The storage's own register is the first cycle of latency.
        second, third = Signal(DATA_BITS), Signal(DATA_BITS)
        m.d.sync += [second.eq(read_data), third.eq(second)]
        m.d.comb += pins.dq_i.eq(Mux(latency == 3, third, second))
        return m

    def _elaborate_storage(
        self, m: Module, address: Signal, read_en: Signal, write_en: Signal, read_data: Signal
    ) -> None:
        if self.memory is None:
            m.submodules.memory = Instance(
                STORAGE,
                p_ADDRESS_BITS=len(address),
                i_clk=ClockSignal(),
                i_read_en=read_en,
                i_write_en=write_en,
                i_address=address,
                i_write_data=self.pins.dq_o,
                o_read_data=read_data,
            )
            return
        m.submodules.memory = memory = self.memory
        write, read = memory.write_port(granularity=8), memory.read_port()
        m.d.comb += [
            read.addr.eq(address),
            read.en.eq(read_en),
            read_data.eq(read.data),
            write.addr.eq(address),
            write.en.eq(write_en),
            write.data.eq(self.pins.dq_o),
        ]
