"""Blended values of tiles, which blending itself never hands out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from geoseg.blending import reference
from geoseg.blending.placing import Tiles, place_tiles
from geoseg.grid import Window
from geoseg.tiling import TileGrid
from geoseg.types import BlendSpace, BlendWindow


def blend_rows(
    tiles: Tiles,
    grid: TileGrid,
    output: Window,
    *,
    window: BlendWindow = "hann",
    space: BlendSpace = "logits",
    block_rows: int | None = None,
) -> Iterator[tuple[Window, npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
    """Place tiles and blend them by blocks, as `geoseg.blending.reference` does.

    Yields each block's window, its values (K, rows, columns), and which are covered.
    """
    placement = place_tiles(tiles, grid, output, window=window, space=space)
    blocks = reference.blend_rows(placement, space, block_rows=block_rows)
    return (
        (block, reference.divide(totals, weight_sum), weight_sum > 0)
        for block, totals, weight_sum in blocks
    )


def classify(
    values: npt.NDArray[np.float32], space: BlendSpace
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Class index and confidence of values (K, height, width)."""
    return reference.classify(values, np.ones(values.shape[1:], np.float32), space)
