"""Scores of all classes of a part, blended and written by blocks of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import rasterio.windows

from geoseg.grid import Window
from geoseg.io.gdal import gdal_env, write_errors
from geoseg.io.scratch import BLOCK_ROWS, check_rows, create_scratch
from geoseg.types import NODATA

_MOST_BYTES = 64 << 20
"""Of scores in memory."""

Pixels = npt.NDArray[np.uint8]


class Blend(Protocol):
    """`geoseg.blending.blend_classes` of a part's tiles."""

    def __call__(
        self,
        output: Window,
        *,
        keep: npt.NDArray[np.bool_],
        scores_out: Pixels | None = None,
    ) -> tuple[Pixels, Pixels | None]:
        """Return class mask and confidence, and fill in scores."""
        ...


def blend_with_scores(
    blend: Blend,
    output: Window,
    keep: npt.NDArray[np.bool_],
    num_classes: int,
    path: Path,
) -> tuple[Pixels, Pixels | None]:
    """Blend a part and write the scores of its classes.

    Args:
        blend: Blends a window; any cut into windows gives the same bytes.
        output: Pixels of the part.
        keep: Which of them are wanted, shape (height, width).
        num_classes: K.
        path: Scratch raster to make, a band a class.

    Returns:
        What `blend` returns for the part.
    """
    mask = np.full(keep.shape, NODATA, np.uint8)
    confidence = np.full(keep.shape, NODATA, np.uint8)
    rated = True
    height, width = keep.shape
    with (
        gdal_env(),
        write_errors(path),
        # Most classes are near 0 in most places.
        create_scratch(
            path, (height, width), NODATA, packed=True, count=num_classes
        ) as raster,
    ):
        for block in _blocks(output, num_classes):
            place = block.relative_to(output)
            scores = np.empty((num_classes, block.height, block.width), np.uint8)
            own, percent = blend(block, keep=keep[place.slices], scores_out=scores)
            mask[place.slices] = own
            rated = percent is not None
            if percent is not None:
                confidence[place.slices] = percent
            rows = rasterio.windows.Window(0, place.row, width, place.height)
            raster.write(scores, window=rows)
    check_rows(path, rows, scores[-1], path)
    return mask, confidence if rated else None


def _blocks(output: Window, num_classes: int) -> list[Window]:
    rows = max(1, _MOST_BYTES // (num_classes * output.width))
    if rows > BLOCK_ROWS:  # Blocks of the file that are cut are encoded again.
        rows -= rows % BLOCK_ROWS
    return [
        Window(row, output.col, min(rows, output.row_stop - row), output.width)
        for row in range(output.row, output.row_stop, rows)
    ]
