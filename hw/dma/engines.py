"""What executes loads and stores in a machine: two engines or one."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Value
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Engine, Region
from celosia.hw.dma.load import LoadEngine
from celosia.hw.dma.runs import Stage
from celosia.hw.dma.single import TransferEngine
from celosia.hw.dma.store import StoreEngine
from celosia.hw.fabric.buffer import StreamBuffer
from celosia.hw.fabric.ports import Unit

__all__ = ["SingleTransfers", "Transfers"]


class Transfers:
    """The load and the store engine.

    It is no component, so that each engine is one of whoever has them.

    Parameters
    ----------
    config : NpuConfig
    stage : type of StreamBuffer or StreamWire
        What is between the stages of their walks.

    Attributes
    ----------
    engines : tuple of Component
        To be made submodules, and given the regions.
    load, store : CommandPort
    done : Value
        The oldest load that was not done is done.
    busy : Value
        Words are on their way to where they should.
    write : WindowWrite
    read : WindowRead
    mems : tuple of MemPort
        One for each engine.
    units : tuple of Unit
        Whose bus errors are those of each of `mems`.
    also_stores : tuple of int
        Places in `mems` whose bus errors are the store engine's while it runs.
    region : Value
        The one whose entry is used, where only one is shown; else CODE.
    faults : tuple of FaultPort
        Of the load engine, of the store engine.
    """

    units: tuple[Unit, ...] = (Unit.LOAD, Unit.STORE)
    also_stores: tuple[int, ...] = ()

    def __init__(self, config: NpuConfig, *, stage: Stage = StreamBuffer) -> None:
        load, store = LoadEngine(config, stage=stage), StoreEngine(config, stage=stage)
        self.engines: tuple[Any, ...] = (load, store)
        self.mems: tuple[Any, ...] = (load.mem, store.mem)
        self.load, self.store = load.command, store.command
        self.done, self.busy = load.done, load.busy
        self.write, self.read = load.write, store.read
        self.faults = (load.fault, store.fault)
        self.region: Value = Const(Region.CODE, range(len(Region)))

    def domains(self, wake: Value) -> tuple[tuple[str, Any, Value, Value, None], ...]:
        """Return domain, engine, enable, `ahead` and `waits` of each, as for `stops`."""
        load, store = self.engines
        return (
            ("load", load, self.load.valid | self.busy, wake[Engine.LOAD] | self.busy, None),
            ("store", store, self.store.valid, wake[Engine.STORE], None),
        )


class SingleTransfers(Transfers):
    """One engine for both: see :class:`celosia.hw.dma.single.TransferEngine`."""

    units = (Unit.LOAD,)
    also_stores = (0,)

    def __init__(self, config: NpuConfig, *, stage: Stage = StreamBuffer) -> None:
        engine = TransferEngine(config, stage=stage)
        self.engines, self.mems = (engine,), (engine.mem,)
        self.load, self.store = engine.load, engine.store
        self.done, self.busy = engine.done, engine.busy
        self.write, self.read = engine.write, engine.read
        self.faults = (engine.load_fault, engine.store_fault)
        self.region = engine.region

    def domains(self, wake: Value) -> tuple[tuple[str, Any, Value, Value, None], ...]:
        """Return domain, engine, enable, `ahead` and `waits` of it, as for `stops`."""
        enable = self.load.valid | self.store.valid | self.busy
        ahead = wake[Engine.LOAD] | wake[Engine.STORE] | self.busy
        return (("load", self.engines[0], enable, ahead, None),)
