"""Clients that leave."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from dask_processes import dask_processes, wait_for_address
from distributed import Client

from geoseg.clusters import client as clients


def test_a_client_that_is_slow_to_leave_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_GOODBYE", 0.3)
    with dask_processes(tmp_path, workers=0) as file:
        client = Client(wait_for_address(file), set_as_default=False)
        loop: Any = client.loop
        # As on a machine that has too much to do.
        loop.add_callback(time.sleep, 1.5)
        clients.leave(client)
        left = client.status
        time.sleep(1.5)
        client.close()
        assert (left, client.status) == ("closing", "closed")
