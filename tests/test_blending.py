"""Blended tiles equal the untiled logits, whatever the bands, blocks and region."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from blended import blend_rows, classify
from blended_tiles import SPACES, WINDOWS, draw_tiles
from hypothesis import given
from hypothesis import strategies as st
from strategies import tile_grids, windows

from geoseg.blending.weights import axis_weights
from geoseg.errors import BlendingError
from geoseg.grid import Window
from geoseg.tiling import TileGrid
from geoseg.types import BlendSpace, BlendWindow

Float32Array = npt.NDArray[np.float32]
Tiles = Mapping[tuple[int, int], npt.NDArray[np.float16] | Float32Array]


def scene_logits(
    height: int, width: int, *, num_classes: int = 3, seed: int = 0
) -> Float32Array:
    """Logits of a pointwise model on the whole scene, (K, height, width)."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (num_classes, height, width)).astype(np.float32)


def cut_tiles(
    logits: Float32Array, grid: TileGrid, dtype: npt.DTypeLike = np.float32
) -> dict[tuple[int, int], Float32Array]:
    """Every tile of the scene at full resolution, padded where the scene is smaller."""
    bottom = max(0, grid.tile_size - grid.height)
    right = max(0, grid.tile_size - grid.width)
    # Padding must not reach the output, so it may be anything: here what would show.
    padded = np.pad(
        logits, ((0, 0), (0, bottom), (0, right)), constant_values=np.float32(1e4)
    )
    tiles = itertools.product(range(len(grid.rows)), range(len(grid.cols)))
    return {(i, j): padded[:, *grid.tile(i, j).slices].astype(dtype) for i, j in tiles}


def blend(
    tiles: Tiles,
    grid: TileGrid,
    output: Window | None = None,
    *,
    window: BlendWindow = "hann",
    space: BlendSpace = "logits",
    block_rows: int = 64,
) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """Blend and stack all blocks: values (K, h, w) and covered (h, w)."""
    output = output or grid.output
    blocks = list(
        blend_rows(
            tiles, grid, output, window=window, space=space, block_rows=block_rows
        )
    )
    assert all(block.height <= block_rows for block, _, _ in blocks)
    assert [block.row for block, _, _ in blocks] == list(
        range(output.row, output.row_stop, block_rows)
    )
    assert {(block.col, block.width) for block, _, _ in blocks} == {
        (output.col, output.width)
    }
    return (
        np.concatenate([values for _, values, _ in blocks], axis=1),
        np.concatenate([covered for _, _, covered in blocks]),
    )


def softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Softmax over the first axis in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return np.asarray(shifted / shifted.sum(axis=0))


# 5 and 719 rows or columns are padded, 721 and 1345 have tiles one pixel apart.
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("stride", [720, 624, 352, 240])
@pytest.mark.parametrize(
    ("height", "width"),
    [
        (1, 1),
        (5, 719),
        (720, 720),
        (721, 721),
        (100, 3000),
        (1345, 1345),
        (1425, 721),
    ],
)
def test_a_pointwise_model_gives_the_untiled_logits(
    height: int, width: int, stride: int, window: BlendWindow
) -> None:
    logits = scene_logits(height, width)
    grid = TileGrid(height, width, 720, stride)
    values, covered = blend(cut_tiles(logits, grid), grid, window=window)
    assert covered.all()
    np.testing.assert_allclose(values, logits, rtol=0, atol=1e-5)


@given(tile_grids(max_side=60), st.sampled_from(WINDOWS))
def test_small_tilings_of_any_shape_give_the_untiled_logits(
    grid: TileGrid, window: BlendWindow
) -> None:
    logits = scene_logits(grid.height, grid.width)
    values, covered = blend(cut_tiles(logits, grid), grid, window=window)
    assert covered.all()
    expected = logits[:, *grid.output.slices]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@given(tile_grids(max_side=60), st.sampled_from(WINDOWS))
def test_small_tilings_give_the_untiled_probabilities(
    grid: TileGrid, window: BlendWindow
) -> None:
    logits = scene_logits(grid.height, grid.width)
    tiles = cut_tiles(logits, grid)
    values, _ = blend(tiles, grid, window=window, space="probabilities")
    expected = softmax(logits)[:, *grid.output.slices]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("space", SPACES)
