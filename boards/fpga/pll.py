"""Dividers of the clock generators (PLL) of FPGA families, within the limits of the data sheets.

Frequencies are exact fractions of a hertz. Nothing of Amaranth is needed here; the primitives are
in :mod:`celosia.boards.fpga.clocking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from celosia.errors import CelosiaError
from celosia.quantities import MHZ

__all__ = [
    "PLANNERS",
    "Ecp5Pll",
    "GowinPll",
    "Ice40Pll",
    "Limits",
    "Pll",
    "Xilinx7Pll",
    "plan_ecp5",
    "plan_gowin",
    "plan_ice40",
    "plan_xilinx7",
]

MOST_ERROR = Fraction(1, 200)
"""Of the frequency that results: more is not what was asked for."""


@dataclass(frozen=True)
class Limits:
    """Frequencies that a PLL works at, in hertz, lowest and highest.

    Attributes
    ----------
    input, detector, oscillator, output : tuple of int
        At the pin; behind the input divider; of the oscillator (VCO); at the output.
    """

    input: tuple[int, int]
    detector: tuple[int, int]
    oscillator: tuple[int, int]
    output: tuple[int, int]


ECP5_LIMITS = Limits(
    (8 * MHZ, 400 * MHZ), (10 * MHZ, 400 * MHZ), (400 * MHZ, 800 * MHZ), (3_125_000, 400 * MHZ)
)
"""Lattice FPGA-DS-02012, sysCLOCK PLL timing."""
ICE40_LIMITS = Limits(
    (10 * MHZ, 133 * MHZ), (10 * MHZ, 133 * MHZ), (533 * MHZ, 1066 * MHZ), (16 * MHZ, 275 * MHZ)
)
"""Lattice FPGA-DS-02008 (iCE40 UltraPlus), sysCLOCK PLL timing."""
GOWIN_LIMITS = Limits(
    (3 * MHZ, 500 * MHZ), (3 * MHZ, 500 * MHZ), (500 * MHZ, 1250 * MHZ), (3_906_250, 625 * MHZ)
)
"""Gowin DS102 (GW2A), PLL parameters of speed grade C8/I7."""
XILINX7_LIMITS = Limits(
    (19 * MHZ, 800 * MHZ), (19 * MHZ, 450 * MHZ), (800 * MHZ, 1600 * MHZ), (6_250_000, 800 * MHZ)
)
"""AMD DS181 (Artix-7), PLL switching characteristics of the slowest speed grades, -1 and -1L."""


@dataclass(frozen=True, kw_only=True)
class Pll:
    """A setting of a clock generator.

    Attributes
    ----------
    input_hz : int
    detector_hz, oscillator_hz, output_hz : Fraction
    memory_hz : Fraction
        Of another output, for a memory; 0 if there is none.
    """

    input_hz: int
    detector_hz: Fraction
    oscillator_hz: Fraction
    output_hz: Fraction
    memory_hz: Fraction = Fraction(0)

    def keeps(self, limits: Limits) -> bool:
        """Return whether every frequency is within its limits."""
        return all(
            low <= value <= high
            for value, (low, high) in (
                (self.input_hz, limits.input),
                (self.detector_hz, limits.detector),
                (self.oscillator_hz, limits.oscillator),
                (self.output_hz, limits.output),
            )
        )


@dataclass(frozen=True, kw_only=True)
class Ecp5Pll(Pll):
    """Parameters of ``EHXPLLL``: feedback from CLKOP, which is not used, clock from CLKOS.

    A memory's clock comes from CLKOS2.

    With an output of its own the clock's divider is free, so that more frequencies are exact.
    """

    clki_div: int
    clkfb_div: int
    clkop_div: int
    clkos_div: int
    memory_div: int = 0

    @property
    def late_div(self) -> int:
        """Divider of the clock that a late one is made of: the memory's, if it has its own."""
        return self.memory_div or self.clkos_div

    def phase_of(self, periods: float) -> tuple[int, int]:
        """Return CPHASE and FPHASE of an output of `late_div` that comes so much later.

        They count periods of the oscillator and eighths of it (Lattice FPGA-TN-02200); the output
        without a delay has CPHASE one less than its divider.
        """
        eighths = round(8 * self.late_div * periods)
        return self.late_div - 1 + eighths // 8, eighths % 8


