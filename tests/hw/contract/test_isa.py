"""The instruction set: every command survives its encoding, nothing else is decoded."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import replace

import pytest
from celosia.hw.contract.isa import (
    COMMAND_BITS,
    COMMAND_BYTES,
    COMMANDS,
    Command,
    Conv,
    End,
    Engine,
    IsaError,
    Load,
    Mode,
    Region,
    Space,
    Store,
    Vector,
    VectorOp,
    disassemble,
    fields_of,
)

KINDS = list(COMMANDS.values())


def random_command(kind: type[Command], draw: random.Random) -> Command:
    values: dict[str, int] = {}
    for spec in fields_of(kind):
        if spec.name == "opcode":
            continue
        if spec.enum is not None:
            values[spec.name] = draw.choice(list(spec.enum))
        else:
            values[spec.name] = draw.choice(
                (spec.minimum, spec.maximum, draw.randint(spec.minimum, spec.maximum))
            )
    return kind(**values)


@pytest.mark.parametrize("kind", KINDS)
def test_commands_survive_their_encoding(kind: type[Command]) -> None:
    draw = random.Random(kind.__name__)
    for _ in range(200):
        command = random_command(kind, draw)
        data = command.encode()
        assert len(data) == COMMAND_BYTES
        decoded = Command.decode(data)
        assert type(decoded) is kind
        assert decoded == command


@pytest.mark.parametrize("kind", KINDS)
def test_fields_follow_one_another_and_fit(kind: type[Command]) -> None:
    offset_bits = 0
    for spec, field in zip(fields_of(kind), dataclasses.fields(kind), strict=True):
        assert spec.name == field.name
        assert spec.offset_bits == offset_bits
        assert spec.doc
        offset_bits += spec.width_bits
    assert offset_bits <= COMMAND_BITS
    assert [spec.name for spec in fields_of(kind)[:4]] == ["opcode", "wait", "signal", "tag"]


@pytest.mark.parametrize("kind", KINDS)
def test_values_out_of_range_are_refused_by_name(kind: type[Command]) -> None:
    base = kind()
    for spec in fields_of(kind):
        if spec.name == "opcode":
            continue
        for value in (spec.minimum - 1, spec.maximum + 1):
            with pytest.raises(IsaError, match=rf"{kind.__name__}\.{spec.name} is {value}"):
                replace(base, **{spec.name: value}).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_reserved_bits_are_refused(kind: type[Command]) -> None:
    word = int.from_bytes(kind().encode(), "little")
    used = sum(spec.width_bits for spec in fields_of(kind))
    for bit in {used, COMMAND_BITS - 1}:
        if bit < COMMAND_BITS:
            with pytest.raises(IsaError, match="reserved bits"):
                Command.decode((word | 1 << bit).to_bytes(COMMAND_BYTES, "little"))


def test_unknown_opcodes_and_enumerations_are_refused() -> None:
    for opcode in set(range(256)) - set(COMMANDS):
        with pytest.raises(IsaError, match="illegal opcode"):
            Command.decode(bytes([opcode]) + bytes(63))
    for kind in COMMANDS.values():
        for spec in fields_of(kind):
            if spec.enum is None or spec.name == "opcode":
                continue
            word = int.from_bytes(kind().encode(), "little") & ~(
                (1 << spec.width_bits) - 1 << spec.offset_bits
            )
            for value in range(1 << spec.width_bits):
                data = (word | value << spec.offset_bits).to_bytes(COMMAND_BYTES, "little")
                if value in list(spec.enum):
                    assert getattr(Command.decode(data), spec.name) == value
                else:
                    with pytest.raises(IsaError, match=rf"illegal {kind.__name__}\.{spec.name}"):
                        Command.decode(data)
    with pytest.raises(IsaError, match="not 63"):
        Command.decode(bytes(63))


def test_a_known_encoding_is_kept() -> None:
    """The format is a contract with bitstreams in the field: it may not change unnoticed."""
    load = Load(wait=0xA, signal=5, tag=0x1234, region=Region.IO, space=Space.WGT, row_bytes=8)
    data = load.encode()
    assert data[:4] == bytes([0x10, 0x5A, 0x34, 0x12])
    assert data[4] == 2 | 1 << 2
    word = int.from_bytes(data, "little")
    assert word >> 88 & 0xFFFFF == 8
    assert word >> 108 & 0xFFFF == 1


def test_engines_follow_from_opcodes() -> None:
    expected = {Load: Engine.LOAD, Store: Engine.STORE, Conv: Engine.ARRAY, Vector: Engine.VECTOR}
    for kind, engine in expected.items():
        assert kind().engine is engine
    assert End().engine is None


def test_disassembly_ends_at_the_first_end() -> None:
    stream = [Load(tag=0), Conv(tag=1, mode=Mode.ROWS), Vector(tag=2, op=VectorOp.MAX), End(tag=3)]
    data = b"".join(command.encode() for command in stream)
    assert disassemble(data + b"\xff" * 64) == stream
    with pytest.raises(IsaError, match="no End"):
        disassemble(data[:-64])
    with pytest.raises(IsaError, match="command 1: illegal opcode 0x00"):
        disassemble(data[:64] + bytes(64))
