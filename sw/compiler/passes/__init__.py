"""Passes that rewrite the graph, one a file; `pipeline.lower` runs them in order."""
