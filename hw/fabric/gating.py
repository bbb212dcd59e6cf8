"""What may stand still: clock enables, for a chip with one clock or with gated clocks."""

# mypy: disable-error-code="misc"
from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, DomainRenamer, Module, ResetInserter, Signal, Value
from celosia.hw.fabric.enable import SpreadEnable

__all__ = ["GATED_DOMAINS", "ClockGates", "clock", "idles", "resets", "runs", "stops"]

WAIT_CYCLES = 4
"""Cycles that a component that begins to wait goes on for, to finish what is under way."""

GATED_DOMAINS = (
    "csr",
    "errors",
    "frontend",
    "bus",
    "load",
    "store",
    "array",
    "vector",
    "pipeline",
    "softmax",
    "act_read",
    "act_write",
)
"""Parts that stand still on their own, by the name of their gated clock."""


class ClockGates:
    """Platform on which each of :data:`GATED_DOMAINS` has a clock of its own.

    Whoever makes the clocks lets the edge of a domain through in the cycles in which its enable
    or the reset is high, and has all edges at the same time: data then goes between the domains
    as within one. A simulator is the natural user: what has no edge is not evaluated.

    Attributes
    ----------
    enables : dict of str to Signal
        By domain.
    reset : Signal
        Every domain is to be reset.
    """

    def __init__(self) -> None:
        self.enables = {name: Signal(name=f"enable_{name}") for name in GATED_DOMAINS}
        self.reset = Signal(name="enable_all")


def clock(name: str, platform: object) -> str:
    """Return the clock domain of a part: its own where clocks are gated, else ``sync``."""
    return name if isinstance(platform, ClockGates) else "sync"


def runs(m: Module, active: Value, *, domain: str, platform: object, tail_cycles: int = 0) -> None:
    """Say when a part needs its gated clock; nothing where clocks are not gated.

    Parameters
    ----------
    m : Module
        Where the part is.
    active : Value
        One bit: in this cycle the part may change. Everything that it holds while this is low has
        to stay, or not to matter.
    domain : str
        The part's name among :data:`GATED_DOMAINS`.
    platform : object
        What ``elaborate`` was called with.
    tail_cycles : int
        Cycles after `active` that it needs, too, for what is still under way.
    """
    if not isinstance(platform, ClockGates):
        return
    if tail_cycles:
        recent = Signal(tail_cycles, name=f"{domain}_was_active")
        m.d[domain] += recent.eq(Cat(active, recent)[:tail_cycles])
        active = active | recent.any()
    m.d.comb += platform.enables[domain].eq(active)


def stops(
    m: Module,
    component: Any,
    enable: Value,
    *,
    ahead: Value,
    domain: str,
    platform: object,
    waits: Value | None = None,
    enables: bool = True,
) -> Any:
    """Make a component stand still, with its state, in the cycles in which `enable` is low.

    Parameters
    ----------
    m : Module
        What the component will be a submodule of.
    component : Elaboratable
        In domain ``sync``.
    enable : Value
        One bit, for gated clocks.
    ahead : Value
        One bit, high a cycle before `enable` at the latest: where clocks are not gated, clock
        enables come from it, by registers.
    domain, platform
        As of :func:`runs`.
    waits : Value, optional
        One bit, high when nothing would change although `enable` is high. Only gated clocks use
        it: as a clock enable it would be a long path for no result.
    enables : bool
        Whether there are clock enables where clocks are not gated.

    Returns
    -------
    Elaboratable
        To be used in place of `component`.
    """
    if not isinstance(platform, ClockGates):
        return SpreadEnable(ahead)(component) if enables else component
    if waits is not None:
        went_on = Signal(WAIT_CYCLES, name=f"{domain}_went_on")
        m.d[domain] += went_on.eq(Cat(~waits, went_on)[:WAIT_CYCLES])
        enable = enable & (went_on.any() | ~waits)
    runs(m, enable, domain=domain, platform=platform)
    return DomainRenamer(domain)(component)


def idles(
    m: Module,
    component: Any,
    active: Value,
    *,
    domain: str,
    platform: object,
    tail_cycles: int = 0,
) -> Any:
    """Let a component stand still where that costs nothing: with gated clocks.

    Parameters and result are as of :func:`runs` and :func:`stops`.
    """
    runs(m, active, domain=domain, platform=platform, tail_cycles=tail_cycles)
    return DomainRenamer(clock(domain, platform))(component)


def resets(m: Module, component: Any, reset: Value, *, platform: object) -> Any:
    """Reset a component and all that stands still in it while `reset` is high.

    Parameters are those of :func:`stops`.
    """
    if isinstance(platform, ClockGates):
        m.d.comb += platform.reset.eq(reset)
    return ResetInserter({"sync": reset} | dict.fromkeys(GATED_DOMAINS, reset))(component)
