"""Commands on the machine with firmware: every bit as the emulator has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import (
    BIAS_LINES,
    BLOCK_LINES,
    Conv,
    Engine,
    Load,
    Mode,
    Region,
    Rounding,
    Softmax,
    Space,
    Store,
    Vector,
    VectorOp,
)
from celosia.hw.nano.firmware.image import firmware
from celosia.hw.nano.instructions import CODE_WORDS, DATA_WORDS

pytestmark = pytest.mark.xdist_group("rtl-nano")

CONFIG = preset("nano")
LINE = CONFIG.line_bytes
IMAGE_BYTES = 3072
"""Of the activation SRAM that inputs are read from; results go behind them."""
RESULT_LINE = IMAGE_BYTES // LINE
ACT_BYTES = 8192
"""Of the activation SRAM that is used at all."""
EXTREMES = (-(2**31), -(2**31) + 1, -(2**30), -256, -2, -1, 0, 1, 2, 255, 2**30, 2**31 - 1)

Rng = np.random.Generator


def pick(rng: Rng, low: int, high: int) -> int:
    """Return a number from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))


def test_the_firmware_fits() -> None:
    image = firmware(CONFIG)
    assert len(image.code) <= CODE_WORDS
    assert len(image.data) <= DATA_WORDS


# Transfers


def random_transfer(rng: Rng, kind: type[Load | Store]) -> Load | Store:
    """Return one of odd lengths and strides, both ways; not too long."""
    n1, n2 = pick(rng, 1, 4), pick(rng, 1, 3)
    align = int(rng.choice([1, 1, 4]))
    strides = {
        name: pick(rng, low, high) * align
        for name, low, high in (
            ("mem_stride1", -60, 60),
            ("mem_stride2", -100, 100),
            ("sram_stride1", 0, 60),
            ("sram_stride2", -60, 100),
        )
    }
    strides["sram_stride2"] %= 1 << 20
    return kind(
        region=Region.IO,
        space=Space.ACT,
        mem_addr=pick(rng, 2000, 4000) * align,
        sram_addr=pick(rng, 200, 400) * align,
        row_bytes=pick(rng, 1, 20) * align,
        n1=n1,
        n2=n2,
        **strides,
    )


