"""What a stream of any length costs scheduler and client: few tasks, small records."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from rasters import write_raster
from running import configuration, plan_jobs, predictor_config
from stubs import save_stub

from geoseg.cluster import ModelPlugin, WorkerCount, plugin_name
from geoseg.errors import ClusterError
from geoseg.stream import SceneStream
from geoseg.tiling import TileGrid


def test_the_scheduler_knows_fewer_than_1000_tasks_however_many_workers_there_are(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = TileGrid.bands
    monkeypatch.setattr(TileGrid, "bands", lambda grid, **_: split(grid, 1))
    scene = write_raster(tmp_path / "s.tif", np.zeros((3, 64 + 48 * 29, 1000), "u1"))
    model = save_stub(tmp_path / "model")
    [job] = plan_jobs(configuration(scene, tmp_path / "out", model))
    assert len(job.parts) > 500
    submitted: list[int] = []

    def many(_: WorkerCount) -> int:
        """Count 5,000 workers, none of which can do anything; end when all is full."""
        submitted.append(len(client.futures))
        if submitted[-4:-1] == submitted[-3:] and submitted[-1]:
            raise ClusterError("enough was seen")
        return 5000

    monkeypatch.setattr(WorkerCount, "count", many)
    stream = SceneStream(client, "no-plugin", iter([job]), lambda *_: None)
    with pytest.raises(ClusterError, match="enough was seen"):
        list(stream)
    # They travel to the scheduler one after another.
    for _ in range(100):
        known = client.run_on_scheduler(
            lambda dask_scheduler: len(dask_scheduler.tasks)
        )
        if known == submitted[-1]:
            break
        time.sleep(0.1)
    assert 500 < known == submitted[-1] <= 1000


def test_only_small_records_reach_the_client(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((3, 64 + 48 * 12, 64 + 48 * 23), np.uint8)
    scene = write_raster(tmp_path / "scene.tif", image)
    model = save_stub(tmp_path / "model")
    config = configuration(scene, tmp_path / "out", model)
    jobs = plan_jobs(config)
    sizes: list[int] = []
    gather: Any = client._gather

    async def measured(*args: Any, **how: Any) -> Any:  # noqa: ANN401
        found = await gather(*args, **how)
        sizes.append(len(pickle.dumps(found)))
        return found

    monkeypatch.setattr(client, "_gather", measured)
    predictor = predictor_config(config)
    client.register_plugin(ModelPlugin(predictor))
    list(SceneStream(client, plugin_name(predictor), iter(jobs), lambda *_: None))
    # The scene's result; logits stay where they are, and records of parts are files.
    assert len(jobs[0].parts) > 10
    assert len(sizes) == 1
    assert sizes[0] < 2000
