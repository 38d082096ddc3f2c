"""Average overlapping tiles of logits onto the scene, a block of rows at a time.

Every pixel sees the same float32 operations in the same order (tiles by row, then by
column), however the scene is cut into bands and blocks. That is why this module has
elementwise operations only: sums over an axis, dot products and einsum round
differently when shapes differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.errors import BlendingError
from geoseg.grid import Window
from geoseg.tiling import TileGrid
from geoseg.types import NODATA, BlendSpace, BlendWindow

Float32Array = npt.NDArray[np.float32]
LogitsArray = npt.NDArray[np.float16] | npt.NDArray[np.float32]

_BLOCK_VALUES = 1 << 24  # float32 values of a block: 64 MB
_CHUNK_PIXELS = 1 << 16  # classified at a time: their float32 planes stay in L2


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


def blend_rows(
    tiles: Mapping[tuple[int, int], LogitsArray],
    grid: TileGrid,
    output: Window,
    *,
    window: BlendWindow = "hann",
    space: BlendSpace = "logits",
    block_rows: int | None = None,
) -> Iterator[tuple[Window, Float32Array, npt.NDArray[np.bool_]]]:
    """Upsample tiles and average them by weight, a block of rows after another.

    A pixel's value is sum(w * logits) / sum(w) over the tiles that hold it, w being the
    product of its row's and its column's weight. Each tile is upsampled bilinearly in
    its own phase (as `torch.nn.functional.interpolate` with `align_corners=False`).

    Args:
        tiles: Logits of tile (i, j) of `grid`, shape (K, h, h), float16 or float32,
            where `grid.tile_size` is a whole multiple of h. All tiles that touch
            `output` belong here; one that is left out counts as empty of data. Others
            are ignored.
        grid: Where the tiles lie.
        output: Pixels wanted, inside `grid.output`; nothing comes of an empty one.
        window: Weight of a pixel within its tile.
        space: What to average: logits, or the softmax of each tile's own.
        block_rows: Rows at a time, of any the same bytes; None: up to 64, and 64 MB.

    Returns:
        Iterator over blocks from top to bottom: the block's window, its blended values
        (K, rows, columns) float32, and (rows, columns) bool, False (and values 0) where
        no tile lies. K is 0 if `tiles` is empty.

    Raises:
        BlendingError: Shapes do not fit, or a tile's logits are NaN or infinite.
    """
    if block_rows is not None and block_rows < 1:
        raise BlendingError(f"{block_rows} rows are no block; give 1 or more")
    if output.height == 0 or output.width == 0:
        return iter(())
    if not grid.output.contains(output):
        raise BlendingError(f"{output} is not tiled; ask for pixels in {grid.output}")
    num_classes = _check_shapes(tiles, grid)
    placed = _place_tiles(tiles, grid, output, window)
    fitting = _BLOCK_VALUES // (max(1, num_classes) * output.width)
    rows = block_rows or min(64, max(1, fitting))
    return _blend_blocks(placed, output, num_classes, space, rows)


@dataclass(frozen=True, slots=True)
class _PlacedTile:
    """A tile's logits, where they count, and by how much."""

    logits: LogitsArray
    """Shape (K, h, h)."""
    window: Window
    """The tile, pixels of the scene."""
    reach: Window
    """The part of it with weight above 0, pixels of the scene."""
    row_weights: Float32Array
    """Shape (tile_size,)."""
    col_weights: Float32Array
    """Shape (tile_size,)."""


def _check_shapes(tiles: Mapping[tuple[int, int], LogitsArray], grid: TileGrid) -> int:
    """Check that the tiles' shapes suit the grid and each other; return K."""
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
    return shapes.pop()[0] if shapes else 0


