"""What goes wrong ends in a clear error, and the device runs the next program correctly.

All of it on one device: whatever a broken program leaves behind, the next test meets it. Broken
commands run on the emulator too, which has to stop with the same cause, unit, tag and address.
More random damage than the tests do::

    python -m tests.e2e.test_rtl_faults --seeds 1000 3000
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import DeviceError, InputError, ProgramError
from celosia.hw.contract.config import NpuConfig, preset
from celosia.hw.contract.isa import (
    COMMAND_BITS,
    COMMAND_BYTES,
    Command,
    Conv,
    End,
    Engine,
    IsaError,
    Load,
    Region,
)
from celosia.hw.contract.legal import field_problem
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.device import FIRST_ADDRESS, Device
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.driver.layout import Layout
from celosia.sw.driver.sim import SimDevice
from celosia.sw.program.file import Program
from celosia.sw.program.segments import MemoryPlan, NpuSegment
from celosia.sw.program.tensors import PlacedTensor, TensorInfo
from celosia.sw.reference.golden import GoldenModel

from tests.kit.broken_streams import FETCH, TAG, BrokenStreams, Case, used_bits, work_bytes
from tests.kit.tools import needs_simulator, skip_without_simulator

CONFIG = preset("tiny")
LINE = CONFIG.line_bytes
MEMORY_BYTES = 1 << 18
WATCHDOG_CYCLES = 60_000
"""Ten times what the good program takes, fifty times what a broken one needs."""
BUS_TIMEOUT_CYCLES = 500
REGION_BYTES = 2048
FLIP_SEEDS = 200
EMULATED_LIMIT = 1 << 24
"""Bytes that the emulator is asked to move for one damaged command."""

Int8 = npt.NDArray[np.int8]


# The good program ---------------------------------------------------------------------------------


def good_model() -> bytes:
    """Return a network that uses every engine, kind of command and operation on vectors."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Int8:
        return rng.integers(-127, 128, shape, dtype=np.int8)

    def scale_of(terms: int) -> float:
        return float(73 * 74 * terms**0.5 / 60 * 0.01 * 0.05)

    builder = ModelBuilder()
    x = builder.input((1, 9, 9, 3), scale=0.05, zero_point=-3)
    x = builder.conv2d(
        x, weights(8, 3, 3, 3), w_scales=0.01, scale=scale_of(27), zero_point=4, padding="SAME"
    )
    y = builder.depthwise_conv2d(
        x, weights(1, 3, 3, 8), w_scales=0.01, scale=scale_of(9), zero_point=-5, padding="SAME"
    )
    x = builder.add(x, y, scale=0.5, zero_point=7)
    y = builder.logistic(x, zero_point=-128)
    x = builder.mul(x, y, scale=0.4, zero_point=9)
    y = builder.max_pool2d(y, size=(3, 3), padding="SAME", strides=(1, 1))
    axis = builder.constant(np.array([3], np.int32))
    keep = ("ReducerOptions", {"KeepDims": True})
    mean = builder.operator("MEAN", [x, axis], (1, 9, 9, 1), scale=0.4, options=keep)
    x = builder.operator("SQUARED_DIFFERENCE", [x, mean], x.shape, scale=y.scale, zero_point=-128)
    x = builder.operator("MINIMUM", [x, y], x.shape, scale=y.scale, zero_point=-128)
    x = builder.max_pool2d(x, size=(3, 3), strides=(2, 2), padding="VALID")
    x = builder.average_pool2d(x, size=(4, 4))
    x = builder.fully_connected(
        builder.reshape(x, (1, -1)), weights(10, 8), w_scales=0.01, scale=0.02, zero_point=1
    )
    return builder.finish([builder.softmax(x)])


