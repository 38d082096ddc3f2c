"""The native blending gives the reference's bytes everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from blended_tiles import SPACES, WINDOWS, Keep, blend, draw_keep, draw_tiles
from hypothesis import given
from hypothesis import strategies as st
from strategies import tile_grids, windows

from geoseg.blending import blend_classes, native
from geoseg.blending.placing import Tiles
from geoseg.errors import BlendingError
from geoseg.grid import Window
from geoseg.tiling import TileGrid
from geoseg.types import NODATA, BlendSpace, BlendWindow

pytestmark = pytest.mark.skipif(
    native.library() is None, reason="native operators are absent"
)

FACTORS = (1, 2, 3, 4, 7, 8, 14, 16)


def assert_equals_the_reference(
    tiles: Tiles,
    grid: TileGrid,
    output: Window | None = None,
    *,
    window: BlendWindow,
    space: BlendSpace,
    keep: Keep | None = None,
) -> None:
    found, expected = (
        blend(
            tiles,
            grid,
            output,
            window=window,
            space=space,
            keep=keep,
            reference=reference,
        )
        for reference in (False, True)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_stride_gives_the_bytes_of_the_reference(
    factor: int, space: BlendSpace, window: BlendWindow, dtype: npt.DTypeLike
) -> None:
    size = max(2, 40 // factor)
    grid = TileGrid(109, 131, size * factor, max(1, size * factor - 9))
    tiles = draw_tiles(grid, size, 7, dtype=dtype)
    keep = draw_keep(grid.output)
    assert_equals_the_reference(tiles, grid, window=window, space=space, keep=keep)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    "num_classes", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 64, 150, 254]
)
def test_any_number_of_classes_gives_the_bytes_of_the_reference(
    num_classes: int, space: BlendSpace
) -> None:
    grid = TileGrid(30, 170, 32, 24)
    tiles = draw_tiles(grid, 8, num_classes)
    assert_equals_the_reference(tiles, grid, window="hann", space=space)


@given(
    tile_grids(max_side=90, factor=4),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(WINDOWS),
    st.sampled_from(SPACES),
    st.integers(1, 10),
    st.data(),
)
def test_any_tiling_and_window_gives_the_bytes_of_the_reference(
    grid: TileGrid,
    factor: int,
    window: BlendWindow,
    space: BlendSpace,
    num_classes: int,
    data: st.DataObject,
) -> None:
    tiles = draw_tiles(grid, grid.tile_size // factor, num_classes)
    inside = data.draw(windows(grid.output.height, grid.output.width))
    output = Window(
        grid.output.row + inside.row,
        grid.output.col + inside.col,
        inside.height,
        inside.width,
    )
    keep = draw_keep(output, seed=data.draw(st.integers(0, 9)))
    assert_equals_the_reference(
        tiles, grid, output, window=window, space=space, keep=keep
    )


@pytest.mark.parametrize("space", SPACES)
def test_strips_of_a_wide_scene_give_the_bytes_of_the_reference(
    space: BlendSpace,
) -> None:
    grid = TileGrid(40, 9001, 720, 624)
    tiles = draw_tiles(grid, 180, 7)
    # So many scores that a sum rounded otherwise changes one of them.
    found = [np.empty((7, 40, 9001), np.uint8) for _ in range(2)]
    for scores, reference in zip(found, (False, True), strict=True):
        blend(tiles, grid, space=space, scores=scores, reference=reference)
    np.testing.assert_array_equal(found[0], found[1])
    assert_equals_the_reference(tiles, grid, window="hann", space=space)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("window", WINDOWS)
def test_missing_tiles_give_the_bytes_of_the_reference(
    window: BlendWindow, space: BlendSpace
) -> None:
    grid = TileGrid(80, 90, 32, 20)
    tiles = dict(draw_tiles(grid, 8, 5))
    keep = np.ones((80, 90), np.bool_)
    for i, j in ((0, 0), (1, 2), (3, 1), (3, 2)):
        keep[grid.tile(i, j).slices] = False
        del tiles[i, j]
    assert keep.any()
    assert_equals_the_reference(tiles, grid, window=window, space=space, keep=keep)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("num_classes", [3, 11])
def test_a_cut_at_any_row_or_column_changes_no_byte(
    num_classes: int, space: BlendSpace
) -> None:
    grid = TileGrid(53, 61, 24, 15)
    tiles = draw_tiles(grid, 6, num_classes)
    whole = blend(tiles, grid, space=space)
    for cut in range(1, 53):
        parts = [Window(0, 0, cut, 61), Window(cut, 0, 53 - cut, 61)]
        for found in zip(
            whole,
            *(blend(tiles, grid, part, space=space) for part in parts),
            strict=True,
        ):
            np.testing.assert_array_equal(np.vstack(found[1:]), found[0])
    for cut in range(1, 61):
        parts = [Window(0, 0, 53, cut), Window(0, cut, 53, 61 - cut)]
        for found in zip(
            whole,
            *(blend(tiles, grid, part, space=space) for part in parts),
            strict=True,
        ):
            np.testing.assert_array_equal(np.hstack(found[1:]), found[0])


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_every_instruction_set_gives_the_bytes_of_the_reference(name: str) -> None:
    # In a process of its own: the choice is made once. The best one runs in this one.
    chosen = "bytes_of_the_reference and not instruction or wanted"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-k", chosen, __file__),
        ],
        env={**os.environ, "GEOSEG_CPU": name},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    flag = {"portable": "", "avx2": " avx2 ", "avx512": " avx512vl "}[name]
    if flag not in Path("/proc/cpuinfo").read_text():
        pytest.skip(f"this processor has no {name}")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logits_that_are_not_finite_name_their_tile(
    value: float, dtype: npt.DTypeLike
) -> None:
    grid = TileGrid(40, 40, 16, 12)
    tiles = draw_tiles(grid, 4, 3, dtype=dtype)
    tiles[1, 2][2, 3, 0] = value
    with pytest.raises(BlendingError, match=r"tile \(1, 2\) at row 12, column 24 "):
        blend(tiles, grid)
    # Elsewhere it does not count.
    blend(tiles, grid, Window(0, 0, 12, 40))


def test_the_whole_range_of_finite_numbers_is_let_through() -> None:
    grid = TileGrid(40, 40, 16, 12)
    for dtype in (np.float16, np.float32):
        tiles = {
            place: np.full_like(tile, np.finfo(dtype).max / 4)
            for place, tile in draw_tiles(grid, 4, 3, dtype=dtype).items()
        }
        for tile in tiles.values():
            tile[1] = -tile[1]
        for space in SPACES:
            mask, confidence = blend(tiles, grid, space=space)
            assert (mask == 253).all()
            assert (confidence == 50).all()
            assert_equals_the_reference(tiles, grid, window="hann", space=space)


def test_small_numbers_of_float16_are_not_lost() -> None:
    grid = TileGrid(16, 16, 16, 16)
    tile = np.zeros((3, 16, 16), np.float16)
    tile[2] = np.nextafter(np.float16(0), np.float16(1))
    assert (blend({(0, 0): tile}, grid)[0] == 251).all()


@pytest.mark.parametrize("reference", [False, True])
def test_where_nothing_is_wanted_there_is_nodata(reference: bool) -> None:
    grid = TileGrid(40, 70, 16, 12)
    tiles = draw_tiles(grid, 4, 3)
    keep = draw_keep(grid.output)
    for own in (keep, np.zeros_like(keep)):
        for found in blend(tiles, grid, keep=own, reference=reference):
            np.testing.assert_array_equal(found == NODATA, ~own)


@pytest.mark.parametrize("reference", [False, True])
def test_a_pixel_wanted_where_no_tile_lies_is_a_mistake(reference: bool) -> None:
    grid = TileGrid(40, 70, 16, 12)
    tiles = dict(draw_tiles(grid, 4, 3))
    del tiles[1, 0]
    for row in range(16, 24):
        keep = np.zeros((40, 70), np.bool_)
        keep[row, 0] = True
        with pytest.raises(AssertionError, match="lies in a tile"):
            blend(tiles, grid, keep=keep, reference=reference)
    keep[:] = True
    keep[grid.tile(1, 0).slices] = False
    blend(tiles, grid, keep=keep, reference=reference)


@pytest.mark.parametrize("reference", [False, True])
def test_confidence_is_left_out_when_it_is_not_wanted(
    reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reference:
        monkeypatch.setattr(native, "library", lambda: None)
    grid = TileGrid(40, 70, 16, 12)
    tiles = draw_tiles(grid, 4, 3)
    keep, ids = draw_keep(grid.output), np.arange(3, dtype=np.uint8)
    results = [
        blend_classes(tiles, grid, grid.output, keep=keep, ids=ids, confidence=wanted)
        for wanted in (True, False)
    ]
    assert results[1][1] is None
    np.testing.assert_array_equal(results[0][0], results[1][0])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("num_classes", [1, 5, 9, 64])
def test_scores_give_the_bytes_of_the_reference(
    num_classes: int, space: BlendSpace
) -> None:
    grid = TileGrid(61, 170, 32, 24)
    tiles = draw_tiles(grid, 8, num_classes)
    keep, found = draw_keep(grid.output), []
    for reference in (False, True):
        scores = np.empty((num_classes, 61, 170), np.uint8)
        masks = [
            blend(tiles, grid, space=space, keep=keep, reference=reference, scores=out)
            for out in (None, scores)
        ]
        np.testing.assert_array_equal(masks[0], masks[1])
        found.append(scores)
    np.testing.assert_array_equal(found[0], found[1])
    assert (scores[:, ~keep] == NODATA).all()
    np.testing.assert_array_equal(scores.max(axis=0), masks[0][1])


def test_an_empty_output_gives_empty_arrays() -> None:
    grid = TileGrid(30, 20, 16, 12)
    for height, width in ((0, 20), (5, 0)):
        output = Window(3, 0, height, width)
        keep = np.ones((height, width), np.bool_)
        mask, _ = blend(draw_tiles(grid, 4, 3), grid, output, keep=keep)
        assert mask.shape == (height, width)


def test_more_classes_than_a_class_mask_holds_are_refused() -> None:
    grid = TileGrid(30, 20, 16, 12)
    keep = np.ones((30, 20), np.bool_)
    ids = np.zeros(256, np.uint8)
    with pytest.raises(BlendingError, match="256 classes"):
        blend_classes(draw_tiles(grid, 2, 256), grid, grid.output, keep=keep, ids=ids)
    with pytest.raises(BlendingError, match="of 3 classes and names 4"):
        blend_classes(draw_tiles(grid, 2, 3), grid, grid.output, keep=keep, ids=ids[:4])


def test_tiles_in_any_memory_layout_give_the_same() -> None:
    grid = TileGrid(40, 70, 16, 12)
    tiles = draw_tiles(grid, 4, 3)
    strided = {
        place: np.asfortranarray(np.repeat(tile, 2, axis=0))[::2]
        for place, tile in tiles.items()
    }
    for found, expected in zip(blend(strided, grid), blend(tiles, grid), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_memory_is_bounded_by_a_strip(tmp_path: Path) -> None:
    # The high-water mark of a process is of all its life: one of its own.
    code = """
        import resource, sys
        import numpy as np
        from geoseg.blending import blend_classes
        from geoseg.tiling import TileGrid
        def blend(height, width):
            grid = TileGrid(height, width, 720, 624)
            tile = np.zeros((20, 180, 180), np.float16)
            rows, cols = range(len(grid.rows)), range(len(grid.cols))
            return blend_classes(
                {(i, j): tile for i in rows for j in cols}, grid, grid.output,
                keep=np.ones((height, width), bool), ids=np.arange(20, dtype=np.uint8),
            )
        blend(100, 700)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = blend(1000, 9000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        capture_output=True,
        text=True,
        check=True,
    )
    # Mask, confidence and keep are 27 MB; all logits would be 720.
    assert int(done.stdout) < 40_000
