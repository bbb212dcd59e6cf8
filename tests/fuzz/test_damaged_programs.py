"""Damages the sections of program files, with right checksums, and runs what is accepted.

Whatever a file holds, loading and running it must end in time, in little memory, with a result or
with a Celosia error::

    python -m tests.fuzz.test_damaged_programs --minutes 10
    python -m tests.fuzz.test_damaged_programs --seed 4711        # one case again

Any other exception, a case that takes too long, or memory beyond the limit counts as a defect.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import struct
import sys
import time
import traceback
import zlib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from celosia.errors import CelosiaError, UnsupportedError
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import COMMAND_BYTES, COMMANDS, Region, fields_of
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.emu import EmuDevice
from celosia.sw.program.file import Program
from celosia.sw.program.sections import HEADER_BYTES, Section
from celosia.sw.program.tensors import PlacedTensor, TensorInfo
from celosia.sw.program.verify import check_program
from celosia.sw.report.example import load_digits

from tests.kit.peak import peak_bytes
from tests.kit.random_models import random_network

ENTRY = struct.Struct("<IIQQ")
MEMORY_BYTES = 16 << 20
MAX_CASE_SECONDS = 60.0
MAX_RSS_BYTES = 512 << 20

JSON_SECTIONS = (
    Section.CONFIG,
    Section.TENSORS,
    Section.MEMORY,
    Section.LAYERS,
    Section.SEGMENTS,
)
NUMBERS = (-1, 0, 1, 7, 255, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 41, 1 << 63, 10**400)
VALUES: tuple[Any, ...] = (
    *NUMBERS, None, True, False, 0.5, 1e308, -1e-308, "", "x", "int8", "IO", "\ud800", "n" * 9999,
    [], {}, [[]], [1, 2, 3], {"a": 1}, "float64", "object", "V8", "M8[s]",
    "int16", "npu", "host",
)  # fmt: skip


@dataclass
class Report:
    """What became of the cases."""

    cases: int = 0
    accepted: int = 0
    ran: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def __str__(self) -> str:
        refused = ", ".join(f"{kind} {count}" for kind, count in self.refused.most_common())
        return (
            f"{self.cases} cases: {self.accepted} accepted, {self.ran} of them ran to their end;"
            f" refused: {refused or 'none'}; defects: {len(self.defects)}; slowest"
            f" {self.slowest_seconds:.1f} s; peak {peak_bytes() >> 20} MiB"
        )


def valid_files() -> list[bytes]:
    """Return programs of the compiler, small ones: what is damaged takes little time."""
    files = [
        compile_model(load_digits().model, preset(name)).to_bytes() for name in ("nano", "base")
    ]
    for seed in (0, 1, 3, 4, 5, 7):
        model = random_network(np.random.default_rng(seed)).model
        try:
            made = compile_model(model, preset("tiny"), keep_tensors=seed == 3, host="refuse")
            files.append(made.to_bytes())
        except UnsupportedError:
            continue
    return [*files, segmented(Program.from_bytes(files[0])).to_bytes()]


def segmented(program: Program) -> Program:
    """Return a program of two segments with a tensor that outlasts a run."""
    segment = program.npu
    size = segment.region_bytes(Region.IO)
    state = PlacedTensor(
        info=TensorInfo(name="a state", shape=(1, 8), persistent=True),
        offset=size,
        row_pitch=8,
        pixel_pitch=8,
    )
    plan = replace(
        segment.memory, region_bytes={**segment.memory.region_bytes, Region.IO.name: size + 8}
    )
    first = replace(
        segment,
        memory=plan,
        inputs=(*segment.inputs, state),
        outputs=(*segment.outputs, state),
    )
    return replace(program, segments=(first, segment), initial_state=bytes(range(8)))


def sections_of(data: bytes) -> dict[int, bytes]:
    """Return the sections of a sound file."""
    count = struct.unpack_from("<I", data, 28)[0]
    entries = (ENTRY.unpack_from(data, HEADER_BYTES + ENTRY.size * i) for i in range(count))
    return {kind: data[offset : offset + size] for kind, _, offset, size in entries}


def assembled(header: bytes, sections: dict[int, bytes], rng: random.Random) -> bytes:
    """Return a file with a right checksum; now and then its table is wrong."""
    body = bytearray(header[:HEADER_BYTES]) + bytearray(ENTRY.size * len(sections))
    for index, (kind, content) in enumerate(sections.items()):
        body += bytes(-len(body) % 64)
        place = HEADER_BYTES + ENTRY.size * index
        ENTRY.pack_into(body, place, kind, 0, len(body), len(content))
        body += content
    struct.pack_into("<Q", body, 20, len(body))
    struct.pack_into("<I", body, 28, len(sections))
    if rng.random() < 0.1:
        place = HEADER_BYTES + 4 * rng.randrange(ENTRY.size * len(sections) // 4)
        struct.pack_into("<I", body, place, rng.choice(NUMBERS) & 0xFFFF_FFFF)
    crc = zlib.crc32(body[HEADER_BYTES:], zlib.crc32(body[: HEADER_BYTES - 4]))
    struct.pack_into("<I", body, HEADER_BYTES - 4, crc)
    return bytes(body)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container of a JSON value with each of its keys."""
    found: list[tuple[Any, Any]] = []
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        found.append((value, key))
        found += places(value[key])
    return found


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """Change values, types, sizes or the text itself."""
    kind = rng.randrange(12)
    if kind == 0:
        depth = rng.choice((100, 2000, 100_000))
        return b"[" * depth + b"]" * (depth if rng.random() < 0.5 else 0)
    if kind == 1:
        place = rng.randrange(len(data) + 1)
        junk = rng.choice((b"NaN", b"Infinity", b"\xff\xfe", b"{", b"]", b'"a":1,', b"9" * 5000))
        return data[:place] + junk + data[place + rng.randrange(3) :]
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        found = places(content)
        if not found:
            return json.dumps(rng.choice(VALUES)).encode()
        container, key = rng.choice(found)
        action = rng.randrange(10)
        # A copy: what is put in may be damaged in its turn.
        value = copy.deepcopy(rng.choice(VALUES))
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[str(rng.choice(VALUES))[:20]] = value
        elif action == 2 and isinstance(container[key], list):
            container[key] = container[key] * rng.choice((2, 100, 5000))
        elif action < 6 and type(container[key]) is int:
            container[key] += rng.choice((-64, -8, -1, 1, 8, 64, 4096))
        else:
            container[key] = value
    return json.dumps(content).encode("utf-8", "surrogatepass")


