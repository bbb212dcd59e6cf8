"""Program files with a right checksum that ask for too much, or hold what no compiler writes."""

from __future__ import annotations

import gc
import json
import resource
import struct
import time
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import celosia
import numpy as np
import pytest
from celosia.errors import DeviceError, ProgramError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import (
    Command,
    Conv,
    End,
    Load,
    Region,
    Softmax,
    Space,
    Vector,
    VectorOp,
)
from celosia.schema import SchemaError, build, parse
from celosia.sim.emulator.machine import Emulator, EmulatorError, EmulatorFault
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.program.file import Program
from celosia.sw.program.sections import HEADER_BYTES, Section
from celosia.sw.program.segments import HostSegment, MemoryPlan, NpuSegment
from celosia.sw.program.tensors import TensorInfo
from celosia.sw.program.verify import check_program
from celosia.sw.report.example import load_digits

NANO, BASE = preset("nano"), preset("base")


@cache
def sound() -> Program:
    return compile_model(load_digits().model, NANO)


def sections_of(data: bytes) -> dict[int, bytes]:
    """Return the contents of a sound file's sections."""
    entries = (
        struct.unpack_from("<IIQQ", data, HEADER_BYTES + 24 * index)
        for index in range(len(Section))
    )
    return {section: data[offset : offset + size] for section, _, offset, size in entries}


def with_section(section: Section, content: bytes) -> bytes:
    """Return a sound file with another section, and a right checksum."""
    data = bytearray(sound().to_bytes())
    data += bytes(-len(data) % 64)
    entry = HEADER_BYTES + 24 * (section - 1)
    struct.pack_into("<IIQQ", data, entry, section, 0, len(data), len(content))
    data += content
    struct.pack_into("<Q", data, 20, len(data))
    crc = zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[: HEADER_BYTES - 4]))
    struct.pack_into("<I", data, HEADER_BYTES - 4, crc)
    return bytes(data)


def changed(section: Section, *path: Any, value: Any) -> bytes:
    """Return a sound file with one JSON value changed; without a path, the section's."""
    content = json.loads(sections_of(sound().to_bytes())[section])
    place = content
    for key in path[:-1]:
        place = place[key]
    if path:
        place[path[-1]] = value
    return with_section(section, json.dumps(content if path else value).encode())


