"""Rules by which overviews make one pixel of four, in the native library and NumPy."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg._plain_c import open_library

Rows = npt.NDArray[np.uint8]
"""Pixels, shape (height, width), both even."""

_HALVE: list[Any] = [
    *(ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint8, ctypes.c_void_p)
]
_ARGUMENTS: dict[str, list[Any]] = {
    "geoseg_halve_by_mode": _HALVE,
    "geoseg_halve_by_mean": _HALVE,
}

_MEANS = np.array(
    [[(s + n // 2) // n if n else 0 for s in range(4 * 256)] for n in range(5)]
).astype(np.uint8)
"""Rounded mean of a sum of n numbers, by n and sum."""


def halve_by_mode(rows: Rows, nodata: int) -> Rows:
    """Take the most frequent class of four; of equally frequent ones the first by rows.

    Nodata counts only where there is nothing else.
    """
    if _library() is None:
        return _by_mode_with_numpy(rows, nodata)
    return _halve("geoseg_halve_by_mode", rows, nodata)


def halve_by_mean(rows: Rows, nodata: int) -> Rows:
    """Take the mean of the pixels with data among four, rounded half up."""
    if _library() is None:
        return _by_mean_with_numpy(rows, nodata)
    return _halve("geoseg_halve_by_mean", rows, nodata)


@cache
def _library() -> ctypes.CDLL | None:
    return open_library(_ARGUMENTS)


def _halve(function: str, rows: Rows, nodata: int) -> Rows:
    """Call the library; it reads and writes rows without gaps."""
    rows = np.ascontiguousarray(rows)
    height, width = rows.shape
    halved = np.empty((height // 2, width // 2), np.uint8)
    getattr(_library(), function)(
        rows.ctypes.data, height, width, nodata, halved.ctypes.data
    )
    return halved


def _by_mode_with_numpy(rows: Rows, nodata: int) -> Rows:
    nw, ne, sw, se = _quarters(rows)
    with_ne, with_sw, with_se = nw == ne, nw == sw, nw == se
    settled = with_ne | with_sw | with_se
    hidden = nw == nodata
    if hidden.any():
        settled &= ~hidden | (with_ne & with_sw & with_se)
    # Few are left on a map: the slow way costs little.
    left = np.flatnonzero(~settled)
    if len(left):
        corners = (corner.flat[left] for corner in (nw, ne, sw, se))
        nw.flat[left] = _mode(*corners, nodata=nodata)
    return nw


def _by_mean_with_numpy(rows: Rows, nodata: int) -> Rows:
    quarters = _quarters(rows)
    total = np.full(quarters[0].shape, 2, np.uint16)
    for quarter in quarters:
        total += quarter
    halved = (total >> 2).astype(np.uint8)
    hidden = [quarter == nodata for quarter in quarters]
    rim = np.flatnonzero(hidden[0] | hidden[1] | hidden[2] | hidden[3])
    if len(rim):
        count = 4 - sum(h.flat[rim].astype(np.int64) for h in hidden)
        mean = _MEANS[count, total.flat[rim] - 2 - (4 - count) * nodata]
        halved.flat[rim] = np.where(count > 0, mean, nodata)
    return halved


def _mode(nw: Rows, ne: Rows, sw: Rows, se: Rows, *, nodata: int) -> Rows:
    """Choose where the first pixel has no data, or no other pixel is like it."""
    first = np.where(ne != nodata, ne, np.where(sw != nodata, sw, se))
    first = np.where(nw != nodata, nw, first)
    # A pair wins; two pairs at most, and then the first pixel was in one.
    pair = np.where((sw == se) & (sw != nodata), sw, first)
    return np.where(((ne == sw) | (ne == se)) & (ne != nodata), ne, pair)


def _quarters(rows: Rows) -> tuple[Rows, Rows, Rows, Rows]:
    """Return the pixels of each 2 x 2 square by their corner: nw, ne, sw, se."""
    height, width = rows.shape
    # Two pixels as one number: a strided copy of bytes takes four times as long.
    pairs = np.ascontiguousarray(rows).view("<u2").reshape(height, width // 2)
    left, right = (pairs & 255).astype(np.uint8), (pairs >> 8).astype(np.uint8)
    return left[::2], right[::2], left[1::2], right[1::2]
