"""Workers that would write something else than the client are refused by name."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from rasters import write_raster
from running import configuration, plan_jobs, predictor_config, smooth_image
from stubs import save_stub
from thread_workers import cluster_of, thread_workers

from geoseg import __version__
from geoseg.admission import REFUSALS, Requirements, refusal, refusals
from geoseg.cluster import RESOURCE, WorkerCount, connect, give_model, plugin_name
from geoseg.clusters.config import ClusterConfig
from geoseg.errors import ClusterError
from geoseg.finish import SceneResult
from geoseg.inference import PredictorConfig
from geoseg.stream import SceneStream


@pytest.fixture
def client() -> Iterator[Client]:
    """A cluster of one's own: its workers are sent away."""
    with thread_workers() as client:
        yield client


@pytest.fixture
def model(tmp_path: Path) -> PredictorConfig:
    folder = save_stub(tmp_path / "model", kind="levels")
    return predictor_config(configuration(Path(), Path(), folder))


def other_version(wanted: Requirements) -> Requirements:
    return dataclasses.replace(wanted, version="0.0.1")


def other_operators(wanted: Requirements) -> Requirements:
    return dataclasses.replace(wanted, native=not wanted.native)


def other_weights(wanted: Requirements) -> Requirements:
    model = dataclasses.replace(wanted.model, sha256="f" * 64)
    return dataclasses.replace(wanted, model=model)


def ask_for(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Requirements], Requirements]
) -> None:
    """Let runs be started where something else is installed than on the workers."""
    here = Requirements.here
    monkeypatch.setattr(Requirements, "here", lambda model: change(here(model)))


@pytest.mark.parametrize(
    ("change", "has", "wanted"),
    [
        (other_version, f"has geoseg {__version__}", "started with 0.0.1"),
        (other_operators, "native operators, and", "see `geoseg info`"),
        (other_weights, "has other weights on this worker", "(ffffffffffff)"),
    ],
)
def test_a_worker_with_something_else_is_named_with_what_it_has(
    client: Client,
    model: PredictorConfig,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Requirements], Requirements],
    has: str,
    wanted: str,
) -> None:
    [address] = client.scheduler_info()["workers"]
    with monkeypatch.context() as patch:
        ask_for(patch, change)
        for _ in range(2):  # The scheduler must not keep what was refused.
            with pytest.raises(ClusterError) as caught:
                give_model(client, model)
            message = str(caught.value)
            assert message.startswith(f"worker {address} ")
            assert has in message
            assert wanted in message
    give_model(client, model)


