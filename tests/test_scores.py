"""The raster of all classes' scores, from parts to the COG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from rasters import write_raster
from running import load_predictor, plan_job, read_band, segment_plainly, smooth_image
from stubs import save_stub

from geoseg import scoring
from geoseg.graph import find_part, part_path, run_scene
from geoseg.io.stac import read_item
from geoseg.tiling import TileGrid
from geoseg.types import NODATA

WANTED = {"output": {"save_scores": True}}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    image = smooth_image(301, 250, sigma=4)
    image[:, 90:170, 70:140] = 0
    return write_raster(folder / "scene.tif", image, nodata=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stub") / "model"
    return save_stub(folder, kind="levels", output_stride=4)


def read_scores(folder: Path) -> npt.NDArray[np.uint8]:
    """Read all bands, shape (K, height, width)."""
    with rasterio.open(folder / "scores.tif") as dataset:
        scores: npt.NDArray[np.uint8] = dataset.read()
    return scores


def test_each_class_has_a_band_of_its_percent(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    job = plan_job(scene, tmp_path / "plan", model)
    [result] = segment_plainly(scene, tmp_path / "out", model, WANTED)
    folder = Path(result.folder)
    mask, scores = read_band(folder / "classes.tif"), read_scores(folder)
    with rasterio.open(folder / "scores.tif") as dataset:
        assert dataset.descriptions == tuple(entry.name for entry in job.classes)
        assert dataset.nodatavals == (NODATA,) * len(job.classes)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.overviews(1) or max(dataset.shape) <= 512
    kept = mask != NODATA
    assert not kept.all()
    assert (scores[:, ~kept] == NODATA).all()
    np.testing.assert_array_equal(
        scores.max(axis=0), read_band(folder / "confidence.tif")
    )
    total = scores[:, kept].astype(int).sum(axis=0)
    assert (np.abs(total - 100) <= len(scores) / 2).all()
    ids = np.array([entry.id for entry in job.classes])
    second, first = np.sort(scores, axis=0)[-2:]
    clear = kept & (first > second)
    assert clear.any()
    np.testing.assert_array_equal(ids[scores.argmax(axis=0)][clear], mask[clear])
    assert "scores" in read_item(folder / "item.json")["assets"]


def test_scores_do_not_depend_on_bands_and_blocks(
    tmp_path: Path, scene: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [whole] = segment_plainly(scene, tmp_path / "whole", model, WANTED)
    split = TileGrid.bands
    monkeypatch.setattr(TileGrid, "bands", lambda grid, **_: split(grid, 2))
    monkeypatch.setattr(scoring, "_MOST_BYTES", 5 * 250 * 3)
    [cut] = segment_plainly(scene, tmp_path / "cut", model, WANTED)
    for name in ("classes.tif", "confidence.tif"):
        np.testing.assert_array_equal(
            read_band(Path(cut.folder) / name), read_band(Path(whole.folder) / name)
        )
    np.testing.assert_array_equal(
        read_scores(Path(cut.folder)), read_scores(Path(whole.folder))
    )


def test_scores_go_when_they_are_not_wanted_any_more(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    out = tmp_path / "out"
    [result] = segment_plainly(scene, out, model, WANTED)
    assert (Path(result.folder) / "scores.tif").exists()
    [again] = segment_plainly(scene, out, model)
    assert again.key != result.key
    assert not (Path(again.folder) / "scores.tif").exists()


def test_scores_alone_are_enough(tmp_path: Path, scene: Path, model: Path) -> None:
    alone = {"save_scores": True, "confidence": False, "polygons": False}
    results = [
        *segment_plainly(scene, tmp_path / "alone", model, {"output": alone}),
        *segment_plainly(scene, tmp_path / "all", model, WANTED),
    ]
    found, expected = (read_scores(Path(result.folder)) for result in results)
    np.testing.assert_array_equal(found, expected)


def test_a_part_with_damaged_scores_is_made_again(
    tmp_path: Path, scene: Path, model: Path
) -> None:
    job = plan_job(scene, tmp_path / "out", model, WANTED)
    records = run_scene(job, load_predictor(model))
    assert find_part(job, 0) == records[0]
    path = part_path(job, 0, "scores.tif")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    assert find_part(job, 0) is None
    path.unlink()
    assert find_part(job, 0) is None
