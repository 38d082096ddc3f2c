"""An exponential that gives the same bits in NumPy and in C++, on every processor."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

UNIT = np.float32(float.fromhex("0x1.715476p23"))
"""Differences times this are powers of e in the unit of `exponential`: 2^23 log2(e)."""

_LOWEST = np.float32(-125 * 2**23)
_MANTISSA = np.int32(0x007FFFFF)
_ONE = np.int32(0x3F800000)
# By degree, minimax polynomials for 2^(g - 1) that are 1 at 1, from the last term on.
_TERMS = {
    4: "0x1.b7f6e0p-7 -0x1.7fcae2p-10 0x1.52267ap-3 0x1.410796p-2 0x1.04d2a0p-1",
    5: "0x1.e974dcp-10 -0x1.4e1592p-12 0x1.3a990cp-5 0x1.bb2b5ap-4 0x1.69f930p-2"
    " 0x1.fe52e8p-2",
}


def exponential(x: Float32Array, *, degree: Literal[4, 5]) -> Float32Array:
    """Return 2^(x / 2^23) of x <= 0, float32 of any shape; 2^-125 below that.

    In that unit, the integral part of the power and the bits of its fraction lie where
    float32 has exponent and mantissa. The relative error is 3e-6 for degree 4, 2e-7 for
    degree 5. NumPy's own exponential differs between processors, where a pixel would
    get another confidence. The operations and their order are those of `exponential` in
    `ops/csrc/blend/exponential.h`.
    """
    power = np.maximum(x, _LOWEST).astype(np.int32)
    fraction = (power & _MANTISSA) | _ONE
    g = fraction.view(np.float32)  # 1 and the fraction
    first, *others = (
        np.float32(float.fromhex(term)) for term in _TERMS[degree].split()
    )
    total: Float32Array = g * first
    for term in others[:-1]:
        total += term
        total *= g
    total += others[-1]
    bits = total.view(np.int32)
    bits += power & ~_MANTISSA
    return total
