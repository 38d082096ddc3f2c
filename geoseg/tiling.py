"""Where tiles lie in a scene, and the bands of tiles that are predicted together."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from geoseg.errors import TilingError
from geoseg.grid import Window

BAND_TILES = 24
"""Tiles of a band: three batches on CUDA, and two tasks for them are few."""


def tile_origins(length: int, tile_size: int, stride: int) -> tuple[int, ...]:
    """Place tiles along one axis so that every pixel is covered.

    Args:
        length: Pixels along the axis, >= 1.
        tile_size: Pixels of a tile, >= 1.
        stride: Pixels between neighbouring tiles, 1..tile_size.

    Returns:
        First pixel of each tile, strictly ascending from 0. The last tile is pulled
        inward to end with the axis; an axis shorter than a tile has one, at 0.

    Raises:
        TilingError: The stride leaves gaps or does not move, or the axis is empty.
    """
    _check_axis(length, tile_size, stride)
    last = max(0, length - tile_size)
    return (*range(0, last, stride), last)


def count_tiles(region: Window, tile_size: int, stride: int) -> int:
    """Bound the tiles that touch a region, without making a list of them."""

    def along(length: int) -> int:
        # One more at each end may reach in; the last one may be pulled inward.
        return -(-(length + tile_size) // stride) + 1

    return along(region.height) * along(region.width)


def default_stride(tile_size: int, patch_size: int) -> int:
    """Return the stride used when none is asked for, pixels.

    It is 13/15 of the tile, 624 of 720, rounded to the patch size, so that neighbouring
    tiles share one patch grid.
    """
    check_tile_size(tile_size, patch_size)
    return max(1, round(tile_size * 13 / 15 / patch_size)) * patch_size


def check_tile_size(tile_size: int, patch_size: int) -> None:
    """Check that a tile holds a whole number of patches.

    Raises:
        TilingError: It does not; names the nearest sizes that do.
    """
    if tile_size > 0 and tile_size % patch_size == 0:
        return
    below = max(0, tile_size) // patch_size * patch_size
    nearest = [str(size) for size in (below, below + patch_size) if size > 0]
    raise TilingError(
        f"tile size {tile_size} is not a multiple of the patch size {patch_size}; "
        f"use {' or '.join(nearest)}"
    )


@dataclass(frozen=True, slots=True)
class Band:
    """A rectangle of tiles that is read and predicted as one task."""

    index: int
    """Position in `TileGrid.bands()`, by rows, then by segments of a row."""
    row_start: int
    """First tile row."""
    row_stop: int
    """First tile row below the band."""
    col_start: int
    """First tile column."""
    col_stop: int
    """First tile column right of the band."""
    footprint: Window
    """Pixels that its tiles cover, clipped to the scene: what the band reads."""
    output: Window
    """Pixels that the band finishes; the outputs of all bands partition the region.

    Empty where several tile rows start above the region: only the last of them ends
    where a pixel of the region is left over for it.
    """
    needs: tuple[int, ...]
    """Bands, this one included, whose tiles touch `output`; ascending."""

    @property
    def rows(self) -> range:
        """Tile rows of the band."""
        return range(self.row_start, self.row_stop)

    @property
    def cols(self) -> range:
        """Tile columns of the band."""
        return range(self.col_start, self.col_stop)

    @property
    def tiles(self) -> Iterator[tuple[int, int]]:
        """Tiles (i, j) of the band, ascending."""
        return itertools.product(self.rows, self.cols)

    @property
    def finishes(self) -> bool:
        """Whether it finishes any pixel; if not, it only lends its tiles to others."""
        return self.output.height > 0 and self.output.width > 0

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.rows) * len(self.cols)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of a scene, or those of them that touch a region of it.

    A region selects tiles and moves none, so results inside it equal the whole scene's.
    """

    height: int
    """Height of the scene, pixels."""
    width: int
    """Width of the scene, pixels."""
    tile_size: int
    """Side of a tile, pixels."""
    stride: int
    """Pixels between neighbouring tiles, 1..tile_size."""
    region: Window | None = None
    """The part of the scene that is wanted, pixels; None for all of it."""

    def __post_init__(self) -> None:
        """Check that tiles can cover the scene and that the region lies inside it."""
        _check_axis(self.height, self.tile_size, self.stride)
        _check_axis(self.width, self.tile_size, self.stride)
        region = self.output
        scene = Window(0, 0, self.height, self.width)
        if not scene.contains(region) or scene.intersection(region) is None:
            raise TilingError(
                f"the region {region} is empty or reaches past the scene of "
                f"{self.height} x {self.width} pixels; clip it to the scene"
            )

    @property
    def rows(self) -> tuple[int, ...]:
        """First pixel row of every tile row that touches the region, ascending."""
        output = self.output
        return _touching_origins(
            self.height, self.tile_size, self.stride, output.row, output.row_stop
        )

    @property
    def cols(self) -> tuple[int, ...]:
        """First pixel column of every tile column that touches the region."""
        output = self.output
        return _touching_origins(
            self.width, self.tile_size, self.stride, output.col, output.col_stop
        )

    @property
    def output(self) -> Window:
        """Pixels that are wanted: the region, or the whole scene."""
        return self.region or Window(0, 0, self.height, self.width)

    def tile(self, i: int, j: int) -> Window:
        """Return tile (i, j) of `rows` x `cols`; it may reach past a small scene."""
        return Window(self.rows[i], self.cols[j], self.tile_size, self.tile_size)

    def bands(
        self, tiles: int = BAND_TILES, *, whole_rows: bool = False
    ) -> tuple[Band, ...]:
        """Group the tiles into bands of about the same size, whatever the scene's.

        What a worker holds is in proportion to a band. Narrow scenes put several rows
        of tiles in a band, so that reading the rows that neighbours share costs little;
        wide rows are cut into even segments, one or more rows high.

        Args:
            tiles: Tiles that a band should have; it has at most twice as many.
            whole_rows: Cut rows only where they have twice as many tiles, up to three
                times: of files that are read by whole rows, each segment reads all.

        Returns:
            Bands in order of rows, then segments. Their outputs partition `output`.

        Raises:
            TilingError: There is to be no tile in a band.
        """
        if tiles < 1:
            raise TilingError(f"a band cannot hold {tiles} tiles; give 1 or more")
        return _bands(self, *self._band_counts(tiles, whole_rows=whole_rows))

    def _band_counts(self, tiles: int, *, whole_rows: bool) -> tuple[int, int]:
        """Return into how many groups the rows go, and the columns."""
        height, width = len(self.rows), len(self.cols)
        if whole_rows:
            joined, most = max(1, round(tiles / width)), 2 * tiles
        else:
            # Few rows: their logits wait for all of the row below.
            fitting = (r for r in itertools.count(1) if _suits(r * width, tiles))
            joined, most = next(fitting), tiles
        groups = -(-height // joined)
        # Rather too few: a group may have less rows than were joined.
        segments = max(1, round(height * width / (groups * most) - 0.1))
        return groups, min(segments, width)


@lru_cache(maxsize=8)
def _bands(grid: TileGrid, groups: int, segments: int) -> tuple[Band, ...]:
    # Cached: every task of a scene asks, and a scene of a million tiles has thousands.
    out, size = grid.output, grid.tile_size
    row_cuts = _cut_axis(grid.rows, groups, size, out.row, out.row_stop)
    col_cuts = _cut_axis(grid.cols, segments, size, out.col, out.col_stop)
    return tuple(
        _band(grid, index, row, col, segments)
        for index, (row, col) in enumerate(itertools.product(row_cuts, col_cuts))
    )


def _band(grid: TileGrid, index: int, row: _Cut, col: _Cut, segments: int) -> Band:
    needs = {g * segments + s for g in row.needs for s in col.needs}
    rows, cols = grid.rows[row.start : row.stop], grid.cols[col.start : col.stop]
    row_stop = min(rows[-1] + grid.tile_size, grid.height)
    col_stop = min(cols[-1] + grid.tile_size, grid.width)
    return Band(
        index=index,
        row_start=row.start,
        row_stop=row.stop,
        col_start=col.start,
        col_stop=col.stop,
        footprint=Window(rows[0], cols[0], row_stop - rows[0], col_stop - cols[0]),
        output=Window(row.first, col.first, row.last - row.first, col.last - col.first),
        # An empty output touches no tile; the band itself is named all the same.
        needs=tuple(sorted(needs | {index})),
    )


def _suits(found: int, tiles: int) -> bool:
    """Tell whether segments of a number of tiles are about as large as bands should be.

    They are 7/8 to 7/6 of it: two tasks for 21 tiles keep Dask's scheduler idle. For a
    row that need not be cut 5/6 will do.
    """
    segments = max(1, round(found / tiles))
    least = 35 if segments == 1 else 36.75
    return least * tiles * segments <= 42 * found <= 49 * tiles * segments


@dataclass(frozen=True, slots=True)
class _Cut:
    """One group of neighbouring tiles along an axis."""

    start: int
    """First tile of the group."""
    stop: int
    """First tile past the group."""
    first: int
    """First pixel that the group finishes."""
    last: int
    """First pixel past those."""
    needs: range
    """Groups whose tiles touch those pixels; empty if there are none."""


def _cut_axis(
    origins: tuple[int, ...], groups: int, tile_size: int, first: int, last: int
) -> list[_Cut]:
    """Cut an axis of tiles into even groups that share out pixels [first, last)."""
    starts = [group * len(origins) // groups for group in range(groups + 1)]
    inner = [max(first, origins[start]) for start in starts[1:-1]]
    pixels = [first, *inner, last]
    cuts = []
    for group, (low, high) in enumerate(itertools.pairwise(pixels)):
        touching = range(0)
        if low < high:
            tiles = _touching_range(origins, tile_size, low, high)
            touching = range(
                bisect_right(starts, tiles.start) - 1, bisect_left(starts, tiles.stop)
            )
        cuts.append(_Cut(starts[group], starts[group + 1], low, high, touching))
    return cuts


def _touching_range(
    origins: tuple[int, ...], tile_size: int, start: int, stop: int
) -> range:
    """Return the tiles that hold a pixel of [start, stop); they are neighbours."""
    first = bisect_right(origins, start - tile_size)
    return range(first, bisect_left(origins, stop))


@lru_cache(maxsize=64)
def _touching_origins(
    length: int, tile_size: int, stride: int, start: int, stop: int
) -> tuple[int, ...]:
    # Cached: `tile()` asks for every tile, and an axis may have thousands.
    origins = tile_origins(length, tile_size, stride)
    touching = _touching_range(origins, tile_size, start, stop)
    return origins[touching.start : touching.stop]


def _check_axis(length: int, tile_size: int, stride: int) -> None:
    if length < 1:
        raise TilingError(f"{length} pixels cannot be tiled; a scene has at least one")
    if tile_size < 1:
        raise TilingError(f"tile size {tile_size} is not a size; use 1 or more")
    if not 1 <= stride <= tile_size:
        nearest = min(max(stride, 1), tile_size)
        raise TilingError(
            f"stride {stride} does not suit tiles of {tile_size} pixels: it must be "
            f"1 to {tile_size}, or pixels between tiles are lost; use {nearest}"
        )
