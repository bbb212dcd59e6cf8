"""Chains of registers."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal

__all__ = ["delays"]


def delays(
    m: Module, value: Any, cycles: int, *, name: str, domain: str = "sync", reset_less: bool = False
) -> list[Any]:
    """Return a value, and what it was in each of the cycles before.

    Parameters
    ----------
    m : Module
        Gets the registers.
    value : Value or View
    cycles : int
        How many cycles back.
    name : str
        Of the registers: ``NAME_d1`` and so on.
    domain : str
    reset_less : bool
        For registers of data whose validity is kept elsewhere.

    Returns
    -------
    list of Value or View, length `cycles` + 1
        By age: the value itself comes first.
    """
    stages = [value]
    for age in range(1, cycles + 1):
        stage = Signal(value.shape(), name=f"{name}_d{age}", reset_less=reset_less)
        m.d[domain] += stage.eq(stages[-1])
        stages.append(stage)
    return stages