def _place_tiles(
    tiles: Mapping[tuple[int, int], LogitsArray],
    grid: TileGrid,
    output: Window,
    kind: BlendWindow,
) -> list[_PlacedTile]:
    """Return the tiles that touch the output, ascending by (i, j)."""
    row_weights = axis_weights(grid.rows, grid.height, grid.tile_size, kind)
    col_weights = axis_weights(grid.cols, grid.width, grid.tile_size, kind)
    placed = []
    for i, j in sorted(tiles):
        tile = grid.tile(i, j)
        row, row_stop = _weighted_range(row_weights[i])
        col, col_stop = _weighted_range(col_weights[j])
        reach = Window(
            tile.row + row, tile.col + col, row_stop - row, col_stop - col
        ).intersection(output)
        if reach is None:
            continue
        logits = tiles[i, j]
        if not np.isfinite(logits).all():
            raise BlendingError(
                f"logits of tile ({i}, {j}) at row {tile.row}, column {tile.col} hold "
                "NaN or infinity; check the model's weights, or predict in float32"
            )
        placed.append(_PlacedTile(logits, tile, reach, row_weights[i], col_weights[j]))
    return placed


def _weighted_range(weights: Float32Array) -> tuple[int, int]:
    inside = np.flatnonzero(weights)
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def _blend_blocks(
    placed: list[_PlacedTile],
    output: Window,
    num_classes: int,
    space: BlendSpace,
    block_rows: int,
) -> Iterator[tuple[Window, Float32Array, npt.NDArray[np.bool_]]]:
    for row in range(output.row, output.row_stop, block_rows):
        height = min(block_rows, output.row_stop - row)
        block = Window(row, output.col, height, output.width)
        yield block, *_blend_block(placed, block, num_classes, space)


def _blend_block(
    placed: list[_PlacedTile], block: Window, num_classes: int, space: BlendSpace
) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """Blend one block; returns values (K, rows, columns) and what is covered."""
    total = np.zeros((num_classes, block.height, block.width), np.float32)
    weight_sum = np.zeros((block.height, block.width), np.float32)
    add = _add_logits if space == "logits" else _add_softmax
    for tile in placed:
        part = block.intersection(tile.reach)
        if part is None:
            continue
        rows, cols = part.relative_to(block).slices
        weight_sum[rows, cols] += add(total[:, rows, cols], tile, part)
    covered = weight_sum > 0
    weight_sum[~covered] = 1  # 0 / 1, not 0 / 0, where no tile lies
    total /= weight_sum
    return total, covered


def _add_logits(total: Float32Array, tile: _PlacedTile, part: Window) -> Float32Array:
    """Add weight times logits of a part of the scene to `total`; return the weight."""
    rows, cols, row_weights, col_weights = _cut(tile, part)
    # The weights ride on the interpolation's: two passes less over every pixel.
    rows, cols = rows.times(row_weights), cols.times(col_weights)
    for plane, total_plane in zip(tile.logits, total, strict=True):
        total_plane += _upsample(plane, rows, cols)
    return row_weights[:, None] * col_weights


def _add_softmax(total: Float32Array, tile: _PlacedTile, part: Window) -> Float32Array:
    """Do the same with the softmax of the tile's logits."""
    rows, cols, row_weights, col_weights = _cut(tile, part)
    weights = row_weights[:, None] * col_weights
    values = np.stack([_upsample(plane, rows, cols) for plane in tile.logits])
    norm = _exp_over_peak(values)
    for value, total_plane in zip(values, total, strict=True):
        value /= norm
        value *= weights
        total_plane += value
    return weights


def _exp_over_peak(values: Float32Array) -> Float32Array:
    """Replace values (K, h, w) by exp(value - largest); return their sum (h, w)."""
    peak = values[0].copy()
    for value in values[1:]:
        np.maximum(peak, value, out=peak)
    norm: Float32Array = np.zeros_like(peak)
    # Far below the peak, the difference may leave float32's range: exp gives 0 then.
    with np.errstate(over="ignore", under="ignore"):
        for value in values:
            value -= peak
            np.exp(value, out=value)
            norm += value
    return norm


@dataclass(frozen=True, slots=True)
class _Taps:
    """The two source pixels of each pixel along an axis, and what each contributes."""

    low: npt.NDArray[np.intp]
    """Index of the nearer to 0, shape (n,)."""
    high: npt.NDArray[np.intp]
    """Index of the other, shape (n,); the same at the edges."""
    low_share: Float32Array
    """Share of the first, shape (n,)."""
    high_share: Float32Array
    """Share of the second, shape (n,)."""

    def times(self, weights: Float32Array) -> _Taps:
        """Return the taps with their shares weighted by pixel."""
        return _Taps(
            self.low, self.high, self.low_share * weights, self.high_share * weights
        )


