"""Example models, shipped as package data so that commands find them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["MLPERF_TINY"]

# In a checkout's root Python would find this folder under its bare name, as a second copy.
if not __name__.startswith("celosia."):
    raise ImportError(f"import celosia.{__name__}, not {__name__}")

MLPERF_TINY = Path(__file__).resolve().parent / "mlperf_tiny"
"""Folder of the benchmark's models."""
