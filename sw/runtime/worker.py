"""The process of TFLite's interpreter, or of onnxruntime: started as a file, never imported.

``worker.py FOLDER`` finds ``models.json`` in the folder, a list with an entry for each
``model<n>`` beside it: ``kernels`` (``reference``, ``default`` or ``onnxruntime``), and of TFLite's
the numbers of the tensors to set and to return, ``inputs`` and ``outputs``; null: the model's own;
of onnxruntime ``keeps_int8``. It opens all of them, and says on standard output that it is ready.
Then it answers each line on standard input, a JSON object with one key:

* ``run``, a model's number: reads ``inputs.npz``, runs it, writes ``outputs.npz``;
* ``time``, a model's number: runs it on zeros and says how long that takes;
* ``reset``: opens all models anew, so that what they kept is forgotten.

The answer is a line of JSON: ``error`` is null or what went wrong, ``model`` the number of the
model where it did, ``milliseconds`` what was measured. Tensors have numbers only: names need not be
text. The process imports nothing of Celosia, and ends when standard input does.
"""

from __future__ import annotations

import json
import os
import queue
import re
import resource
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__: list[str] = []

MAX_VERSION = 16
"""Of an operator: what the interpreter does not know is tried as the version before."""
_UNKNOWN_VERSION = re.compile("Didn't find op for builtin opcode '(.*?)' version '(\\d+)'")
_VERSION_SLOT = 8
"""Of `OperatorCode.version` in its table."""
TIMED_RUNS = 5
TIMED_SECONDS = 0.1
"""No further run is begun when so much time has gone."""


def main(folder: Path) -> None:
    """Serve the models of a folder."""
    # An assertion of the interpreter is expected here, and no reason to write a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The interpreter's own messages must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    server = _Server(folder)
    _say(answers, server.attempt(server.reset))
    while server.models:
        request = json.loads(requests.get())
        if "run" in request:
            _say(answers, server.attempt(server.run, request["run"]))
        elif "time" in request:
            _say(answers, server.attempt(server.time, request["time"]))
        else:
            _say(answers, server.attempt(server.reset))


class _Server:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries = json.loads((folder / "models.json").read_text(encoding="utf-8"))
        self.models: list[Any] = []
        self._current = 0

    def attempt(self, task: Any, *arguments: Any) -> dict[str, Any]:
        """Do something; return the answer."""
        try:
            milliseconds = task(*arguments)
        except Exception as error:  # whatever it raises is what it says of the model
            return {"error": _text(error), "model": self._current}
        return {"error": None, "milliseconds": milliseconds}

    def reset(self) -> None:
        self.models = []
        opened = []
        for number, entry in enumerate(self._entries):
            self._current = number
            content = (self._folder / f"model{number}").read_bytes()
            opened.append(_open(content, entry))
        self.models = opened

    def run(self, number: int) -> None:
        self._current = number
        with np.load(self._folder / "inputs.npz") as inputs:
            values = [inputs[name] for name in inputs.files]
        np.savez(self._folder / "outputs.npz", *self.models[number].run(values))

    def time(self, number: int) -> float:
        self._current = number
        model = self.models[number]
        values = model.zeros()
        best, end = float("inf"), time.perf_counter() + TIMED_SECONDS
        for _ in range(TIMED_RUNS):
            best = min(best, model.time(values))
            if time.perf_counter() > end:
                break
        return 1000 * best


