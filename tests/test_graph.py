"""One scene in a plain loop: what predicting and blending bands must keep."""

from __future__ import annotations

import errno
import os
import pickle
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import shapely
from affine import Affine
from rasters import NORTH_UP, UTM, write_raster
from running import (
    STRIDE,
    TILE,
    fingerprint,
    load_predictor,
    plan_job,
    read_band,
    segment_plainly,
    smooth_image,
)
from stubs import clear_log, logged_tiles, save_stub

from geoseg import graph
from geoseg.errors import BlendingError, SceneError
from geoseg.finish import finish_scene
from geoseg.graph import (
    blend_band,
    find_part,
    part_path,
    predict_band,
    run_scene,
)
from geoseg.inference import TileInput
from geoseg.tiling import Band, TileGrid
from geoseg.types import NODATA

SPLITS = [1, 3, 24, 1000]
"""Tiles of a band, about."""


@pytest.fixture
def band_split(monkeypatch: pytest.MonkeyPatch, request: Any) -> None:  # noqa: ANN401
    split = TileGrid.bands

    def bands(grid: TileGrid, *, whole_rows: bool) -> tuple[Band, ...]:
        return split(grid, request.param, whole_rows=whole_rows)

    monkeypatch.setattr(TileGrid, "bands", bands)


