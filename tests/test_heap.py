"""Memory that workers keep while a task runs, and return when it ends."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import dask.config
import pytest

from geoseg import tasks
from geoseg._heap import SETTINGS
from geoseg._processes import local_cluster
from geoseg.errors import SceneError

if TYPE_CHECKING:
    from geoseg.graph import SceneJob

PROFILE = "distributed.worker.profile.enabled"

# A block that stays at the top keeps glibc from returning what lies below it.
TAKING_AND_DROPPING = """
import ctypes
from pathlib import Path
from geoseg._heap import return_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
before = resident()
blocks = [libc.malloc(1 << 20) for _ in range(101)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 20)
for block in blocks[:-1]:
    libc.free(ctypes.c_void_p(block))
kept = resident() - before
return_memory()
print(kept >> 20, resident() - before >> 20)
"""


def test_memory_is_kept_and_then_returned() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TAKING_AND_DROPPING],
        env={**os.environ, **SETTINGS},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, left = map(int, done.stdout.split())
    assert kept >= 99, "what a tile drops is there for the next one"
    assert left <= 3


@pytest.mark.parametrize("error", [None, SceneError("no room"), ValueError("a bug")])
def test_a_task_returns_its_memory_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    returned: list[None] = []
    monkeypatch.setattr(tasks, "return_memory", lambda: returned.append(None))

    def finish(job: object, records: object) -> None:
        del job, records
        if error is not None:
            raise error

    monkeypatch.setattr(tasks, "finish_scene", finish)
    scene = {"parts": (), "out": "out", "work": tmp_path / "s", "scene_id": "s"}
    job = cast("SceneJob", SimpleNamespace(**scene, key="k"))
    with suppress(ValueError):
        tasks.finish_task(job)
    assert len(returned) == 1


def test_local_workers_are_started_so(tmp_path: Path) -> None:
    from distributed import Client

    with (
        local_cluster(1, 1, 60, tmp_path) as address,
        Client(address, set_as_default=False) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        [found] = client.run(lambda: dict(os.environ)).values()
        [profiled] = client.run(lambda: dask.config.get(PROFILE)).values()
        thresholds = {*client.run(gc.get_threshold).values()}
    assert {name: found.get(name) for name in SETTINGS} == SETTINGS
    assert not profiled
    assert thresholds != {gc.get_threshold()}, "imports are not searched for cycles"
