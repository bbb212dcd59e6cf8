"""A model of an SDRAM chip that checks its controller.

It holds every command against the chip's data sheet, in nanoseconds, and shares nothing with the
controller but the figures of the data sheet: it counts no cycles of its own making.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from celosia.hw.system.sdram_timing import Delay, SdramChip

__all__ = ["PinLevels", "SdramModel", "SdramRuleError"]

# RAS#, CAS#, WE#: JEDEC 21-C, table 3.11.5-1.
COMMANDS = {
    (0, 0, 0): "MODE",
    (0, 0, 1): "REFRESH",
    (0, 1, 0): "PRECHARGE",
    (0, 1, 1): "ACTIVATE",
    (1, 0, 0): "WRITE",
    (1, 0, 1): "READ",
    (1, 1, 0): "BURST STOP",
    (1, 1, 1): "NOP",
}
TOLERANCE_NS = 1e-6


class SdramRuleError(AssertionError):
    """A rule of the chip's data sheet was broken.

    Attributes
    ----------
    rule : str
        Its name, such as ``tRCD``.
    """

    def __init__(self, rule: str, cycle: int, detail: str) -> None:
        super().__init__(f"{rule} broken in cycle {cycle}: {detail}")
        self.rule = rule


@dataclass(frozen=True)
class PinLevels:
    """What a rising edge of the clock sees on the chip's pins (:class:`SdramPins`)."""

    cke: int = 1
    cs_n: int = 1
    ras_n: int = 1
    cas_n: int = 1
    we_n: int = 1
    ba: int = 0
    a: int = 0
    dq_o: int = 0
    dq_oe: int = 0
    dqm: int = 0


@dataclass
class _Bank:
    row: int | None = None
    activated: int | None = None
    precharged: int | None = None
    written: int | None = None


@dataclass
class _Burst:
    write: bool
    bank: int
    row: int
    columns: deque[int] = field(default_factory=deque)


