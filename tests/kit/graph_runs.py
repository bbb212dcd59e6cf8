"""Runs a random graph on a device and compares it with the golden model and the reference."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from celosia.errors import CelosiaError, CompileError, UnsupportedError
from celosia.sw.compiler.build import compile_model
from celosia.sw.driver.device import Device
from celosia.sw.driver.result import Result
from celosia.sw.driver.sim import SimDevice
from celosia.sw.reference.interpreter import Expected, ReferenceModel

from tests.kit.machines import random_memory
from tests.kit.random_graphs import RandomGraph

__all__ = ["MEMORY_BYTES", "run_graph"]

MEMORY_BYTES = 1 << 21
STEPS = 3


def run_graph(
    graph: RandomGraph, seed: int, device: Device, *, interpreter: bool | None = None
) -> tuple[str, str]:
    """Run a graph on a device.

    Returns
    -------
    str
        ``exact``, ``refused``, ``WRONG`` or ``TRACEBACK``.
    str
        What there is to say about it.
    """
    rng = np.random.default_rng((seed, 1))
    try:
        keep = bool(rng.random() < 0.4)
        program = compile_model(graph.model, device.config, keep_tensors=keep, host="refuse")
    except (CompileError, UnsupportedError) as error:
        return "refused", str(error)
    except Exception as error:
        return "TRACEBACK", f"{type(error).__name__}: {error}"
    if isinstance(device, SimDevice):
        device.rtl.set_memory_model(random_memory(rng))
    # What keeps state is run several times.
    steps = STEPS if program.persistent else 1
    try:
        results = [device.run(program, graph.inputs) for _ in range(steps)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.tflite"
            path.write_bytes(graph.model)
            names = [info.name for info in program.inputs]
            with ReferenceModel(path, interpreter=interpreter) as reference:
                inputs = dict(zip(names, graph.inputs, strict=True))
                expected = [reference.run(inputs) for _ in range(steps)]
                if reference.unconfirmed is not None:
                    return "WRONG", reference.unconfirmed
    except CelosiaError as error:
        return "WRONG", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "TRACEBACK", f"{type(error).__name__}: {error}"
    for result, sources in zip(results, expected, strict=True):
        text = _difference(result, sources)
        if text:
            return "WRONG", text
    return "exact", ""


def _difference(result: Result, expected: list[Expected]) -> str:
    """Say which tensor is not what it must be; empty if all are."""
    for name, got in {**result.tensors, **result.outputs}.items():
        for source in expected:
            if name not in source.tensors:
                continue  # the compiler's own
            want = source.tensors[name]
            wrong = int((got.reshape(-1) != want.reshape(-1)).sum())
            if wrong:
                return f"{wrong} of {got.size} elements of {name!r} differ from the {source.source}"
    return ""