@pytest.fixture(scope="module")
def speckled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scene with a hole and polygons that cross every band, and its model."""
    folder = tmp_path_factory.mktemp("speckled")
    image = smooth_image(301, 250, sigma=4)
    image[:, 90:170, 70:140] = 0
    scene = write_raster(folder / "scene.tif", image, nodata=0)
    return scene, save_stub(folder / "model", kind="levels", output_stride=4)


@pytest.fixture(scope="module")
def whole(
    speckled: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, ...]:
    [result] = segment_plainly(speckled[0], tmp_path_factory.mktemp("out"), speckled[1])
    return fingerprint(Path(result.folder))


@pytest.mark.parametrize("band_split", SPLITS, indirect=True)
@pytest.mark.usefixtures("band_split")
def test_results_do_not_depend_on_how_a_scene_is_cut_into_bands(
    tmp_path: Path, speckled: tuple[Path, Path], whole: tuple[Any, ...]
) -> None:
    [result] = segment_plainly(speckled[0], tmp_path / "out", speckled[1])
    assert fingerprint(Path(result.folder)) == whole
    assert result.tiles == 6 * 5


@pytest.mark.parametrize("band_split", [2], indirect=True)
@pytest.mark.usefixtures("band_split")
def test_results_do_not_depend_on_the_order_of_bands(
    tmp_path: Path, speckled: tuple[Path, Path], whole: tuple[Any, ...]
) -> None:
    scene, model = speckled
    job, predictor = plan_job(scene, tmp_path / "out", model), load_predictor(model)
    order = np.random.default_rng(3).permutation(len(job.bands))
    ready = {int(i): predict_band(job, int(i), predictor) for i in order}
    for index in order[::-1]:
        band = job.bands[index]
        blend_band(job, band.index, [ready[need] for need in reversed(band.needs)])
    records = [find_part(job, band.index) for band in job.parts]
    finish_scene(job, [record for record in records if record is not None])
    assert fingerprint(Path(job.out)) == whole


@pytest.mark.parametrize("band_split", [3], indirect=True)
@pytest.mark.usefixtures("band_split")
def test_only_whole_parts_are_found_again(
    tmp_path: Path, speckled: tuple[Path, Path]
) -> None:
    scene, model = speckled
    job = plan_job(scene, tmp_path / "out", model)
    records = run_scene(job, load_predictor(model))
    assert [find_part(job, band.index) for band in job.parts] == records
    for suffix in ("classes.tif", "confidence.tif", "polygons.part", "json"):
        path = part_path(job, 0, suffix)
        content = path.read_bytes()
        path.unlink()
        assert find_part(job, 0) is None, suffix
        path.write_bytes(content)
        for damaged in (content[:-1], content[:-1] + b"?"):
            path.write_bytes(damaged)
            assert find_part(job, 0) is None, suffix
        path.write_bytes(content)
    part_path(job, 0, "json").write_text('{"index": 0')
    assert find_part(job, 0) is None
    assert find_part(job, 1) == records[1]


def hidden_scene(
    path: Path, how: str, hidden: npt.NDArray[np.bool_], fill: str
) -> Path:
    """Write a scene whose hidden pixels hold 0, 255, noise or NaN."""
    draw = np.random.default_rng(5)
    image = smooth_image(*hidden.shape).astype(np.float32 if how == "nan" else np.uint8)
    noise = draw.integers(1, 255, image.shape)
    values: dict[str, Any] = {"0": 0, "255": 255, "random": noise[:, hidden]}
    if how == "nan":
        # Hidden because one band is NaN; the others may hold anything.
        image[:, hidden] = values.get(fill, np.nan)
        image[0, hidden] = np.nan
        return write_raster(path, image)
    if how == "nodata":
        image[:, hidden] = int(fill)
        return write_raster(path, image, nodata=int(fill))
    image[:, hidden] = values[fill]
    if how == "alpha":
        return write_raster(path, image, alpha=~hidden)
    return write_raster(path, image, mask=~hidden)


def collar_and_hole(shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    rows, cols = np.indices(shape)
    hidden = (rows + cols < 90) | (cols > shape[1] - 7)
    hidden[100:113, 50:90] = True
    return hidden


@pytest.mark.parametrize(
    ("how", "fills"),
    [
        ("nodata", ("0", "255")),
        ("alpha", ("0", "255", "random")),
        ("mask", ("0", "255", "random")),
        ("nan", ("0", "255", "random", "nan")),
    ],
)
def test_what_nodata_hides_changes_nothing(
    tmp_path: Path, how: str, fills: tuple[str, ...]
) -> None:
    hidden = collar_and_hole((150, 170))
    model = save_stub(tmp_path / "model", output_stride=4, mean=(0.5, 0.5, 0.5))
    seen = []
    for fill in fills:
        scene = hidden_scene(tmp_path / f"{fill}.tif", how, hidden, fill)
        sections = {"input": {"scale": 255.0}}
        [result] = segment_plainly(scene, tmp_path / f"out-{fill}", model, sections)
        folder = Path(result.folder)
        for name in ("classes.tif", "confidence.tif"):
            assert ((read_band(folder / name) == NODATA) == hidden).all()
        seen.append(fingerprint(folder))
    assert all(one == seen[0] for one in seen)
    assert sum(pixels for _, pixels, _, _ in seen[0][2]) == (~hidden).sum()


def test_empty_tiles_never_reach_the_model(tmp_path: Path) -> None:
    image = np.zeros((3, 300, 300), np.uint8)
    image[:, 200:230, 200:230] = smooth_image(30, 30)
    scene = write_raster(tmp_path / "scene.tif", image, nodata=0)
    log = tmp_path / "log"
    model = save_stub(tmp_path / "model", log_folder=log)
    [result] = segment_plainly(scene, tmp_path / "out", model)
    # Tiles begin at 0, 48, 96, 144, 192 and 236; those at 144 and 192 hold the data.
    assert (result.tiles, result.skipped) == (36, 32)
    assert sum(logged_tiles(log).values()) == 4


def test_a_scene_without_any_data_is_whole_and_empty(tmp_path: Path) -> None:
    empty = np.zeros((3, 100, 100), np.uint8)
    scene = write_raster(tmp_path / "scene.tif", empty, nodata=0)
    model = save_stub(tmp_path / "model")
    [result] = segment_plainly(scene, tmp_path / "out", model)
    assert result.skipped == result.tiles == 4
    assert all(entry.pixels == entry.polygons == 0 for entry in result.classes)
    assert (read_band(Path(result.folder) / "classes.tif") == NODATA).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (5, 63), (64, 64), (65, 64)])
def test_scenes_of_any_size_work(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.full((3, *shape), 200, np.uint8)
    scene = write_raster(tmp_path / "scene.tif", image)
    model = save_stub(tmp_path / "model", kind="levels", output_stride=4)
    [result] = segment_plainly(scene, tmp_path / "out", model)
    assert (read_band(Path(result.folder) / "classes.tif") == 4).all()
    assert [entry.polygons for entry in result.classes] == [0, 0, 0, 1]


def write_area(path: Path, pixels: Sequence[tuple[float, float]]) -> Path:
    """Write a polygon given by (col, row) of a scene with the usual grid."""
    outline = shapely.Polygon([NORTH_UP @ point for point in pixels])
    gpd.GeoDataFrame(geometry=[outline], crs=UTM).to_file(path, driver="GPKG")
    return path


@pytest.mark.parametrize("band_split", [2, 24], indirect=True)
@pytest.mark.usefixtures("band_split")
def test_an_area_of_interest_changes_no_pixel_inside_it(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(301, 250))
    log = tmp_path / "log"
    model = save_stub(tmp_path / "model", output_stride=4, log_folder=log)
    [full] = segment_plainly(scene, tmp_path / "full", model)
    clear_log(log)
    corners = [(60, 140), (220, 90), (190, 240), (120, 200)]
    area = write_area(tmp_path / "area.gpkg", corners)
    sections = {"input": {"aoi": area}}
    job = plan_job(scene, tmp_path / "clipped", model, sections)
    assert job.scene.aoi is None, "the polygon travels with no task"
    clipped = finish_scene(job, run_scene(job, load_predictor(model)))
    region = job.grid.output
    rows, cols = region.slices
    for name in ("classes.tif", "confidence.tif"):
        inside = read_band(Path(clipped.folder) / name)
        outside = read_band(Path(full.folder) / name)[rows, cols]
        kept = inside != NODATA
        assert 0.2 < kept.mean() < 0.9
        assert (inside == outside)[kept].all()
    predicted = sum(logged_tiles(log).values())
    assert clipped.tiles - clipped.skipped == predicted
    assert clipped.tiles == sum(map(len, job.bands)) < full.tiles
    touching = [
        job.grid.tile(i, j).intersection(region)
        for i in range(len(job.grid.rows))
        for j in range(len(job.grid.cols))
    ]
    with_data = [
        window
        for window in touching
        if window and (inside[window.relative_to(region).slices] != NODATA).any()
    ]
    assert predicted == len(with_data) < len(touching)


def test_a_model_that_gives_nan_is_named_with_scene_and_tile(tmp_path: Path) -> None:
    image = smooth_image(150, 150)
    image[0, 100, 100] = 255
    scene = write_raster(tmp_path / "north.tif", image)
    model = save_stub(tmp_path / "model", fail_on=1.0, fail_by="nan")
    job = plan_job(scene, tmp_path / "out", model)
    with pytest.raises(BlendingError, match=r"scene north: .*tile \(1, 1\)"):
        run_scene(job, load_predictor(model))
    assert not Path(job.out).exists()


def test_a_full_disk_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(64, 64))
    job = plan_job(scene, tmp_path / "out", save_stub(tmp_path / "model"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(graph, "write_scratch", full)
    with pytest.raises(SceneError, match="No space left on device; free some space"):
        run_scene(job, Constant(4))
    assert not list(Path(job.work).glob("*"))


class Constant:
    """A predictor of a given number of classes that costs nothing."""

    def __init__(self, classes: int) -> None:
        self.logits = np.zeros((classes, TILE, TILE), np.float16)

    def predict(
        self, tiles: Iterator[TileInput], scale: float
    ) -> Iterator[npt.NDArray[np.float16]]:
        for _ in tiles:
            yield self.logits.copy()


def test_a_model_with_more_logits_than_classes_is_refused(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(64, 64))
    job = plan_job(scene, tmp_path / "out", save_stub(tmp_path / "model"))
    with pytest.raises(BlendingError, match="logits of 5 classes and names 4"):
        run_scene(job, Constant(5))


def peak_memory(tmp_path: Path, model: Path, height: int) -> int:
    """Bytes at the peak of predicting and blending a scene 4 tiles wide."""
    path = tmp_path / f"{height}.tif"
    image = np.full((3, height, 208), 90, np.uint8)
    scene = write_raster(path, image, tiled=True, blockxsize=256, blockysize=256)
    del image
    job = plan_job(scene, tmp_path / f"out-{height}", model)
    tracemalloc.start()
    try:
        run_scene(job, Constant(4))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    model = save_stub(tmp_path / "model")
    # Twice: the first run also imports and fills caches.
    peak_memory(tmp_path, model, height=4 * STRIDE + 16)
    # Several bands, so that some have others on both sides.
    small = peak_memory(tmp_path, model, height=16 * STRIDE + 16)
    large = peak_memory(tmp_path, model, height=64 * STRIDE + 16)
    # What is left grows by record: a hundred bytes for a band of 16 tiles.
    assert large < 1.25 * small


def test_a_job_travels_as_a_few_kilobytes(tmp_path: Path) -> None:
    image = np.broadcast_to(np.uint8(7), (3, 64, 9000))
    scene = write_raster(tmp_path / "scene.tif", image)
    model = save_stub(tmp_path / "model", num_classes=200)
    angles = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    ring = np.column_stack([4500 + 4000 * np.cos(angles), 32 + 30 * np.sin(angles)])
    area = write_area(tmp_path / "coast.gpkg", [(x, y) for x, y in ring])
    job = plan_job(scene, tmp_path / "out", model, {"input": {"aoi": area}})
    assert job.bands
    assert len(pickle.dumps(job)) < 32_000
    # Yet tasks know the area.
    assert predict_band(job, 0, Constant(200)).keep.any()


def test_tiles_that_regions_only_borrow_are_counted_once(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(400, 300))
    model = save_stub(tmp_path / "model")
    transform: Affine = NORTH_UP
    left, top = transform @ (120, 220)
    right, bottom = transform @ (180, 260)
    sections = {
        "input": {"bbox": (left, bottom, right, top)},
        "tiling": {"stride": 16},
    }
    job = plan_job(scene, tmp_path / "out", model, sections)
    # One tile row a band: several finish no pixel of the region.
    object.__setattr__(job, "bands", job.grid.bands(7))
    assert len(job.parts) < len(job.bands)
    records = run_scene(job, load_predictor(model))
    assert sum(record.tiles for record in records) == sum(map(len, job.bands))
    assert sum(record.skipped for record in records) == 0
    assert graph.last_uses(job)[0] >= job.parts[0].index


def test_an_input_that_is_replaced_during_a_run_fails_the_scene(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(150, 70))
    model = save_stub(tmp_path / "model")
    job, predictor = plan_job(scene, tmp_path / "out", model), load_predictor(model)
    records = run_scene(job, predictor)
    scene.unlink()
    write_raster(scene, smooth_image(150, 70, seed=1))
    with pytest.raises(SceneError, match="changed while it was read; run again"):
        predict_band(job, 0, predictor)
    with pytest.raises(SceneError, match="changed while it was read; run again"):
        finish_scene(job, records)
    assert not Path(job.out).exists()


def test_an_area_of_interest_is_told_by_its_content(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(70, 70))
    model = save_stub(tmp_path / "model")
    keys = []
    for name, size in (("a.gpkg", 60), ("b.gpkg", 60), ("a.gpkg", 50)):
        corners = [(5, 5), (size, 5), (size, size)]
        area = write_area(tmp_path / name, corners)
        sections = {"input": {"aoi": area}}
        keys.append(plan_job(scene, tmp_path / "out", model, sections).key)
    assert keys[0] == keys[1] != keys[2]
