"""When an SDRAM is started and refreshed."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from celosia.hw.system.sdram_pins import SdramCommand
from celosia.hw.system.sdram_timing import SdramCycles

__all__ = ["SdramSequencer", "refresh_interval"]

OVERHEAD_CYCLES = 4
"""From the end of the refresh timer to PRECHARGE, if all banks may be precharged."""

EARLY_PART = 4
"""In the last part of this many of a refresh interval an idle bus is used to refresh."""


def refresh_interval(cycles: SdramCycles, *, drain_cycles: int) -> int:
    """Return how many cycles after a refresh the next one has precedence.

    Raises
    ------
    ValueError
        If the clock is too slow for the chip's refresh interval.
    """
    interval = cycles.refresh - cycles.rp - drain_cycles - OVERHEAD_CYCLES
    if interval < 2 * EARLY_PART:
        raise ValueError(f"a refresh each {cycles.refresh!r} cycles leaves no time to work")
    return interval


class SdramSequencer(Component):
    """Commands that belong to no request: power-up sequence and refresh.

    Power-up: a pause, all banks precharged, refreshes, mode register (JEDEC 21-C, 3.11.5.4).
    Refresh: one row within each interval; in its last quarter as soon as the bus is idle, at the
    latest so that the slowest end of what is under way still leaves the interval kept.

    Parameters
    ----------
    cycles : SdramCycles
    power_up_refreshes : int
    drain_cycles : int
        Most cycles from a READ, WRITE or ACTIVATE until all banks may be precharged.

    Raises
    ------
    ValueError
        As :func:`refresh_interval`.

    Members
    -------
    idle : In(1)
        Nobody uses the bus.
    quiet : In(1)
        All banks may be precharged.
    running : Out(1)
        Commands of requests may be given.
    initialised : Out(1)
        The power-up sequence is over.
    valid : Out(1)
        A command is given in this cycle.
    command : Out(SdramCommand)
        PRECHARGE (of all banks), REFRESH or MODE.
    """

    def __init__(self, cycles: SdramCycles, *, power_up_refreshes: int, drain_cycles: int) -> None:
        self._cycles = cycles
        self._power_up_refreshes = power_up_refreshes
        self._interval = refresh_interval(cycles, drain_cycles=drain_cycles)
        super().__init__(
            {
                "idle": In(1),
                "quiet": In(1),
                "running": Out(1),
                "initialised": Out(1),
                "valid": Out(1),
                "command": Out(SdramCommand),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cycles = self._cycles
        timer = Signal(range(max(cycles.power_up, self._interval) + 1), init=cycles.power_up)
        due = Signal()
        early_bits = (self._interval // EARLY_PART).bit_length() - 1
        refreshes = Signal(range(self._power_up_refreshes), init=self._power_up_refreshes - 1)
        pause = Signal(range(max(cycles.rp, cycles.rfc, cycles.mrd, 2)))

        m.d.sync += due.eq((timer == 0) | ((timer[early_bits:] == 0) & self.idle))
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)

        with m.FSM():
            with m.State("POWER_UP"):
                with m.If(timer == 0):
                    m.next = "PRECHARGE"
            with m.State("RUN"):
                m.d.comb += self.running.eq(1)
                with m.If(due):
                    m.next = "PRECHARGE"
            with m.State("PRECHARGE"):
                m.d.comb += self.command.eq(SdramCommand.PRECHARGE)
                with m.If(self.quiet):
                    self._give(m, pause, cycles.rp)
                    m.next = "REFRESH"
            with m.State("REFRESH"):
                m.d.comb += self.command.eq(SdramCommand.REFRESH)
                with m.If(pause == 0):
                    self._give(m, pause, cycles.rfc)
                    m.d.sync += timer.eq(self._interval)
                    with m.If(self.initialised):
                        m.next = "RECOVER"
                    with m.Elif(refreshes == 0):
                        m.next = "MODE"
                    with m.Else():
                        m.d.sync += refreshes.eq(refreshes - 1)
            with m.State("MODE"):
                m.d.comb += self.command.eq(SdramCommand.MODE)
                with m.If(pause == 0):
                    self._give(m, pause, cycles.mrd)
                    m.next = "RECOVER"
            with m.State("RECOVER"):
                with m.If(pause[1:] == 0):  # one cycle ahead: that of the next state
                    m.d.sync += self.initialised.eq(1)
                    m.next = "RUN"
        return m

    def _give(self, m: Module, pause: Value, cycles: int) -> None:
        """Give the command; the next one of this component may come `cycles` cycles later."""
        m.d.comb += self.valid.eq(1)
        m.d.sync += pause.eq(max(cycles - 1, 0))
