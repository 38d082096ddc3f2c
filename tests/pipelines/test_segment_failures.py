"""Scenes that fail: the others go on, or the run ends; full disks, no memory left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask_processes import dask_processes, wait_for_address
from rasters import write_raster
from running import configuration, fingerprint, segment_plainly, smooth_image
from runs import plain_runs
from stubs import save_stub

from geoseg.cluster import LOST
from geoseg.finish import SceneResult
from geoseg.pipelines import segment, segment_run
from geoseg.pipelines.segment import Listener
from geoseg.stream import SceneFailure

BAD = 255
"""Red value at which the stub fails."""


def write_archive(folder: Path, names: str, *, bad: str = "") -> Path:
    """Write scenes of 9 tiles, named by letters; the model fails on those in `bad`."""
    for seed, name in enumerate(names):
        image = smooth_image(150, 130, seed=seed)
        if name in bad:
            image[0, 60, 60] = BAD
        folder.mkdir(exist_ok=True)
        write_raster(folder / f"{name}.tif", image)
    return folder


class Outcomes(Listener):
    def __init__(self) -> None:
        self.ids: list[str] = []

    def scene_done(self, outcome: SceneResult | SceneFailure) -> None:
        self.ids.append(outcome.scene_id)


def test_the_first_failure_ends_a_run_that_asks_for_it(
    tmp_path: Path, scheduler: str
) -> None:
    archive = write_archive(tmp_path / "archive", "abcdefghijklmnopqrst", bad="ab")
    model = save_stub(tmp_path / "model", fail_on=1.0)
    sections: dict[str, dict[str, Any]] = {"cluster": {"scheduler": scheduler}}
    out = tmp_path / "out"
    told = Outcomes()
    sections["output"] = {"on_error": "fail"}
    report = segment.run(configuration(archive, out, model, sections), told)
    assert not report.ok
    # Outcomes come as scenes end; one of the bad ones is the last that is told.
    assert told.ids[-1] in "ab"
    assert len([name for name in told.ids if name in "ab"]) == 1
    reasons = {failure.scene_id: failure.reason for failure in report.failures}
    assert "the stub was told to fail" in reasons[told.ids[-1]]
    assert "the run ended before" in reasons["t"]
    assert (out / "report.json").is_file()
    sections["output"] = {"on_error": "skip"}
    report = segment.run(configuration(archive, out, model, sections))
    assert [failure.scene_id for failure in report.failures] == ["a", "b"]
    assert len(report.results) == 18


def test_a_scene_that_cannot_be_opened_ends_it_before_there_is_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path / "archive", "bc")
    (archive / "a.tif").write_text("not a raster")
    model = save_stub(tmp_path / "model")

    def refuse(*_: object) -> None:
        raise AssertionError("no cluster is needed")

    monkeypatch.setattr(segment_run, "connect", refuse)
    sections = {"output": {"on_error": "fail"}}
    report = segment.run(configuration(archive, tmp_path / "out", model, sections))
    assert [failure.scene_id for failure in report.failures] == ["a", "b", "c"]


def test_scenes_that_need_no_work_let_the_stream_look_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = plain_runs(tmp_path, monkeypatch)
    runs.scene("b")
    runs.scene("d", seed=1)
    runs.run()
    (tmp_path / "archive" / "a.tif").write_text("not a raster")
    runs.scene("c", seed=2)
    seen: list[str | None] = []
    outcomes = runs.outcomes

    def watched(cluster: Any, model: Any, jobs: Any, log: Any) -> Any:  # noqa: ANN401
        planned = list(jobs)
        seen.extend(job and job.scene_id for job in planned)
        return outcomes(cluster, model, iter(planned), log)

    monkeypatch.setattr(segment_run, "_outcomes", watched)
    report = runs.run()
    assert [failure.scene_id for failure in report.failures] == ["a"]
    assert seen == [None, None, "c", None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("room", [80_000, 150_000, 300_000])
def test_a_full_disk_fails_scenes_by_name_and_room_lets_the_same_call_go_on(
    tmp_path: Path, scheduler: str, disk: Path, room: int
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(400, 400, sigma=1))
    model = save_stub(tmp_path / "model", kind="levels")
    [expected] = segment_plainly(scene, tmp_path / "plain", model)
    config = configuration(
        scene, disk / "out", model, {"cluster": {"scheduler": scheduler}}
    )
    filler = disk / "filler"
    free = os.statvfs(disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_bsize - room))
    report = segment.run(config)
    [failure] = report.failures
    assert "free some space or choose another -o" in failure.reason
    assert not (disk / "out" / "scene" / "item.json").exists()
    assert not list((disk / "out").rglob("*geoseg-tmp*"))
    filler.unlink()
    report = segment.run(config)
    [result] = report.results
    assert fingerprint(Path(result.folder)) == fingerprint(Path(expected.folder))


@pytest.fixture
def small_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Scheduler of one worker that may take 2 GB."""
    # Give up after the first death; the default of three only takes longer.
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    # Whatever the environment says: what ended the worker is read in its log.
    monkeypatch.setenv("DASK_LOGGING__DISTRIBUTED", "warning")
    limited = ["--nworkers", "1", "--memory-limit", "2GB"]
    # The last death of a worker ends the run: its nanny is starting another one.
    with dask_processes(tmp_path, worker=limited, patience=2) as file:
        yield wait_for_address(file)


@pytest.mark.slow
def test_a_scene_that_takes_all_memory_fails_and_the_others_are_finished(
    tmp_path: Path, small_worker: str
) -> None:
    archive = write_archive(tmp_path / "archive", "abc", bad="b")
    model = save_stub(tmp_path / "model", fail_on=1.0, fail_by="memory")
    cluster = {"scheduler": small_worker, "timeout": 60.0}
    config = configuration(archive, tmp_path / "out", model, {"cluster": cluster})
    report = segment.run(config)
    assert [result.scene_id for result in report.results] == ["a", "c"]
    [failure] = report.failures
    assert failure.scene_id == "b"
    assert "probably out of memory; use fewer workers" in failure.reason
    assert LOST not in failure.reason
    log = (tmp_path / "log").read_text()
    assert "exceeded 95% memory budget" in log
