"""The RTL simulation as a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.regs import address_of
from celosia.sw.driver.device import BUS_TIMEOUT_CYCLES, Device

if TYPE_CHECKING:
    from celosia.sim.rtl.rtl import MemoryModel
    from celosia.sim.rtl.verilator import Build
    from celosia.sw.driver.layout import Layout
    from celosia.sw.program.segments import NpuSegment
    from celosia.sw.report.waves import Waveform
    from rich.console import Console

__all__ = ["SimDevice"]


class SimDevice(Device):
    """The gateware itself, under Verilator in this process.

    Parameters
    ----------
    config : NpuConfig
        The machine; its simulator is built the first time (about a minute) and kept in a cache.
    memory_bytes : int
        System memory.
    memory_model : MemoryModel, optional
        How it behaves; by default 8 cycles of latency, then one word a cycle.
    trace : Waveform, optional
        Write the waveform of some layers: of their first run.
    console : rich.console.Console, optional
        Where the progress of a build is shown.
    profile : bool
        Keep what the engines did in every cycle of the last run; slower.
    watchdog_cycles, bus_timeout_cycles : int, optional
        See `Device`.

    Attributes
    ----------
    samples : ndarray of celosia.sim.rtl.rtl.SAMPLE_DTYPE, shape [runs], or None
        Of the last run with `profile`, from a few cycles after the doorbell to the interrupt.
    profiles : list of ndarray
        The same of all runs with `profile`, a segment each, until somebody clears it.

    Raises
    ------
    BuildError
        If the simulator cannot be built; names the tool that is missing.
    """

    def __init__(
        self,
        config: NpuConfig,
        *,
        memory_bytes: int,
        memory_model: MemoryModel | None = None,
        trace: Waveform | None = None,
        console: Console | None = None,
        profile: bool = False,
        watchdog_cycles: int | None = None,
        bus_timeout_cycles: int = BUS_TIMEOUT_CYCLES,
    ) -> None:
        super().__init__(
            config,
            memory_bytes=memory_bytes,
            watchdog_cycles=watchdog_cycles,
            bus_timeout_cycles=bus_timeout_cycles,
        )
        from celosia.sim.rtl.rtl import RtlSimulator

        self.rtl = RtlSimulator(
            self._build(trace=trace is not None, console=console),
            memory_bytes=memory_bytes,
            memory_model=memory_model,
        )
        self.trace = trace
        self._segment: NpuSegment | None = None
        """That runs."""
        self._traced: list[NpuSegment] = []
        """Of a waveform: those that have run."""
        self.profile = profile
        self.samples: npt.NDArray[np.void] | None = None
        self.profiles: list[npt.NDArray[np.void]] = []

    def _build(self, *, trace: bool, console: Console | None) -> Build:
        from celosia.sim.rtl.verilator import build_npu

        return build_npu(self.config, trace=trace, console=console)

    def read_register(self, name: str) -> int:
        return self.rtl.read_csr(address_of(name))

    def write_register(self, name: str, value: int) -> None:
        self._check_register(name, value)
        self.rtl.write_csr(address_of(name), value)

    def _bring_weights(self, setup: NpuSegment, layout: Layout) -> None:
        profile, trace = self.profile, self.trace
        self.profile, self.trace = False, None
        try:
            super()._bring_weights(setup, layout)
        finally:
            self.profile, self.trace = profile, trace

    def _execute(self, segment: NpuSegment, layout: Layout) -> None:
        self._segment = segment
        try:
            super()._execute(segment, layout)
        finally:
            self._segment = None
            if self.trace is not None:
                self.rtl.trace_pause()

    def wait(self, timeout_cycles: int) -> bool:
        self._trace_segment()
        if self.profile:
            self.samples = self.rtl.profile_until_irq(timeout_cycles)
            if self.samples is not None:
                self.profiles.append(self.samples)
            return self.samples is not None
        return self.rtl.run_until_irq(timeout_cycles) is not None

    def close(self) -> None:
        self._end_session()
        if self.trace is not None and not self.rtl.closed:
            header = self.rtl.trace_header
            self.rtl.close()
            self.trace.finish(header)
        self.rtl.close()

    def _trace_segment(self) -> None:
        """Have the segment that runs in the waveform, if it is to be there and runs first."""
        if self.trace is None or self._segment is None:
            return
        if any(segment is self._segment for segment in self._traced):
            return
        names = self.trace.names_of(self._segment)
        if names is not None:
            self._traced.append(self._segment)
            self.rtl.trace_commands(self.trace.path, names)

    def _read_memory(self, address: int, count: int) -> npt.NDArray[np.uint8]:
        return self.rtl.memory[address : address + count].copy()

    def _write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        self.rtl.memory[address : address + data.size] = data
