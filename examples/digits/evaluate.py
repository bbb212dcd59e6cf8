"""Measure the int8 digit classifier in the reference interpreter.

Needs ``ai-edge-litert``, which ``pip install celosia[check]`` brings.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    Interpreter,
    OpResolverType,
)

__all__ = ["Quantised", "score"]

I8 = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]


class Quantised:
    """An int8 classifier in the reference interpreter.

    Parameters
    ----------
    content : bytes
        A ``.tflite`` file with one int8 input, of a batch of one, and one int8 output.
    """

    def __init__(self, content: bytes) -> None:
        self._interpreter = Interpreter(
            model_content=content,
            # The kernels Celosia is held against; the default ones round differently.
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        )
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]

    @property
    def operators(self) -> Counter[str]:
        """How many there are of each operator."""
        # Private, but the interpreter has no public way to ask.
        return Counter(op["op_name"] for op in self._interpreter._get_ops_details())

    def to_int8(self, inputs: npt.NDArray[np.float32]) -> I8:
        """Quantise float32 inputs of any shape with the input's scale and zero point."""
        scale, zero_point = self._input["quantization"]
        levels: npt.NDArray[np.float32] = np.rint(inputs / scale) + zero_point
        return np.clip(levels, -128, 127).astype(np.int8)

    def predict(self, inputs: I8) -> I64:
        """Classify one at a time.

        Parameters
        ----------
        inputs : int8 [n, height, width, channels]

        Returns
        -------
        int64 [n]
            The most probable class; the lowest of equals.
        """
        classes = np.empty(len(inputs), np.int64)
        for i, one in enumerate(inputs):
            self._interpreter.set_tensor(self._input["index"], one[None])
            self._interpreter.invoke()
            classes[i] = self._interpreter.get_tensor(self._output["index"])[0].argmax()
        return classes


def score(classes: I64, labels: I64) -> str:
    """Say how many of the int64 [n] classes are right, as a count and in per cent."""
    right = int((classes == labels).sum())
    return f"{right}/{len(labels)} = {right / len(labels):.2%}"


def main() -> None:
    """Print the operators and the accuracy, and name the images that were taken wrongly."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description="Measure the int8 digit classifier.")
    parser.add_argument("--model", type=Path, default=here / "digits_int8.tflite")
    parser.add_argument("--images", type=Path, default=here / "samples.npz")
    arguments = parser.parse_args()

    quantised = Quantised(arguments.model.read_bytes())
    for name, count in sorted(quantised.operators.items()):
        print(f"{count} {name}")
    with np.load(arguments.images) as images:
        inputs, labels = images["inputs"], images["labels"]
    classes = quantised.predict(inputs)
    print(f"int8: {score(classes, labels)}")
    for i in np.flatnonzero(classes != labels):
        print(f"image {i}: a {labels[i]} taken for a {classes[i]}")


if __name__ == "__main__":
    main()
