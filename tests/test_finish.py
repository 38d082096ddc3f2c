"""Outputs of a scene: where they lie, what they hold, and when they are there."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from pystac.validation import validate_dict
from rasterio.features import rasterize
from rasters import GRIDS, write_raster
from running import (
    count_components,
    load_predictor,
    plan_job,
    polygon_set,
    read_band,
    read_segments,
    segment_plainly,
    smooth_image,
)
from stubs import save_stub

from geoseg import finish, tasks
from geoseg.errors import SceneError
from geoseg.finish import SceneResult, finish_scene, read_result
from geoseg.graph import SceneJob, part_path, run_scene
from geoseg.tasks import finish_task
from geoseg.types import NODATA

OUTPUTS = {"classes.tif", "confidence.tif", "segments.gpkg", "item.json"}

BESIDE = {"classes.tif.aux.xml", "classes.qml", "confidence.qml"}
"""What rasters open with."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose classes follow the red band."""
    folder = tmp_path_factory.mktemp("models") / "levels"
    return save_stub(folder, kind="levels", output_stride=4)


@pytest.fixture(scope="module")
def image() -> npt.NDArray[np.uint8]:
    """A smooth image with a hole, (3, 150, 130)."""
    pixels = smooth_image(150, 130, sigma=4)
    pixels[:, 40:70, 50:65] = 0
    return pixels


def rasterised(folder: Path, shape: tuple[int, int], transform: Affine) -> Any:  # noqa: ANN401 (an array)
    """Burn polygons into a grid, pixel centres deciding."""
    table = read_segments(folder)
    # In pixels: GDAL's rasteriser takes no rotated transform.
    inverse = ~transform
    in_pixels = shapely.transform(
        table.geometry.array,
        lambda xy: np.column_stack(inverse @ (xy[:, 0], xy[:, 1])),
    )
    return rasterize(
        zip(in_pixels, table.class_id, strict=True),
        out_shape=shape,
        fill=NODATA,
        transform=Affine.identity(),
        dtype="uint8",
    )


@pytest.mark.parametrize("name", GRIDS)
def test_outputs_lie_on_the_scene_and_polygons_give_the_mask_back(
    tmp_path: Path, model: Path, image: npt.NDArray[np.uint8], name: str
) -> None:
    crs, transform = GRIDS[name]
    scene = write_raster(
        tmp_path / "s.tif", image, crs=crs, transform=transform, nodata=0
    )
    [result] = segment_plainly(scene, tmp_path / "out", model)
    folder = Path(result.folder)
    for file in ("classes.tif", "confidence.tif"):
        with rasterio.open(folder / file) as dataset:
            assert dataset.transform.almost_equals(transform, precision=1e-9)
            assert dataset.crs == rasterio.crs.CRS.from_string(crs)
            assert dataset.nodata == NODATA
    mask = read_band(folder / "classes.tif")
    assert mask.shape == image.shape[1:]
    assert (rasterised(folder, mask.shape, transform) == mask).all()

    table = read_segments(folder)
    geod = pyproj.CRS(crs).get_geod()
    assert geod is not None
    degrees = table.geometry.segmentize(50 * abs(transform.a)).to_crs(
        pyproj.CRS(crs).geodetic_crs
    )
    areas = [abs(geod.geometry_area_perimeter(polygon)[0]) for polygon in degrees]
    assert np.allclose(table.area_m2, areas, rtol=1e-3)
    per_pixel = table.area_m2 / table.pixels
    assert per_pixel.between(0.15, 0.35).all()


def test_polygons_are_a_coverage_of_the_connected_components(
    tmp_path: Path, model: Path, image: npt.NDArray[np.uint8]
) -> None:
    scene = write_raster(tmp_path / "scene.tif", image, nodata=0)
    [result] = segment_plainly(scene, tmp_path / "out", model)
    folder = Path(result.folder)
    table = read_segments(folder)
    mask = read_band(folder / "classes.tif")
    confidence = read_band(folder / "confidence.tif")
    assert shapely.coverage_is_valid(table.geometry.array)
    assert len(table) == count_components(mask) > 20
    assert table.pixels.sum() == (mask != NODATA).sum()
    for entry in result.classes:
        own = table[table.class_id == entry.id]
        assert entry.pixels == own.pixels.sum() == (mask == entry.id).sum()
        assert entry.polygons == len(own)
        assert entry.area_m2 == pytest.approx(own.area_m2.sum())
    total = (table.confidence_mean * table.pixels).sum()
    assert total == pytest.approx(confidence[mask != NODATA].sum(dtype=np.int64))