class SdramModel:
    """A chip, edge by edge.

    Parameters
    ----------
    chip : SdramChip
    clock_hz : float
    wire_cycles : int
        Cycles that data read take longer than on a board without delays.
    power_up : bool
        Whether the power-up sequence is to be seen; else the chip is ready, with `mode`.
    mode : int
        Mode register, without power-up sequence.
    seed : int
        For what is on the data pins when nobody drives them.

    Attributes
    ----------
    words : dict of (int, int, int) to int
        The 16-bit words that were written, by bank, row and column; others are random.
    counts : dict of str to int
        Commands so far, by name.
    """

    def __init__(
        self,
        chip: SdramChip,
        clock_hz: float,
        *,
        wire_cycles: int = 0,
        power_up: bool = True,
        mode: int = 0x22,
        seed: int = 0,
    ) -> None:
        self.chip = chip
        self.words: dict[tuple[int, int, int], int] = {}
        self.counts = dict.fromkeys(COMMANDS.values(), 0)
        self._period_ns = 1e9 / clock_hz
        self._rng = random.Random(seed)
        self._banks = [_Bank() for _ in range(chip.banks)]
        self._cycle = -1
        self._awake_since: int | None = None
        self._mode: int | None = None if power_up else mode
        self._mode_cycle: int | None = None
        self._refreshes = 0 if power_up else chip.timing.power_up_refreshes
        self._refreshed: int | None = None if power_up else -chip.timing.t_rfc.cycles(clock_hz)
        self._all_precharged = not power_up
        self._activated: int | None = None
        self._burst: _Burst | None = None
        self._output: dict[int, int] = {}  # edge at which it is valid, word
        self._masked: dict[int, int] = {}
        self._driven = -2  # last edge that the chip drove data for
        self._wires = deque([0] * wire_cycles)
        self._refresh_ns = 1e6 * chip.timing.refresh_ms / chip.timing.refresh_commands

    # ------------------------------------------------------------------ for testbenches

    def process(
        self, pins: Any, domain: str = "sync"
    ) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """Return a process for Amaranth's simulator: the chip at `pins`, clocked by `domain`."""
        names = ("cke", "cs_n", "ras_n", "cas_n", "we_n", "ba", "a", "dq_o", "dq_oe", "dqm")
        signals = [getattr(pins, name) for name in names]

        async def process(ctx: Any) -> None:
            while True:
                levels = await ctx.tick(domain).sample(*signals)
                self._wires.append(self.tick(PinLevels(*levels[2:])))
                ctx.set(pins.dq_i, self._wires.popleft())

        return process

    def tick(self, pins: PinLevels) -> int:
        """Take a rising edge; return what is on the data pins at the next one.

        Raises
        ------
        SdramRuleError
            If a rule is broken.
        """
        self._cycle += 1
        self._check_clock_and_refresh(pins)
        if pins.dq_oe and self._driven >= self._cycle - 1:
            self._fail("data bus", "the controller drives it, and the chip until shortly before")
        if pins.dqm:
            self._masked[self._cycle + 2] = pins.dqm
        if pins.cke and not pins.cs_n:
            self._command(pins)
        self._move_data(pins)
        if pins.dq_oe and self._cycle + 1 in self._output:
            self._fail("data bus", "the chip drives it, and the controller until shortly before")
        return self._drive()

    @property
    def ready(self) -> bool:
        """Whether the power-up sequence is over."""
        return self._mode is not None and self._refreshes_done

    # ------------------------------------------------------------------ rules

    def _fail(self, rule: str, detail: str) -> None:
        raise SdramRuleError(rule, self._cycle, detail)

    def _since_ns(self, cycle: int) -> float:
        return (self._cycle - cycle) * self._period_ns

    def _at_least(self, rule: str, since: int | None, delay: Delay, detail: str) -> None:
        if since is None:
            return
        elapsed_ns = self._since_ns(since)
        if elapsed_ns < delay.ns - TOLERANCE_NS or self._cycle - since < delay.clocks:
            self._fail(
                rule,
                f"{detail} after {elapsed_ns:.1f} ns ({self._cycle - since} cycles),"
                f" not {delay.ns:g} ns and {delay.clocks} cycles",
            )

    @property
    def _refreshes_done(self) -> bool:
        return self._refreshes >= self.chip.timing.power_up_refreshes

    @property
    def _cas_latency(self) -> int:
        assert self._mode is not None
        return self._mode >> 4 & 7

    @property
    def _burst_columns(self) -> int:
        assert self._mode is not None
        return 1 << (self._mode & 7)

    def _check_clock_and_refresh(self, pins: PinLevels) -> None:
        if pins.cke and self._awake_since is None:
            self._awake_since = self._cycle
        if not pins.cke and self._awake_since is not None:
            self._fail("CKE", "this model knows neither power-down nor self refresh")
        if self.ready and self._refreshed is not None:
            elapsed_ns = self._since_ns(self._refreshed)
            if elapsed_ns > self._refresh_ns + TOLERANCE_NS:
                self._fail(
                    "refresh", f"none for {elapsed_ns:.0f} ns, not within {self._refresh_ns:.0f} ns"
                )

    def _command(self, pins: PinLevels) -> None:
        name = COMMANDS[pins.ras_n, pins.cas_n, pins.we_n]
        self.counts[name] += 1
        if name == "NOP":
            return
        timing = self.chip.timing
        pause = Delay(ns=timing.power_up_us * 1e3)
        if self._mode is None:
            self._at_least("power-up pause", self._awake_since, pause, name)
            if name not in ("PRECHARGE", "REFRESH", "MODE"):
                self._fail("power-up sequence", f"{name} before the mode register is written")
        elif not self._refreshes_done and name != "REFRESH":
            self._fail("power-up sequence", f"{name} after {self._refreshes} refreshes")
        self._at_least("tRFC", self._refreshed, timing.t_rfc, f"{name} after REFRESH")
        self._at_least("tMRD", self._mode_cycle, timing.t_mrd, f"{name} after MODE")
        {
            "MODE": self._set_mode,
            "REFRESH": self._refresh,
            "PRECHARGE": self._precharge,
            "ACTIVATE": self._activate,
            "WRITE": self._access,
            "READ": self._access,
            "BURST STOP": self._stop,
        }[name](pins, name)

    def _check_idle(self, name: str) -> None:
        for index, bank in enumerate(self._banks):
            if bank.row is not None:
                self._fail("bank state", f"{name} while row {bank.row} of bank {index} is open")
            self._at_least("tRP", bank.precharged, self.chip.timing.t_rp, f"{name} after PRECHARGE")
        if not self._all_precharged:
            self._fail("power-up sequence", f"{name} before all banks were precharged")

    def _set_mode(self, pins: PinLevels, name: str) -> None:
        self._check_idle(name)
        length, latency = pins.a & 7, pins.a >> 4 & 7
        allowed = [cl for cl, least in self.chip.timing.clock_ns if self._period_ns >= least - 1e-9]
        if pins.a & ~0x77 or length > 3 or latency not in allowed or pins.ba:
            self._fail("mode register", f"{pins.a:#x}: latency {latency}, allowed {allowed}")
        self._mode, self._mode_cycle = pins.a, self._cycle

    def _refresh(self, pins: PinLevels, name: str) -> None:
        self._check_idle(name)
        for bank in self._banks:
            self._at_least("tRC", bank.activated, self.chip.timing.t_rc, "REFRESH after ACTIVATE")
        self._refreshes += 1
        self._refreshed = self._cycle

    def _activate(self, pins: PinLevels, name: str) -> None:
        bank, timing = self._banks[pins.ba], self.chip.timing
        if bank.row is not None:
            self._fail("bank state", f"ACTIVATE while row {bank.row} of bank {pins.ba} is open")
        if pins.a >= self.chip.rows:
            self._fail("address", f"row {pins.a} of {self.chip.rows}")
        self._at_least("tRP", bank.precharged, timing.t_rp, "ACTIVATE after PRECHARGE")
        self._at_least("tRC", bank.activated, timing.t_rc, "ACTIVATE after ACTIVATE of the bank")
        self._at_least("tRRD", self._activated, timing.t_rrd, "ACTIVATE after ACTIVATE")
        bank.row, bank.activated, bank.written = pins.a, self._cycle, None
        self._activated = self._cycle

    def _precharge(self, pins: PinLevels, name: str) -> None:
        everything = bool(pins.a >> 10 & 1)
        timing = self.chip.timing
        for index in range(self.chip.banks) if everything else [pins.ba]:
            bank = self._banks[index]
            if bank.row is not None:
                self._at_least("tRAS", bank.activated, timing.t_ras, "PRECHARGE after ACTIVATE")
                self._at_least("tWR", bank.written, timing.t_wr, "PRECHARGE after the last write")
                assert bank.activated is not None
                if self._since_ns(bank.activated) > timing.t_ras_max_ns + TOLERANCE_NS:
                    self._fail("tRAS", f"bank {index} was open longer than it may be")
            if self._burst is not None and self._burst.bank == index:
                if self._burst.write:
                    self._fail("tWR", f"PRECHARGE of bank {index} during a write to it")
                self._truncate()
            # PRECHARGE of an idle bank is a NOP, which does not start tRP again.
            if bank.row is not None or not self._all_precharged:
                bank.row, bank.precharged = None, self._cycle
        if everything:
            self._all_precharged = True

    def _access(self, pins: PinLevels, name: str) -> None:
        bank = self._banks[pins.ba]
        if bank.row is None:
            self._fail("bank state", f"{name} while bank {pins.ba} is closed")
        assert bank.row is not None
        self._at_least("tRCD", bank.activated, self.chip.timing.t_rcd, f"{name} after ACTIVATE")
        if pins.a >> 10 & 1:
            self._fail("A10", "this model does not know the automatic precharge")
        if pins.a >= self.chip.columns:
            self._fail("address", f"column {pins.a} of {self.chip.columns}")
        self._truncate()
        mask = self._burst_columns - 1
        columns = deque(pins.a & ~mask | (pins.a + i) & mask for i in range(mask + 1))
        self._burst = _Burst(name == "WRITE", pins.ba, bank.row, columns)

    def _stop(self, pins: PinLevels, name: str) -> None:
        self._truncate()

    def _truncate(self) -> None:
        """End the burst; what a read has in the pipeline still comes out."""
        self._burst = None
        if self._mode is not None:
            last = self._cycle + self._cas_latency
            self._output = {edge: word for edge, word in self._output.items() if edge < last}

    # ------------------------------------------------------------------ data

    def _move_data(self, pins: PinLevels) -> None:
        burst = self._burst
        if burst is None:
            if pins.dq_oe:
                self._fail("data bus", "the controller drives it without a WRITE")
            return
        place = (burst.bank, burst.row, burst.columns.popleft())
        if not burst.columns:
            self._burst = None
        if not burst.write:
            if pins.dq_oe:
                self._fail("data bus", "the controller drives it during a READ")
            self._output[self._cycle + self._cas_latency] = self._word(place)
            return
        if not pins.dq_oe and pins.dqm != 3:
            self._fail("data bus", "nobody drives the data of a WRITE")
        lanes = (0 if pins.dqm & 1 else 0x00FF) | (0 if pins.dqm & 2 else 0xFF00)
        self.words[place] = self._word(place) & ~lanes | pins.dq_o & lanes
        # A masked word is one that the chip receives, as far as tWR goes.
        self._banks[burst.bank].written = self._cycle

    def _word(self, place: tuple[int, int, int]) -> int:
        if place not in self.words:
            self.words[place] = self._rng.getrandbits(16)
        return self.words[place]

    def _drive(self) -> int:
        """Return the data pins at the next edge; random where nobody drives them."""
        edge = self._cycle + 1
        noise = self._rng.getrandbits(16)
        word = self._output.pop(edge, None)
        masked = self._masked.pop(edge, 0)
        if word is None:
            return noise
        self._driven = edge
        lanes = (0xFF if masked & 1 else 0) | (0xFF00 if masked & 2 else 0)
        return word & ~lanes | noise & lanes