class Bench:
    """A device and a program that must work on it at any time."""

    def __init__(self, device: Device) -> None:
        self.device = device
        model = good_model()
        self.golden = GoldenModel(model)
        self.program = compile_model(model, device.config)
        self.instrumented = compile_model(model, device.config, keep_tensors=True)
        self.rng = np.random.default_rng(1)

    def assert_works(self, *, every_tensor: bool = True) -> None:
        """Run the good programs on a new input; all is as it must be."""
        info = self.program.inputs[0]
        given = self.rng.integers(-128, 128, info.shape, dtype=np.int8)
        want = dict(self.golden.run([given]))
        for program in (self.program, *([self.instrumented] if every_tensor else [])):
            result = self.device.run(program, given)
            for name, values in {**result.tensors, **result.outputs}.items():
                np.testing.assert_array_equal(values, want[name], err_msg=f"tensor {name}")

    def fault(self) -> tuple[str, int, int]:
        """Return cause, unit and tag that the registers still hold."""
        cause, unit, tag = (
            self.device.read_field("error_cause", field) for field in ("cause", "unit", "tag")
        )
        return ErrorCause(cause).name, unit, tag

    def stopped(self, program: Program) -> DeviceError:
        """Run a program that must be stopped, return the error; nothing else is harmed."""
        with pytest.raises(DeviceError) as caught:
            self.device.run(program, [])
        error = caught.value
        assert error.fault == self.fault()[0]
        assert error.fault in str(error)
        assert error.remedy
        assert not self.device.read_field("status", "busy")
        return error


@pytest.fixture(scope="module")
def rtl() -> Iterator[Bench]:
    """The RTL."""
    skip_without_simulator()
    with celosia.open(
        "sim",
        CONFIG,
        memory_bytes=MEMORY_BYTES,
        watchdog_cycles=WATCHDOG_CYCLES,
        bus_timeout_cycles=BUS_TIMEOUT_CYCLES,
    ) as device:
        bench = Bench(device)
        bench.assert_works()
        yield bench


@pytest.fixture(scope="module")
def emu() -> Bench:
    """The emulator."""
    return Bench(celosia.open("emu", CONFIG, memory_bytes=MEMORY_BYTES))


def assert_stopped_alike(benches: Sequence[Bench], program: Program, cause: str, unit: int) -> None:
    """A broken program, with its tag, is stopped everywhere in the same way, and harms nothing."""
    found = set()
    for bench in benches:
        error = bench.stopped(program)
        assert bench.fault() == (cause, unit, TAG)
        found.add((error.fault, error.command, error.address))
        bench.assert_works()
    assert len(found) == 1


def simulated(bench: Bench) -> SimDevice:
    assert isinstance(bench.device, SimDevice)
    return bench.device


def raw_program(
    commands: Sequence[Command | bytes], *, config: NpuConfig = CONFIG, **changes: Any
) -> Program:
    """Return a program of commands that no compiler wrote; nothing checks it."""
    code = b"".join(c if isinstance(c, bytes) else c.encode() for c in commands)
    plan = MemoryPlan(region_bytes={"IO": REGION_BYTES, "SCRATCH": REGION_BYTES})
    values: dict[str, Any] = {
        "name": "broken",
        "commands": code,
        "constants": bytes(REGION_BYTES),
        "memory": plan,
    }
    return Program.of(NpuSegment(**{**values, **changes}), config, model="broken")


@cache
def guard_bytes(size: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, size, np.uint8)


def guarded_run(bench: Bench, program: Program) -> DeviceError | None:
    """Run a program between guard areas; return its error, if it has one."""
    device = simulated(bench)
    memory = device.rtl.memory
    memory[:] = guard_bytes(memory.size)
    inputs = [np.zeros(info.shape, info.item) for info in program.inputs]
    layout = Layout.of(program.npu, first=FIRST_ADDRESS, memory_bytes=MEMORY_BYTES)
    before = memory.copy()
    error = None
    try:
        device.run(program, inputs)
    except DeviceError as caught:
        error = caught
    changed = np.flatnonzero(memory != before)
    for region in Region:
        changed = changed[(changed < layout[region].base) | (changed >= layout[region].end)]
    assert not changed.size, f"byte {changed[0]:#x} outside of all regions was written"
    assert device.rtl.statistics.violations == 0
    if error is not None:
        assert error.fault, f"the watchdog was silent: {error}"
    return error


# Commands that are illegal ------------------------------------------------------------------------

STREAMS = BrokenStreams(CONFIG, io_bytes=REGION_BYTES, scratch_bytes=REGION_BYTES)
LOAD, STORE = STREAMS.load, STREAMS.store
TO_LOAD = 1 << Engine.LOAD
CASES = STREAMS.cases()

replace = dataclasses.replace


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_bad_commands_stop_rtl_and_emulator_alike(rtl: Bench, emu: Bench, case: Case) -> None:
    _, stream, cause, unit = case
    assert_stopped_alike((rtl, emu), raw_program([*stream, End(tag=8)]), cause, unit)


