"""Scenes through a real scheduler, with workers that are threads of this process."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from distributed.protocol.pickle import dumps
from rasters import write_raster
from running import (
    configuration,
    fingerprint,
    plan_jobs,
    predictor_config,
    segment_plainly,
    smooth_image,
)
from stubs import clear_log, logged_tiles, save_stub
from thread_workers import cluster_of, thread_workers

from geoseg.cluster import ModelPlugin, plugin_name
from geoseg.errors import ClusterError
from geoseg.finish import SceneResult
from geoseg.graph import SceneJob, find_part, part_path
from geoseg.stream import SceneFailure, SceneStream
from geoseg.tasks import finish_task
from geoseg.tiling import TileGrid

WORKERS = 2
"""Of the fixture `client`."""


@pytest.fixture(autouse=True)
def _many_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small scenes into as many bands as large ones have."""
    split = TileGrid.bands
    monkeypatch.setattr(TileGrid, "bands", lambda grid, **_: split(grid, 1))


Outcome = SceneResult | SceneFailure


def stream(
    client: Client,
    jobs: list[SceneJob],
    model: Path,
    *,
    in_flight: int = 8,
    told: list[tuple[str, int]] | None = None,
) -> dict[str, Outcome]:
    """Run jobs; every one must have exactly one outcome."""
    config = predictor_config(configuration(Path(), Path(), model))
    client.register_plugin(ModelPlugin(config))
    told = [] if told is None else told
    outcomes = list(
        SceneStream(
            client,
            plugin_name(config),
            iter(jobs),
            lambda scene_id, tiles: told.append((scene_id, tiles)),
            in_flight=in_flight,
        )
    )
    by_id = {outcome.scene_id: outcome for outcome in outcomes}
    assert sorted(by_id) == sorted(job.scene_id for job in jobs)
    assert len(outcomes) == len(jobs)
    return by_id


def images(folder: Path, count: int, **marks: int) -> list[Path]:
    """Write scenes of several sizes; `marks` sets a red pixel by scene name."""
    paths = []
    for index in range(count):
        image = smooth_image(110 + 23 * index, 130 + 31 * index, seed=index)
        name = f"s{index}"
        if name in marks:
            image[0, 60, 60] = marks[name]
        paths.append(write_raster(folder / f"{name}.tif", image))
    return paths


@pytest.mark.parametrize("in_flight", [1, 8])
def test_streamed_scenes_equal_those_of_a_plain_loop(
    tmp_path: Path, client: Client, in_flight: int
) -> None:
    scenes = images(tmp_path, 3)
    model = save_stub(tmp_path / "model", kind="levels", output_stride=4)
    plain = segment_plainly(scenes, tmp_path / "plain", model)
    jobs = plan_jobs(configuration(scenes, tmp_path / "out", model))
    told: list[tuple[str, int]] = []
    outcomes = stream(client, jobs[::-1], model, in_flight=in_flight, told=told)
    for expected in plain:
        got = outcomes[expected.scene_id]
        assert isinstance(got, SceneResult)
        assert fingerprint(Path(got.folder)) == fingerprint(Path(expected.folder))
        assert (got.tiles, got.classes) == (expected.tiles, expected.classes)
        tiles = [count for scene_id, count in told if scene_id == got.scene_id]
        assert sum(tiles) == got.tiles


@pytest.mark.parametrize("in_flight", [1, 64])
def test_broken_scenes_fail_alone(
    tmp_path: Path, client: Client, in_flight: int
) -> None:
    scenes = images(tmp_path, 4, s1=255, s3=255)
    model = save_stub(tmp_path / "model", fail_on=1.0)
    jobs = plan_jobs(configuration(scenes, tmp_path / "out", model))
    # Broken between planning and reading.
    broken = tmp_path / "s2.tif"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    outcomes = stream(client, jobs, model, in_flight=in_flight)
    assert isinstance(outcomes["s0"], SceneResult)
    for name, reason in {
        "s1": "RuntimeError: the stub was told to fail on this tile",
        "s2": "s2.tif cannot be read",
        "s3": "RuntimeError: the stub was told to fail on this tile",
    }.items():
        failure = outcomes[name]
        assert isinstance(failure, SceneFailure)
        assert reason in failure.reason
        assert "\n" not in failure.reason
        assert not (tmp_path / "out" / name).exists()


