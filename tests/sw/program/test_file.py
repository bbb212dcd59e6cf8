"""The program file: what is written is read back, and nothing damaged is accepted."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from celosia.errors import InputError, ProgramError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import End, Load, Region, Space
from celosia.sw.program.file import Program
from celosia.sw.program.origin import Origin
from celosia.sw.program.sections import HEADER_BYTES
from celosia.sw.program.segments import LayerInfo, MemoryPlan, NpuSegment, ReservedError
from celosia.sw.program.tensors import PlacedTensor, TensorInfo


def small_program() -> Program:
    commands = Load(region=Region.IO, space=Space.ACT, row_bytes=8).encode() + End(tag=1).encode()
    image = TensorInfo(
        name="in",
        shape=(1, 2, 3, 5),
        scale=0.1,
        zero_point=-3,
        origin=Origin("tflite", 7, "in"),
    )
    segment = NpuSegment(
        name="small",
        commands=commands,
        constants=bytes(range(100)),
        inputs=(PlacedTensor(info=image, row_pitch=40, pixel_pitch=8),),
        outputs=(
            PlacedTensor(
                info=TensorInfo(name="out", shape=(1, 4)), offset=256, row_pitch=4, pixel_pitch=4
            ),
        ),
        memory=MemoryPlan(region_bytes={"IO": 512}, plan=[{"what": "in", "line": 4}]),
        layers=(
            LayerInfo(
                name="first",
                op="CONV_2D",
                origin=Origin("tflite", 0, "CONV_2D"),
                first_tag=0,
                last_tag=0,
            ),
        ),
        command_layers=(0, -1),
    )
    return Program.of(segment, preset("nano"), model="small")


def placed(name: str, offset: int = 0, **more: Any) -> PlacedTensor:
    info = TensorInfo(name=name, shape=(1, 4), **more)
    return PlacedTensor(info=info, offset=offset, row_pitch=4, pixel_pitch=4)


def large_program() -> Program:
    """Two segments that hand a tensor on, and one tensor that outlasts the run."""
    end = End().encode()
    memory = MemoryPlan(region_bytes={"IO": 64})
    state = placed("state", 8, persistent=True, dtype="int8")
    first = NpuSegment(
        name="first",
        commands=Load(region=Region.IO, row_bytes=8).encode() + End(tag=1).encode(),
        constants=b"abc",
        inputs=(placed("x"), state),
        outputs=(placed("between", 4), state),
        intermediates=(placed("kept", 12),),
        memory=memory,
        layers=(LayerInfo(name="a", op="CONV_2D"), LayerInfo(name="b", op="ADD")),
        command_layers=(1, -1),
    )
    second = NpuSegment(
        name="second",
        commands=end,
        constants=b"defg",
        inputs=(placed("between", 16), placed("x", 0)),
        outputs=(placed("y", 20),),
        memory=memory,
        layers=(LayerInfo(name="c", op="SOFTMAX"),),
    )
    return Program(
        config=preset("nano"),
        model="large",
        inputs=(first.inputs[0].info,),
        outputs=(second.outputs[0].info, first.outputs[0].info),
        segments=(first, second),
        initial_state=b"\1\2\3\4",
    )


def with_checksum(data: bytearray) -> bytes:
    data[HEADER_BYTES - 4 : HEADER_BYTES] = bytes(4)
    crc = zlib.crc32(data[HEADER_BYTES:], zlib.crc32(data[: HEADER_BYTES - 4]))
    struct.pack_into("<I", data, HEADER_BYTES - 4, crc)
    return bytes(data)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    program = small_program()
    path = tmp_path / "small.npu"
    program.save(path)
    assert Program.load(path) == program
    assert program.tensors[0].origin == Origin("tflite", 7, "in")
    assert [file.name for file in tmp_path.iterdir()] == ["small.npu"]
    assert program.to_bytes() == path.read_bytes() == small_program().to_bytes()


def test_segments_are_saved_and_loaded() -> None:
    program = large_program()
    assert Program.from_bytes(program.to_bytes()) == program
    assert [info.name for info in program.tensors] == ["x", "y", "between", "state", "kept"]
    assert [info.name for info in program.persistent] == ["state"]
    assert [info.name for info in program.intermediates] == ["kept"]
    assert [layer.name for layer in program.layers] == ["a", "b", "c"]
    with pytest.raises(ProgramError, match="2 segments, this is for programs of one"):
        _ = program.npu


def test_tensors_that_come_from_nowhere_are_refused() -> None:
    program = large_program()
    first, second = program.segments
    with pytest.raises(ProgramError, match="'between': it is needed before anything makes it"):
        replace(program, segments=(second, first))
    with pytest.raises(ProgramError, match="'y': it is needed before"):
        replace(program, segments=(first,))
    with pytest.raises(ProgramError, match="'kept': it is needed before"):
        replace(program, outputs=(first.intermediates[0].info,))
    with pytest.raises(ProgramError, match="it has no segments"):
        replace(program, segments=())
    other = replace(first, inputs=(placed("x", zero_point=3), first.inputs[1]))
    with pytest.raises(ProgramError, match="'x': two tensors have this name"):
        replace(program, segments=(other, second))
    with pytest.raises(ProgramError, match="'state': it is an input, and persistent"):
        replace(program, inputs=(*program.inputs, *program.persistent))


def test_a_state_of_another_size_is_refused() -> None:
    for state in (b"", b"123", b"12345"):
        with pytest.raises(ProgramError, match=f"{len(state)} bytes for persistent tensors of 4"):
            replace(large_program(), initial_state=state)


def test_what_is_reserved_is_refused() -> None:
    with pytest.raises(ReservedError, match="elements are int16, the NPU computes with int8"):
        replace(small_program().npu, outputs=(placed("out", dtype="int16"),))


def test_every_single_damaged_byte_is_found() -> None:
    data = small_program().to_bytes()
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[position] ^= flip
            with pytest.raises(ProgramError):
                Program.from_bytes(bytes(broken))


def test_every_truncation_is_found() -> None:
    data = small_program().to_bytes()
    for length in range(len(data)):
        with pytest.raises(ProgramError):
            Program.from_bytes(data[:length])
    with pytest.raises(ProgramError, match="extended"):
        Program.from_bytes(data + b"\0")


@pytest.mark.parametrize(("offset", "word"), [(8, "file version 9"), (12, "instruction set 9")])
def test_newer_versions_are_refused(offset: int, word: str) -> None:
    data = bytearray(small_program().to_bytes())
    struct.pack_into("<I", data, offset, 9)
    with pytest.raises(ProgramError, match=word) as caught:
        Program.from_bytes(with_checksum(data), "x.npu")
    assert "update the software" in caught.value.remedy
    assert "x.npu" in caught.value.what


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_are_refused(version: int) -> None:
    data = bytearray(small_program().to_bytes())
    struct.pack_into("<I", data, 8, version)
    with pytest.raises(ProgramError, match=f"outdated: file version {version}") as caught:
        Program.from_bytes(with_checksum(data), "x.npu")
    assert caught.value.remedy == "compile the model again"


def test_a_wrong_table_or_configuration_with_a_right_checksum_is_refused() -> None:
    data = small_program().to_bytes()
    for offset, value in ((16, 1), (28, 5), (28, 1000), (HEADER_BYTES, 2), (HEADER_BYTES + 16, 1)):
        broken = bytearray(data)
        struct.pack_into("<I", broken, offset, value)
        with pytest.raises(ProgramError):
            Program.from_bytes(with_checksum(broken))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    with pytest.raises(ProgramError, match="not a Celosia program"):
        Program.load(path)
    with pytest.raises(ProgramError, match="No such file"):
        Program.load(tmp_path / "none.npu")


def test_another_configuration_is_refused_by_its_differences() -> None:
    program = small_program()
    program.require(preset("nano").with_(name="renamed"))
    with pytest.raises(ProgramError, match="queue_depth is 8, the program needs 4"):
        program.require(preset("nano").with_(queue_depth=8))
    # Of a list of operations, those that differ; of what follows from a field, nothing.
    fewer = tuple(name for name in preset("nano").operations if name != "MIN")
    with pytest.raises(ProgramError) as caught:
        program.require(preset("nano").with_(operations=fewer, lanes=4))
    assert caught.value.cause == "it lacks MIN"


def test_a_program_is_one_line_to_people() -> None:
    program = small_program()
    text = repr(program)
    assert "\n" not in text
    assert len(text) < 160
    commands = sum(len(segment.commands) for segment in program.npu_segments) // 64
    for words in ("for nano", "1 segment,", f"{commands} commands", "cycles predicted"):
        assert words in text


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.npu"
    small_program().save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        replace(small_program(), model="other").save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_decode_names_the_command_in_error() -> None:
    program = small_program().npu
    assert [type(command) for command in program.decode()] == [Load, End]
    with pytest.raises(ProgramError, match="command 1: illegal opcode 0xff"):
        replace(program, commands=program.commands[:64] + b"\xff" * 64).decode()
    with pytest.raises(ProgramError, match="no End"):
        replace(program, commands=program.commands[:64]).decode()
    with pytest.raises(ProgramError, match="no whole number"):
        replace(program, commands=program.commands[:65]).decode()


def test_region_bytes_are_at_least_the_contents() -> None:
    program = small_program().npu
    assert program.region_bytes(Region.CODE) == 128
    assert program.region_bytes(Region.CONST) == 100
    assert program.region_bytes(Region.IO) == 512
    assert program.region_bytes(Region.SCRATCH) == 0


def test_tensors_are_written_and_read_at_their_pitches() -> None:
    tensor = small_program().npu.inputs[0]
    values = np.arange(-15, 15, dtype=np.int8).reshape(1, 2, 3, 5)
    memory = np.full(128, 0xEE, np.uint8)
    tensor.scatter(memory, values)
    for y in range(2):
        for x in range(3):
            start = 40 * y + 8 * x
            np.testing.assert_array_equal(memory[start : start + 5].view(np.int8), values[0, y, x])
            assert (memory[start + 5 : start + 8] == 0xEE).all()
    np.testing.assert_array_equal(tensor.gather(memory), values)
    info = TensorInfo(name="w", shape=(3,), dtype="int32")
    wide = PlacedTensor(info=info, row_pitch=0, pixel_pitch=0, offset=4)
    wide.scatter(memory, np.array([1, -2, 1 << 20], np.int32))
    assert memory[4:16].tobytes() == struct.pack("<3i", 1, -2, 1 << 20)
    np.testing.assert_array_equal(wide.gather(memory), [1, -2, 1 << 20])


def test_wrong_arrays_are_refused() -> None:
    tensor = small_program().npu.inputs[0]
    with pytest.raises(InputError, match=r"got float64 \(2,\)"):
        tensor.scatter(np.zeros(128, np.uint8), np.zeros(2))
    with pytest.raises(InputError, match="ends at 61"):
        tensor.gather(np.zeros(60, np.uint8))
    for wrong in ({"region": "X"}, {"pixel_pitch": 4}, {"row_pitch": 20}, {"offset": -1}):
        with pytest.raises(ProgramError):
            replace(tensor, **wrong)
    with pytest.raises(ProgramError, match="unknown dtype 'int9'"):
        replace(tensor.info, dtype="int9")
