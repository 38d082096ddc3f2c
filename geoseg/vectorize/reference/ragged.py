"""Rows of unequal length in one flat array: `offsets[i]:offsets[i + 1]` is row i."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def offsets_of(sizes: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> IntArray:
    """Return the offsets, shape (n + 1,), of rows with these sizes, shape (n,)."""
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def flat_index(starts: IntArray, sizes: IntArray) -> IntArray:
    """Return `starts[i], starts[i] + 1, ...`, `sizes[i]` values for each row i."""
    offsets = offsets_of(sizes)
    index = np.arange(offsets[-1], dtype=np.int64)
    index += np.repeat(starts - offsets[:-1], sizes)
    return index


def take_rows(offsets: IntArray, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Select rows, in the order given.

    Returns:
        The index of their elements in the flat array, and the offsets of the selection.
    """
    starts = offsets[rows]
    sizes = offsets[rows + 1] - starts
    return flat_index(starts, sizes), offsets_of(sizes)