@pytest.mark.parametrize(
    ("lost", "in_flight"),
    [
        ("first", 1),  # The limit is reached before the last band is come by.
        ("first", 64),
        ("last", 1),
        ("most", 2),
        ("half-written", 64),
        ("none", 1),
    ],
)
def test_only_what_is_missing_is_made_again(
    tmp_path: Path, client: Client, lost: str, in_flight: int
) -> None:
    [scene] = images(tmp_path, 1)
    log = tmp_path / "log"
    model = save_stub(tmp_path / "model", kind="levels", log_folder=log)
    [expected] = segment_plainly(scene, tmp_path / "plain", model)
    [job] = plan_jobs(configuration(scene, tmp_path / "out", model))
    # The state of a run that was killed: parts are there, the outputs are not.
    run_parts(client, job, model)
    parts = [band.index for band in job.parts]
    gone = {
        "first": parts[:1],
        "last": parts[-1:],
        "most": parts[1:],
        "half-written": parts[1:2],
        "none": [],
    }[lost]
    for index in gone:
        part_path(job, index, "json").unlink()
        if lost == "half-written":
            raster = part_path(job, index, "classes.tif")
            raster.write_bytes(raster.read_bytes()[:100])
    clear_log(log)
    told: list[tuple[str, int]] = []
    outcomes = stream(client, [job], model, in_flight=in_flight, told=told)
    result = outcomes[job.scene_id]
    assert isinstance(result, SceneResult)
    assert fingerprint(Path(result.folder)) == fingerprint(Path(expected.folder))
    needed = {need for index in gone for need in job.bands[index].needs}
    predicted = sum(logged_tiles(log).values())
    assert predicted == sum(len(job.bands[index]) for index in needed)
    assert sum(tiles for _, tiles in told) == result.tiles


