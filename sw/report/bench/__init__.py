"""Benchmarks: running models, and tables of what their cycles went on."""
