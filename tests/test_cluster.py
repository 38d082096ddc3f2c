"""The cluster: given or local, and one model per worker."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster
from running import configuration, predictor_config
from stubs import save_stub

from geoseg import cluster
from geoseg.cluster import (
    RESOURCE,
    ClusterConfig,
    ModelPlugin,
    connect,
    default_workers,
    plugin_name,
    worker_predictor,
)
from geoseg.errors import ClusterError, ConfigError, ModelError
from geoseg.inference import PredictorConfig


def stub_config(folder: Path, **options: Any) -> PredictorConfig:  # noqa: ANN401
    return predictor_config(configuration(Path(), Path(), save_stub(folder, **options)))


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
    save_stub(tmp_path / "model", num_classes=6)
    given = ClusterConfig(scheduler=threads.scheduler_address)
    with (
        connect(given, model, parts=1) as client,
        pytest.raises(ModelError, match="other weights on this worker"),
    ):
        client.submit(load_in_task, plugin_name(model), 0, pure=False).result()


def test_a_scheduler_that_does_not_answer_is_told_in_time(tmp_path: Path) -> None:
    model = stub_config(tmp_path / "model")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with (
            pytest.raises(ClusterError, match=r"did not answer within 2 s.*dask sched"),
            connect(ClusterConfig(scheduler=address, timeout=2), model, parts=1),
        ):
            pass
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense", "ftp://x:1"])
def test_an_address_where_no_scheduler_is_is_one_line(
    tmp_path: Path, address: str
) -> None:
    model = stub_config(tmp_path / "model")
    with (
        pytest.raises(ClusterError, match="did not answer"),
        connect(ClusterConfig(scheduler=address, timeout=2), model, parts=1),
    ):
        pass


def test_a_scheduler_without_workers_is_told(tmp_path: Path) -> None:
    model = stub_config(tmp_path / "model")
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp://", dashboard_address=":0"
    ) as empty:
        given = ClusterConfig(scheduler=empty.scheduler_address, timeout=1)
        with (
            pytest.raises(
                ClusterError, match=r"has no worker; start some.*dask worker"
            ),
            connect(given, model, parts=1),
        ):
            pass


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": 0}, "0 workers"),
        ({"workers": -1}, "-1 workers"),
        ({"threads": 1}, "2 or more"),
        ({"timeout": 0.0}, "timeout"),
    ],
)
def test_numbers_that_make_no_cluster_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterConfig(**fields)


def test_workers_follow_cores_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stub_config(tmp_path / "model")
    monkeypatch.setattr(cluster, "CPU_COUNT", 8)
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", 1 << 40)

    def workers(gib: float, model_gib: float = 0) -> int:
        memory = psutil.virtual_memory()._replace(available=int(gib * 2**30))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        return default_workers(model, int(model_gib * 2**30))

    assert workers(gib=100) == 8
    assert workers(gib=6.5) == 3
    assert workers(gib=10, model_gib=1) == 2
    assert workers(gib=0.5) == 1
    # A container allows less than the machine has.
    monkeypatch.setattr(cluster, "MEMORY_LIMIT", 5 << 30)
    assert workers(gib=100) == 2


@pytest.mark.slow
def test_local_workers_are_numbered_processes_that_end_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = Path(__file__).parent
    # Pytest calls this module tests.test_cluster, so workers find it below the root.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), str(tests.parent)]))
    model = stub_config(tmp_path / "model")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    local = ClusterConfig(workers=2, timeout=120)
    with connect(local, model, parts=9) as client:
        client.wait_for_workers(2, timeout=120)
        workers = client.scheduler_info()["workers"].values()
        assert {worker["name"] for worker in workers} == {0, 1}
        pids = set(client.run(os.getpid).values())
        assert len(pids | {os.getpid()}) == 3
        # No more workers than parts, and two at once.
        with ThreadPoolExecutor() as pool:
            name = plugin_name(model)
            futures = client.map(load_in_task, [name] * 6, range(6), pure=False)
            list(pool.map(lambda future: future.result(), futures))
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert not pids & after
    assert after <= before


@pytest.mark.slow
def test_a_scheduler_with_much_to_say_is_not_blocked_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    model = stub_config(tmp_path / "model")

    def shout() -> None:
        for _ in range(40):
            sys.stderr.write("x" * 10_000 + "\n")
        sys.stderr.flush()

    with connect(ClusterConfig(workers=1, timeout=60), model, parts=1) as client:
        # More than a pipe holds; it answers only when all of it is written.
        client.run_on_scheduler(shout)
        assert client.submit(sum, (1, 2)).result(timeout=30) == 3


@pytest.mark.slow
def test_local_processes_run_no_code_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    model = stub_config(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    for name in ("dask", "distributed", "json"):
        (data / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit")
    monkeypatch.chdir(data)
    with connect(ClusterConfig(workers=1, timeout=60), model, parts=1) as client:
        assert client.submit(sum, (1, 2)).result() == 3
    assert not (data / "ran").exists()
    assert "PYTHONSAFEPATH" not in os.environ