def test_float16_logits_give_the_same_labels_where_two_classes_are_apart(
    window: BlendWindow, space: BlendSpace
) -> None:
    logits = scene_logits(200, 170, num_classes=4)
    grid = TileGrid(200, 170, 64, 40)
    tiles = cut_tiles(logits, grid, np.float16)
    values, _ = blend(tiles, grid, window=window, space=space)
    index, _ = classify(values, space)
    ranked = np.sort(logits, axis=0)
    apart = ranked[-1] - ranked[-2] > 0.05
    assert apart.mean() > 0.9
    np.testing.assert_array_equal(index[apart], logits.argmax(axis=0)[apart])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("size", "factor"), [(180, 4), (45, 16), (7, 3), (1, 8)])
def test_upsampling_is_torchs_bilinear(
    size: int, factor: int, dtype: npt.DTypeLike
) -> None:
    import torch

    tile_size = size * factor
    rng = np.random.default_rng(1)
    tile = rng.normal(0, 3, (3, size, size)).astype(dtype)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(tile.astype(np.float32))[None],
        size=(tile_size, tile_size),
        mode="bilinear",
        align_corners=False,
    )[0].numpy()
    grid = TileGrid(tile_size, tile_size, tile_size, tile_size)
    for window in WINDOWS:
        values, _ = blend({(0, 0): tile}, grid, window=window, block_rows=13)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("window", WINDOWS)
def test_overlapping_tiles_give_the_weighted_mean_of_their_upsampled_logits(
    window: BlendWindow, space: BlendSpace
) -> None:
    import torch

    grid = TileGrid(70, 85, 32, 20)
    tiles = draw_tiles(grid, 8, 3)
    weighted = np.zeros((3, 70, 85))
    weight_sum = np.zeros((70, 85))
    row_weights = axis_weights(grid.rows, grid.height, 32, window)
    col_weights = axis_weights(grid.cols, grid.width, 32, window)
    for (i, j), tile in tiles.items():
        upsampled = torch.nn.functional.interpolate(
            torch.from_numpy(tile.astype(np.float64))[None],
            scale_factor=4,
            mode="bilinear",
        )[0].numpy()
        values = upsampled if space == "logits" else softmax(upsampled)
        weights = np.outer(row_weights[i], col_weights[j]).astype(np.float64)
        weighted[:, *grid.tile(i, j).slices] += weights * values
        weight_sum[grid.tile(i, j).slices] += weights
    values32, _ = blend(tiles, grid, window=window, space=space)
    np.testing.assert_allclose(values32, weighted / weight_sum, rtol=0, atol=1e-5)


@given(
    tile_grids(max_side=60, factor=4),
    st.sampled_from(WINDOWS),
    st.sampled_from(SPACES),
    st.integers(1, 30),
    st.sampled_from([1, 3, 8, 24]),
)
def test_bands_blocks_and_regions_change_no_byte(
    grid: TileGrid,
    window: BlendWindow,
    space: BlendSpace,
    block_rows: int,
    band_tiles: int,
) -> None:
    whole = TileGrid(grid.height, grid.width, grid.tile_size, grid.stride)
    size = grid.tile_size // 4
    # 9 classes: from 8 on, numpy's sum over an axis depends on the array's shape.
    expected, _ = blend(draw_tiles(whole, size, 9), whole, window=window, space=space)
    expected_index, expected_confidence = classify(expected, space)
    tiles = draw_tiles(grid, size, 9)
    bands = grid.bands(band_tiles)
    for band in bands:
        if not (band.output.height and band.output.width):
            continue
        needed = {key: tiles[key] for n in band.needs for key in bands[n].tiles}
        shuffled = dict(reversed(needed.items()))
        for block, values, covered in blend_rows(
            shuffled,
            grid,
            band.output,
            window=window,
            space=space,
            block_rows=block_rows,
        ):
            assert covered.all()
            np.testing.assert_array_equal(values, expected[:, *block.slices])
            index, confidence = classify(values, space)
            np.testing.assert_array_equal(index, expected_index[block.slices])
            np.testing.assert_array_equal(confidence, expected_confidence[block.slices])


def test_window_none_copies_the_nearest_tile() -> None:
    grid = TileGrid(10, 6, 6, 4)
    tiles = {
        (i, 0): np.full((2, 6, 6), value, np.float32)
        for i, value in enumerate((3.0, 5.0))
    }
    values, _ = blend(tiles, grid, window="none")
    np.testing.assert_array_equal(values[0, :, 0], [3] * 5 + [5] * 5)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("window", WINDOWS)
def test_pixels_that_no_tile_covers_are_told_and_are_zero(
    window: BlendWindow, space: BlendSpace
) -> None:
    grid = TileGrid(40, 40, 16, 12)
    tiles = draw_tiles(grid, 4, 3)
    del tiles[0, 0], tiles[1, 2]
    expected = np.zeros((40, 40), bool)
    for i, j in tiles:
        expected[grid.tile(i, j).slices] = True
    values, covered = blend(tiles, grid, window=window, space=space)
    assert not covered[0, 0]
    if window != "none":
        np.testing.assert_array_equal(covered, expected)
    assert (values[:, ~covered] == 0).all()
    assert np.isfinite(values).all()
    classify(values, space)


