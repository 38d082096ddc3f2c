"""Resampling along one axis at a time, aware of nodata, without seams between windows.

Every target pixel is a fixed weighted sum of source pixels, added up in ascending
order, so that its value does not depend on the window it was computed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class AxisKernel:
    """Which source pixels make up a run of target pixels along one axis."""

    first: npt.NDArray[np.int64]
    """First source pixel of each target pixel, shape (targets,), ascending."""
    weights: npt.NDArray[np.float32]
    """Weight of source pixel `first + k`, shape (targets, support), each row sums to 1.

    Unused places are 0; `first + k` may pass the end of the axis there.
    """
    source_length: int
    """Source pixels along the whole axis."""

    @property
    def start(self) -> int:
        """First source pixel that the run needs."""
        return int(self.first[0])

    @property
    def stop(self) -> int:
        """One past the last source pixel that the run needs."""
        support = self.weights.shape[1]
        return min(int(self.first[-1]) + int(support), self.source_length)


def axis_kernel(start: int, stop: int, factor: float, source_length: int) -> AxisKernel:
    """Weigh the source pixels of the target pixels start..stop-1 of an axis.

    Args:
        start: First target pixel.
        stop: One past the last target pixel.
        factor: Target over source pixel edge, > 0. Above 1 a target pixel is the
            mean of the source pixels it covers, by the length covered; below 1 it is
            interpolated linearly between the two nearest source pixel centres.
        source_length: Source pixels along the axis, >= 1.
    """
    targets = np.arange(start, stop, dtype=np.float64)
    if factor >= 1:
        return _area_kernel(targets, factor, source_length)
    return _linear_kernel(targets, factor, source_length)


def _area_kernel(
    targets: npt.NDArray[np.float64], factor: float, source_length: int
) -> AxisKernel:
    """Weigh source pixels by the length that a target pixel shares with them."""
    low = np.minimum(targets * factor, source_length)[:, None]
    high = np.minimum((targets + 1) * factor, source_length)[:, None]
    first = np.minimum(np.floor(low), source_length - 1)
    pixels = first + np.arange(min(math.ceil(factor) + 1, source_length))
    shared = np.minimum(high, pixels + 1) - np.maximum(low, pixels)
    shared = np.clip(shared, 0, None)
    # Only the part inside the axis counts: the last target pixel may stick out.
    weights = shared / shared.sum(axis=1, keepdims=True)
    return AxisKernel(
        first[:, 0].astype(np.int64), weights.astype(np.float32), source_length
    )


def _linear_kernel(
    targets: npt.NDArray[np.float64], factor: float, source_length: int
) -> AxisKernel:
    """Weigh the two source pixels whose centres enclose the target pixel's centre."""
    centre = np.clip((targets + 0.5) * factor - 0.5, 0, source_length - 1)
    first = np.floor(centre)
    far = centre - first
    weights = np.stack([1 - far, far], axis=1)
    return AxisKernel(first.astype(np.int64), weights.astype(np.float32), source_length)


class WindowResampler:
    """Resamples one window from source rows that arrive strip by strip, top down.

    Holds sums for the target window only, so a strip can be let go after `add`.
    """

    def __init__(self, rows: AxisKernel, cols: AxisKernel, bands: int) -> None:
        """Start with empty sums.

        Args:
            rows: Kernel of the target rows.
            cols: Kernel of the target columns.
            bands: Number of bands.
        """
        self._rows = rows
        self._cols = cols
        shape = (len(rows.first), len(cols.first))
        self._sums = np.zeros((bands, *shape), np.float32)
        self._weight = np.zeros(shape, np.float32)

    def add(
        self, row: int, values: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_]
    ) -> None:
        """Add the next source rows; strips must come top down and without gaps.

        Args:
            row: Source row of the strip's first row.
            values: Source pixels, shape (bands, strip rows, columns), columns
                `cols.start` to `cols.stop`; hidden pixels hold finite numbers.
            valid: Shape (strip rows, columns).
        """
        weighted = self._across(np.where(valid, values, 0).astype(np.float32))
        weight = self._across(valid.astype(np.float32))
        first, support = self._rows.first, self._rows.weights.shape[1]
        for offset in range(values.shape[1]):
            source = row + offset
            # Target rows whose `first` lies in (source - support, source].
            begin = int(np.searchsorted(first, source - support, side="right"))
            end = int(np.searchsorted(first, source, side="right"))
            for target in range(begin, end):
                share = self._rows.weights[target, source - first[target]]
                if share > 0:
                    self._sums[:, target] += share * weighted[:, offset]
                    self._weight[target] += share * weight[offset]

    def result(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the means over valid pixels, and where they count.

        Returns:
            Values (bands, height, width), 0 where not valid, and valid (height, width):
            at least half of the weight fell on valid source pixels.
        """
        valid = self._weight >= 0.5 - 1e-4  # Exactly half must pass; sums are rounded.
        weight = np.where(valid, self._weight, 1)
        return np.where(valid, self._sums / weight, 0), valid

    def _across(self, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Apply the column kernel to the last axis."""
        cols = self._cols
        total = np.zeros((*array.shape[:-1], len(cols.first)), np.float32)
        for k in range(cols.weights.shape[1]):
            index = np.minimum(cols.first + k - cols.start, array.shape[-1] - 1)
            total += np.take(array, index, axis=-1) * cols.weights[:, k]
        return total