@needs_simulator
@pytest.mark.xdist_group("rtl-wide")
def test_weights_beyond_a_memory_that_is_no_power_of_two() -> None:
    """Its addresses have bits for more than there is."""
    config = preset("wide")
    assert config.wgt_lines & (config.wgt_lines - 1)
    streams = BrokenStreams(config, io_bytes=REGION_BYTES, scratch_bytes=REGION_BYTES)
    beyond = [case for case in streams.cases() if case[2] == "WGT_RANGE"]
    cases = [case for case in beyond if isinstance(case[1][0], Conv)]
    assert len(cases) == 5
    ((name, (load,), *rest),) = (case for case in beyond if case[0] == "Load to WGT")
    assert isinstance(load, Load)
    # In whole words of its bus.
    cases.append((name, [replace(load, sram_addr=config.wgt_bytes - 56)], *rest))
    limits = {
        "memory_bytes": MEMORY_BYTES,
        "watchdog_cycles": WATCHDOG_CYCLES,
        "bus_timeout_cycles": BUS_TIMEOUT_CYCLES,
    }
    with celosia.open("sim", config, **limits) as device:
        benches = (
            Bench(device),
            Bench(celosia.open("emu", config, memory_bytes=MEMORY_BYTES)),
        )
        for _, stream, cause, unit in cases:
            program = raw_program([*stream, End(tag=8)], config=config)
            assert_stopped_alike(benches, program, cause, unit)


@needs_simulator
@pytest.mark.xdist_group("rtl-base")
def test_two_kernel_rows_in_one_bank() -> None:
    """In a machine that reads several in a cycle; the other tests' has no such fault."""
    config = preset("base")
    streams = BrokenStreams(config, io_bytes=REGION_BYTES, scratch_bytes=REGION_BYTES)
    pitch = 4 * config.line_bytes
    rows = replace(streams.rows, row_pitch=pitch, row_bytes=pitch, step_y=pitch, tag=TAG)
    with celosia.open("sim", config, memory_bytes=MEMORY_BYTES) as device:
        benches = Bench(device), Bench(celosia.open("emu", config, memory_bytes=MEMORY_BYTES))
        program = raw_program([rows, End(tag=8)], config=config)
        assert_stopped_alike(benches, program, "BANK_CONFLICT", 2)


DEADLOCKS = {
    "a token that nobody gives": "STORE is at command 0.*tokens from LOAD",
    "two engines that wait for each other": "LOAD is at command 0.*STORE is at command 1",
    "a tile that nobody fills": "VECTOR is at command 0.*full accumulator half",
    "one tile too few": "VECTOR is at command 1.*full accumulator half",
    "tiles that nobody empties": "ARRAY is at command 2.*free accumulator",
    "a queue that is full": "the dispatcher is at command 8, whose queue is full",
}
"""What the emulator says of each."""


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
@pytest.mark.parametrize("name", STREAMS.deadlocks())
def test_deadlock_is_stopped_by_the_watchdog(rtl: Bench, emu: Bench, name: str) -> None:
    reason = DEADLOCKS[name]
    program = raw_program([*STREAMS.deadlocks()[name], End(tag=8)])
    before = simulated(rtl).rtl.statistics.cycles
    for bench in (rtl, emu):
        error = bench.stopped(program)
        assert bench.fault()[:2] == ("WATCHDOG", FETCH)
        assert "raise watchdog_cycles" in error.remedy
        if bench is emu:
            assert error.cause.split("deadlock: ")[1]
            pytest.raises(DeviceError, emu.device.run, program, []).match(reason)
        else:
            assert simulated(rtl).rtl.statistics.cycles - before < WATCHDOG_CYCLES + 1000
        bench.assert_works()


LEFTOVERS = STREAMS.leftovers()


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_a_program_leaves_behind_is_gone_for_the_next_one(rtl: Bench, name: str) -> None:
    """Programs that end, but with more than they should: only their own results may be wrong."""
    assert guarded_run(rtl, raw_program([*LEFTOVERS[name], End()])) is None
    rtl.assert_works()
    # A leftover token would let this one go through.
    starved = raw_program([replace(STORE, wait=TO_LOAD), End()])
    guarded_run(rtl, raw_program([*LEFTOVERS[name], End()]))
    assert rtl.stopped(starved).fault == "WATCHDOG"
    rtl.assert_works()


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
@pytest.mark.parametrize("cut", [0, 1, 63, 64])
def test_stream_without_end(rtl: Bench, emu: Bench, cut: int) -> None:
    """The region ends after a command, or within the End."""
    code = LOAD.encode() + End(tag=1).encode()
    program = raw_program([code[: len(code) - cut]]) if cut else raw_program([LOAD, LOAD])
    found = []
    for bench in (rtl, emu):
        error = bench.stopped(program)
        assert bench.fault()[:2] == ("FETCH_WINDOW", FETCH)
        found.append((error.address, error.cause))
        bench.assert_works()
    assert found[0] == found[1]


