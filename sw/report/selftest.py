"""Does a device work? From the link to a whole model, each step on what the ones before have shown.

The contents of system memory are lost.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from celosia.errors import CelosiaError, DeviceError
from celosia.hw.contract.config import NpuConfig
from celosia.hw.contract.isa import Command, End, Engine, Load, Region, Store
from celosia.hw.contract.regs import IDENTITY
from celosia.sw.driver.device import Device
from celosia.sw.program.file import Program
from celosia.sw.program.segments import MemoryPlan, NpuSegment
from celosia.sw.program.tensors import PlacedTensor, TensorInfo

__all__ = ["STEPS", "StepResult", "self_test"]

WORD_BITS = 32
MARCH_BLOCK_BYTES = 1024
DEFAULT_MARCH_BYTES = 32 * 1024
PINGS = 20
LINK_BYTES = 4096
REGISTERS = ("scratch", "region0_base", "region1_base", "region2_base", "region3_base")
BASE_MASK = 0xFFFF_FFF0
"""Of a base, what is a multiple of every bus word."""


@dataclass(frozen=True)
class StepResult:
    """What came of a step.

    Attributes
    ----------
    name : str
    passed : bool
    detail : str
        What was measured, or what was wrong and what helps.
    seconds : float
    """

    name: str
    passed: bool
    detail: str
    seconds: float


def self_test(device: Device, *, march_bytes: int = DEFAULT_MARCH_BYTES) -> Iterator[StepResult]:
    """Test a device, step by step; ends after the first step that fails.

    Parameters
    ----------
    device : Device
        Its memory is overwritten.
    march_bytes : int
        How much of system memory is tested, spread over all of it.

    Yields
    ------
    StepResult
        One for each of :data:`STEPS`.
    """
    for name, step in STEPS.items():
        started = time.monotonic()
        try:
            detail = step(device, march_bytes)
            passed = True
        except CelosiaError as error:
            detail, passed = str(error), False
        yield StepResult(name, passed, detail, time.monotonic() - started)
        if not passed:
            return


def _link(device: Device, march_bytes: int) -> str:
    from celosia.sw.driver.uart.device import UartDevice

    if not isinstance(device, UartDevice):
        return "in this process, no line"
    link = device.link
    begun = time.monotonic()
    for _ in range(PINGS):
        link.ping()
    answer_ms = 1000 * (time.monotonic() - begun) / PINGS
    size = min(LINK_BYTES, device.memory_bytes)
    data = np.random.default_rng(1).bytes(size)
    begun = time.monotonic()
    link.write_memory(0, data)
    if link.read_memory(0, size) != data:
        raise DeviceError("link", "what was read is not what was written", "report it")
    rate = 2 * size / (time.monotonic() - begun)
    state = link.ping()
    text = f"{link.baud} baud, answer in {answer_ms:.1f} ms, {rate / 1000:.1f} kB/s"
    lost = state.dropped + state.framing_errors + link.statistics.damaged
    return f"{text}, {lost} damaged frames, {link.statistics.repeated} requests repeated"


def _registers(device: Device, march_bytes: int) -> str:
    found = device.read_register("identity")
    if found != IDENTITY:
        raise DeviceError("identity", f"it is 0x{found:08x}, not 0x{IDENTITY:08x}", "load it anew")
    device.identify()
    count = 0
    for name in REGISTERS:
        mask = BASE_MASK if name.endswith("base") else (1 << WORD_BITS) - 1
        for bit in range(WORD_BITS):
            for value in (1 << bit & mask, ~(1 << bit) & mask):
                device.write_registers({name: value, "bus_timeout": ~value & 0xFFFF_FFFF})
                found = device.read_register(name)
                count += 1
                if found != value:
                    raise DeviceError(
                        f"register {name}", f"0x{value:08x} was written, 0x{found:08x} read", ""
                    )
    return f"{count} patterns in {len(REGISTERS)} registers"


def _memory(device: Device, march_bytes: int) -> str:
    """March over blocks: up w(a); up r(a) w(~a); down r(~a) w(a); up r(a).

    After van de Goor, "Using march tests to test SRAMs", IEEE Design & Test 10(1), 1993, with
    blocks for cells and contents that differ from block to block, so that a block that answers for
    another one shows as well.
    """
    blocks = _march_blocks(device.memory_bytes, march_bytes)

    def content(address: int, inverse: bool) -> bytes:
        data = np.random.default_rng(address).integers(0, 256, MARCH_BLOCK_BYTES, np.uint8)
        return bytes((~data if inverse else data).tobytes())

    def check(address: int, inverse: bool) -> None:
        expected = content(address, inverse)
        found = device.read_memory(address, MARCH_BLOCK_BYTES)
        if found != expected:
            pairs = zip(found, expected, strict=True)
            first = next(index for index, (got, want) in enumerate(pairs) if got != want)
            raise DeviceError(
                f"system memory at 0x{address + first:08x}",
                f"0x{expected[first]:02x} was written, 0x{found[first]:02x} read",
                "check the memory's clock and timing in the board's file",
                address=address + first,
            )

    for address in blocks:
        device.write_memory(address, content(address, False))
    for address in blocks:
        check(address, False)
        device.write_memory(address, content(address, True))
    for address in reversed(blocks):
        check(address, True)
        device.write_memory(address, content(address, False))
    for address in blocks:
        check(address, False)
    tested = len(blocks) * MARCH_BLOCK_BYTES
    return f"{tested} of {device.memory_bytes} bytes, three passes"


def _march_blocks(memory_bytes: int, march_bytes: int) -> list[int]:
    """Return addresses of blocks: powers of two, for the address lines, and some in between."""
    last = memory_bytes // MARCH_BLOCK_BYTES - 1
    wanted = max(min(march_bytes // MARCH_BLOCK_BYTES, last + 1), 2)
    chosen = {0, last} | {1 << bit for bit in range(last.bit_length())}
    rest = np.random.default_rng(2).permutation(min(last + 1, 1 << 20))
    for block in rest:
        if len(chosen) >= wanted:
            break
        chosen.add(int(block))
    return [block * MARCH_BLOCK_BYTES for block in sorted(chosen)]


DMA_SHAPE = (5, 7, 11)
DMA_PITCH, DMA_ROW_PITCH = 13, 13 * 7 + 6
DMA_IN, DMA_OUT, DMA_BYTES = 3, 1000, 2048


def _token(*engines: Engine) -> int:
    return sum(1 << engine for engine in engines)


def _dma_program(config: NpuConfig) -> Program:
    """Return a program that gathers rows at odd places, packs them on chip and stores them."""
    rows, columns, row_bytes = DMA_SHAPE
    commands: list[Command] = [
        Load(
            region=Region.IO,
            mem_addr=DMA_IN,
            sram_addr=0,
            row_bytes=row_bytes,
            n1=columns,
            mem_stride1=DMA_PITCH,
            sram_stride1=row_bytes,
            n2=rows,
            mem_stride2=DMA_ROW_PITCH,
            sram_stride2=row_bytes * columns,
            tag=0,
            signal=_token(Engine.STORE),
        ),
        Store(
            region=Region.IO,
            mem_addr=DMA_OUT,
            sram_addr=0,
            row_bytes=row_bytes * columns,
            n1=rows,
            mem_stride1=row_bytes * columns,
            sram_stride1=row_bytes * columns,
            tag=1,
            wait=_token(Engine.LOAD),
        ),
        End(tag=2),
    ]
    segment = NpuSegment(
        name="DMA test",
        commands=b"".join(command.encode() for command in commands),
        inputs=(
            PlacedTensor(
                info=TensorInfo(name="scattered", shape=DMA_SHAPE),
                offset=DMA_IN,
                row_pitch=DMA_ROW_PITCH,
                pixel_pitch=DMA_PITCH,
            ),
        ),
        outputs=(
            PlacedTensor(
                info=TensorInfo(name="packed", shape=DMA_SHAPE),
                offset=DMA_OUT,
                row_pitch=row_bytes * columns,
                pixel_pitch=row_bytes,
            ),
        ),
        memory=MemoryPlan(region_bytes={"IO": DMA_BYTES, "SCRATCH": 0}),
    )
    return Program.of(segment, config, model=segment.name)


def _dma(device: Device, march_bytes: int) -> str:
    program = _dma_program(device.config)
    for seed in range(3):
        given = np.random.default_rng(seed).integers(-128, 128, DMA_SHAPE, np.int8)
        found = device.run(program, given).outputs["packed"]
        if not np.array_equal(found, given):
            wrong = int((found != given).sum())
            raise DeviceError("DMA", f"{wrong} of {given.size} bytes came out wrong", "report it")
    return f"{3 * given.size} bytes, gathered at odd addresses and packed"


def _array_model(size: int) -> bytes:
    """Return a network that has every multiplier of the array work with extreme values."""
    from celosia.sim.models.tflite_builder import ModelBuilder

    channels = 2 * size
    output, taken = np.meshgrid(np.arange(channels), np.arange(channels), indexing="ij")
    checkers = np.where((output + taken) % 2 == 0, 127, -127).astype(np.int8)
    walking = np.where(output == taken, 127, (output * 7 + taken * 13) % 31 - 15).astype(np.int8)
    builder = ModelBuilder()
    x = builder.input((1, 6, 6, channels), scale=0.1, zero_point=-5)
    for weights, scale in ((checkers, 20.0), (walking, 2.0)):
        x = builder.conv2d(
            x, weights[:, None, None, :], None, w_scales=0.05, scale=scale, zero_point=3
        )
    return builder.finish()


def _checked(device: Device, model: bytes, inputs: list[np.ndarray]) -> str:
    """Run a model and compare every tensor with the golden model."""
    from celosia.sw.compiler.build import compile_model
    from celosia.sw.reference.check import check_model

    with tempfile.TemporaryDirectory(prefix="celosia-") as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(model)
        program = compile_model(path, device.config, host="refuse")
        name = program.inputs[0].name
        samples = [{name: values} for values in inputs]
        report = check_model(path, device.config, device, samples, program=program)
    if not report.equal:
        raise DeviceError("results", "a tensor differs from the golden model", "report it")
    return f"every tensor of {len(samples)} samples is right"


def _array(device: Device, march_bytes: int) -> str:
    channels = 2 * device.config.rows
    rng = np.random.default_rng(3)
    shape = (1, 6, 6, channels)
    inputs = [
        np.full(shape, -128, np.int8),
        np.full(shape, 127, np.int8),
        rng.choice(np.array([-128, 127], np.int8), shape),
        rng.integers(-128, 128, shape, np.int8),
    ]
    return _checked(device, _array_model(device.config.rows), inputs)


def _model(device: Device, march_bytes: int) -> str:
    from celosia.sw.report.example import load_digits

    digits = load_digits()
    return _checked(device, digits.model, [digits.inputs[index][None] for index in range(3)])


STEPS: dict[str, Callable[[Device, int], str]] = {
    "link": _link,
    "registers": _registers,
    "memory": _memory,
    "DMA": _dma,
    "array": _array,
    "model": _model,
}
"""In this order, by name."""
