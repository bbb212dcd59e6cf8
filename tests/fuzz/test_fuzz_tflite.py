"""Damaged and hostile ``.tflite`` files: an error in words, soon, and in little memory.

Sound files are mutated in bytes and in their structure, then loaded, lowered and compiled::

    python -m tests.fuzz.test_fuzz_tflite --minutes 10
    python -m tests.fuzz.test_fuzz_tflite --seeds 4711 4712      # one case again

Each case has a seed of its own, from which base and mutations follow. Anything but a
`CelosiaError`, a case that takes too long, and a process that grows too large is a finding.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import tflite  # type: ignore[import-untyped]
from celosia.errors import CelosiaError
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_graph
from celosia.sw.compiler.frontends.tflite import convert as frontend
from celosia.sw.compiler.lower import lower

from tests.kit.peak import peak_bytes
from tests.kit.places import ROOT, SHARED

MEMORY_BYTES = 512 << 20
CASE_SECONDS = 20
TEST_CASES = 120
LARGEST_BASE = 64 << 10
"""Bytes of a base: in larger ones mutations meet weights, which mean nothing."""
INTERESTING = (0, 1, 2, 3, 4, 5, 8, 16, 127, 128, 255, 256, 1 << 15, 1 << 16, 1 << 24, 1 << 28,
               (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 4)  # fmt: skip


# ---------------------------------------------------------------------- bases


def built() -> Iterator[bytes]:
    """Small models that between them have every operator the compiler takes."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return rng.integers(-128, 128, shape).astype(np.int8)

    b = ModelBuilder()
    x = b.input((1, 8, 8, 2), scale=0.05, zero_point=-3)
    p = b.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    c = b.conv2d(p, weights(4, 3, 3, 2), w_scales=[0.1, 0.2, 0.3, 0.4], scale=0.7, padding="VALID")
    d = b.depthwise_conv2d(c, weights(1, 3, 3, 4), w_scales=0.02, scale=0.7)
    a = b.max_pool2d(b.add(c, d, scale=0.8), size=(2, 2), strides=(2, 2))
    f = b.fully_connected(b.reshape(a, (1, 64)), weights(5, 64), w_scales=0.02, scale=0.5)
    b.softmax(f)
    yield b.finish()

    b = ModelBuilder()
    x, y = b.input((1, 4, 4, 3), scale=0.05), b.input((1, 4, 4, 3), scale=0.04, zero_point=9)
    s = b.sub(x, b.leaky_relu(y, alpha=0.1), scale=0.1)
    s = b.tanh(b.hard_swish(b.relu(s, scale=0.05, zero_point=-20, kind="RELU6")))
    s = b.mul(s, b.constant(np.array([7], np.int8), scales=0.1), scale=0.02)
    s = b.average_pool2d(b.quantize(b.logistic(s), scale=0.01), size=(3, 3), padding="SAME")
    yield b.finish(old_codes=False)

    b = ModelBuilder()
    x = b.input((1, 1, 6), scale=0.05)
    e = b.operator(
        "EXPAND_DIMS", [x, b.constant(np.array([1], np.int32))], (1, 1, 1, 6), scale=0.05
    )
    b.operator("SQUEEZE", [e], (6,), scale=0.05, options=("SqueezeOptions", {}))
    b.operator("CUSTOM:mine", [b.mean(x, scale=0.05, axes=(1,))], (1, 1, 6), scale=0.05)
    yield b.finish([e])


def bases() -> list[bytes]:
    """Return what there is: built models, those of the examples, and shared ones."""
    files: list[Path] = []
    for folder in (ROOT / "examples", SHARED):
        files += sorted(folder.rglob("*.tflite")) if folder.is_dir() else []
    small = [path for path in files if path.stat().st_size <= LARGEST_BASE]
    return [*built(), *dict.fromkeys(path.read_bytes() for path in small)]


# ---------------------------------------------------------------------- mutations


@dataclass
class Places:
    """Positions in a file by what they hold, found by walking its tables."""

    vectors: list[int] = field(default_factory=list)
    """Offset fields that point to a vector or a string."""
    tables: list[int] = field(default_factory=list)
    """Offset fields that point to a table."""
    scalars: list[tuple[int, int]] = field(default_factory=list)
    """Fields and elements of vectors, with their size."""


