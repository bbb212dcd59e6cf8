"""Dividers of clock generators: within the data sheets' limits, and the clock that is wanted."""

from __future__ import annotations

from fractions import Fraction

import pytest
from celosia.boards.fpga.pll import (
    ECP5_LIMITS,
    GOWIN_LIMITS,
    ICE40_LIMITS,
    PLANNERS,
    XILINX7_LIMITS,
    Ecp5Pll,
    GowinPll,
    Ice40Pll,
    Pll,
    Xilinx7Pll,
    plan_ecp5,
    plan_gowin,
    plan_ice40,
    plan_xilinx7,
)
from celosia.boards.registry import BOARDS
from celosia.errors import CelosiaError
from celosia.quantities import MHZ

LIMITS = {
    "ecp5": ECP5_LIMITS,
    "ice40": ICE40_LIMITS,
    "gowin": GOWIN_LIMITS,
    "xilinx7": XILINX7_LIMITS,
}
INPUTS = {"ecp5": (25, 48), "ice40": (12,), "gowin": (27,), "xilinx7": (100,)}


def frequencies(pll: Pll) -> tuple[Fraction, Fraction, Fraction]:
    """Return detector, oscillator and output, worked out from the parameters of the primitive.

    The formulas are those of the vendors' guides: Lattice FPGA-TN-02200 and FPGA-TN-02052, Gowin
    UG286, AMD UG472.
    """
    if isinstance(pll, Ecp5Pll):
        detector = Fraction(pll.input_hz, pll.clki_div)
        oscillator = detector * pll.clkfb_div * pll.clkop_div
        return detector, oscillator, oscillator / pll.clkos_div
    if isinstance(pll, Ice40Pll):
        detector = Fraction(pll.input_hz, pll.divr + 1)
        oscillator = detector * (pll.divf + 1)
        return detector, oscillator, oscillator / 2**pll.divq
    if isinstance(pll, GowinPll):
        detector = Fraction(pll.input_hz, pll.idiv_sel + 1)
        output = detector * (pll.fbdiv_sel + 1)
        return detector, output * pll.odiv_sel, output
    assert isinstance(pll, Xilinx7Pll)
    detector = Fraction(pll.input_hz, pll.divclk_divide)
    oscillator = detector * pll.clkfbout_mult
    return detector, oscillator, oscillator / pll.clkout0_divide


def require_ranges(pll: Pll) -> None:
    """Fail if a parameter is out of its primitive's range."""
    if isinstance(pll, Ecp5Pll):
        for value in (pll.clki_div, pll.clkfb_div, pll.clkop_div, pll.clkos_div):
            assert 1 <= value <= 128
    elif isinstance(pll, Ice40Pll):
        assert 0 <= pll.divr <= 15
        assert 0 <= pll.divf <= 127
        assert 1 <= pll.divq <= 6
        assert 1 <= pll.filter_range <= 6
    elif isinstance(pll, GowinPll):
        assert 0 <= pll.idiv_sel <= 63
        assert 0 <= pll.fbdiv_sel <= 63
        assert pll.odiv_sel in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128)
    else:
        assert isinstance(pll, Xilinx7Pll)
        assert 1 <= pll.divclk_divide <= 56
        assert 2 <= pll.clkfbout_mult <= 64
        assert 1 <= pll.clkout0_divide <= 128


@pytest.mark.parametrize("family", sorted(PLANNERS))
def test_every_whole_clock_keeps_the_limits_or_is_refused(family: str) -> None:
    limits = LIMITS[family]
    made = 0
    for input_mhz in INPUTS[family]:
        for output_mhz in range(4, 161, 3):
            try:
                pll = PLANNERS[family](input_mhz * MHZ, output_mhz * MHZ)
            except CelosiaError:
                continue
            made += 1
            require_ranges(pll)
            assert (pll.detector_hz, pll.oscillator_hz, pll.output_hz) == frequencies(pll)
            for value, (low, high) in (
                (pll.detector_hz, limits.detector),
                (pll.oscillator_hz, limits.oscillator),
                (pll.output_hz, limits.output),
            ):
                assert low <= value <= high
            assert abs(pll.output_hz / (output_mhz * MHZ) - 1) <= Fraction(1, 200)
    assert made > 10


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_the_clock_of_every_board_is_exact(name: str) -> None:
    board = BOARDS[name]
    pll = PLANNERS[board.family](board.input_hz, board.clock_hz)
    assert pll.output_hz == board.clock_hz


def test_an_output_of_its_own_makes_80_mhz_from_25() -> None:
    # By CLKOP alone it would take a detector at 5 MHz, half of what is allowed.
    pll = plan_ecp5(25 * MHZ, 80 * MHZ)
    assert pll.output_hz == 80 * MHZ
    assert pll.detector_hz == 25 * MHZ


def test_icebreaker_setting_is_that_of_icepll() -> None:
    # `icepll -i 12 -o 24` of Project IceStorm.
    pll = plan_ice40(12 * MHZ, 24 * MHZ)
    assert (pll.divr, pll.divf, pll.divq, pll.filter_range) == (0, 63, 5, 1)


def test_the_fastest_detector_is_preferred() -> None:
    assert plan_gowin(27 * MHZ, 60_750_000).idiv_sel == 3
    assert plan_xilinx7(100 * MHZ, 80 * MHZ).divclk_divide == 1


@pytest.mark.parametrize(
    ("family", "input_mhz", "output_mhz"),
    [("ecp5", 25, 500), ("ecp5", 4, 80), ("ice40", 12, 10), ("gowin", 27, 1000)],
)
def test_what_cannot_be_made_is_refused(family: str, input_mhz: int, output_mhz: int) -> None:
    with pytest.raises(CelosiaError, match=f"{output_mhz} MHz.*{input_mhz} MHz") as caught:
        PLANNERS[family](input_mhz * MHZ, output_mhz * MHZ)
    assert "choose another clock" in caught.value.remedy
