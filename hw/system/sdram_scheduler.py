"""Which command a request needs next, and when an SDRAM may get it."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.system.sdram_pins import ADDRESS_BITS, SdramCommand
from celosia.hw.system.sdram_timing import SdramChip, SdramCycles

__all__ = ["SdramScheduler", "drain_cycles", "place_layout", "request_layout"]

HEAD_CYCLES = 2
"""Least cycles from the last command of a request to the first one of the next request."""


def place_layout(chip: SdramChip, burst_columns: int) -> data.StructLayout:
    """Return the layout of a word address in a chip: what follows a row is in the next bank."""
    return data.StructLayout(
        {
            "block": (chip.columns // burst_columns - 1).bit_length(),
            "bank": (chip.banks - 1).bit_length(),
            "row": (chip.rows - 1).bit_length(),
        }
    )


def request_layout(chip: SdramChip, burst_columns: int) -> data.StructLayout:
    """Return the layout of a request: where, whether to write, whether it is beyond the chip."""
    return data.StructLayout({"place": place_layout(chip, burst_columns), "we": 1, "beyond": 1})


def drain_cycles(cycles: SdramCycles, *, burst_columns: int) -> int:
    """Return the most cycles from a command until all banks may be precharged.

    Raises
    ------
    ValueError
        If tRRD or tWR is longer than what is provided for.
    """
    if cycles.rrd > HEAD_CYCLES or cycles.wr > HEAD_CYCLES + 1:
        # Nothing counts these: what they forbid is never as close as that.
        raise ValueError(
            f"tRRD may be {HEAD_CYCLES} cycles and tWR {HEAD_CYCLES + 1},"
            f" not {cycles.rrd!r} and {cycles.wr!r}"
        )
    return max(cycles.ras, burst_columns - 1 + cycles.wr)


def _lasting(m: Module, name: str, *events: tuple[Value, int]) -> Value:
    """Return a register that is high in as many cycles after an event as the event asks for."""
    longest = max(cycles for _, cycles in events)
    if longest <= 0:
        return Const(0)
    left = Signal(longest, name=name)
    after: Value = left >> 1
    for event, cycles in events:
        after = after | Mux(event, (1 << max(cycles, 0)) - 1, 0)
    m.d.sync += left.eq(after)
    return left[0]


class SdramScheduler(Component):
    """One request at a time: opens its row, then reads or writes one burst.

    A request is taken in the cycle after the READ or WRITE of the one before; while that one's
    data move, the row of this one is closed and opened if need be. All waiting times are kept
    by registers that are high while a command must not be given.

    Parameters
    ----------
    chip : SdramChip
    cycles : SdramCycles
    cas_latency : int
    burst_columns : int
        Columns of a burst: 2, 4 or 8.

    Raises
    ------
    ValueError
        As :func:`drain_cycles`.

    Members
    -------
    request : In(stream of request_layout)
    drop : In(1)
        Forget the request that waits.
    running : In(1)
        Commands may be given.
    close_all : In(1)
        Somebody else precharges all banks in this cycle.
    quiet : Out(1)
        All banks may be precharged.
    valid : Out(1), command : Out(SdramCommand)
        A command is given in this cycle; which one (also a cycle in which there is none).
    bank : Out, address : Out(13)
        Its bank, its row or column.
    read, write, refuse : Out(1)
        In this cycle the request becomes a READ, becomes a WRITE, is beyond the chip.
    """

    def __init__(
        self, chip: SdramChip, cycles: SdramCycles, *, cas_latency: int, burst_columns: int
    ) -> None:
        drain_cycles(cycles, burst_columns=burst_columns)
        self._chip = chip
        self._cycles = cycles
        self._cas_latency = cas_latency
        self._burst_columns = burst_columns
        super().__init__(
            {
                "request": In(stream.Signature(request_layout(chip, burst_columns))),
                "drop": In(1),
                "running": In(1),
                "close_all": In(1),
                "quiet": Out(1),
                "valid": Out(1),
                "command": Out(SdramCommand),
                "bank": Out((chip.banks - 1).bit_length()),
                "address": Out(ADDRESS_BITS),
                "read": Out(1),
                "write": Out(1),
                "refuse": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = Signal(self.request.payload.shape())
        place = held.place
        # What the request in the register waits for: that another row is closed, that its own is
        # opened, nothing but the data bus; or it is refused. Without a request none of them.
        waiting = Signal()
        conflict, closed, hit = Signal(), Signal(), Signal()
        activate, precharge, access = Signal(), Signal(), Signal()
        last_bank, same_bank = Signal.like(self.bank), Signal()

        m.d.comb += [
            self.read.eq(access & ~held.we),
            self.write.eq(access & held.we),
            self.valid.eq(activate | precharge | access),
            self.bank.eq(place.bank),
            self.address.eq(Mux(closed, place.row, place.block * self._burst_columns)),
            self.request.ready.eq(~waiting),
        ]
        with m.If(closed):
            m.d.comb += self.command.eq(SdramCommand.ACTIVATE)
        with m.Elif(conflict):
            m.d.comb += self.command.eq(SdramCommand.PRECHARGE)
        with m.Elif(held.we):
            m.d.comb += self.command.eq(SdramCommand.WRITE)
        with m.Else():
            m.d.comb += self.command.eq(SdramCommand.READ)

        # The times of a bank are kept for all banks together, except that a bank without a burst
        # may be precharged during one: the last command before a request's own is nearly always
        # of its own bank.
        cycles, burst = self._cycles, self._burst_columns
        opening = _lasting(m, "opening", (activate, cycles.rcd - 1))
        staying = _lasting(m, "staying", (activate, cycles.ras - 1))
        closing = _lasting(m, "closing", (precharge, cycles.rp - 1))
        moving = _lasting(m, "moving", (access, burst - 1))
        # Between the data of a READ and of a WRITE there is a cycle for the bus to change hands.
        turning = _lasting(m, "turning", (self.read, self._cas_latency + burst))
        busy = _lasting(m, "busy", (self.read, burst - 1), (self.write, burst - 2 + cycles.wr))
        m.d.comb += [
            activate.eq(self.running & closed & ~closing),
            precharge.eq(self.running & conflict & ~staying & ~(busy & same_bank)),
            access.eq(self.running & hit & ~opening & ~moving & ~(held.we & turning)),
            self.quiet.eq(~staying & ~busy),
        ]

        asked = self.request.payload
        is_open, is_same = self._elaborate_rows(m, asked.place, place, activate, precharge)
        usable = is_open & ~self.close_all
        with m.If(access):
            m.d.sync += last_bank.eq(place.bank)
        with m.If(access | self.refuse):
            m.d.sync += [waiting.eq(0), hit.eq(0), self.refuse.eq(0)]
        with m.If(precharge):
            m.d.sync += [conflict.eq(0), closed.eq(1)]
        with m.If(activate):
            m.d.sync += [closed.eq(0), hit.eq(1)]
        with m.If(self.close_all):
            m.d.sync += [closed.eq(closed | conflict | hit), conflict.eq(0), hit.eq(0)]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += [
                waiting.eq(1),
                held.eq(asked),
                same_bank.eq(asked.place.bank == last_bank),
                self.refuse.eq(asked.beyond),
                closed.eq(~asked.beyond & ~usable),
                conflict.eq(~asked.beyond & usable & ~is_same),
                hit.eq(~asked.beyond & usable & is_same),
            ]
        with m.If(self.drop):
            m.d.sync += [
                *(waiting.eq(0), self.refuse.eq(0)),
                *(closed.eq(0), conflict.eq(0), hit.eq(0)),
            ]
        return m

    def _elaborate_rows(
        self, m: Module, asked: Any, place: Any, activate: Value, precharge: Value
    ) -> tuple[Value, Value]:
        """Keep the open rows; return whether the bank asked for is open, and at the row asked for.

        A row is only opened while a request waits, so none is asked for in that cycle.
        """
        m.submodules.rows = rows = Memory(shape=len(place.row), depth=self._chip.banks, init=[])
        m.d.comb += [
            (write := rows.write_port()).addr.eq(place.bank),
            write.data.eq(place.row),
            write.en.eq(activate),
            (read := rows.read_port(domain="comb")).addr.eq(asked.bank),
        ]
        is_open = Signal(self._chip.banks)
        with m.If(activate):
            m.d.sync += is_open.bit_select(place.bank, 1).eq(1)
        with m.If(precharge):
            m.d.sync += is_open.bit_select(place.bank, 1).eq(0)
        with m.If(self.close_all):
            m.d.sync += is_open.eq(0)
        return is_open.bit_select(asked.bank, 1), read.data == asked.row
