"""What onnxruntime computes of a model: its outputs, and every quantised tensor on the way.

Two sessions run it. One gives every quantised tensor, too, and has its integer kernels compute
int8 layers on every processor, as the default options do on some; the other runs the model as it is
with the default options, and is compared with the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from celosia.sw.compiler.frontends.onnx.convert import Converted
from celosia.sw.compiler.frontends.onnx.kernels import computed
from celosia.sw.program.segments import ONNXRUNTIME
from celosia.sw.runtime.interpreter import InterpreterProcess, Opened

__all__ = ["OnnxPieces", "saturates"]

Array = npt.NDArray[Any]


@cache
def saturates() -> bool:
    """Return whether onnxruntime loses sums of products beyond 16 bits on this processor.

    Its kernels for uint8 times int8 do so where the processor has no instruction for four products
    at a time (VNNI); ``reduce_range`` of its tool keeps weights small for that. Here the largest
    products are summed up once, to see.
    """
    from onnx import helper

    depth, columns, wanted = 64, 32, 200
    single = np.float32
    constants = {
        "one": single(1),
        "zero": np.uint8(0),
        "b": np.full((depth, columns), 127, np.int8),
        "zero_b": np.int8(0),
        "scale": single(depth * 255 * 127 / wanted),
    }
    node = helper.make_node(
        "QLinearMatMul", ["a", "one", "zero", "b", "one", "zero_b", "scale", "zero"], ["y"]
    )
    inputs = {"a": np.full((4, depth), 255, np.uint8)}
    found = computed([node], inputs, constants, np.uint8, opset=13)
    return bool(np.any(found != wanted))


class OnnxPieces:
    """A model as onnxruntime runs it.

    Parameters
    ----------
    converted : Converted
        As the compiler has it.
    wanted : sequence of str
        Tensors of the compiler's graph.

    Attributes
    ----------
    name : str
        What it is called, with its version.
    elsewhere : int
        Elements of outputs so far that are others with the default options: on some processors
        those let layers of int8 be computed in floating point.
    """

    def __init__(self, converted: Converted, wanted: Sequence[str]) -> None:
        import onnx
        from onnx import helper

        self.elsewhere = 0
        self.name = f"onnxruntime {version('onnxruntime')}"
        model = converted.model
        self._inputs, self._outputs = list(model.inputs), list(model.outputs)
        self._places = {name: converted.places[name] for name in wanted if name in converted.places}
        self._plain = [name for name in wanted if name in model.outputs]
        whole = onnx.ModelProto()
        whole.CopyFrom(model.proto)
        self._inner = list(
            dict.fromkeys(
                place.file for place in self._places.values() if place.file not in self._outputs
            )
        )
        for file in self._inner:
            kind = helper.np_dtype_to_tensor_dtype(model.types[file]) if file in model.types else 0
            value = (
                helper.make_tensor_value_info(file, kind, None)
                if kind
                else helper.make_empty_tensor_value_info(file)
            )
            whole.graph.output.append(value)
        self.opened = [
            Opened(model=model.proto.SerializeToString(), kernels=ONNXRUNTIME),
            Opened(model=whole.SerializeToString(), kernels=ONNXRUNTIME, keeps_int8=True),
        ]

    def run(self, process: InterpreterProcess, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one inference; return the tensors that were wanted, by name."""
        given = [inputs[name] for name in self._inputs]
        names = [*self._outputs, *self._inner]
        files = dict(zip(names, process.run(1, given), strict=True))
        for name, value in zip(self._outputs, process.run(0, given), strict=True):
            self.elsewhere += int(np.count_nonzero(value != files[name]))
        values = {name: place.of_file(files[place.file]) for name, place in self._places.items()}
        return values | {name: files[name] for name in self._plain if name not in values}