JSON_SECTIONS = (
    Section.CONFIG,
    Section.TENSORS,
    Section.MEMORY,
    Section.LAYERS,
    Section.SEGMENTS,
)
WRONG: list[tuple[Section, tuple[Any, ...], Any, str]] = [
    (Section.CONFIG, ("model",), 7, r"CONFIG\.model must be a text"),
    (Section.CONFIG, ("npu",), [], r"CONFIG\.npu must be an object"),
    (Section.CONFIG, ("npu", "rows"), 4.0, r"npu\.rows must be a whole number"),
    (Section.CONFIG, ("npu", "rows"), True, r"npu\.rows must be a whole number, not True"),
    (Section.CONFIG, ("npu", "lanes"), "x", r"npu\.lanes must be a whole number"),
    (Section.CONFIG, ("npu", "x"), 1, "CONFIG.npu has no field 'x'"),
    (Section.CONFIG, ("batch",), "1", r"CONFIG\.batch must be a whole number"),
    (Section.CONFIG, ("batch",), 0, "its batch is 0, not 1 to 4096"),
    (Section.CONFIG, ("batch",), 4, "is not of 4 samples"),
    (Section.CONFIG, ("one_by_one",), 1, r"CONFIG\.one_by_one must be a text"),
    (Section.CONFIG, ("batch",), 1 << 40, "its batch is 1099511627776"),
    (Section.TENSORS, ("inputs",), None, "TENSORS.inputs must be a list"),
    (Section.TENSORS, ("inputs",), [True], r"inputs\[0\] must be a whole number"),
    (Section.TENSORS, ("inputs",), [0, 99], "there is no tensor 99, there are 2"),
    (Section.TENSORS, ("outputs",), [-1], "there is no tensor -1"),
    (Section.TENSORS, ("inputs",), [], "it is needed before anything makes it"),
    (Section.TENSORS, ("tensors", 0), 3, "must be an object"),
    (Section.TENSORS, ("tensors", 0, "shape"), 5, "shape must be a list"),
    (Section.TENSORS, ("tensors", 0, "shape"), [1, "a"], r"shape\[1\] must be a whole number"),
    (Section.TENSORS, ("tensors", 0, "shape"), [-1, -8, 8, 1], "negative"),
    (Section.TENSORS, ("tensors", 0, "shape"), [1] * 40, "40 axes"),
    (Section.TENSORS, ("tensors", 0, "shape"), [1 << 30, 8, 8, 1], "too many elements"),
    (Section.TENSORS, ("tensors", 0, "dtype"), "object", "unknown dtype"),
    (Section.TENSORS, ("tensors", 0, "dtype"), "uint8", "are uint8, the NPU computes with int8"),
    (Section.TENSORS, ("tensors", 0, "scale"), 1e300, "scale is out of range"),
    (Section.TENSORS, ("tensors", 0, "scale"), "1", "scale must be a number"),
    (
        Section.TENSORS,
        ("tensors", 0, "kept_channels"),
        [0.5],
        r"channels\[0\] must be a whole number",
    ),
    (Section.TENSORS, ("tensors", 0, "name"), "n" * 5000, "a text of 5000"),
    (Section.TENSORS, ("tensors", 0, "persistent"), 1, "persistent must be"),
    (Section.TENSORS, ("tensors", 0, "persistent"), True, "it is an input, and persistent"),
    (Section.TENSORS, ("tensors", 1, "persistent"), True, "0 bytes for persistent tensors of"),
    (Section.TENSORS, ("tensors", 0, "origin"), [], "origin must be an object"),
    (
        Section.TENSORS,
        ("tensors", 0, "origin", "index"),
        0.0,
        r"origin\.index must be a whole number",
    ),
    (Section.MEMORY, (), {}, "MEMORY must be a list"),
    (Section.MEMORY, (), [], "MEMORY has 0 entries for 1 segments"),
    (Section.MEMORY, (0, "region_bytes"), 5, "region_bytes must be an object"),
    (Section.MEMORY, (0, "region_bytes", "IO"), "1", "must be a whole number"),
    (Section.MEMORY, (0, "region_bytes", "IO"), -1, "-1 bytes"),
    (Section.MEMORY, (0, "region_bytes", "XX"), 1, "no region 'XX'"),
    (Section.MEMORY, (0, "plan"), [1], r"plan\[0\] must be an object"),
    (Section.LAYERS, (0, "macs"), 1.5, "macs must be a whole number"),
    (Section.LAYERS, (0, "name"), None, "name must be a text"),
    (Section.LAYERS, (0,), "x", "must be an object"),
    (Section.SEGMENTS, (), {"kind": "npu"}, "SEGMENTS must be a list"),
    (Section.SEGMENTS, (), [], "no segment takes|0 segments|1 entries for 0 segments"),
    (Section.SEGMENTS, (0,), 7, r"SEGMENTS\[0\] must be an object"),
    (Section.SEGMENTS, (0, "kind"), "host", r"SEGMENTS\[0\] has no field 'command_bytes'"),
    (Section.SEGMENTS, (0, "kind"), "cpu", "kind is 'cpu'"),
    (Section.SEGMENTS, (0, "kind"), None, "kind must be a text"),
    (Section.SEGMENTS, (0, "name"), 7, "name must be a text"),
    (Section.SEGMENTS, (0, "command_bytes"), 1 << 40, "of COMMANDS, which has fewer"),
    (Section.SEGMENTS, (0, "command_bytes"), -64, "a segment takes -64 of COMMANDS"),
    (Section.SEGMENTS, (0, "constant_bytes"), 1 << 40, "of CONSTANTS, which has fewer"),
    (Section.SEGMENTS, (0, "constant_bytes"), 0, "no segment takes the last .* of CONSTANTS"),
    (Section.SEGMENTS, (0, "layers"), 1 << 40, "of LAYERS, which has fewer"),
    (Section.SEGMENTS, (0, "layers"), 1, "a command is for layer 1, there are 1"),
    (Section.SEGMENTS, (0, "command_layers"), 1 << 40, "of COMMAND_LAYERS, which has fewer"),
    (Section.SEGMENTS, (0, "command_layers"), 1, "1 entries of COMMAND_LAYERS for"),
    (Section.SEGMENTS, (0, "inputs", 0, "tensor"), 5, "there is no tensor 5, there are 2"),
    (Section.SEGMENTS, (0, "inputs", 0, "offset"), 1 << 30, "of region IO, which has"),
    (Section.SEGMENTS, (0, "inputs", 0, "offset"), 1 << 80, "offset is out of range"),
    (Section.SEGMENTS, (0, "inputs", 0, "offset"), -1, "its place is negative"),
    (Section.SEGMENTS, (0, "inputs", 0, "region"), "X", "unknown region 'X'"),
    (Section.SEGMENTS, (0, "outputs"), [], "it is needed before anything makes it"),
]


