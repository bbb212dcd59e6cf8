"""Advice is true: whoever follows it gains what was said, as the changed model is predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from celosia.hw.contract.config import NpuConfig, preset
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.compiler.frontends.tflite.convert import load
from celosia.sw.compiler.lower import lower
from celosia.sw.profile.advice import LEAST_SHARE, Advice, advise
from celosia.sw.profile.profile import predicted_cycles, predicted_profile
from celosia.sw.profile.rules import RULES

from tests.kit.divided import divided_model

BASE, TINY = preset("base"), preset("tiny")
Shape = tuple[int, ...]


def advice_for(model: bytes, config: NpuConfig = BASE, checks: int | None = None) -> list[Advice]:
    return advise(
        predicted_profile(compile_model(model, config)), lower(load(model)), checks=checks
    )


def cycles_of(model: bytes, config: NpuConfig = BASE, *, fold: bool = False, batch: int = 1) -> int:
    return predicted_cycles(compile_model(model, config, fold=fold, batch=batch))


def conv(
    b: ModelBuilder,
    x: TensorHandle,
    channels: int,
    kernel: int = 3,
    *,
    activation: str = "NONE",
    zeros: int = 0,
) -> TensorHandle:
    """Append a convolution; the last `zeros` of its filters are 0."""
    rng = np.random.default_rng(channels)
    weights = rng.integers(-127, 128, (channels, kernel, kernel, x.shape[-1]), np.int8)
    weights[channels - zeros :] = 0
    return b.conv2d(
        x, weights, None, w_scales=0.002, scale=0.25, padding="SAME", activation=activation
    )


def two_convs(middle: int, *, inputs: int = 16, zeros: int = 0) -> bytes:
    b = ModelBuilder()
    x = b.input((1, 16, 16, inputs), scale=0.1, zero_point=-3)
    return b.finish([conv(b, conv(b, x, middle, zeros=zeros), 16)])


def with_swish(name: str) -> bytes:
    """Return two convolutions with an activation between them, of its own or of the first."""
    b = ModelBuilder()
    x = b.input((1, 16, 16, 16), scale=0.1, zero_point=-3)
    y = conv(b, x, 16, 1, activation="NONE" if name else "RELU6")
    if name:
        y = b.hard_swish(y, scale=0.1, zero_point=0)
    return b.finish([conv(b, y, 16, 1)])


def with_first_reshape(shape: Shape) -> bytes:
    b = ModelBuilder()
    x = b.input(shape, scale=0.1, zero_point=-3)
    if len(shape) != 4:
        x = b.reshape(x, (1, 48, 40, 1))
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (8, 10, 8, 1), np.int8)
    return b.finish(
        [b.conv2d(x, weights, None, w_scales=0.002, scale=0.25, strides=(2, 2), padding="SAME")]
    )


def with_softmax(rows: int) -> bytes:
    """Return a product with a softmax of so many rows behind it, or of none."""
    b = ModelBuilder()
    x = b.input((max(rows, 1), 64), scale=0.1, zero_point=-3)
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (16, 64), np.int8)
    y = b.fully_connected(x, weights, None, w_scales=0.002, scale=0.25)
    return b.finish([b.softmax(y) if rows else y])


def products() -> bytes:
    b = ModelBuilder()
    x = b.input((1, 256), scale=0.1, zero_point=-3)
    rng = np.random.default_rng(0)
    for _ in range(2):
        weights = rng.integers(-127, 128, (256, 256), np.int8)
        x = b.fully_connected(x, weights, None, w_scales=0.002, scale=0.25)
    return b.finish([x])


def with_transpose(turned: bool) -> bytes:
    b = ModelBuilder()
    x = b.input((1, 16, 16, 16), scale=0.1, zero_point=-3)
    y = conv(b, x, 16, 1)
    if turned:
        order = b.constant(np.array([0, 2, 1, 3], np.int32))
        y = b.operator("TRANSPOSE", [y, order], y.shape, scale=y.scale, zero_point=y.zero_point)
    return b.finish([conv(b, y, 16, 1)])


def wide() -> bytes:
    """Return layers with a tensor as large as the activation memory of `tiny`, of few products."""
    b = ModelBuilder()
    x = b.input((1, 16, 16, 8), scale=0.1, zero_point=-3)
    return b.finish([conv(b, conv(b, x, 64, 1), 8, 1)])


@dataclass(frozen=True)
class Pair:
    """A model with something to change, and what it takes when that is done."""

    model: Callable[[], bytes]
    after: Callable[[], int]
    config: NpuConfig = BASE
    text: str = ""
    """In the advice, where a rule gives several."""
    about: float = 0.01
    """How far from the gain the advice may be."""


PAIRS: dict[str, list[Pair]] = {
    "last-tile": [Pair(lambda: two_convs(65), lambda: cycles_of(two_convs(64)))],
    "input-channels": [
        Pair(lambda: two_convs(64, inputs=33), lambda: cycles_of(two_convs(64, inputs=32)))
    ],
    "constant-channels": [
        Pair(
            lambda: two_convs(64, zeros=20),
            lambda: cycles_of(two_convs(64, zeros=20), fold=True),
        )
    ],
    "leading-reshape": [
        Pair(
            lambda: with_first_reshape((1, 1920)),
            lambda: cycles_of(with_first_reshape((1, 48, 40, 1))),
        )
    ],
    "activation": [Pair(lambda: with_swish("HARD_SWISH"), lambda: cycles_of(with_swish("")))],
    "last-function": [Pair(lambda: with_softmax(1), lambda: cycles_of(with_softmax(0)))],
    "softmax-rows": [
        Pair(
            lambda: with_softmax(64),
            # The product's rows are not halved with it.
            lambda: cycles_of(with_softmax(64)) - softmax_cycles(64) + softmax_cycles(32),
            about=0.03,
        )
    ],
    "batch": [Pair(products, lambda: cycles_of(products(), batch=8) // 8)],
    "order": [Pair(lambda: with_transpose(True), lambda: cycles_of(with_transpose(False)))],
    "machine": [
        Pair(
            wide,
            lambda: cycles_of(wide(), TINY.with_(act_bytes=2 * TINY.act_bytes)),
            config=TINY,
            text="act_bytes",
        ),
        Pair(
            wide,
            lambda: cycles_of(wide(), TINY.with_(lanes=4)),
            config=TINY,
            text="lanes",
        ),
    ],
}


def softmax_cycles(rows: int) -> int:
    profile = predicted_profile(compile_model(with_softmax(rows), BASE))
    return profile.layers[-1].cycles


@pytest.mark.parametrize(
    ("rule", "pair"), [(rule, pair) for rule, pairs in PAIRS.items() for pair in pairs]
)
def test_who_follows_the_advice_gains_what_was_said(rule: str, pair: Pair) -> None:
    model = pair.model()
    before = cycles_of(model, pair.config)
    gain = before - pair.after()
    advice = advice_for(model, pair.config)
    (found,) = [a for a in advice if a.rule == rule and pair.text in a.text]
    assert found.saved_cycles is not None
    assert found.saved_share is not None
    assert gain >= LEAST_SHARE * before
    assert abs(found.saved_cycles - gain) <= pair.about * before
    assert found.saved_share == found.saved_cycles / before
    assert found.compiled == (rule != "softmax-rows")
    savings = [a.saved_cycles for a in advice if a.saved_cycles is not None]
    assert savings == sorted(savings, reverse=True)


def test_every_rule_has_a_pair() -> None:
    assert {*PAIRS, "host"} == set(RULES)


def test_what_is_not_compiled_is_near() -> None:
    gain = cycles_of(two_convs(65)) - cycles_of(two_convs(64))
    (found,) = advice_for(two_convs(65), checks=0)
    assert (found.rule, found.compiled) == ("last-tile", False)
    assert found.saved_cycles is not None
    assert abs(found.saved_cycles - gain) < 0.3 * gain


def test_a_good_model_gets_no_advice() -> None:
    assert advice_for(two_convs(64)) == []


def test_nobody_is_told_to_have_fewer_classes() -> None:
    b = ModelBuilder()
    x = b.input((1, 8, 8, 64), scale=0.1, zero_point=-3)
    y = conv(b, x, 33, 1)
    advice = advice_for(b.finish([b.reshape(y, (1, 64 * 33))]))
    assert not [a for a in advice if a.rule == "last-tile"]


def test_what_the_host_runs_comes_first_with_its_reason() -> None:
    profile = predicted_profile(compile_model(divided_model(), BASE))
    first = advise(profile, None)[0]
    assert (first.rule, first.layers, first.saved_cycles) == ("host", (1,), None)
    assert profile.layers[1].info.reason in first.text


def test_a_reshape_that_nothing_reads_is_no_reason() -> None:
    b = ModelBuilder()
    x = b.input((1, 8, 8, 16), scale=0.1, zero_point=-3)
    other = b.input((1, 64), scale=0.1, zero_point=-3)
    model = b.finish([b.reshape(x, (1, 1024)), b.logistic(other)])
    assert not [a for a in advice_for(model) if a.rule == "leading-reshape"]


def test_nobody_is_told_to_leave_out_the_only_operator() -> None:
    b = ModelBuilder()
    x = b.input((1, 64), scale=0.1, zero_point=-3)
    assert not [a for a in advice_for(b.finish([b.softmax(x)])) if a.rule == "last-function"]
