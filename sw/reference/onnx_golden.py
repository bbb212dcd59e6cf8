"""Runs an ``.onnx`` model with the operators of :mod:`celosia.sim.golden.onnx`.

It works on the file's own tensors, in their order of axes; only the reader, and what it finds to be
one quantised operator, are the compiler's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sim.golden import onnx as golden
from celosia.sim.golden.onnx import Codes, Result
from celosia.sw.compiler.frontends.onnx.convert import Converted
from celosia.sw.compiler.frontends.onnx.units import Constant, Operand, Unit
from celosia.sw.reference.graph import UnsupportedModelError

__all__ = ["OnnxGolden"]

Array = npt.NDArray[Any]
Values = dict[str, Array]


class OnnxGolden:
    """A model, and what its tensors are.

    Parameters
    ----------
    converted : Converted
        The model as the compiler has it, for the names of its tensors.

    Raises
    ------
    UnsupportedModelError
        If it has an operator that has no exact definition, or none here.
    """

    def __init__(self, converted: Converted) -> None:
        self._model = converted.model
        self._places = converted.places
        units = converted.units
        loose = [node.kind for node in units.loose.values()]
        kinds = [unit.kind for unit in units.units.values()]
        unknown = [*loose, *(kind for kind in kinds if kind not in _EVALUATORS)]
        if unknown:
            raise UnsupportedModelError(f"the golden model does not compute {unknown[0]}")
        self._units = sorted(units.units.values(), key=lambda unit: max(unit.nodes))

    def run(self, inputs: list[Array]) -> dict[str, Array]:
        """Run one inference; return the tensors of the compiler's graph by their names."""
        values: Values = dict(zip(self._model.inputs, inputs, strict=True))
        for unit in self._units:
            found = _EVALUATORS[unit.kind](self, unit, values)
            for result, value in zip(unit.results, found, strict=True):
                values[result.name] = _clamped(unit, value)
        own = {
            name: place.of_file(values[place.file])
            for name, place in self._places.items()
            if place.file in values
        }
        return {name: values[name] for name in self._model.outputs} | own

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return self._model.shapes[name]


def _clamped(unit: Unit, codes: Array) -> Array:
    for bounds in unit.clamps:
        out = _result(unit)
        low, high = (golden.quantize(np.array(bound, np.float32), out) for bound in bounds)
        codes = np.minimum(np.maximum(codes, low), high)
    return codes


def _result(unit: Unit) -> Result:
    quantised = unit.results[0].quantised
    return Result(quantised.scale[0], int(quantised.zero_point[0]), quantised.dtype)


def _codes(unit: Unit, place: int, values: Mapping[str, Array]) -> Codes:
    operand = unit.operands[place]
    assert isinstance(operand, Operand)
    value = values[operand.name] if operand.value is None else operand.value
    return Codes(value, operand.quantised.scale, operand.quantised.zero_point)


def _bias(unit: Unit, place: int) -> npt.NDArray[np.int64] | None:
    operand = unit.operands[place] if place < len(unit.operands) else None
    if operand is None:
        return None
    if not isinstance(operand, Constant) or operand.value.dtype != np.int32:
        raise UnsupportedModelError(f"the bias of {unit.node.name!r} is not int32")
    return operand.value.astype(np.int64)


