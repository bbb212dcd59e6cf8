"""The parts of a program: each runs on the NPU or on the host.

A program's segments run one after the other and hand tensors on by name. Those of the NPU are a
stream of commands with all that a device needs to run it, those of the host a small model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from celosia.errors import ProgramError
from celosia.hw.contract import isa
from celosia.hw.contract.isa import COMMAND_BYTES, Command, IsaError, Load, Region
from celosia.sw.program.origin import Origin
from celosia.sw.program.remedies import REBUILD
from celosia.sw.program.tensors import PlacedTensor, TensorInfo

__all__ = [
    "DEFAULT_KERNELS",
    "HostSegment",
    "KERNELS",
    "LayerInfo",
    "MAX_COMMANDS",
    "MemoryPlan",
    "NO_LAYER",
    "NPU_DTYPES",
    "NpuSegment",
    "ONNXRUNTIME",
    "REFERENCE_KERNELS",
    "ReservedError",
    "Segment",
]

MAX_COMMANDS = 1 << 16
"""Of a segment: as many as there are tags."""
NO_LAYER = -1
"""In `NpuSegment.command_layers`: the command works for no layer."""
NPU_DTYPES = ("int8",)
"""Element types of the tensors that an NPU segment takes and gives."""

REFERENCE_KERNELS, DEFAULT_KERNELS, ONNXRUNTIME = "reference", "default", "onnxruntime"
KERNELS = (REFERENCE_KERNELS, DEFAULT_KERNELS, ONNXRUNTIME)
"""What computes a segment of the host: TFLite's reference kernels, or its default ones where there
is no reference kernel, or a wrong one; or onnxruntime, of an ONNX model."""
MODEL_IDENTIFIER = b"TFL3"


class ReservedError(ProgramError):
    """What the format has room for, and this software does not run."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a segment needs of system memory, and how the compiler placed things on chip.

    Parameters
    ----------
    region_bytes : dict
        Bytes needed of each region, by the name of `Region`.
    plan : list of dict
        For people and reports: one entry an allocation, as the compiler chooses to describe it.
    """

    region_bytes: dict[str, int] = field(default_factory=dict)
    plan: list[dict[str, int | str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, size in self.region_bytes.items():
            if name not in Region.__members__:
                raise ProgramError("the program's memory plan", f"no region {name!r}", REBUILD)
            if size < 0:
                raise ProgramError(
                    "the program's memory plan", f"region {name} has {size} bytes", REBUILD
                )


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """Debug information of one layer.

    Parameters
    ----------
    name, op : str
        The layer's name and its operator, or operators.
    origin : Origin
        The operator of the model; of several, the one that does the work.
    first_tag, last_tag : int
        The first and the last of its commands; -1 if it has none. Layers overlap: between the two
        are commands of others as well, `NpuSegment.command_layers` says which.
    tiles : int
        Accumulator tiles.
    macs : int
        Multiplications that the layer's definition needs.
    folded_macs : int
        How many of these are not computed because constant or unread channels were removed.
    predicted_cycles : int
        The compiler's estimate.
    sram_bytes, dram_bytes : int
        Activations and weights held on chip; bytes that cross the bus.
    runs_on : str
        "npu" or "host".
    reason : str
        Why it runs there.
    """

    name: str
    op: str
    origin: Origin = field(default_factory=Origin)
    first_tag: int = -1
    last_tag: int = -1
    tiles: int = 0
    macs: int = 0
    folded_macs: int = 0
    predicted_cycles: int = 0
    sram_bytes: int = 0
    dram_bytes: int = 0
    runs_on: str = "npu"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class NpuSegment:
    """What the NPU does in one go: from a doorbell to the interrupt.

    Parameters
    ----------
    name : str
        For people: the model's, in a program of one segment.
    commands : bytes
        The command stream (region CODE).
    setup : bytes
        Another one, behind it in region CODE: it brings the weights that stay on chip, and runs
        once before the first run, and again when something else has used the chip. Empty if all
        weights are loaded in every run.
    constants : bytes
        Weights and parameters (region CONST).
    inputs, outputs : tuple of PlacedTensor
        What must be in system memory before the segment runs, and what is there afterwards.
    intermediates : tuple of PlacedTensor
        Tensors that it leaves in system memory only to be looked at, if that was asked for.
    memory : MemoryPlan
        Bytes of each region.
    layers : tuple of LayerInfo
        One entry a layer, in order.
    command_layers : tuple of int
        For each command the layer it works for, as an index into `layers`; -1: none (`End`).
        Empty if nobody knows, as for commands that were written by hand.

    Raises
    ------
    ProgramError
        If a tensor leaves its region.
    ReservedError
        If a tensor's elements are of a type that the NPU does not compute with.
    """

    name: str = ""
    commands: bytes
    setup: bytes = b""
    constants: bytes = b""
    inputs: tuple[PlacedTensor, ...] = ()
    outputs: tuple[PlacedTensor, ...] = ()
    intermediates: tuple[PlacedTensor, ...] = ()
    memory: MemoryPlan = field(default_factory=MemoryPlan)
    layers: tuple[LayerInfo, ...] = ()
    command_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for tensor in self.placed:
            what = f"tensor {tensor.name!r}"
            if tensor.info.dtype not in NPU_DTYPES:
                raise ReservedError(
                    what,
                    f"its elements are {tensor.info.dtype}, the NPU computes with"
                    f" {', '.join(NPU_DTYPES)}",
                    "update the software, or compile the model again",
                )
            size = self.region_bytes(Region[tensor.region])
            if tensor.end > size:
                raise ProgramError(
                    what,
                    f"it ends at byte {tensor.end} of region {tensor.region}, which has {size}",
                    REBUILD,
                )

    @property
    def placed(self) -> tuple[PlacedTensor, ...]:
        """Inputs, outputs and intermediates."""
        return (*self.inputs, *self.outputs, *self.intermediates)

    @property
    def exchanges(self) -> bool:
        """Whether variables can stay in memory from run to run.

        Each lies in region IO before a run and at the same place of region SCRATCH behind it: the
        device exchanges the two regions, and what was written is what is read next.
        """
        before, after = (
            {tensor.name: tensor for tensor in tensors if tensor.info.persistent}
            for tensors in (self.inputs, self.outputs)
        )
        return bool(before) and after == {
            name: replace(tensor, region=Region.SCRATCH.name)
            for name, tensor in before.items()
            if tensor.region == Region.IO.name
        }

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """What its tensors are, wherever they lie."""
        return infos_of(self.placed)

    @property
    def taken(self) -> tuple[TensorInfo, ...]:
        """The tensors that it needs."""
        return infos_of(self.inputs)

    @property
    def given(self) -> tuple[TensorInfo, ...]:
        """The tensors that it makes for others."""
        return infos_of(self.outputs)

    @property
    def predicted_cycles(self) -> int:
        """The compiler's estimate of the time it takes."""
        return sum(layer.predicted_cycles for layer in self.layers)

    def layer_of(self, command: int) -> LayerInfo | None:
        """Return the layer that a command works for; None if it has none or nobody knows."""
        if not 0 <= command < len(self.command_layers):
            return None
        layer = self.command_layers[command]
        return None if layer == NO_LAYER else self.layers[layer]

    def decode(self) -> list[Command]:
        """Return the commands up to and including `End`.

        Raises
        ------
        ProgramError
            Naming the command that cannot be decoded.
        """
        return _decoded(self.commands)

    def decode_setup(self) -> list[Command]:
        """Return the commands of `setup` up to and including `End`; none if it is empty.

        Raises
        ------
        ProgramError
            Naming the command that cannot be decoded.
        """
        return _decoded(self.setup) if self.setup else []

    @property
    def staying_bytes(self) -> int:
        """Bytes that `setup` brings, which stay on chip."""
        commands = self.decode_setup()
        return sum(c.row_bytes * c.n1 * c.n2 for c in commands if isinstance(c, Load))

    @property
    def code(self) -> bytes:
        """Contents of region CODE: the command stream, and what runs once behind it."""
        return self.commands + self.setup

    def region_bytes(self, region: Region) -> int:
        """Return the bytes that a region must have at least."""
        own = {Region.CODE: len(self.code), Region.CONST: len(self.constants)}
        return max(own.get(region, 0), self.memory.region_bytes.get(region.name, 0))


