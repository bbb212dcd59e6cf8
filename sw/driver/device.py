"""The interface of every device, and how a segment of a program runs on one.

A device gives six primitives (registers, memory, interrupt, close); everything else is here and is
the same for the emulator, the RTL simulator and a board.
"""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from celosia.closing import Closing
from celosia.errors import DeviceError
from celosia.hw.contract.config import PRESETS, NpuConfig, differences
from celosia.hw.contract.isa import Region
from celosia.hw.contract.regs import COUNTERS, IDENTITY, VERSION, capability_words, register
from celosia.sw.driver.faults import Fault, fault_error
from celosia.sw.driver.inputs import Inputs
from celosia.sw.driver.layout import Layout
from celosia.sw.driver.result import Result, SegmentResult
from celosia.sw.program.file import Program
from celosia.sw.program.segments import NpuSegment
from celosia.sw.program.tensors import PlacedTensor

if TYPE_CHECKING:
    from celosia.sw.runtime.session import Session

__all__ = ["Device", "field_of"]

FIRST_ADDRESS = 0x40
"""Not 0, so that an address without its region's base never works by chance."""
WATCHDOG_MARGIN = 8
WATCHDOG_LEAST_CYCLES = 10_000_000
WATCHDOG_MOST_CYCLES = (1 << 32) - 1
BUS_TIMEOUT_CYCLES = 100_000
HOST_EXTRA_CYCLES = 1_000_000
"""What the host waits beyond the watchdog, which is expected to speak first."""
RESET_POLLS = 1000
_REGION_BASES = frozenset(f"region{region.value}_base" for region in Region)


def field_of(name: str, field: str, value: int) -> int:
    """Return one field of a register's value.

    Parameters
    ----------
    name, field : str
        As in ``celosia.hw.contract.regs``.
    value : int
        The register's 32 bits.
    """
    for entry in register(name).fields:
        if entry.name == field:
            return value >> entry.offset_bits & ((1 << entry.width_bits) - 1)
    raise KeyError(f"register {name} has no field {field}")


def _bit(name: str, field: str) -> int:
    """Return the value of a register in which this one-bit field is set."""
    return 1 << next(entry.offset_bits for entry in register(name).fields if entry.name == field)


