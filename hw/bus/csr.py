"""The register file behind the Wishbone target, made from the map in `celosia.hw.contract.regs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature
from celosia.hw.bus.stored import INDEX_BITS, STORED_WRITE, StoredWords
from celosia.hw.bus.wishbone import Wishbone
from celosia.hw.contract.regs import ACCESS, REGISTERS, Register, RegisterField

__all__ = ["WORD_BYTES", "RegisterFile", "csr_signature", "stored_index"]

WORD_BYTES = 4
WORD_BITS = 32


def _word_addr_bits(registers: Sequence[Register]) -> int:
    return max(1, (max(entry.address for entry in registers) // WORD_BYTES).bit_length())


def csr_signature(registers: Sequence[Register] = REGISTERS) -> Wishbone:
    """Return the signature of the register bus, seen from its initiator: words of 32 bits.

    A target's ``dat_r`` is 0 but in the cycle of an answer, so that an initiator that reads from
    elsewhere as well needs no multiplexer.
    """
    return Wishbone(
        addr_width=_word_addr_bits(registers), data_width=WORD_BITS, features=("err", "stall")
    )


def stored_index(entry: Register) -> int:
    """Return the word of a stored register in the memory."""
    return entry.address // WORD_BYTES % (1 << INDEX_BITS)


def _field_flow(field: RegisterField) -> Any:
    if field.access is ACCESS.R:
        return In(field.width_bits)
    if field.access is ACCESS.RW1C:
        return Out(Signature({"set": In(field.width_bits), "value": Out(field.width_bits)}))
    return Out(field.width_bits)


class RegisterFile(Component):
    """A 32-bit Wishbone target with the registers of the map.

    Safe in classic and in pipelined mode: the answer comes two cycles after the request, and until
    then and in that cycle ``stall`` is high, so that a classic initiator, which still shows the
    request it has the answer of, is not taken to ask twice. An address without a register is
    answered by ``err``. Bytes that ``sel`` leaves out are not written.

    Parameters
    ----------
    registers : sequence of Register
        The map.
    stored : sequence of str
        Registers, RW and of one field of 32 bits, that are in a memory (see
        :class:`celosia.hw.bus.stored.StoredWords`). They have no ports; requests stall until it is
        cleared after a reset.
    watched : str
        The one of them that is shown while no request is looked at.

    Members
    -------
    bus : In(Wishbone)
    regs : Out(Signature)
        A member for every register, in it one for every field:

        - R: ``In(width)``, the value;
        - RW: ``Out(width)``, the value, 0 at reset;
        - W: ``Out(width)``, what is written, for one cycle, else 0;
        - RW1C: ``set`` ``In(width)``, bits to set, and ``value`` ``Out(width)``. Setting wins
          over clearing.
    written : Out(STORED_WRITE)
        What gets into the memory; the index is the low bits of the word address. This and what
        follows is 0 where there is no memory.
    shows : Out(1), shown : Out(32)
        `shown` is the value of the one that is watched.
    clearing : Out(1)
        The memory is being cleared.

    Attributes
    ----------
    fields : dict of dict
        The same by name: ``csr.fields["status"]["busy"]``.
    """

    def __init__(
        self,
        registers: Sequence[Register] = REGISTERS,
        *,
        stored: Sequence[str] = (),
        watched: str = "",
    ) -> None:
        self._all = tuple(registers)
        self._stored = {entry.name: entry for entry in registers if entry.name in stored}
        indices = {stored_index(entry) for entry in self._stored.values()}
        if len(indices) != len(stored) or (stored and watched not in stored):
            raise ValueError(f"registers {stored!r} with {watched!r} do not fit into one memory")
        self._watched = watched
        self._registers = tuple(entry for entry in registers if entry.name not in stored)
        for entry in self._registers:
            if entry.address % WORD_BYTES:
                raise ValueError(f"register {entry.name} is at 0x{entry.address:x}, not aligned")
        super().__init__(
            {
                "written": Out(STORED_WRITE),
                "shows": Out(1),
                "shown": Out(WORD_BITS),
                "clearing": Out(1),
                "bus": In(csr_signature(self._all)),
                "regs": Out(
                    Signature(
                        {
                            entry.name: Out(
                                Signature({f.name: _field_flow(f) for f in entry.fields})
                            )
                            for entry in self._registers
                        }
                    )
                ),
            }
        )

    @property
    def fields(self) -> dict[str, dict[str, Any]]:
        """Ports of the fields, by names of register and field."""
        return {
            entry.name: {
                f.name: getattr(getattr(self.regs, entry.name), f.name) for f in entry.fields
            }
            for entry in self._registers
        }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        # The request is registered: initiators are far away, and so are the fields. They are read a
        # cycle later than they are written: counters come from a register.
        request, reading, answered = Signal(), Signal(), Signal()
        adr = Signal.like(bus.adr, reset_less=True)
        write_mask = Signal(WORD_BITS, reset_less=True)
        self._data = Signal(WORD_BITS, reset_less=not self._stored)
        unmapped = Signal()
        m.d.comb += [
            bus.stall.eq(request | reading | answered),
            bus.ack.eq(bus.cyc & answered & ~unmapped),
            bus.err.eq(bus.cyc & answered & unmapped),
        ]
        m.d.sync += [
            request.eq(bus.cyc & bus.stb & ~bus.stall),
            write_mask.eq(Mux(bus.we, Cat(bit.replicate(8) for bit in bus.sel), 0)),
            self._data.eq(bus.dat_w),
            # Whoever has given up is not answered, nor who asks next in its place.
            reading.eq(request & bus.cyc),
            answered.eq(reading & bus.cyc),
            unmapped.eq(0),
        ]
        with m.If(~request):
            m.d.sync += adr.eq(bus.adr)
        if self._stored:
            self._elaborate_stored(m, request, reading, adr, write_mask)
        with m.Switch(adr):
            for entry in self._stored.values():
                with m.Case(entry.address // WORD_BYTES):
                    m.d.sync += bus.dat_r.eq(self.shown)
            for entry in self._registers:
                with m.Case(entry.address // WORD_BYTES):
                    m.d.sync += bus.dat_r.eq(self._read_value(entry))
            with m.Default():
                m.d.sync += [unmapped.eq(1), bus.dat_r.eq(0)]
        with m.If(~reading):
            m.d.sync += bus.dat_r.eq(0)
        for entry in self._registers:
            selected = Signal(name=f"select_{entry.name}")
            m.d.comb += selected.eq(request & (adr == entry.address // WORD_BYTES))
            self._write(m, entry, selected, write_mask)
        return m

    def _elaborate_stored(
        self, m: Module, request: Signal, reading: Signal, adr: Signal, mask: Signal
    ) -> None:
        m.submodules.words = words = StoredWords()
        selected = Signal()
        with m.Switch(adr):
            with m.Case(*(entry.address // WORD_BYTES for entry in self._stored.values())):
                m.d.comb += selected.eq(request)
        m.d.comb += [
            words.write.bytes.eq(Cat(mask[::8]) & selected.replicate(WORD_BYTES)),
            words.write.index.eq(adr),
            words.write.data.eq(self._data),
            words.read_index.eq(Mux(reading, adr, stored_index(self._stored[self._watched]))),
            self.written.eq(words.written),
            self.clearing.eq(words.clearing),
            self.shows.eq(~reading),
            self.shown.eq(words.value),
        ]
        with m.If(words.clearing):
            m.d.comb += self.bus.stall.eq(1)
            m.d.sync += [request.eq(0), self._data.eq(0)]

    def _read_value(self, entry: Register) -> Value:
        word: Value = Const(0, WORD_BITS)
        for field in entry.fields:
            port = self.fields[entry.name][field.name]
            if field.access is ACCESS.RW1C:
                port = port.value
            if field.access is not ACCESS.W:
                word = word | (port << field.offset_bits)
        return word[:WORD_BITS]

    def _write(self, m: Module, entry: Register, selected: Signal, mask: Signal) -> None:
        for field in entry.fields:
            port = self.fields[entry.name][field.name]
            place = slice(field.offset_bits, field.offset_bits + field.width_bits)
            data = self._data[place]
            enable = Mux(selected, mask[place], 0)
            if field.access is ACCESS.RW:
                # By bytes: each is a clock enable, and takes no logic.
                for byte in range(WORD_BYTES):
                    first = max(0, 8 * byte - field.offset_bits)
                    end = min(field.width_bits, 8 * byte + 8 - field.offset_bits)
                    if first < end:
                        with m.If(selected & mask[8 * byte]):
                            m.d.sync += port[first:end].eq(data[first:end])
            elif field.access is ACCESS.W:
                m.d.comb += port.eq(data & enable)
            elif field.access is ACCESS.RW1C:
                m.d.sync += port.value.eq((port.value & ~(data & enable)) | port.set)
