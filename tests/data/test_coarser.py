"""Finer scenes are seen on the grid that inference reads them on, window by window."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from pathlib import Path

import labelled_files
import labelled_scenes
import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasters import write_raster
from training_runs import SPEC

from geoseg.data import coarser
from geoseg.data.coarser import as_processed, on_processed_grids
from geoseg.data.files import FileScene, open_file_scene
from geoseg.data.labelled import IGNORE, LabelledScene
from geoseg.errors import GeosegWarning, SceneError
from geoseg.evaluation.overlay import Overlay
from geoseg.grid import Window
from geoseg.io.raster import SceneReader, open_scene

HEIGHT, WIDTH = 110, 96
ONE_METRE = dataclasses.replace(SPEC, resolution=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where scenes are written, the next over the last."""
    return tmp_path_factory.mktemp("fine")


def placed(
    folder: Path,
    edge: float,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    shown: npt.NDArray[np.bool_] | None = None,
) -> FileScene:
    """Write a scene with pixels of some metres, each with a label of its own."""
    place = Affine(edge, 0, 500000, 0, -edge, 4000000)
    image, _ = labelled_scenes.draw(height, width)
    path = write_raster(folder / "fine.tif", image, transform=place, alpha=shown)
    ids = np.random.default_rng(0).choice([0, 1, 2, 7], (height, width))
    mask = write_raster(folder / "mask.tif", ids.astype(np.uint8), transform=place)
    return open_file_scene("fine", path, mask, labelled_files.data(folder))


def scattered(share: float) -> npt.NDArray[np.bool_]:
    """Hide a share of all pixels, anywhere."""
    return np.random.default_rng(1).random((HEIGHT, WIDTH)) >= share


@dataclasses.dataclass
class Watched:
    """`Labels` that remember what is read of them."""

    windows: list[Window] = dataclasses.field(default_factory=list)

    def read(self, window: Window) -> tuple[npt.NDArray[np.uint8], Counter[str]]:
        """Return labels that tell their place."""
        self.windows.append(window)
        labels = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) % 250
        return labels.astype(np.uint8)[window.slices], Counter()


def test_a_scene_of_about_the_models_resolution_is_itself(folder: Path) -> None:
    scene = placed(folder, 0.7)
    assert as_processed(scene, ONE_METRE) is scene
    scene = placed(folder, 2.0)
    with pytest.warns(GeosegWarning, match=r"is 1 m: scores may be poor"):
        assert as_processed(scene, ONE_METRE) is scene
    image, labels = labelled_scenes.draw(9, 9)
    picture = LabelledScene("in memory", image, labels)
    assert as_processed(picture, ONE_METRE) is picture


@pytest.mark.parametrize("edge", [0.7, 0.9, 1.2])
def test_a_scene_of_one_pixel_runs_as_segment_runs_it(
    folder: Path, edge: float
) -> None:
    scene = placed(folder, edge, height=1, width=1)
    assert as_processed(scene, ONE_METRE) is scene
    with warnings.catch_warnings(action="error"):
        assert open_scene(folder / "fine.tif", ONE_METRE).grid == scene.grid


def test_scenes_that_are_too_small_end_it_or_are_left_out(folder: Path) -> None:
    large = placed(folder, 0.7)
    small = dataclasses.replace(placed(folder, 0.4, height=2, width=1), name="tiny")
    with pytest.raises(SceneError, match=r"^tiny is smaller than one pixel of 1 m"):
        on_processed_grids([large, small], ONE_METRE, "fail")
    with pytest.warns(GeosegWarning, match="^tiny is left out: tiny is smaller"):
        assert on_processed_grids([small, large], ONE_METRE, "skip") == [large]


@pytest.mark.parametrize("edge", [0.5, 0.37])
def test_the_image_is_what_inference_reads(folder: Path, edge: float) -> None:
    scene = placed(folder, edge)
    found = as_processed(scene, ONE_METRE)
    opened = open_scene(folder / "fine.tif", ONE_METRE)
    assert found.grid.transform == opened.grid.transform
    assert (
        found.grid.shape == opened.grid.shape == found.read(found.grid.whole)[1].shape
    )
    with SceneReader(opened) as reader:
        wanted = reader.read(opened.grid.whole)
    np.testing.assert_array_equal(found.read(found.grid.whole)[0], wanted.values)


@pytest.mark.parametrize("edge", [0.5, 1 / 3, 0.37])
def test_what_holds_no_data_counts_as_little_as_in_inference(
    folder: Path, edge: float
) -> None:
    shown = np.ones((HEIGHT, WIDTH), np.bool_)
    shown[:31, :47] = False
    scene = as_processed(placed(folder, edge, shown=shown), ONE_METRE)
    opened = open_scene(folder / "fine.tif", ONE_METRE)
    with SceneReader(opened) as reader:
        wanted = reader.read(opened.grid.whole)
    found = scene.read(scene.grid.whole)
    np.testing.assert_array_equal(found.valid, wanted.valid)
    seen = wanted.values[:, wanted.valid]
    np.testing.assert_array_equal(found.values[:, found.valid], seen)
    assert not found.valid.all()
    np.testing.assert_array_equal(found.values[:, ~found.valid], np.float32(127.5))
    assert (found.labels[~found.valid] == IGNORE).all()
    assert (found.labels != IGNORE).any()


