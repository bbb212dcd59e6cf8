"""What to do about a program that cannot be read or run: the last part of messages."""

from __future__ import annotations

__all__ = ["REBUILD", "UPDATE"]

REBUILD = "compile the model again"
UPDATE = "update the software, or compile the model again"
