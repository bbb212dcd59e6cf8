"""A machine for several samples does for each what a machine for one does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Load, Mode, Region, Softmax, Space, Store, Vector, VectorOp
from celosia.hw.contract.regs import ErrorCause
from celosia.sim.emulator.machine import Emulator, EmulatorError, EmulatorFault

from tests.kit.both_machines import chain
from tests.kit.commands import CONV, REQUANT

BASE = preset("base")
CONST_BASE, IO_BASE, MEMORY_BYTES = 0x2000, 0x4000, 0x8000
IO = range(IO_BASE, MEMORY_BYTES)
SAMPLES = 5
PLACES = {Space.ACT: 0, Space.WGT: 0x800, Space.PARAM: 0x1000, Space.TABLE: 0x1100}
SIZES = {Space.ACT: 0x800, Space.WGT: 0x800, Space.PARAM: 144, Space.TABLE: 0x800}
OUTPUT, OUTPUT_BYTES = 0x2000, 0x1000

Bytes = npt.NDArray[np.uint8]


def fill(space: Space, region: Region) -> Load:
    return Load(region=region, space=space, mem_addr=PLACES[space], row_bytes=SIZES[space])


def program(own: tuple[Space, ...]) -> bytes:
    """Return a program that uses every engine; what is in `own` is loaded from IO, not CONST."""
    loads = [
        fill(space, Region.IO if space in (Space.ACT, *own) else Region.CONST) for space in Space
    ]
    windows = replace(CONV, n_ic=2, step_ic=8, row_bytes=20, n_oc=2, x0=-3, zero_point=5)
    taps = replace(
        CONV,
        mode=Mode.TAPS,
        row_bytes=64,
        row_pitch=64,
        row_len=8,
        step_x=8,
        step_y=64,
        out_w=6,
        y0=-1,
        zero_point=-7,
        wgt_addr=32,
    )
    vector = Vector(op=VectorOp.TABLE, n_oc=1, out_h=4, out_w=4, a_x=1, a_y=4, d_x=1, d_y=4)
    return chain(
        *loads,
        (windows, replace(REQUANT, n_oc=2)),
        (taps, replace(REQUANT, out_w=6, d_addr=128, d_x=1, d_y=6)),
        replace(vector, a_addr=128, d_addr=200),
        replace(
            vector,
            op=VectorOp.ADD,
            a_addr=64,
            b_addr=128,
            b_x=1,
            b_y=4,
            d_addr=220,
            mult_a=1 << 30,
            mult_b=3 << 28,
            mult_o=1 << 30,
            shift_o=18,
            act_min=-120,
            act_max=127,
        ),
        replace(
            vector, op=VectorOp.MAX, n_ky=2, n_kx=3, a_ky=8, a_kx=1, d_addr=240, act_max=127,
            act_min=-128,
        ),
        Softmax(a_addr=200, d_addr=260, n_rows=3, channels=13, a_y=2, d_y=2),
        Store(
            region=Region.IO, space=Space.ACT, mem_addr=OUTPUT, sram_addr=0, row_bytes=OUTPUT_BYTES
        ),
    )  # fmt: skip


def contents(rng: np.random.Generator) -> Bytes:
    """Return 8 KiB of what is loaded; shifts are within their bounds."""
    memory = rng.integers(0, 256, 0x2000, dtype=np.uint8)
    for block in range(2):
        start = PLACES[Space.PARAM] + 72 * block
        memory[start + 64 : start + 72] = rng.integers(-31, 4, 8).astype(np.int8).view(np.uint8)
    return memory


def machine(code: bytes) -> Emulator:
    emulator = Emulator(BASE, MEMORY_BYTES)
    emulator.load_code(code)
    emulator.memory[CONST_BASE : CONST_BASE + 0x2000] = contents(np.random.default_rng(1))
    emulator.set_region(Region.CONST, CONST_BASE, 0x2000)
    emulator.set_region(Region.IO, IO.start, len(IO))
    return emulator


@pytest.mark.parametrize(
    "own",
    [(), (Space.WGT,), (Space.PARAM,), (Space.TABLE,), (Space.WGT, Space.PARAM, Space.TABLE)],
    ids=lambda own: "+".join(space.name for space in own) or "none",
)
def test_every_sample_gets_what_it_gets_alone(own: tuple[Space, ...]) -> None:
    code = program(own)
    samples = [contents(np.random.default_rng((2, number))) for number in range(SAMPLES)]
    many = machine(code).for_samples(SAMPLES, IO)
    for number, sample in enumerate(samples):
        many.own_memory[: sample.size, number] = sample
    counted = many.run("random", 3)
    results = set()
    for number, sample in enumerate(samples):
        one = machine(code)
        one.memory[IO.start : IO.start + sample.size] = sample
        assert one.run() == replace(counted, order=one.run().order)
        np.testing.assert_array_equal(many.own_memory[:, number], one.memory[IO.start : IO.stop])
        assert (many.work, many.act.size) == (one.work, one.act.size)
        results.add(one.memory[IO.start + OUTPUT + 64 * 8 : IO.start + OUTPUT + 290 * 8].tobytes())
    assert len(results) == SAMPLES
    # What is equal for all is kept once.
    for space in (Space.WGT, Space.PARAM, Space.TABLE):
        assert many.chip[space].shape[1] == (SAMPLES if space in own else 1)


def test_faults_are_those_of_one_sample() -> None:
    code = chain(fill(Space.ACT, Region.IO), replace(fill(Space.WGT, Region.IO), mem_addr=0x3900))
    found = []
    for emulator in (machine(code), machine(code).for_samples(3, IO)):
        with pytest.raises(EmulatorFault) as caught:
            emulator.run()
        found.append((caught.value.cause, caught.value.unit, caught.value.tag))
    assert found[0] == found[1] == (ErrorCause.MEM_WINDOW, 0, 1)


def test_memory_that_samples_share_is_not_written() -> None:
    store = Store(region=Region.CONST, space=Space.ACT, row_bytes=64)
    emulator = machine(chain(fill(Space.ACT, Region.IO), store))
    before = emulator.memory.copy()
    with pytest.raises(EmulatorError, match="tag 1 stores into memory that samples share"):
        emulator.for_samples(2, IO).run()
    np.testing.assert_array_equal(emulator.memory, before)
    half = emulator.for_samples(2, range(IO.start + 64, IO.stop))
    with pytest.raises(EmulatorError, match="region IO is not within the samples' own memory"):
        half.run()
