"""Reads a .tflite file into a graph of its operators."""
