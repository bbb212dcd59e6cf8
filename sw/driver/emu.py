"""The emulator as a device: same registers, same faults, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Region
from celosia.hw.contract.regs import (
    ACCESS,
    IDENTITY,
    REGISTERS,
    VERSION,
    ErrorCause,
    capability_words,
    register,
)
from celosia.hw.contract.units import Unit
from celosia.sim.emulator.groups import samples_at_once
from celosia.sim.emulator.machine import Emulator, EmulatorError, EmulatorFault, Order
from celosia.sw.driver.device import BUS_TIMEOUT_CYCLES, Device, field_of
from celosia.sw.driver.result import SegmentResult
from celosia.sw.program.segments import NpuSegment
from celosia.sw.program.tensors import PlacedTensor

__all__ = ["EmuDevice"]

_OWN = (Region.IO, Region.SCRATCH)
"""Regions that each sample of a group has for itself: the last ones of a layout."""

DONE, ERROR = 1, 2
"""Bits of the interrupt registers."""
STATUS_DONE, STATUS_ERROR = 2, 4


class EmuDevice(Device):
    """The emulated NPU.

    Parameters
    ----------
    config : NpuConfig
        The machine.
    memory_bytes : int
        System memory.
    order : "program" or "random"
        In which order engines that could run at the same time do.
    seed : int
        Of the random order.
    watchdog_cycles : int, optional
        As on every device. There is no clock: what counts is the work of each engine (vectors,
        windows, words), fewer cycles than any machine takes. A program that cannot end is found at
        once and reported as WATCHDOG too.
    bus_timeout_cycles : int
        Accepted as on every device, without effect.
    """

    timed = False

    def __init__(
        self,
        config: NpuConfig,
        *,
        memory_bytes: int,
        order: Order = "program",
        seed: int = 0,
        watchdog_cycles: int | None = None,
        bus_timeout_cycles: int = BUS_TIMEOUT_CYCLES,
    ) -> None:
        super().__init__(
            config,
            memory_bytes=memory_bytes,
            watchdog_cycles=watchdog_cycles,
            bus_timeout_cycles=bus_timeout_cycles,
        )
        self.emulator = Emulator(config, memory_bytes)
        self._running = self.emulator
        self._order = order
        self._seed = seed
        self._detail = ""
        self._registers = {entry.name: 0 for entry in REGISTERS}
        words = capability_words(config)
        self._registers |= {
            "identity": IDENTITY,
            "version": VERSION,
            "config_hash": config.hash,
            **{f"capability{index}": word for index, word in enumerate(words)},
        }

    def read_register(self, name: str) -> int:
        register(name)  # KeyError for a name that does not exist
        return self._registers[name]

    def write_register(self, name: str, value: int) -> None:
        self._check_register(name, value)
        for field in register(name).fields:
            mask = ((1 << field.width_bits) - 1) << field.offset_bits
            old = self._registers[name]
            if field.access is ACCESS.RW:
                self._registers[name] = old & ~mask | value & mask
            elif field.access is ACCESS.RW1C:
                self._registers[name] = old & ~(value & mask)
        if name == "doorbell" and field_of(name, "start", value):
            self._run()
        elif name == "control" and field_of(name, "soft_reset", value):
            self._registers["status"] = 0  # the error registers last until the next doorbell

    def wait(self, timeout_cycles: int) -> bool:
        return bool(self._registers["irq_pending"] & self._registers["irq_enable"])

    def close(self) -> None:
        self._end_session()

    def samples_at_once(self, segment: NpuSegment) -> int:
        names = {region.name for region in _OWN}
        # A tensor in another region is one for all samples: each would find that of the last.
        if any(place.info.persistent or place.region not in names for place in segment.placed):
            return 1
        own_bytes = sum(segment.region_bytes(region) for region in _OWN)
        return samples_at_once(self.config, segment.commands, own_bytes)

    def run_samples(
        self, segment: NpuSegment, samples: Sequence[Mapping[str, npt.NDArray[Any]]]
    ) -> list[SegmentResult]:
        most = 1 if len(samples) == 1 else self.samples_at_once(segment)
        if most == 1:
            return super().run_samples(segment, samples)
        results: list[SegmentResult] = []
        for first in range(0, len(samples), most):
            results += self._run_group(segment, samples[first : first + most])
        return results

    def _run_group(
        self, segment: NpuSegment, samples: Sequence[Mapping[str, npt.NDArray[Any]]]
    ) -> list[SegmentResult]:
        """Run a segment on a machine whose IO and SCRATCH each sample has for itself."""
        self.load(segment)
        assert self._loaded is not None
        layout = self._loaded[1]
        own = range(layout[Region.IO].base, layout.end)
        machine = self.emulator.for_samples(len(samples), own)
        for tensor in segment.inputs:
            at_start, place = self._span(tensor, layout)
            for number, sample in enumerate(samples):
                content = np.zeros(at_start.end, np.uint8)
                at_start.scatter(content, sample[tensor.name])
                machine.own_memory[place - own.start :, number][: content.size] = content
        self._running = machine
        there, self._on_chip = self._on_chip, None  # not in this machine
        try:
            self._run_loaded(segment, layout)
        finally:
            self._running, self._on_chip = self.emulator, there

        def read(tensors: Sequence[PlacedTensor], number: int) -> dict[str, npt.NDArray[Any]]:
            values = {}
            for tensor in tensors:
                at_start, place = self._span(tensor, layout)
                content = machine.own_memory[place - own.start :, number][: at_start.end]
                values[tensor.name] = at_start.gather(np.ascontiguousarray(content))
            return values

        return [
            SegmentResult(
                name=segment.name,
                outputs=read(segment.outputs, number),
                tensors=read(segment.intermediates, number),
            )
            for number in range(len(samples))
        ]

    def fault_detail(self) -> str:
        return self._detail

    def _read_memory(self, address: int, count: int) -> npt.NDArray[np.uint8]:
        return self.emulator.memory[address : address + count].copy()

    def _write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self.emulator.memory[address : address + data.size] = data

    def _run(self) -> None:
        self._detail = ""
        self._registers |= {"status": 0, "error_cause": 0, "error_address": 0}
        for region in Region:
            base = self._registers[f"region{region.value}_base"]
            self._running.set_region(region, base, self._registers[f"region{region.value}_size"])
        try:
            self._running.run(
                self._order, self._seed, work_limit=self._registers["watchdog"] or None
            )
        except EmulatorFault as fault:
            self._stop(fault.cause, fault.unit, fault.tag, fault.address, fault.detail)
        except EmulatorError as error:
            self._stop(ErrorCause.WATCHDOG, Unit.FETCH, 0, 0, str(error))
        else:
            self._registers["status"] = STATUS_DONE
            self._registers["irq_pending"] |= DONE

    def _stop(self, cause: ErrorCause, unit: int, tag: int, address: int, detail: str) -> None:
        self._detail = detail
        self._registers["status"] = STATUS_ERROR
        self._registers["irq_pending"] |= ERROR
        self._registers["error_cause"] = cause | unit << 8 | tag << 16
        self._registers["error_address"] = address & 0xFFFF_FFFF
