"""`segment` writes the polygons that `vectorize` makes of its class mask."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import shapely
from class_rasters import rows_of
from commands import geoseg
from model_folders import edit
from rasters import write_raster
from running import (
    STRIDE,
    configuration,
    load_predictor,
    plan_job,
    predictor_config,
    read_band,
    read_segments,
    segment_plainly,
    smooth_image,
)
from stubs import save_stub

from geoseg.archive import RunDirectory
from geoseg.discovery import find_scenes
from geoseg.errors import ConfigError, UsageError
from geoseg.finish import finish_scene
from geoseg.graph import SceneJob, run_scene
from geoseg.models.registry import read_spec
from geoseg.pipelines import segment
from geoseg.pipelines.segment import Listener
from geoseg.pipelines.segment_plan import Plan, check_options
from geoseg.stream import SceneFailure

OPTIONS: list[dict[str, Any]] = [
    {},
    {"min_area": 4.0},
    {"simplify": 1.0},
    {"exclude": ("class 2",)},
    {"min_area": 4.0, "simplify": 0.75, "exclude": ("3",)},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    image = smooth_image(250, 330, sigma=1.5)
    image[:, :30, :40] = 0
    write_raster(folder / "scene.tif", image, nodata=0)
    save_stub(folder / "model", kind="levels")
    return folder


def flags(options: dict[str, Any]) -> list[object]:
    """Return the options of the command."""
    given: list[object] = []
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else (value,):
            given += [f"--{name.replace('_', '-')}", one]
    return given


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_vectorize_gives_the_polygons_of_segment(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    [result] = segment_plainly(
        folder / "scene.tif", tmp_path, folder / "model", {"output": options}
    )
    scene = Path(result.folder)
    again = tmp_path / "again.gpkg"
    confidence = ["--confidence", scene / "confidence.tif"]
    done = geoseg(
        "vectorize", scene / "classes.tif", "-o", again, *confidence, *flags(options)
    )
    assert done.exit_code == 0, done.stderr
    expected = rows_of(scene / "segments.gpkg")
    assert len(expected) > 10
    assert rows_of(again) == expected
    own, other = read_segments(scene), read_segments_of(again)
    assert list(own.area_m2) == list(other.area_m2)
    assert list(own.scene_id) == list(other.scene_id)


def read_segments_of(path: Path) -> Any:  # noqa: ANN401 (GeoDataFrame)
    target = path.parent / "folder" / "segments.gpkg"
    target.parent.mkdir()
    target.write_bytes(path.read_bytes())
    return read_segments(target.parent)


def test_options_change_polygons_and_no_pixel(folder: Path, tmp_path: Path) -> None:
    scene, model = folder / "scene.tif", folder / "model"
    [plain] = segment_plainly(scene, tmp_path / "a", model)
    given = {"output": OPTIONS[-1]}
    [changed] = segment_plainly(scene, tmp_path / "b", model, given)
    for name in ("classes.tif", "confidence.tif"):
        one, other = Path(plain.folder) / name, Path(changed.folder) / name
        assert (read_band(one) == read_band(other)).all()
    table = read_segments(Path(changed.folder))
    assert shapely.coverage_is_valid(table.geometry.to_numpy())
    assert set(table.class_id) == {1, 2, 4}
    assert [c.pixels for c in plain.classes] == [c.pixels for c in changed.classes]
    excluded = changed.classes[2]
    assert (excluded.polygons, excluded.area_m2) == (None, None)
    assert excluded.pixels > 0
    assert len(table) == sum(entry.polygons or 0 for entry in changed.classes)
    with closing(sqlite3.connect(Path(changed.folder) / "segments.gpkg")) as opened:
        [(metadata,)] = opened.execute("SELECT metadata FROM gpkg_metadata")
    for part in ("min_area_m2", "0.75", "class 3"):
        assert part in metadata


def test_a_scene_is_made_again_when_an_option_changes(
    folder: Path, tmp_path: Path
) -> None:
    scene, model = folder / "scene.tif", folder / "model"
    job = plan_job(scene, tmp_path, model)
    finish_scene(job, run_scene(job, load_predictor(model)))
    config = configuration(scene, tmp_path, model)
    assert _left_to_do(config) == 0
    keys = {job.key}
    for options in OPTIONS[1:]:
        output = dataclasses.replace(config.output, **options)
        assert _left_to_do(dataclasses.replace(config, output=output)) == 1
        keys.add(plan_job(scene, tmp_path, model, {"output": options}).key)
    assert len(keys) == len(OPTIONS)
    # Two ways to say the same thing.
    same = [
        plan_job(scene, tmp_path, model, {"output": {"exclude": exclude}}).key
        for exclude in (("class 2", 3), ("3", "2"))
    ]
    assert same[0] == same[1]


def _left_to_do(config: segment.SegmentConfig) -> int:
    files, root = find_scenes(config.scenes, None)
    directory = RunDirectory(config.out, root, overwrite=False)
    spec = read_spec(Path(config.model.path))
    plan = Plan(config, spec, predictor_config(config), STRIDE, directory, Listener())
    [planned] = plan.scenes(files)
    assert not isinstance(planned, SceneFailure)
    return int(isinstance(planned, SceneJob))


def test_an_id_to_exclude_goes_before_a_name(folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    declared = json.loads((model / "config.json").read_text())["geoseg"]
    declared["classes"][0].update(id=1, name="2")
    declared["classes"][1].update(id=2, name="7")
    edit(model / "config.json", geoseg=declared)
    for word, excluded in (("2", 2), ("7", 2), ("1", 1)):
        given = {"output": {"exclude": (word,)}}
        job = plan_job(folder / "scene.tif", tmp_path / "out", model, given)
        assert job.excluded == {excluded}


def test_a_class_that_the_model_lacks_is_refused_before_anything_runs(
    folder: Path, tmp_path: Path
) -> None:
    config = configuration(
        folder / "scene.tif",
        tmp_path,
        folder / "model",
        {"output": {"exclude": ("forest",)}},
    )
    files, _ = find_scenes(config.scenes, None)
    with pytest.raises(UsageError, match=r"no class 'forest' .* 1 \(class 1\)"):
        check_options(files, read_spec(folder / "model"), config)


@pytest.mark.parametrize("options", [{"min_area": -1.0}, {"simplify": float("nan")}])
def test_numbers_out_of_range_are_refused(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    given = {"output": options}
    with pytest.raises(ConfigError, match=r"output: .*use 0, or a number above it"):
        configuration(folder / "scene.tif", tmp_path, folder / "model", given)


def test_areas_that_are_unknown_fail_a_scene_before_the_model_runs(
    folder: Path, tmp_path: Path
) -> None:
    scene = write_raster(tmp_path / "s.tif", smooth_image(70, 70), crs=None)
    given = {"output": {"min_area": 4.0}}
    config = configuration(scene, tmp_path / "out", folder / "model", given)
    spec = read_spec(folder / "model")
    files, root = find_scenes(config.scenes, None)
    directory = RunDirectory(config.out, root, overwrite=False)
    plan = Plan(config, spec, predictor_config(config), STRIDE, directory, Listener())
    [failure] = plan.scenes(files)
    assert isinstance(failure, SceneFailure)
    assert "areas are unknown without a CRS" in failure.reason
