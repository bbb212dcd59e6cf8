"""Controller of an SDRAM chip: system memory on a pipelined Wishbone bus."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.system.sdram_pins import (
    ADDRESS_BITS,
    ALL_BANKS,
    DATA_BITS,
    SdramCommand,
    SdramPins,
    mode_register,
)
from celosia.hw.system.sdram_scheduler import SdramScheduler, drain_cycles
from celosia.hw.system.sdram_sequencer import SdramSequencer, refresh_interval
from celosia.hw.system.sdram_timing import SdramChip, SdramCycles

__all__ = ["SdramController"]

MOST_CAPTURE_CYCLES = 4
"""Cycles from READ to data that are possible on top of the CAS latency."""


class SdramController(Component):
    """System memory in an SDRAM chip with a bus of 16 bits.

    A word of the bus is one burst of the chip, so READ or WRITE takes one cycle of several, and
    the row of the next request is opened in the others. Rows stay open until another row of the
    bank is wanted or a refresh is due. From its lowest bits an address is column, bank, row: what
    follows a row is in the next bank.

    ::

        bus --> request --> which command, when? --> [command] -----> [pins] --> chip
                   |                            +--> [data, mask] --> [pins] -->
                   |                            +--> [answers]
        bus <-- word <-- [columns] <-- [capture] <------------------------------ chip

    Requests are answered in order, all after the same number of cycles from the time they are
    read, written or refused. With ``stb`` always high, a word of an open row takes `bus_bits` / 16
    cycles. Words beyond the memory are answered with ``err``. ``cyc`` low forgets what is not
    answered; of a write that is forgotten all or nothing is done. In a cycle in which ``cyc`` is
    low, ``ack`` and ``err`` mean nothing. ``cti`` and ``bte`` are not looked at.

    Parameters
    ----------
    config : NpuConfig
        Its bus.
    chip : SdramChip
    clock_hz : float
        Clock of the domain ``sync``, which is the chip's as well.
    cas_latency : int, optional
        2 or 3; by default the shortest that the chip can at this clock.
    capture_cycles : int, optional
        Cycles from a READ on the pins to its first data in the capture register; by default the
        CAS latency + 1. See :meth:`SdramChip.capture_margins_ns`.
    board_registers : bool
        The board's buffers have registers (``amaranth.lib.io.FFBuffer``), in both directions.
        Then there are none at the pins in here, and nothing else changes.
    cycles : SdramCycles, optional
        Timing other than the chip's.

    Raises
    ------
    ValueError
        If the chip does not run at this clock, or the timing is outside of what is provided for.

    Members
    -------
    bus : In(Wishbone)
    pins : Out(SdramPins)
    initialised : Out(1)
        The chip is ready; requests wait until it is.
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        chip: SdramChip,
        clock_hz: float,
        cas_latency: int | None = None,
        capture_cycles: int | None = None,
        board_registers: bool = False,
        cycles: SdramCycles | None = None,
    ) -> None:
        shortest = chip.cas_latency(clock_hz)
        self._cas_latency = shortest if cas_latency is None else cas_latency
        if not shortest <= self._cas_latency <= 3:
            raise ValueError(
                f"cas_latency must be {shortest} to 3 with {chip.name} at {clock_hz / 1e6:g} MHz,"
                f" not {cas_latency!r}"
            )
        least, most = self._cas_latency, self._cas_latency + MOST_CAPTURE_CYCLES
        self._capture_cycles = least + 1 if capture_cycles is None else capture_cycles
        if not least <= self._capture_cycles <= most:
            raise ValueError(
                f"capture_cycles must be {least} to {most} with CAS latency {self._cas_latency},"
                f" not {capture_cycles!r}"
            )
        self._chip = chip
        self._burst_columns = config.bus_bits // DATA_BITS
        self._board_registers = board_registers
        self._cycles = chip.cycles(clock_hz) if cycles is None else cycles
        self._drain_cycles = drain_cycles(self._cycles, burst_columns=self._burst_columns)
        refresh_interval(self._cycles, drain_cycles=self._drain_cycles)
        super().__init__(
            {
                "bus": In(initiator_signature(config)),
                "pins": Out(SdramPins(chip)),
                "initialised": Out(1),
            }
        )

    @property
    def memory_bytes(self) -> int:
        """Size of the memory in bytes."""
        return self._chip.memory_bytes

    @property
    def cas_latency(self) -> int:
        """CAS latency in cycles."""
        return self._cas_latency

    @property
    def latency_cycles(self) -> int:
        """Cycles from a request for an open row to its answer."""
        # The request's register, the command's, the pins', the chip, the rest of the burst.
        return 3 + self._capture_cycles + self._burst_columns - 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.scheduler = scheduler = SdramScheduler(
            self._chip,
            self._cycles,
            cas_latency=self._cas_latency,
            burst_columns=self._burst_columns,
        )
        m.submodules.sequencer = sequencer = SdramSequencer(
            self._cycles,
            power_up_refreshes=self._chip.timing.power_up_refreshes,
            drain_cycles=self._drain_cycles,
        )
        bus, request = self.bus, scheduler.request
        place_bits = len(request.payload.place.as_value())
        m.d.comb += [
            request.valid.eq(bus.cyc & bus.stb),
            request.payload.place.eq(bus.adr[:place_bits]),
            request.payload.beyond.eq(bus.adr[place_bits:].any()),
            request.payload.we.eq(bus.we),
            bus.stall.eq(~request.ready),
            scheduler.drop.eq(~bus.cyc),
            scheduler.running.eq(sequencer.running),
            scheduler.close_all.eq(sequencer.valid & (sequencer.command == SdramCommand.PRECHARGE)),
            sequencer.quiet.eq(scheduler.quiet),
            sequencer.idle.eq(~bus.cyc),
            self.initialised.eq(sequencer.initialised),
        ]
        self._elaborate_command(m, sequencer, scheduler)
        self._elaborate_write(m, sequencer.initialised, scheduler.write)
        self._elaborate_read(m, scheduler.read | scheduler.write, scheduler.refuse)
        return m

    def _drive(self, m: Module, pin: Value, value: Value) -> None:
        """Drive a pin from a register: from `value`, which is one, or from another one after it."""
        if self._board_registers:
            m.d.comb += pin.eq(value)
        else:
            m.d.sync += pin.eq(value)

    def _elaborate_command(
        self, m: Module, sequencer: SdramSequencer, scheduler: SdramScheduler
    ) -> None:
        mode = mode_register(burst_columns=self._burst_columns, cas_latency=self._cas_latency)
        awake = Signal()
        none = Signal(init=1)
        command = Signal(SdramCommand, init=SdramCommand.NOP)
        bank = Signal.like(scheduler.bank)
        address = Signal(ADDRESS_BITS)
        m.d.sync += [awake.eq(1), none.eq(~(sequencer.valid | scheduler.valid))]
        with m.If(sequencer.running):
            m.d.sync += [
                command.eq(scheduler.command),
                bank.eq(scheduler.bank),
                address.eq(scheduler.address),
            ]
        with m.Else():
            m.d.sync += [
                command.eq(sequencer.command),
                bank.eq(0),
                address.eq(Mux(sequencer.command == SdramCommand.MODE, mode, ALL_BANKS)),
            ]
        for pin, value in (
            (self.pins.cke, awake),
            (self.pins.cs_n, none),
            (Cat(self.pins.we_n, self.pins.cas_n, self.pins.ras_n), command.as_value()),
            (self.pins.ba, bank),
            (self.pins.a, address),
        ):
            self._drive(m, pin, value)

    def _elaborate_write(self, m: Module, initialised: Value, write: Value) -> None:
        """Put the columns of a word on the bus, one after the other, from the command on."""
        bus, burst = self.bus, self._burst_columns
        mask_bits = DATA_BITS // 8
        word, mask = Signal(len(bus.dat_w)), Signal(len(bus.sel))
        with m.If(bus.stb & ~bus.stall):
            m.d.sync += [word.eq(bus.dat_w), mask.eq(~bus.sel)]
        # A copy, so that the next request can come while this one's data move. Until it is
        # initialised a chip may drive its data pins unless they are masked.
        columns, driving = Signal.like(word), Signal(burst)
        masks = Signal.like(mask, init=-1)
        m.d.sync += [
            columns.eq(columns >> DATA_BITS),
            masks.eq(Cat(masks, (~initialised).replicate(mask_bits))[mask_bits:]),
            driving.eq(driving >> 1),
        ]
        with m.If(write):
            m.d.sync += [columns.eq(word), masks.eq(mask), driving.eq(-1)]
        self._drive(m, self.pins.dq_o, columns[:DATA_BITS])
        self._drive(m, self.pins.dq_oe, driving[0])
        self._drive(m, self.pins.dqm, masks[:mask_bits])

    def _elaborate_read(self, m: Module, done: Value, refuse: Value) -> None:
        """Collect the columns of a word, and answer when the last one must have come."""
        bus, burst = self.bus, self._burst_columns
        captured = Signal(DATA_BITS)
        columns = Signal(DATA_BITS * (burst - 1))
        if self._board_registers:
            m.d.comb += captured.eq(self.pins.dq_i)
        else:
            m.d.sync += captured.eq(self.pins.dq_i)
        m.d.sync += columns.eq(Cat(columns, captured)[DATA_BITS:])

        answered = Signal(self.latency_cycles - 1)
        refused = Signal.like(answered)
        m.d.sync += [answered.eq(Cat(done, answered)), refused.eq(Cat(refuse, refused))]
        with m.If(~bus.cyc):
            m.d.sync += [answered.eq(0), refused.eq(0)]
        m.d.comb += [
            bus.dat_r.eq(Cat(columns, captured)),
            bus.ack.eq(answered[-1]),
            bus.err.eq(refused[-1]),
        ]
