"""The clock of a board's design: clock generator, power-on reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import ClockDomain, Const, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, Out
from celosia.boards.fpga.pll import Ecp5Pll, GowinPll, Ice40Pll, Pll, Xilinx7Pll

__all__ = ["BoardClock"]

POWER_ON_CYCLES = 256
"""Reset after the PLL has locked. At 24 MHz longer than the 3 us that block memories of an iCE40
are not ready for after configuration."""


class BoardClock(Component):
    """Makes the design's clock from the board's.

    The reset is synchronous, lasts until the clock is stable, and comes again when the PLL loses
    its lock or the board's reset, where there is one, is pressed.

    Parameters
    ----------
    pll : Pll
        Dividers of the family of the platform's FPGA.

    late_phase : float, optional
        Phase of `late`, in periods, 0 to 1. Of an ECP5 alone.

    Members
    -------
    clk : Out(1), rst : Out(1)
        Of the clock domain that the top defines.
    memory : Out(1)
        Clock of the memory; stands still if it has none of its own.
    late : Out(1)
        The memory's clock, or else the design's, later; stands still unless it is asked for.

    Raises
    ------
    ValueError
        If another family is asked for a late clock.
    """

    def __init__(self, pll: Pll, *, late_phase: float | None = None) -> None:
        if late_phase is not None and not isinstance(pll, Ecp5Pll):
            raise ValueError(f"no late clock from {type(pll).__name__}")
        self._pll = pll
        self._late_phase = late_phase
        super().__init__({"clk": Out(1), "rst": Out(1), "memory": Out(1), "late": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # Not reset, so that it can be what resets the other.
        m.domains.power_on = power_on = ClockDomain(reset_less=True, local=True)
        locked, steady = Signal(), Signal()
        pin = platform.request(platform.default_clk, dir="-")
        if isinstance(self._pll, Ecp5Pll):
            _ecp5(m, self._pll, pin, self, locked, self._late_phase)
        else:
            _PRIMITIVES[type(self._pll)](m, self._pll, pin, self.clk, locked)
        m.d.comb += power_on.clk.eq(self.clk)
        good = locked
        if platform.default_rst is not None:
            button = platform.request(platform.default_rst, dir="-")
            m.submodules.reset_pin = buffer = io.Buffer("i", button)
            good = locked & ~buffer.i
        m.submodules.steady = FFSynchronizer(good, steady, o_domain="power_on")
        waited = Signal(range(POWER_ON_CYCLES))
        reset = Signal(init=1)
        m.d.power_on += reset.eq(waited != POWER_ON_CYCLES - 1)
        with m.If(~steady):
            m.d.power_on += waited.eq(0)
        with m.Elif(reset):
            m.d.power_on += waited.eq(waited + 1)
        m.d.comb += self.rst.eq(reset)
        return m


def _input(m: Module, pin: Any) -> Any:
    m.submodules.clock_pin = buffer = io.Buffer("i", pin)
    return buffer.i


def _ecp5(
    m: Module,
    pll: Ecp5Pll,
    pin: Any,
    clocks: Any,
    locked: Signal,
    late_phase: float | None,
) -> None:
    feedback = Signal()
    more: dict[str, Any] = {}
    if pll.memory_div:
        more |= _ecp5_output("CLKOS2", pll.memory_div, (pll.memory_div - 1, 0), clocks.memory)
    if late_phase is not None:
        more |= _ecp5_output("CLKOS3", pll.late_div, pll.phase_of(late_phase), clocks.late)
    m.submodules.pll = Instance(
        "EHXPLLL",
        # Analog settings as the vendor's and Project Trellis's generators have them.
        a_ICP_CURRENT="12",
        a_LPF_RESISTOR="8",
        a_MFG_ENABLE_FILTEROPAMP="1",
        a_MFG_GMCREF_SEL="2",
        p_FEEDBK_PATH="CLKOP",
        p_CLKI_DIV=pll.clki_div,
        p_CLKFB_DIV=pll.clkfb_div,
        p_CLKOP_ENABLE="ENABLED",
        p_CLKOP_DIV=pll.clkop_div,
        p_CLKOP_CPHASE=pll.clkop_div - 1,
        p_CLKOP_FPHASE=0,
        p_CLKOS_ENABLE="ENABLED",
        p_CLKOS_DIV=pll.clkos_div,
        p_CLKOS_CPHASE=pll.clkos_div - 1,
        p_CLKOS_FPHASE=0,
        i_CLKI=_input(m, pin),
        i_CLKFB=feedback,
        i_RST=Const(0),
        i_STDBY=Const(0),
        i_PHASESEL0=Const(0),
        i_PHASESEL1=Const(0),
        i_PHASEDIR=Const(0),
        i_PHASESTEP=Const(0),
        i_PHASELOADREG=Const(0),
        i_PLLWAKESYNC=Const(0),
        i_ENCLKOP=Const(0),
        i_ENCLKOS=Const(0),
        o_CLKOP=feedback,
        o_CLKOS=clocks.clk,
        o_LOCK=locked,
        **more,
    )


def _ecp5_output(name: str, divider: int, phase: tuple[int, int], clock: Signal) -> dict[str, Any]:
    """Return the parameters and ports of one more output."""
    return {
        f"p_{name}_ENABLE": "ENABLED",
        f"p_{name}_DIV": divider,
        f"p_{name}_CPHASE": phase[0],
        f"p_{name}_FPHASE": phase[1],
        f"i_EN{name}": Const(0),
        f"o_{name}": clock,
    }


def _ice40(m: Module, pll: Any, pin: Any, clock: Signal, locked: Signal) -> None:
    # The PLL takes the place of the pin's own buffer.
    m.submodules.pll = Instance(
        "SB_PLL40_PAD",
        p_FEEDBACK_PATH="SIMPLE",
        p_DIVR=Const(pll.divr, 4),
        p_DIVF=Const(pll.divf, 7),
        p_DIVQ=Const(pll.divq, 3),
        p_FILTER_RANGE=Const(pll.filter_range, 3),
        i_PACKAGEPIN=pin.io,
        i_RESETB=Const(1),
        i_BYPASS=Const(0),
        o_PLLOUTGLOBAL=clock,
        o_LOCK=locked,
    )


def _gowin(m: Module, pll: Any, pin: Any, clock: Signal, locked: Signal) -> None:
    m.submodules.pll = Instance(
        "rPLL",
        p_FCLKIN=f"{pll.input_hz / 1e6:g}",
        p_DEVICE="GW2A-18C",
        p_DYN_IDIV_SEL="false",
        p_IDIV_SEL=pll.idiv_sel,
        p_DYN_FBDIV_SEL="false",
        p_FBDIV_SEL=pll.fbdiv_sel,
        p_DYN_ODIV_SEL="false",
        p_ODIV_SEL=pll.odiv_sel,
        p_CLKFB_SEL="internal",
        p_CLKOUT_BYPASS="false",
        i_CLKIN=_input(m, pin),
        i_CLKFB=Const(0),
        i_RESET=Const(0),
        i_RESET_P=Const(0),
        i_FBDSEL=Const(0, 6),
        i_IDSEL=Const(0, 6),
        i_ODSEL=Const(0, 6),
        i_PSDA=Const(0, 4),
        i_DUTYDA=Const(0, 4),
        i_FDLY=Const(0, 4),
        o_CLKOUT=clock,
        o_LOCK=locked,
    )


def _xilinx7(m: Module, pll: Any, pin: Any, clock: Signal, locked: Signal) -> None:
    feedback, unbuffered = Signal(), Signal()
    m.submodules.pll = Instance(
        "PLLE2_BASE",
        p_CLKIN1_PERIOD=1e9 / pll.input_hz,
        p_DIVCLK_DIVIDE=pll.divclk_divide,
        p_CLKFBOUT_MULT=pll.clkfbout_mult,
        p_CLKOUT0_DIVIDE=pll.clkout0_divide,
        i_CLKIN1=_input(m, pin),
        i_CLKFBIN=feedback,
        i_RST=Const(0),
        i_PWRDWN=Const(0),
        o_CLKFBOUT=feedback,
        o_CLKOUT0=unbuffered,
        o_LOCKED=locked,
    )
    m.submodules.global_clock = Instance("BUFG", i_I=unbuffered, o_O=clock)


_PRIMITIVES: dict[type[Pll], Callable[[Module, Any, Any, Signal, Signal], None]] = {
    Ice40Pll: _ice40,
    GowinPll: _gowin,
    Xilinx7Pll: _xilinx7,
}
