"""Energy as a range: events times published energies, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from celosia.quantities import MHZ
from celosia.sw.energy.events import VECTOR_ADDS, VECTOR_BITS, Events, MemoryUse
from celosia.sw.energy.published import Bounds, Source, event, sources, sram

__all__ = [
    "NOT_MODELLED",
    "Conditions",
    "Energy",
    "Item",
    "LayerEnergy",
    "Part",
    "Range",
    "items_of",
]

PJ_A_UJ = 1e6
NOT_MODELLED = (
    "leakage",
    "the clock tree beyond the flip-flops",
    "pads and the memory's controller",
    "control logic, address generators and multiplexers, but for their flip-flops",
    "glitches within a cycle",
)
"""What is in no range."""


class Part(StrEnum):
    """What the energy is of."""

    ARRAY = "array"
    ACCUMULATOR = "accumulator"
    ACT = "activation SRAM"
    WEIGHTS = "weight SRAM"
    VECTOR = "vector engine"
    REGISTERS = "registers, clock"
    MEMORY = "system memory"


@dataclass(frozen=True)
class Range:
    """An energy in microjoules, at least and at most."""

    low_uj: float = 0.0
    high_uj: float = 0.0

    def __add__(self, other: Range) -> Range:
        return Range(self.low_uj + other.low_uj, self.high_uj + other.high_uj)

    def times(self, factor: float) -> Range:
        """Return a share, or a multiple."""
        return Range(self.low_uj * factor, self.high_uj * factor)

    def __str__(self) -> str:
        return pair_text((self.low_uj, self.high_uj))


@dataclass(frozen=True, kw_only=True)
class Item:
    """A line of the account: so many events, each of a published energy.

    Attributes
    ----------
    part : Part
    name : str
    low_count, high_count : float
        Events. The two differ only where it is not known which of them take energy.
    bounds : Bounds
        Of one event.
    activity : float or None
        Changes of bits, over those that random operands would cause; the energy is multiplied by
        it. None: the energy does not depend on the data, or the count does already.
    memory_cells : bool
        Whether it is a memory's accesses.
    """

    part: Part
    name: str
    low_count: float
    high_count: float
    bounds: Bounds
    activity: float | None = None
    memory_cells: bool = False

    @property
    def energy(self) -> Range:
        """Of all events."""
        share = 1.0 if self.activity is None else self.activity
        return Range(
            self.low_count * share * self.bounds.low_pj / PJ_A_UJ,
            self.high_count * share * self.bounds.high_pj / PJ_A_UJ,
        )

    def figures(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "part": self.part.value,
            "name": self.name,
            "low_count": self.low_count,
            "high_count": self.high_count,
            "low_pj": self.bounds.low_pj,
            "high_pj": self.bounds.high_pj,
            "activity": self.activity,
            "sources": list(self.bounds.sources),
            **asdict(self.energy),
        }


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the range holds for.

    Attributes
    ----------
    input : str
        What the model was given, in words.
    memory : str
        Kind of system memory, of `celosia.sw.energy.published.MEMORIES`.
    latency_cycles : int
        Of the simulated memory.
    samples : int
        Inferences that the range is the mean of; all samples of a batch count.
    """

    input: str
    memory: str
    latency_cycles: int
    samples: int = 1


@dataclass(frozen=True, kw_only=True)
class LayerEnergy:
    """What a layer takes of an inference: each part by its events among those of all layers."""

    name: str
    op: str
    cycles: float
    parts: Mapping[Part, Range]

    @property
    def chip(self) -> Range:
        """All parts but system memory."""
        return _chip(self.parts)

    @property
    def total(self) -> Range:
        """All parts."""
        return sum(self.parts.values(), Range())

    def figures(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "name": self.name,
            "op": self.op,
            "cycles": self.cycles,
            "parts": {part.value: asdict(energy) for part, energy in self.parts.items()},
            "chip": asdict(self.chip),
            "total": asdict(self.total),
        }


