"""What workers run when the scheduler asks for a second time."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasters import write_raster
from running import load_predictor, plan_job, smooth_image
from strategies import tile_grids
from stubs import clear_log, logged_tiles, save_stub
from web import serve

from geoseg import graph, tasks
from geoseg.finish import SceneResult, finish_scene
from geoseg.graph import (
    BandLogits,
    PartRecord,
    SceneJob,
    find_part,
    part_path,
    predict_band,
    run_scene,
)
from geoseg.io.scratch import write_scratch
from geoseg.io.vsi import forget
from geoseg.tasks import TaskFailure, blend_task, finish_task, predict_task, uses
from geoseg.tiling import TileGrid


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stub(tmp_path_factory.mktemp("models") / "levels", kind="levels")


@given(tile_grids(), st.integers(1, 9))
def test_a_band_is_used_by_all_parts_that_name_it(grid: TileGrid, tiles: int) -> None:
    bands = grid.bands(tiles)
    job = cast("SceneJob", SimpleNamespace(bands=bands))
    for band in bands:
        named = [p.index for p in bands if p.finishes and band.index in p.needs]
        assert list(uses(job, band.index)) == named


@pytest.mark.parametrize(
    ("number", "failing", "tries", "made"),
    [
        (errno.EIO, 2, 3, True),
        (errno.ESTALE, 3, 3, False),
        (errno.ENOSPC, 1, 1, False),
    ],
)
def test_a_disk_that_may_come_back_is_tried_three_times(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    failing: int,
    tries: int,
    made: bool,
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(60, 60))
    job = plan_job(scene, tmp_path / "out", model)
    logits = predict_band(job, 0, load_predictor(model))
    tried: list[Path] = []

    def write(path: Path, *args: Any, **options: Any) -> None:  # noqa: ANN401
        if path.name.startswith(".part-000000.classes"):
            tried.append(path)
            if len(tried) <= failing:
                raise OSError(number, os.strerror(number), str(path))
        write_scratch(path, *args, **options)

    monkeypatch.setattr(graph, "write_scratch", write)
    outcome = blend_task(job, 0, [logits])
    assert len(tried) == tries
    assert isinstance(outcome, PartRecord if made else TaskFailure)
    if isinstance(outcome, TaskFailure):
        assert os.strerror(number) in outcome.reason


@pytest.mark.parametrize(("back", "tries"), [(1, 2), (2, 3), (3, 3)])
def test_a_part_that_cannot_be_read_is_tried_three_times(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, back: int, tries: int
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(60, 60))
    job = plan_job(scene, tmp_path / "out", model)
    run_scene(job, load_predictor(model))
    part = part_path(job, 0, "polygons.part")
    content = part.read_bytes()
    tried: list[SceneJob] = []

    def finish(job: SceneJob, records: Sequence[PartRecord]) -> SceneResult:
        tried.append(job)
        if len(tried) > back:
            return finish_scene(job, records)
        part.write_bytes(b"not now")
        try:
            return finish_scene(job, records)
        finally:
            part.write_bytes(content)

    monkeypatch.setattr(tasks, "finish_scene", finish)
    outcome = finish_task(job)
    assert len(tried) == tries
    assert isinstance(outcome, SceneResult if back < 3 else TaskFailure)
    if isinstance(outcome, TaskFailure):
        assert f"{part} is not a traced part that can be read" in outcome.reason


def test_a_scene_that_is_another_one_is_tried_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(60, 60))
    job, predictor = plan_job(scene, tmp_path / "out", model), load_predictor(model)
    os.utime(scene, (9, 9))
    tried: list[int] = []

    def predict(job: SceneJob, index: int, _: object) -> BandLogits:
        tried.append(index)
        return predict_band(job, index, predictor)

    monkeypatch.setattr(tasks, "predict_band", predict)
    monkeypatch.setattr(tasks, "worker_predictor", lambda _: predictor)
    outcome = predict_task(job, 0, "plugin")
    assert isinstance(outcome, TaskFailure)
    assert "changed while it was read" in outcome.reason
    assert tried == [0]


@pytest.mark.parametrize(
    ("stumbles", "again", "made"), [(1, {1, 2}, BandLogits), (99, {2}, TaskFailure)]
)
def test_a_server_that_fails_is_asked_three_times(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    stumbles: int,
    again: set[int],  # GDAL asks more than once in a try.
    made: type,
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    archive = tmp_path / "archive"
    archive.mkdir()
    write_raster(archive / "scene.tif", smooth_image(200, 200, sigma=0.5))
    predictor = load_predictor(model)
    monkeypatch.setattr(tasks, "worker_predictor", lambda _: predictor)
    with serve(archive, tmp_path / "log") as web:
        job = plan_job([f"{web.url}/scene.tif"], tmp_path / "out", model)
        forget(job.scene.path)
        (archive / "stumbles").write_text(str(stumbles))
        outcome = predict_task(job, 0, "plugin")
    texts = [record.getMessage() for record in caplog.records]
    assert sum(text.endswith("; trying again") for text in texts) in again
    assert isinstance(outcome, made)


def test_what_is_on_disk_is_neither_predicted_nor_blended_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(64 + 48 * 40, 130))
    log = tmp_path / "log"
    model = save_stub(tmp_path / "model", kind="levels", log_folder=log)
    job, predictor = plan_job(scene, tmp_path / "out", model), load_predictor(model)
    monkeypatch.setattr(tasks, "worker_predictor", lambda _: predictor)
    records = run_scene(job, predictor)
    assert len(records) > 3
    clear_log(log)
    # Of a worker that died the scheduler asks for everything once more.
    lost = [predict_task(job, band.index, "plugin") for band in job.bands]
    assert logged_tiles(log) == {}
    bands = [band for band in lost if isinstance(band, BandLogits)]
    assert [blend_task(job, part.index, bands) for part in job.parts] == records
    part_path(job, 2, "json").unlink()
    predicted = [predict_task(job, index, "plugin") for index in range(5)]
    needed = job.bands[2].needs
    assert sum(logged_tiles(log).values()) == sum(len(job.bands[i]) for i in needed)
    again = [predicted[index] for index in needed]
    assert blend_task(job, 2, again) == records[2] == find_part(job, 2)
