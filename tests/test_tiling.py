"""Tiles cover the scene, and bands share it out exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import tile_grids, windows

from geoseg.errors import TilingError
from geoseg.grid import Window
from geoseg.tiling import (
    Band,
    TileGrid,
    check_tile_size,
    default_stride,
    tile_origins,
)

# Small numbers, so that small grids are joined and cut as large ones are by 24.
SHAPES = st.tuples(st.sampled_from([1, 2, 3, 5, 9, 24]), st.booleans())
Shape = tuple[int, bool]


def banded(grid: TileGrid, shape: Shape) -> tuple[Band, ...]:
    """Group into bands of about so many tiles, of whole rows or not."""
    tiles, whole_rows = shape
    return grid.bands(tiles, whole_rows=whole_rows)


def touching_bands(grid: TileGrid, bands: Sequence[Band], window: Window) -> set[int]:
    """Find the bands that have a tile on the window by looking at every tile."""
    tiles = np.array([(band.index, *ij) for band in bands for ij in band.tiles])
    rows, cols = np.array(grid.rows)[tiles[:, 1]], np.array(grid.cols)[tiles[:, 2]]
    touching = (
        (rows < window.row_stop)
        & (rows + grid.tile_size > window.row)
        & (cols < window.col_stop)
        & (cols + grid.tile_size > window.col)
    )
    empty = window.height == 0 or window.width == 0
    return set() if empty else set(tiles[touching, 0].tolist())


@given(st.integers(1, 5000), st.integers(1, 900), st.data())
def test_every_pixel_of_an_axis_is_covered(
    length: int, tile_size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(max(1, tile_size // 8), tile_size))
    origins = tile_origins(length, tile_size, stride)
    covered = np.zeros(length, bool)
    for origin in origins:
        covered[origin : origin + tile_size] = True
    assert covered.all()
    assert list(origins) == sorted(set(origins))


@pytest.mark.parametrize(
    ("length", "stride", "expected"),
    [
        (1, 624, (0,)),
        (719, 624, (0,)),
        (720, 624, (0,)),
        (721, 624, (0, 1)),
        (1344, 624, (0, 624)),
        (1345, 624, (0, 624, 625)),
        (1425, 720, (0, 705)),
        (1345, 240, (0, 240, 480, 625)),
    ],
)
def test_the_last_tile_is_pulled_inward(
    length: int, stride: int, expected: tuple[int, ...]
) -> None:
    assert tile_origins(length, 720, stride) == expected


@given(tile_grids())
def test_a_tile_reaches_past_the_scene_only_where_the_scene_is_smaller(
    grid: TileGrid,
) -> None:
    for i, j in itertools.product(range(len(grid.rows)), range(len(grid.cols))):
        tile = grid.tile(i, j)
        assert (tile.height, tile.width) == (grid.tile_size, grid.tile_size)
        assert tile.row_stop <= max(grid.height, grid.tile_size)
        assert tile.col_stop <= max(grid.width, grid.tile_size)


@given(tile_grids())
def test_a_region_keeps_the_tiles_that_touch_it_where_they_are(grid: TileGrid) -> None:
    whole = TileGrid(grid.height, grid.width, grid.tile_size, grid.stride)
    output = grid.output
    assert grid.rows == tuple(
        row
        for row in whole.rows
        if row < output.row_stop and row + grid.tile_size > output.row
    )
    assert grid.cols == tuple(
        col
        for col in whole.cols
        if col < output.col_stop and col + grid.tile_size > output.col
    )


@given(tile_grids(), SHAPES)
def test_band_outputs_partition_the_region(grid: TileGrid, shape: Shape) -> None:
    count = np.zeros((grid.height, grid.width), int)
    for band in banded(grid, shape):
        if band.output.intersection(grid.output):
            assert grid.output.contains(band.output)
        count[band.output.slices] += 1
    expected = np.zeros_like(count)
    expected[grid.output.slices] = 1
    np.testing.assert_array_equal(count, expected)


@given(tile_grids(), SHAPES)
def test_every_tile_is_in_one_band(grid: TileGrid, shape: Shape) -> None:
    bands = banded(grid, shape)
    tiles = [tile for band in bands for tile in band.tiles]
    every = itertools.product(range(len(grid.rows)), range(len(grid.cols)))
    assert sorted(tiles) == list(every)
    assert [band.index for band in bands] == list(range(len(bands)))
    assert sum(len(band) for band in bands) == len(tiles)


@given(tile_grids(max_side=60), SHAPES)
def test_needs_are_the_bands_whose_tiles_touch_the_output(
    grid: TileGrid, shape: Shape
) -> None:
    bands = banded(grid, shape)
    for band in bands:
        touching = touching_bands(grid, bands, band.output)
        assert list(band.needs) == sorted(touching | {band.index})


@given(tile_grids(), SHAPES)
def test_an_output_is_finished_before_the_next_band_of_its_column_starts(
    grid: TileGrid, shape: Shape
) -> None:
    for band in banded(grid, shape):
        assert max(band.needs) == band.index


@given(tile_grids(), SHAPES)
def test_a_footprint_holds_the_bands_tiles_and_ends_with_the_scene(
    grid: TileGrid, shape: Shape
) -> None:
    scene = Window(0, 0, grid.height, grid.width)
    for band in banded(grid, shape):
        covered = np.zeros((grid.height, grid.width), bool)
        for i, j in band.tiles:
            part = grid.tile(i, j).intersection(scene)
            assert part is not None
            covered[part.slices] = True
        box = np.zeros_like(covered)
        box[band.footprint.slices] = True
        np.testing.assert_array_equal(covered, box)
        if band.output.intersection(scene):
            assert band.footprint.contains(band.output)


@given(st.integers(1, 100), st.integers(1, 300), SHAPES)
def test_bands_have_enough_tiles_and_not_too_many(
    rows: int, cols: int, shape: Shape
) -> None:
    grid = TileGrid(rows, cols, tile_size=1, stride=1)
    bands = banded(grid, shape)
    tiles, whole_rows = shape
    sizes = [len(band) for band in bands]
    assert max(sizes) <= (3.2 if whole_rows else 2) * tiles
    if not whole_rows:
        assert min(sizes) >= min(tiles // 3, rows * cols)


@given(st.integers(1, 300), SHAPES)
def test_segments_of_a_row_are_balanced(num_cols: int, shape: Shape) -> None:
    grid = TileGrid(1, num_cols, tile_size=1, stride=1)
    widths = [len(band.cols) for band in banded(grid, shape)]
    assert max(widths) - min(widths) <= 1


@given(st.integers(5, 200), st.integers(30, 300))
def test_wide_scenes_have_at_most_a_task_for_ten_tiles(rows: int, cols: int) -> None:
    for whole_rows in (False, True):
        bands = TileGrid(rows, cols, tile_size=1, stride=1).bands(whole_rows=whole_rows)
        # One to predict, one to blend, and one to finish the scene.
        assert 2 * len(bands) + 1 <= 0.1 * rows * cols


@pytest.mark.parametrize("side", [6_000, 10_000, 24_000, 60_000, 200_000])
def test_bands_of_large_scenes_are_alike(side: int) -> None:
    sizes = [len(band) for band in TileGrid(side, side, 720, 624).bands()]
    assert 20 <= np.mean(sizes) <= 26
    assert max(sizes) <= 26


@given(tile_grids())
def test_only_rows_that_start_above_a_region_can_leave_an_output_empty(
    grid: TileGrid,
) -> None:
    for band in grid.bands(1):
        if band.output.height and band.output.width:
            continue
        assert grid.region is not None
        next_rows, next_cols = (
            origins[stop : stop + 1]
            for origins, stop in (
                (grid.rows, band.row_stop),
                (grid.cols, band.col_stop),
            )
        )
        assert any(row <= grid.region.row for row in next_rows) or any(
            col <= grid.region.col for col in next_cols
        )


def test_a_row_of_a_large_scene_is_cut_into_segments() -> None:
    grid = TileGrid(24_000, 60_000, 720, 624)
    bands = grid.bands()
    assert len(grid.cols) == 96
    assert [len(band.cols) for band in bands[:4]] == [24] * 4
    assert {len(band.rows) for band in bands} == {1}
    assert bands[5].needs == (0, 1, 4, 5)


def test_a_row_that_is_cut_badly_is_joined_with_the_next() -> None:
    grid = TileGrid(24_000, 24_000, 720, 624)
    bands = grid.bands()
    assert len(grid.rows) == len(grid.cols) == 39
    assert {len(band.cols) for band in bands} == {13}
    assert [len(band.rows) for band in bands[::3]] == [1, *[2] * 19]


def test_a_file_of_whole_rows_is_cut_only_where_it_is_very_wide() -> None:
    for side, segments in ((40_000, 1), (60_000, 2)):
        bands = TileGrid(24_000, side, 720, 624).bands(whole_rows=True)
        assert sum(band.row_start == 0 for band in bands) == segments


def test_three_bands_meet_where_the_last_row_is_pulled_inward() -> None:
    grid = TileGrid(1345, 624 * 24, 720, 624)
    assert grid.rows == (0, 624, 625)
    assert grid.bands()[2].needs == (0, 1, 2)


@given(tile_grids(), st.data())
def test_a_region_past_the_scene_is_refused(
    grid: TileGrid, data: st.DataObject
) -> None:
    region = data.draw(windows(grid.height + 3, grid.width + 3))
    assume(region.row_stop > grid.height or region.col_stop > grid.width)
    with pytest.raises(TilingError, match="clip it to the scene"):
        TileGrid(grid.height, grid.width, grid.tile_size, grid.stride, region)


def test_an_empty_region_is_refused() -> None:
    with pytest.raises(TilingError, match="is empty"):
        TileGrid(10, 10, 4, 4, Window(2, 2, 0, 3))


@pytest.mark.parametrize(
    ("height", "tile_size", "stride", "message"),
    [
        (0, 4, 4, "0 pixels cannot be tiled"),
        (9, 0, 1, "tile size 0"),
        (9, 4, 5, "stride 5 .* use 4"),
        (9, 4, 0, "stride 0 .* use 1"),
    ],
)
def test_a_tiling_that_cannot_cover_is_refused(
    height: int, tile_size: int, stride: int, message: str
) -> None:
    with pytest.raises(TilingError, match=message):
        TileGrid(height, 9, tile_size, stride)


def test_bands_without_room_for_tiles_are_refused() -> None:
    with pytest.raises(TilingError, match="give 1 or more"):
        TileGrid(9, 9, 4, 4).bands(0)


@pytest.mark.parametrize(
    ("tile_size", "patch_size", "stride"),
    [(720, 16, 624), (512, 16, 448), (512, 32, 448), (16, 16, 16), (14, 14, 14)],
)
def test_the_default_stride_is_thirteen_fifteenths_in_whole_patches(
    tile_size: int, patch_size: int, stride: int
) -> None:
    assert default_stride(tile_size, patch_size) == stride


@given(st.integers(1, 100), st.integers(1, 40))
def test_the_default_stride_tiles_without_gaps(patches: int, patch_size: int) -> None:
    stride = default_stride(patches * patch_size, patch_size)
    assert 1 <= stride <= patches * patch_size
    assert stride % patch_size == 0


@pytest.mark.parametrize(
    ("tile_size", "nearest"),
    [(700, "688 or 704"), (5, "16"), (0, "16"), (-3, "16"), (721, "720 or 736")],
)
def test_a_tile_size_that_does_not_fit_names_those_that_do(
    tile_size: int, nearest: str
) -> None:
    with pytest.raises(
        TilingError, match=rf"{tile_size} is not .* size 16; use {nearest}$"
    ):
        check_tile_size(tile_size, 16)


def test_a_tile_of_whole_patches_is_accepted() -> None:
    check_tile_size(720, 16)
