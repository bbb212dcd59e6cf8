"""The Verilated NPU as a Python object: clock, registers, interrupt and system memory.

One :class:`RtlSimulator` is one NPU with a memory of its own; a process may have several.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.errors import DeviceError
from celosia.sim.rtl.library import Function, load_library
from celosia.sim.rtl.verilator import Build

__all__ = ["SAMPLE_DTYPE", "BusStatistics", "MemoryModel", "RtlSimulator"]

OK, TIME_OUT, BUS_ERROR, FATAL = range(4)
CSR_LIMIT_CYCLES = 1000
PROBABILITY_ONE = 0xFFFF_FFFF

SAMPLE_DTYPE = np.dtype([("tags", np.uint16, 4), ("state", np.uint32), ("cycles", np.uint32)])
"""A run of equal cycles of a profile: tag of each engine's command, bits of
``hw/contract/trace.py``, how many cycles."""


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """How system memory behaves: a pipelined Wishbone target that answers in order.

    Attributes
    ----------
    latency_cycles : int
        Cycles from the acceptance of a request to its answer, at least 1.
    interval_cycles : int
        Cycles from the acceptance of a request to that of the next, at least 1: 1 for a word a
        cycle, more for a memory whose port is narrower than the bus.
    stall_probability : float
        Chance that requests are refused in a cycle, 0 to 1 (1 excluded).
    delay_probability : float
        Chance that a due answer is held back in a cycle, 0 to 1 (1 excluded).
    seed : int
        Of both; equal seeds give equal runs.
    error_range : tuple of int, optional
        Byte addresses (first, one past the last) whose words are answered with ``err``.
    window : tuple of int, optional
        Byte addresses that exist; everything else is answered with ``err``. All by default.
    dead : bool
        Requests are accepted and never answered.

    Raises
    ------
    ValueError
        Naming the attribute and the value it got.
    """

    latency_cycles: int = 8
    interval_cycles: int = 1
    stall_probability: float = 0.0
    delay_probability: float = 0.0
    seed: int = 1
    error_range: tuple[int, int] | None = None
    window: tuple[int, int] | None = None
    dead: bool = False

    def __post_init__(self) -> None:
        for name in ("latency_cycles", "interval_cycles"):
            cycles = getattr(self, name)
            if cycles < 1:
                raise ValueError(f"{name} must be at least 1, not {cycles}")
        for name in ("stall_probability", "delay_probability"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, not {value}")
        if not 0 < self.seed < 1 << 64:
            raise ValueError(f"seed must be from 1 to 2**64 - 1, not {self.seed}")
        for name in ("error_range", "window"):
            bounds = getattr(self, name)
            if bounds is not None and not 0 <= bounds[0] <= bounds[1] < 1 << 63:
                raise ValueError(f"{name} must be (first, one past the last), not {bounds}")


class BusStatistics(ctypes.Structure):
    """What the memory has counted since the simulator was made (fields: see ``harness.cpp``)."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "cycles",
            "words_read",
            "words_written",
            "stalled",
            "errors",
            "discarded",
            "violations",
            "in_flight",
        )
    ]
    cycles: int
    words_read: int
    words_written: int
    stalled: int
    errors: int
    discarded: int
    violations: int
    in_flight: int


_HANDLE, _U64, _I32, _U32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int32, ctypes.c_uint32
_FUNCTIONS: tuple[Function, ...] = (
    ("npu_bus_bytes", _U32),
    ("npu_create", _HANDLE, ctypes.c_void_p, _U64),
    ("npu_destroy", None, _HANDLE),
    ("npu_message", ctypes.c_char_p, _HANDLE),
    ("npu_reset", _I32, _HANDLE),
    ("npu_csr_read", _I32, _HANDLE, _U32, ctypes.POINTER(_U32), _U64),
    ("npu_csr_write", _I32, _HANDLE, _U32, _U32, _U64),
    ("npu_step", _I32, _HANDLE, _U64),
    ("npu_run_until_irq", _I32, _HANDLE, _U64, ctypes.POINTER(_U64)),
    ("npu_profile_until_irq", _I32, _HANDLE, _U64, ctypes.POINTER(_U64)),
    ("npu_profile_length", _U64, _HANDLE),
    ("npu_profile_copy", None, _HANDLE, ctypes.c_void_p),
    ("npu_irq", _I32, _HANDLE),
    ("npu_set_memory_model", None, _HANDLE, _U64, _U64, _U32, _U32, *(_U64,) * 5, _I32),
    ("npu_statistics", None, _HANDLE, ctypes.POINTER(BusStatistics)),
    ("npu_trace", _I32, _HANDLE, ctypes.c_char_p),
)