def _before(unit: Unit, sizes: list[int], after: list[int], reach: list[int]) -> list[int]:
    """Return the padding before the first pixel along each axis."""
    options = unit.node.options
    automatic = options.get("auto_pad", "NOTSET")
    strides = options.get("strides") or [1] * len(sizes)
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max((n - 1) * s + r - size, 0)
            for n, s, r, size in zip(after, strides, reach, sizes, strict=True)
        ]
        return [(t + (automatic == "SAME_LOWER")) // 2 for t in totals]
    return [int(n) for n in (options.get("pads") or [0] * len(sizes))[: len(sizes)]]


def _windows(
    model: OnnxGolden, unit: Unit, x: Array, kernel: Sequence[int]
) -> dict[str, Sequence[int]]:
    """Return how windows lie in an image: strides, padding, dilations, and the result's size."""
    options, after = unit.node.options, list(model.shape(unit.results[0].name)[2:])
    dilations = list(options.get("dilations") or [1] * len(after))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    return {
        "strides": options.get("strides") or [1] * len(after),
        "pads": _before(unit, list(x.shape[2:]), after, reach),
        "dilations": dilations,
        "size": after,
    }


def _conv(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    x, w = _codes(unit, 0, values), _codes(unit, 1, values)
    windows = _windows(model, unit, x.values, w.values.shape[2:])
    group = int(unit.node.options.get("group", 1))
    return [golden.conv(x, w, _bias(unit, 2), _result(unit), group=group, **windows)]


def _matmul(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    a, b = _codes(unit, 0, values), _codes(unit, 1, values)
    options = unit.node.options
    if options.get("transA") or any(float(options.get(n, 1)) != 1 for n in ("alpha", "beta")):
        raise UnsupportedModelError(f"{unit.node.name!r} is scaled or transposed")
    if options.get("transB") and unit.kind == "Gemm":
        b = Codes(b.values.T, b.scale, b.zero_point)
    return [golden.matmul(a, b, _bias(unit, 2), _result(unit))]


def _max_pool(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    x = _codes(unit, 0, values).values
    kernel = list(unit.node.options.get("kernel_shape") or x.shape[2:])
    greatest = golden.max_pool(x, kernel=kernel, **_windows(model, unit, x, kernel))
    return [_in_scale(unit, greatest)]


def _in_scale(unit: Unit, codes: Array) -> Array:
    """Return codes of a unit's operand as those of its result."""
    operand, result = unit.operands[0], unit.results[0]
    assert isinstance(operand, Operand)
    if operand.quantised.same(result.quantised):
        return codes
    quantised = operand.quantised
    return golden.requantize(Codes(codes, quantised.scale, quantised.zero_point), _result(unit))


def _concat(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    out = _result(unit)
    parts = []
    for place, operand in enumerate(unit.operands):
        codes = _codes(unit, place, values)
        assert isinstance(operand, Operand)
        same = operand.quantised.same(unit.results[0].quantised)
        parts.append(codes.values if same else golden.requantize(codes, out))
    return [np.concatenate(parts, int(unit.node.options.get("axis", 0)))]


def _reshape(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    (result,) = unit.results
    return [_in_scale(unit, _codes(unit, 0, values).values.reshape(model.shape(result.name)))]


def _transpose(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    turned = _codes(unit, 0, values).values.transpose(unit.node.options.get("perm"))
    return [_in_scale(unit, turned)]


def _dequantise(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    x = _codes(unit, 0, values)
    return [x.less_zero().astype(np.float32) * x.scale.flat[0]]


def _quantise(model: OnnxGolden, unit: Unit, values: Values) -> list[Array]:
    (source,) = unit.operands
    assert isinstance(source, Operand)
    return [golden.quantize(values[source.name], _result(unit))]


def _of_two(function: Callable[[Codes, Codes, Result], Array]) -> _Evaluator:
    return lambda model, unit, values: [
        function(_codes(unit, 0, values), _codes(unit, 1, values), _result(unit))
    ]


def _of_one(function: Callable[[Codes, Result], Array]) -> _Evaluator:
    return lambda model, unit, values: [function(_codes(unit, 0, values), _result(unit))]


def _relu(x: Codes, out: Result) -> Array:
    real = np.maximum(x.less_zero().astype(np.float32) * x.scale.flat[0], np.float32(0))
    return golden.quantize(real, out)


_Evaluator = Callable[[OnnxGolden, Unit, Values], list[Array]]
_EVALUATORS: dict[str, _Evaluator] = {
    "Add": _of_two(golden.add),
    "Concat": _concat,
    "Conv": _conv,
    "Dequantise": _dequantise,
    "Flatten": _reshape,
    "Gemm": _matmul,
    "GlobalAveragePool": _of_one(golden.global_average_pool),
    "GlobalMaxPool": _max_pool,
    "Identity": _reshape,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _of_two(golden.multiply),
    "Quantise": _quantise,
    "Relu": _of_one(_relu),
    "Requantise": _of_one(golden.requantize),
    "Reshape": _reshape,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