@pytest.mark.parametrize(("section", "path", "value", "text"), WRONG)
def test_wrong_types_and_sizes_are_refused_in_words(
    section: Section, path: tuple[Any, ...], value: Any, text: str
) -> None:
    with pytest.raises(ProgramError, match=text):
        Program.from_bytes(changed(section, *path, value=value), "x.celosia")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"inputs":NaN}', b"\xff", b"9" * 10_000, b'{"a":1,"a":2}', b"", b"1"],
)
def test_no_json_is_refused_in_words(content: bytes) -> None:
    for section in JSON_SECTIONS:
        with pytest.raises(ProgramError, match="damaged"):
            Program.from_bytes(with_section(section, content))


def test_the_schema_takes_types_at_their_word() -> None:
    assert build(float, 3, "x") == 3.0
    assert build(tuple[int, ...] | None, None, "x") is None  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="x must be a whole number, not False"):
        build(int, False, "x")
    with pytest.raises(SchemaError, match="at most"):
        parse(b" " * (5 << 20), "x")


def test_what_is_reserved_is_not_called_damaged() -> None:
    for section, path, value in ((Section.TENSORS, ("tensors", 0, "dtype"), "uint8"),):
        with pytest.raises(ProgramError) as caught:
            Program.from_bytes(changed(section, *path, value=value), "x.celosia")
        assert "damaged" not in str(caught.value)
        assert "x.celosia" in caught.value.what
        assert "update the software" in caught.value.remedy


def test_a_tensor_that_no_segment_has_is_refused() -> None:
    extra = {"name": "x", "shape": [1]}
    content = json.loads(sections_of(sound().to_bytes())[Section.TENSORS])
    content["tensors"].append(extra)
    with pytest.raises(ProgramError, match="TENSORS are not those of the segments"):
        Program.from_bytes(with_section(Section.TENSORS, json.dumps(content).encode()))


def test_more_commands_than_tags_are_refused() -> None:
    program = sound().with_npu(commands=End().encode() * 65_537, command_layers=())
    with pytest.raises(ProgramError, match="a segment has 65537 commands, at most 65536"):
        Program.from_bytes(program.to_bytes())


def test_a_state_that_no_tensor_has_is_refused() -> None:
    with pytest.raises(ProgramError, match="5 bytes for persistent tensors of 0"):
        Program.from_bytes(with_section(Section.STATE, b"12345"))


def test_regions_of_any_size_are_refused_before_they_are_given(tmp_path: Path) -> None:
    path = tmp_path / "large.celosia"
    path.write_bytes(changed(Section.MEMORY, 0, "region_bytes", "IO", value=2 << 40))
    with pytest.raises(ProgramError, match="bytes of system memory, at most"):
        celosia.load_program(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, "x must be true or false or a list or null, not 3"),
        ({}, "x must be true or false or a list or null, not dict of 0"),
        ([1], r"x\[0\] must be a text, not 1"),
    ],
)
def test_the_schema_says_what_a_union_takes(value: Any, words: str) -> None:
    kind: Any = bool | tuple[str, ...] | None
    assert build(kind, ["a"], "x") == ("a",)
    assert build(kind, True, "x") is True
    with pytest.raises(SchemaError, match=f"^{words}$"):
        build(kind, value, "x")


