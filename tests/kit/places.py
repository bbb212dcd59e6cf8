"""Where the project and the models are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

__all__ = [
    "BENCHMARK",
    "DIGITS",
    "FLOAT_INPUTS",
    "KWS_INPUT",
    "ROOT",
    "SAMPLES",
    "SHARED",
    "benchmark_input",
    "benchmark_model",
    "tracked_files",
]

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
"""Beside the checkout; may be missing."""
BENCHMARK = ROOT / "examples/mlperf_tiny"
KWS_INPUT = BENCHMARK / "kws_int8.npy"
FLOAT_INPUTS = SHARED / "mlperf_tiny/inputs"
"""Real inputs of the other models; may be missing."""
DIGITS = ROOT / "examples/digits/digits_int8.tflite"
SAMPLES = ROOT / "examples/digits/samples.npz"


def benchmark_model(name: str) -> Path:
    """Return the file of a model of MLPerf Tiny, ``kws`` for instance.

    Raises
    ------
    AssertionError
        If there is none of that name.
    """
    path = BENCHMARK / f"{name}_int8.tflite"
    assert path.is_file(), f"{path} is not there"
    return path


def benchmark_input(name: str) -> Path:
    """Return a file of real float inputs of MLPerf Tiny, or skip without them.

    Raises
    ------
    AssertionError
        If the inputs are there, and there is none of that name.
    """
    if not FLOAT_INPUTS.is_dir():
        pytest.skip("needs ../shared/mlperf_tiny/inputs")
    path = FLOAT_INPUTS / name
    assert path.is_file(), f"{path} is not there"
    return path


def tracked_files() -> list[Path]:
    """Return the project's files, without what tools leave behind; skip outside a git checkout."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0")]
    return [path for path in files if path.is_file()]