class _Tflite:
    """A model in TFLite's interpreter."""

    def __init__(self, interpreter: Any, entry: dict[str, Any]) -> None:
        self._interpreter, self._entry = interpreter, entry

    def run(self, values: list[Any]) -> list[Any]:
        interpreter, numbers = self._interpreter, self._entry["inputs"]
        if numbers is None:
            details = interpreter.get_input_details()
            numbers = [detail["index"] for detail in details]
            resized = False
            for detail, value in zip(details, values, strict=True):
                if tuple(detail["shape"]) != value.shape:
                    interpreter.resize_tensor_input(detail["index"], value.shape)
                    resized = True
            if resized:
                interpreter.allocate_tensors()
        for index, value in zip(numbers, values, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        wanted = self._entry["outputs"]
        if wanted is None:
            wanted = [detail["index"] for detail in interpreter.get_output_details()]
        return [interpreter.get_tensor(index) for index in wanted]

    def zeros(self) -> list[Any]:
        for detail in self._interpreter.get_input_details():
            zeros = np.zeros(detail["shape"], detail["dtype"])
            self._interpreter.set_tensor(detail["index"], zeros)
        return []

    def time(self, values: list[Any]) -> float:
        started = time.perf_counter()
        self._interpreter.invoke()
        return time.perf_counter() - started


class _Onnx:
    """A model in onnxruntime, on the processor, with its default options."""

    def __init__(self, content: bytes, *, keeps_int8: bool) -> None:
        import onnxruntime  # type: ignore[import-untyped,unused-ignore]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if keeps_int8:
            options.add_session_config_entry("session.qdqisint8allowed", "1")
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self._names = [value.name for value in self._session.get_inputs()]

    def run(self, values: list[Any]) -> list[Any]:
        found: list[Any] = self._session.run(None, dict(zip(self._names, values, strict=True)))
        return found

    def zeros(self) -> list[Any]:
        return [
            np.zeros(
                [size if isinstance(size, int) else 1 for size in value.shape],
                _ONNX_TYPES.get(value.type, np.float32),
            )
            for value in self._session.get_inputs()
        ]

    def time(self, values: list[Any]) -> float:
        started = time.perf_counter()
        self.run(values)
        return time.perf_counter() - started


_ONNX_TYPES = {
    f"tensor({name})": kind
    for name, kind in {
        "bool": np.bool_,
        "double": np.float64,
        "float": np.float32,
        "float16": np.float16,
        "int8": np.int8,
        "int16": np.int16,
        "int32": np.int32,
        "int64": np.int64,
        "uint8": np.uint8,
        "uint16": np.uint16,
    }.items()
}


def _read(requests: queue.Queue[str]) -> None:
    """Pass requests on; end the process when the other one has gone, even in an inference."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _text(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The interpreter joins the lines of its own messages with nothing between them.
    return " ".join(lines).replace(".Node number", ". Node number") or type(error).__name__


def _open(content: bytes, entry: dict[str, Any]) -> Any:
    if entry["kernels"] == "onnxruntime":
        return _Onnx(content, keeps_int8=entry["keeps_int8"])
    return _Tflite(_opened(content, entry), entry)


def _opened(content: bytes, entry: dict[str, Any]) -> Any:
    from ai_edge_litert.interpreter import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        Interpreter,
        OpResolverType,
    )

    # The default resolver's own delegate (XNNPACK) rounds differently from all kernels.
    kernels = {
        "reference": OpResolverType.BUILTIN_REF,
        "default": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    }
    for _ in range(MAX_VERSION):
        try:
            interpreter = Interpreter(
                model_content=content,
                experimental_op_resolver_type=kernels[entry["kernels"]],
                experimental_preserve_all_tensors=entry["outputs"] is not None,
            )
            break
        except ValueError as error:
            unknown = _UNKNOWN_VERSION.search(str(error))
            if unknown is None or int(unknown[2]) == 1:
                raise
            content = _older(content, unknown[1], int(unknown[2]))
    interpreter.allocate_tensors()
    return interpreter


def _older(content: bytes, name: str, version: int) -> bytes:
    """Return a model whose operators of one name and version are of the version before.

    Converters write the newest version of an operator that they know; an interpreter that does not
    may have a kernel for it all the same, which refuses the operator if it does not.
    """
    import tflite  # type: ignore[import-untyped]

    data = bytearray(content)
    model = tflite.Model.GetRootAs(data, 0)
    number = getattr(tflite.BuiltinOperator, name)
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        place = code._tab.Offset(_VERSION_SLOT)
        if (
            place
            and code.Version() == version
            and number
            in (
                code.BuiltinCode(),
                code.DeprecatedBuiltinCode(),
            )
        ):
            struct.pack_into("<i", data, code._tab.Pos + place, version - 1)
    return bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
