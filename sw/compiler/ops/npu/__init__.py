"""Operators of the NPU: what the compiler knows of each kind, one file and one record a kind."""