class RtlSimulator(Closing):
    """A running RTL simulation.

    Parameters
    ----------
    build : Build
        From :func:`celosia.sim.rtl.verilator.build_npu`.
    memory_bytes : int
        System memory, from byte address 0; a multiple of the bus word.
    memory_model : MemoryModel, optional
        How it behaves; by default 8 cycles of latency, then a word a cycle.

    Members
    -------
    memory : ndarray of uint8, shape [memory_bytes]
        System memory itself, not a copy. Stays valid after :meth:`close`.
    bus_bytes : int
        Bytes of a bus word.

    Raises
    ------
    BuildError
        If the library cannot be loaded.
    """

    def __init__(
        self, build: Build, *, memory_bytes: int, memory_model: MemoryModel | None = None
    ) -> None:
        self._handle: int | None = None
        self._library = load_library(build.library, _FUNCTIONS)
        self._traced = build.traced
        self.bus_bytes = int(self._library.npu_bus_bytes())
        if memory_bytes <= 0 or memory_bytes % self.bus_bytes:
            raise ValueError(
                f"memory_bytes must be a multiple of the bus word ({self.bus_bytes} bytes),"
                f" not {memory_bytes}"
            )
        self.memory: npt.NDArray[np.uint8] = np.zeros(memory_bytes, np.uint8)
        self._handle = self._library.npu_create(self.memory.ctypes.data, memory_bytes)
        if self._handle is None:
            raise DeviceError("RTL simulator", "the model cannot be set up")
        self.set_memory_model(memory_model or MemoryModel())

    def close(self) -> None:
        """End the simulation; a trace is completed. May be called again."""
        if self._handle is not None:
            self._library.npu_destroy(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()

    def set_memory_model(self, model: MemoryModel) -> None:
        """Change how memory behaves, from the next cycle on."""
        first, last = model.error_range or (0, 0)
        window_first, window_last = model.window or (0, self.memory.size)
        self._library.npu_set_memory_model(
            self._open(),
            model.latency_cycles,
            model.interval_cycles,
            int(model.stall_probability * PROBABILITY_ONE),
            int(model.delay_probability * PROBABILITY_ONE),
            # Spread small seeds: xorshift starts slowly from a state with few bits set.
            model.seed * 0x9E37_79B9_7F4A_7C15 & 0xFFFF_FFFF_FFFF_FFFF,
            first,
            last,
            window_first,
            window_last,
            int(model.dead),
        )

    def reset(self) -> None:
        """Pulse the reset input; memory keeps its contents."""
        self._check(self._library.npu_reset(self._open()), "reset")

    def read_csr(self, address: int) -> int:
        """Return the 32-bit register at byte address `address`.

        Raises
        ------
        DeviceError
            If the access is answered with ``err`` or not within 1000 cycles.
        """
        value = ctypes.c_uint32()
        status = self._library.npu_csr_read(
            self._open(), address // 4, ctypes.byref(value), CSR_LIMIT_CYCLES
        )
        self._check(status, f"read of register 0x{address:02x}", address)
        return value.value

    def write_csr(self, address: int, value: int) -> None:
        """Write the 32-bit register at byte address `address`; errors as :meth:`read_csr`."""
        status = self._library.npu_csr_write(self._open(), address // 4, value, CSR_LIMIT_CYCLES)
        self._check(status, f"write of register 0x{address:02x}", address)

    def step(self, cycles: int = 1) -> None:
        """Run the clock."""
        self._check(self._library.npu_step(self._open(), cycles), "simulation")

    def run_until_irq(self, max_cycles: int) -> int | None:
        """Run until the interrupt is high.

        Parameters
        ----------
        max_cycles : int
            Give up after so many.

        Returns
        -------
        int or None
            Cycles that were run; None when the interrupt did not come.
        """
        cycles = ctypes.c_uint64()
        status = self._library.npu_run_until_irq(self._open(), max_cycles, ctypes.byref(cycles))
        if status == TIME_OUT:
            return None
        self._check(status, "simulation")
        return cycles.value

    def profile_until_irq(self, max_cycles: int) -> npt.NDArray[np.void] | None:
        """Run until the interrupt is high and return what the engines did in every cycle.

        Parameters
        ----------
        max_cycles : int
            Give up after so many.

        Returns
        -------
        ndarray of SAMPLE_DTYPE, shape [runs], or None
            Runs of equal cycles, in order; None when the interrupt did not come.

        Raises
        ------
        DeviceError
            If the component has no trace port.
        """
        cycles = ctypes.c_uint64()
        status = self._library.npu_profile_until_irq(self._open(), max_cycles, ctypes.byref(cycles))
        if status == TIME_OUT:
            return None
        self._check(status, "simulation")
        samples = np.empty(self._library.npu_profile_length(self._open()), SAMPLE_DTYPE)
        self._library.npu_profile_copy(self._open(), samples.ctypes.data)
        return samples

    @property
    def irq(self) -> bool:
        """Whether the interrupt is high."""
        return bool(self._library.npu_irq(self._open()))

    @property
    def statistics(self) -> BusStatistics:
        """A copy of the memory's counters."""
        result = BusStatistics()
        self._library.npu_statistics(self._open(), ctypes.byref(result))
        return result

    def trace(self, path: Path | str | None) -> None:
        """Write a VCD trace to `path` from now on, or stop (None).

        Raises
        ------
        DeviceError
            If the file cannot be written, or the build has no tracing.
        """
        if not self._traced:
            raise DeviceError(
                "trace", "the simulator was built without tracing", "build it with trace=True"
            )
        name = None if path is None else str(path).encode()
        self._check(self._library.npu_trace(self._open(), name), f"trace {path}")

    def _open(self) -> int:
        if self._handle is None:
            raise DeviceError("RTL simulator", "it has been closed", "open the device again")
        return self._handle

    def _check(self, status: int, what: str, address: int | None = None) -> None:
        if status == OK:
            return
        cause = {
            TIME_OUT: f"no answer within {CSR_LIMIT_CYCLES} cycles",
            BUS_ERROR: "answered with a bus error",
        }.get(status)
        if cause is None:
            cause = self._library.npu_message(self._open()).decode(errors="replace")
        raise DeviceError(f"RTL simulator: {what}", cause, address=address)
