"""Reads ``.onnx`` files: quantised graphs of either kind (QDQ and QOperator)."""
