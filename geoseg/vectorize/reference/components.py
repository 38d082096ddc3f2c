"""4-connected components of a class mask, found through horizontal runs of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csgraph, csr_array

from geoseg.vectorize.reference.ragged import IntArray, offsets_of


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """The components of a class mask, nodata ones included."""

    run_ids: npt.NDArray[np.int32]
    """Horizontal run of equal class that each pixel is in, shape (height, width)."""
    run_labels: npt.NDArray[np.int32]
    """Component of each run, shape (runs,)."""
    class_id: npt.NDArray[np.uint8]
    """Class of each component, shape (n,)."""
    pixels: IntArray
    """Pixels in each component, shape (n,)."""
    confidence_sum: IntArray
    """Sum of the pixels' confidence, percent, shape (n,)."""

    def at(self, row: IntArray, col: IntArray) -> npt.NDArray[np.int32]:
        """Return the components of the pixels at (row, col), both of shape (k,)."""
        return self.run_labels[self.run_ids[row, col]]


def label_components(
    class_mask: npt.NDArray[np.uint8], confidence: npt.NDArray[np.uint8] | None
) -> Components:
    """Find the 4-connected components of equal class.

    Args:
        class_mask: Class of each pixel, shape (height, width), not empty.
        confidence: Percent of each pixel, same shape; None counts as 0.
    """
    starts = np.ones(class_mask.shape, np.bool_)
    np.not_equal(class_mask[:, 1:], class_mask[:, :-1], out=starts[:, 1:])
    run_ids = np.cumsum(starts, dtype=np.int32).reshape(class_mask.shape)
    run_ids -= 1
    first = np.flatnonzero(starts)
    run_labels = _join_runs(class_mask, starts, run_ids, len(first))

    count = int(run_labels.max()) + 1
    class_id = np.empty(count, np.uint8)
    class_id[run_labels] = class_mask.ravel()[first]
    pixels = np.zeros(count, np.int64)
    np.add.at(pixels, run_labels, np.diff(first, append=class_mask.size))
    confidence_sum = np.zeros(count, np.int64)
    if confidence is not None:
        sums = np.add.reduceat(confidence.ravel(), first, dtype=np.int64)
        np.add.at(confidence_sum, run_labels, sums)
    return Components(run_ids, run_labels, class_id, pixels, confidence_sum)


def group(
    first: npt.NDArray[np.integer], second: npt.NDArray[np.integer], count: int
) -> npt.NDArray[np.int32]:
    """Label the groups that links between `first` and `second` make of 0..count-1.

    Args:
        first: One end of each link, shape (k,), ascending.
        second: Its other end, shape (k,).
        count: Number of things that are linked.

    Returns:
        The group of each thing, shape (count,).
    """
    if not count:
        return np.zeros(0, np.int32)
    offsets = offsets_of(np.bincount(first, minlength=count))
    # float64: what csgraph computes in, so that it makes no copy
    graph = csr_array((np.ones(len(first)), second, offsets), shape=(count, count))
    labels: npt.NDArray[np.int32] = csgraph.connected_components(graph, directed=False)[
        1
    ]
    return labels


def _join_runs(
    class_mask: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.bool_],
    run_ids: npt.NDArray[np.int32],
    count: int,
) -> npt.NDArray[np.int32]:
    """Return the component of each run, shape (count,)."""
    touches = class_mask[1:] == class_mask[:-1]
    # the first pixel of an overlap starts one of its two runs: one link per overlap
    touches &= starts[1:] | starts[:-1]
    upper = np.flatnonzero(touches)
    ids = run_ids.ravel()
    return group(ids[upper + class_mask.shape[1]], ids[upper], count)
