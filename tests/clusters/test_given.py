"""A scheduler that runs already, or does not."""

from __future__ import annotations

import socket
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
