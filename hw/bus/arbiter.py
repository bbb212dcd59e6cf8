"""From several memory ports to one pipelined Wishbone initiator."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import MemPort, initiator_signature, request_layout, word_addr_bits
from celosia.hw.bus.wishbone import BurstType, CycleType
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import FETCH_REST_WORDS, MAX_BURST_WORDS
from celosia.hw.contract.regs import ErrorCause
from celosia.hw.fabric.buffer import StreamBuffer, StreamQueue
from celosia.hw.fabric.ports import FaultPort

__all__ = ["BusArbiter", "PlainBusArbiter", "SmallBusArbiter"]


class _Grant(Component):
    """Chooses the port of the next request.

    The last port keeps the bus to the end of its burst, or to MAX_BURST_WORDS words; then the
    turn goes round. A port that has nothing to ask loses its turn.

    Members
    -------
    valid : In(ports)
        Ports with a request.
    last : In(1)
        The chosen request ends its burst.
    take : In(1)
        The chosen request is taken.
    index : Out(range(ports))
        The port chosen.
    port : Out(ports)
        Its bit, if it has a request.
    keeps : Out(1)
        If it is taken, its port keeps the bus.
    """

    def __init__(self, ports: int) -> None:
        self._ports = ports
        super().__init__(
            {
                "valid": In(ports),
                "last": In(1),
                "take": In(1),
                "index": Out(range(ports)),
                "port": Out(ports),
                "keeps": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        owner = Signal(range(self._ports))
        words = Signal(range(MAX_BURST_WORDS))
        sticky = Signal()
        goes_on = Signal()
        # `sticky` is a register: in a burst that may go on. Who is chosen waits for it.
        m.d.comb += [
            goes_on.eq(sticky & (self.index == owner)),
            self.port.eq(self.valid & (1 << self.index)),
            self.keeps.eq(~self.last & ~(goes_on & (words == MAX_BURST_WORDS - 2))),
        ]
        with m.Switch(owner):
            for index in range(self._ports):
                with m.Case(index):
                    # From the least to the most preferred: the later assignment counts.
                    m.d.comb += self.index.eq(index)
                    for step in reversed(range(1, self._ports)):
                        other = (index + step) % self._ports
                        with m.If(self.valid[other]):
                            m.d.comb += self.index.eq(other)
                    with m.If(sticky & self.valid[index]):
                        m.d.comb += self.index.eq(index)
        with m.If(self.take):
            m.d.sync += [
                owner.eq(self.index),
                words.eq(Mux(goes_on, words + 1, 0)),
                sticky.eq(self.keeps),
            ]
        return m


class _Rest(Component):
    """Says when the first port, which fetches commands, may begin a burst.

    Most commands are fetched far ahead of their turn, data is waited for: after a burst that came
    beside words of other ports these have the bus for so many words, or until none of them has a
    request.

    Members
    -------
    others : In(1)
        Another port has a request.
    first : In(1)
        A word of the first port is taken.
    taken : In(1)
        A word is taken.
    over : Out(2)
        It was so for MAX_BURST_WORDS words; for FETCH_REST_WORDS. From registers.
    """

    def __init__(self) -> None:
        super().__init__({"others": In(1), "first": In(1), "taken": In(1), "over": Out(2)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(range(FETCH_REST_WORDS))
        over = Signal(2, init=0b11)
        m.d.comb += self.over.eq(over)
        with m.If(~self.others):
            m.d.sync += over.eq(0b11)
        with m.Elif(self.first):
            m.d.sync += [left.eq(FETCH_REST_WORDS - 1), over.eq(0)]
        with m.Elif(self.taken & ~over[1]):
            m.d.sync += [
                left.eq(left - 1),
                over[0].eq(over[0] | (left == FETCH_REST_WORDS - MAX_BURST_WORDS)),
                over[1].eq(left == 0),
            ]
        return m


class _Issue(Component):
    """Drives the initiator: requests out, registered answers in.

    Members
    -------
    request : In(stream)
        Requests.
    follower_continues : In(1)
        The request after the one in `request` is known and continues its burst.
    bus : Out(Wishbone)
    ack, err : Out(1)
        The bus's answers, one cycle later.
    dat_r : Out(bus_bits)
    wait : Out(1)
        A request was stalled, or nothing answered one in flight.
    busy : Out(1)
        A request is on the bus or in flight.
    """

    def __init__(self, config: NpuConfig, layout: data.StructLayout) -> None:
        self._config = config
        self._layout = layout
        super().__init__(
            {
                "request": In(stream.Signature(layout)),
                "follower_continues": In(1),
                "bus": Out(initiator_signature(config)),
                "ack": Out(1),
                "err": Out(1),
                "dat_r": Out(config.bus_bits),
                "wait": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        current = Signal(self._layout)
        held = Signal()
        # Issued, and their answers not in the registers of `ack` and `err`.
        in_flight = Signal(range(self._config.max_outstanding + 2))
        any_in_flight = Signal()
        room = Signal(init=1)
        issued = Signal()
        answers, answered = Signal(), Signal()
        ack, err = Signal(), Signal()
        unanswered = Signal()
        after = Signal.like(in_flight)
        m.d.comb += [
            bus.adr.eq(current.adr),
            bus.we.eq(current.we),
            bus.dat_w.eq(current.dat_w),
            bus.sel.eq(current.sel),
            bus.bte.eq(BurstType.LINEAR),
            bus.stb.eq(held & room),
            bus.cyc.eq(self.busy),
            self.busy.eq(held | any_in_flight),
            issued.eq(bus.stb & ~bus.stall),
            answers.eq(bus.ack | bus.err),
            # An answer to nothing is ignored: it may be one to a request from before a reset.
            answered.eq((ack | err) & any_in_flight),
            after.eq(in_flight + issued - answered),
            self.ack.eq(ack & ~err & any_in_flight),
            self.err.eq(err & any_in_flight),
            self.wait.eq(unanswered & ~answered),
            self.request.ready.eq(~held | issued),
        ]
        m.d.sync += [
            in_flight.eq(after),
            any_in_flight.eq(after != 0),
            # The answer that comes now is counted in the next cycle.
            room.eq((after < self._config.max_outstanding) | answers),
            ack.eq(bus.ack),
            err.eq(bus.err),
            self.dat_r.eq(bus.dat_r),
            unanswered.eq((bus.stb & bus.stall) | (in_flight != answered)),
        ]
        with m.If(self.request.ready):
            m.d.sync += [held.eq(self.request.valid), current.eq(self.request.payload)]
            # The hint must not change while a request waits, so it is fixed here.
            with m.If(self.follower_continues):
                m.d.sync += bus.cti.eq(CycleType.INCR_BURST)
            with m.Elif(bus.cti == CycleType.INCR_BURST):
                m.d.sync += bus.cti.eq(CycleType.END_OF_BURST)
            with m.Else():
                m.d.sync += bus.cti.eq(CycleType.CLASSIC)
        return m


class BusArbiter(Component):
    """Several memory ports on one pipelined Wishbone initiator.

    Round robin by bursts; the first port is asked not to begin one too often (`rested`). A request
    takes two cycles to the bus, an answer one cycle from it; one request a cycle. ``cti`` is 2 when
    the very next request on the bus is for the next word of the same burst, 7 at the end of such a
    sequence (of MAX_BURST_WORDS words at most), 0 for a single access.

    Parameters
    ----------
    config : NpuConfig
    ports : int
        Number of memory ports.
    readers : int
        How many of them, the first ones, ask for nothing but to read whole words. Nothing else of
        their requests is looked at.

    Members
    -------
    ports : In(MemPort).array(ports)
    bus : Out(Wishbone)
    timeout : In(32)
        Cycles that one answer may take; 0: no limit.
    fault : Out(FaultPort)
        BUS_ERROR or BUS_TIMEOUT with the byte address of the oldest request in flight.
    fault_port : Out(range(ports))
        Port that the fault belongs to.
    read, write, wait : Out(1)
        Counter pulses: a word read, a word written, a cycle of waiting.
    rested : Out(2)
        The first port, which fetches commands, may begin a burst that is wanted soon; another one.
    idle : Out(1)
        Nothing asked and nothing in flight.

    Attributes
    ----------
    turn : Signal(ports)
        Bit of the port whose request goes to the bus now: its order is that of the answers.
    chosen : Signal(request_layout)
        That request.
    """

    SPARE = True
    """The buffer of owners has two entries."""
    PORT_SPARE = True
    """So have those of the ports."""
    OWNERS = 2
    """Length of the queue of owners, in words that may be in flight."""

    def __init__(self, config: NpuConfig, *, ports: int, readers: int = 0) -> None:
        if ports < 1:
            raise ValueError(f"ports must be positive, not {ports!r}")
        if not 0 <= readers <= ports:
            raise ValueError(f"readers must be from 0 to {ports}, not {readers!r}")
        self._config = config
        self._ports = ports
        self._readers = readers
        self.turn = Signal(ports)
        self.chosen = Signal(request_layout(config))
        super().__init__(
            {
                "ports": In(MemPort(config)).array(ports),
                "bus": Out(initiator_signature(config)),
                "timeout": In(32),
                "fault": Out(FaultPort()),
                "fault_port": Out(range(ports)),
                "read": Out(1),
                "write": Out(1),
                "wait": Out(1),
                "rested": Out(2),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        layout = request_layout(config)
        owner_layout = data.StructLayout(
            {"port": range(self._ports), "we": 1, "adr": word_addr_bits(config)}
        )
        m.submodules.grant = grant = _Grant(self._ports)
        m.submodules.owners = owners = StreamQueue(
            owner_layout, depth=config.max_outstanding * self.OWNERS, spare=self.SPARE
        )
        m.submodules.issue = issue = _Issue(config, layout)
        m.submodules.rest = rest = _Rest()

        owned = self._room(owners)
        chosen = self.chosen
        follows = Signal(self._ports)
        any_valid = Signal()
        m.d.comb += [
            self.turn.eq(Mux(grant.take, grant.port, 0)),
            rest.others.eq(grant.valid[1:].any()),
            rest.taken.eq(grant.take),
            rest.first.eq(self.turn[0]),
            self.rested.eq(rest.over),
            any_valid.eq(grant.valid.any()),
            issue.request.valid.eq(any_valid & owned),
            grant.take.eq(any_valid & issue.request.ready & owned),
            issue.request.payload.eq(chosen),
            grant.last.eq(chosen.last),
            issue.follower_continues.eq(grant.keeps & (grant.port & follows).any()),
            owners.i.valid.eq(grant.take),
            owners.i.payload.we.eq(chosen.we),
            owners.i.payload.adr.eq(chosen.adr),
            owners.i.payload.port.eq(grant.index),
        ]
        payloads: list[Value] = []
        for index in range(self._ports):
            request = self.ports[index].request
            # Ports are far from one another; whose turn it is depends on nothing that is.
            # Of who only reads the rest need not wait: synthesis does not see that it is constant.
            kept = ("adr", "last") if index < self._readers else tuple(layout.members)
            shape = data.StructLayout({name: layout[name].shape for name in kept})
            m.submodules[f"request_{index}"] = held = StreamBuffer(shape, spare=self.PORT_SPARE)
            asked = Signal(layout, name=f"asked_{index}")
            m.d.comb += [
                held.i.valid.eq(request.valid),
                asked.sel.eq(~0),
                *(held.i.payload[name].eq(request.payload[name]) for name in kept),
                *(asked[name].eq(held.o.payload[name]) for name in kept),
                request.ready.eq(held.i.ready),
                grant.valid[index].eq(held.o.valid),
                follows[index].eq(held.follower.valid),
                held.o.ready.eq(grant.port[index] & issue.request.ready & owned),
            ]
            payloads.append(Mux(grant.port[index], asked.as_value(), 0))
        m.d.comb += [
            chosen.as_value().eq(reduce(or_, payloads)),
            owners.o.ready.eq(issue.ack | issue.err),
            self.idle.eq(
                ~issue.busy
                & ~any_valid
                & rest.over.all()
                & ~Cat(port.request.valid for port in self.ports).any()
            ),
        ]
        self._connect_bus(m, issue)
        oldest = owners.o.payload
        for index in range(self._ports):
            m.d.comb += [
                self.ports[index].ack.eq(issue.ack & (oldest.port == index)),
                self.ports[index].dat_r.eq(issue.dat_r),
            ]
        m.d.comb += [
            self.read.eq(issue.ack & ~oldest.we),
            self.write.eq(issue.ack & oldest.we),
            self.wait.eq(issue.wait),
        ]
        self._watch(m, issue, oldest.adr, oldest.port)
        return m

    def _room(self, owners: StreamQueue) -> Value:
        """Return whether one more owner has room: it has also room for what waits for the bus."""
        return Const(1)

    def _connect_bus(self, m: Module, issue: _Issue) -> None:
        for name in ("adr", "dat_w", "sel", "cyc", "stb", "we", "cti", "bte"):
            m.d.comb += getattr(self.bus, name).eq(getattr(issue.bus, name))
        for name in ("dat_r", "ack", "err", "stall"):
            m.d.comb += getattr(issue.bus, name).eq(getattr(self.bus, name))

    def _watch(self, m: Module, issue: _Issue, adr: Value, port: Value) -> None:
        """Report errors and answers that do not come."""
        waited = Signal(32)
        expired = Signal()
        m.d.sync += expired.eq((waited == self.timeout) & (self.timeout != 0) & issue.busy)
        with m.If(issue.ack | issue.err | ~issue.busy):
            m.d.sync += waited.eq(0)
        with m.Else():
            m.d.sync += waited.eq(waited + 1)
        m.d.comb += [
            self.fault.valid.eq(issue.err | (expired & ~issue.ack)),
            self.fault.cause.eq(Mux(issue.err, ErrorCause.BUS_ERROR, ErrorCause.BUS_TIMEOUT)),
            self.fault.address.eq(adr << (32 - len(adr))),
            self.fault_port.eq(port),
        ]


class SmallBusArbiter(BusArbiter):
    """The same with no more owners than words in flight, and a buffer of one entry for them.

    Ports still do not wait for the bus within a cycle: the memory's clock has a way of its own to
    stall it, and from there it is far to the engines.
    """

    SPARE = False
    OWNERS = 1

    def _room(self, owners: StreamQueue) -> Value:
        room: Value = owners.i.ready
        return room


class PlainBusArbiter(SmallBusArbiter):
    """The same with buffers of one entry for the ports, too."""

    PORT_SPARE = False
