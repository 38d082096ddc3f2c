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
import rasterio.windows
from rasterio.io import DatasetWriter

from geoseg.io.halving import Rows
from geoseg.io.scratch import BLOCK_ROWS, create_scratch

Rule = Callable[[Rows, int], Rows]
"""Halves rows, shape (2 n, 2 m) to (n, m), given the value of pixels without data."""


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
