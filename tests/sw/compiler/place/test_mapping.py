"""How convolutions are laid onto the array: joined rows and phases of a stride."""

from __future__ import annotations

import numpy as np
import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.isa import Conv, Mode
from celosia.sim.models.tflite_builder import ModelBuilder
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.place.mapping import joined_run
from celosia.sw.program.file import Program
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run
from tests.kit.machines import MACHINES


@pytest.mark.parametrize(
    ("kernel_h", "row_bytes", "size", "run_bytes"),
    [
        (3, 9, 8, 8),  # 27 bytes: four passes
        (3, 9, 16, 16),  # two
        (10, 4, 8, 8),  # two whole rows
        (10, 4, 16, 8),  # no more than two
        (3, 3, 8, 6),
        (3, 5, 8, 8),  # from byte 3 of the second row on there are seven, the last ones
        (4, 5, 8, 7),  # and here others would follow
    ],
)
def test_a_pass_takes_what_lies_in_two_kernel_rows(
    kernel_h: int, row_bytes: int, size: int, run_bytes: int
) -> None:
    found = joined_run(kernel_h, row_bytes, size)
    assert found == run_bytes
    for at in range(0, kernel_h * row_bytes, found):
        last = min(at + found, kernel_h * row_bytes) - 1
        assert last // row_bytes - at // row_bytes <= 1


def convolution(
    rng: np.random.Generator,
    size: tuple[int, int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    *,
    depthwise: bool = False,
) -> bytes:
    """Return a network of one convolution; a depthwise one behind a pixel-wise one."""
    b = ModelBuilder()
    x = b.input((1, *size), scale=0.1, zero_point=int(rng.integers(-128, 128)))
    if depthwise:
        pixel = rng.integers(-127, 128, (size[2], 1, 1, size[2]), dtype=np.int8)
        x = b.conv2d(x, pixel, w_scales=0.01, scale=0.2, zero_point=5)
        w = rng.integers(-127, 128, (1, *kernel, size[2]), dtype=np.int8)
        y = b.depthwise_conv2d(
            x, w, w_scales=0.01, scale=0.3, zero_point=-7, strides=strides, padding=padding
        )
    else:
        w = rng.integers(-127, 128, (9, *kernel, size[2]), dtype=np.int8)
        y = b.conv2d(
            x, w, w_scales=0.01, scale=0.3, zero_point=-7, strides=strides, padding=padding
        )
    return b.finish([y])


def convs(program: Program) -> list[Conv]:
    return [command for command in program.npu.decode() if isinstance(command, Conv)]


@pytest.mark.parametrize(("name", "passes"), [("base", 4), ("large", 2)])
def test_a_first_layer_of_three_channels_joins_its_rows(name: str, passes: int) -> None:
    content = convolution(np.random.default_rng(1), (32, 32, 3), (3, 3), (1, 1), "SAME")
    for conv in convs(compile_model(content, preset(name))):
        assert conv.mode == Mode.JOINED
        assert conv.n_ky * conv.n_kx * conv.n_ic == passes
    assert {conv.mode for conv in convs(compile_model(content, preset("tiny")))} == {Mode.WINDOW}


def test_a_stream_goes_by_strides() -> None:
    rng = np.random.default_rng(1)
    content = convolution(rng, (16, 16, 16), (3, 3), (2, 2), "SAME", depthwise=True)
    filters = [c for c in convs(compile_model(content, preset("base"))) if c.mode == Mode.ROWS]
    assert filters
    for conv in filters:
        assert (conv.n_ky, conv.n_kx, conv.ky_rows) == (1, 2, 3)
        assert (conv.row_len, conv.stride_x) == (conv.out_w + 1, 1)


@pytest.mark.parametrize("name", ["small8", "base", "large"])
@pytest.mark.parametrize("depthwise", [False, True], ids=["joined", "phases"])
@pytest.mark.parametrize("seed", range(16))
def test_results_are_the_same(name: str, depthwise: bool, seed: int) -> None:
    rng = np.random.default_rng((seed, 11))
    config = MACHINES[name]
    most = 20 if depthwise else 7
    size = tuple(int(n) for n in rng.integers((5, 5, 1), (14, 16, most)))
    content = convolution(
        rng,
        size,  # type: ignore[arg-type]
        tuple(int(k) for k in rng.integers(1, 6, 2)),  # type: ignore[arg-type]
        tuple(int(s) for s in rng.integers(1, 4, 2)),  # type: ignore[arg-type]
        str(rng.choice(["SAME", "VALID"])),
        depthwise=depthwise,
    )
    program = compile_model(content, config, host="refuse")
    inputs = [rng.integers(-128, 128, (1, *size), dtype=np.int8)]
    want = GoldenModel(content).run(inputs)
    for tensor, values in run(program, inputs, "random", seed).items():
        np.testing.assert_array_equal(values.ravel(), want[tensor].ravel())
