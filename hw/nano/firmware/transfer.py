"""`Load` and `Store`, and the routines that every access to system memory goes through."""

from __future__ import annotations

from celosia.hw.contract.isa import ADDRESS_BITS, Load, Region, Space, whole_words_of
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.contract.units import Unit
from celosia.hw.nano.assembler import Word
from celosia.hw.nano.firmware.shared import Shared
from celosia.hw.nano.instructions import In, Op, Out, Status

__all__ = ["Transfers"]

WORD_BYTES = 4
ALL_BYTES = 0b1111
PIECE_BYTES = 256
READY = 1 << Status.MEMORY_READY
READY_OR_ERROR = READY | 1 << Status.MEMORY_ERROR


class Transfers:
    """Emits the handlers of `Load` and `Store`.

    Parameters
    ----------
    shared : Shared
    """

    def __init__(self, shared: Shared) -> None:
        self.s, self.a = shared, shared.a
        a, s = shared.a, shared
        self.since = a.word("memory_since")
        self.address = a.word("memory_address")
        self.base_of = a.table("local_base", [s.local.base_of(space) for space in Space])
        self.size_of = a.table("local_size", [s.local.size_of(space) for space in Space])
        self.outer, self.inner = a.word("transfer.outer"), a.word("transfer.inner")
        self.memory, self.chip = a.word("transfer.memory"), a.word("transfer.chip")
        self.place = a.word("transfer.place")
        self.rest, self.piece = a.word("transfer.rest"), a.word("transfer.piece")
        self.left, self.data = a.word("transfer.left"), a.word("transfer.data")
        self.base, self.size = a.word("transfer.base"), a.word("transfer.size")
        self.local_base, self.local_size = (
            a.word("transfer.local_base"),
            a.word("transfer.local_size"),
        )
        self.aligned, self.stores = a.word("transfer.aligned"), a.word("transfer.stores")

    def emit(self) -> None:
        """Emit the routines and the handlers ``LOAD.command`` and ``STORE.command``."""
        self._memory()
        a, s = self.a, self.s
        a.label("LOAD.command")
        a.move(self.stores, 0)
        a.jump("transfer")
        a.label("STORE.command")
        a.move(self.stores, 1)
        a.label("transfer")
        fields = s.unpack(Load, "transfer")
        s.refuse_zero_counts(Load, fields)
        self._check(fields)
        a.look_up(self.base_of, fields["space"])
        a.store(self.local_base)
        a.look_up(self.size_of, fields["space"])
        a.store(self.local_size)
        for target, first in (
            (self.base, s.region_base[0]),
            (self.size, s.register("region0_size")),
        ):
            # Base and size follow one another, region by region.
            a.load(fields["region"])
            a.add(fields["region"])
            a.look_up(first)
            a.store(target)
        # From here on `size` is the highest offset of a run, negative if there is none. Of a region
        # of 2 GiB or more the lower half can be reached.
        with a.unless(Op.JUMP_POSITIVE):
            a.load((1 << 31) - 1)
        a.sub(fields["row_bytes"])
        a.store(self.size)
        a.load(self.base)
        a.bits_and(WORD_BYTES - 1)
        with a.unless(Op.JUMP_ZERO):
            # A base that is not aligned: there is no region.
            a.move(self.size, -1)
            a.load(self.base)
            a.bits_and(-WORD_BYTES)
            a.store(self.base)
        assert s.register("region1_base").address == s.region_base[Region.CODE].address + 2
        a.move(self.outer, fields["n2"])
        with a.repeat(self.outer):
            a.move(self.inner, fields["n1"])
            a.move(self.memory, fields["mem_addr"])
            a.move(self.chip, fields["sram_addr"])
            with a.repeat(self.inner):
                self._run(fields)
                a.increase(self.memory, fields["mem_stride1"])
                a.increase(self.chip, fields["sram_stride1"])
            a.increase(fields["mem_addr"], fields["mem_stride2"])
            a.increase(fields["sram_addr"], fields["sram_stride2"])
        a.load(self.stores)
        a.emit(Op.JUMP_NONZERO, "STORE.done")
        a.jump("LOAD.done")

    def _check(self, fields: dict[str, Word]) -> None:
        a, s = self.a, self.s
        a.load(fields["space"])
        with a.unless(Op.JUMP_ZERO):
            a.load(self.stores)
            a.emit(Op.JUMP_NONZERO, s.fail(ErrorCause.ILLEGAL_FIELD))
            first, *others = whole_words_of(Load)
            a.load(fields[first])
            for name in others:
                a.bits_or(fields[name])
            a.bits_and(WORD_BYTES - 1)
            a.emit(Op.JUMP_NONZERO, s.fail(ErrorCause.ILLEGAL_FIELD))

    def _run(self, fields: dict[str, Word]) -> None:
        """One run of `row_bytes` bytes, at offset `memory` in the region and `chip`."""
        a, s = self.a, self.s
        length = fields["row_bytes"]
        a.load(self.chip)
        a.bits_and((1 << ADDRESS_BITS) - 1)
        a.store(self.chip)
        a.load(self.memory)
        a.add(self.base)
        a.store(self.address)
        a.store(s.error_address)
        a.load(self.size)
        a.emit(Op.JUMP_NEGATIVE, s.fail(ErrorCause.MEM_WINDOW))
        a.load(self.memory)
        a.emit(Op.JUMP_NEGATIVE, s.fail(ErrorCause.MEM_WINDOW))
        a.sub(self.size)
        a.add(-1)
        a.emit(Op.JUMP_POSITIVE, s.fail(ErrorCause.MEM_WINDOW))
        a.move(s.error_address, self.chip)
        a.add(length)
        a.sub(self.local_size)
        a.add(-1)
        a.emit(Op.JUMP_POSITIVE, "transfer.beyond")
        a.load(self.chip)
        a.add(self.local_base)
        a.store(self.place)
        a.bits_or(self.address)
        a.bits_or(length)
        a.bits_and(WORD_BYTES - 1)
        a.store(self.aligned)
        a.move(self.rest, length)
        self._pieces()
        a.jump("transfer.next")
        a.label("transfer.beyond")
        a.load(fields["space"])
        for space in Space:
            a.emit(Op.JUMP_ZERO, s.fail(s.range_cause(space)))
            a.add(-1)
        a.label("transfer.next")

    def _pieces(self) -> None:
        """Move `rest` bytes, in pieces between which the watchdog is looked at."""
        a = self.a
        length = self.piece
        a.label("transfer.piece")
        a.call("check_watchdog")
        a.minimum(self.rest, PIECE_BYTES)
        a.store(self.piece)
        a.load(self.stores)
        a.emit(Op.JUMP_NONZERO, "transfer.store")
        a.load(self.aligned)
        a.emit(Op.JUMP_NONZERO, "load.bytes")
        self._load_words(length)
        a.jump("transfer.moved")
        a.label("load.bytes")
        self._load_bytes(length)
        a.jump("transfer.moved")
        a.label("transfer.store")
        a.load(self.aligned)
        a.emit(Op.JUMP_NONZERO, "store.bytes")
        self._store_words(length)
        a.jump("transfer.moved")
        a.label("store.bytes")
        self._store_bytes(length)
        a.label("transfer.moved")
        a.increase(self.place, self.piece)
        a.load(self.rest)
        a.sub(self.piece)
        a.store(self.rest)
        a.emit(Op.JUMP_NONZERO, "transfer.piece")

    def _words(self, length: Word) -> None:
        """Begin a run of words, from `place` on."""
        a = self.a
        a.write(Out.LOCAL_ADDRESS, self.place)
        a.write(Out.LOCAL_STEP, WORD_BYTES)
        self.s.shift_right(length, 2)
        a.store(self.left)

    def _count(self, name: str, words: Word) -> None:
        self.a.increase(self.s.register(name), words)

    def _load_words(self, length: Word) -> None:
        a = self.a
        self._words(length)
        self._count("count_bus_read", self.left)
        with a.repeat(self.left):
            a.write(Out.MEMORY_ADDRESS, self.address)
            a.write(Out.MEMORY_READ)
            a.increase(self.address, WORD_BYTES)
            a.call("memory_finish")
            a.write(Out.LOCAL_WORD)

    def _store_words(self, length: Word) -> None:
        a = self.a
        self._words(length)
        self._count("count_bus_write", self.left)
        with a.repeat(self.left):
            a.read(In.LOCAL_WORD)
            a.write(Out.MEMORY_WRITE_DATA)
            a.write(Out.MEMORY_ADDRESS, self.address)
            a.write(Out.MEMORY_WRITE, ALL_BYTES)
            a.increase(self.address, WORD_BYTES)
            a.call("memory_finish")

    def _load_bytes(self, length: Word) -> None:
        a, s = self.a, self.s
        a.write(Out.LOCAL_ADDRESS, self.place)
        a.write(Out.LOCAL_STEP, 1)
        a.move(self.left, length)
        # The first word may begin with bytes that are not wanted.
        self._read_word()
        a.load(self.address)
        a.bits_and(WORD_BYTES - 1)
        a.store(s.scratch[0])
        with a.unless(Op.JUMP_ZERO), a.repeat(s.scratch[0]):
            s.shift_right(self.data, 8)
            a.store(self.data)
        a.jump("load.byte")
        a.label("load.next")
        a.load(self.address)
        a.bits_and(WORD_BYTES - 1)
        with a.unless(Op.JUMP_NONZERO):
            self._read_word()
        a.label("load.byte")
        a.write(Out.LOCAL_BYTE, self.data)
        s.shift_right(None, 8)
        a.store(self.data)
        a.increase(self.address, 1)
        a.increase(self.left, -1)
        a.emit(Op.JUMP_NONZERO, "load.next")

    def _read_word(self) -> None:
        """Word `data` = the word of memory that `address` is in."""
        a = self.a
        a.load(self.address)
        a.call("memory_read")
        a.store(self.data)

    def _store_bytes(self, length: Word) -> None:
        a, s = self.a, self.s
        a.write(Out.LOCAL_ADDRESS, self.place)
        a.write(Out.LOCAL_STEP, 1)
        a.move(self.left, length)
        self._count("count_bus_write", self.left)
        with a.repeat(self.left):
            a.read(In.LOCAL_BYTE)
            a.bits_and(0xFF)
            a.multiply(None, 0x0101_0101, In.PRODUCT_LOW)
            a.write(Out.MEMORY_WRITE_DATA)
            a.write(Out.MEMORY_ADDRESS, self.address)
            a.bits_and(WORD_BYTES - 1)
            a.look_up(s.power)
            a.write(Out.MEMORY_WRITE)
            a.increase(self.address, 1)
            a.call("memory_finish")

    def _memory(self) -> None:
        """Routines: begin and end an access; the second gives the word that was read."""
        a, s = self.a, self.s
        a.label("memory_read")
        a.write(Out.MEMORY_ADDRESS)
        a.write(Out.MEMORY_READ)
        # Falls through, with the return address.
        a.increase(s.register("count_bus_read"), 1)
        a.label("memory_finish")
        a.read(In.STATUS)
        a.bits_and(READY_OR_ERROR)
        a.sub(READY)
        a.emit(Op.JUMP_NONZERO, "memory.late")
        a.label("memory.ready")
        a.read(In.MEMORY)
        a.leave()
        a.label("memory.late")
        a.emit(Op.JUMP_POSITIVE, "memory.error")
        a.read(In.CYCLES)
        a.store(self.since)
        a.label("memory.again")
        a.read(In.STATUS)
        a.bits_and(READY_OR_ERROR)
        a.sub(READY)
        a.emit(Op.JUMP_ZERO, "memory.ready")
        a.emit(Op.JUMP_POSITIVE, "memory.error")
        timeout, watchdog = s.register("bus_timeout"), s.register("watchdog")
        a.load(timeout)
        with a.unless(Op.JUMP_ZERO):
            a.emit(Op.JUMP_NEGATIVE, "memory.patient")
            a.read(In.CYCLES)
            a.sub(self.since)
            a.sub(timeout)
            a.emit(Op.JUMP_POSITIVE, "memory.timeout")
        a.label("memory.patient")
        a.load(watchdog)
        a.emit(Op.JUMP_ZERO, "memory.again")
        a.emit(Op.JUMP_NEGATIVE, "memory.again")
        a.read(In.CYCLES)
        a.sub(watchdog)
        a.emit(Op.JUMP_NEGATIVE, "memory.again")
        a.jump(s.fail(ErrorCause.WATCHDOG, Unit.FETCH))
        for name, cause in (("error", ErrorCause.BUS_ERROR), ("timeout", ErrorCause.BUS_TIMEOUT)):
            a.label(f"memory.{name}")
            a.read(In.MEMORY_ADDRESS)
            a.store(s.error_address)
            a.jump(s.fail(cause))
