"""Worker processes on this machine."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from running import stub_config

from geoseg.cluster import connect, plugin_name, worker_predictor
from geoseg.clusters import local
from geoseg.clusters.config import ClusterConfig
from geoseg.clusters.local import _weight_bytes, default_workers


def load_in_task(name: str, _: int) -> int:
    time.sleep(0.05)
    return id(worker_predictor(name))


def test_workers_follow_cores_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stub_config(tmp_path / "model")
    monkeypatch.setattr(local, "CPU_COUNT", 8)
    monkeypatch.setattr(local, "MEMORY_LIMIT", 1 << 40)

    def workers(gib: float, model_gib: float = 0) -> int:
        memory = psutil.virtual_memory()._replace(available=int(gib * 2**30))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        return default_workers(model, int(model_gib * 2**30))

    assert workers(gib=100) == 8
    assert workers(gib=6.5) == 3
    assert workers(gib=10, model_gib=1) == 2
    assert workers(gib=0.5) == 1
    # A container allows less than the machine has.
    monkeypatch.setattr(local, "MEMORY_LIMIT", 5 << 30)
    assert workers(gib=100) == 2


@pytest.mark.slow
def test_local_workers_are_numbered_processes_that_end_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = Path(__file__).parents[1]
    # Pytest calls this module tests.clusters.test_local; workers find it below root.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), str(tests.parent)]))
    model = stub_config(tmp_path / "model")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    given = ClusterConfig(workers=2, timeout=120)
    with connect(given, model, parts=9) as client:
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
def test_a_scheduler_may_say_much_and_no_process_runs_code_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    model = stub_config(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    for name in ("dask", "distributed", "json"):
        (data / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit")
    monkeypatch.chdir(data)

    def shout() -> None:
        for _ in range(40):
            sys.stderr.write("x" * 10_000 + "\n")
        sys.stderr.flush()

    # The scheduler unpacks `shout` by importing this module.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with connect(ClusterConfig(workers=1, timeout=60), model, parts=1) as client:
        # More than a pipe holds; it answers only when all of it is written.
        client.run_on_scheduler(shout)
        assert client.submit(sum, (1, 2)).result(timeout=30) == 3
    assert not (data / "ran").exists()
    assert "PYTHONSAFEPATH" not in os.environ


def test_a_checkpoint_is_as_large_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(bytes(1000))
    (tmp_path / "config.json").write_bytes(bytes(10))
    assert _weight_bytes(str(tmp_path / "last.ckpt")) == 1000
    assert _weight_bytes(str(tmp_path)) == 1010