# Memory that does not do its part -----------------------------------------------------------------


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
@pytest.mark.parametrize(
    ("region", "unit"),
    [(Region.CODE, "command fetch"), (Region.CONST, "load engine"), (Region.IO, "engine")],
)
def test_bus_error_is_reported_with_its_address(rtl: Bench, region: Region, unit: str) -> None:
    from celosia.sim.rtl.rtl import MemoryModel

    device = simulated(rtl)
    rtl.assert_works()
    layout = Layout.of(rtl.program.npu, first=FIRST_ADDRESS, memory_bytes=MEMORY_BYTES)
    given = np.zeros(rtl.program.inputs[0].shape, np.int8)
    for offset in (0, layout[region].size // 2 & ~3):
        bad = layout[region].base + offset
        device.rtl.set_memory_model(MemoryModel(error_range=(bad, bad + 4)))
        with pytest.raises(DeviceError, match=unit) as caught:
            device.run(rtl.program, given)
        assert (caught.value.fault, caught.value.address) == ("BUS_ERROR", bad)
        assert "memory" in caught.value.remedy
        device.rtl.set_memory_model(MemoryModel())
        rtl.assert_works()


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
def test_memory_smaller_than_promised(rtl: Bench) -> None:
    from celosia.sim.rtl.rtl import MemoryModel

    device = simulated(rtl)
    layout = Layout.of(rtl.program.npu, first=FIRST_ADDRESS, memory_bytes=MEMORY_BYTES)
    end = layout[Region.CONST].base + 256
    device.rtl.set_memory_model(MemoryModel(window=(0, end)))
    with pytest.raises(DeviceError, match="as large as memory_bytes says") as caught:
        device.run(rtl.program, np.zeros(rtl.program.inputs[0].shape, np.int8))
    assert caught.value.fault == "BUS_ERROR"
    assert (caught.value.address or 0) >= end
    device.rtl.set_memory_model(MemoryModel())
    rtl.assert_works()


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
@pytest.mark.parametrize("limit", [BUS_TIMEOUT_CYCLES, 0])
@pytest.mark.parametrize("how", ["never answers", "never accepts"])
def test_memory_that_is_dead(
    rtl: Bench, monkeypatch: pytest.MonkeyPatch, limit: int, how: str
) -> None:
    """Found by the bus's time-out; where that is switched off, by the watchdog."""
    from celosia.sim.rtl.rtl import MemoryModel

    device = simulated(rtl)
    rtl.assert_works()
    monkeypatch.setattr(device, "_bus_timeout_cycles", limit)
    model = (
        MemoryModel(dead=True)
        if how == "never answers"
        else MemoryModel(stall_probability=1 - 2**-40)
    )
    device.rtl.set_memory_model(model)
    before = device.rtl.statistics.cycles
    with pytest.raises(DeviceError) as caught:
        device.run(rtl.program, np.zeros(rtl.program.inputs[0].shape, np.int8))
    took = device.rtl.statistics.cycles - before
    if limit:
        assert caught.value.fault == "BUS_TIMEOUT"
        assert caught.value.address == FIRST_ADDRESS
        assert "raise bus_timeout_cycles" in caught.value.remedy
        assert limit < took < limit + 500
    else:
        assert caught.value.fault == "WATCHDOG"
        assert took < WATCHDOG_CYCLES + 500
    monkeypatch.undo()
    device.rtl.set_memory_model(MemoryModel())
    rtl.assert_works()


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
def test_memory_that_dies_in_the_middle(rtl: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads and writes of all engines are in flight when it happens, at many different times."""
    from celosia.sim.rtl.rtl import MemoryModel

    device = simulated(rtl)
    result = device.run(rtl.program, np.zeros(rtl.program.inputs[0].shape, np.int8))
    run_until_irq = device.rtl.run_until_irq
    faults: Counter[str] = Counter()
    for cycles in range(50, result.cycles or 0, (result.cycles or 0) // 12):

        def dying(limit: int, cycles: int = cycles) -> int | None:
            device.rtl.step(cycles)
            device.rtl.set_memory_model(MemoryModel(dead=True))
            return run_until_irq(limit)

        monkeypatch.setattr(device.rtl, "run_until_irq", dying)
        try:
            device.run(rtl.program, np.zeros(rtl.program.inputs[0].shape, np.int8))
            faults["none"] += 1
        except DeviceError as error:
            faults[error.fault] += 1
        monkeypatch.undo()
        device.rtl.set_memory_model(MemoryModel())
        rtl.assert_works()
    assert faults["BUS_TIMEOUT"] >= 10
    assert set(faults) <= {"BUS_TIMEOUT", "none"}


# Programs and inputs that are refused before anything runs ----------------------------------------


class Untouched:
    """Asserts that the device's clock has not moved, so that nothing can have run."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def __enter__(self) -> None:
        self._cycles = simulated(self._bench).rtl.statistics.cycles

    def __exit__(self, *_: object) -> None:
        assert simulated(self._bench).rtl.statistics.cycles == self._cycles
        self._bench.assert_works()


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
def test_program_of_another_configuration(rtl: Bench) -> None:
    for other in (preset("base"), CONFIG.with_(acc_depth=128)):
        program = compile_model(good_model(), other)
        given = np.zeros(program.inputs[0].shape, np.int8)
        with (
            Untouched(rtl),
            pytest.raises(ProgramError, match="the program needs.*ompile the model for 'tiny'"),
        ):
            rtl.device.run(program, given)


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda good: good[0], r"shape is \[9, 9, 3\].*Reshape it"),
        (lambda good: good[:, :8], "shape.*preprocessing"),
        (lambda good: good.astype(np.uint8), r"uint8.*astype\(numpy.int8\)"),
        (lambda good: good.astype(np.float32), "float32.*quantize=True"),
        (lambda good: {"picture": good}, "'picture': the model has no such input"),
        (lambda good: {}, "missing"),
        (lambda good: [good, good], "got 2, the model has 1"),
        (lambda good: [], "got 0, the model has 1"),
    ],
)
def test_wrong_inputs(rtl: Bench, make: Any, message: str) -> None:
    good = np.zeros(rtl.program.inputs[0].shape, np.int8)
    with Untouched(rtl), pytest.raises(InputError, match=message):
        rtl.device.run(rtl.program, make(good))


