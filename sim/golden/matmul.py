"""BATCH_MATMUL of the TensorFlow Lite int8 reference kernels.

Source: TensorFlow Lite ``kernels/batch_matmul.cc`` and ``reference/batch_matmul.h``; conventions as
in :mod:`celosia.sim.golden.operators`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from celosia.sim.golden.conv import requantize
from celosia.sim.golden.fixed import quantize_multiplier, wrap_int32

__all__ = ["batch_matmul"]

Int8 = npt.NDArray[np.int8]


def batch_matmul(
    a: Int8,
    b: Int8,
    *,
    adj_x: bool,
    adj_y: bool,
    a_scale: float,
    a_zero_point: int,
    b_scale: float,
    b_zero_point: int,
    out_scale: float,
    out_zero_point: int,
) -> Int8:
    """Products of the matrices in the last two axes; the others broadcast.

    Parameters
    ----------
    a, b
        int8 [..., rows, depth] and [..., depth, columns].
    adj_x, adj_y
        Whether the last two axes of `a`, of `b`, are the other way round.
    a_scale, a_zero_point, b_scale, b_zero_point, out_scale, out_zero_point
        Quantisation of the operands and the result.

    Returns
    -------
    numpy.ndarray
        int8 [..., rows, columns].
    """
    left = a.astype(np.int64) - a_zero_point
    right = b.astype(np.int64) - b_zero_point
    left = left.swapaxes(-1, -2) if adj_x else left
    right = right.swapaxes(-1, -2) if adj_y else right
    accumulators = wrap_int32(np.matmul(left, right))
    # The product of the scales is one of floats, the quotient one of doubles.
    product = float(np.float32(a_scale) * np.float32(b_scale))
    mantissa, shift = quantize_multiplier(product / float(np.float32(out_scale)))
    return requantize(
        accumulators, mantissa, shift, out_zero_point=out_zero_point, low=-128, high=127
    )
