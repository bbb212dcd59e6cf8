"""The program file: what is written is read back, and nothing damaged is accepted."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from celosia.errors import InputError, ProgramError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import End, Load, Region, Space
from celosia.sw.program.file import (
    HEADER_BYTES,
    LayerInfo,
    MemoryPlan,
    Program,
    TensorInfo,
)


def small_program() -> Program:
    commands = Load(region=Region.IO, space=Space.ACT, row_bytes=8).encode() + End(tag=1).encode()
    return Program(
        config=preset("nano"),
        commands=commands,
        constants=bytes(range(100)),
        inputs=(
            TensorInfo(
                name="in",
                shape=(1, 2, 3, 5),
                scale=0.1,
                zero_point=-3,
                row_pitch=40,
                pixel_pitch=8,
            ),
        ),
        outputs=(TensorInfo(name="out", shape=(1, 4), offset=256, row_pitch=4, pixel_pitch=4),),
        memory=MemoryPlan(region_bytes={"IO": 512}, plan=[{"what": "in", "line": 4}]),
        layers=(LayerInfo(name="first", op="CONV_2D", tflite_index=0, first_tag=0, last_tag=0),),
        command_layers=(0, -1),
        model="small",
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
    assert [file.name for file in tmp_path.iterdir()] == ["small.npu"]
    assert program.to_bytes() == path.read_bytes() == small_program().to_bytes()


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
    program = small_program()
    assert [type(command) for command in program.decode()] == [Load, End]
    with pytest.raises(ProgramError, match="command 1: illegal opcode 0xff"):
        replace(program, commands=program.commands[:64] + b"\xff" * 64).decode()
    with pytest.raises(ProgramError, match="no End"):
        replace(program, commands=program.commands[:64]).decode()
    with pytest.raises(ProgramError, match="no whole number"):
        replace(program, commands=program.commands[:65]).decode()


def test_region_bytes_are_at_least_the_contents() -> None:
    program = small_program()
    assert program.region_bytes(Region.CODE) == 128
    assert program.region_bytes(Region.CONST) == 100
    assert program.region_bytes(Region.IO) == 512
    assert program.region_bytes(Region.SCRATCH) == 0


def test_tensors_are_written_and_read_at_their_pitches() -> None:
    tensor = small_program().inputs[0]
    values = np.arange(-15, 15, dtype=np.int8).reshape(1, 2, 3, 5)
    memory = np.full(128, 0xEE, np.uint8)
    tensor.scatter(memory, values)
    for y in range(2):
        for x in range(3):
            start = 40 * y + 8 * x
            np.testing.assert_array_equal(memory[start : start + 5].view(np.int8), values[0, y, x])
            assert (memory[start + 5 : start + 8] == 0xEE).all()
    np.testing.assert_array_equal(tensor.gather(memory), values)
    wide = TensorInfo(name="w", shape=(3,), dtype="int32", row_pitch=0, pixel_pitch=0, offset=4)
    wide.scatter(memory, np.array([1, -2, 1 << 20], np.int32))
    assert memory[4:16].tobytes() == struct.pack("<3i", 1, -2, 1 << 20)
    np.testing.assert_array_equal(wide.gather(memory), [1, -2, 1 << 20])


def test_wrong_arrays_are_refused() -> None:
    tensor = small_program().inputs[0]
    with pytest.raises(InputError, match=r"got float64 \(2,\)"):
        tensor.scatter(np.zeros(128, np.uint8), np.zeros(2))
    with pytest.raises(InputError, match="ends at 61"):
        tensor.gather(np.zeros(60, np.uint8))
    for wrong in ({"dtype": "int9"}, {"region": "X"}, {"pixel_pitch": 4}, {"row_pitch": 20}):
        with pytest.raises(ProgramError):
            replace(tensor, **wrong)
