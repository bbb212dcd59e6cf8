"""The process of the reference interpreter: started as a file, never imported.

``worker.py FOLDER`` finds ``model.tflite`` and ``tensors.json`` (indices of inputs and of
the tensors to return) in the folder, and says on standard output that it is ready.  For each line
on standard input it reads ``inputs.npz``, writes ``outputs.npz`` and answers with a line of JSON,
``{"error": null}`` or what went wrong.  Tensors have numbers only: names need not be text.

It imports nothing of Celosia, and ends when standard input does.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

__all__: list[str] = []


def main(folder: Path) -> None:
    """Serve the model of a folder."""
    # An assertion of the interpreter is expected here, and no reason to write a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The interpreter's own messages must not be taken for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    tensors = json.loads((folder / "tensors.json").read_text(encoding="utf-8"))
    try:
        interpreter = _open((folder / "model.tflite").read_bytes())
    except Exception as error:  # whatever it raises is what it says of the model
        _say(answers, error)
        return
    _say(answers, None)
    while True:
        requests.get()
        try:
            with np.load(folder / "inputs.npz") as inputs:
                for index, name in zip(tensors["inputs"], inputs.files, strict=True):
                    interpreter.set_tensor(index, inputs[name])
            interpreter.invoke()
            found = {str(index): interpreter.get_tensor(index) for index in tensors["outputs"]}
            np.savez(folder / "outputs.npz", **found)
        except Exception as error:
            _say(answers, error)
        else:
            _say(answers, None)


def _read(requests: queue.Queue[str]) -> None:
    """Pass requests on; end the process when the other one has gone, even in an inference."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _say(answers: Any, error: Exception | None) -> None:
    text = None
    if error is not None:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The interpreter joins the lines of its own messages with nothing between them.
        text = " ".join(lines).replace(".Node number", ". Node number") or type(error).__name__
    answers.write(json.dumps({"error": text}) + "\n")
    answers.flush()


def _open(content: bytes) -> Any:
    from ai_edge_litert.interpreter import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        Interpreter,
        OpResolverType,
    )

    # The named reference: the default resolver's kernels (XNNPACK) round differently.
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


if __name__ == "__main__":
    main(Path(sys.argv[1]))