def small_program() -> bytes:
    x, y = (
        PlacedTensor(
            info=TensorInfo(name=name, shape=(1, 4)), offset=offset, row_pitch=4, pixel_pitch=4
        )
        for name, offset in (("x", 0), ("y", 4))
    )
    return raw_program(
        [replace(LOAD, row_bytes=4), End(tag=1)],
        constants=bytes(16),
        memory=MemoryPlan(region_bytes={"IO": 8}),
        inputs=(x,),
        outputs=(y,),
    ).to_bytes()


def test_every_damaged_byte_of_a_program_file_is_found() -> None:
    good = small_program()
    assert Program.from_bytes(good).to_bytes() == good
    for place in range(len(good)):
        for mask in (0x01, 0x80, 0xFF):
            bad = bytearray(good)
            bad[place] ^= mask
            with pytest.raises(ProgramError) as caught:
                Program.from_bytes(bytes(bad), "x.celosia")
            assert "x.celosia" in str(caught.value)
            assert caught.value.remedy, f"byte {place}"
    for length in range(len(good)):
        with pytest.raises(ProgramError):
            Program.from_bytes(good[:length])
    with pytest.raises(ProgramError, match="extended"):
        Program.from_bytes(good + b"\0")


def test_damaged_program_file_on_the_command_line(tmp_path: Path) -> None:
    from celosia.sw.cli.app import app
    from typer.testing import CliRunner

    bad = bytearray(small_program())
    bad[len(bad) // 2] ^= 4
    path = tmp_path / "bad.celosia"
    path.write_bytes(bytes(bad))
    result = CliRunner().invoke(app, ["run", str(path), "--device", "emu"])
    assert result.exit_code == 2
    assert "checksum" in result.stderr
    assert isinstance(result.exception, SystemExit)


# Random damage ------------------------------------------------------------------------------------


def damaged(program: Program, seed: int) -> tuple[Program, int]:
    """Flip one to three bits of one command past the checksum; return also the command's index."""
    rng = np.random.default_rng(seed)
    data = bytearray(program.npu.commands)
    index = int(rng.integers(len(data) // COMMAND_BYTES))
    place = index * COMMAND_BYTES
    command = Command.decode(bytes(data[place : place + COMMAND_BYTES]))
    # Mostly where the fields are; the rest is reserved, and dull.
    limit = used_bits(command) if rng.random() < 0.9 else COMMAND_BITS
    for bit in rng.integers(0, limit, int(rng.integers(1, 4))):
        data[place + int(bit) // 8] ^= 1 << int(bit) % 8
    return program.with_npu(commands=bytes(data)), index


def emulated(bench: Bench, program: Program, index: int) -> tuple[object, ...] | None:
    """Return how a damaged program ends on the emulator, if that is what the RTL has to do.

    Not defined is what comes of a program that breaks a rule which no engine looks at (a tile that
    is not the one that is expected, a shift beyond 31, a row that is longer than its outputs, a
    pixel that is not a line). And some would take the emulator very long.
    """
    data = program.npu.commands[index * COMMAND_BYTES :][:COMMAND_BYTES]
    try:
        command = Command.decode(data)
    except IsaError:
        pass
    else:
        if work_bytes(command, LINE) > EMULATED_LIMIT:
            return None
        problem = field_problem(command, CONFIG)
        if isinstance(command, Conv):
            if problem and not problem[1].endswith(" is 0"):
                return None
            bytes_of = ("act_addr", "x0", "row_bytes", "step_x", "step_kx", "step_ic", "step_oc")
            if command.mode and any(getattr(command, name) % LINE for name in bytes_of):
                return None
    device = bench.device
    assert isinstance(device, EmuDevice)
    memory = device.emulator.memory
    memory[:] = guard_bytes(memory.size)
    inputs = [np.zeros(info.shape, info.item) for info in program.inputs]
    try:
        device.run(program, inputs)
    except DeviceError as error:
        return None if error.fault == "WATCHDOG" else ending(bench, error)
    return ending(bench, None)


def ending(bench: Bench, error: DeviceError | None) -> tuple[object, ...]:
    """Return how a program has ended: cause, unit, tag and address."""
    if error is None:
        return ("END",)
    cause, unit, tag = bench.fault()
    # The command that FETCH_WINDOW is about was never read, so it has no tag.
    return cause, unit, None if cause == "FETCH_WINDOW" else tag, error.address


def run_damaged(rtl: Bench, emu: Bench, seed: int) -> str:
    """Run a damaged program; whatever it does, the next one works. Returns what it did."""
    program, index = damaged(rtl.program, seed)
    error = guarded_run(rtl, program)
    outcome = ending(rtl, error)
    rtl.assert_works(every_tensor=False)
    wanted = emulated(emu, program, index)
    if wanted is not None and outcome[0] != "WATCHDOG":
        assert outcome == wanted, f"seed {seed}, command {index}"
        return f"{outcome[0]}, as on the emulator"
    return str(outcome[0])


@needs_simulator
@pytest.mark.xdist_group("rtl-tiny")
def test_random_damage_never_hangs_or_harms(rtl: Bench, emu: Bench) -> None:
    outcomes = Counter(run_damaged(rtl, emu, seed) for seed in range(FLIP_SEEDS))
    print(f"seeds 0 to {FLIP_SEEDS - 1}: {dict(outcomes)}")
    assert len(outcomes) >= 6
    stopped = FLIP_SEEDS - outcomes["END"] - outcomes["END, as on the emulator"]
    assert stopped > FLIP_SEEDS // 4


def main() -> int:
    """Run programs with random damage; stop at the first that does harm."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 2000), metavar=("A", "B"))
    options = parser.parse_args()
    with celosia.open(
        "sim",
        CONFIG,
        memory_bytes=MEMORY_BYTES,
        watchdog_cycles=WATCHDOG_CYCLES,
        bus_timeout_cycles=BUS_TIMEOUT_CYCLES,
    ) as device:
        rtl, emu = Bench(device), Bench(celosia.open("emu", CONFIG, memory_bytes=MEMORY_BYTES))
        outcomes: Counter[str] = Counter()
        for seed in range(*options.seeds):
            try:
                outcomes[run_damaged(rtl, emu, seed)] += 1
            except BaseException:
                print(f"seed {seed}", file=sys.stderr)
                raise
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
