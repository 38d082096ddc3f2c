"""An exponential that gives the same bits in NumPy and in C++, on every processor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

LOG2_E = np.float32(1.442695)
"""Powers of e become powers of 2 with it; rounded, hexadecimal 1.715476."""

_LOWEST = np.float32(-125)
_ROUNDING = np.float32(1.5 * 2**23)
# The minimax polynomial of degree 5 for |f| <= 1/2 that is 1 at 0, from the last on.
_COEFFICIENTS = [
    np.float32(float.fromhex(digits))
    for digits in (
        "0x1.5bb9fep-10",
        "0x1.3cea88p-7",
        "0x1.c6b754p-5",
        "0x1.ebf9bcp-3",
        "0x1.62e42ap-1",
        "0x1p0",
    )
]


def exp2_of_negative(x: Float32Array) -> Float32Array:
    """Return 2 to the power of x <= 0, float32 of any shape.

    The relative error is 2e-7; below -125, it is what it is there. NumPy's own differs
    between processors, where a pixel would get another confidence. The operations and
    their order are those of `exp2_of_negative` in `ops/csrc/exponential.h`.
    """
    x = np.maximum(x, _LOWEST)
    # Added to a small number, it leaves the nearest integer in the lower bits.
    shifted = x + _ROUNDING
    x -= shifted - _ROUNDING
    total = x * _COEFFICIENTS[0]
    total += _COEFFICIENTS[1]
    for coefficient in _COEFFICIENTS[2:]:
        total *= x
        total += coefficient
    # Times a power of 2, by the exponent.
    bits = total.view(np.int32)
    bits += shifted.view(np.int32) << np.int32(23)
    return total