def test_a_scene_without_crs_has_areas_in_pixels_only(
    tmp_path: Path, model: Path
) -> None:
    scene = write_raster(
        tmp_path / "s.tif", smooth_image(70, 70), crs=None, transform=Affine.identity()
    )
    [result] = segment_plainly(scene, tmp_path / "out", model)
    table = read_segments(Path(result.folder))
    assert table.area_m2.isna().all()
    assert table.pixels.sum() == 70 * 70
    assert all(entry.area_m2 is None for entry in result.classes)


def ready_job(
    tmp_path: Path, model: Path, sections: dict[str, dict[str, Any]] | None = None
) -> SceneJob:
    """Make all parts of a scene."""
    scene = tmp_path / "scene.tif"
    if not scene.exists():
        write_raster(scene, smooth_image(150, 130))
    return plan_job(scene, tmp_path / "out", model, sections)


def test_the_item_comes_last_and_goes_first(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    names = ("write_cog", "write_segments", "write_item")

    def watched(name: str) -> Any:  # noqa: ANN401 (one of several functions)
        function = getattr(finish, name)

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            seen.append({p.name for p in (tmp_path / "out" / "scene").iterdir()})
            return function(*args, **kwargs)

        return call

    job = ready_job(tmp_path, model)
    predictor = load_predictor(model)
    finish_scene(job, run_scene(job, predictor))
    for name in names:
        monkeypatch.setattr(finish, name, watched(name))
    again = ready_job(tmp_path, model, {"output": {"overwrite": True}})
    finish_scene(again, run_scene(again, predictor))
    assert len(seen) == 4
    assert not any("item.json" in files for files in seen)
    folder = tmp_path / "out" / "scene"
    assert {p.name for p in folder.iterdir()} == OUTPUTS | BESIDE
    assert not list((tmp_path / "out" / ".geoseg" / "parts").iterdir())


@pytest.mark.parametrize("step", ["write_cog", "write_segments", "write_item"])
def test_a_finish_that_fails_leaves_no_item_and_can_be_repeated(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    job = ready_job(tmp_path, model)
    records = run_scene(job, load_predictor(model))
    with monkeypatch.context() as patch:
        patch.setattr(finish, step, full)
        with pytest.raises(SceneError, match=r"No space left.*free some space"):
            finish_scene(job, records)
    folder = Path(job.out)
    assert read_result(folder, job.scene_id, job.key) is None
    assert not (folder / "item.json").exists()
    # What a killed process had begun to write.
    (folder / ".classes.geoseg-tmp-0badcafe0000.tif").write_bytes(b"half")
    result = finish_scene(job, records)
    assert read_result(folder, job.scene_id, job.key) == result
    assert {p.name for p in folder.iterdir()} == OUTPUTS | BESIDE


def test_what_is_not_asked_for_is_not_left_from_an_earlier_run(
    tmp_path: Path, model: Path
) -> None:
    predictor = load_predictor(model)
    job = ready_job(tmp_path, model)
    finish_scene(job, run_scene(job, predictor))
    sections = {"output": {"confidence": False, "polygons": False}}
    job = ready_job(tmp_path, model, sections)
    result = finish_scene(job, run_scene(job, predictor))
    files = {path.name for path in Path(job.out).iterdir()}
    assert files == {
        *("classes.tif", "classes.tif.aux.xml", "classes.qml"),
        "item.json",
    }
    item = json.loads((Path(job.out) / "item.json").read_text())
    assert set(item["assets"]) == {"classes", "source"}
    assert all(entry.polygons is None for entry in result.classes)
    assert sum(entry.pixels for entry in result.classes) == 150 * 130


def test_a_scene_that_is_a_stac_item_tells_which_and_when(
    tmp_path: Path, model: Path
) -> None:
    write_raster(tmp_path / "x.tif", smooth_image(70, 70))
    given = pystac.Item(
        id="S2 1",
        geometry=None,
        bbox=None,
        datetime=datetime(2024, 5, 1, 10, 30, tzinfo=UTC),
        properties={},
        collection="s2",
        href="https://host/items/S2%201.json",
    )
    given.add_asset("x", pystac.Asset("x.tif", media_type="image/tiff"))
    path = tmp_path / "item.json"
    path.write_text(json.dumps(given.to_dict(transform_hrefs=False)))
    [result] = segment_plainly([path], tmp_path / "out", model)
    made = json.loads((Path(result.folder) / "item.json").read_text())
    validate_dict(made, extensions=[])
    assert made["properties"]["datetime"] == "2024-05-01T10:30:00Z"
    assert "start_datetime" not in made["properties"]
    assert made["properties"]["geoseg:source_id"] == "S2 1"
    assert made["properties"]["geoseg:source_collection"] == "s2"
    sources = [link["href"] for link in made["links"] if link["rel"] == "derived_from"]
    assert sources == ["https://host/items/S2%201.json", "../model.json"]


def test_only_a_whole_scene_of_the_same_key_has_a_result(
    tmp_path: Path, model: Path
) -> None:
    job = ready_job(tmp_path, model)
    result = finish_scene(job, run_scene(job, load_predictor(model)))
    folder = Path(job.out)
    assert read_result(folder, job.scene_id, job.key) == result
    assert read_result(folder, job.scene_id, "another key") is None
    for name in sorted(OUTPUTS):
        path = folder / name
        content = path.read_bytes()
        path.unlink()
        assert read_result(folder, job.scene_id, job.key) is None, name
        path.write_bytes(content)
    for damage in ("", "[]", "{}", '{"properties": 3}'):
        (folder / "item.json").write_text(damage)
        assert read_result(folder, job.scene_id, job.key) is None


def test_two_tasks_that_finish_a_scene_take_turns(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "s.tif", smooth_image(70, 70))
    job = plan_job(scene, tmp_path / "out", model)
    run_scene(job, load_predictor(model))
    write_polygons = finish._write_polygons
    begun, go_on = [threading.Event(), threading.Event()], threading.Event()

    def held(*arguments: Any) -> Any:  # noqa: ANN401 (of what it stands for)
        first = not begun[0].is_set()
        begun[0 if first else 1].set()
        if first:
            assert go_on.wait(60)
        return write_polygons(*arguments)

    monkeypatch.setattr(finish, "_write_polygons", held)
    with ThreadPoolExecutor(2) as threads:
        outlived = threads.submit(finish_task, job)
        assert begun[0].wait(60)
        of_the_next_run = threads.submit(finish_task, job)
        assert not begun[1].wait(0.5)
        go_on.set()
        result = outlived.result(60)
        assert of_the_next_run.result(60) == result
    assert isinstance(result, SceneResult)
    assert not begun[1].is_set()
    assert not list(Path(job.work).parent.iterdir())


def test_a_task_that_outlived_its_run_does_not_fail_the_scene_of_the_next(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two take turns where files can be locked.
    monkeypatch.setattr(tasks, "in_turn", nullcontext)
    scene = write_raster(tmp_path / "s.tif", smooth_image(70, 70))
    job = plan_job(scene, tmp_path / "out", model)
    run_scene(job, load_predictor(model))
    write_polygons = finish._write_polygons

    def overtaken(*arguments: Any) -> Any:  # noqa: ANN401 (of what it stands for)
        monkeypatch.setattr(finish, "_write_polygons", write_polygons)
        finish_task(job)  # The other run's: it deletes the parts when it is done.
        return write_polygons(*arguments)

    monkeypatch.setattr(finish, "_write_polygons", overtaken)
    result = finish_task(job)
    assert isinstance(result, SceneResult)
    assert read_result(Path(result.folder), "s", job.key) == result
    assert not Path(job.work).exists()


@pytest.mark.parametrize("name", ["classes.tif", "confidence.tif"])
def test_a_lost_part_fails_the_scene_and_keeps_the_others(
    tmp_path: Path, model: Path, name: str
) -> None:
    job = ready_job(tmp_path, model)
    records = run_scene(job, load_predictor(model))
    part_path(job, 0, name).unlink()
    with pytest.raises(SceneError, match=rf"part-000000\.{name}"):
        finish_scene(job, records)
    assert Path(job.work).is_dir()


def test_classes_and_scene_ids_that_are_hard_to_quote_come_back_unchanged(
    tmp_path: Path, model: Path
) -> None:
    name = "a'b\"c; DROP TABLE segments;--é"
    scene = write_raster(tmp_path / f"{name}.tif", smooth_image(70, 70))
    [result] = segment_plainly(scene, tmp_path / "out", model)
    table = read_segments(Path(result.folder))
    assert set(table.scene_id) == {result.scene_id}
    assert polygon_set(Path(result.folder))