def test_workers_that_suited_one_run_are_checked_for_the_next(
    client: Client, model: PredictorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_model(client, model)
    ask_for(monkeypatch, other_operators)
    with pytest.raises(ClusterError, match="native operators, and"):
        give_model(client, model)
    # Nor does it take tasks for what it offered to the run before.
    [worker] = client.scheduler_info()["workers"].values()
    assert plugin_name(model) not in worker["resources"]


def test_a_late_worker_with_other_weights_gets_no_task_and_is_told_of(
    client: Client,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = save_stub(tmp_path / "model", kind="levels", seconds=0.02)
    scene = write_raster(tmp_path / "scene.tif", smooth_image(64 + 48 * 20, 250))
    config = configuration(scene, tmp_path / "out", folder)
    model = predictor_config(config)
    jobs = plan_jobs(config)
    give_model(client, model)
    [first] = cluster_of(client).workers.values()
    client.submit(_load, plugin_name(model), resources={RESOURCE: 1}).result()
    save_stub(folder, num_classes=6)
    cluster_of(client).scale(2)
    client.wait_for_workers(2, timeout=30)
    with caplog.at_level(logging.WARNING, "geoseg"):
        [outcome] = SceneStream(
            client, plugin_name(model), iter(jobs), lambda *_: None, in_flight=8
        )
    assert isinstance(outcome, SceneResult)
    [late] = [
        worker for worker in cluster_of(client).workers.values() if worker is not first
    ]
    assert late.state.total_resources == {}
    assert late.state.executed_count == 0
    assert set(first.state.total_resources) == {RESOURCE, plugin_name(model)}
    [warning] = [r.getMessage() for r in caplog.records if "no work" in r.getMessage()]
    assert warning.startswith(f"worker {late.address} is of no use")


def test_a_refused_worker_is_looked_at_again_by_the_next_run(
    client: Client,
    tmp_path: Path,
    model: PredictorConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name, folder = plugin_name(model), Path(model.folder)
    cluster = cluster_of(client)
    give_model(client, model)
    [first] = cluster.workers.values()
    folder.rename(tmp_path / "away")
    cluster.scale(2)
    client.wait_for_workers(2, timeout=30)
    [late] = [worker for worker in cluster.workers.values() if worker is not first]

    def told() -> list[str]:
        caplog.clear()
        assert WorkerCount(client, name, timeout=30).count() >= 1
        return [record.getMessage() for record in caplog.records]

    while not refusals(client, name, [late.address]):
        time.sleep(0.02)
    [warning] = told()
    assert warning.startswith(f"worker {late.address} is of no use: {folder} is not")
    save_stub(folder, num_classes=6)
    give_model(client, model)
    [warning] = told()
    assert warning.startswith(f"worker {late.address} is of no use: {folder} has other")
    assert late.state.total_resources == {}
    shutil.rmtree(folder)
    (tmp_path / "away").rename(folder)
    give_model(client, model)
    assert told() == []
    assert set(late.state.total_resources) == {RESOURCE, name}
    assert WorkerCount(client, name, timeout=30).count() == 2


def test_refusals_of_other_runs_are_not_told(client: Client) -> None:
    address, other = "tcp://10.0.0.1:1", "tcp://10.0.0.3:1"
    for event in (
        refusal("another plugin", address, "has other weights"),
        refusal("plugin", "tcp://10.0.0.2:1", "is gone since"),
        "what an older geoseg wrote",
        refusal("plugin", address, "was of no use"),
        refusal("plugin", other, "has another geoseg"),
        refusal("plugin", address, "is of no use"),
    ):
        client.log_event(REFUSALS, event)
    told = refusals(client, "plugin", [address, other])
    assert told == ["has another geoseg", "is of no use"]


def _load(name: str) -> None:
    from geoseg.cluster import worker_predictor

    worker_predictor(name)


def test_a_run_whose_workers_were_all_refused_ends_and_says_why(
    client: Client,
    tmp_path: Path,
    model: PredictorConfig,
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(70, 70))
    jobs = plan_jobs(configuration(scene, tmp_path / "out", Path(model.folder)))
    cluster_of(client).scale(0)
    while client.scheduler_info()["workers"]:
        time.sleep(0.02)
    give_model(client, model)
    save_stub(Path(model.folder), num_classes=6)
    cluster_of(client).scale(1)
    stream = SceneStream(
        client, plugin_name(model), iter(jobs), lambda *_: None, timeout=3
    )
    with pytest.raises(ClusterError, match=r"no worker of --scheduler .*other weights"):
        list(stream)


@pytest.mark.slow
def test_a_worker_that_cannot_import_geoseg_is_told_in_one_line(
    tmp_path: Path, model: PredictorConfig
) -> None:
    broken = tmp_path / "broken" / "geoseg"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('half installed')")
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp://", dashboard_address=":0"
    ) as cluster:
        address = cluster.scheduler_address
        command = [sys.executable, "-m", "dask", "worker", address, "--no-nanny"]
        worker = subprocess.Popen(
            [*command, "--no-dashboard", "--local-directory", str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(broken.parent)},
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
        )
        try:
            with (
                pytest.raises(ClusterError, match=r"half installed.*install geoseg"),
                connect(ClusterConfig(scheduler=address, timeout=60), model, parts=1),
            ):
                pass
        finally:
            worker.kill()
            worker.wait()
