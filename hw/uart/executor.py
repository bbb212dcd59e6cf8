"""Executes requests in their order, each once, and makes the replies."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from celosia.hw.bus.csr import csr_signature
from celosia.hw.bus.lanes import memory_signature
from celosia.hw.contract.uart import (
    EVENT,
    MOST_INCREMENT_BITS,
    REPLY,
    Flag,
    Identity,
    Kind,
    Status,
)
from celosia.hw.uart.access import BusAccess
from celosia.hw.uart.answers import INDEX_BITS, Answers
from celosia.hw.uart.session import SEQUENCE_PLACE, SequenceState
from celosia.hw.uart.transmitter import BIT_OF_FRAME

__all__ = ["HEADER", "Executor"]

HEADER = data.StructLayout({"kind": 8, "sequence": 8, "count": 8, "first": 4, "last": 4})
"""First word of a request; `count` is one less than the number of words."""

ALL_BYTES = 0xF
WORD_BITS = 32
COUNT_PLACE = 16
"""Of the count in a header; of CHECKSUM's it goes to the end, else its last bit is bit 23."""
STEP_PLACE = 2
"""Words are four bytes apart."""
REGISTER_BITS = STEP_PLACE + csr_signature().addr_width
"""Of an address of a register."""

FIRST = (1 << INDEX_BITS) - 1
"""Index of the argument, before the words that are asked for."""

_ACCESSES = (
    Kind.READ_MEMORY,
    Kind.WRITE_MEMORY,
    Kind.READ_REGISTERS,
    Kind.WRITE_REGISTERS,
)