@dataclass(frozen=True, kw_only=True)
class Ice40Pll(Pll):
    """Parameters of ``SB_PLL40_PAD`` with simple feedback; the dividers are one less or log2."""

    divr: int
    divf: int
    divq: int
    filter_range: int


@dataclass(frozen=True, kw_only=True)
class GowinPll(Pll):
    """Parameters of ``rPLL``; ``idiv_sel`` and ``fbdiv_sel`` are one less than the dividers."""

    idiv_sel: int
    fbdiv_sel: int
    odiv_sel: int


@dataclass(frozen=True, kw_only=True)
class Xilinx7Pll(Pll):
    """Parameters of ``PLLE2_BASE``."""

    divclk_divide: int
    clkfbout_mult: int
    clkout0_divide: int


AnyPll = TypeVar("AnyPll", bound=Pll)


def plan_ecp5(input_hz: int, output_hz: int, memory_hz: int = 0) -> Ecp5Pll:
    """Return the dividers of an ECP5's PLL.

    Parameters
    ----------
    input_hz, output_hz : int
        Clock that there is; clock that is wanted.
    memory_hz : int
        Another clock that is wanted: as near as the first one leaves it, and not faster.

    Raises
    ------
    CelosiaError
        If no setting within the limits comes within half a per cent.
    """
    settings = _ecp5_settings(input_hz, output_hz, memory_hz)
    return _best("ECP5", settings, ECP5_LIMITS, input_hz, output_hz)


