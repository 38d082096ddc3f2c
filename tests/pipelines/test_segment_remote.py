"""Scenes of other machines are looked at side by side, and planned in their order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rasters import write_raster
from running import configuration, predictor_config, smooth_image
from stubs import save_stub
from web import gather, serve

from geoseg.archive import RunDirectory
from geoseg.discovery import SceneFile
from geoseg.graph import SceneJob
from geoseg.io.location import name_for_gdal
from geoseg.models.registry import read_spec
from geoseg.pipelines import segment_remote
from geoseg.pipelines.segment import Listener
from geoseg.pipelines.segment_plan import Plan
from geoseg.pipelines.segment_remote import AHEAD, looked_at
from geoseg.stream import SceneFailure


@contextmanager
def planner(folder: Path) -> Iterator[Plan]:
    model = save_stub(folder / "model", kind="levels")
    config = configuration(Path(), folder / "out", model)
    directory = RunDirectory(config.out, "", overwrite=False)
    spec, predictor = read_spec(model), predictor_config(config)
    with directory.locked():
        yield Plan(config, spec, predictor, 48, directory, Listener())


def scene_files(urls: list[str]) -> list[SceneFile]:
    return [SceneFile(name_for_gdal(url), f"s{i}") for i, url in enumerate(urls)]


def remote(count: int) -> list[SceneFile]:
    return scene_files([f"https://example.com/{number}.tif" for number in range(count)])


def test_remote_and_local_scenes_are_planned_in_their_order(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for seed in range(4):
        write_raster(archive / f"{seed}.tif", smooth_image(90, 90, seed=seed))
    with serve(archive, tmp_path / "log") as web, planner(tmp_path) as plan:
        urls = [f"{web.url}/{n}.tif" for n in (0, "gone", 1)] + [f"{archive}/2.tif"]
        files = scene_files([*urls, f"{web.url}/3.tif"])
        planned = [item for item in plan.scenes(files) if item is not None]
    assert [item.scene_id for item in planned] == [file.scene_id for file in files]
    kinds = [SceneJob, SceneFailure, SceneJob, SceneJob, SceneJob]
    assert [type(item) for item in planned] == kinds
    failure = planned[1]
    assert isinstance(failure, SceneFailure)
    assert "404" in failure.reason


def test_servers_of_scenes_are_asked_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "2")
    with gather(3) as url, planner(tmp_path) as plan:
        files = scene_files([f"{url}/{number}.tif" for number in range(3)])
        planned = [item for item in plan.scenes(files) if item is not None]
    reasons = [item.reason for item in planned if isinstance(item, SceneFailure)]
    assert len(reasons) == 3
    assert all("404" in reason for reason in reasons)


def test_no_more_are_looked_at_than_there_are_threads() -> None:
    together, lock = threading.Barrier(AHEAD), threading.Lock()
    now, most = [0], [0]

    def look(file: SceneFile) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(20)
        with lock:
            now[0] -= 1
        return file.scene_id

    files = remote(3 * AHEAD)
    found = [item for item in looked_at(files, look) if item is not None]
    assert [told() for _, told in found] == [file.scene_id for file in files]
    assert most == [AHEAD]


def test_a_local_scene_is_looked_at_when_its_turn_comes() -> None:
    looked: list[str] = []

    def look(file: SceneFile) -> None:
        looked.append(file.scene_id)

    files = [SceneFile(f"/archive/{number}.tif", f"s{number}") for number in range(99)]
    for number, found in enumerate(looked_at(files, look)):
        assert found is not None
        assert len(looked) == number
        found[1]()


def test_others_have_their_turn_while_a_server_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segment_remote, "LOOK_UP", 0.001)
    answer, answered = threading.Event(), threading.Event()

    def look(_: SceneFile) -> None:
        answer.wait(10)
        answered.set()

    planned = looked_at(remote(2), look)
    assert next(planned) is None
    # As a run does that is asked to stop: it does not wait for the server.
    planned.close()
    assert not answered.is_set()
    answer.set()
