"""What a command has no room for, in the words of a layer and not of the command's fields."""

from __future__ import annotations

from celosia.hw.contract.isa import Command, Conv, Softmax, Transfer, Vector, fields_of

__all__ = ["MAX_STRIDE", "field_limit", "most"]


def most(kind: type[Command], field: str) -> int:
    """Return the greatest value of a command's field."""
    return next(spec.maximum for spec in fields_of(kind) if spec.name == field)


MAX_STRIDE = most(Conv, "stride_y")
"""Rows, or positions of a stream, from one output to the next within a command."""

_WORDS: dict[type[Command], dict[str, str]] = {
    Conv: {
        "y0": "input rows",
        "in_h": "input rows",
        "x0": "bytes of an input row",
        "row_bytes": "bytes of an input row",
        "row_pitch": "bytes of an input row",
        "out_w": "outputs of a row",
        "row_len": "positions of a row",
        "out_h": "output rows",
        "tile_rows": "output rows",
        "stride_x": "its stride",
        "stride_y": "its stride",
        "step_x": "bytes from window to window",
        "step_y": "bytes from output row to output row",
        "n_ky": "kernel rows",
        "ky_rows": "rows between kernel rows",
        "step_ky": "bytes between kernel rows",
        "n_kx": "kernel columns",
        "step_kx": "bytes between kernel columns",
        "n_ic": "tiles of input channels",
        "n_oc": "tiles of output channels",
    },
    Vector: {
        "n_oc": "channel tiles",
        "out_h": "output rows",
        "out_w": "outputs of a row",
        "tile_rows": "output rows",
        "n_ky": "window rows",
        "n_kx": "window columns",
        "a_x": "lines of memory from window to window",
        "a_kx": "lines of memory of a pixel",
        "b_x": "lines of memory of a pixel",
        "d_x": "lines of memory of a pixel",
        "half": "half the pixels of its window",
    },
    Softmax: {"channels": "elements of a row", "n_rows": "rows"},
    Transfer: {
        "mem_addr": "bytes of memory before its tensor",
        "row_bytes": "bytes in one piece",
        "n1": "pixels of a row to load or store",
        "n2": "rows to load or store",
        "mem_stride1": "bytes of memory from row to row",
        "mem_stride2": "bytes of memory from row to row",
    },
}


def field_limit(command: Command) -> str:
    """Say what of a layer exceeds a command's fields; '' if everything fits.

    Parameters
    ----------
    command : Command
        As scheduled; its values may be anything.
    """
    for spec in fields_of(type(command)):
        value = int(getattr(command, spec.name))
        if spec.minimum <= value <= spec.maximum:
            continue
        words = next((w for kind, w in _WORDS.items() if isinstance(command, kind)), {})
        what = words.get(spec.name, "a distance or size in memory")
        return (
            f"{what}: {value}, where a {type(command).__name__} command has room for"
            f" {spec.minimum} to {spec.maximum}"
        )
    return ""
