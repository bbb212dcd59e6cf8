"""Where the project and the models are."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["BENCHMARK", "DIGITS", "ROOT", "SAMPLES", "SHARED", "benchmark_model", "needs_benchmark"]

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
"""Beside the checkout; may be missing."""
BENCHMARK = SHARED / "mlperf_tiny"
DIGITS = ROOT / "examples/digits/digits_int8.tflite"
SAMPLES = ROOT / "examples/digits/samples.npz"

_MISSING = "needs ../shared/mlperf_tiny"
needs_benchmark = pytest.mark.skipif(not BENCHMARK.is_dir(), reason=_MISSING)


def benchmark_model(name: str) -> Path:
    """Return the file of a model of MLPerf Tiny, ``kws`` for instance, or skip without them.

    Raises
    ------
    AssertionError
        If the models are there, and there is none of that name.
    """
    if not BENCHMARK.is_dir():
        pytest.skip(_MISSING)
    path = BENCHMARK / f"{name}_int8.tflite"
    assert path.is_file(), f"{path} is not there"
    return path