def _ecp5_settings(input_hz: int, output_hz: int, memory_hz: int) -> Iterator[Ecp5Pll]:
    for clki in range(1, max(1, input_hz // ECP5_LIMITS.detector[0]) + 1):
        detector = Fraction(input_hz, clki)
        # CLKFB_DIV times CLKOP_DIV, the factor of the oscillator; each is 1 to 128.
        for factor in _factors(detector, ECP5_LIMITS):
            clkop = max((d for d in range(1, 129) if factor % d == 0), default=1)
            clkfb = factor // clkop
            oscillator = detector * factor
            memory_div = -(-oscillator // (memory_hz + 1)) if memory_hz else 0
            for clkos in _near(oscillator / output_hz, 1, 128):
                if clkfb <= 128:
                    yield Ecp5Pll(
                        input_hz=input_hz,
                        detector_hz=detector,
                        oscillator_hz=oscillator,
                        output_hz=oscillator / clkos,
                        clki_div=clki,
                        clkfb_div=clkfb,
                        clkop_div=clkop,
                        clkos_div=clkos,
                        memory_hz=oscillator / memory_div if memory_div else Fraction(0),
                        memory_div=memory_div,
                    )


def plan_ice40(input_hz: int, output_hz: int) -> Ice40Pll:
    """Return the dividers of an iCE40's PLL; see :func:`plan_ecp5`."""
    return _best("iCE40", _ice40_settings(input_hz), ICE40_LIMITS, input_hz, output_hz)


def _ice40_settings(input_hz: int) -> Iterator[Ice40Pll]:
    for divr in range(16):
        detector = Fraction(input_hz, divr + 1)
        for factor in _factors(detector, ICE40_LIMITS):
            for divq in range(1, 7):
                if factor <= 128:
                    yield Ice40Pll(
                        input_hz=input_hz,
                        detector_hz=detector,
                        oscillator_hz=detector * factor,
                        output_hz=detector * factor / (1 << divq),
                        divr=divr,
                        divf=factor - 1,
                        divq=divq,
                        filter_range=_ice40_filter(detector),
                    )


def _ice40_filter(detector_hz: Fraction) -> int:
    """Return FILTER_RANGE (Lattice FPGA-TN-02052, as icepll of Project IceStorm has it)."""
    bounds = (17, 26, 44, 66, 101)
    return 1 + sum(detector_hz >= bound * MHZ for bound in bounds)


def plan_gowin(input_hz: int, output_hz: int) -> GowinPll:
    """Return the dividers of a GW2A's PLL; see :func:`plan_ecp5`."""
    return _best("GW2A", _gowin_settings(input_hz, output_hz), GOWIN_LIMITS, input_hz, output_hz)


def _gowin_settings(input_hz: int, output_hz: int) -> Iterator[GowinPll]:
    for idiv in range(1, 65):
        for fbdiv in _near(Fraction(output_hz * idiv, input_hz), 1, 64):
            output = Fraction(input_hz * fbdiv, idiv)
            for odiv in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128):
                yield GowinPll(
                    input_hz=input_hz,
                    detector_hz=Fraction(input_hz, idiv),
                    oscillator_hz=output * odiv,
                    output_hz=output,
                    idiv_sel=idiv - 1,
                    fbdiv_sel=fbdiv - 1,
                    odiv_sel=odiv,
                )


def plan_xilinx7(input_hz: int, output_hz: int) -> Xilinx7Pll:
    """Return the dividers of a 7-series PLL; see :func:`plan_ecp5`."""
    settings = _xilinx7_settings(input_hz, output_hz)
    return _best("7-series", settings, XILINX7_LIMITS, input_hz, output_hz)


def _xilinx7_settings(input_hz: int, output_hz: int) -> Iterator[Xilinx7Pll]:
    for divclk in range(1, 57):
        detector = Fraction(input_hz, divclk)
        for mult in range(2, 65):
            for divide in _near(detector * mult / output_hz, 1, 128):
                yield Xilinx7Pll(
                    input_hz=input_hz,
                    detector_hz=detector,
                    oscillator_hz=detector * mult,
                    output_hz=detector * mult / divide,
                    divclk_divide=divclk,
                    clkfbout_mult=mult,
                    clkout0_divide=divide,
                )


def _factors(detector_hz: Fraction, limits: Limits) -> range:
    """Return the factors from the detector to an oscillator within its limits."""
    low, high = limits.oscillator
    return range(-(-low // detector_hz), high // detector_hz + 1)


def _near(ratio: Fraction, low: int, high: int) -> list[int]:
    """Return the whole numbers next to a ratio that a divider can be."""
    floor = ratio.numerator // ratio.denominator
    return [value for value in (floor, floor + 1) if low <= value <= high]


def _best(
    family: str, settings: Iterator[AnyPll], limits: Limits, input_hz: int, output_hz: int
) -> AnyPll:
    """Return the setting next to the wanted clock, the one with the fastest detector of those.

    A fast detector means little jitter.
    """
    fitting = [setting for setting in settings if setting.keeps(limits)]
    best = min(
        fitting,
        key=lambda setting: (
            abs(setting.output_hz - output_hz),
            -setting.memory_hz,
            -setting.detector_hz,
            setting.oscillator_hz,
        ),
        default=None,
    )
    what = f"a clock of {output_hz / MHZ:g} MHz from one of {input_hz / MHZ:g} MHz"
    if best is None or abs(best.output_hz / output_hz - 1) > MOST_ERROR:
        low, high = limits.output
        raise CelosiaError(
            what,
            f"the PLL of {family} cannot make it",
            "choose another clock"
            + (f", nearest is {float(best.output_hz) / MHZ:.6g} MHz" if best is not None else "")
            + f"; it must be from {low / MHZ:g} to {high / MHZ:g} MHz",
        )
    return best


PLANNERS: dict[str, Callable[[int, int], Pll]] = {
    "ecp5": plan_ecp5,
    "ice40": plan_ice40,
    "gowin": plan_gowin,
    "xilinx7": plan_xilinx7,
}
"""By FPGA family."""
