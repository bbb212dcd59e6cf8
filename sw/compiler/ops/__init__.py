"""Operators: how each kind of the file becomes work of the NPU."""