@dataclass(frozen=True, kw_only=True)
class Energy:
    """The energy of an inference of a model on a machine: an estimate, as a range.

    Attributes
    ----------
    model, config : str
    macs : int
        Multiply-accumulates of the model's definition that the NPU does.
    conditions : Conditions
    events : Events
        What happened; of several inferences the sum.
    items : tuple of Item
        The account, for one inference.
    layers : tuple of LayerEnergy
        In the program's order; the last one is the program's end.
    """

    model: str
    config: str
    macs: int
    conditions: Conditions
    events: Events
    items: tuple[Item, ...]
    layers: tuple[LayerEnergy, ...] = field(default=())

    @property
    def cycles(self) -> float:
        """Of one inference."""
        return self.events.cycles / self.conditions.samples

    @property
    def parts(self) -> dict[Part, Range]:
        """Energy by part; all parts are there."""
        return {
            part: sum((item.energy for item in self.items if item.part is part), Range())
            for part in Part
        }

    @property
    def chip(self) -> Range:
        """All parts but system memory."""
        return _chip(self.parts)

    @property
    def total(self) -> Range:
        """All parts."""
        return sum(self.parts.values(), Range())

    @property
    def accumulator_memory_share(self) -> tuple[float, float]:
        """Share of the accumulator's memory in the chip's energy, at either end of the range."""
        own = sum(
            (i.energy for i in self.items if i.part is Part.ACCUMULATOR and i.memory_cells), Range()
        )
        return own.low_uj / self.chip.low_uj, own.high_uj / self.chip.high_uj

    @property
    def pj_a_mac(self) -> tuple[float, float]:
        """Picojoules on the chip for a multiply-accumulate of the model, at least and at most."""
        return (
            PJ_A_UJ * self.chip.low_uj / self.macs if self.macs else 0.0,
            PJ_A_UJ * self.chip.high_uj / self.macs if self.macs else 0.0,
        )

    @property
    def gops_a_watt(self) -> tuple[float, float]:
        """Billions of operations for a joule on the chip, two a MAC, at least and at most."""
        least, most = self.chip.low_uj, self.chip.high_uj
        return 2e-3 * self.macs / most, 2e-3 * self.macs / least

    def gops(self, clock_mhz: float) -> float:
        """Return billions of operations a second, two a MAC, at a clock."""
        return 2e-9 * self.macs * clock_mhz * MHZ / self.cycles

    def milliwatts(self, clock_mhz: float) -> tuple[float, float]:
        """Return the mean power on the chip while an inference runs, at least and at most."""
        per_uj = 1e-3 * clock_mhz * MHZ / self.cycles
        return per_uj * self.chip.low_uj, per_uj * self.chip.high_uj

    @property
    def sources(self) -> dict[str, Source]:
        """Where the account's energies were published, by name."""
        named = {name for item in self.items for name in item.bounds.sources}
        return {name: source for name, source in sources().items() if name in named}

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; the keys are in ``docs/energy.md``."""
        return {
            "model": self.model,
            "config": self.config,
            "conditions": asdict(self.conditions),
            "cycles": self.cycles,
            "macs": self.macs,
            "unit": "microjoules an inference",
            "parts": {part.value: asdict(energy) for part, energy in self.parts.items()},
            "chip": asdict(self.chip),
            "total": asdict(self.total),
            "accumulator_memory_share": list(self.accumulator_memory_share),
            "pj_a_mac": list(self.pj_a_mac),
            "gops_a_watt": list(self.gops_a_watt),
            "items": [item.figures() for item in self.items],
            "layers": [layer.figures() for layer in self.layers],
            "events": asdict(self.events),
            "not_modelled": list(NOT_MODELLED),
            "sources": {name: asdict(source) for name, source in self.sources.items()},
        }


def items_of(events: Events, memory: str, samples: int = 1) -> tuple[Item, ...]:
    """Return the account of an inference.

    Parameters
    ----------
    events : Events
        Of `samples` inferences together.
    memory : str
        Kind of system memory.
    samples : int
    """
    # Counts are of one inference; activities are those of all.
    activities = events.activities

    def item(
        part: Part,
        name: str,
        count: float,
        bounds: Bounds,
        *,
        high: float | None = None,
        activity: float | None = None,
        memory_cells: bool = False,
    ) -> Item:
        return Item(
            part=part,
            name=name,
            low_count=count / samples,
            high_count=(count if high is None else high) / samples,
            bounds=bounds,
            activity=activity,
            memory_cells=memory_cells,
        )

    def accesses(part: Part, prefix: str, use: MemoryUse) -> list[Item]:
        pairs = ((False, use.reads), (True, use.writes))
        return [
            item(
                part,
                f"{prefix}{'writes' if write else 'reads'}, {use.width_bits} bits",
                count,
                sram(use.width_bits, use.bank_bytes, write=write),
                memory_cells=True,
            )
            for write, count in pairs
        ]

    adder = event("add_bit")
    return (
        item(
            Part.ARRAY,
            "products, 8 x 8 bits",
            events.multiplies,
            event("multiply_8"),
            activity=activities.products,
        ),
        item(
            Part.ARRAY,
            f"sums of {events.sum_bits} bits",
            events.adds,
            adder.times(events.sum_bits),
            activity=activities.sums,
        ),
        *accesses(Part.ACCUMULATOR, "", events.accumulator),
        item(
            Part.ACCUMULATOR,
            f"sums of {VECTOR_BITS} bits",
            events.accumulations,
            adder.times(VECTOR_BITS),
            activity=activities.accumulated,
        ),
        *accesses(Part.ACT, "", events.act),
        *accesses(Part.WEIGHTS, "weights: ", events.weights),
        *accesses(Part.WEIGHTS, "parameters: ", events.params),
        item(
            Part.VECTOR,
            "products, 32 x 32 bits",
            events.vector_multiplies,
            event("multiply_32"),
            activity=activities.vector,
        ),
        item(
            Part.VECTOR,
            f"sums of {VECTOR_BITS} bits",
            VECTOR_ADDS * events.vector_multiplies,
            adder.times(VECTOR_BITS),
            activity=activities.vector,
        ),
        item(
            Part.REGISTERS,
            "flip-flops that change, that have a clock",
            events.changed_bits,
            event("register_bit"),
            high=events.clocked_bits,
        ),
        item(
            Part.MEMORY,
            f"words of {events.bus_bits} bits, {memory.upper()}",
            events.bus_words,
            event(f"memory_{memory}").times(events.bus_bits),
        ),
    )


def _chip(parts: Mapping[Part, Range]) -> Range:
    return sum((energy for part, energy in parts.items() if part is not Part.MEMORY), Range())


def _short(value: float) -> str:
    """Return two significant digits; from 100 on, whole numbers."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}"


def pair_text(values: Sequence[float]) -> str:
    """Return two numbers as a range in words."""
    low, high = values
    return f"{_short(low)} to {_short(high)}"