def run_parts(client: Client, job: SceneJob, model: Path) -> None:
    """Make all parts of a scene and not its outputs."""
    out = Path(job.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("a file where the folder of outputs would be")
    failure = stream(client, [job], model)[job.scene_id]
    assert isinstance(failure, SceneFailure)
    assert "cannot be written" in failure.reason
    out.unlink()


def test_a_finish_that_is_repeated_finds_its_own_result(
    tmp_path: Path, client: Client
) -> None:
    [scene] = images(tmp_path, 1)
    model = save_stub(tmp_path / "model")
    [job] = plan_jobs(configuration(scene, tmp_path / "out", model))
    result = stream(client, [job], model)[job.scene_id]
    # As the scheduler does when a worker is lost before it told of its result.
    assert finish_task(job) == result


def test_nothing_of_a_scene_stays_on_the_cluster(
    tmp_path: Path, client: Client
) -> None:
    scenes = images(tmp_path, 3, s1=255)
    model = save_stub(tmp_path / "model", fail_on=1.0)
    jobs = plan_jobs(configuration(scenes, tmp_path / "out", model))
    stream(client, jobs, model, in_flight=64)
    gc.collect()
    held: Any = None
    for _ in range(50):
        held = client.run_on_scheduler(
            lambda dask_scheduler: list(dask_scheduler.tasks)
        )
        if not held:
            break
        time.sleep(0.1)
    assert not held


def test_logits_are_let_go_as_soon_as_they_are_blended(
    tmp_path: Path, client: Client
) -> None:
    image = np.zeros((3, 64 + 48 * 20, 64), np.uint8)
    scene = write_raster(tmp_path / "scene.tif", image)
    model = save_stub(tmp_path / "model")
    [job] = plan_jobs(configuration(scene, tmp_path / "out", model))
    held = []

    def count(*_: object) -> None:
        held.append(len(client.futures))

    config = predictor_config(configuration(Path(), Path(), model))
    client.register_plugin(ModelPlugin(config))
    list(SceneStream(client, plugin_name(config), iter([job]), count, in_flight=6))
    assert len(held) > 20
    # In flight, and those that the next band will still need.
    assert max(held) <= 6 + 4


def test_no_task_is_larger_than_64_kilobytes(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((3, 64 + 48 * 12, 64 + 48 * 5), np.uint8)
    scene = write_raster(tmp_path / "scene.tif", image)
    model = save_stub(tmp_path / "model", num_classes=120)
    jobs = plan_jobs(configuration(scene, tmp_path / "out", model))
    sizes: dict[str, int] = {}
    submit = client.submit

    def measured(function: Any, *args: Any, **how: Any) -> Any:  # noqa: ANN401
        size = len(dumps((function, args)))
        sizes[function.__name__] = max(size, sizes.get(function.__name__, 0))
        return submit(function, *args, **how)

    monkeypatch.setattr(client, "submit", measured)
    stream(client, jobs, model)
    assert set(sizes) == {"predict_task", "blend_task", "finish_task"}
    assert max(sizes.values()) < 64_000


def test_runs_that_share_a_scheduler_do_not_share_results(
    tmp_path: Path, client: Client
) -> None:
    [scene] = images(tmp_path, 1)
    first = save_stub(tmp_path / "first", kind="levels", num_classes=3)
    second = save_stub(tmp_path / "second", kind="levels", num_classes=5)
    found = []
    for model, out in ((first, "a"), (second, "b"), (first, "c")):
        jobs = plan_jobs(configuration(scene, tmp_path / out, model))
        result = stream(client, jobs, model)["s0"]
        assert isinstance(result, SceneResult)
        assert result.folder == str(tmp_path / out / "s0")
        found.append(fingerprint(Path(result.folder)))
    assert found[0] == found[2] != found[1]


def test_a_scheduler_that_goes_away_ends_the_run_with_one_line(tmp_path: Path) -> None:
    [scene] = images(tmp_path, 1)
    model = save_stub(tmp_path / "model", seconds=0.2)
    jobs = plan_jobs(configuration(scene, tmp_path / "out", model))
    with thread_workers() as client:
        config = predictor_config(configuration(Path(), Path(), model))
        client.register_plugin(ModelPlugin(config))
        told: list[int] = []

        def stop(_: str, tiles: int) -> None:
            told.append(tiles)
            if len(told) == 3:
                client.close()

        running = SceneStream(
            client, plugin_name(config), iter(jobs), stop, in_flight=4
        )
        with pytest.raises(ClusterError, match="connection to the scheduler was lost"):
            list(running)
    assert not (tmp_path / "out" / "s0").exists()


def test_a_run_ends_when_all_workers_are_gone_and_keeps_its_parts(
    tmp_path: Path,
) -> None:
    image = np.zeros((3, 64 + 48 * 20, 64), np.uint8)
    scene = write_raster(tmp_path / "scene.tif", image)
    model = save_stub(tmp_path / "model", seconds=0.3)
    [job] = plan_jobs(configuration(scene, tmp_path / "out", model))
    with thread_workers() as client:
        config = predictor_config(configuration(Path(), Path(), model))
        client.register_plugin(ModelPlugin(config))
        told: list[int] = []

        def stop(_: str, tiles: int) -> None:
            told.append(tiles)
            if len(told) == 5:
                cluster_of(client).scale(0)

        name = plugin_name(config)
        running = SceneStream(client, name, iter([job]), stop, timeout=1)
        with pytest.raises(ClusterError, match="all workers are gone; finished parts"):
            list(running)
    assert any(find_part(job, band.index) for band in job.parts)


@pytest.mark.parametrize(
    ("lost", "told"),
    [("scheduler", "connection to the scheduler"), ("workers", "all workers are gone")],
)
def test_a_lost_cluster_is_noticed_while_scenes_need_no_work(
    lost: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geoseg.stream.LOOK_UP", 0.0)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        def whole() -> Iterator[None]:
            yield None
            if lost == "scheduler":
                client.close()
            yield from [None] * 10_000
            raise AssertionError("nobody looked up")

        timeout = 0.0 if lost == "workers" else 30.0
        running = SceneStream(
            client, "plugin", whole(), lambda *_: None, timeout=timeout
        )
        with pytest.raises(ClusterError, match=told):
            list(running)


def test_a_run_ends_when_no_worker_has_the_model(tmp_path: Path) -> None:
    [scene] = images(tmp_path, 1)
    model = save_stub(tmp_path / "model")
    [job] = plan_jobs(configuration(scene, tmp_path / "out", model))
    with thread_workers() as client:
        running = SceneStream(
            client, "no-plugin", iter([job]), lambda *_: None, timeout=1
        )
        with pytest.raises(
            ClusterError, match=r"no worker of --scheduler inproc.* has the model"
        ):
            list(running)
