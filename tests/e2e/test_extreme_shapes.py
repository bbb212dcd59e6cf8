"""No layer is refused for the width of a command's field, or the length of a row.

One operator each over a shape that some field of a command, or the activation SRAM, has no room
for, on the emulator against the golden model; what a small machine runs, a larger one runs too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from celosia.hw.contract.config import preset
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.arithmetic.exact import dividing_multiplier
from celosia.sw.compiler.build import compile_model
from celosia.sw.reference.golden import GoldenModel

from tests.kit.emulated import run

Shape = tuple[int, ...]
Pair = tuple[int, int]
Build = Callable[[ModelBuilder, TensorHandle, np.random.Generator], object]


def conv(kernel: Pair, *, out: int = 3, **options: Any) -> Build:
    def build(b: ModelBuilder, x: TensorHandle, rng: np.random.Generator) -> TensorHandle:
        weights = rng.integers(-127, 128, (out, *kernel, x.shape[3]), dtype=np.int8)
        scale = x.scale * 0.01 * 90 * np.sqrt(weights[0].size)
        bias = rng.integers(-5000, 5000, out, dtype=np.int32)
        return b.conv2d(x, weights, bias, w_scales=0.01, scale=scale, zero_point=-7, **options)

    return build


def depthwise(kernel: Pair, **options: Any) -> Build:
    def build(b: ModelBuilder, x: TensorHandle, rng: np.random.Generator) -> TensorHandle:
        weights = rng.integers(-127, 128, (1, *kernel, x.shape[3]), dtype=np.int8)
        scale = x.scale * 0.01 * 90 * np.sqrt(weights[..., 0].size)
        return b.depthwise_conv2d(x, weights, None, w_scales=0.01, scale=scale, **options)

    return build


def dense(units: int) -> Build:
    def build(b: ModelBuilder, x: TensorHandle, rng: np.random.Generator) -> TensorHandle:
        weights = rng.integers(-127, 128, (units, int(np.prod(x.shape[1:]))), dtype=np.int8)
        scale = x.scale * 0.01 * 90 * np.sqrt(weights[0].size)
        return b.fully_connected(x, weights, None, w_scales=0.01, scale=scale, zero_point=5)

    return build


def pool(kind: str, size: Pair, strides: Pair, padding: str = "VALID") -> Build:
    return lambda b, x, rng: getattr(b, f"{kind}_pool2d")(
        x, size=size, strides=strides, padding=padding
    )


def twice(b: ModelBuilder, x: TensorHandle, rng: np.random.Generator) -> object:
    return b.add(b.tanh(x), x, scale=x.scale * 2, zero_point=9)


def mean(b: ModelBuilder, x: TensorHandle, rng: np.random.Generator) -> object:
    return b.mean(x, scale=x.scale / 8, zero_point=-20)


CASES: dict[str, tuple[Shape, Build]] = {
    "a row beyond every field": ((1, 1, 8200, 2), conv((1, 9), strides=(1, 1))),
    "rows that nothing counts, far apart": ((1, 5000, 1, 4), conv((20, 1), strides=(17, 1))),
    "a long kernel, far apart": ((1, 900, 1, 4), conv((300, 1), strides=(40, 1))),
    "a stride of 40 both ways": ((1, 130, 170, 1), conv((5, 43), strides=(40, 40))),
    "a kernel further apart than it is long": ((1, 2500, 1, 4), conv((3, 1), dilations=(900, 1))),
    "a kernel larger than its image": ((1, 3, 300, 8), depthwise((32, 3), strides=(16, 16))),
    "a depthwise row and a long kernel": ((1, 1, 2500, 8), depthwise((1, 80))),
    "a depthwise stride of 32": ((1, 4100, 2, 4), depthwise((33, 1), strides=(32, 32))),
    "an image wider than memory": ((1, 9, 900, 16), conv((3, 3), strides=(2, 2), out=9)),
    "a window larger than memory": ((1, 53, 50, 8), conv((50, 45), padding="VALID", out=2)),
    "a maximum of 16,000 rows": ((1, 16000, 1, 3), pool("max", (16000, 1), (1, 1))),
    "overlapping maxima of 301": ((1, 1, 1500, 4), pool("max", (1, 301), (1, 2), "SAME")),
    "an average of 16,000 pixels": ((1, 80, 200, 8), pool("average", (80, 200), (1, 1))),
    "averages of 257 pixels": ((1, 1, 771, 4), pool("average", (1, 257), (1, 257))),
    "a mean of 16,000 columns": ((1, 1, 16000, 3), mean),
    "one long row": ((1, 70000), twice),
    "one long row, dense": ((1, 70001), dense(2)),
    "many rows of few": ((4200, 3), lambda b, x, rng: b.softmax(x)),
    "tokens of many parts": ((1, 2047, 1, 1), twice),
}


@cache
def _case(name: str) -> tuple[bytes, list[npt.NDArray[np.int8]], dict[str, Any]]:
    shape, build = CASES[name]
    rng = np.random.default_rng(len(name))
    builder = ModelBuilder()
    build(builder, builder.input(shape, scale=1 / 32, zero_point=3), rng)
    model = builder.finish()
    values = [rng.integers(-128, 128, shape, dtype=np.int8)]
    return model, values, dict(GoldenModel(model).run(values))


@pytest.mark.parametrize("config", ["tiny", "large"])
@pytest.mark.parametrize("name", CASES)
def test_extreme_shapes_are_exact(name: str, config: str) -> None:
    model, values, want = _case(name)
    got = run(compile_model(model, preset(config)), values, "random", 1)
    assert got
    for tensor, result in got.items():
        np.testing.assert_array_equal(result, want[tensor])


def _signal_network(steps: int) -> bytes:
    """A network on a signal: as Keras makes it of Conv1D, with a row of `steps` pixels."""
    rng = np.random.default_rng(16)
    b = ModelBuilder()
    x = b.input((1, 1, steps, 2), scale=1 / 32, zero_point=3)
    y = conv((1, 16), strides=(1, 4), out=8)(b, x, rng)
    assert isinstance(y, TensorHandle)
    z = depthwise((1, 5))(b, y, rng)
    z = conv((1, 3), out=8, dilations=(1, 64))(b, z, rng)  # type: ignore[arg-type]
    z = b.add(y, z, scale=0.5, zero_point=-4)  # type: ignore[arg-type]
    z = b.max_pool2d(z, size=(1, 2), strides=(1, 2))
    z = b.average_pool2d(z, size=(1, 20), strides=(1, 20))
    z = dense(5)(b, z, rng)  # type: ignore[assignment]
    b.softmax(z)
    return b.finish()


@pytest.mark.parametrize("config", ["tiny", "base", "large"])
def test_a_signal_of_16000_steps_is_exact(config: str) -> None:
    model = _signal_network(16000)
    values = [np.random.default_rng(1).integers(-128, 128, (1, 1, 16000, 2), dtype=np.int8)]
    want = GoldenModel(model).run(values)
    program = compile_model(model, preset(config), keep_tensors=True)
    got = run(program, values, "random", 2)
    assert len(got) >= 8
    for tensor, result in got.items():
        np.testing.assert_array_equal(result, want[tensor])


@pytest.mark.parametrize("count", [2, 3, 5, 255, 256, 257, 4096, 16001, 1 << 20, (1 << 22) - 1])
def test_an_average_is_divided_exactly(count: int) -> None:
    multiplier, shift = dividing_multiplier(count)
    assert 1 << 30 <= multiplier < 1 << 31
    # Around every quotient of a half, and the ends.
    halves = np.arange(-257, 257, 2, dtype=np.int64) * count // 2
    sums = np.concatenate([halves - 1, halves, halves + 1, [-128 * count, 127 * count]])
    sums = sums[(sums >= -128 * count) & (sums <= 127 * count)]
    got = (sums * multiplier + (1 << (30 - shift))) >> (31 - shift)
    want = np.sign(sums) * ((2 * np.abs(sums) + count) // (2 * count))
    np.testing.assert_array_equal(got, want)
