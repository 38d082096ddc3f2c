"""Which tiles touch the output, and what of their logits each pixel gets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg.blending.weights import Float32Array, axis_weights
from geoseg.errors import BlendingError
from geoseg.grid import Window
from geoseg.tiling import TileGrid
from geoseg.types import BlendSpace, BlendWindow

LogitsArray = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Tiles = Mapping[tuple[int, int], LogitsArray]


@dataclass(frozen=True, slots=True)
class PlacedAxis:
    """The tiles that touch the output along one axis, n of them.

    A tile of `tile_size` pixels has `size` source pixels. A pixel is interpolated
    between two neighbours of these, or has one of them, at the tile's edge, twice.
    """

    numbers: tuple[int, ...]
    """Number of each tile in the grid, ascending."""
    origins: npt.NDArray[np.int32]
    """First pixel of each tile, pixels of the scene, shape (n,)."""
    starts: npt.NDArray[np.int32]
    """First pixel in the output that it has weight for, shape (n,)."""
    stops: npt.NDArray[np.int32]
    """First pixel past those, shape (n,)."""
    low_shares: Float32Array
    """What the source pixel nearer to 0 contributes, shape (n, tile_size)."""
    high_shares: Float32Array
    """What the next one contributes, shape (n, tile_size)."""
    weights: Float32Array
    """Weight of each pixel, shape (n, tile_size)."""


@dataclass(frozen=True, slots=True)
class Placement:
    """All tiles that touch the output."""

    output: Window
    """Pixels of the scene."""
    num_classes: int
    """K; 0 if there is no tile at all."""
    size: int
    """Source pixels along a tile's side, h."""
    tile_size: int
    """Pixels along a tile's side."""
    rows: PlacedAxis
    """Rows of tiles."""
    cols: PlacedAxis
    """Columns of tiles."""
    sources: npt.NDArray[np.int32]
    """Source pixel nearer to 0 of each pixel of a tile, shape (tile_size,)."""
    dtype: np.dtype[Any]
    """Of the logits."""
    tiles: tuple[tuple[LogitsArray | None, ...], ...]
    """Logits (K, h, h), contiguous, by row and column of tiles; None: left out."""


def place_tiles(
    tiles: Tiles,
    grid: TileGrid,
    output: Window,
    *,
    window: BlendWindow,
    space: BlendSpace,
) -> Placement:
    """Find the tiles that touch the output, and tabulate shares and weights.

    Raises:
        BlendingError: The output is not tiled, or shapes do not fit.
    """
    if not grid.output.contains(output):
        raise BlendingError(f"{output} is not tiled; ask for pixels in {grid.output}")
    num_classes, size = _check_shapes(tiles, grid)
    weighted = space == "logits"
    sources, shares = _interpolate(size, grid.tile_size)
    axes = [
        _place_axis(
            axis_weights(origins, length, grid.tile_size, window),
            origins,
            (start, stop),
            shares,
            weighted=weighted,
        )
        for origins, length, start, stop in (
            (grid.rows, grid.height, output.row, output.row_stop),
            (grid.cols, grid.width, output.col, output.col_stop),
        )
    ]
    rows, cols = axes
    wide = any(logits.dtype == np.float32 for logits in tiles.values())
    dtype = np.dtype(np.float32 if wide else np.float16)
    placed = {
        (i, j): np.ascontiguousarray(tiles[i, j], dtype)
        for i, j in itertools.product(rows.numbers, cols.numbers)
        if (i, j) in tiles
    }
    return Placement(
        output=output,
        num_classes=num_classes,
        size=size,
        tile_size=grid.tile_size,
        rows=rows,
        cols=cols,
        sources=sources,
        dtype=dtype,
        tiles=tuple(
            tuple(placed.get((i, j)) for j in cols.numbers) for i in rows.numbers
        ),
    )