def damaged_commands(data: bytes, rng: random.Random) -> bytes:
    """Set fields to odd values, or move, copy and drop commands."""
    commands = [bytearray(data[i : i + COMMAND_BYTES]) for i in range(0, len(data), COMMAND_BYTES)]
    if rng.random() < 0.05:
        return data[: rng.randrange(len(data))]
    if rng.random() < 0.03:
        commands = commands[:-1] * rng.choice((3, 50)) + commands[-1:]
        for tag, command in enumerate(commands):
            struct.pack_into("<H", command, 2, tag & 0xFFFF)
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(commands))
        kind = COMMANDS.get(commands[index][0])
        if kind is None or rng.random() < 0.05:
            commands[index][rng.randrange(COMMAND_BYTES)] ^= 1 << rng.randrange(8)
            continue
        chosen = rng.sample(fields_of(kind)[1:], rng.choice((1, 1, 2, 6)) % len(fields_of(kind)))
        for spec in chosen:
            ones = (1 << spec.width_bits) - 1
            word = int.from_bytes(commands[index], "little")
            old = word >> spec.offset_bits & ones
            new = rng.choice((0, 1, ones, ones >> 1, old + 1, old - 1, rng.getrandbits(32))) & ones
            word ^= (old ^ new) << spec.offset_bits
            commands[index][:] = word.to_bytes(COMMAND_BYTES, "little")
    return b"".join(commands)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return a damaged file with a right checksum."""
    sections = sections_of(data)
    choice = rng.random()
    if choice < 0.5:
        section: int = rng.choice(JSON_SECTIONS)
        sections[section] = damaged_json(sections[section], rng)
    elif choice < 0.9:
        sections[Section.COMMANDS] = damaged_commands(sections[Section.COMMANDS], rng)
    else:
        section = rng.choice(list(sections))
        content = bytearray(sections[section])
        for _ in range(rng.choice((1, 3, 20))):
            if content:
                content[rng.randrange(len(content))] = rng.randrange(256)
        sections[section] = bytes(content[: rng.choice((len(content), rng.randrange(99)))])
        if rng.random() < 0.2:
            del sections[section]
    return assembled(data, sections, rng)


def run_case(data: bytes, report: Report, *, unchecked: bool = False) -> None:
    """Load, check and run one file; `unchecked` runs what the static check would refuse."""
    started = time.monotonic()
    report.cases += 1
    try:
        program = Program.from_bytes(data)
        if not unchecked:
            check_program(program)
        report.accepted += 1
        inputs = {t.name: np.zeros(t.shape, t.dtype) for t in program.inputs}
        with EmuDevice(program.config, memory_bytes=MEMORY_BYTES) as device:
            device.run(program, inputs)
        report.ran += 1
    except CelosiaError as error:
        report.refused[type(error).__name__] += 1
        str(error).encode()
    seconds = time.monotonic() - started
    report.slowest_seconds = max(report.slowest_seconds, seconds)
    if seconds > MAX_CASE_SECONDS:
        raise TimeoutError(f"the case took {seconds:.0f} s")


def fuzz(
    seeds: range, *, seconds: float | None = None, max_rss_bytes: int = MAX_RSS_BYTES
) -> Report:
    """Run the cases of `seeds`, for `seconds` at most."""
    files, report = valid_files(), Report()
    stop = None if seconds is None else time.monotonic() + seconds
    for seed in seeds:
        if stop is not None and time.monotonic() > stop:
            break
        rng = random.Random(seed)
        data = damaged(rng.choice(files), rng)
        try:
            run_case(data, report, unchecked=seed % 4 == 3)
            if peak_bytes() > max_rss_bytes:
                raise MemoryError(f"the process has taken {peak_bytes() >> 20} MiB")
        except Exception:
            report.defects.append(f"seed {seed}\n{traceback.format_exc(limit=-6)}")
            print(report.defects[-1], file=sys.stderr, flush=True)
            if peak_bytes() > max_rss_bytes:
                break  # every case after it would be blamed
    return report


def test_damaged_program_files_end_in_celosia_errors() -> None:
    # Tests before this one may have taken any memory: the limit is for the campaign.
    report = fuzz(range(300), seconds=20, max_rss_bytes=1 << 40)
    assert report.defects == []
    assert report.ran > 10
    assert report.refused["ProgramError"] > 50


def main() -> int:
    """Fuzz as the command line says; 1 if there are defects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 1 << 31), metavar=("FROM", "TO"))
    parser.add_argument("--seed", type=int, help="one case")
    given = parser.parse_args()
    first, end = given.seeds if given.seed is None else (given.seed, given.seed + 1)
    seconds = None if given.minutes is None else 60 * given.minutes
    report = fuzz(range(first, end), seconds=seconds)
    print(report)
    return bool(report.defects)


if __name__ == "__main__":
    raise SystemExit(main())
