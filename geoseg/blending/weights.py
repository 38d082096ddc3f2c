"""How much a tile's pixels weigh, by their place along an axis."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from geoseg.types import BlendWindow

Float32Array = npt.NDArray[np.float32]


def axis_weights(
    origins: Sequence[int], length: int, tile_size: int, kind: BlendWindow
) -> list[Float32Array]:
    """Weigh the pixels of each tile along one axis.

    Args:
        origins: First pixel of each tile, ascending.
        length: Pixels along the axis; a tile that reaches further is padded there.
        tile_size: Pixels of a tile.
        kind: `hann` and `linear` are above 0 up to the tile's outermost pixels, for
            they are taken at pixel centres; `none` is 1 where this tile's centre is
            the nearest of all, the earlier tile on a tie, and 0 elsewhere.

    Returns:
        One array per tile, shape (tile_size,), float32, 0..1, read-only. Padding
        weighs 0.
    """
    if kind == "none":
        weights = _nearest_weights(origins, tile_size)
    else:
        centres = (np.arange(tile_size) + 0.5) / tile_size
        hann = kind == "hann"
        profile = np.sin(np.pi * centres) ** 2 if hann else 1 - abs(2 * centres - 1)
        weights = [profile.astype(np.float32)] * len(origins)
    if origins[-1] + tile_size > length:  # a single tile, larger than the scene
        weights = [weights[0].copy()]
        weights[0][length:] = 0
    for tile_weights in weights:
        tile_weights.setflags(write=False)  # tiles share one array
    return weights


def _nearest_weights(origins: Sequence[int], tile_size: int) -> list[Float32Array]:
    # Pixel p belongs to the earlier of two tiles where 2p + 1 <= origin + next origin
    # + tile size: in integers, so ties are exact.
    cuts = [
        (origin + following + tile_size + 1) // 2
        for origin, following in itertools.pairwise(origins)
    ]
    starts = [origins[0], *cuts]
    stops = [*cuts, origins[-1] + tile_size]
    weights = []
    for origin, start, stop in zip(origins, starts, stops, strict=True):
        tile_weights = np.zeros(tile_size, np.float32)
        tile_weights[max(0, start - origin) : max(0, stop - origin)] = 1
        weights.append(tile_weights)
    return weights
