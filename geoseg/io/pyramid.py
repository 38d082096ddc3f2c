"""Overviews of a raster that is read once, by rows: each level halves the one below.

Four pixels become one, by a rule that sees nothing but them, so that overviews do not
depend on how the raster was cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio.windows
from rasterio.io import DatasetWriter

from geoseg.io.scratch import BLOCK_ROWS, create_scratch

Rows = npt.NDArray[np.uint8]
Rule = Callable[[Rows, int], Rows]
"""Halves rows, shape (2 n, 2 m) to (n, m), given the value of pixels without data."""

_MEANS = np.array(
    [[(s + n // 2) // n if n else 0 for s in range(4 * 256)] for n in range(5)]
).astype(np.uint8)
"""Rounded mean of a sum of n numbers, by n and sum."""


def overview_shapes(shape: tuple[int, int], smallest: int) -> list[tuple[int, int]]:
    """Return height and width of each overview, until one fits a square.

    Args:
        shape: Height and width of the raster, pixels.
        smallest: Side of that square, pixels.
    """
    shapes = []
    height, width = shape
    while max(height, width) > smallest:
        height, width = -(-height // 2), -(-width // 2)
        shapes.append((height, width))
    return shapes


def write_overviews(
    rows: Iterable[Rows],
    files: Iterable[tuple[Path, tuple[int, int]]],
    *,
    halve: Rule,
    nodata: int,
    packed: bool,
) -> None:
    """Write all overviews of a raster while it is read; holds a few rows of each.

    Args:
        rows: The raster from top to bottom, in chunks of 2 `BLOCK_ROWS`, the last of
            which may have less.
        files: Path and shape of each overview, largest first; see `overview_shapes`.
        halve: Rule that makes one pixel of four.
        nodata: Value of pixels without data.
        packed: See `create_scratch`.
    """
    with ExitStack() as stack:
        for path, shape in files:
            scratch = create_scratch(path, shape, nodata, packed=packed)
            file = stack.enter_context(scratch)
            rows = _pairs(_written(_halved(rows, halve, nodata), file))
        for _ in rows:
            pass  # The last level pulls all others.


def halve_by_mode(rows: Rows, nodata: int) -> Rows:
    """Take the most frequent class of four; of equally frequent ones the first by rows.

    Nodata counts only where there is nothing else.
    """
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


def halve_by_mean(rows: Rows, nodata: int) -> Rows:
    """Take the mean of the pixels with data among four, rounded half up."""
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


def _halved(rows: Iterable[Rows], halve: Rule, nodata: int) -> Iterator[Rows]:
    """Halve chunks of rows; a square that sticks out has no data there."""
    for chunk in rows:
        height, width = chunk.shape
        if height % 2 or width % 2:
            margins = ((0, height % 2), (0, width % 2))
            chunk = np.pad(chunk, margins, constant_values=nodata)
        yield halve(chunk, nodata)


def _pairs(chunks: Iterator[Rows]) -> Iterator[Rows]:
    """Join chunks two by two; the last may be left alone."""
    for upper in chunks:
        lower = next(chunks, None)
        yield upper if lower is None else np.concatenate([upper, lower])


def _written(rows: Iterable[Rows], file: DatasetWriter) -> Iterator[Rows]:
    """Write rows to a file as they pass."""
    for row, chunk in zip(itertools.count(step=BLOCK_ROWS), rows, strict=False):
        place = rasterio.windows.Window(0, row, file.width, len(chunk))
        file.write(chunk, 1, window=place)
        yield chunk
