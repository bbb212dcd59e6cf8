"""A simulated design behind a pseudo-terminal, so that unmodified programs can talk to it."""

from __future__ import annotations

from celosia.sim.board.line_faults import FaultRates, LineFaults
from celosia.sim.board.served_line import ServedLine
from celosia.sim.board.uart_rtl import UartRtl

__all__ = ["ServedRtl"]

CHUNK_CYCLES = 4000
"""Run between two looks at the terminal: a millisecond or so."""
IDLE_CYCLES = 20_000_000
"""Without a character for so long, the clock stands still until the next one comes."""
POLL_S = 0.02


class ServedRtl(ServedLine):
    """Runs a design whose line is a terminal, in a thread; a context manager.

    Parameters
    ----------
    rtl : UartRtl
        Belongs to the thread until :meth:`close`; its rate follows that of the terminal.
    faults : FaultRates, optional
        Of the line, in both directions. A stall keeps characters back until others come.
    seed : int
        Of the faults.
    idle_cycles : int
        Without a character for so long, the clock stands still.

    Attributes
    ----------
    problem : BaseException, optional
        What has ended the simulation.
    """

    def __init__(
        self,
        rtl: UartRtl,
        *,
        faults: FaultRates | None = None,
        seed: int = 0,
        idle_cycles: int = IDLE_CYCLES,
    ) -> None:
        super().__init__()
        self.problem: BaseException | None = None
        self._rtl = rtl
        rates = faults or FaultRates()
        self._outward = LineFaults(rates, seed=2 * seed)
        self._inward = LineFaults(rates, seed=2 * seed + 1)
        self._idle_cycles = idle_cycles
        self._quiet_cycles = 0
        self._baud = self.line.baud
        self._start()

    def _serve(self) -> None:
        try:
            super()._serve()
        except BaseException as problem:
            self.problem = problem

    def _step(self) -> None:
        asleep = self._quiet_cycles > self._idle_cycles
        data = self.line.read(POLL_S if asleep else 0.0)
        if data:
            self._quiet_cycles = 0
            baud = self.line.baud
            if baud and baud != self._baud:
                self._baud = baud
                self._rtl.set_baud(baud)
            self._rtl.write(b"".join(self._inward.pass_on(data)))
        elif asleep:
            return
        self._rtl.run(CHUNK_CYCLES)
        self._quiet_cycles += CHUNK_CYCLES
        answer = self._rtl.take()
        if answer:
            self._quiet_cycles = 0
            self.line.write(b"".join(self._outward.pass_on(answer)))
