"""Random models with parameters that no network has: compiled and equal, or refused rightly.

Where `test_rtl_random` stays with what networks look like, here strides reach 17, images 1 x 400,
scales and slopes the ends of float32, names come from a small pool that the compiler draws from
too, shapes are viewed in every way, and outputs lie inside the graph. Equal means equal to the
golden model; a refusal has to be one of a sound model (`UnsupportedError`, `CompileError`), and
where the file is called damaged the reference interpreter must refuse it as well. More of them::

    python -m tests.e2e.test_random_wide --seeds 0 2000
    python -m tests.e2e.test_random_wide --seeds 0 200 --device sim --config base
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import celosia
import numpy as np
import numpy.typing as npt
import pytest
from celosia.errors import CelosiaError, CompileError, ModelError, UnsupportedError
from celosia.sim.models.tflite_builder import ModelBuilder, TensorHandle
from celosia.sw.compiler.build import compile_model
from celosia.sw.reference.golden import GoldenModel

from tests.kit.machines import MACHINES

Int8 = npt.NDArray[np.int8]
Rng = np.random.Generator

NAMES = ("x", "x/folded", "x/rows", "x'", "x/folded'", "y", "y/rows", "x#1", "tensor_1")
"""What the files' tensors are called, again and again: also what the compiler calls its own."""
MAX_ELEMENTS = 40_000
MEMORY_BYTES = 1 << 22


@dataclass(frozen=True)
class WideModel:
    """A model, inputs for it, and the operators it has."""

    model: bytes
    inputs: list[Int8]
    codes: tuple[str, ...]


# ---------------------------------------------------------------------- draws


