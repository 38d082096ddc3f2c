"""All labels are looked at once: what is counted, where, and what is told of it."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import labelled_files
import numpy as np
import numpy.typing as npt
import pytest
from affine import Affine
from PIL import Image
from rasters import write_raster
from training_runs import SPEC

from geoseg.data import survey
from geoseg.data.coarser import as_processed
from geoseg.data.config import DataConfig
from geoseg.data.files import FileScene, open_file_scene
from geoseg.data.labelled import LabelledPixels, LabelledScene, LabelledSource
from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.grid import Grid, Window

ONE_METRE = dataclasses.replace(SPEC, resolution=1.0)


class Watched:
    """A scene that remembers how it is read."""

    def __init__(self, labels: npt.NDArray[np.uint8]) -> None:
        image = np.zeros((3, *labels.shape), np.uint8)
        self._scene = LabelledScene("watched", image, labels)
        self.name, self.path, self.scale = "watched", None, 255.0
        self.grid: Grid = self._scene.grid
        self.reads: list[tuple[str, Window]] = []

    def read(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> LabelledPixels:
        """Cut a window out."""
        self.reads.append(("all", window))
        return self._scene.read(window, unknown)

    def read_labels(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Cut a window of the labels out."""
        self.reads.append(("labels", window))
        return self._scene.read_labels(window, unknown)


def pair(
    root: Path,
    ids: npt.NDArray[np.uint8],
    *,
    name: str = "one",
    edge: float = 1.0,
    shown: npt.NDArray[np.bool_] | None = None,
    **changes: Any,  # noqa: ANN401
) -> tuple[FileScene, DataConfig]:
    """Write a scene with pixels of some metres and open it."""
    image = np.full((3, *ids.shape), 9, np.uint8)
    place = Affine(edge, 0, 500000, 0, -edge, 4000000)
    path = write_raster(root / f"{name}.tif", image, transform=place, alpha=shown)
    labels = write_raster(root / f"{name}-mask.tif", ids, transform=place)
    config = labelled_files.data(root, **changes)
    return open_file_scene(name, path, labels, config), config


@pytest.mark.parametrize(("budget", "reads"), [(3 * 32 * 32, 30), (14 * 32 * 32, 5)])
def test_every_pixel_of_large_scenes_is_looked_at_by_strips(
    monkeypatch: pytest.MonkeyPatch, budget: int, reads: int
) -> None:
    monkeypatch.setattr(survey, "BLOCK", 32)
    monkeypatch.setattr(survey, "_ONE_BLOCK", 32 * 32)
    monkeypatch.setattr(survey, "_STRIP_PIXELS", budget)
    labels = np.random.default_rng(0).integers(0, 5, (300, 200)).astype(np.uint8)
    scene = Watched(labels)
    looked: list[int] = []
    seen = survey.survey_scene(scene, 4, looked=looked.append)
    # A read begins a PNG at its top: 96 + 96 + 8 pixels across, or two rows of blocks.
    assert len(looked) == len(scene.reads) == reads
    assert looked[-1] == labels.size
    assert max(window.height * window.width for _, window in scene.reads) <= budget
    covered = np.zeros(labels.shape, np.int64)
    last = (0, -1)
    for number, counts in enumerate(seen.counts):
        block = survey.block_at(scene.grid, number)
        covered[block.slices] += 1
        assert max(block.height, block.width) <= 32
        assert counts.tolist() == [(labels[block.slices] == k).sum() for k in range(4)]
        # Row by row, however it was read: chips are drawn by the number.
        assert (block.row, block.col) > last
        last = (block.row, block.col)
    assert (covered == 1).all()


def test_a_large_picture_is_not_begun_again_and_again() -> None:
    scene = Watched(np.zeros((6400, 6400), np.uint8))
    survey.survey_scene(scene, 2)
    assert len(scene.reads) == 3
    scene = Watched(np.zeros((1500, 600), np.uint8))
    assert survey.survey_scene(scene, 2).counts.tolist() == [[900_000, 0]]


def test_images_are_read_with_their_labels_and_once() -> None:
    scene = Watched(np.zeros((1200, 1000), np.uint8))
    looked: list[int] = []
    survey.survey_scene(scene, 2, looked=looked.append, images=True)
    assert [kind for kind, _ in scene.reads] == ["all"] * len(looked)
    scene.reads.clear()
    survey.survey_scene(scene, 2)
    assert {kind for kind, _ in scene.reads} == {"labels"}


