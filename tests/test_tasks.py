"""What workers run when the scheduler asks for a second time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasters import write_raster
from running import load_predictor, plan_job, smooth_image
from strategies import tile_grids
from stubs import clear_log, logged_tiles, save_stub

from geoseg import tasks
from geoseg.graph import BandLogits, SceneJob, find_part, part_path, run_scene
from geoseg.tasks import blend_task, predict_task, uses
from geoseg.tiling import TileGrid


@given(tile_grids(), st.integers(1, 9))
def test_a_band_is_used_by_all_parts_that_name_it(grid: TileGrid, tiles: int) -> None:
    bands = grid.bands(tiles)
    job = cast("SceneJob", SimpleNamespace(bands=bands))
    for band in bands:
        named = [p.index for p in bands if p.finishes and band.index in p.needs]
        assert list(uses(job, band.index)) == named


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
