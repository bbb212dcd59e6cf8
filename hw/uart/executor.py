"""Executes requests in their order, each once, and makes the replies."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.lanes import memory_signature
from celosia.hw.uart.access import BusAccess
from celosia.hw.uart.protocol import (
    EVENT,
    IDENTITY_WORDS,
    MOST_INCREMENT_BITS,
    REPLY,
    STATE_WORDS,
    Flag,
    Identity,
    Kind,
    Status,
)
from celosia.hw.uart.sender import PIECE

__all__ = ["HEADER", "Executor"]

HEADER = data.StructLayout({"kind": 8, "sequence": 8, "count": 8, "first": 4, "last": 4})
"""First word of a request; `count` is one less than the number of words."""

ALL_BYTES = 0xF

_ACCESSES = (
    Kind.READ_MEMORY,
    Kind.WRITE_MEMORY,
    Kind.READ_REGISTERS,
    Kind.WRITE_REGISTERS,
)


class Executor(Component):
    """Takes the words of good requests, uses the buses, and gives the pieces of replies.

    A reply's head goes out as soon as the request's header is known, its status last: so nothing
    of it has to be kept. A request out of its turn is skipped and answered with a status.

    Parameters
    ----------
    identity : Identity
        What HELLO is answered with.
    timeout_cycles : int
        How long a bus may take to answer.

    Members
    -------
    i : In(stream of 32 bits)
    o : Out(stream of PIECE)
    irq : In(1)
    sent : In(1)
        Nothing of a reply is left to be sent.
    crc : In(32), summed : In(1), restart_crc : Out(1)
        CRC of the silent pieces, all of which have been taken; begin anew.
    change : Out(1), increment : Out(32)
        Change the rate of the line.
    dropped : In(8), overflows : In(8), framing_errors : In(8)
        Counters of the receiver.
    csr : Out(Wishbone), mem : Out(Wishbone)
    """

    def __init__(self, *, identity: Identity, timeout_cycles: int) -> None:
        self._identity = identity
        self._timeout_cycles = timeout_cycles
        super().__init__(
            {
                "i": In(stream.Signature(32)),
                "o": Out(stream.Signature(PIECE)),
                "irq": In(1),
                "sent": In(1),
                "crc": In(32),
                "summed": In(1),
                "restart_crc": Out(1),
                "change": Out(1),
                "increment": Out(32),
                "dropped": In(8),
                "overflows": In(8),
                "framing_errors": In(8),
                "csr": Out(csr_signature()),
                "mem": Out(memory_signature()),
            }
        )
        # The request being executed.
        self._header = Signal(HEADER, reset_less=True)
        self._argument = Signal(32, reset_less=True)
        self._word = Signal(32, reset_less=True)
        self._left = Signal(17, reset_less=True)  # words
        self._begun = Signal()  # the first word is done
        self._informs = Signal()  # answers by itself, without a bus
        self._sums = Signal()
        self._summed = Signal()  # the sum is complete
        self._status = Signal(Status)
        # The session.
        self._session = Signal()
        self._expected = Signal(8)
        self._errors = Signal(8)
        self._last_status = Signal(8)
        self._last_sequence = Signal(8)
        self._event = Signal()  # the interrupt rose and nobody has been told
        self._events = Signal(8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.access = access = BusAccess(timeout_cycles=self._timeout_cycles)
        connect(m, access.csr, flipped(self.csr))
        connect(m, access.mem, flipped(self.mem))
        kind = self._header.kind
        m.d.comb += [
            access.registers.eq(kind[5] & ~kind[4]),
            access.write.eq(kind[0]),
            access.address.eq(self._argument),
            access.data.eq(self._word),
            access.sel.eq(self._selected_bytes()),
            self._informs.eq(kind[4:7] == 0),
            self._sums.eq(kind[4] & kind[5]),
            self.increment.eq(self._argument),
        ]
        with m.FSM():
            self._take(m)
            with m.State("DECIDE"):
                m.next = "GIVE_HEAD"
                self._decide(m)
            self._give_head(m)
            self._inform(m)
            self._use_bus(m, access)
            with m.State("GIVE_WORD"):
                m.d.comb += self.o.payload.silent.eq(self._sums & ~self._summed)
                self._give(m, self._word, then="ADVANCE")
            self._advance(m)
            self._end(m)
        self._watch_interrupt(m)
        return m

    def _selected_bytes(self) -> object:
        """Return the bytes of a word to write; what is read is read whole."""
        header = self._header
        writes = header.kind[0]
        first = Mux(writes & ~self._begun, header.first, ALL_BYTES)
        last = Mux(writes & (self._left == 1), header.last, ALL_BYTES)
        return first & last

    def _give(self, m: Module, value: object, *, then: str, count: int = 4) -> None:
        """Send the lowest bytes of a value, not the last of the reply."""
        m.d.comb += [
            self.o.valid.eq(1),
            self.o.payload.bytes.eq(value),
            self.o.payload.more.eq(count - 1),
        ]
        with m.If(self.o.ready):
            m.next = then

    def _fail(self, m: Module, status: object) -> None:
        """Note an error of a request that was executed."""
        m.d.sync += [
            self._status.eq(status),
            self._errors.eq(self._errors + 1),
            self._last_status.eq(status),
            self._last_sequence.eq(self._header.sequence),
        ]

    def _take(self, m: Module) -> None:
        with m.State("IDLE"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [
                self._header.eq(self.i.payload),
                self._begun.eq(0),
                self._summed.eq(0),
                self._status.eq(Status.OK),
            ]
            with m.If(self.i.valid):
                m.next = "TAKE_ARGUMENT"
            with m.Elif(self._event & self._session):
                m.next = "GIVE_EVENT"
        with m.State("TAKE_ARGUMENT"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += self._argument.eq(self.i.payload)
            with m.If(self.i.valid):
                m.next = "DECIDE"
        with m.State("GIVE_EVENT"):
            m.d.sync += [self._event.eq(0), self._header.kind.eq(0)]
            self._give(m, Cat(Const(EVENT, 8), self._events), count=2, then="GIVE_STATUS")

    def _decide(self, m: Module) -> None:
        """Find out what a request is; ``left`` becomes its number of words."""
        header, argument = self._header, self._argument
        kind = header.kind
        m.d.sync += self._left.eq(header.count + 1)
        with m.If(kind[4:7] == 0):
            with m.Switch(kind):
                with m.Case(Kind.HELLO):
                    m.d.sync += [
                        self._session.eq(1),
                        self._expected.eq(header.sequence + 1),
                        self._errors.eq(0),
                        self._left.eq(IDENTITY_WORDS + 1),
                    ]
                with m.Case(Kind.PING):
                    m.d.sync += self._left.eq(STATE_WORDS + 1)
                with m.Case(Kind.BAUD):
                    m.d.sync += self._left.eq(1)
                    with m.If((argument[MOST_INCREMENT_BITS:] != 0) | (argument == 0)):
                        m.d.sync += self._status.eq(Status.ILLEGAL)
                with m.Default():
                    m.d.sync += self._status.eq(Status.ILLEGAL)
        with m.Elif(~self._session):
            m.d.sync += self._status.eq(Status.NO_SESSION)
        with m.Elif(header.sequence != self._expected):
            m.d.sync += self._status.eq(Status.OUT_OF_SEQUENCE)
        with m.Else():
            m.d.sync += self._expected.eq(self._expected + 1)
            with m.Switch(Mux(argument[:2] == 0, kind, 0)):
                with m.Case(*_ACCESSES):
                    pass
                with m.Case(Kind.CHECKSUM):
                    # Its words enter the CRC of the transmitter before the reply begins.
                    m.d.sync += self._left.eq(Cat(header.count, header.first, header.last) + 1)
                    m.next = "ACCESS"
                with m.Default():
                    self._fail(m, Status.ILLEGAL)

    def _give_head(self, m: Module) -> None:
        header = self._header
        with m.State("GIVE_HEAD"):
            self._give(m, Cat(header.kind | REPLY, header.sequence), count=2, then="ACCESS")
            with m.If(self.o.ready):
                with m.If(self._summed):
                    m.next = "GIVE_WORD"
                with m.Elif(self._status != Status.OK):
                    m.next = "SKIP"
                with m.Elif(self._informs):
                    m.next = "FETCH"
                with m.Elif(header.kind[0]):
                    m.next = "TAKE_WORD"

    def _inform(self, m: Module) -> None:
        """Answer with the argument, which tells this request from others, and what it asks."""
        words = self._identity.words
        assert len(words) == 16
        # By what is left: 16, of which the lowest bits are 0, for the first word.
        contents = [words[-index % len(words)] for index in range(len(words))]
        m.submodules.identity = rom = memory.Memory(shape=32, depth=len(words), init=contents)
        port = rom.read_port(domain="comb")
        m.d.comb += port.addr.eq(self._left)
        session = Cat(self._expected, self._errors, self._last_status, self._last_sequence)
        counters = Cat(self.dropped, self.overflows, self.framing_errors)
        with m.State("FETCH"):
            with m.If(~self._begun):
                m.d.sync += self._word.eq(self._argument)
            with m.Elif(self._header.kind == Kind.HELLO):
                m.d.sync += self._word.eq(port.data)
            with m.Else():
                m.d.sync += self._word.eq(Mux(self._left[0], counters, session))
            m.next = "GIVE_WORD"

    def _use_bus(self, m: Module, access: BusAccess) -> None:
        kind = self._header.kind
        with m.State("TAKE_WORD"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += self._word.eq(self.i.payload)
            with m.If(self.i.valid):
                m.next = "ACCESS"
        with m.State("ACCESS"):
            m.d.comb += access.start.eq(1)
            m.next = "WAIT"
        with m.State("WAIT"):
            with m.If(~access.done):
                with m.If(~kind[0]):
                    m.d.sync += self._word.eq(access.result)
            with m.Elif(access.error | access.timeout):
                self._fail(m, Mux(access.timeout, Status.BUS_TIMEOUT, Status.BUS_ERROR))
                m.d.sync += self._word.eq(self._argument)
                m.next = "GIVE_WORD"
                with m.If(self._sums):
                    m.next = "END_SUM"
            with m.Elif(kind[0]):
                m.next = "ADVANCE"
            with m.Else():
                m.next = "GIVE_WORD"
        with m.State("END_SUM"):
            with m.If(self.summed):
                m.d.comb += self.restart_crc.eq(1)
                m.d.sync += [self._summed.eq(1), self._left.eq(1)]
                with m.If(self._status == Status.OK):
                    m.d.sync += self._word.eq(self.crc)
                m.next = "GIVE_HEAD"

    def _advance(self, m: Module) -> None:
        left = self._left
        with m.State("ADVANCE"):
            m.d.sync += [left.eq(left - 1), self._begun.eq(1)]
            with m.If(~self._informs):
                m.d.sync += self._argument.eq(self._argument + 4)
            with m.If(self._status != Status.OK):
                m.next = "SKIP"
            with m.Elif(left == 1):
                m.next = "GIVE_STATUS"
                with m.If(self._sums & ~self._summed):
                    m.next = "END_SUM"
            with m.Elif(self._informs):
                m.next = "FETCH"
            with m.Elif(self._header.kind[0]):
                m.next = "TAKE_WORD"
            with m.Else():
                m.next = "ACCESS"

    def _end(self, m: Module) -> None:
        kind, left = self._header.kind, self._left
        with m.State("SKIP"):
            with m.If(~kind[0] | (left == 0)):
                m.next = "GIVE_STATUS"
            with m.Else():
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += left.eq(left - 1)
        with m.State("GIVE_STATUS"):
            assert (Flag.SESSION, Flag.IRQ) == (1 << 6, 1 << 7)
            code = Cat(self._status, Const(0, 6))[:6]
            self._give(m, Cat(code, self._session, self.irq), count=1, then="IDLE")
            m.d.comb += self.o.payload.last.eq(1)
            with m.If(self.o.ready & (kind == Kind.BAUD) & (self._status == Status.OK)):
                m.next = "CHANGE_RATE"
        with m.State("CHANGE_RATE"):
            m.d.comb += self.change.eq(self.sent)
            with m.If(self.sent):
                m.next = "IDLE"

    def _watch_interrupt(self, m: Module) -> None:
        before = Signal()
        m.d.sync += before.eq(self.irq)
        with m.If(self.irq & ~before):
            m.d.sync += [self._event.eq(1), self._events.eq(self._events + 1)]
        with m.Elif(~self.irq):
            m.d.sync += self._event.eq(0)  # the host found out by itself