def test_what_images_hide_does_not_count_where_they_are_read(tmp_path: Path) -> None:
    ids = np.repeat(np.array([1, 2, 7], np.uint8), 10)[None].repeat(20, 0)
    shown = np.ones((20, 30), np.bool_)
    shown[:, 15:] = False
    scene, config = pair(tmp_path, ids, shown=shown)
    with pytest.warns(GeosegWarning, match="validation scenes is road; .* judged by"):
        seen = survey.survey([scene], config, "validation", images=True)
    assert seen.totals.tolist() == [200, 100, 0]
    seen = survey.survey([scene], config)
    assert seen.totals.tolist() == [200, 200, 200]


def test_labels_without_a_meaning_are_told_of_below_hidden_pixels_too(
    tmp_path: Path,
) -> None:
    ids = np.full((10, 10), 1, np.uint8)
    ids[:3] = 99
    shown = np.ones((10, 10), np.bool_)
    shown[:5] = False
    scene, config = pair(tmp_path, ids, shown=shown)
    with pytest.raises(SceneError, match=r"30 pixels \(30\.00%\) .* 99 \(30\.00%\)"):
        survey.survey([scene], config, "validation", images=True)


@pytest.mark.parametrize("rows", [slice(100, 200), slice(0, 3), slice(299, 300)])
def test_labels_without_a_meaning_are_counted_on_the_files_grid(
    tmp_path: Path, rows: slice
) -> None:
    ids = np.ones((300, 300), np.uint8)
    ids[rows] = 99
    scene, config = pair(tmp_path, ids, edge=0.1)
    coarse = as_processed(scene, ONE_METRE)
    assert coarse.grid.shape == (30, 30)
    told = []
    for source in (scene, coarse):
        with pytest.raises(SceneError) as error:
            survey.survey([source], config, "validation", images=True)
        told.append(str(error.value))
    count = int((ids == 99).sum())
    assert told[0] == told[1]
    assert f": {count} pixels ({count / ids.size:.2%})" in told[1]


def test_seams_count_no_label_without_a_meaning_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "BLOCK", 4)
    monkeypatch.setattr(survey, "_ONE_BLOCK", 16)
    monkeypatch.setattr(survey, "_STRIP_PIXELS", 32)
    ids = np.full((50, 50), 99, np.uint8)
    ids[0] = 1
    scene, config = pair(tmp_path, ids, edge=0.37)
    coarse = as_processed(scene, ONE_METRE)
    with pytest.raises(SceneError, match=r"2450 pixels \(98\.00%\)"):
        survey.survey([coarse], config, "validation", images=True)


def test_a_coarser_scene_with_labels_without_a_meaning_is_no_bad_one(
    tmp_path: Path,
) -> None:
    ids = np.ones((30, 30), np.uint8)
    ids[0] = 99
    scene, config = pair(tmp_path, ids, edge=0.1, on_bad="skip")
    with pytest.raises(SceneError, match=r"30 pixels \(3\.33%\)"):
        survey.survey([as_processed(scene, ONE_METRE)], config, images=True)


def test_what_is_left_of_no_scene_is_told(tmp_path: Path) -> None:
    sources: list[LabelledSource] = []
    for name in ("a", "b"):
        scene, config = pair(
            tmp_path, np.ones((20, 20), np.uint8), name=name, on_bad="skip"
        )
        sources.append(scene)
        path = tmp_path / f"{name}.tif"
        path.write_bytes(path.read_bytes()[:300])
    told = r"^none of the 2 validation scenes can be used; the first: .*a\.tif cannot"
    with (
        pytest.warns(GeosegWarning, match="is left out"),
        pytest.raises(ConfigError, match=told),
    ):
        survey.survey(sources, config, "validation", images=True)
    with (
        warnings.catch_warnings(action="error"),
        pytest.raises(ConfigError, match=r"^there is no validation scene; check"),
    ):
        survey.survey([], config, "validation")


def test_labels_of_a_scene_that_is_left_out_are_not_told_of(
    tmp_path: Path,
) -> None:
    mask = labelled_files.write_pair(tmp_path, "a")
    mask[5] = 99
    Image.fromarray(mask).save(tmp_path / "masks/a.png")
    labelled_files.write_pair(tmp_path, "b", seed=1)
    config = labelled_files.data(tmp_path, on_bad="skip")
    images, masks = tmp_path / "images", tmp_path / "masks"
    scenes = [
        open_file_scene(name, images / f"{name}.png", masks / f"{name}.png", config)
        for name in ("a", "b")
    ]
    image = images / "a.png"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.warns(GeosegWarning, match=r"^a is left out: .*images/a\.png cannot"):
        seen = survey.survey(scenes, config, "validation", images=True)
    assert [source.name for source in seen.sources] == ["b"]
