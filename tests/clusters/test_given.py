"""A scheduler that runs already, or does not."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from distributed import LocalCluster
from running import stub_config

from geoseg.cluster import connect
from geoseg.clusters.config import ClusterConfig
from geoseg.errors import ClusterError


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


def test_a_scheduler_is_found_by_its_file_even_if_that_comes_late(
    tmp_path: Path,
) -> None:
    file = tmp_path / "scheduler.json"
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", dashboard_address=":0"
    ) as running:
        file.write_text("{")  # being written
        whole = json.dumps({"address": running.scheduler_address})
        later = threading.Timer(0.5, file.write_text, [whole])
        later.start()
        config = ClusterConfig(scheduler_file=file)
        with connect(config, stub_config(tmp_path / "model"), parts=1) as client:
            assert client.scheduler.address == running.scheduler_address
        later.join()


def test_a_scheduler_file_that_never_comes_is_told(tmp_path: Path) -> None:
    config = ClusterConfig(scheduler_file=tmp_path / "scheduler.json", timeout=0.5)
    with (
        pytest.raises(ClusterError, match=r"scheduler\.json did not name an address"),
        connect(config, stub_config(tmp_path / "model"), parts=1),
    ):
        pass
