"""What executes loads and stores in a machine: two engines or one."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Value
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine
from celosia.hw.dma.load import LoadEngine
from celosia.hw.dma.single import TransferEngine
from celosia.hw.dma.store import StoreEngine

__all__ = ["Transfers"]


class Transfers:
    """The load and the store engine, or the one that a compact machine has for both.

    Parameters
    ----------
    config : NpuConfig

    Attributes
    ----------
    engines : tuple of Component
        To be made submodules, and given the regions.
    load, store : CommandPort
    write : WindowWrite
    read : WindowRead
    mems : tuple of MemPort
        One for each engine.
    region : Signal
        Of a compact machine: see :class:`celosia.hw.dma.single.TransferEngine`.
    faults : tuple of FaultPort
        Of the load engine, of the store engine.
    """

    def __init__(self, config: NpuConfig) -> None:
        self.engines: tuple[Any, ...]
        self.mems: tuple[Any, ...]
        if config.compact:
            engine = TransferEngine(config)
            self.engines, self.mems = (engine,), (engine.mem,)
            self.load, self.store = engine.load, engine.store
            self.write, self.read = engine.write, engine.read
            self.faults = (engine.load_fault, engine.store_fault)
            self.region = engine.region
        else:
            load, store = LoadEngine(config), StoreEngine(config)
            self.engines, self.mems = (load, store), (load.mem, store.mem)
            self.load, self.store = load.command, store.command
            self.write, self.read = load.write, store.read
            self.faults = (load.fault, store.fault)

    def parts(self, wake: Value) -> tuple[tuple[str, Any, Value, Value, None], ...]:
        """Return domain, engine, enable, `ahead` and `waits` of each, as for `stops`."""
        if len(self.engines) == 1:
            enable = self.load.valid | self.store.valid
            ahead = wake[Engine.LOAD] | wake[Engine.STORE]
            return (("load", self.engines[0], enable, ahead, None),)
        load, store = self.engines
        return (
            ("load", load, self.load.valid, wake[Engine.LOAD], None),
            ("store", store, self.store.valid, wake[Engine.STORE], None),
        )
