"""Resampling along one axis at a time, aware of nodata, without seams between windows.

Every target pixel is a fixed weighted sum of source pixels, added up in ascending
order, so that its value does not depend on the window it was computed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

_ROUNDING = 1e-6
"""Part of a pixel that rounding may move a grid by."""


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


def below_centres(
    places: npt.NDArray[np.int64], step: float, limit: int, offset: float = 0.0
) -> npt.NDArray[np.int64]:
    """Return the row or column of one grid at the centres of another's.

    Args:
        places: Rows or columns of the other grid.
        step: How many of the first are one of these.
        limit: How many there are of the first.
        offset: Where the other grid begins, in rows or columns of the first.
    """
    centres = offset + step * (places + 0.5)
    found: npt.NDArray[np.int64] = np.floor(centres + _ROUNDING).astype(np.int64)
    return found.clip(0, limit - 1)


class WindowResampler:
    """Resamples one window from source rows that arrive strip by strip, top down.

    Rows are added up first, at the source's width; a target row that is complete is
    then resampled along itself. Only target rows that are begun are held at that width,
    so a strip can be let go after `add`.
    """

    def __init__(self, rows: AxisKernel, cols: AxisKernel, bands: int) -> None:
        """Start with empty sums.

        Args:
            rows: Kernel of the target rows.
            cols: Kernel of the target columns.
            bands: Number of bands.
        """
        self._rows = rows
        self._across = _Across(cols)
        shape = (len(rows.first), len(cols.first))
        self._values = np.zeros((bands, *shape), np.float32)
        self._valid = np.zeros(shape, np.bool_)
        self._begun: dict[int, _TargetRow] = {}

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
        first, weights = self._rows.first, self._rows.weights
        support = weights.shape[1]
        stop = row + len(valid)
        whole = [bool(line.all()) for line in valid]
        # Target rows that reach into the strip.
        begin = int(np.searchsorted(first, row - support, side="right"))
        end = int(np.searchsorted(first, stop - 1, side="right"))
        for target in range(begin, end):
            low = int(first[target])
            sums = self._begun.setdefault(target, _TargetRow(values[:, 0].shape))
            for source in range(max(low, row), min(low + support, stop)):
                share = weights[target, source - low]
                if share > 0:
                    place = source - row
                    mask = None if whole[place] else valid[place]
                    sums.add(share, values[:, place], mask)
            if min(low + support, self._rows.stop) <= stop:
                self._complete(target, self._begun.pop(target))

    def result(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the means over valid pixels, and where they count.

        Returns:
            Values (bands, height, width), 0 where not valid, and valid (height, width):
            at least half of the weight fell on valid source pixels.
        """
        assert not self._begun, "strips end with the last row that the kernel needs"
        return self._values, self._valid

    def _complete(self, target: int, sums: _TargetRow) -> None:
        """Resample a row of sums along itself."""
        weight = self._across(sums.weight)
        valid = np.asarray(
            weight >= 0.5 - 1e-4
        )  # Exactly half must pass; sums are rounded.
        self._valid[target] = valid
        hidden = np.flatnonzero(~valid)
        for mean, band in zip(self._values[:, target], sums.values, strict=True):
            # Where nothing is valid, the sum is 0, too.
            np.divide(self._across(band), np.maximum(weight, 1e-4), out=mean)
            mean[hidden] = 0


class _TargetRow:
    """Sums of source rows, as wide as they are."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = np.zeros(shape, np.float32)
        self.weight = np.zeros(shape[-1], np.float32)
        self._share = np.empty(shape, np.float32)

    def add(
        self,
        share: np.float32,
        values: npt.NDArray[np.generic],
        valid: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Add a share of one source row, (bands, columns); None if all is valid."""
        if valid is None:
            self.weight += share
        else:
            values = np.where(valid, values, 0)
            self.weight += share * valid
        np.multiply(values, share, out=self._share, dtype=np.float32, casting="unsafe")
        self.values += self._share


class _Across:
    """Applies a kernel of columns to the last axis of rows."""

    def __init__(self, cols: AxisKernel) -> None:
        targets, support = cols.weights.shape
        source = cols.first[:, None] + np.arange(support) - cols.start
        target = np.broadcast_to(np.arange(targets)[:, None], source.shape)
        used = cols.weights > 0
        # SciPy adds in the order of columns, whatever else is in the matrix.
        self._matrix = csr_array(
            (cols.weights[used], (target[used], source[used])),
            shape=(targets, cols.stop - cols.start),
        )

    def __call__(self, row: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return (targets,) of (columns,)."""
        result: npt.NDArray[np.float32] = self._matrix @ row
        return result


def block_strips(
    start: int, stop: int, block: int, most: int
) -> Iterator[tuple[int, int]]:
    """Cut rows into strips that end with a file's rows of blocks.

    Ends between blocks would decode a row of blocks twice.

    Args:
        start: First row.
        stop: One past the last row.
        block: Rows of a block.
        most: Most rows of a strip; where a block has more, blocks are cut.

    Yields:
        First row and height of each.
    """
    most = max(1, most)
    step = most // block * block or most
    row = start
    while row < stop:
        end = min(stop, (row // step + 1) * step)
        yield row, end - row
        row = end
