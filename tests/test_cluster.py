"""One model per worker, on workers that come and go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from distributed.core import Status
from running import stub_config
from stubs import save_stub

from geoseg.cluster import (
    RESOURCE,
    ModelPlugin,
    WorkerCount,
    connect,
    give_model,
    plugin_name,
    worker_predictor,
)
from geoseg.clusters.config import ClusterConfig
from geoseg.errors import ClusterError, ModelError


@pytest.fixture
def threads() -> Iterator[LocalCluster]:
    """One worker of two threads in this process, which others can reach by TCP."""
    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        dashboard_address=":0",
    ) as running:
        yield running


def load_in_task(name: str, _: int) -> int:
    time.sleep(0.05)
    return id(worker_predictor(name))


def test_a_worker_loads_the_model_once_however_many_tasks_ask(
    tmp_path: Path, threads: LocalCluster
) -> None:
    model = stub_config(tmp_path / "model")
    given = ClusterConfig(scheduler=threads.scheduler_address)
    with connect(given, model, parts=9) as client:
        name = plugin_name(model)
        futures = client.map(load_in_task, [name] * 6, range(6), pure=False)
        assert len(set(client.gather(futures))) == 1


def test_workers_that_come_late_have_model_and_resource(
    tmp_path: Path, threads: LocalCluster
) -> None:
    model = stub_config(tmp_path / "model")
    given = ClusterConfig(scheduler=threads.scheduler_address)
    with connect(given, model, parts=9) as client:
        threads.scale(2)
        client.wait_for_workers(2, timeout=30)
        name = plugin_name(model)
        resources = {RESOURCE: 1}
        futures = client.map(
            load_in_task, [name] * 8, range(8), resources=resources, pure=False
        )
        assert len(set(client.gather(futures))) == 2


def test_tasks_that_wait_for_a_worker_are_given_to_one_that_joins(
    tmp_path: Path, threads: LocalCluster
) -> None:
    model = stub_config(tmp_path / "model")
    given = ClusterConfig(scheduler=threads.scheduler_address)
    with connect(given, model, parts=9) as client:
        threads.scale(0)
        while client.scheduler_info()["workers"]:
            time.sleep(0.05)
        resources = {RESOURCE: 1}
        waiting = client.submit(
            load_in_task, plugin_name(model), 0, resources=resources, pure=False
        )
        time.sleep(0.5)
        # As when the only worker died and its nanny starts another one.
        threads.scale(1)
        waiting.result(timeout=15)


def test_a_worker_keeps_one_model_at_a_time(
    tmp_path: Path, threads: LocalCluster
) -> None:
    first, second = stub_config(tmp_path / "1"), stub_config(tmp_path / "2")
    first_again = stub_config(tmp_path / "1")
    assert plugin_name(first) != plugin_name(second)
    given = ClusterConfig(scheduler=threads.scheduler_address)

    def loaded(client: Client) -> dict[str, bool]:
        [worker] = threads.workers.values()
        plugins = worker.plugins.values()
        return {p.name: p._predictor is not None for p in plugins if _is_model(p)}

    for model in (first, second, first_again):
        name = plugin_name(model)
        with connect(given, model, parts=1) as client:
            client.submit(load_in_task, name, 0, pure=False).result()
            assert loaded(client)[name]
            if model is second:
                assert not loaded(client)[plugin_name(first)]


def _is_model(plugin: object) -> bool:
    return isinstance(plugin, ModelPlugin)


def test_a_model_that_cannot_be_loaded_fails_the_task_that_asked(
    tmp_path: Path, threads: LocalCluster
) -> None:
    model = stub_config(tmp_path / "model")
    given = ClusterConfig(scheduler=threads.scheduler_address)
    with connect(given, model, parts=1) as client:
        save_stub(tmp_path / "model", num_classes=6)  # after the worker was checked
        with pytest.raises(ModelError, match="other weights on this worker"):
            client.submit(load_in_task, plugin_name(model), 0, pure=False).result()


def test_workers_that_are_paused_for_good_end_a_run(tmp_path: Path) -> None:
    # Without a limit nothing resumes a worker.
    how = {"processes": False, "memory_limit": 0, "dashboard_address": ":0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, **how) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        model = stub_config(tmp_path / "model")
        give_model(client, model)
        counted = WorkerCount(client, plugin_name(model), timeout=1.5)
        assert counted.count() == 1
        [worker] = cluster.workers.values()
        worker.status = Status.paused

        def count_on() -> None:
            for _ in range(40):
                time.sleep(0.2)
                counted.count()

        with pytest.raises(ClusterError, match=r"all workers are paused, .* memory"):
            count_on()
