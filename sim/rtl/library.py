"""The simulators' shared libraries: loading, with the types of their functions."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

from celosia.toolchain import BuildError

__all__ = ["Function", "load_library"]

Function = tuple[Any, ...]
"""Name, type of the result, types of the arguments."""


@functools.cache
def load_library(path: Path, functions: tuple[Function, ...]) -> ctypes.CDLL:
    """Return a library with its functions declared.

    Parameters
    ----------
    path : Path
        Of a :class:`celosia.sim.rtl.verilator.Build`.
    functions : tuple of tuple
        Those that will be called.

    Raises
    ------
    BuildError
        If it cannot be loaded.
    """
    try:
        # RTLD_LOCAL: two models have the same symbols.
        library = ctypes.CDLL(str(path), mode=os.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        raise BuildError("RTL simulator", f"cannot be loaded: {error}") from None
    for name, result, *arguments in functions:
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library