def places(data: bytes) -> Places:
    """Find the tables of a sound file."""
    found = Places()
    model = tflite.Model.GetRootAs(data, 0)
    graph = model.Subgraphs(0)
    tables: list[tuple[Any, dict[int, str]]] = [
        (model, {4: "4", 6: "T", 8: "T", 12: "T"}),
        (graph, {4: "T", 6: "V", 8: "V", 10: "T"}),
    ]
    for i in range(model.OperatorCodesLength()):
        tables.append((model.OperatorCodes(i), {4: "1", 6: "V", 8: "4", 10: "4"}))
    for i in range(model.BuffersLength()):
        tables.append((model.Buffers(i), {4: "B"}))
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        slots = {4: "V", 6: "1", 8: "4", 10: "V", 12: "O", 14: "1", 18: "V"}
        tables.append((tensor, slots))
        if tensor.Quantization() is not None:
            tables.append((tensor.Quantization(), {8: "V", 10: "V", 16: "4"}))
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        tables.append((operator, {4: "4", 6: "V", 8: "V", 10: "1", 12: "O"}))
        options = operator.BuiltinOptions()
        if options is not None:
            slots = {4 + 2 * n: "1" if n % 3 == 0 else "4" for n in range(6)}
            tables.append((type("Options", (), {"_tab": options}), slots))
    for table, slots in tables:
        for slot, kind in slots.items():
            offset = table._tab.Offset(slot)
            if not offset:
                continue
            position = table._tab.Pos + offset
            if kind in "14":
                found.scalars.append((position, int(kind)))
            elif kind == "O":
                found.tables.append(position)
            else:
                found.vectors.append(position)
                start = position + int.from_bytes(data[position : position + 4], "little")
                length = int.from_bytes(data[start : start + 4], "little")
                found.scalars.append((start, 4))
                for element in range(min(length, 8) if kind in "VT" else 0):
                    place = start + 4 + 4 * element
                    (found.tables if kind == "T" else found.scalars).append(
                        place if kind == "T" else (place, 4)  # type: ignore[arg-type]
                    )
    return found


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with a few mutations of one kind."""
    out = bytearray(data)
    kind = rng.choice(["bytes", "scalars", "offsets", "shared", "long", "cut", "names"])
    known = places(data)

    def pick(values: list[Any]) -> Any:
        return values[int(rng.integers(len(values)))]

    def put(position: int, value: int, size: int = 4) -> None:
        if 0 <= position <= len(out) - size:
            out[position : position + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    if kind == "long":
        # A long vector behind the file, to which several fields point.
        start = len(out)
        out.extend(int(rng.integers(1, 1 << 14)).to_bytes(4, "little"))
        out.extend(rng.integers(0, 256, 1 << 16).astype(np.uint8).tobytes())
        for _ in range(int(rng.integers(1, 12))):
            position = pick(known.vectors)
            put(position, start - position)
    for _ in range(int(rng.integers(1, 6))):
        if kind == "bytes":
            out[int(rng.integers(8, len(out)))] = int(rng.choice([0, 1, 127, 128, 255]))
        elif kind == "scalars":
            position, size = pick(known.scalars)
            put(position, pick(list(INTERESTING)) + int(rng.integers(-1, 2)), size)
        elif kind == "offsets":
            put(pick(known.vectors + known.tables), pick(list(INTERESTING)))
        elif kind == "shared":
            places_of = pick([known.vectors, known.tables])
            one, other = pick(places_of), pick(places_of)
            target = other + int.from_bytes(data[other : other + 4], "little")
            put(one, target - one)
        elif kind == "names":
            out[int(rng.integers(8, len(out)))] = int(rng.choice([0x1B, 0x9B, 0xFF, 0xC3, 10]))
    if kind == "cut":
        del out[int(rng.integers(8, len(out))) :]
    return bytes(out)


# ---------------------------------------------------------------------- cases


class TooSlowError(Exception):
    """A case took longer than it may."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(data: bytes) -> str:
    """Compile a file for tiny; say how it went. What is no `CelosiaError` propagates."""
    with time_limit(CASE_SECONDS):
        try:
            compile_graph(lower(frontend.load(data)), preset("tiny"))
            return "accepted"
        except CelosiaError as error:
            refusal = error
    assert all(line.isprintable() for line in str(refusal).split("\n")), repr(refusal)
    assert refusal.remedy, str(refusal)
    assert "internal error" not in str(refusal), str(refusal)
    return f"refused: {type(refusal).__name__}"


def run(seed: int, known: list[bytes]) -> str:
    """Run one case."""
    rng = np.random.default_rng(seed)
    return outcome(mutate(known[int(rng.integers(len(known)))], rng))


def test_bases_are_sound() -> None:
    assert [outcome(data) for data in built()] == ["accepted"] * 3


def test_mutated_files_are_refused_in_words() -> None:
    known = list(built())
    outcomes = Counter(run(seed, known) for seed in range(TEST_CASES))
    assert outcomes["refused: ModelError"] > TEST_CASES // 4
    assert outcomes["accepted"]


def main() -> int:
    """Compile mutated files; report those that do harm."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="the first case's seed")
    parser.add_argument("--seeds", type=int, nargs=2, metavar=("A", "B"), help="these cases")
    options = parser.parse_args()
    # A case that would take all memory ends with a MemoryError instead, which is a finding.
    resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY_BYTES, 4 * MEMORY_BYTES))
    first, last = options.seeds or (options.seed, sys.maxsize)
    until = time.monotonic() + 60 * options.minutes
    outcomes: Counter[str] = Counter()
    known, findings = bases(), 0
    for seed in range(first, last):
        if not options.seeds and time.monotonic() > until:
            break
        before = peak_bytes()
        try:
            outcomes[run(seed, known)] += 1
        except Exception as error:
            findings += 1
            outcomes[f"FINDING: {type(error).__name__}"] += 1
            print(f"seed {seed}", file=sys.stderr)
            traceback.print_exc()
        if peak_bytes() > max(MEMORY_BYTES, before):
            findings += 1
            outcomes["FINDING: memory"] += 1
            print(f"seed {seed}: {peak_bytes() >> 20} MB", file=sys.stderr)
    print(f"{sum(outcomes.values()):8} cases of {len(known)} bases")
    for name, count in outcomes.most_common():
        print(f"{count:8} {name}")
    print(f"{peak_bytes() >> 20:8} MB at most")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