def _check_shapes(tiles: Tiles, grid: TileGrid) -> tuple[int, int]:
    """Check that the tiles' shapes suit the grid and each other; return K and h."""
    shapes: set[tuple[int, ...]] = set()
    for (i, j), logits in tiles.items():
        if i not in range(len(grid.rows)) or j not in range(len(grid.cols)):
            raise BlendingError(
                f"there is no tile ({i}, {j}) in {len(grid.rows)} x {len(grid.cols)} "
                "tiles; number tiles by row and column of that grid"
            )
        known = logits.dtype in (np.float16, np.float32)
        fits = logits.ndim == 3 and 0 not in logits.shape
        fits = fits and logits.shape[1] == logits.shape[2]
        if not (known and fits and grid.tile_size % logits.shape[2] == 0):
            raise BlendingError(
                f"logits of tile ({i}, {j}) are {logits.dtype} of shape "
                f"{logits.shape}; give float16 or float32 of (classes, side, side), "
                f"with a side that divides the tile size {grid.tile_size}"
            )
        shapes.add(logits.shape)
    if len(shapes) > 1:
        raise BlendingError(
            f"tiles have logits of different shapes, {sorted(shapes)}; blend tiles of "
            "one model and one stride only"
        )
    shape = shapes.pop() if shapes else (0, grid.tile_size, grid.tile_size)
    return shape[0], shape[1]


def _interpolate(
    size: int, tile_size: int
) -> tuple[npt.NDArray[np.int32], Float32Array]:
    """Return the lower source pixel of each pixel, and the share of the next one.

    As `torch.nn.functional.interpolate` with `align_corners=False`.
    """
    factor = tile_size // size
    position = np.maximum((np.arange(tile_size) + 0.5) / factor - 0.5, 0)
    sources = np.minimum(position.astype(np.int32), size - 1)
    return sources, (position - sources).astype(np.float32)


def _place_axis(
    weights: Sequence[Float32Array],
    origins: Sequence[int],
    wanted: tuple[int, int],
    shares: Float32Array,
    *,
    weighted: bool,
) -> PlacedAxis:
    reaches = [
        _reach(own, origin, wanted)
        for own, origin in zip(weights, origins, strict=True)
    ]
    touching = [number for number, (start, stop) in enumerate(reaches) if start < stop]
    table = np.array([weights[number] for number in touching], np.float32)
    table = table.reshape(len(touching), len(shares))  # An empty output has no tiles.
    factors = table if weighted else np.ones_like(table)
    return PlacedAxis(
        numbers=tuple(touching),
        origins=np.array([origins[number] for number in touching], np.int32),
        starts=np.array([reaches[number][0] for number in touching], np.int32),
        stops=np.array([reaches[number][1] for number in touching], np.int32),
        low_shares=(np.float32(1) - shares) * factors,
        high_shares=shares * factors,
        weights=table,
    )


def _reach(
    weights: Float32Array, origin: int, wanted: tuple[int, int]
) -> tuple[int, int]:
    """First pixel of those wanted that has weight, and the first one past them."""
    inside = np.flatnonzero(weights)
    if not len(inside):
        return 0, 0
    start, stop = origin + int(inside[0]), origin + int(inside[-1]) + 1
    return max(start, wanted[0]), min(stop, wanted[1])


def check_finite(
    placement: Placement, all_finite: Callable[[LogitsArray], bool]
) -> None:
    """Refuse tiles with logits that are no numbers.

    Args:
        placement: The tiles.
        all_finite: Whether no number of an array is NaN or infinite.

    Raises:
        BlendingError: Names the first such tile.
    """
    rows, cols = placement.rows, placement.cols
    for i, row, own in zip(rows.numbers, rows.origins, placement.tiles, strict=True):
        for j, col, logits in zip(cols.numbers, cols.origins, own, strict=True):
            if logits is not None and not all_finite(logits):
                raise BlendingError(
                    f"logits of tile ({i}, {j}) at row {row}, column {col} hold NaN or "
                    "infinity; check the model's weights, or predict in float32"
                )
