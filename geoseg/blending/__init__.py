"""Average overlapping tiles of logits onto the scene: class and confidence by pixel.

A pixel's values are sum(w * logits) / sum(w) over the tiles that hold it, each of them
upsampled in its own phase. What comes out is the same to the byte for any bands, any
instruction set, and with or without the native library.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geoseg.blending import native, reference
from geoseg.blending.placing import Tiles, place_tiles
from geoseg.errors import BlendingError
from geoseg.grid import Window
from geoseg.tiling import TileGrid
from geoseg.types import NODATA, BlendSpace, BlendWindow

__all__ = ["blend_classes"]


def blend_classes(
    tiles: Tiles,
    grid: TileGrid,
    output: Window,
    *,
    keep: npt.NDArray[np.bool_],
    ids: npt.NDArray[np.uint8],
    window: BlendWindow = "hann",
    space: BlendSpace = "logits",
    confidence: bool = True,
    scores_out: npt.NDArray[np.uint8] | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Blend tiles, and pick each pixel's class.

    Args:
        tiles: Logits of tile (i, j) of `grid`, shape (K, h, h), float16 or float32,
            where `grid.tile_size` is a whole multiple of h. All tiles that touch
            `output` belong here; one that is left out counts as empty of data. Others
            are ignored.
        grid: Where the tiles lie.
        output: Pixels wanted, inside `grid.output`.
        keep: Which of them are wanted, shape (height, width); each lies in a tile.
        ids: What stands for each class in the mask, shape (K,), 0..254.
        window: Weight of a pixel within its tile.
        space: What to average: logits, or the softmax of each tile's own.
        confidence: Whether to work out the confidence, which takes most of the time.
        scores_out: Filled with the percent of each class, the confidence that it would
            have, shape (K, height, width), C order; 255 where nothing is wanted.

    Returns:
        Class mask, shape (height, width), uint8, and the confidence, the same in
        percent 0..100, or None: the largest softmax of the blended logits, or the
        largest blended probability over their sum. Both are 255 where nothing is
        wanted.

    Raises:
        BlendingError: Shapes do not fit, a tile's logits are NaN or infinite, or there
            are not as many classes as ids.
        OperatorError: GEOSEG_OPS or GEOSEG_CPU ask for what is not there.
    """
    placement = place_tiles(tiles, grid, output, window=window, space=space)
    mask = np.full(keep.shape, NODATA, np.uint8)
    percent = np.full(keep.shape, NODATA, np.uint8) if confidence else None
    if not keep.any():
        if scores_out is not None:
            scores_out[:] = NODATA
        return mask, percent
    if placement.num_classes != len(ids):
        raise BlendingError(
            f"the model gives logits of {placement.num_classes} classes and names "
            f"{len(ids)}; correct the class table in its config.json"
        )
    if len(ids) > NODATA:
        raise BlendingError(
            f"{len(ids)} classes do not fit a class mask of 8 bits; merge them into at "
            f"most {NODATA}"
        )
    library = native.library()
    if library is None:
        covers = reference.blend_classes(
            placement, space, keep, ids, mask, percent, scores_out
        )
    else:
        covers = native.blend_classes(
            library, placement, space, keep, ids, mask, percent, scores_out
        )
    assert covers, "every wanted pixel lies in a tile"
    return mask, percent