def _cut(
    tile: _PlacedTile, part: Window
) -> tuple[_Taps, _Taps, Float32Array, Float32Array]:
    """Return row taps, column taps and both weights of a part of the scene."""
    size = tile.logits.shape[1]
    factor = tile.window.height // size
    part = part.relative_to(tile.window)
    rows, cols = part.slices
    return (
        _taps(part.row, part.row_stop, size, factor),
        _taps(part.col, part.col_stop, size, factor),
        tile.row_weights[rows],
        tile.col_weights[cols],
    )


def _taps(start: int, stop: int, size: int, factor: int) -> _Taps:
    """Interpolate pixels start..stop of `size` source pixels enlarged by `factor`."""
    position = np.maximum((np.arange(start, stop) + 0.5) / factor - 0.5, 0)
    low = np.minimum(position.astype(np.intp), size - 1)
    high = np.minimum(low + 1, size - 1)
    share = (position - low).astype(np.float32)
    return _Taps(low, high, np.float32(1) - share, share)


def _upsample(plane: LogitsArray, rows: _Taps, cols: _Taps) -> Float32Array:
    """Interpolate a plane (h, h) of logits; returns the shape of the taps."""
    first = int(rows.low[0])
    strip = plane[first : int(rows.high[-1]) + 1].astype(np.float32)
    # Columns first: they touch only the few source rows.
    wide = strip.take(cols.low, axis=1)
    wide *= cols.low_share
    other = strip.take(cols.high, axis=1)
    other *= cols.high_share
    wide += other
    low = wide.take(rows.low - first, axis=0)
    low *= rows.low_share[:, None]
    high = wide.take(rows.high - first, axis=0)
    high *= rows.high_share[:, None]
    low += high
    return low


def classify(
    blended: Float32Array, space: BlendSpace
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Pick each pixel's class and say how sure it is.

    Args:
        blended: What `blend_rows` yields, shape (K, h, w), float32, finite, K <= 255.
        space: What was blended there.

    Returns:
        Index of the largest value, the first of equals, shape (h, w), uint8, and its
        confidence, shape (h, w), uint8 percent 0..100: the largest softmax, or the
        largest blended probability over their sum. Values that mean nothing where no
        tile lies (0 and 0 for probabilities).

    Raises:
        BlendingError: There are more classes than a class mask can hold.
    """
    num_classes, height, width = blended.shape
    if num_classes > NODATA:
        raise BlendingError(
            f"{num_classes} classes do not fit a class mask of 8 bits; merge them "
            f"into at most {NODATA}"
        )
    index = np.zeros((height, width), np.uint8)
    confidence = np.zeros((height, width), np.uint8)
    if num_classes == 0:
        return index, confidence
    step = max(1, _CHUNK_PIXELS // max(1, width))
    for row in range(0, height, step):
        rows = slice(row, row + step)
        _classify_rows(blended[:, rows], space, index[rows], confidence[rows])
    return index, confidence


def _classify_rows(
    values: Float32Array,
    space: BlendSpace,
    index: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8],
) -> None:
    """Write class index and confidence of values (K, rows, columns)."""
    best = values[0].copy()
    for number, value in enumerate(values[1:], start=1):
        np.copyto(index, np.uint8(number), where=value > best)
        np.maximum(best, value, out=best)
    share = np.zeros_like(best)
    if space == "logits":
        # The largest softmax is 1 / sum(exp(logit - largest)).
        difference = np.empty_like(best)
        with np.errstate(over="ignore", under="ignore"):
            for value in values:
                np.subtract(value, best, out=difference)
                share += np.exp(difference, out=difference)
        np.divide(100, share, out=share)
    else:
        for value in values:
            share += value
        share[share <= 0] = np.inf
        np.divide(best, share, out=share)
        share *= 100
    np.rint(share, out=share)
    np.clip(share, 0, 100, out=share)
    np.copyto(confidence, share, casting="unsafe")
