"""Divides a model between the NPU and the host."""
