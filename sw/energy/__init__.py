"""Energy of an inference: what the RTL does, times what others have published of each event."""

from celosia.sw.energy.measure import energy_of
from celosia.sw.energy.model import Energy, Item, Part, Range

__all__ = ["Energy", "Item", "Part", "Range", "energy_of"]
