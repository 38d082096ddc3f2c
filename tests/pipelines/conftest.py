"""A Dask scheduler and workers as processes of their own, shared by all tests here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _workers_import_stubs() -> Iterator[None]:
    """Let every process that a test starts import `stubs`."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(TESTS), str(TESTS.parent), *(before or "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    yield
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="session")
def scheduler(
    _workers_import_stubs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Address of a `dask scheduler` with two `dask worker`s, run as a user would."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    common = ["--no-dashboard", "--scheduler-file", str(file)]
    start = [*dask, "scheduler", *common, "--host", "127.0.0.1", "--port", "0"]
    worker = [*dask, "worker", *common, "--nthreads", "2", "--no-nanny"]
    worker += ["--local-directory", str(folder), "--host", "127.0.0.1"]
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen(command, stdout=log, stderr=log)
            for command in (start, worker, worker)
        ]
        try:
            yield _address(file)
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def _address(file: Path) -> str:
    """Wait for the scheduler's file and read its address."""
    import json

    for _ in range(300):
        try:
            address: str = json.loads(file.read_text())["address"]
        except (OSError, ValueError):
            time.sleep(0.1)
        else:
            return address
    raise AssertionError("the scheduler did not start in 30 s")