@dataclass(frozen=True, kw_only=True)
class HostSegment:
    """What the host does in one go: operators of the model, cut out of it as they are.

    Parameters
    ----------
    name : str
        For people.
    model : bytes
        A ``.tflite`` or ``.onnx`` file with these operators. Its inputs and outputs are the
        segment's, in this order; their names may be others.
    kernels : str
        What computes it, one of `KERNELS`.
    inputs, outputs : tuple of TensorInfo
        What it takes and gives, in the element types that the model has.
    layers : tuple of LayerInfo
        An entry an operator, in order.

    Raises
    ------
    ProgramError
        If the model is none, or the kernels are unknown.
    """

    name: str = ""
    model: bytes
    kernels: str = REFERENCE_KERNELS
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    layers: tuple[LayerInfo, ...] = ()

    def __post_init__(self) -> None:
        what = f"the host's segment {self.name!r}"
        if self.kernels not in KERNELS:
            raise ProgramError(what, f"its kernels are {self.kernels[:40]!a}", REBUILD)
        if self.kernels != ONNXRUNTIME and self.model[4:8] != MODEL_IDENTIFIER:
            raise ProgramError(what, "its model is no TensorFlow Lite model", REBUILD)

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """Inputs and outputs."""
        return (*self.inputs, *self.outputs)

    @property
    def taken(self) -> tuple[TensorInfo, ...]:
        """The tensors that it needs."""
        return self.inputs

    @property
    def given(self) -> tuple[TensorInfo, ...]:
        """The tensors that it makes for others."""
        return self.outputs

    @property
    def intermediates(self) -> tuple[PlacedTensor, ...]:
        """Nothing: its tensors are the interpreter's."""
        return ()

    @property
    def predicted_cycles(self) -> int:
        """Of the NPU: none."""
        return 0


Segment = NpuSegment | HostSegment


def _decoded(stream: bytes) -> list[Command]:
    what = "the program's command stream"
    if len(stream) % COMMAND_BYTES:
        raise ProgramError(what, f"{len(stream)} bytes are no whole number of commands", REBUILD)
    try:
        return isa.disassemble(stream)
    except IsaError as error:
        raise ProgramError(what, f"{error.what}: {error.cause}", REBUILD) from None


def infos_of(tensors: Iterable[PlacedTensor]) -> tuple[TensorInfo, ...]:
    """Return what tensors are, wherever they lie."""
    return tuple(tensor.info for tensor in tensors)
