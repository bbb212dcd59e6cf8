"""System memory with a clock of its own: what crosses from the machine's clock to it and back."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data
from amaranth.lib.fifo import AsyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import initiator_signature, word_addr_bits
from celosia.hw.bus.wishbone import BurstType
from celosia.hw.contract.config import NpuConfig
from celosia.hw.system.answer_queue import AnswerQueue

__all__ = ["MEMORY_DOMAIN", "ClockCrossing"]

MEMORY_DOMAIN = "memory"
"""Clock domain of the memory."""
REQUESTS = 4
"""Requests in their queue at most: a memory that takes one in several cycles has always the next.
With twice as many, enough for one in each cycle, the pointers would be the longest path."""


class ClockCrossing(Component):
    """Carries a pipelined Wishbone bus from domain ``sync`` to domain ``memory``.

    The clocks may have any frequencies and phases. Requests and answers keep their order, each
    kind in a queue whose pointers cross as Gray codes. The memory's clock is the faster one: there
    are registers between the queues and the memory. ::

        bus (sync)  --> [requests] --> [register] --> mem (memory)
                    <-- [answers] <-- [register] <--

    ``cyc`` of `bus` must be high as long as something is unanswered, as that of
    :class:`celosia.hw.system.share.MemoryShare` is; `max_outstanding` requests may be, so that
    there is always room for answers.

    Parameters
    ----------
    config : NpuConfig
        Its bus.

    Members
    -------
    bus : In(Wishbone)
        In domain ``sync``.
    mem : Out(Wishbone)
        In domain ``memory``; ``cyc`` is high as long as something is unanswered.
    """

    def __init__(self, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {"bus": In(initiator_signature(config)), "mem": Out(initiator_signature(config))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, bus, mem = self._config, self.bus, self.mem
        request = data.StructLayout(
            {
                "adr": word_addr_bits(config),
                "we": 1,
                "sel": config.bus_bytes,
                "dat_w": config.bus_bits,
            }
        )
        answer = data.StructLayout({"dat_r": config.bus_bits, "err": 1})
        m.submodules.requests = requests = AsyncFIFOBuffered(
            width=request.size, depth=REQUESTS + 1, w_domain="sync", r_domain=MEMORY_DOMAIN
        )
        m.submodules.answers = answers = AnswerQueue(
            width_bits=answer.size,
            depth=config.max_outstanding,
            w_domain=MEMORY_DOMAIN,
            r_domain="sync",
        )
        asked, wanted = data.View(request, requests.w_data), data.View(request, requests.r_data)
        given, got = data.View(answer, answers.w_data), data.View(answer, answers.r_data)
        in_flight = Signal(range(config.max_outstanding + 1))
        issued, answered = Signal(), Signal()
        # In its reset the memory would take a request and forget it.
        running = Signal()
        m.d[MEMORY_DOMAIN] += running.eq(1)
        m.d.comb += [
            requests.w_en.eq(bus.cyc & bus.stb),
            bus.stall.eq(~requests.w_rdy),
            *(asked[name].eq(getattr(bus, name)) for name in ("adr", "we", "sel", "dat_w")),
            mem.stb.eq(requests.r_rdy & running),
            requests.r_en.eq(mem.stb & ~mem.stall),
            *(getattr(mem, name).eq(wanted[name]) for name in ("adr", "we", "sel", "dat_w")),
            mem.cyc.eq(mem.stb | (in_flight != 0)),
            mem.bte.eq(BurstType.LINEAR),
            issued.eq(mem.stb & ~mem.stall),
            # Nothing is answered that was not asked for, so `cyc` need not be looked at.
            answered.eq(mem.ack | mem.err),
            bus.dat_r.eq(got.dat_r),
            bus.ack.eq(answers.r_rdy & ~got.err),
            bus.err.eq(answers.r_rdy & got.err),
        ]
        m.d[MEMORY_DOMAIN] += [
            in_flight.eq(in_flight + issued - answered),
            answers.w_en.eq(answered),
            given.dat_r.eq(mem.dat_r),
            given.err.eq(mem.err),
        ]
        return m
