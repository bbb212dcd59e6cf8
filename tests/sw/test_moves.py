"""Operators that move elements: compiled, on the emulator, against golden and reference."""

from __future__ import annotations
