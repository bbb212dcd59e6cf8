"""Delays: chains of registers, or a small memory in their place."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Module, Signal, Value
from amaranth.lib.memory import Memory

__all__ = ["MEMORY_CYCLES", "delays", "memory_delay"]

MEMORY_CYCLES = 16
"""Longest delay that one memory made of tables gives: it has so many words anyway."""


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


def memory_delay(
    m: Module, value: Any, cycles: int, *, name: str, domain: str = "sync", registers: int = 0
) -> Any:
    """Return what a value was some cycles ago, kept in a memory made of tables.

    A word of the memory is read and then written in each cycle, and is come back to after as many
    as there are words. Four bits take as much as eight registers (a RAM16SDP4 of Gowin, a
    TRELLIS_DPR16X4 of Lattice), however long the delay. Several values that are late by the same
    are best delayed together, as a `Cat`: they share the counter.

    Parameters
    ----------
    m : Module
        Gets the memory, the counter and the registers. All of it stands still with `domain`.
    value : Value or View
    cycles : int
        How many cycles back: 2 or more, and as many more as `registers` says.
    name : str
        Of the memory, or of several with :data:`MEMORY_CYCLES` each at most.
    domain : str
    registers : int
        Registers behind the memory, counted in `cycles`: the way out of it is as slow as a table.

    Returns
    -------
    Value or View
        Of the shape of `value`. Undefined until `cycles` have passed since the start; a reset does
        not change that it is late by so many cycles of `domain`.

    Raises
    ------
    ValueError
        The memory would have fewer than 2 words.
    """
    depth = cycles - registers
    if depth < 2:
        raise ValueError(
            "a delay in a memory must be 2 cycles at least and those of its registers,"
            f" not {cycles!r} with {registers!r} registers"
        )
    memories = -(-depth // MEMORY_CYCLES)
    late = value
    for index in range(memories):
        words = depth // memories + (index < depth % memories)
        late = _memory(m, late, words, name=f"{name}_{index}", domain=domain)
    return delays(m, late, registers, name=name, domain=domain, reset_less=True)[-1]


def _memory(m: Module, value: Any, words: int, *, name: str, domain: str) -> Any:
    """Return what a value was so many cycles ago as a memory has words."""
    whole = Value.cast(value)
    m.submodules[name] = memory = Memory(shape=len(whole), depth=words, init=[])
    write = memory.write_port(domain=domain)
    read = memory.read_port(domain="comb")
    # A table for each bit: as an adder it would take a carry chain and a comparison.
    # It has a reset: simulators that begin with x would never know it.
    word = Signal(range(words), name=f"{name}_word")
    m.d[domain] += word.eq(Array([*range(1, words), 0])[word])
    late = Signal(value.shape(), name=f"{name}_late")
    m.d.comb += [
        write.en.eq(1),
        write.addr.eq(word),
        write.data.eq(whole),
        read.addr.eq(word),
        Value.cast(late).eq(read.data),
    ]
    return late