def test_a_missing_tile_leaves_its_neighbours_their_own_values() -> None:
    grid = TileGrid(16, 28, 16, 12)
    tile = draw_tiles(grid, 16, 3)[0, 0]
    values, covered = blend({(0, 0): tile}, grid)
    np.testing.assert_array_equal(covered, np.arange(28)[None] < np.full((16, 1), 16))
    np.testing.assert_allclose(values[:, :, :16], tile, rtol=0, atol=1e-5)


def test_without_tiles_nothing_is_covered() -> None:
    values, covered = blend({}, TileGrid(30, 20, 16, 12))
    assert values.shape == (0, 30, 20)
    assert not covered.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("window", WINDOWS)
def test_logits_that_are_not_finite_name_their_tile(
    value: float, dtype: npt.DTypeLike, window: BlendWindow
) -> None:
    grid = TileGrid(40, 40, 16, 12)
    tiles = {key: tile.astype(dtype) for key, tile in draw_tiles(grid, 4, 3).items()}
    tiles[1, 2][2, 3, 0] = value
    with pytest.raises(BlendingError, match=r"tile \(1, 2\) at row 12, column 24 "):
        blend(tiles, grid, window=window)


@pytest.mark.parametrize(
    ("key", "tile", "message"),
    [
        ((0, 3), np.zeros((3, 4, 4), np.float32), r"no tile \(0, 3\)"),
        ((-1, 0), np.zeros((3, 4, 4), np.float32), r"no tile \(-1, 0\)"),
        ((0, 0), np.zeros((3, 0, 0), np.float32), r"shape \(3, 0, 0\)"),
        ((0, 0), np.zeros((3, 4, 4)), r"tile \(0, 0\) are float64"),
        ((0, 0), np.zeros((4, 4), np.float32), r"shape \(4, 4\)"),
        ((0, 0), np.zeros((0, 4, 4), np.float32), r"shape \(0, 4, 4\)"),
        ((0, 0), np.zeros((3, 4, 8), np.float32), r"shape \(3, 4, 8\)"),
        ((0, 0), np.zeros((3, 5, 5), np.float32), "divides the tile size 16"),
        ((0, 0), np.zeros((2, 4, 4), np.float32), r"shapes, \[\(2, 4, 4\), \(3, 4, 4"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(
    key: tuple[int, int], tile: Float32Array, message: str
) -> None:
    grid = TileGrid(40, 40, 16, 12)
    tiles = {(1, 1): np.zeros((3, 4, 4), np.float32), key: tile}
    with pytest.raises(BlendingError, match=message):
        blend_rows(tiles, grid, grid.output)


def test_an_output_outside_the_region_is_refused() -> None:
    grid = TileGrid(40, 40, 16, 12, Window(0, 0, 20, 40))
    with pytest.raises(BlendingError, match="is not tiled; ask for pixels in"):
        blend_rows({}, grid, Window(10, 0, 11, 40))


@pytest.mark.parametrize(
    ("num_classes", "width", "rows"), [(3, 400, 64), (150, 4000, 27), (255, 80_000, 1)]
)
def test_blocks_of_many_classes_have_fewer_rows(
    num_classes: int, width: int, rows: int
) -> None:
    grid = TileGrid(70, width, 16, 16)
    tiles = {(0, 0): np.zeros((num_classes, 4, 4), np.float16)}
    block, values, _ = next(blend_rows(tiles, grid, grid.output))
    assert block.height == rows
    assert values.nbytes <= max(64 << 20, num_classes * width * 4)


def test_blocks_of_no_rows_are_refused() -> None:
    grid = TileGrid(40, 40, 16, 12)
    with pytest.raises(BlendingError, match="0 rows"):
        blend_rows({}, grid, grid.output, block_rows=0)


@given(tile_grids(max_side=60), st.data())
def test_any_window_of_the_output_can_be_blended(
    grid: TileGrid, data: st.DataObject
) -> None:
    tiles = draw_tiles(grid, grid.tile_size, 3)
    whole, _ = blend(tiles, grid)
    inside = data.draw(windows(grid.output.height, grid.output.width))
    output = Window(
        grid.output.row + inside.row,
        grid.output.col + inside.col,
        inside.height,
        inside.width,
    )
    part, _ = blend(tiles, grid, output)
    np.testing.assert_array_equal(part, whole[:, *inside.slices])
