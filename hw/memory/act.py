"""Activation SRAM: four line-interleaved banks, shared by the array, the vector engine and DMA."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature
from celosia.hw.contract.config import ACT_BANKS, NpuConfig
from celosia.hw.fabric.block import BlockMemory
from celosia.hw.fabric.delay import delays
from celosia.hw.fabric.gating import clock, runs
from celosia.hw.memory.ports import LINE_BITS, BankRead, LineWrite, WindowRead, WindowWrite, bank_of

__all__ = ["ARRAY_LINES", "ActSram", "ArrayRead", "SEGMENTS", "SharedActSram"]

SEGMENTS = 3
"""Rows of pixels that the array may ask for in one cycle: each is a line."""

ARRAY_LINES = ACT_BANKS
"""Lines that it may ask for: a joined window has two of each of two rows."""


READ_CYCLES = 3
"""Cycles that a read takes at most: windows are in a register of their own."""


WRITE_CYCLES = 2
"""Cycles that a result takes before the one in which the memory takes it."""


class ArrayRead(Signature):
    """The array's read port: up to four lines of different banks, never refused.

    Members
    -------
    bank : Out(act_banks) x 4
        One bit: the bank of line s, which is wanted. None: it is not. Two wanted lines of one bank
        are the requester's error. The fourth is wanted in a machine that joins rows only.
    line : Out(16) x 4
        Its address.
    offset : Out(range(line_bytes))
        Byte of line 0 at which the window begins. It is looked at 2 cycles after the request.
    below : Out(2 * line_bytes)
        Which bytes of lines 0 and 1 come from lines 2 and 3 instead, which are then two banks
        further. It is looked at with `offset`, in a machine that joins rows.
    data : In(8 * line_bytes) x 3
        The line, exactly 2 cycles after the request; bytes of others where `below` says so.
    window : In(8 * line_bytes)
        As many bytes of lines 0 and 1 as a line has, exactly 3 cycles after the request.
    """

    def __init__(self, config: NpuConfig) -> None:
        super().__init__(
            {
                "bank": Out(config.act_banks).array(ARRAY_LINES),
                "line": Out(LINE_BITS).array(ARRAY_LINES),
                "offset": Out(range(config.line_bytes)),
                "below": Out(2 * config.line_bytes),
                "data": In(8 * config.line_bytes).array(SEGMENTS),
                "window": In(8 * config.line_bytes),
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

    def _outputs(self, m: Module) -> Array:
        """Put a register behind each bank; return them."""
        outputs = []
        for b, port in enumerate(self._banks):
            output = Signal(8 * self._config.line_bytes, name=f"output_{b}", reset_less=True)
            m.d[self._read_clock] += output.eq(port.read_data)
            outputs.append(output)
        return Array(outputs)

    def _late(self, m: Module, value: Value, name: str) -> Signal:
        """Return a value when what was asked for with it comes out of the banks."""
        chain = delays(m, value, 2, name=name, domain=self._read_clock, reset_less=True)
        late: Signal = chain[-1]
        return late

    def _cut(self, m: Module, lines: Value, offset: Value, name: str) -> Signal:
        """Return, a cycle later, the bytes of two lines from an offset on."""
        line_bytes = self._config.line_bytes
        window = Signal(8 * line_bytes, name=name, reset_less=True)
        # The longest way first: there are fewer bytes left for the others.
        for bit in reversed(range(len(offset))):
            left = 8 * (line_bytes + (1 << bit) - 1)
            lines = Mux(offset[bit], lines[8 << bit :], lines)[:left]
        m.d[self._read_clock] += window.eq(lines)
        return window

    def _line(self, s: int, outputs: Array, bank: Value, below: Value) -> Value:
        """Return line s as it comes; of a window's two lines each byte is of its own row."""
        if s > 1 or not self._config.joins_rows:
            line: Value = outputs[bank]
            return line
        size = self._config.line_bytes
        found = []
        for i in range(size):
            own = bank ^ Cat(Const(0, 1), below[s * size + i])
            found.append(outputs[own][8 * i : 8 * i + 8])
        return Cat(found)

    def _elaborate_reads(self, m: Module) -> None:
        """Give everyone ways of their own out of the banks."""
        config = self._config
        banks = config.act_banks
        bank_bits = (banks - 1).bit_length()
        store_line, store_offset = self._split(self.store.addr)
        store_next = Signal(LINE_BITS)
        by_array, by_others = Signal(banks), Signal(banks)
        m.d.comb += [
            store_next.eq(store_line + 1),
            by_array.eq(reduce(or_, self.array.bank)),
            by_others.eq(by_array | self.vector.bank),
            self.vector.gnt.eq(~(self.vector.bank & by_array).any()),
            self.store.gnt.eq(self.store.req & ~(self.store.banks & by_others).any()),
        ]
        for b, port in enumerate(self._banks):
            row = LINE_BITS - bank_bits
            # With no other requester the store engine's lines: the one in this bank.
            of_store = Array([store_line, store_next])[store_next[:bank_bits] == b] >> bank_bits
            chosen = Mux(by_others[b], 0, of_store)
            chosen |= Mux(self.vector.bank[b] & ~by_array[b], self.vector.line >> bank_bits, 0)
            for s in range(ARRAY_LINES):
                chosen |= Mux(self.array.bank[s][b], self.array.line[s] >> bank_bits, 0)
            m.d.comb += port.read_addr.eq(chosen[:row])

        outputs = self._outputs(m)
        for s in range(SEGMENTS):
            bank = self._late(m, self.array.line[s][:bank_bits], f"array_bank{s}")
            m.d.comb += self.array.data[s].eq(self._line(s, outputs, bank, self.array.below))
        pair = Cat(self.array.data[0], self.array.data[1])
        bank = self._late(m, self.vector.line[:bank_bits], "vector_bank")
        m.d.comb += [
            self.array.window.eq(self._cut(m, pair, self.array.offset, "array_window")),
            self.vector.data.eq(outputs[bank]),
        ]

        bank = self._late(m, store_line[:bank_bits], "store_bank")
        following_bank = Signal(bank_bits)
        m.d.comb += following_bank.eq(bank + 1)
        offset = self._late(m, store_offset, "store_offset")
        pair = Cat(outputs[bank], outputs[following_bank])
        m.d.comb += self.store.data.eq(self._cut(m, pair, offset, "store_window"))

    def _place(self, m: Module, offset: Value) -> tuple[Value, Value, Value]:
        """Return what is loaded, and which bytes of it are in the line and in the following one.

        Byte j of either line is byte j - offset of what comes.
        """
        config = self._config
        bus_bytes, line_bytes = config.bus_bytes, config.line_bytes
        word = self.load.data[: 8 * bus_bytes]
        turned = Signal.like(word)
        mask = Signal(line_bytes)
        # A bus word at most: turned within itself it is in place anywhere in a line.
        with m.Switch(offset[: bus_bytes.bit_length() - 1]):
            for o in range(bus_bytes):
                with m.Case(o):
                    m.d.comb += turned.eq(word.rotate_left(8 * o))
        with m.Switch(offset):
            for o in range(line_bytes):
                with m.Case(o):
                    m.d.comb += mask.eq(self.load.mask.rotate_left(o))
        upper = Cat(offset > j for j in range(line_bytes))
        return turned.replicate(line_bytes // bus_bytes), mask & ~upper, mask & upper

    def _elaborate_writes(self, m: Module) -> None:
        """Give each bank registers of its own."""
        config = self._config
        line_bytes = config.line_bytes
        bank_bits = (config.act_banks - 1).bit_length()
        line, offset = self._split(self.load.addr)
        following = Signal(LINE_BITS)
        m.d.comb += following.eq(line + 1)

        data, lower, upper = self._place(m, offset)
        # Results are registered as they come, so that a load waits for registers only.
        result = Signal(8 * line_bytes, reset_less=True)
        result_row = Signal(LINE_BITS - bank_bits, reset_less=True)
        result_bank = Signal(config.act_banks, reset_less=True)
        is_written = self.result.req & ~self.result.outside
        m.d[self._write_clock] += [
            result.eq(self.result.data),
            result_row.eq(self.result.line >> bank_bits),
            result_bank.eq(Mux(is_written, 1 << self.result.line[:bank_bits], 0)),
        ]
        writes: dict[tuple[str, int], Signal] = {}
        for b, port in enumerate(self._banks):
            in_line = line[:bank_bits] == b
            in_following = line[:bank_bits] == (b - 1) % config.act_banks
            lanes = Signal(line_bytes, name=f"lanes_{b}")
            with m.If(self.load.req & in_line):
                m.d.comb += lanes.eq(lower)
            with m.Elif(self.load.req & in_following):
                m.d.comb += lanes.eq(upper)
            # Registered: who is granted is known late in the cycle.
            for member in ("write_en", "write_addr", "write_data"):
                register = Signal.like(getattr(port, member), name=f"{member}_{b}", reset_less=True)
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
            m.d[self._write_clock] += writes["write_data", b].eq(Mux(result_bank[b], result, data))
        # A bus word's last byte may be in the following line; its mask is not looked at.
        if config.bus_bytes == line_bytes:
            unaligned = offset.any()
        else:
            unaligned = offset > line_bytes - config.bus_bytes
        first_bank = line[:bank_bits]
        m.d.comb += self.load.gnt.eq(
            self.load.req
            & ~result_bank.bit_select(first_bank, 1)
            & ~(unaligned & result_bank.rotate_right(1).bit_select(first_bank, 1))
        )


class SharedActSram(ActSram):
    """There are no ways out of the banks but the array's three.

    The store engine's window takes those of the array's window, and the vector engine the third. So
    the store engine is granted its window in a cycle in which the array reads neither line 0 nor
    line 1, and the vector engine its line in one in which the array does not read line 2. A bus
    word that is a part of a line, as nearly all are, may also take the third way when nobody else
    does: an array that is busy with windows for a long time does not keep the store engine waiting.
    Of such a window there are only the bytes of the word.
    """

    def _elaborate_reads(self, m: Module) -> None:
        """Let the others use the array's ways out of the banks."""
        config = self._config
        banks = config.act_banks
        bank_bits = (banks - 1).bit_length()
        word_bits = (config.bus_bytes - 1).bit_length()
        store_line, store_offset = self._split(self.store.addr)
        of_window = Signal(banks)
        windows, third = Signal(), Signal()  # the array reads a window; a third line
        asks = Signal()  # the vector engine, for a line
        as_window, as_word = Signal(), Signal()  # the store engine's ways
        in_word, word = store_offset[:word_bits], store_offset[word_bits:]
        others = self.array.bank[2] | self.vector.bank
        m.d.comb += [
            of_window.eq(self.array.bank[0] | self.array.bank[1] | self.array.bank[3]),
            windows.eq(of_window.any()),
            third.eq(self.array.bank[2].any()),
            asks.eq(self.vector.bank.any()),
            # From the line, which is there whether or not it is asked for: much waits for this.
            self.vector.gnt.eq(~third & ~of_window.bit_select(self.vector.line[:bank_bits], 1)),
            as_window.eq(~windows & ~(self.store.banks & others).any()),
            as_word.eq(
                windows & ~in_word.any() & ~others.any() & ~(self.store.banks & of_window).any()
            ),
            self.store.gnt.eq(self.store.req & (as_window | as_word)),
        ]
        lines = [
            Mux(windows, self.array.line[0], store_line),
            Mux(windows, self.array.line[1], store_line + 1),
            Mux(third, self.array.line[2], Mux(asks, self.vector.line, store_line)),
        ]
        lines_read = ARRAY_LINES if config.joins_rows else SEGMENTS
        # The array's line in a bank, else the vector engine's, else the store engine's: of a window
        # two, of a word the first. What nobody has been granted may be read: addresses have a long
        # way and do not wait for grants, and those of the array for nobody.
        for b, port in enumerate(self._banks):
            lines_of_array = [
                Mux(self.array.bank[s][b], self.array.line[s] >> bank_bits, 0)
                for s in range(lines_read)
            ]
            by_array = Cat(self.array.bank[s][b] for s in range(lines_read)).any()
            of_store = Mux(bank_of(store_line)[b], store_line, store_line + 1)
            of_others = Mux(self.vector.bank[b], self.vector.line, of_store) >> bank_bits
            m.d.comb += port.read_addr.eq(reduce(or_, lines_of_array) | Mux(by_array, 0, of_others))

        outputs = self._outputs(m)
        of_array = self._late(m, windows, "windows")
        below = self.array.below & of_array.replicate(2 * config.line_bytes)
        for s in range(SEGMENTS):
            bank = self._late(m, lines[s][:bank_bits], f"bank_of_{s}")
            m.d.comb += self.array.data[s].eq(self._line(s, outputs, bank, below))
        offset = Mux(of_array, self.array.offset, self._late(m, store_offset, "store_offset"))
        window = self._cut(m, Cat(self.array.data[0], self.array.data[1]), offset, "window")
        # A line is there a cycle earlier than a window.
        word_data = Signal(config.bus_bits, reset_less=True)
        is_word = Signal(reset_less=True)
        number = self._late(m, word, "store_word")
        m.d[self._read_clock] += [
            word_data.eq(self.array.data[2].word_select(number, config.bus_bits)),
            is_word.eq(self._late(m, as_word, "as_word")),
        ]
        of_store = Mux(is_word, word_data, window[: config.bus_bits])
        m.d.comb += [
            self.array.window.eq(window),
            self.store.data.eq(Cat(of_store, window[config.bus_bits :])),
            self.vector.data.eq(self.array.data[2]),
        ]

    def _elaborate_writes(self, m: Module) -> None:
        """Write a result, or else what is loaded, from one register for all banks."""
        config = self._config
        line_bytes, banks = config.line_bytes, config.act_banks
        bank_bits = (banks - 1).bit_length()
        load_line, offset = self._split(self.load.addr)
        loaded, in_line, in_following = self._place(m, offset)
        is_result = self.result.req
        m.d.comb += self.load.gnt.eq(self.load.req & ~is_result)

        line = Mux(is_result, self.result.line, load_line)
        bank, row = line[:bank_bits], line[bank_bits:]
        # Bytes in the line and in the following one. A window goes to both or to neither.
        is_written = ~self.result.outside
        loads = self.load.req.replicate(line_bytes)
        here = Mux(is_result, is_written.replicate(line_bytes), in_line & loads)
        beyond = Mux(self.load.gnt, in_following, 0)
        data = Signal(8 * line_bytes, name="write_data", reset_less=True)
        address = Signal(len(row), name="write_addr", reset_less=True)
        # Only the last bank's following line is in another row.
        first_address = Signal(len(row), name="write_addr_0", reset_less=True)
        m.d[self._write_clock] += [
            data.eq(Mux(is_result, self.result.data, loaded)),
            address.eq(row),
            first_address.eq(row + (bank == banks - 1)),
        ]
        for b, port in enumerate(self._banks):
            enable = Signal(line_bytes, name=f"write_en_{b}", reset_less=True)
            m.d[self._write_clock] += enable.eq(
                Mux(bank == b, here, 0) | Mux(bank == (b - 1) % banks, beyond, 0)
            )
            m.d.comb += [
                port.write_data.eq(data),
                port.write_addr.eq(address if b else first_address),
                port.write_en.eq(enable),
            ]