class Executor(Component):
    """Takes the words of good requests, uses the buses, and gives the bits of replies.

    A reply's head goes out as soon as the request's header is known, its status last: so nothing
    of it has to be kept. A request out of its turn is skipped and answered with a status.

    Everything is done in rounds of 32 steps, a bit each, in which the header, the argument and the
    word that was read go round in their registers. A round gives bits of one of them to the reply,
    or none, and adds to the argument and takes from the count as they pass: a word that is read
    takes some 50 cycles, one that is written some 40, and on the line 160 at least.

    Parameters
    ----------
    identity : Identity
        What HELLO is answered with.

    Members
    -------
    i : In(stream of 32 bits)
        The payload stays until it is taken.
    o : Out(stream of BIT_OF_FRAME)
    irq : In(1)
    tick : In(1)
        Of the time that a bus has to answer, see :class:`celosia.hw.uart.access.BusAccess`.
    sent : In(1)
        Nothing of a reply is left to be sent.
    crc : In(1), give_crc : Out(1)
        CRC of the silent bits, bit by bit.
    restart_crc : Out(1)
        Begin anew.
    change : Out(1), increment : Out(MOST_INCREMENT_BITS)
        Change the rate of the line.
    dropped : In(8), overflows : In(8), framing_errors : In(8)
        Counters of the receiver.
    csr : Out(Wishbone), mem : Out(Wishbone)
    """

    def __init__(self, *, identity: Identity) -> None:
        self._identity = identity
        super().__init__(
            {
                "i": In(stream.Signature(WORD_BITS)),
                "o": Out(stream.Signature(BIT_OF_FRAME)),
                "irq": In(1),
                "tick": In(1),
                "sent": In(1),
                "crc": In(1),
                "give_crc": Out(1),
                "restart_crc": Out(1),
                "change": Out(1),
                "increment": Out(MOST_INCREMENT_BITS),
                "dropped": In(8),
                "overflows": In(8),
                "framing_errors": In(8),
                "csr": Out(csr_signature()),
                "mem": Out(memory_signature()),
            }
        )
        # The request being executed.
        self._header = Signal(HEADER, reset_less=True)
        self._argument = Signal(WORD_BITS, reset_less=True)
        self._word = Signal(WORD_BITS, reset_less=True)
        self._index = Signal(INDEX_BITS, init=FIRST)  # of the word of an answer
        self._begun = Signal()  # the first word is done
        self._last = Signal()  # there is no word after the one that is done
        self._summed = Signal()  # the sum is complete
        self._status = Signal(Status)
        self._failed = Signal()  # was executed, and had an error
        self._outside = Signal()  # there are no registers at the argument
        # What it is, for while the header goes round.
        self._informs = Signal()  # answers by itself, without a bus
        self._hello = Signal()
        self._new_rate = Signal()
        self._writes = Signal()
        self._sums = Signal()
        self._accepted = Signal()
        self._differs = Signal()  # is not the next one
        self._low, self._high = Signal(), Signal()  # the argument has bits of a rate, above it
        # The round.
        self._moves, self._waits = Signal(), Signal()
        self._step, self._end = Signal(), Signal()
        self._advances = Signal()
        self._clears, self._reads = Signal(), Signal()  # the word
        self._place = Signal(range(WORD_BITS))
        # The session.
        self._session = Signal()
        self._event = Signal()  # the interrupt rose and nobody has been told
        self._events = Signal(8)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.access = access = BusAccess()
        m.submodules.sequence = sequence = SequenceState()
        m.submodules.answers = answers = Answers(identity=self._identity)
        connect(m, access.csr, flipped(self.csr))
        connect(m, access.mem, flipped(self.mem))
        kind = self._header.kind
        m.d.comb += [
            access.registers.eq(kind[5] & ~kind[4]),
            access.write.eq(kind[0]),
            access.address.eq(self._argument),
            # It is still where it came from.
            access.data.eq(self.i.payload),
            access.sel.eq(self._selected_bytes()),
            access.outside.eq(self._outside),
            access.tick.eq(self.tick),
            self.increment.eq(self._argument),
            sequence.step.eq(self._step),
            sequence.place.eq(self._place),
            sequence.sequence.eq(self._header.as_value()[0]),
            sequence.status.eq(self._status),
            answers.hello.eq(self._hello),
            answers.index.eq(self._index),
            answers.place.eq(self._place),
            answers.state.eq(sequence.state),
            answers.dropped.eq(self.dropped),
            answers.overflows.eq(self.overflows),
            answers.framing_errors.eq(self.framing_errors),
        ]
        self._go_round(m, access)
        with m.FSM():
            self._take(m, sequence, answers)
            with m.State("DECIDE"):
                m.next = "GIVE_HEAD"
                self._decide(m)
            self._give_head(m, sequence)
            with m.State("CHOOSE"):
                self._choose(m, answers)
            self._use_bus(m, access)
            self._give_word(m, answers)
            self._end_reply(m, sequence)
        self._watch_interrupt(m)
        return m

    def _selected_bytes(self) -> object:
        """Return the bytes of a word to write; what is read is read whole."""
        header = self._header
        writes = header.kind[0]
        first = Mux(writes & ~self._begun, header.first, ALL_BYTES)
        last = Mux(writes & (header.count == 0), header.last, ALL_BYTES)
        return first & last

    def _go_round(self, m: Module, access: BusAccess) -> None:
        """Move what goes round: up to the end of a round nothing is at its place."""
        header, argument, place = self._header.as_value(), self._argument, self._place
        carry, counts, address_bit = Signal(), Signal(), Signal()
        m.d.comb += [
            self._step.eq(self._moves & (self.o.ready | ~(self.o.valid | self._waits))),
            self._end.eq(self._step & (place == WORD_BITS - 1)),
            # Of CHECKSUM the masks belong to the count.
            counts.eq(place[4] & (~place[3] | self._sums)),
            address_bit.eq(argument[0] ^ carry),
        ]
        with m.If(self._step):
            m.d.sync += [
                place.eq(place + 1),
                header.eq(Cat(header[1:], header[0] ^ (counts & self._last & self._advances))),
                argument.eq(Cat(argument[1:], address_bit)),
                self._outside.eq((place >= REGISTER_BITS) & (self._outside | address_bit)),
                carry.eq(self._advances & ((place == STEP_PLACE - 1) | (carry & argument[0]))),
                # The borrow: at the end it is left if there was nothing to take from.
                self._last.eq(
                    Mux(counts, self._last & ~header[0], self._last | (place == COUNT_PLACE - 1))
                ),
            ]
            with m.If(place == WORD_BITS - 1):
                m.d.sync += carry.eq(0)
        word = Cat(self._word[1:], Mux(self.give_crc, self.crc, self._word[0]))
        with m.If(self._clears):
            m.d.sync += self._word.eq(0)
        with m.Elif(self._step | self._reads):
            # Registers give 0 but when they answer: not in a round, nor while memory is read. And
            # of the word nothing is left while they are read.
            from_memory = self._reads & ~access.registers
            m.d.sync += self._word.eq(Mux(from_memory, self.mem.dat_r, word | self.csr.dat_r))

    def _round(self, m: Module, then: str) -> None:
        m.d.comb += self._moves.eq(1)
        with m.If(self._end):
            m.next = then

    def _give(self, m: Module, bit: object, *, when: object = 1) -> None:
        """Send a bit of the reply in this step."""
        m.d.comb += [self.o.valid.eq(when), self.o.payload.bit.eq(bit)]

    def _fail(self, m: Module, status: object) -> None:
        """Note an error of a request that was executed."""
        m.d.sync += [self._status.eq(status), self._failed.eq(1)]

    def _take(self, m: Module, sequence: SequenceState, answers: Answers) -> None:
        place = self._place
        flags = (self._begun, self._summed, self._failed, self._informs, self._hello)
        more_flags = (self._new_rate, self._writes, self._sums, self._accepted, self._differs)
        with m.State("IDLE"):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [flag.eq(0) for flag in (*flags, *more_flags, self._low, self._high)]
            m.d.sync += [
                self._header.eq(self.i.payload),
                self._index.eq(FIRST),
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
                m.next = "COMPARE"
        with m.State("COMPARE"):
            self._round(m, "DECIDE")
            here = (place >= SEQUENCE_PLACE) & (place < COUNT_PLACE)
            high = place >= MOST_INCREMENT_BITS
            differs = here & (sequence.sequence ^ sequence.expected)
            m.d.sync += [
                self._differs.eq(self._differs | differs),
                self._low.eq(self._low | (self._argument[0] & ~high)),
                self._high.eq(self._high | (self._argument[0] & high)),
            ]
        with m.State("GIVE_EVENT"):
            # In the upper half, where the counter passes.
            assert EVENT == 0xF0
            m.d.comb += answers.events.eq(self._events)
            m.d.sync += self._event.eq(0)
            self._give(m, Mux(place[3], answers.bit, place[2]), when=place[4])
            self._round(m, "GIVE_STATUS")

    def _decide(self, m: Module) -> None:
        """Find out what a request is."""
        kind = self._header.kind
        m.d.sync += self._writes.eq(kind[0])
        with m.If(kind[4:7] == 0):
            with m.Switch(kind):
                with m.Case(Kind.HELLO):
                    m.d.sync += [self._session.eq(1), self._accepted.eq(1)]
                    m.d.sync += [self._informs.eq(1), self._hello.eq(1)]
                with m.Case(Kind.PING):
                    m.d.sync += self._informs.eq(1)
                with m.Case(Kind.BAUD):
                    with m.If(self._low & ~self._high):
                        m.d.sync += [self._informs.eq(1), self._new_rate.eq(1)]
                    with m.Else():
                        m.d.sync += self._status.eq(Status.ILLEGAL)
                with m.Default():
                    m.d.sync += self._status.eq(Status.ILLEGAL)
        with m.Elif(~self._session):
            m.d.sync += self._status.eq(Status.NO_SESSION)
        with m.Elif(self._differs):
            m.d.sync += self._status.eq(Status.OUT_OF_SEQUENCE)
        with m.Else():
            m.d.sync += self._accepted.eq(1)
            with m.Switch(Mux(self._argument[:2] == 0, kind, 0)):
                with m.Case(*_ACCESSES):
                    pass
                with m.Case(Kind.CHECKSUM):
                    # Its words enter the CRC of the transmitter before the reply begins.
                    m.d.sync += self._sums.eq(1)
                    m.next = "ACCESS"
                with m.Default():
                    self._fail(m, Status.ILLEGAL)

    def _give_head(self, m: Module, sequence: SequenceState) -> None:
        with m.State("GIVE_HEAD"):
            reply = self._place == REPLY.bit_length() - 1
            self._give(m, self._header.as_value()[0] | reply, when=~self._place[4])
            m.d.comb += [sequence.accept.eq(self._accepted), sequence.clear.eq(self._hello)]
            self._round(m, "CHOOSE")

    def _choose(self, m: Module, answers: Answers) -> None:
        """Everything is at its place, a head or a word has been given: what is next?"""
        good = self._status == Status.OK
        finished = self._begun & Mux(
            self._informs, self._new_rate | answers.over, self._last | self._summed
        )
        with m.If(self._summed & ~self._begun):
            m.next = "GIVE_WORD"
        with m.Elif(finished | ~(good | self._writes)):
            m.next = "GIVE_STATUS"
            with m.If(self._sums & ~self._summed):
                m.next = "END_SUM"
        with m.Elif(self._informs):
            m.next = "GIVE_WORD"
        with m.Elif(~self._writes):
            m.next = "ACCESS"
        with m.Elif(self.i.valid):
            m.next = "ACCESS"
            with m.If(~good):
                m.d.comb += self.i.ready.eq(1)
                m.next = "PASS"

    def _use_bus(self, m: Module, access: BusAccess) -> None:
        with m.State("ACCESS"):
            m.d.comb += [access.start.eq(1), self._clears.eq(1)]
            m.next = "WAIT"
        with m.State("WAIT"):
            with m.If(~access.done):
                m.d.comb += self._reads.eq(1)
            with m.Else():
                m.d.comb += self.i.ready.eq(self._writes)
                with m.If(access.error | access.timeout):
                    self._fail(m, Mux(access.timeout, Status.BUS_TIMEOUT, Status.BUS_ERROR))
                    m.next = "GIVE_WORD"
                    with m.If(self._sums):
                        m.next = "END_SUM"
                with m.Elif(self._writes):
                    m.next = "PASS"
                with m.Else():
                    m.next = "GIVE_WORD"

    def _give_word(self, m: Module, answers: Answers) -> None:
        nonce = self._informs & ~self._begun
        address = self._status != Status.OK
        with m.State("GIVE_WORD"):
            m.d.comb += [
                self._advances.eq(~self._informs),
                self.o.payload.silent.eq(self._sums & ~self._summed),
            ]
            value = Mux(self._informs, answers.bit, self._word[0])
            self._give(m, Mux(nonce | address, self._argument[0], value))
            self._round(m, "CHOOSE")
            with m.If(self._end):
                m.d.sync += [self._begun.eq(1), self._index.eq(self._index + 1)]
        with m.State("PASS"):
            # Nothing is said of a word that was written or is left out.
            m.d.comb += self._advances.eq(1)
            self._round(m, "CHOOSE")
            with m.If(self._end):
                m.d.sync += self._begun.eq(1)
        with m.State("END_SUM"):
            m.d.comb += [self._waits.eq(1), self.give_crc.eq(self._step)]
            self._round(m, "GIVE_HEAD")
            with m.If(self._end):
                m.d.comb += self.restart_crc.eq(1)
                m.d.sync += [self._summed.eq(1), self._begun.eq(0)]

    def _end_reply(self, m: Module, sequence: SequenceState) -> None:
        place = self._place
        with m.State("GIVE_STATUS"):
            assert (Flag.SESSION, Flag.IRQ) == (1 << 6, 1 << 7)
            code = Cat(self._status, Const(0, 6))[:6]
            bits = Cat(code, self._session, self.irq)
            self._give(m, bits.bit_select(place[:3], 1), when=place[3:] == 0)
            m.d.comb += [self.o.payload.last.eq(1), sequence.fail.eq(self._failed)]
            self._round(m, "IDLE")
            with m.If(self._end & self._new_rate):
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
