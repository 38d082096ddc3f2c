"""Blended classes, confidence and scores are those of the formula, in float64."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from blended_tiles import SPACES, WINDOWS, blend, draw_tiles

from geoseg.blending import native
from geoseg.blending.placing import Tiles
from geoseg.tiling import TileGrid
from geoseg.types import BlendSpace, BlendWindow

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="native operators are absent"
)


def exact_weights(
    origins: tuple[int, ...], tile_size: int, window: BlendWindow, pixel: int
) -> list[float]:
    """Weight of each tile at a pixel along an axis, from the definition."""
    inside = [origin <= pixel < origin + tile_size for origin in origins]
    if window == "none":
        distance = [abs(origin + tile_size / 2 - pixel - 0.5) for origin in origins]
        nearest = distance.index(min(distance))
        return [float(number == nearest) for number in range(len(origins))]
    places = [(pixel - origin + 0.5) / tile_size for origin in origins]
    if window == "hann":
        profile = [float(np.sin(np.pi * place) ** 2) for place in places]
    else:
        profile = [1 - abs(2 * place - 1) for place in places]
    return [value * within for value, within in zip(profile, inside, strict=True)]


def exact_value(
    tile: npt.NDArray[np.float64], factor: int, row: int, col: int
) -> npt.NDArray[np.float64]:
    """Bilinear interpolation of a tile (K, h, h) at one of its pixels, shape (K,)."""
    size = tile.shape[1]
    y, x = (
        min(max((pixel + 0.5) / factor - 0.5, 0), size - 1.0) for pixel in (row, col)
    )
    top, left = min(int(y), size - 2), min(int(x), size - 2)
    f, g = y - top, x - left
    corners = tile[:, top : top + 2, left : left + 2]
    shares = np.outer([1 - f, f], [1 - g, g])
    return np.asarray((corners * shares).sum(axis=(1, 2)))


def exact_blend(
    tiles: Tiles, grid: TileGrid, factor: int, window: BlendWindow, space: BlendSpace
) -> npt.NDArray[np.float64]:
    """Blended values of the whole scene in float64, pixel by pixel, (K, height, width).

    Softmax of them for logits, normalised for probabilities.
    """
    wide = {place: tile.astype(np.float64) for place, tile in tiles.items()}
    values = np.zeros((len(wide[0, 0]), grid.height, grid.width))
    size = grid.tile_size
    for row, col in itertools.product(range(grid.height), range(grid.width)):
        row_weights = exact_weights(grid.rows, size, window, row)
        col_weights = exact_weights(grid.cols, size, window, col)
        total, weight_sum = np.zeros(len(values)), 0.0
        for (i, j), tile in wide.items():
            weight = row_weights[i] * col_weights[j]
            if not weight:
                continue
            own = exact_value(tile, factor, row - grid.rows[i], col - grid.cols[j])
            if space == "probabilities":
                own = np.exp(own) / np.exp(own).sum()
            total += weight * own
            weight_sum += weight
        values[:, row, col] = total / weight_sum
    return values


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("factor", "size"), [(4, 6), (1, 20), (3, 8)])
def test_classes_and_confidence_are_those_of_the_formula(
    factor: int, size: int, window: BlendWindow, space: BlendSpace
) -> None:
    tile_size = factor * size
    grid = TileGrid(2 * tile_size - 3, 2 * tile_size + 5, tile_size, tile_size - 7)
    tiles = draw_tiles(grid, size, 5)
    values = exact_blend(tiles, grid, factor, window, space)
    mask, confidence = blend(tiles, grid, window=window, space=space)
    ranked = np.sort(values, axis=0)
    apart = ranked[-1] - ranked[-2] > 1e-4
    assert apart.mean() > 0.98
    np.testing.assert_array_equal(mask[apart], 253 - values.argmax(axis=0)[apart])
    shares = (
        np.exp(values) / np.exp(values).sum(axis=0) if space == "logits" else values
    )
    assert (np.abs(confidence - 100 * shares.max(axis=0)) <= 0.5 + 1e-3).all()


@pytest.mark.parametrize("space", SPACES)
def test_scores_are_those_of_the_formula(space: BlendSpace) -> None:
    grid = TileGrid(45, 53, 24, 17)
    tiles = draw_tiles(grid, 6, 5)
    values = exact_blend(tiles, grid, 4, "hann", space)
    if space == "logits":
        values = np.exp(values) / np.exp(values).sum(axis=0)
    scores = np.empty(values.shape, np.uint8)
    blend(tiles, grid, space=space, scores=scores)
    assert (np.abs(scores - 100 * values) <= 0.5 + 1e-3).all()