def test_load_runs_the_static_check(tmp_path: Path) -> None:
    program = sound()
    path = tmp_path / "bad.celosia"
    # Without tokens nothing is in order.
    stripped = [replace(c, wait=0, signal=0) for c in program.npu.decode()]
    program.with_npu(commands=b"".join(c.encode() for c in stripped)).save(path)
    with pytest.raises(ProgramError, match="nothing orders them|half|token"):
        celosia.load_program(path)
    assert Program.load(path, check=False).npu.decode()
    with pytest.raises(ProgramError, match="no regular file"):
        Program.load("/dev/zero")


HUGE: list[Command] = [
    Load(region=Region.IO, space=Space.ACT, row_bytes=8, n1=65535, n2=4095),
    Conv(out_w=1, out_h=1, tile_rows=1, row_len=4095, n_ky=255, n_kx=255, n_ic=4095, n_oc=1,
         stride_x=1, mode=1),
    Vector(op=VectorOp.MAX, n_oc=4095, out_h=4095, out_w=4095, n_ky=255, n_kx=255),
    Softmax(channels=65535, n_rows=4095),
]  # fmt: skip


def huge_program(command: Command) -> Program:
    segment = NpuSegment(
        commands=command.encode() + End(tag=1).encode(),
        memory=MemoryPlan(region_bytes={"IO": 4096}),
    )
    return Program.of(segment, BASE)


@pytest.mark.parametrize("command", HUGE, ids=lambda c: type(c).__name__)
def test_a_command_of_any_size_is_refused_in_time(command: Command) -> None:
    """By the static check, and by the emulator if nobody has checked."""
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ProgramError, match="at most"):
        check_program(huge_program(command))
    with EmuDevice(BASE, memory_bytes=1 << 20) as device, pytest.raises(DeviceError):
        device.run(huge_program(command), {})
    assert time.monotonic() - started < 60
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 << 10


def test_many_conversions_are_looked_at_in_time() -> None:
    count = 13_500
    sources, targets = (
        tuple(TensorInfo(name=f"{kind}{i}", shape=(1,), dtype="int8") for i in range(count))
        for kind in "ab"
    )
    started = time.monotonic()
    Program(
        config=NANO,
        inputs=sources,
        outputs=targets,
        conversions=tuple((f"a{i}", f"b{i}") for i in range(count)),
        casts=("b0",) * 50_000 + tuple(info.name for info in targets),
        segments=(HostSegment(model=b"1234TFL3"),),
    )
    assert time.monotonic() - started < 5


def test_the_emulator_has_a_watchdog() -> None:
    program = sound()
    image = {t.name: np.zeros(t.shape, t.dtype) for t in program.inputs}
    with EmuDevice(NANO, memory_bytes=1 << 20, watchdog_cycles=100) as device:
        with pytest.raises(DeviceError) as caught:
            device.run(program, image)
        assert caught.value.fault == "WATCHDOG"
    emulator = Emulator(BASE)
    emulator.load_code(Vector(op=VectorOp.MAX, n_oc=1, out_h=9, out_w=9).encode() + End().encode())
    emulator.run(work_limit=81)
    with pytest.raises(EmulatorFault, match="WATCHDOG"):
        emulator.run(work_limit=80)
    emulator.load_code(HUGE[2].encode())
    with pytest.raises(EmulatorError):
        emulator.run()


def test_average_with_a_half_beyond_its_window_is_refused() -> None:
    def average(half: int) -> Program:
        command = Vector(
            op=VectorOp.AVERAGE, n_oc=1, out_h=1, out_w=1, n_ky=2, n_kx=2, half=half, d_addr=9
        )
        return Program.of(NpuSegment(commands=command.encode() + End(tag=1).encode()), BASE)

    check_program(average(3))
    with pytest.raises(ProgramError, match="half is 4, the window has 4 elements"):
        check_program(average(4))


def test_a_program_beyond_the_devices_memory_is_refused_before_it_is_placed() -> None:
    program = sound().with_npu(memory=MemoryPlan(region_bytes={"IO": 2 << 20}))
    with EmuDevice(NANO, memory_bytes=1 << 20) as device, pytest.raises(DeviceError, match="needs"):
        device.load(program.npu)


def test_a_refused_member_of_a_union_leaves_nothing_behind() -> None:
    """A device that read a program goes when it is given up, not at some later collection."""
    gc.collect()
    gc.disable()
    try:
        assert build(int | str, "x", "a value") == "x"
        assert gc.collect() == 0
    finally:
        gc.enable()
