"""Activation SRAM: four line-interleaved banks, shared by the array, the vector engine and DMA."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature
from celosia.hw.config import NpuConfig
from celosia.hw.delay import delays
from celosia.hw.gating import clock, runs
from celosia.hw.memory.block import BlockMemory
from celosia.hw.memory.ports import LINE_BITS, BankRead, LineWrite, WindowRead, WindowWrite

__all__ = ["ActSram", "ArrayRead", "SEGMENTS"]

SEGMENTS = 3
"""Lines that the array may ask for in one cycle."""


READ_CYCLES = 3
"""Cycles that a read takes at most: the store engine's window is in a register of its own."""


WRITE_CYCLES = 2
"""Cycles that a result takes before the one in which the memory takes it."""


class ArrayRead(Signature):
    """The array's read port: up to three lines of three different banks, never refused.

    Members
    -------
    bank : Out(act_banks) x 3
        One bit: the bank of line s, which is wanted. None: it is not. Two wanted lines of one bank
        are the requester's error.
    line : Out(16) x 3
        Its address.
    data : In(8 * line_bytes) x 3
        The line, exactly 2 cycles after the request.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "bank": Out(config.act_banks).array(SEGMENTS),
                "line": Out(LINE_BITS).array(SEGMENTS),
                "data": In(8 * config.line_bytes).array(SEGMENTS),
            }
        )


class ActSram(Component):
    """Activation SRAM.

    Line l is word l // 4 of bank l % 4. A bank is one block memory with one read and one write
    port, registered before the write and after the read. Reads: the array before the vector engine
    before the store engine. Writes: the vector engine before the load engine. Who reads says the
    bank, one bit for each, from registers: grants are on the longest paths.

    Members
    -------
    array : In(ArrayRead)
    vector : In(BankRead)
    store : In(WindowRead)
    result : In(LineWrite)
        Written by the vector engine, a cycle later than asked for.
    load : In(WindowWrite)
        Written by the load engine, a bus word at most at a time; the caller has decoded ``space``.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "array": In(ArrayRead(config)),
                "vector": In(BankRead(config)),
                "store": In(WindowRead(config)),
                "result": In(LineWrite(config)),
                "load": In(WindowWrite(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        banks = config.act_banks
        self._read_clock = clock("act_read", platform)
        self._write_clock = clock("act_write", platform)
        self._banks = []
        for b in range(banks):
            m.submodules[f"bank_{b}"] = memory = BlockMemory(
                width_bits=8 * config.line_bytes,
                depth=config.act_lines // banks,
                granularity_bits=8,
                read_domain=self._read_clock,
                write_domain=self._write_clock,
            )
            self._banks.append(memory)
        self._elaborate_reads(m)
        self._elaborate_writes(m)
        wanted = Cat(self.array.bank, self.vector.bank, self.store.req).any()
        runs(m, wanted, domain="act_read", platform=platform, tail_cycles=READ_CYCLES)
        written = self.result.req | self.load.req
        runs(m, written, domain="act_write", platform=platform, tail_cycles=WRITE_CYCLES)
        return m

    def _split(self, addr: Signal) -> tuple[Signal, Signal]:
        """Return the line and the byte in the line of a byte address."""
        shift_bits = (self._config.line_bytes - 1).bit_length()
        return addr[shift_bits:], addr[:shift_bits]

    def _elaborate_reads(self, m: Module) -> None:
        config = self._config
        banks = config.act_banks
        bank_bits = (banks - 1).bit_length()
        store_line, store_offset = self._split(self.store.addr)
        store_next = Signal(LINE_BITS)
        by_array, by_others = Signal(banks), Signal(banks)
        m.d.comb += [
            store_next.eq(store_line + 1),
            by_array.eq(self.array.bank[0] | self.array.bank[1] | self.array.bank[2]),
            by_others.eq(by_array | self.vector.bank),
            self.vector.gnt.eq(~(self.vector.bank & by_array).any()),
            self.store.gnt.eq(self.store.req & ~(self.store.banks & by_others).any()),
        ]
        outputs = []
        for b, port in enumerate(self._banks):
            row = LINE_BITS - bank_bits
            # With no other requester the store engine's lines: the one in this bank.
            of_store = Array([store_line, store_next])[store_next[:bank_bits] == b] >> bank_bits
            chosen = Mux(by_others[b], 0, of_store)
            chosen |= Mux(self.vector.bank[b] & ~by_array[b], self.vector.line >> bank_bits, 0)
            for s in range(SEGMENTS):
                chosen |= Mux(self.array.bank[s][b], self.array.line[s] >> bank_bits, 0)
            m.d.comb += port.read_addr.eq(chosen[:row])
            output = Signal(8 * config.line_bytes, name=f"output_{b}", reset_less=True)
            m.d[self._read_clock] += output.eq(port.read_data)
            outputs.append(output)

        def delayed(value: Value, name: str) -> Signal:
            chain = delays(m, value, 2, name=name, domain=self._read_clock, reset_less=True)
            delayed_value: Signal = chain[-1]
            return delayed_value

        bank_outputs = Array(outputs)
        for s in range(SEGMENTS):
            bank = delayed(self.array.line[s][:bank_bits], f"array_bank{s}")
            m.d.comb += self.array.data[s].eq(bank_outputs[bank])
        bank = delayed(self.vector.line[:bank_bits], "vector_bank")
        m.d.comb += self.vector.data.eq(bank_outputs[bank])

        bank = delayed(store_line[:bank_bits], "store_bank")
        following_bank = Signal(bank_bits)
        m.d.comb += following_bank.eq(bank + 1)
        offset = delayed(store_offset, "store_offset")
        pair = Cat(bank_outputs[bank], bank_outputs[following_bank])
        m.d[self._read_clock] += self.store.data.eq(
            (pair >> (offset << 3))[: 8 * config.line_bytes]
        )

    def _elaborate_writes(self, m: Module) -> None:
        config = self._config
        line_bytes = config.line_bytes
        bank_bits = (config.act_banks - 1).bit_length()
        line, offset = self._split(self.load.addr)
        following = Signal(LINE_BITS)
        m.d.comb += following.eq(line + 1)

        # Byte j of either line is byte j - offset of the window.
        data = Signal(8 * line_bytes)
        mask = Signal(line_bytes)
        upper = Cat(offset > j for j in range(line_bytes))
        with m.Switch(offset):
            for o in range(line_bytes):
                with m.Case(o):
                    m.d.comb += [
                        data.eq(self.load.data.rotate_left(8 * o)),
                        mask.eq(self.load.mask.rotate_left(o)),
                    ]
        # Results are registered as they come, so that a load waits for registers only (but in a
        # compact machine).
        result = Signal(8 * line_bytes, reset_less=True)
        result_row = Signal(LINE_BITS - bank_bits, reset_less=True)
        result_bank = Signal(config.act_banks, reset_less=True)
        m.d[self._write_clock if not config.compact else "comb"] += [
            result.eq(self.result.data),
            result_row.eq(self.result.line >> bank_bits),
            result_bank.eq(Mux(self.result.req, 1 << self.result.line[:bank_bits], 0)),
        ]
        # A compact machine has one register for the data of all banks.
        shared = Signal(8 * line_bytes, name="write_data", reset_less=True)
        if config.compact:
            m.d[self._write_clock] += shared.eq(Mux(result_bank.any(), result, data))
        writes: dict[tuple[str, int], Signal] = {}
        for b, port in enumerate(self._banks):
            in_line = line[:bank_bits] == b
            in_following = line[:bank_bits] == (b - 1) % config.act_banks
            lanes = Signal(line_bytes, name=f"lanes_{b}")
            with m.If(self.load.req & in_line):
                m.d.comb += lanes.eq(mask & ~upper)
            with m.Elif(self.load.req & in_following):
                m.d.comb += lanes.eq(mask & upper)
            # Registered: who is granted is known late in the cycle.
            for member in ("write_en", "write_addr", "write_data"):
                if config.compact and member == "write_data":
                    register = shared
                else:
                    register = Signal.like(
                        getattr(port, member), name=f"{member}_{b}", reset_less=True
                    )
                m.d.comb += getattr(port, member).eq(register)
                writes[member, b] = register
            m.d[self._write_clock] += [
                # A window goes to both its banks at once or to neither.
                writes["write_en", b].eq(Mux(self.load.gnt, lanes, 0)),
                writes["write_addr", b].eq(Array([line, following])[in_following] >> bank_bits),
            ]
            with m.If(result_bank[b]):
                m.d[self._write_clock] += [
                    writes["write_en", b].eq((1 << line_bytes) - 1),
                    writes["write_addr", b].eq(result_row),
                ]
            if not config.compact:
                m.d[self._write_clock] += writes["write_data", b].eq(
                    Mux(result_bank[b], result, data)
                )
        # A bus word's last byte may be in the following line; its mask is not looked at.
        if config.bus_bytes == line_bytes:
            unaligned = offset.any()
        else:
            unaligned = offset > line_bytes - config.bus_bytes
        first_bank = line[:bank_bits]
        if config.compact:
            m.d.comb += self.load.gnt.eq(self.load.req & ~result_bank.any())
            return
        m.d.comb += self.load.gnt.eq(
            self.load.req
            & ~result_bank.bit_select(first_bank, 1)
            & ~(unaligned & result_bank.rotate_right(1).bit_select(first_bank, 1))
        )
