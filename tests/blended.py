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
    """Place tiles and blend them by blocks, as `geoseg.blending.reference` does."""
    placement = place_tiles(tiles, grid, output, window=window, space=space)
    return reference.blend_rows(placement, space, block_rows=block_rows)
