"""A convolution in four tiles, the operation that empties them, and the tokens of the engines."""

from __future__ import annotations

from celosia.hw.contract.isa import Conv, Mode, Vector, VectorOp

__all__ = ["ARRAY", "CONV", "LOAD", "REQUANT", "STORE", "VECTOR"]

LOAD, STORE, ARRAY, VECTOR = 1, 2, 4, 8
"""Tokens in `wait` and `signal`."""

CONV = Conv(
    mode=Mode.WINDOW,
    in_h=8,
    row_bytes=8,
    row_pitch=8,
    out_w=1,
    out_h=8,
    tile_rows=2,
    row_len=1,
    stride_x=1,
    stride_y=1,
    step_y=8,
    n_ky=1,
    n_kx=1,
    n_ic=1,
    n_oc=1,
)
REQUANT = Vector(
    op=VectorOp.REQUANT,
    n_oc=1,
    out_h=8,
    out_w=1,
    tile_rows=2,
    d_addr=64,
    d_y=1,
    act_min=-128,
    act_max=127,
)
