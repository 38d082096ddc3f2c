"""An archive of corrupt files in one call, on workers with little memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio
from dask_processes import dask_processes
from distributed import Client
from stubs import save_stub

pytestmark = pytest.mark.slow

LIMIT = 3 << 30
"""Bytes that a worker may hold."""


def alive() -> tuple[int, int]:
    """Return a worker's process id and the bytes that it held at most, ever.

    Dask looks at its limit now and then; the kernel keeps the true maximum. Addresses
    are not limited: libraries map far more of them than they use.
    """
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    return os.getpid(), int(peak[1]) << 10


def test_each_is_named_with_its_reason_or_whole_and_no_worker_dies(
    tmp_path: Path, shared_data: Path
) -> None:
    archive = (shared_data / "hostile-tiff").resolve()
    files = sorted(archive.rglob("*.tif"))
    assert len(files) > 200
    out = tmp_path / "out"
    model = save_stub(tmp_path / "model", tile_size=256)
    command = [sys.executable, "-m", "geoseg", "segment", archive, "-o", out]
    command += ["--model", model, "--set", "model.imports=[stubs]"]
    # Whatever has pixels is read.
    command += ["--bands", "1,1,1", "--scale", "255", "--resolution", "native"]
    limited = ["--nworkers", "2", "--memory-limit", LIMIT]
    with dask_processes(tmp_path, worker=limited) as file:
        run = subprocess.run(
            [*map(str, command), "--scheduler-file", str(file)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        with Client(scheduler_file=str(file)) as client:
            workers = client.run(alive)
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert "Restarting worker" not in (tmp_path / "log").read_text()
    assert len(workers) == 2
    assert all(peak < LIMIT for _, peak in workers.values())
    whole = [path for path in files if is_whole(out, archive, path)]
    assert len(whole) > 20
    for path in set(files) - set(whole):
        scene_id = path.relative_to(archive).with_suffix("")
        assert not (out / scene_id).exists(), path
        # Among notes on how it is read.
        said = re.findall(
            rf"^ *{re.escape(str(scene_id))}: (.+)$", run.stderr, re.MULTILINE
        )
        assert any(str(path) in line for line in said), (path, said)


def is_whole(out: Path, archive: Path, path: Path) -> bool:
    """Whether a scene is marked as whole; then all of it must be readable."""
    folder = out / path.relative_to(archive).with_suffix("")
    if not (folder / "item.json").exists():
        return False
    with (
        rasterio.open(folder / "classes.tif") as classes,
        rasterio.open(folder / "confidence.tif") as confidence,
    ):
        assert classes.shape == confidence.shape
        assert classes.checksum(1) >= 0
    gpd.read_file(folder / "segments.gpkg", layer="segments")
    return True
