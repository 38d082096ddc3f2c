"""Finer scenes are seen on the grid that inference reads them on, window by window."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import labelled_files
import labelled_scenes
import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from labelled_scenes import PlacedScene
from rasterio.crs import CRS
from rasters import write_raster
from training_runs import SPEC

from geoseg.data import coarser
from geoseg.data.coarser import CoarserScene, as_processed
from geoseg.data.files import open_file_scene
from geoseg.data.labelled import IGNORE, LabelledScene
from geoseg.errors import GeosegWarning
from geoseg.evaluation.overlay import Overlay
from geoseg.grid import Grid, Window
from geoseg.io.raster import SceneReader, open_scene

UTM = CRS.from_epsg(32631).to_wkt()
HEIGHT, WIDTH = 110, 96
ONE_METRE = dataclasses.replace(SPEC, resolution=1.0)


def placed(edge: float) -> PlacedScene:
    """Return a scene with pixels of some metres."""
    image, labels = labelled_scenes.draw(HEIGHT, WIDTH)
    place = Affine(edge, 0, 500000, 0, -edge, 4000000)
    made = LabelledScene("fine", image, labels)
    return PlacedScene(made, Grid(HEIGHT, WIDTH, place, UTM))


def test_a_scene_of_about_the_models_resolution_is_itself() -> None:
    scene = placed(0.7)
    assert as_processed(scene, ONE_METRE) is scene
    scene = placed(2.0)
    with pytest.warns(GeosegWarning, match=r"is 1 m: scores may be poor"):
        assert as_processed(scene, ONE_METRE) is scene


@pytest.mark.parametrize("edge", [0.5, 0.37])
def test_the_image_is_what_inference_reads(tmp_path: Path, edge: float) -> None:
    scene = placed(edge)
    image = scene.read(scene.grid.whole).values
    path = tmp_path / "scene.tif"
    write_raster(path, image, transform=scene.grid.transform, crs="EPSG:32631")
    found = as_processed(scene, ONE_METRE)
    opened = open_scene(path, ONE_METRE)
    assert found.grid.transform == opened.grid.transform
    assert (
        found.grid.shape == opened.grid.shape == found.read(found.grid.whole)[1].shape
    )
    with SceneReader(opened) as reader:
        wanted = reader.read(opened.grid.whole)
    np.testing.assert_array_equal(found.read(found.grid.whole)[0], wanted.values)


@pytest.mark.parametrize("edge", [0.5, 1 / 3, 0.37])
def test_what_holds_no_data_counts_as_little_as_in_inference(
    tmp_path: Path, edge: float
) -> None:
    made = placed(edge)
    image = made.read(made.grid.whole).values.copy()
    image[:, :31, :47] = 0
    path = tmp_path / "scene.tif"
    place = made.grid.transform
    write_raster(path, image, transform=place, crs="EPSG:32631", nodata=0)
    mask = tmp_path / "mask.tif"
    ids = labelled_files.values(HEIGHT, WIDTH)
    write_raster(mask, ids, transform=place, crs="EPSG:32631")
    config = labelled_files.data(tmp_path)
    scene = as_processed(open_file_scene("scene", path, mask, config), ONE_METRE)
    opened = open_scene(path, ONE_METRE)
    with SceneReader(opened) as reader:
        wanted = reader.read(opened.grid.whole)
    found = scene.read(scene.grid.whole)
    np.testing.assert_array_equal(found.valid, wanted.valid)
    seen = wanted.values[:, wanted.valid]
    np.testing.assert_array_equal(found.values[:, found.valid], seen)
    hidden = np.asarray(found.values[:, ~found.valid], np.float32)
    mean = np.array(SPEC.mean, np.float32) * np.float32(255)
    np.testing.assert_allclose(hidden, mean[:, None].repeat(hidden.shape[1], 1))
    assert (found.labels[~found.valid] == IGNORE).all()
    assert (found.labels != IGNORE).any()


@given(edge=st.floats(0.05, 0.66))
def test_a_label_is_the_one_that_evaluation_compares(edge: float) -> None:
    fine = placed(edge)
    scene = as_processed(fine, ONE_METRE)
    overlay = Overlay(scene.grid, fine.grid, "fine")
    wanted = overlay.read(scene.grid.whole, fine.read_labels)
    np.testing.assert_array_equal(scene.read_labels(scene.grid.whole), wanted)


def test_a_label_is_that_of_a_pixels_centre() -> None:
    scene = placed(1 / 3)
    found = as_processed(scene, ONE_METRE)
    # Of three by three pixels the one in the middle; 110 rows end amid a pixel.
    wanted = scene.read_labels(scene.grid.whole)[1::3, 1::3]
    np.testing.assert_array_equal(found.read(found.grid.whole)[1], wanted)
    np.testing.assert_array_equal(found.read_labels(found.grid.whole), wanted)


@given(data=st.data(), edge=st.floats(0.05, 0.66))
def test_no_window_differs_from_the_whole(data: st.DataObject, edge: float) -> None:
    scene = as_processed(placed(edge), ONE_METRE)
    height, width = scene.grid.shape
    image, labels, _ = scene.read(scene.grid.whole)
    row, col = (
        data.draw(st.integers(0, height - 1)),
        data.draw(st.integers(0, width - 1)),
    )
    window = Window(
        row,
        col,
        data.draw(st.integers(1, height - row)),
        data.draw(st.integers(1, width - col)),
    )
    part, marks, _ = scene.read(window)
    np.testing.assert_array_equal(part, image[:, *window.slices])
    np.testing.assert_array_equal(marks, labels[window.slices])
    np.testing.assert_array_equal(scene.read_labels(window), labels[window.slices])


def test_no_more_than_a_strip_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    source = placed(0.25)
    scene = as_processed(source, ONE_METRE)
    assert isinstance(scene, CoarserScene)
    whole = scene.read(scene.grid.whole)
    source.windows.clear()
    monkeypatch.setattr(coarser, "_STRIP_PIXELS", 5 * WIDTH)
    image, labels, _ = scene.read(scene.grid.whole)
    np.testing.assert_array_equal(image, whole[0])
    np.testing.assert_array_equal(labels, whole[1])
    np.testing.assert_array_equal(scene.read_labels(scene.grid.whole), whole[1])
    assert max(window.height for window in source.windows) == 5
    # Of a corner only what lies under it and a pixel beside it, and that once.
    source.windows.clear()
    scene.read(Window(0, 0, 3, 4))
    assert sum(window.height for window in source.windows) <= 3 * 4 + 1
    assert max(window.width for window in source.windows) <= 4 * 4 + 1
