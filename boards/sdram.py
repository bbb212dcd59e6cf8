"""System memory in a board's SDRAM chip: the controller, and registers at the pins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Const, DomainRenamer, Module
from amaranth.lib import io
from amaranth.lib.wiring import Component, In, connect, flipped
from celosia.errors import CelosiaError
from celosia.hw.bus.ports import initiator_signature
from celosia.hw.contract.config import NpuConfig
from celosia.hw.system.crossing import MEMORY_DOMAIN, ClockCrossing
from celosia.hw.system.sdram import SdramController
from celosia.hw.system.sdram_timing import SdramChip

__all__ = ["BoardSdram", "Capture", "best_capture"]

CLOCK_OUTPUT_NS = 3.0
"""Assumed: from a clock edge in the FPGA to that at the chip, without the phase."""
RETURN_NS = 3.0
"""Assumed: from the chip's data pins into the register of the I/O cell."""
LEAST_MARGIN_NS = 1.0
PHASES = (0.5, 0.75, 0.25)
"""Of the chip's clock, in periods: inverted, or late, which takes an output of the PLL."""
EXTRA_CYCLES = (0, 1, 2)
"""Cycles beyond the CAS latency after which data may be captured."""


@dataclass(frozen=True)
class Capture:
    """When the chip's clock comes, and when its data are taken.

    Attributes
    ----------
    phase : float
        From the controller's clock to the chip's, in periods.
    cycles : int
        From a READ to the capture of its first data.
    """

    phase: float
    cycles: int


def best_capture(chip: SdramChip, clock_hz: int) -> Capture:
    """Return the first phase that leaves time before and after the capture, and the best capture.

    Raises
    ------
    CelosiaError
        If there is none with the delays that are assumed.
    """
    cas_latency = chip.cas_latency(clock_hz)

    def margin_ns(capture: Capture) -> float:
        return min(
            chip.capture_margins_ns(
                clock_hz,
                cas_latency=cas_latency,
                capture_cycles=capture.cycles,
                chip_clock_ns=capture.phase * 1e9 / clock_hz + CLOCK_OUTPUT_NS,
                return_ns=RETURN_NS,
            )
        )

    for phase in PHASES:
        captures = (Capture(phase, cas_latency + extra) for extra in EXTRA_CYCLES)
        best = max(captures, key=margin_ns)
        if margin_ns(best) >= LEAST_MARGIN_NS:
            return best
    raise CelosiaError(
        f"SDRAM at {clock_hz / 1e6:g} MHz",
        "its data would come just when they are taken",
        "choose another clock, for example 80 MHz",
    )


class BoardSdram(Component):
    """An SDRAM chip with a bus of 16 bits, on the platform's resource ``sdram``.

    All pins end in the registers of their I/O cells, so that where the router puts things makes no
    difference. The chip's clock comes from such a cell as well, inverted: what the controller
    sends with a rising edge is taken half a period later, in the middle of its time. Where that is
    no good for the data that come back (:func:`best_capture`), the clock of the domain ``late`` is
    used, a quarter or three quarters of a period later. ::

        sync clock  _/~~~\\___/~~~\\___
        command     -<=======X=======>-
        chip clock  ~\\___/~~~\\___/~~~

    Parameters
    ----------
    config : NpuConfig
        Its bus.
    chip : SdramChip
    clock_hz : int
        Of the chip.
    own_clock : bool
        Controller and chip are in domain ``memory``, not in ``sync``.

    Raises
    ------
    CelosiaError
        If the chip cannot be used at this clock.

    Members
    -------
    bus : In(Wishbone)
    """

    def __init__(
        self, config: NpuConfig, *, chip: SdramChip, clock_hz: int, own_clock: bool = False
    ) -> None:
        self._chip = chip
        self._crossing = ClockCrossing(config) if own_clock else None
        self._domain = MEMORY_DOMAIN if own_clock else "sync"
        self._capture = best_capture(chip, clock_hz)
        self._controller = SdramController(
            config,
            chip=chip,
            clock_hz=clock_hz,
            capture_cycles=self._capture.cycles,
            board_registers=True,
        )
        super().__init__({"bus": In(initiator_signature(config))})

    @property
    def memory_bytes(self) -> int:
        """Size of the memory in bytes."""
        return self._chip.memory_bytes

    @property
    def latency_cycles(self) -> int:
        """Cycles from a request for an open row to its answer."""
        return self._controller.latency_cycles

    @property
    def late_phase(self) -> float | None:
        """Phase of the domain ``late``, in periods; None if there need not be one."""
        return None if self._capture.phase == PHASES[0] else self._capture.phase

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        controller, domain = self._controller, self._domain
        m.submodules.controller = DomainRenamer(domain)(controller)
        if self._crossing is None:
            connect(m, flipped(self.bus), controller.bus)
        else:
            m.submodules.crossing = crossing = self._crossing
            connect(m, flipped(self.bus), crossing.bus)
            connect(m, crossing.mem, controller.bus)
        parts = platform.lookup("sdram", 0).ios
        ports = platform.request("sdram", 0, dir={part.name: "-" for part in parts})
        pins = controller.pins
        for name, level in (
            ("clk_en", pins.cke),
            # The resource calls these by what they do when they are low.
            ("cs", ~pins.cs_n),
            ("ras", ~pins.ras_n),
            ("cas", ~pins.cas_n),
            ("we", ~pins.we_n),
            ("ba", pins.ba),
            ("a", pins.a),
            ("dqm", pins.dqm),
        ):
            m.submodules[f"pin_{name}"] = buffer = io.FFBuffer(
                "o", getattr(ports, name), o_domain=domain
            )
            m.d.comb += buffer.o.eq(level)
        m.submodules.pin_dq = data = io.FFBuffer("io", ports.dq, i_domain=domain, o_domain=domain)
        m.d.comb += [data.o.eq(pins.dq_o), data.oe.eq(pins.dq_oe), pins.dq_i.eq(data.i)]
        inverted = self.late_phase is None
        m.submodules.pin_clk = clock = io.DDRBuffer(
            "o", ports.clk, o_domain=domain if inverted else "late"
        )
        m.d.comb += [clock.o[0].eq(Const(not inverted)), clock.o[1].eq(Const(inverted))]
        return m
