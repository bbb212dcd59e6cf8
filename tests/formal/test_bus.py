"""The arbiter is a Wishbone B4 initiator, and serves its ports in order."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, ResetInserter, Signal
from amaranth.lib.wiring import Component, In
from celosia.hw.bus import arbiter
from celosia.hw.bus.wishbone import BurstType, CycleType
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.regs import ErrorCause

SMALL = NpuConfig(
    rows=4, cols=4, bus_bits=32, act_bytes=8192, wgt_bytes=2048, param_bytes=1024, acc_depth=128,
    queue_depth=4, max_outstanding=8, lanes=1, compact=True,
)  # fmt: skip
"""The smallest machine with engines."""
CONFIG = SMALL.with_(max_outstanding=2, compact=False)
PORTS = 2
# Every bit of an address and of a datum goes the same way, so a few of each are enough.
FIELD_BITS = {"adr": 3, "we": 1, "dat_w": 2, "sel": 2, "last": 1}
FIELDS = tuple(FIELD_BITS)
DATA_BITS = 2

# From a port to an answer: in the buffer, at the bus, in flight, registered.
ON_THE_WAY = 4 + CONFIG.max_outstanding + 1


class ArbiterHarness(Component):
    """Any requests at the ports and any target that answers only what it was asked.

    Members
    -------
    valid : In(PORTS)
    adr_0, ... last_1 : In
        The requests.
    stall, ack, err, dat_r : In
        Of the target.
    halt : In(1)
        Reset of the arbiter and of the ports, not of the target.
    watch : In(1)
        Watch the request that is taken now, if none has been watched yet.
    """

    def __init__(self) -> None:
        self.dut = arbiter.BusArbiter(CONFIG, ports=PORTS)
        ports = {name: In(1) for name in ("stall", "ack", "err", "halt", "watch")}
        ports |= {"valid": In(PORTS), "dat_r": In(DATA_BITS), "timeout": In(3)}
        for port in range(PORTS):
            ports |= {f"{name}_{port}": In(bits) for name, bits in FIELD_BITS.items()}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.dut = ResetInserter(self.halt)(self.dut)
        bus = self.dut.bus
        for name in ("stall", "ack", "err", "dat_r"):
            m.d.comb += getattr(bus, name).eq(getattr(self, name))
        m.d.comb += self.dut.timeout.eq(self.timeout)
        issued, answered = Signal(), Signal()
        in_flight = Signal(range(CONFIG.max_outstanding + 2))
        m.d.comb += [
            issued.eq(bus.stb & ~bus.stall),
            answered.eq(bus.ack | bus.err),
            # A B4 target: an answer may come in the cycle of the request.
            Assume(~answered | (in_flight != 0) | issued),
            Assume(~(bus.ack & bus.err)),
        ]
        # A target forgets its requests when cyc falls.
        m.d.sync += in_flight.eq(Mux(self.halt, 0, in_flight + issued - answered))
        self._ports(m)
        self._protocol(m, issued, in_flight)
        self._bursts(m, issued)
        self._order(m, issued, answered)
        return m

    def _ports(self, m: Module) -> None:
        """Requests hold until they are taken; a burst goes on at the next word."""
        for port in range(PORTS):
            request = self.dut.ports[port].request
            now = Cat(getattr(self, f"{name}_{port}") for name in FIELDS)
            before = Signal(len(now), name=f"before_{port}")
            held = Signal(name=f"held_{port}")
            burst = Signal(name=f"burst_{port}")
            following = Signal.like(request.payload.adr, name=f"following_{port}")
            write = Signal(name=f"write_{port}")
            m.d.comb += [
                request.valid.eq(self.valid[port] & ~self.halt),
                *(request.payload[name].eq(getattr(self, f"{name}_{port}")) for name in FIELDS),
                Assume(~held | (self.valid[port] & (now == before))),
                Assume(request.payload.sel.any()),
                Assume(
                    ~burst | ((request.payload.adr == following) & (request.payload.we == write))
                ),
            ]
            m.d.sync += [held.eq(request.valid & ~request.ready), before.eq(now)]
            with m.If(request.valid & request.ready):
                m.d.sync += [
                    burst.eq(~request.payload.last),
                    following.eq(request.payload.adr + 1),
                    write.eq(request.payload.we),
                ]
            with m.If(self.halt):
                m.d.sync += [held.eq(0), burst.eq(0)]

    def _protocol(self, m: Module, issued: Signal, in_flight: Signal) -> None:
        bus = self.dut.bus
        now = Cat(bus.adr, bus.we, bus.dat_w, bus.sel, bus.cti, bus.bte)
        before = Signal(len(now))
        stalled, halted = Signal(), Signal()
        m.d.sync += [
            before.eq(now),
            stalled.eq(bus.stb & bus.stall & ~self.halt),
            halted.eq(self.halt),
        ]
        m.d.comb += [
            Assert(~bus.stb | bus.cyc, "stb implies cyc"),
            Assert(~stalled | bus.stb, "a stalled request stays"),
            Assert(~stalled | (now == before), "a stalled request does not change"),
            Assert((in_flight == 0) | bus.cyc, "cyc is held while answers are outstanding"),
            Assert(in_flight <= CONFIG.max_outstanding, "no more outstanding than allowed"),
            Assert(
                ~(bus.stb & (in_flight == CONFIG.max_outstanding)),
                "no request beyond what may be outstanding",
            ),
            Assert(~bus.stb | bus.sel.any(), "sel is not zero"),
            Assert(~halted | ~(bus.cyc | bus.stb), "nothing is asked after a halt"),
            Cover(in_flight == CONFIG.max_outstanding, "as much outstanding as allowed"),
            Cover(stalled & (in_flight != 0) & bus.we, "a write is stalled"),
            Cover(halted & self.valid.all(), "a halt with requests waiting"),
        ]

    def _bursts(self, m: Module, issued: Signal) -> None:
        """An incrementing burst goes on with the next word; its end says so."""
        bus = self.dut.bus
        burst, write = Signal(), Signal()
        following = Signal.like(bus.adr)
        with m.If(issued):
            m.d.sync += [
                burst.eq(bus.cti == CycleType.INCR_BURST),
                following.eq(bus.adr + 1),
                write.eq(bus.we),
            ]
        with m.If(self.halt):
            m.d.sync += burst.eq(0)
        legal = (CycleType.CLASSIC, CycleType.INCR_BURST, CycleType.END_OF_BURST)
        m.d.comb += [
            Assert(~bus.stb | Cat(bus.cti == kind for kind in legal).any(), "cti is legal"),
            Assert(bus.bte == BurstType.LINEAR, "bursts are linear"),
            Assert(
                ~(bus.stb & burst) | ((bus.adr == following) & (bus.we == write)),
                "a burst goes on with the next word",
            ),
            Assert(~(bus.stb & burst) | (bus.cti != CycleType.CLASSIC), "a burst ends as a burst"),
            Assert(
                ~(bus.stb & (bus.cti == CycleType.END_OF_BURST)) | burst,
                "only a burst ends as a burst",
            ),
            Cover(issued & burst & (bus.cti == CycleType.END_OF_BURST), "a burst ends"),
        ]

    def _order(self, m: Module, issued: Signal, answered: Signal) -> None:
        """Any one request is watched from its turn on: to the bus, and its answer to its port.

        What it goes through before is a :class:`celosia.hw.fabric.buffer.StreamBuffer`, which has
        proofs of its own.
        """
        dut, bus = self.dut, self.dut.bus
        takes = dut.turn
        taken = Signal()
        on_the_way = Signal(range(ON_THE_WAY + 1))  # taken, not issued
        unanswered = Signal(range(ON_THE_WAY + 1))  # taken, not answered on the bus
        watching, over, sent = Signal(), Signal(), Signal()
        to_bus, to_answer = Signal.like(on_the_way), Signal.like(unanswered)
        port = Signal(range(PORTS))
        fields = ("adr", "we", "dat_w", "sel")
        wanted = Signal.like(Cat(bus.adr, bus.we, bus.dat_w, bus.sel))
        m.d.comb += taken.eq(takes.any())
        m.d.sync += [
            on_the_way.eq(on_the_way + taken - issued),
            unanswered.eq(unanswered + taken - answered),
        ]
        now_answer = Signal()
        due, due_error, due_data = Signal(), Signal(), Signal.like(bus.dat_r)
        m.d.comb += now_answer.eq(watching & (to_answer == 0) & answered)
        m.d.sync += [due.eq(now_answer), due_error.eq(bus.err), due_data.eq(bus.dat_r)]
        with m.If(watching):
            m.d.sync += [to_bus.eq(to_bus - issued), to_answer.eq(to_answer - answered)]
            with m.If(issued & (to_bus == 0)):
                m.d.sync += sent.eq(1)
            with m.If(now_answer):
                m.d.sync += [watching.eq(0), over.eq(1)]
        with m.Elif(taken & self.watch & ~over):
            m.d.sync += [
                watching.eq(1),
                sent.eq(0),
                to_bus.eq(on_the_way - issued),
                to_answer.eq(unanswered - answered),
                port.eq(takes[1]),
            ]
            m.d.sync += wanted.eq(Cat(dut.chosen[name] for name in fields))
        with m.If(self.halt):
            m.d.sync += [on_the_way.eq(0), unanswered.eq(0), watching.eq(0), over.eq(0), due.eq(0)]
        acks = Cat(dut.ports[index].ack for index in range(PORTS))
        data = Mux(port, dut.ports[1].dat_r, dut.ports[0].dat_r)
        byte_address = wanted[: len(bus.adr)] << 32 - len(bus.adr)
        some_ack, some_error, limited = Signal(), Signal(), Signal()
        m.d.sync += [
            limited.eq(self.timeout != 0),
            some_ack.eq(bus.ack & ~self.halt),
            some_error.eq(bus.err & ~self.halt),
        ]
        m.d.comb += [
            Assert(~takes.all(), "one request is taken at a time"),
            Assert(on_the_way <= 1, "the way to the bus holds one request"),
            Assert(~bus.stb | (on_the_way != 0), "no request that was not asked for"),
            Assert(
                ~(watching & ~sent & (to_bus == 0) & bus.stb)
                | (Cat(bus.adr, bus.we, bus.dat_w, bus.sel) == wanted),
                "requests come to the bus in order and unchanged",
            ),
            Assert(acks.any() == some_ack, "an answer goes to a port in the next cycle"),
            Assert(~acks.all(), "an answer goes to one port"),
            Assert(~(due & ~due_error) | acks.bit_select(port, 1), "an answer goes to its port"),
            Assert(~(due & ~due_error) | (data == due_data), "an answer has its data"),
            Assert(
                ~(due & due_error)
                | (
                    dut.fault.valid
                    & (dut.fault.cause == ErrorCause.BUS_ERROR)
                    & (dut.fault.address == byte_address)
                    & (dut.fault_port == port)
                ),
                "a bus error is reported with its address and port",
            ),
            Assert(
                ~dut.fault.valid | some_error | limited,
                "no fault without an error or a time limit",
            ),
            Cover(due & ~due_error & port, "the second port has an answer"),
            Cover(due & due_error, "a bus error"),
            Cover(dut.fault.valid & (dut.fault.cause == ErrorCause.BUS_TIMEOUT), "a time-out"),
        ]


def test_arbiter(formal: Any) -> None:
    formal.check(ArbiterHarness())


BUGS = {
    "one too many outstanding": (
        "_Issue",
        "room.eq((after < self._config.max_outstanding) | answers)",
        "room.eq((in_flight < self._config.max_outstanding) | answers)",
        "outstanding",
    ),
    "cyc only with stb": ("_Issue", "bus.cyc.eq(self.busy)", "bus.cyc.eq(held)", "cyc is held"),
    "the hint changes while stalled": (
        "_Issue",
        "self.request.ready.eq(~held | issued)",
        "self.request.ready.eq(~held | bus.stb)",
        "",
    ),
    "cti goes on": (
        "_Issue",
        "m.Elif(bus.cti == CycleType.INCR_BURST)",
        "m.Elif(bus.cti == CycleType.CONST_BURST)",
        "burst ends",
    ),
    "any burst continues": (
        "BusArbiter",
        "grant.keeps & (grant.port & follows).any()",
        "grant.keeps & follows.any()",
        "burst",
    ),
    "owner of the newest": (
        "BusArbiter",
        "owners.i.payload.port.eq(grant.index)",
        "owners.i.payload.port.eq(0)",
        "port",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
def test_seeded_bug_is_found(formal: Any, bug: str) -> None:
    cls, right, wrong, claim = BUGS[bug]
    formal.seed_bug(arbiter, cls, right, wrong)
    formal.refute(ArbiterHarness(), claim)


def test_an_smt_solver_finds_a_seeded_bug(formal: Any, second_opinion: Any) -> None:
    cls, right, wrong, _ = BUGS["cyc only with stb"]
    formal.seed_bug(arbiter, cls, right, wrong)
    assert second_opinion(ArbiterHarness(), depth=10, covers=False) == "FAIL"
