"""The tile of a place is the one that decides its class; bad places are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from rasters import ROTATED, rgb_spec, write_raster
from torch import nn

from geoseg.errors import ExplainError
from geoseg.explain.subject import Subject, find_place, find_window, read_subject
from geoseg.grid import Window
from geoseg.inference import Predictor, PredictorConfig
from geoseg.io.raster import Scene, open_scene
from geoseg.tiling import TileGrid

TILE = 32


def scene_of(tmp_path: Path, height: int = 80, width: int = 80) -> Scene:
    """Return a rotated scene whose last 20 columns hold no data."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 255, (3, height, width)).astype(np.uint8)
    pixels[:, :, width - 20 :] = 0
    path = write_raster(tmp_path / "scene.tif", pixels, transform=ROTATED, nodata=0)
    return open_scene(path, rgb_spec())


def read(scene: Scene, place: tuple[int, int]) -> Subject:
    config = PredictorConfig("", "", TILE)
    predictor = Predictor(nn.Identity(), rgb_spec(), config)
    tiles = TileGrid(scene.grid.height, scene.grid.width, TILE, 16)
    return read_subject(scene, place, tiles, predictor)


@pytest.mark.parametrize(
    ("place", "window", "own"),
    [
        ((0, 0), (0, 0), (0, 0)),
        ((33, 20), (16, 0), (17, 20)),  # Centres of columns are 16 and 32.
        ((79, 25), (48, 16), (31, 9)),
    ],
)
def test_the_tile_is_the_one_with_the_nearest_centre(
    tmp_path: Path,
    place: tuple[int, int],
    window: tuple[int, int],
    own: tuple[int, int],
) -> None:
    subject = read(scene_of(tmp_path), place)
    assert subject.window == Window(*window, TILE, TILE)
    assert subject.place == own
    assert subject.images.shape == (1, 3, TILE, TILE)


def test_the_model_gets_what_it_gets_in_segment(tmp_path: Path) -> None:
    scene = scene_of(tmp_path)
    subject = read(scene, (10, 50))
    values = torch.from_numpy(subject.pixels.values.astype(np.float32))
    expected = (values / 255 - 0.5) / 0.2
    expected[:, ~torch.from_numpy(subject.pixels.valid)] = 0
    torch.testing.assert_close(subject.images[0], expected)


def test_cells_lie_where_their_pixels_do(tmp_path: Path) -> None:
    subject = read(scene_of(tmp_path), (33, 20))
    cells = subject.cells((2, 2))
    # The second cell's corner is 16 pixels into the tile at row 16, column 0.
    assert cells.transform @ (1, 1) == pytest.approx(ROTATED @ (16, 32))


def test_a_scene_smaller_than_a_tile_is_shown_without_its_padding(
    tmp_path: Path,
) -> None:
    subject = read(scene_of(tmp_path, 20, 50), (5, 5))
    assert subject.window.height == 20
    assert subject.inside((2, 2)).tolist() == [[True, True], [False, False]]
    assert subject.images.shape == (1, 3, TILE, TILE)


def test_a_place_outside_is_told_with_the_bounds(tmp_path: Path) -> None:
    grid = scene_of(tmp_path).grid
    assert find_place(grid, ROTATED @ (7.5, 3.5), "scene") == (3, 7)
    with pytest.raises(
        ExplainError, match=r"outside scene, which reaches from 500000 to 5000"
    ):
        find_place(grid, (0, 0), "scene")


def test_a_place_on_nodata_is_told_with_the_nearest_data(tmp_path: Path) -> None:
    scene = scene_of(tmp_path)
    x, y = ROTATED @ (59.5, 40.5)
    with pytest.raises(ExplainError, match=f"nearest place.*{x:.10g},{y:.10g}"):
        read(scene, (40, 66))
    pixels = np.zeros((3, 40, 40), np.uint8)
    path = write_raster(tmp_path / "empty.tif", pixels, nodata=0)
    with pytest.raises(ExplainError, match="none at all"):
        read(open_scene(path, rgb_spec()), (3, 3))


def test_a_window_is_found_in_a_rotated_scene(tmp_path: Path) -> None:
    grid = scene_of(tmp_path).grid
    left, bottom, right, top = grid.window(Window(10, 20, 4, 4)).bounds
    window = find_window(grid, (left, bottom, right, top), "scene")
    assert window.contains(Window(10, 20, 4, 4))
    with pytest.raises(ExplainError, match="holds no pixel of scene"):
        find_window(grid, (0, 0, 1, 1), "scene")
    with pytest.raises(ExplainError, match="holds no pixel of scene"):
        find_window(grid, (right, bottom, left, top), "scene")