@pytest.mark.parametrize("seed", range(4))
def test_transfers(machine: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    machine.shuffle(rng)
    moves = [random_transfer(rng, kind) for kind in (Load, Store) * 12]
    machine.both(machine.fill(Space.ACT, ACT_BYTES), *moves, machine.drain(ACT_BYTES))


def test_transfers_of_one_byte_at_every_alignment(machine: Any) -> None:
    machine.shuffle(np.random.default_rng(0))
    moves = [
        kind(region=Region.IO, mem_addr=256 + 16 * a + 5 * b, sram_addr=512 + b, row_bytes=length)
        for a in range(4)
        for b in range(4)
        for length in (1, 2, 5)
        for kind in (Load, Store)
    ]
    machine.both(machine.fill(Space.ACT, 1024), *moves, machine.drain(1024))


# Convolutions


def weights_of(rng: Rng, shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """Return weights, extremes among them."""
    found = rng.integers(-128, 128, shape, np.int8)
    found[rng.random(shape) < 0.1] = -128
    return found


def padded_conv(rng: Rng) -> Conv:
    """Return a convolution of an image in memory, with padding on all sides."""
    pixel = pick(rng, 1, 9)
    height, width = pick(rng, 1, 7), pick(rng, 1, 7)
    kernel_y, kernel_x = pick(rng, 1, 3), pick(rng, 1, 3)
    stride_y, stride_x = pick(rng, 1, 2), pick(rng, 1, 2)
    top, left = pick(rng, 0, kernel_y), pick(rng, 0, kernel_x)
    pitch = width * pixel + pick(rng, 0, 5)
    n_ic = -(-pixel // LINE)
    joined = kernel_x * pixel
    # Along a kernel row the bytes follow one another, or each pixel is a pass of its own.
    packed = rng.random() < 0.5
    return Conv(
        mode=Mode.WINDOW,
        zero_point=pick(rng, -128, 127),
        act_addr=(pick(rng, 0, 40) - top * pitch - left * pixel) % (1 << 20),
        y0=-top,
        x0=-left * pixel,
        in_h=height,
        row_bytes=width * pixel,
        row_pitch=pitch,
        out_w=pick(rng, 1, 8),
        out_h=pick(rng, 1, 8),
        tile_rows=pick(rng, 1, 8),
        stride_x=1,
        stride_y=stride_y,
        step_x=stride_x * pixel,
        step_y=stride_y * pitch,
        n_ky=kernel_y,
        ky_rows=1,
        step_ky=pitch,
        n_kx=1 if packed else kernel_x,
        step_kx=pixel,
        n_ic=-(-joined // LINE) if packed else n_ic,
        step_ic=LINE,
        n_oc=pick(rng, 1, 3),
        wgt_addr=2 * pick(rng, 0, 8),
    )


def odd_conv(rng: Rng) -> Conv:
    """Return loops of any steps at all, in mode WINDOW."""
    n_ic = pick(rng, 1, 3)
    return Conv(
        mode=Mode.WINDOW,
        zero_point=pick(rng, -128, 127),
        act_addr=pick(rng, 0, 300),
        y0=pick(rng, -4, 4),
        x0=pick(rng, -20, 20),
        in_h=pick(rng, 0, 6),
        row_bytes=pick(rng, 0, 60),
        out_w=pick(rng, 1, 9),
        out_h=pick(rng, 1, 6),
        tile_rows=pick(rng, 1, 9),
        stride_x=1,
        stride_y=pick(rng, 0, 3),
        step_x=pick(rng, 0, 20),
        step_y=pick(rng, 0, 90),
        n_ky=pick(rng, 1, 3),
        ky_rows=pick(rng, 0, 3),
        step_ky=pick(rng, 0, 60),
        n_kx=pick(rng, 1, 3),
        step_kx=int(rng.choice([LINE, LINE * n_ic, pick(rng, 0, 40)])),
        n_ic=n_ic,
        step_ic=int(rng.choice([LINE, pick(rng, 0, 40)])),
        n_oc=pick(rng, 1, 3),
        step_oc=int(rng.choice([0, LINE, 7])),
        wgt_addr=2 * pick(rng, 0, 8),
    )


def depthwise_conv(rng: Rng, mode: Mode) -> Conv:
    """Return loops in mode TAPS or ROWS, with taps that lie in the row that follows."""
    taps = CONFIG.rows if mode is Mode.TAPS else 3
    row_len, stride_x = pick(rng, taps, 11), pick(rng, 1, 3)
    most = (row_len - 1) // stride_x + 1
    out_w = int(rng.choice([most, pick(rng, 1, most)]))
    beyond = (out_w - 1) * stride_x + taps - row_len
    step_x = LINE * pick(rng, 1, 2)
    return Conv(
        mode=mode,
        zero_point=pick(rng, -128, 127),
        act_addr=LINE * pick(rng, 0, 60),
        y0=pick(rng, -2, 2),
        x0=step_x * pick(rng, -3, 1),
        in_h=pick(rng, 1, 6),
        row_bytes=step_x * pick(rng, 1, row_len),
        row_pitch=step_x * row_len,
        out_w=out_w,
        out_h=pick(rng, 1, 5),
        tile_rows=pick(rng, 1, 5),
        row_len=row_len,
        extra=max(beyond, 0),
        stride_x=stride_x,
        stride_y=pick(rng, 1, 2),
        step_x=step_x,
        step_y=LINE * pick(rng, 0, 20),
        n_ky=pick(rng, 1, 3),
        ky_rows=pick(rng, 1, 2),
        step_ky=LINE * pick(rng, 0, 20),
        n_kx=pick(rng, 1, 2),
        step_kx=LINE * pick(rng, 0, 8),
        n_ic=1,
        n_oc=pick(rng, 1, 3),
        step_oc=LINE,
        wgt_addr=2 * pick(rng, 0, 8),
    )


def whole(conv: Conv) -> Conv:
    """Return a `Conv` whose dependent fields fit the others."""
    if conv.mode == Mode.WINDOW:
        conv = replace(conv, row_len=conv.out_w)
    assert conv.out_w * min(conv.tile_rows, conv.out_h) <= CONFIG.acc_depth
    return conv


def requant_of(rng: Rng, conv: Conv, *, d_addr: int = RESULT_LINE) -> Vector:
    """Return what shows the sums of a `Conv`: some eight bits of each, after a random bias."""
    lines = conv.n_oc
    return Vector(
        op=VectorOp.REQUANT,
        shared=1,
        rounding=pick(rng, 0, 1),
        n_oc=conv.n_oc,
        out_h=conv.out_h,
        out_w=conv.out_w,
        tile_rows=conv.tile_rows,
        d_addr=d_addr,
        d_y=lines * conv.out_w,
        d_x=lines,
        act_min=-128,
        act_max=127,
        mult_a=pick(rng, 1 << 30, (1 << 31) - 1),
        shift_a=pick(rng, 2, 10),
        param_addr=pick(rng, 0, 4),
    )


def conv_memories(machine: Any, rng: Rng) -> list[Load]:
    """Fill activations, weights and small biases; return the commands that load them."""
    machine.shuffle(rng)
    for space, count in ((Space.ACT, ACT_BYTES), (Space.WGT, 2048)):
        machine.const(space, count)[:] = weights_of(rng, (count,)).view(np.uint8)
    biases = rng.integers(-300, 300, 64, np.int32)
    machine.const(Space.PARAM, 256)[:] = biases.view(np.uint8)
    return [
        machine.fill(Space.ACT, ACT_BYTES),
        machine.fill(Space.WGT, 2048),
        machine.fill(Space.PARAM, 256),
    ]


MAKERS: dict[str, Callable[[Rng], Conv]] = {
    "padded": padded_conv,
    "odd": odd_conv,
    "taps": lambda rng: depthwise_conv(rng, Mode.TAPS),
    "rows": lambda rng: depthwise_conv(rng, Mode.ROWS),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", range(3))
def test_convolutions(machine: Any, kind: str, seed: int) -> None:
    rng = np.random.default_rng((seed, list(MAKERS).index(kind)))
    groups = []
    address = RESULT_LINE
    for _ in range(12):
        conv = whole(MAKERS[kind](rng))
        if conv.n_ky * conv.n_kx * conv.n_ic * conv.n_oc * LINE + conv.wgt_addr > 512:
            conv = replace(conv, n_oc=1)
        lines = conv.out_h * conv.out_w * conv.n_oc
        if address + lines > ACT_BYTES // LINE:
            break
        groups.append((conv, requant_of(rng, conv, d_addr=address)))
        address += lines
    assert len(groups) > 4
    machine.both(*conv_memories(machine, rng), *groups, machine.drain(ACT_BYTES))


@pytest.mark.parametrize("kind", MAKERS)
def test_hold_and_accumulate(machine: Any, kind: str) -> None:
    """Reductions over several commands, in turn with others, in both halves."""
    rng = np.random.default_rng((7, list(MAKERS).index(kind)))
    groups: list[Any] = []
    for index in range(9):
        conv = replace(MAKERS[kind](rng), n_oc=1)
        conv = whole(replace(conv, tile_rows=conv.out_h))
        parts = pick(rng, 1, 3)
        convs = [
            replace(
                conv,
                hold=int(part < parts - 1),
                accumulate=int(part > 0),
                act_addr=LINE * pick(rng, 0, 60),
                y0=1,
                x0=0,
                wgt_addr=2 * pick(rng, 0, 100),
            )
            for part in range(parts)
        ]
        address = RESULT_LINE + 100 * index
        groups.append((*convs, requant_of(rng, conv, d_addr=address)))
    machine.both(*conv_memories(machine, rng), *groups, machine.drain(ACT_BYTES))


def test_several_tiles_in_both_halves_and_queues_that_are_full(machine: Any) -> None:
    """All commands at once: no tokens but those that the halves make unnecessary."""
    rng = np.random.default_rng(5)
    loads = conv_memories(machine, rng)
    pairs: list[Conv | Vector] = []
    for index in range(7):
        conv = replace(padded_conv(rng), out_h=6, tile_rows=pick(rng, 1, 3), n_oc=2, out_w=5)
        pairs += [whole(conv), requant_of(rng, conv, d_addr=RESULT_LINE + 60 * index)]
    machine.both(*loads, tuple(pairs), machine.drain(ACT_BYTES))


# The vector engine


def random_bounds(rng: Rng) -> dict[str, int]:
    """Return bounds, one pair in four the wrong way round."""
    low, high = sorted(int(value) for value in rng.integers(-128, 128, 2))
    if rng.random() < 0.25:
        low, high = high, low
    elif rng.random() < 0.5:
        low, high = -128, 127
    return {"act_min": low, "act_max": high}


def sums(conv_lines: int, channels: int) -> Conv:
    """Return a `Conv` of weights 0 (if they are): sums of 0, the biases are all there is."""
    return Conv(
        in_h=1,
        row_bytes=LINE,
        out_w=conv_lines,
        out_h=1,
        tile_rows=1,
        row_len=conv_lines,
        stride_x=1,
        step_x=LINE,
        n_ky=1,
        n_kx=1,
        n_ic=1,
        n_oc=channels,
    )


def random_multiplier(rng: Rng) -> int:
    kind = rng.random()
    if kind < 0.2:
        return int(rng.choice([1 << 30, (1 << 31) - 1, (1 << 30) + 1, 0, 1]))
    return pick(rng, 1 << 30, (1 << 31) - 1) if kind < 0.8 else pick(rng, 0, 1 << 31)


def random_blocks(rng: Rng, count: int) -> npt.NDArray[np.uint8]:
    """Return parameter blocks: biases, multipliers and shifts of every size and their extremes."""
    blocks = np.zeros((count, BLOCK_LINES, LINE), np.uint8)
    for block in blocks:
        bias = np.where(
            rng.random(LINE) < 0.5,
            rng.choice(EXTREMES, LINE),
            rng.integers(-(2**31), 2**31, LINE) >> rng.integers(0, 31, LINE),
        ).astype(np.int32)
        multiplier = np.array([min(random_multiplier(rng), 2**31 - 1) for _ in range(LINE)])
        shift = rng.choice([0, 0, -1, -1, -2, -31, -30, 1, 2, 31, 7, -8, -20, -24], LINE)
        block[:BIAS_LINES] = bias.view(np.uint8).reshape(BIAS_LINES, LINE)
        words = multiplier.astype(np.int32).view(np.uint8).reshape(BIAS_LINES, LINE)
        block[BIAS_LINES : 2 * BIAS_LINES] = words
        block[-1] = shift.astype(np.int8).view(np.uint8)
    return blocks


BLOCKS = 60


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("seed", range(3))
def test_requant_of_every_size(machine: Any, rounding: Rounding, seed: int) -> None:
    """Accumulators up to both ends of 32 bits, all shifts, multipliers up to the largest."""
    rng = np.random.default_rng((seed, rounding))
    machine.shuffle(rng)
    blocks = random_blocks(rng, BLOCKS)
    machine.const(Space.PARAM, blocks.size)[:] = blocks.ravel()
    conv = sums(4, BLOCKS)
    groups: list[Any] = []
    for index in range(3):
        requant = Vector(
            op=VectorOp.REQUANT,
            rounding=rounding,
            n_oc=BLOCKS,
            out_h=1,
            out_w=4,
            tile_rows=1,
            d_addr=RESULT_LINE + 240 * index,
            d_x=BLOCKS,
            zero_a=pick(rng, -128, 127),
            **(random_bounds(rng) if index else {"act_min": -128, "act_max": 127}),
        )
        groups.append((conv, requant))
    machine.both(
        machine.fill(Space.ACT, 64),
        machine.fill(Space.WGT, BLOCKS * LINE * LINE),
        machine.fill(Space.PARAM, blocks.size),
        *groups,
        machine.drain(LINE * 720, LINE * RESULT_LINE),
    )


@pytest.mark.parametrize("seed", range(3))
def test_requant_shared_and_add(machine: Any, seed: int) -> None:
    rng = np.random.default_rng((seed, 3))
    machine.shuffle(rng)
    blocks = random_blocks(rng, BLOCKS)
    machine.const(Space.PARAM, blocks.size)[:] = blocks.ravel()
    groups: list[Any] = []
    for index in range(8):
        conv = sums(3, 5)
        is_add = index % 2
        mid = random_bounds(rng)
        requant = Vector(
            op=VectorOp.REQUANT_ADD if is_add else VectorOp.REQUANT,
            rounding=pick(rng, 0, 1),
            shared=1 - is_add,
            n_oc=5,
            out_h=1,
            out_w=3,
            tile_rows=1,
            b_addr=pick(rng, 0, 100),
            b_x=5,
            d_addr=RESULT_LINE + 20 * index,
            d_x=5,
            param_addr=pick(rng, 0, 40),
            mid_min=mid["act_min"],
            mid_max=mid["act_max"],
            **random_add(rng),
        )
        groups.append((conv, requant))
    # Blocks that do not begin where they were made: shifts may be anything then.
    params = machine.const(Space.PARAM, blocks.size).reshape(-1, LINE)
    for _, requant in groups:
        if not requant.shared:
            for block in range(5):
                line = requant.param_addr + block * BLOCK_LINES + BLOCK_LINES - 1
                params[line] = rng.integers(-31, 32, LINE).astype(np.int8).view(np.uint8)
    shifts = [
        params[requant.param_addr + block * BLOCK_LINES + BLOCK_LINES - 1].view(np.int8)
        for _, requant in groups
        if not requant.shared
        for block in range(5)
    ]
    groups = [
        group for group in groups if group[1].shared or np.abs(np.concatenate(shifts)).max() <= 31
    ]
    machine.both(
        machine.fill(Space.ACT, IMAGE_BYTES),
        machine.fill(Space.WGT, 1024),
        machine.fill(Space.PARAM, blocks.size),
        *groups,
        machine.drain(LINE * 160, LINE * RESULT_LINE),
    )


def random_add(rng: Rng) -> dict[str, int]:
    """Return the arithmetic of an ADD."""
    values = random_bounds(rng)
    for name in ("zero_a", "zero_b", "zero_out"):
        values[name] = int(rng.choice([-128, 127, pick(rng, -128, 127)]))
    for name in "abo":
        multiplier = min(random_multiplier(rng), 2**31 - 1)
        values[f"mult_{name}"] = -multiplier if name == "b" and rng.random() < 0.4 else multiplier
        values[f"shift_{name}"] = int(
            rng.choice([0, 1, 2, 31, pick(rng, 0, 31), 20 * (name == "o")])
        )
    return values


@pytest.mark.parametrize("seed", range(3))
def test_adds(machine: Any, seed: int) -> None:
    rng = np.random.default_rng((seed, 4))
    machine.shuffle(rng)
    adds = [
        Vector(
            op=VectorOp.ADD,
            n_oc=2,
            out_h=2,
            out_w=3,
            a_addr=pick(rng, 0, 200),
            a_y=pick(rng, 0, 30),
            a_x=pick(rng, 0, 9),
            b_addr=pick(rng, 0, 200),
            b_y=pick(rng, 0, 30),
            b_x=pick(rng, 0, 9),
            d_addr=RESULT_LINE + 12 * index,
            d_y=6,
            d_x=2,
            **random_add(rng),
        )
        for index in range(25)
    ]
    machine.both(
        machine.fill(Space.ACT, IMAGE_BYTES), *adds, machine.drain(1200, LINE * RESULT_LINE)
    )


@pytest.mark.parametrize("op", [VectorOp.AVERAGE, VectorOp.MAX, VectorOp.TABLE])
def test_windows_and_tables(machine: Any, op: VectorOp) -> None:
    rng = np.random.default_rng((op, 5))
    machine.shuffle(rng)
    # Sums of 0 and rows that are all at one end are among them.
    image = machine.const(Space.ACT, IMAGE_BYTES)
    image[:600] = 0
    image[600:900] = 128
    image[900:1000] = 127
    commands = []
    for index in range(20):
        n_ky, n_kx = (pick(rng, 1, 4), pick(rng, 1, 4)) if op != VectorOp.TABLE else (1, 1)
        size = n_ky * n_kx
        shift = max(size - 1, 0).bit_length()
        multiplier = min(-(-(1 << (30 + shift)) // size), (1 << 31) - 1)
        if index % 4 == 3:
            multiplier, shift = random_multiplier(rng) & 0x7FFF_FFFF, pick(rng, 0, 31)
        commands.append(
            Vector(
                op=op,
                n_oc=pick(rng, 1, 2),
                out_h=2,
                out_w=3,
                n_ky=n_ky,
                n_kx=n_kx,
                a_addr=pick(rng, 0, 400),
                a_y=pick(rng, 0, 30),
                a_x=pick(rng, 0, 9),
                a_ky=pick(rng, 0, 30),
                a_kx=pick(rng, 0, 9),
                d_addr=RESULT_LINE + 12 * index,
                d_y=6,
                d_x=2,
                mult_o=multiplier,
                shift_o=shift,
                half=size // 2 if index % 4 != 3 else pick(rng, 0, 65535),
                least=index % 2 if op == VectorOp.MAX else 0,
                **random_bounds(rng),
            )
        )
    machine.both(
        machine.fill(Space.ACT, ACT_BYTES),
        machine.fill(Space.TABLE, 256 * LINE),
        *commands,
        machine.drain(ACT_BYTES),
    )


# Softmax


@pytest.mark.parametrize("scale", [0.003, 0.05, 1.0])
def test_softmax(machine: Any, scale: float) -> None:
    rng = np.random.default_rng(6)
    machine.shuffle(rng)
    exact = np.exp(-np.arange(256) * scale)
    table = np.zeros((256, LINE // 4), np.int32)
    table[:, 0] = np.minimum(np.round(exact * 2.0**31), 2**31 - 1).astype(np.int64)
    machine.const(Space.TABLE, 256 * LINE)[:] = table.view(np.uint8).ravel()
    image = machine.const(Space.ACT, IMAGE_BYTES)
    image[:300] = 128
    image[300:600] = 7
    commands = []
    address = RESULT_LINE
    for channels in (1, 2, 3, 4, 5, 10, 12, 37, 299, 300):
        n_rows = 2 if channels < 50 else 1
        lines = -(-channels // LINE)
        commands.append(
            Softmax(
                channels=channels,
                n_rows=n_rows,
                a_addr=pick(rng, 0, RESULT_LINE - 200),
                a_y=lines + 1,
                d_addr=address,
                d_y=lines,
            )
        )
        address += n_rows * lines
    # In place, and of a vector of equal elements.
    commands.append(Softmax(channels=10, n_rows=1, a_addr=200, d_addr=200))
    commands.append(Softmax(channels=300, n_rows=1, a_addr=0, d_addr=address))
    machine.both(
        machine.fill(Space.ACT, ACT_BYTES),
        machine.fill(Space.TABLE, 256 * LINE),
        *commands,
        machine.drain(ACT_BYTES),
    )


# Tokens


def test_tokens_between_all_engines(machine: Any) -> None:
    """Many tokens of every pair at once: given ahead of time, taken one by one."""
    rng = np.random.default_rng(8)
    loads = conv_memories(machine, rng)
    conv = sums(1, 1)
    sound = {
        Engine.LOAD: Load(region=Region.IO, mem_addr=64, row_bytes=4),
        Engine.STORE: Store(region=Region.IO, mem_addr=128, row_bytes=4),
        Engine.ARRAY: replace(conv, hold=1),
        Engine.VECTOR: Vector(
            op=VectorOp.MAX, n_oc=1, out_h=1, out_w=1, d_addr=64, act_min=-128, act_max=127
        ),
    }
    commands: list[Any] = []
    rounds = 5
    for engine, command in sound.items():
        later = sum(1 << other for other in Engine if other > engine)
        earlier = sum(1 << other for other in Engine if other < engine)
        commands += [replace(command, wait=earlier, signal=later)] * rounds
    last = (conv, requant_of(rng, conv))
    machine.both(*loads, tuple(commands), last, machine.drain(ACT_BYTES))


# Counters


def test_counters(machine: Any) -> None:
    """Words as memory has counted them, windows as the array was told; every cycle is someone's."""
    rng = np.random.default_rng(9)
    loads = conv_memories(machine, rng)
    conv = whole(replace(padded_conv(rng), out_h=6, tile_rows=2, n_oc=2, out_w=5))
    move = Load(region=Region.IO, mem_addr=3, sram_addr=5, row_bytes=300, n1=2, mem_stride1=301)
    code = [*loads, (conv, requant_of(rng, conv)), move, machine.drain(1001, 2)]
    for _ in range(2):
        before = machine.rtl.statistics
        machine.both(*code)
        after = machine.rtl.statistics
        count = {
            name: machine.read(f"count_{name}")
            for name in (
                "total", "array_busy", "array_start", "vector_busy", "load_busy", "store_busy",
                "bus_read", "bus_write", "idle",
            )
        }  # fmt: skip
        assert count["bus_read"] == after.words_read - before.words_read
        assert count["bus_write"] == after.words_written - before.words_written
        passes = conv.n_ky * conv.n_kx * conv.n_ic * conv.n_oc
        assert count["array_busy"] == passes * CONFIG.rows * conv.out_h * conv.out_w
        assert all(0 < value < count["total"] for name, value in count.items() if name != "total")
        engines = sum(count[name] for name in count if name.endswith(("busy", "start")))
        assert abs(count["total"] - engines - count["idle"]) < 100