@settings(max_examples=40)
@given(edge=st.floats(0.05, 0.66))
@example(edge=1 / 3)
@example(edge=0.357)  # 2.8 to 1: centres lie on edges of pixels, but for rounding
def test_a_label_is_the_one_that_evaluation_compares(folder: Path, edge: float) -> None:
    fine = placed(folder, edge, shown=scattered(0.3))
    scene = as_processed(fine, ONE_METRE)
    overlay = Overlay(scene.grid, fine.grid, "fine")
    wanted = overlay.read(scene.grid.whole, fine.read_labels)
    np.testing.assert_array_equal(scene.read_labels(scene.grid.whole), wanted)
    # A label counts wherever production predicts, also where its own pixel is hidden.
    _, labels, valid = scene.read(scene.grid.whole)
    np.testing.assert_array_equal(labels, np.where(valid, wanted, IGNORE))


def test_a_pixel_without_data_has_no_label_although_its_centre_has(
    folder: Path,
) -> None:
    shown = np.zeros((HEIGHT, WIDTH), np.bool_)
    shown[1::3, 1::3] = True
    fine = placed(folder, 1 / 3, shown=shown)
    scene = as_processed(fine, ONE_METRE)
    assert (fine.read(fine.grid.whole).labels != IGNORE).any()
    assert (scene.read(scene.grid.whole).labels[:-1] == IGNORE).all()


def test_a_label_is_that_of_a_pixels_centre(folder: Path) -> None:
    scene = placed(folder, 1 / 3)
    found = as_processed(scene, ONE_METRE)
    # Of three by three pixels the one in the middle; 110 rows end amid a pixel.
    wanted = scene.read_labels(scene.grid.whole)[1::3, 1::3]
    np.testing.assert_array_equal(found.read(found.grid.whole)[1], wanted)
    np.testing.assert_array_equal(found.read_labels(found.grid.whole), wanted)


@settings(max_examples=40)
@given(data=st.data(), edge=st.floats(0.05, 0.66))
def test_no_window_differs_from_the_whole(
    folder: Path, data: st.DataObject, edge: float
) -> None:
    scene = as_processed(placed(folder, edge, shown=scattered(0.45)), ONE_METRE)
    height, width = scene.grid.shape
    image, labels, valid = scene.read(scene.grid.whole)
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
    part, marks, there = scene.read(window)
    np.testing.assert_array_equal(part, image[:, *window.slices])
    np.testing.assert_array_equal(marks, labels[window.slices])
    np.testing.assert_array_equal(there, valid[window.slices])
    marks = scene.read_labels(window)
    np.testing.assert_array_equal(marks[there], labels[window.slices][there])


def test_labels_without_a_meaning_are_found_wherever_a_window_lies(
    folder: Path,
) -> None:
    fine = placed(folder, 0.1, height=60, width=60)
    ids = np.ones((60, 60), np.uint8)
    ids[10:13] = 99  # the centres of rows of ten pixels are 5 and 15
    write_raster(folder / "mask.tif", ids, transform=fine.grid.transform)
    scene = as_processed(fine, ONE_METRE)
    for read in (scene.read, scene.read_labels):
        with pytest.raises(SceneError, match=r"90 pixels .* 99 \(30\.00%\)"):
            read(Window(1, 2, 1, 3))
        read(Window(2, 0, 4, 6))
        unknown: Counter[str] = Counter()
        read(Window(1, 2, 1, 3), unknown)
        assert unknown == {"99": 90}
    assert (scene.read_labels(scene.grid.whole, unknown) != IGNORE).all()


def test_no_more_than_a_strip_is_held(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched()
    fine = dataclasses.replace(placed(folder, 0.25), labels=watched)
    scene = as_processed(fine, ONE_METRE)
    whole = scene.read(scene.grid.whole).labels
    assert len(watched.windows) == 1
    watched.windows.clear()
    monkeypatch.setattr(coarser, "_STRIP_PIXELS", 15 * WIDTH)
    monkeypatch.setattr(coarser, "_BLOCK", 6)
    np.testing.assert_array_equal(scene.read_labels(scene.grid.whole), whole)
    heights = [window.height for window in watched.windows]
    assert heights == [12] * 9 + [2]
    # From where a window begins to the next row of the file's blocks.
    watched.windows.clear()
    part = scene.read_labels(Window(2, 0, 20, WIDTH // 4))
    np.testing.assert_array_equal(part, whole[2:22])
    rows = [window.row for window in watched.windows]
    assert rows == [8, 12, 24, 36, 48, 60, 72, 84]
    # Of a corner only what lies under it, and that once.
    watched.windows.clear()
    np.testing.assert_array_equal(scene.read_labels(Window(0, 0, 3, 4)), whole[:3, :4])
    assert watched.windows == [Window(0, 0, 12, 16)]
