"""The Verilated NPU as a Python object: clock, registers, interrupt and system memory.

One :class:`RtlSimulator` is one NPU with a memory of its own; a process may have several.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.errors import DeviceError
from celosia.hw.contract.trace import TRACE_STATES
from celosia.sim.rtl.library import Function, load_library
from celosia.sim.rtl.verilator import Build

__all__ = [
    "NAME_BYTES",
    "SAMPLE_DTYPE",
    "TRACE_COMMAND_DTYPE",
    "TRACE_LAYER_DTYPE",
    "BusStatistics",
    "CommandNames",
    "MemoryModel",
    "RtlSimulator",
]

OK, TIME_OUT, BUS_ERROR, FATAL = range(4)
CSR_LIMIT_CYCLES = 1000
TRACED_CYCLES = 10_000
"""In one call of the library, of a build that can trace."""
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


NAME_BYTES = 48
"""Most bytes of a name in a waveform."""
TRACE_LAYER_DTYPE = np.dtype([("number", np.int32), ("label", np.uint32), ("tensor", np.uint32)])
"""Number of the operator in the model, names by index."""
TRACE_COMMAND_DTYPE = np.dtype([("layer", np.int32), ("name", np.uint32), ("wanted", np.uint32)])
"""Layer by index, -1: none; name by index; whether its cycles are to be seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CommandNames:
    """What a waveform calls the commands of a program, and which of them are to be in it.

    Attributes
    ----------
    layers : ndarray of TRACE_LAYER_DTYPE, shape [layers]
        In the program's order.
    commands : ndarray of TRACE_COMMAND_DTYPE, shape [commands]
        By tag.
    names : ndarray of bytes, shape [names]
        Of `NAME_BYTES` each.
    """

    layers: npt.NDArray[np.void]
    commands: npt.NDArray[np.void]
    names: npt.NDArray[np.bytes_]

    def __post_init__(self) -> None:
        for name, array, dtype in (
            ("layers", self.layers, TRACE_LAYER_DTYPE),
            ("commands", self.commands, TRACE_COMMAND_DTYPE),
            ("names", self.names, np.dtype(f"S{NAME_BYTES}")),
        ):
            if array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
                raise ValueError(f"{name} must be contiguous, of one dimension and of {dtype}")
        for array, field, most in (
            (self.layers, "label", len(self.names)),
            (self.layers, "tensor", len(self.names)),
            (self.commands, "name", len(self.names)),
            (self.commands, "layer", len(self.layers)),
        ):
            if len(array) and int(array[field].max()) >= most:
                raise ValueError(f"{field} {int(array[field].max())} of {most}")


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
    ("npu_activity", _I32, _HANDLE, ctypes.c_char_p),
)
_ARRAY = (ctypes.c_void_p, _U64)
_WAVE_FUNCTIONS: tuple[Function, ...] = (
    (
        "npu_trace_commands",
        _I32,
        _HANDLE,
        ctypes.c_char_p,
        ctypes.c_char_p,
        *_ARRAY,
        *_ARRAY,
        *_ARRAY,
    ),
    ("npu_trace_pause", None, _HANDLE),
    ("npu_trace_header", ctypes.c_char_p, _HANDLE),
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
        functions = (*_FUNCTIONS, *_WAVE_FUNCTIONS) if build.traced else _FUNCTIONS
        self._library = load_library(build.library, functions)
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
        # While cycles are written a signal of the terminal is not to wait for the end.
        most = TRACED_CYCLES if self._traced else max(max_cycles, 1)
        done = 0
        while done < max_cycles:
            cycles = ctypes.c_uint64()
            status = self._library.npu_run_until_irq(
                self._open(), min(most, max_cycles - done), ctypes.byref(cycles)
            )
            done += cycles.value
            if status != TIME_OUT:
                self._check(status, "simulation")
                return done
        return None

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
    def closed(self) -> bool:
        """Whether the simulation has been ended."""
        return self._handle is None

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
        """Write every cycle from now on to `path`, ``.vcd`` or ``.fst``, or stop (None).

        Raises
        ------
        DeviceError
            If the file cannot be written, or the build has no tracing.
        """
        self._require_tracing()
        name = None if path is None else os.fsencode(path)
        self._check(self._library.npu_trace(self._open(), name), f"trace {path}")

    def trace_commands(self, path: Path | str, names: CommandNames) -> None:
        """Write the cycles of some commands to `path`, ``.vcd`` or ``.fst``, with signals for them.

        The file is opened in the first cycle in which an engine has one of these commands, and is
        complete when the last of them is; it is closed with the simulation, or by
        ``trace(None)``. Until then a further call with the same path goes on in the same file.

        Parameters
        ----------
        path : path
        names : CommandNames
            Of the program that runs next, from its start on.

        Raises
        ------
        DeviceError
            If the build has no tracing. That a file cannot be written is told by what runs the
            clock.
        """
        self._require_tracing()
        status = self._library.npu_trace_commands(
            self._open(),
            os.fsencode(path),
            "\n".join(TRACE_STATES).encode(),
            names.layers.ctypes.data,
            len(names.layers),
            names.commands.ctypes.data,
            len(names.commands),
            names.names.ctypes.data,
            len(names.names),
        )
        self._check(status, f"trace {path}")

    def trace_pause(self) -> None:
        """Write no more cycles until the next call of `trace_commands`."""
        self._require_tracing()
        self._library.npu_trace_pause(self._open())

    @property
    def trace_header(self) -> str:
        """The declarations of the signals in the last file, as VCD has them; empty before it."""
        self._require_tracing()
        text: bytes = self._library.npu_trace_header(self._open())
        return text.decode(errors="replace")

    def _require_tracing(self) -> None:
        if not self._traced:
            raise DeviceError(
                "trace", "the simulator was built without tracing", "build it with trace=True"
            )

    def count_activity(self, path: Path | str | None) -> None:
        """Count how often every net changes from now on, or stop and write it to the path (None).

        The file is SAIF; its unit of time is a cycle (see :mod:`celosia.sim.rtl.activity`).

        Raises
        ------
        DeviceError
            If the file cannot be written, or the build does not count.
        """
        name = None if path is None else os.fsencode(path)
        self._check(self._library.npu_activity(self._open(), name), f"activity {path}")

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