class Device(Closing):
    """An NPU with its system memory.

    Parameters
    ----------
    config : NpuConfig
        What the device is expected to be.
    memory_bytes : int
        Size of its system memory.
    watchdog_cycles : int, optional
        Cycles a program may take; by default eight times the compiler's estimate, at least 10 M.
    bus_timeout_cycles : int
        Cycles one answer of system memory may take.
    """

    timed: ClassVar[bool] = True
    """Whether cycles mean anything on this device."""

    def __init__(
        self,
        config: NpuConfig,
        *,
        memory_bytes: int,
        watchdog_cycles: int | None = None,
        bus_timeout_cycles: int = BUS_TIMEOUT_CYCLES,
    ) -> None:
        for name, value in (("watchdog", watchdog_cycles), ("bus_timeout", bus_timeout_cycles)):
            if value is not None and not 0 < value <= WATCHDOG_MOST_CYCLES:
                raise DeviceError(
                    "device", f"{name}_cycles is {value}", f"give 1 to {WATCHDOG_MOST_CYCLES}"
                )
        self.config = config
        self.memory_bytes = memory_bytes
        self._watchdog_cycles = watchdog_cycles
        self._bus_timeout_cycles = bus_timeout_cycles
        self._loaded: tuple[NpuSegment, Layout] | None = None
        self._keeper: weakref.ref[Session] | None = None
        """The session whose variables are in memory."""
        self._on_chip: NpuSegment | None = None
        """The segment whose weights are on chip, to stay there."""
        self._beside: list[tuple[NpuSegment, Layout]] = []
        """Further segments that are in memory, above or below."""
        self._session: Session | None = None
        """That of the program that `run` has run last."""

    # Primitives -------------------------------------------------------------------------------

    @abstractmethod
    def read_register(self, name: str) -> int:
        """Return the 32 bits of the register called `name`."""

    @abstractmethod
    def write_register(self, name: str, value: int) -> None:
        """Write the 32 bits of the register called `name`.

        Raises
        ------
        DeviceError
            If it is a region's base, and no multiple of the bus word.
        """

    @abstractmethod
    def _read_memory(self, address: int, count: int) -> npt.NDArray[np.uint8]:
        """Return a copy of system memory; the range has been checked."""

    @abstractmethod
    def _write_memory(self, address: int, data: npt.NDArray[np.uint8]) -> None:
        """Write system memory; the range has been checked."""

    @abstractmethod
    def wait(self, timeout_cycles: int) -> bool:
        """Wait for the interrupt and return whether it came within `timeout_cycles`."""

    @abstractmethod
    def close(self) -> None:
        """Give up the device; may be called again."""

    def fault_detail(self) -> str:
        """Return what the device knows about the last error beyond its registers."""
        return ""

    # What some devices do better in one go -----------------------------------------------------

    def read_registers(self, names: Sequence[str]) -> list[int]:
        """Return the values of several registers."""
        return [self.read_register(name) for name in names]

    def write_registers(self, values: Mapping[str, int]) -> None:
        """Write several registers, in this order."""
        for name, value in values.items():
            self.write_register(name, value)

    def _upload(self, contents: Mapping[int, bytes]) -> None:
        """Put a segment's code and constants into memory, by address; ranges have been checked."""
        for address, content in contents.items():
            self._write_memory(address, np.frombuffer(content, np.uint8))

    # What all devices share -------------------------------------------------------------------

    def _check_register(self, name: str, value: int) -> None:
        """Refuse what the machine would not take as it is written.

        A region whose base is no multiple of the bus word has no bytes: the machine would stop at
        the first access to it.
        """
        if name in _REGION_BASES and value % self.config.bus_bytes:
            raise DeviceError(
                f"register {name}",
                f"0x{value:x} is no multiple of the bus word, {self.config.bus_bytes} bytes",
                "place the region at a multiple of it",
                address=value,
            )

    def read_memory(self, address: int, count: int) -> bytes:
        """Return `count` bytes of system memory.

        Raises
        ------
        DeviceError
            If the range leaves the memory.
        """
        self._check_range(address, count)
        return self._read_memory(address, count).tobytes()

    def write_memory(self, address: int, data: bytes | npt.NDArray[np.uint8]) -> None:
        """Write bytes to system memory.

        Raises
        ------
        DeviceError
            If the range leaves the memory.
        """
        content = np.frombuffer(bytes(data), np.uint8)
        self._check_range(address, content.size)

        def intact(layout: Layout) -> bool:
            end = address + content.size
            return address >= layout[Region.CONST].end or end <= layout[Region.CODE].base

        if self._loaded is not None:
            layout = self._loaded[1]
            if address < layout.end and address + content.size > layout[Region.CODE].base:
                self._save_variables()
            if not intact(layout):
                self._loaded = self._on_chip = None  # it is no longer what was loaded
        self._beside = [entry for entry in self._beside if intact(entry[1])]
        self._write_memory(address, content)

    def read_field(self, name: str, field: str) -> int:
        """Return one field of a register."""
        return field_of(name, field, self.read_register(name))

    def identify(self) -> None:
        """Check that the device is a Celosia NPU of the expected configuration.

        Raises
        ------
        DeviceError
            Saying what it is instead.
        """
        identity = self.read_register("identity")
        if identity != IDENTITY:
            raise DeviceError(
                "device",
                f"it is not a Celosia NPU (identity 0x{identity:08x}, not 0x{IDENTITY:08x})",
                "check the address, the cable and the bitstream",
            )
        version = self.read_register("version")
        if version >> 16 != VERSION >> 16:
            raise DeviceError(
                "device",
                f"its interface has version {version >> 16}.{version & 0xFFFF}, this software"
                f" speaks {VERSION >> 16}.{VERSION & 0xFFFF}",
                "install the software or the bitstream of the other's version",
            )
        found = self.read_register("config_hash")
        if found != self.config.hash:
            raise DeviceError(
                "device",
                f"it is not of configuration {self.config.name!r}: {self._differences(found)}",
                "open it with the configuration it was built from",
            )

    def _differences(self, found_hash: int) -> str:
        """Say in what a device is another one than expected, as far as it can be asked."""
        for config in PRESETS.values():
            if config.hash == found_hash:
                texts = differences(config, self.config)
                return f"it is {config.name!r}, where {', '.join(texts)}"
        different = []
        for index, expected in enumerate(capability_words(self.config)):
            name = f"capability{index}"
            value = self.read_register(name)
            for field in register(name).fields:
                got, wanted = (field_of(name, field.name, v) for v in (value, expected))
                if got != wanted:
                    different.append(f"{field.name} is {got}, not {wanted}")
        return ", ".join(different) or f"its hash is 0x{found_hash:08x}"

    def soft_reset(self) -> None:
        """Return the NPU to its start; registers and system memory keep their contents.

        Raises
        ------
        DeviceError
            If it stays busy.
        """
        self.write_register("control", _bit("control", "soft_reset"))
        for _ in range(RESET_POLLS):
            if not self.read_field("status", "busy"):
                self.write_register("irq_pending", self._all_interrupts)
                return
        raise DeviceError("device", "it is busy after a soft reset", "reset or reprogram it")

    def load(self, segment: NpuSegment, beside: Sequence[NpuSegment] = ()) -> None:
        """Put a segment's code and weights into system memory, unless they are there already.

        Parameters
        ----------
        segment : NpuSegment
            What is to be run next.
        beside : sequence of NpuSegment
            Segments that stay where they are, if there is room: those of the same program.

        Raises
        ------
        DeviceError
            If it does not fit into memory.
        """
        if self._loaded is not None and self._loaded[0] is segment:
            return
        self._save_variables()
        there = [*([] if self._loaded is None else [self._loaded]), *self._beside]
        staying = [entry for entry in there if any(entry[0] is other for other in beside)]
        known = next((entry for entry in staying if entry[0] is segment), None)
        if known is not None:
            self._loaded, self._beside = known, [e for e in staying if e is not known]
            return
        layout = self._place(segment, max((entry[1].end for entry in staying), default=0))
        if any(layout[Region.CODE].base < entry[1].end for entry in staying):
            staying = []  # there was no room beside them
        self._loaded, self._beside = None, staying
        self._upload(
            {
                layout[Region.CODE].base: segment.code,
                layout[Region.CONST].base: segment.constants,
            }
        )
        self._loaded = segment, layout

    def run(self, program: Program, inputs: Inputs, *, quantize: bool = False) -> Result:
        """Run one inference.

        Runs of one program after the other are one `celosia.sw.runtime.session.Session`: what it
        keeps from run to run is kept until another program is run.

        Parameters
        ----------
        program : Program
            Compiled for this device's configuration.
        inputs : Inputs
            Arrays by tensor name or in the model's order; one array for a model with one input.
        quantize : bool
            Convert floating-point inputs with each tensor's scale and zero point.

        Returns
        -------
        Result
            Outputs, cycles and counters.

        Raises
        ------
        InputError
            If an input is missing or of the wrong shape or dtype.
        ProgramError
            If the program was compiled for another configuration.
        DeviceError
            If the device stops with a fault or does not end. It has been reset and runs the next
            program correctly.
        """
        return self._session_of(program).run(inputs, quantize=quantize)

    def reset_state(self) -> None:
        """Let the program that was run last begin anew: its variables hold what they did at first.

        Sessions have a `reset` of their own.
        """
        if self._session is not None:
            self._session.reset()

    @property
    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The variables, by name, as the last call of `run` left them; copies."""
        return {} if self._session is None else self._session.state

    def restore_state(self, program: Program, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Let the next call of `run` with a program begin with these variables.

        Raises
        ------
        InputError
            If one is missing, unknown, or of the wrong shape or dtype.
        ProgramError
            If the program was compiled for another configuration.
        """
        self._session_of(program).restore(state)

    def _session_of(self, program: Program) -> Session:
        # Sessions run programs on devices, so they are above this module.
        from celosia.sw.runtime.session import Session

        if self._session is None or self._session.program is not program:
            session = Session(program, self)
            self._end_session()
            self._session = session
        return self._session

    def _end_session(self) -> None:
        """End what `run` has begun; every device does so when it is closed."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def run_segment(
        self,
        segment: NpuSegment,
        inputs: Mapping[str, npt.NDArray[Any]],
        *,
        keeper: Session | None = None,
    ) -> SegmentResult:
        """Run one segment of a program.

        Parameters
        ----------
        segment : NpuSegment
            Compiled for this device's configuration.
        inputs : mapping of str to ndarray
            By tensor name, in each tensor's shape and dtype.
        keeper : Session, optional
            Whose variables are in memory (`keep`): they are neither written nor read, and stay as
            they were if the run fails.

        Raises
        ------
        InputError
            If an array is of the wrong shape or dtype.
        DeviceError
            As of `run`.
        """
        self.load(segment)
        assert self._loaded is not None
        assert keeper is None or self.keeps(keeper), "its variables are in memory"
        layout = self._loaded[1]
        taken, given = (
            [tensor for tensor in tensors if keeper is None or not tensor.info.persistent]
            for tensors in (segment.inputs, segment.outputs)
        )
        for tensor in taken:
            self._put(tensor, inputs[tensor.name], layout)
        self._run_loaded(segment, layout)
        counters: dict[str, int] = {}
        if self.timed:
            names = [name for name, _ in COUNTERS]
            values = self.read_registers([f"count_{name}" for name in names])
            counters = dict(zip(names, values, strict=True))
        result = SegmentResult(
            name=segment.name,
            outputs={tensor.name: self._get(tensor, layout) for tensor in given},
            tensors={tensor.name: self._get(tensor, layout) for tensor in segment.intermediates},
            cycles=counters.get("total"),
            counters=counters,
        )
        if keeper is not None:
            # What the run wrote is what the next one reads.
            self._loaded = segment, layout.exchanged()
        return result

    def samples_at_once(self, segment: NpuSegment) -> int:
        """Return how many samples of a segment this device runs together."""
        return 1

    def run_samples(
        self, segment: NpuSegment, samples: Sequence[Mapping[str, npt.NDArray[Any]]]
    ) -> list[SegmentResult]:
        """Run one segment for each of several samples, which do not depend on one another.

        Parameters
        ----------
        segment : NpuSegment
            Compiled for this device's configuration, without variables.
        samples : sequence of mapping
            The inputs of each, as `run_segment` takes them.

        Returns
        -------
        list of SegmentResult
            Of each, equal to what `run_segment` gives.

        Raises
        ------
        InputError, DeviceError
            As of `run_segment`.
        """
        return [self.run_segment(segment, sample) for sample in samples]

    # Variables in memory ----------------------------------------------------------------------

    def keep(
        self, keeper: Session, segment: NpuSegment, values: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Put a session's variables into memory, where they stay until something else needs it.

        Parameters
        ----------
        keeper : Session
            It gets them back by its `save` before they are lost.
        segment : NpuSegment
            Whose variables; it `exchanges`.
        values : mapping of str to ndarray
            By tensor name.

        Raises
        ------
        DeviceError
            If they do not fit.
        """
        self.load(segment)
        self._save_variables()
        assert self._loaded is not None
        for tensor in segment.inputs:
            if tensor.info.persistent:
                self._put(tensor, values[tensor.name], self._loaded[1])
        self._keeper = weakref.ref(keeper)

    def keeps(self, keeper: Session) -> bool:
        """Whether a session's variables are in memory."""
        return self._keeper is not None and self._keeper() is keeper

    def kept(self) -> dict[str, npt.NDArray[Any]]:
        """Return the variables that are in memory, by name."""
        if self._keeper is None or self._loaded is None:
            return {}
        segment, layout = self._loaded
        return {
            tensor.name: self._get(tensor, layout)
            for tensor in segment.inputs
            if tensor.info.persistent
        }

    def forget(self, keeper: Session) -> None:
        """Take a session's variables for worthless, if they are in memory."""
        if self.keeps(keeper):
            self._keeper = None

    def _save_variables(self) -> None:
        """Give the variables that are in memory back to their session."""
        keeper = None if self._keeper is None else self._keeper()
        if keeper is not None:
            keeper.save()
        self._keeper = None

    def _place(self, segment: NpuSegment, first: int = 0) -> Layout:
        """Return where the segment's regions go: behind `first`, else at the beginning."""
        if first > FIRST_ADDRESS:
            with contextlib.suppress(DeviceError):
                return Layout.of(segment, first=first, memory_bytes=self.memory_bytes)
        return Layout.of(segment, first=FIRST_ADDRESS, memory_bytes=self.memory_bytes)

    # Steps of a run ---------------------------------------------------------------------------

    @property
    def _all_interrupts(self) -> int:
        return _bit("irq_enable", "done") | _bit("irq_enable", "error")

    def _run_loaded(self, segment: NpuSegment, layout: Layout) -> None:
        """Run a segment that is in memory; first what brings its weights, unless they are there."""
        there, self._on_chip = self._on_chip, None
        if segment.setup and there is not segment:
            self._bring_weights(*layout.setup(segment))
        self._execute(segment, layout)
        self._on_chip = segment if segment.setup else None

    def _bring_weights(self, setup: NpuSegment, layout: Layout) -> None:
        """Run what brings weights that stay; nobody asks what that takes."""
        self._execute(setup, layout)

    def _execute(self, segment: NpuSegment, layout: Layout) -> None:
        if self.read_field("status", "busy") or self.read_field("status", "error"):
            self.soft_reset()  # an interrupted run, or a fault nobody handled
        watchdog = self._watchdog_cycles or self._default_watchdog(segment)
        setup = {}
        for region in Region:
            place = layout[region]
            setup[f"region{region.value}_base"] = place.base
            setup[f"region{region.value}_size"] = place.size
        setup["control"] = 0  # awake
        setup["watchdog"] = watchdog
        setup["bus_timeout"] = self._bus_timeout_cycles
        setup["irq_pending"] = self._all_interrupts
        setup["irq_enable"] = self._all_interrupts
        setup["doorbell"] = _bit("doorbell", "start")
        self.write_registers(setup)
        came = self.wait(watchdog + HOST_EXTRA_CYCLES)
        status = self.read_register("status")
        if field_of("status", "error", status):
            fault = self._read_fault()
            self.soft_reset()
            raise fault_error(fault, segment, layout)
        if not came or not field_of("status", "done", status):
            self.soft_reset()
            raise DeviceError(
                f"program {segment.name!r}",
                f"the device gave no interrupt (status 0x{status:08x}) and its watchdog is silent",
                "check that the device's clock runs and the bitstream is the right one",
            )
        self.write_register("irq_pending", self._all_interrupts)

    def _read_fault(self) -> Fault:
        value = self.read_register("error_cause")
        return Fault(
            cause=field_of("error_cause", "cause", value),
            unit=field_of("error_cause", "unit", value),
            tag=field_of("error_cause", "tag", value),
            address=self.read_register("error_address"),
            detail=self.fault_detail(),
        )

    @staticmethod
    def _default_watchdog(segment: NpuSegment) -> int:
        wanted = max(WATCHDOG_MARGIN * segment.predicted_cycles, WATCHDOG_LEAST_CYCLES)
        return min(wanted, WATCHDOG_MOST_CYCLES)

    def _put(self, tensor: PlacedTensor, values: npt.NDArray[Any], layout: Layout) -> None:
        at_start, place = self._span(tensor, layout)
        content = np.zeros(at_start.end, np.uint8)
        at_start.scatter(content, values)
        self._write_memory(place, content)

    def _get(self, tensor: PlacedTensor, layout: Layout) -> npt.NDArray[Any]:
        at_start, place = self._span(tensor, layout)
        return at_start.gather(self._read_memory(place, at_start.end))

    @staticmethod
    def _span(tensor: PlacedTensor, layout: Layout) -> tuple[PlacedTensor, int]:
        """Return the tensor as if it lay at 0, and the address where it does lie."""
        place = layout[Region[tensor.region]]
        return dataclasses.replace(tensor, offset=0), place.base + tensor.offset

    def _check_range(self, address: int, count: int) -> None:
        if address < 0 or count < 0 or address + count > self.memory_bytes:
            raise DeviceError(
                "system memory",
                f"bytes {address} to {address + count} are not in its {self.memory_bytes}",
                "open the device with more memory_bytes",
                address=address,
            )