def _int(rng: Rng, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _pick(rng: Rng, *choices: float) -> float:
    return choices[_int(rng, 0, len(choices) - 1)]


def _scale(rng: Rng) -> float:
    """A usual scale, a round one, or one near the ends."""
    kind = rng.random()
    if kind < 0.6:
        return float(np.float32(10 ** rng.uniform(-3, 0)))
    if kind < 0.85:
        return float(2.0 ** _int(rng, -10, 3))
    return float(np.float32(10 ** rng.uniform(-9, 6)))


def _out_scale(rng: Rng, natural: float) -> float:
    kind = rng.random()
    if kind < 0.65:
        factor = float(10 ** rng.uniform(-0.7, 0.7))
    elif kind < 0.8:
        factor = float(2.0 ** _int(rng, -3, 3))
    else:
        factor = float(10 ** rng.uniform(-6, 6))
    return float(np.clip(np.float32(natural * factor), 1e-30, 1e30))


def _zero(rng: Rng) -> int:
    return int(_pick(rng, -128, 0, 127, _int(rng, -128, 127), _int(rng, -128, 127)))


def _shape(rng: Rng) -> tuple[int, int, int, int]:
    kind = rng.random()
    channels = _int(rng, 1, 20) if kind < 0.9 else _int(rng, 20, 90)
    if kind < 0.25:
        return 1, 1, _int(rng, 1, 400), min(channels, 20)
    if kind < 0.5:
        return 1, _int(rng, 1, 400), 1, min(channels, 20)
    if kind < 0.6:
        return 1, _int(rng, 2, 5), _int(rng, 30, 200), min(channels, 8)
    return 1, _int(rng, 1, 20), _int(rng, 1, 20), channels


def _activation(rng: Rng) -> str:
    return ("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")[_int(rng, 0, 4)]


def _weights(rng: Rng, *shape: int) -> Int8:
    if rng.random() < 0.1:
        return np.full(shape, _pick(rng, -127, 127, -128), np.int8)
    return rng.integers(-128, 128, shape, dtype=np.int8)


def _bias(rng: Rng, channels: int, terms: int) -> npt.NDArray[np.int32]:
    reach = 5_000 * terms**0.5 if rng.random() < 0.9 else 2.0**30
    return rng.integers(-int(reach), int(reach) + 1, channels).astype(np.int32)


# ---------------------------------------------------------------------- operators


def _window(rng: Rng, x: TensorHandle) -> tuple[tuple[int, int], tuple[int, int], str]:
    kernel = tuple(min(n, _int(rng, 1, int(_pick(rng, 3, 5, 20, 40)))) for n in x.shape[1:3])
    strides = tuple(_int(rng, 1, int(_pick(rng, 1, 3, 17))) for _ in range(2))
    padding = ("SAME", "VALID")[_int(rng, 0, 1)]
    return (kernel[0], kernel[1]), (strides[0], strides[1]), padding


def _conv(rng: Rng, b: ModelBuilder, x: TensorHandle, depthwise: bool) -> TensorHandle:
    kernel, strides, padding = _window(rng, x)
    depth = x.shape[3]
    cout = depth * int(_pick(rng, 1, 1, 1, 2)) if depthwise else _int(rng, 1, 20)
    terms = prod(kernel) * (1 if depthwise else depth)
    if terms * cout > MAX_ELEMENTS:
        kernel = (min(kernel[0], 3), min(kernel[1], 3))
    w_scale = _scale(rng)
    scales = [float(np.float32(w_scale * rng.uniform(0.3, 3))) for _ in range(cout)]
    shape = (1, *kernel, cout) if depthwise else (cout, *kernel, depth)
    function = b.depthwise_conv2d if depthwise else b.conv2d
    return function(
        x,
        _weights(rng, *shape),
        _bias(rng, cout, terms),
        w_scales=scales,
        scale=_out_scale(rng, x.scale * w_scale * 90 * terms**0.5),
        zero_point=_zero(rng),
        strides=strides,
        padding=padding,
        activation=_activation(rng),
    )


def _dense(rng: Rng, b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    elements = prod(x.shape)
    if rng.random() < 0.6 or x.shape[-1] == 1:
        depth = elements
    else:
        depth = x.shape[-1]
    units = min(_int(rng, 1, 30), max(1, MAX_ELEMENTS // depth))
    w_scale = _scale(rng)
    per_channel = rng.random() < 0.3
    scales = [float(np.float32(w_scale * rng.uniform(0.3, 3))) for _ in range(units)]
    natural = x.scale * w_scale * 90 * depth**0.5
    weights, bias = _weights(rng, units, depth), _bias(rng, units, depth)
    if depth == elements and len(x.shape) > 2 and rng.random() < 0.5:
        x = b.reshape(x, (1, -1))
    return b.fully_connected(
        x if depth == x.shape[-1] else b.reshape(x, (1, -1)),
        weights,
        bias,
        w_scales=scales if per_channel and units > 1 else w_scale,
        scale=_out_scale(rng, natural),
        zero_point=_zero(rng),
        activation=_activation(rng),
    )


def _pool(rng: Rng, b: ModelBuilder, x: TensorHandle, code: str) -> TensorHandle:
    size, strides, padding = _window(rng, x)
    if rng.random() < 0.2:
        size = x.shape[1], x.shape[2]
    function = b.average_pool2d if code == "AVERAGE_POOL_2D" else b.max_pool2d
    return function(x, size=size, strides=strides, padding=padding, activation=_activation(rng))


def _binary(rng: Rng, b: ModelBuilder, x: TensorHandle, y: TensorHandle) -> TensorHandle:
    function = (b.add, b.sub)[_int(rng, 0, 1)]
    scale = _out_scale(rng, max(x.scale, y.scale))
    return function(x, y, scale=scale, zero_point=_zero(rng), activation=_activation(rng))


def _times_constant(rng: Rng, b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    scale = _scale(rng)
    y = b.constant(
        np.full((1,), _int(rng, -128, 127), np.int8), scales=(scale,), zero_point=_zero(rng)
    )
    operands = (x, y) if rng.random() < 0.7 else (y, x)
    return b.mul(
        *operands,
        scale=_out_scale(rng, x.scale * scale * 60),
        zero_point=_zero(rng),
        activation=_activation(rng),
    )


def _table(rng: Rng, b: ModelBuilder, x: TensorHandle, code: str) -> TensorHandle:
    scale, zero = _out_scale(rng, x.scale), _zero(rng)
    if code == "LEAKY_RELU":
        alpha = float(np.float32(_pick(rng, -0.5, 0.3, -1, 1.5, -8, 1e-6, rng.uniform(-3, 3))))
        return b.leaky_relu(x, alpha=alpha, scale=scale, zero_point=zero)
    if code == "HARD_SWISH":
        return b.hard_swish(x, scale=scale, zero_point=zero)
    if code == "QUANTIZE":
        return b.quantize(x, scale=scale, zero_point=zero)
    if code == "LOGISTIC":
        return b.logistic(x)
    if code == "TANH":
        return b.tanh(x)
    return b.relu(x, scale=scale, zero_point=zero, kind=code)


def _view(rng: Rng, b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    """Any shape of as many elements: taller, wider, deeper, of another rank."""
    left = prod(x.shape)
    sizes = []
    for _ in range(_int(rng, 0, 3)):
        divisors = [d for d in range(1, min(left, 400) + 1) if left % d == 0]
        sizes.append(divisors[_int(rng, 0, len(divisors) - 1)])
        left //= sizes[-1]
    sizes.append(left)
    order = [int(i) for i in rng.permutation(len(sizes))]
    return b.reshape(x, [1, *(sizes[i] for i in order)])


def _as_image(b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    if len(x.shape) == 4 and x.shape[0] == 1:
        return x
    return b.reshape(x, (1, prod(x.shape[:-1]), 1, x.shape[-1]))


def _pad(rng: Rng, b: ModelBuilder, x: TensorHandle) -> TensorHandle:
    sides = [(0, 0), *((_int(rng, 0, 5), _int(rng, 0, 20)) for _ in range(2)), (0, 0)]
    return b.pad(x, sides)


def _image_op(function: Callable[..., TensorHandle], *more: object) -> Callable[..., TensorHandle]:
    return lambda rng, b, x: function(rng, b, _as_image(b, x), *more)


OPERATORS: dict[str, Callable[[Rng, ModelBuilder, TensorHandle], TensorHandle]] = {
    "CONV_2D": _image_op(_conv, False),
    "DEPTHWISE_CONV_2D": _image_op(_conv, True),
    "AVERAGE_POOL_2D": _image_op(_pool, "AVERAGE_POOL_2D"),
    "MAX_POOL_2D": _image_op(_pool, "MAX_POOL_2D"),
    "PAD": _image_op(_pad),
    "FULLY_CONNECTED": _dense,
    "RESHAPE": _view,
    "MUL": _times_constant,
    "SOFTMAX": lambda rng, b, x: b.softmax(x, beta=float(_pick(rng, 1, 0.25, 2))),
    **{
        code: (lambda rng, b, x, code=code: _table(rng, b, x, code))
        for code in ("LEAKY_RELU", "HARD_SWISH", "QUANTIZE", "LOGISTIC", "TANH", "RELU", "RELU6")
    },
}


def wide_model(seed: int) -> WideModel:
    """Return the model of a seed: one operator (even seeds) or a small graph."""
    rng = np.random.default_rng((seed, 77))
    b = ModelBuilder()
    codes: list[str] = []
    shape = _shape(rng)
    x = b.input(shape, scale=_scale(rng), zero_point=_zero(rng))
    inputs, tensors = [x], [x]
    names = list(OPERATORS)
    count = 1 if seed % 2 == 0 else _int(rng, 2, 6)
    for index in range(count):
        same = [t for t in tensors if t.shape == x.shape and t is not x]
        if (same or count == 1) and rng.random() < (0.4 if same else 0.08):
            if not same:
                same = [b.input(x.shape, scale=_scale(rng), zero_point=_zero(rng))]
                inputs += same
            other = same[_int(rng, 0, len(same) - 1)]
            x = _binary(rng, b, *((x, other) if rng.random() < 0.5 else (other, x)))
            codes.append("ADD")
        else:
            code = names[seed // 2 % len(names) if count == 1 else _int(rng, 0, len(names) - 1)]
            x = OPERATORS[code](rng, b, x)
            codes.append(code)
        if prod(x.shape) > MAX_ELEMENTS:
            break
        tensors.append(x)
        # Another branch from an earlier tensor now and then.
        if index + 1 < count and rng.random() < 0.2:
            x = tensors[_int(rng, 0, len(tensors) - 1)]
    produced = [t for t in tensors if t not in inputs]
    outputs = [t for t in produced if rng.random() < 0.3]
    last = tensors[-1] if tensors[-1] not in inputs else x
    outputs = [t for t in outputs if t is not last] + [last]
    b._tensors = [
        replace(t, name=NAMES[_int(rng, 0, len(NAMES) - 1)]) if rng.random() < 0.8 else t
        for t in b._tensors
    ]
    values = [
        rng.integers(-128, 128, t.shape, np.int8)
        if rng.random() < 0.9
        else np.full(t.shape, int(_pick(rng, -128, 127)), np.int8)
        for t in inputs
    ]
    return WideModel(b.finish(outputs), values, tuple(codes))


# ---------------------------------------------------------------------- running


def reference_refuses(model: bytes) -> bool:
    """Whether the reference interpreter, in a process of its own, does not run the model."""
    import subprocess

    script = (
        "import sys\n"
        "from ai_edge_litert.interpreter import Interpreter, OpResolverType as R\n"
        "i = Interpreter(model_content=sys.stdin.buffer.read(),\n"
        "                experimental_op_resolver_type=R.BUILTIN_REF)\n"
        "i.allocate_tensors(); i.invoke()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=model, capture_output=True)
    return done.returncode != 0


def run_wide(seed: int, device: celosia.Device) -> tuple[str, str]:
    """Run one seed.

    Returns
    -------
    str
        ``exact``, ``refused`` (and the reason's kind), ``WRONG`` or ``TRACEBACK``.
    str
        What there is to say about it.
    """
    case = wide_model(seed)
    what = "+".join(case.codes)
    config = device.config
    try:
        keep = bool(np.random.default_rng(seed).random() < 0.3)
        program = compile_model(case.model, config, keep_tensors=keep, host="refuse")
    except (UnsupportedError, CompileError) as error:
        return f"refused: {type(error).__name__}", f"{what}: {error}"
    except ModelError as error:
        if reference_refuses(case.model):
            return "refused: by the reference too", f"{what}: {error}"
        return "WRONG", f"{what}: called damaged, the reference runs it: {error}"
    except Exception as error:
        return "TRACEBACK", f"{what}: {type(error).__name__}: {error}"
    try:
        golden = GoldenModel(case.model)
        want = golden.run_by_index(case.inputs)
        result = device.run(program, case.inputs)
    except CelosiaError as error:
        return "WRONG", f"{what}: {error}"
    except Exception as error:
        return "TRACEBACK", f"{what}: {type(error).__name__}: {error}"
    for info, tensor in zip(golden.outputs, program.outputs, strict=True):
        got = result.outputs[tensor.name]
        wrong = int((got.reshape(-1) != want[info.index].reshape(-1)).sum())
        if wrong:
            return "WRONG", f"{what}: {wrong} of {got.size} elements of output {tensor.name!r}"
    return "exact", what


def run_seeds(
    seeds: range, configs: list[str], kind: str = "emu", seconds: float = 1e9
) -> tuple[Counter[str], list[str]]:
    """Run seeds, each on one of the configurations; return what came of them, and the faults."""
    total: Counter[str] = Counter()
    faults: list[str] = []
    end = time.monotonic() + seconds
    devices = {
        name: celosia.open(kind, MACHINES[name], memory_bytes=MEMORY_BYTES) for name in configs
    }
    try:
        for seed in seeds:
            if time.monotonic() > end:
                break
            name = configs[seed // 2 % len(configs)]
            outcome, text = run_wide(seed, devices[name])
            total[outcome] += 1
            if outcome in ("WRONG", "TRACEBACK"):
                faults.append(f"seed {seed}, {name}: {outcome}: {text}")
                print(faults[-1], flush=True)
    finally:
        for device in devices.values():
            device.close()
    return total, faults


@pytest.mark.parametrize("start", [0, 60])
def test_wide_models_are_exact_or_refused(start: int) -> None:
    total, faults = run_seeds(range(start, start + 60), ["small4", "tiny", "base", "large"])
    assert not faults, "\n".join(faults)
    assert total["exact"] >= 30, dict(total)


def main() -> int:
    """Run many seeds and say what came of them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 200), metavar=("A", "B"))
    parser.add_argument("--config", nargs="*", default=["small4", "tiny", "base", "large"])
    parser.add_argument("--device", default="emu", choices=["emu", "sim"])
    parser.add_argument("--show", action="store_true", help="print every outcome")
    options = parser.parse_args()
    if options.show:
        for seed in range(*options.seeds):
            for name in options.config:
                with celosia.open("emu", MACHINES[name], memory_bytes=MEMORY_BYTES) as device:
                    print(seed, name, *run_wide(seed, device))
        return 0
    total, faults = run_seeds(range(*options.seeds), options.config, options.device)
    print({key: total[key] for key in sorted(total)})
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
