"""A signal to end is a wish at first: parts in hand are finished."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from rasters import write_raster
from running import (
    configuration,
    fingerprint,
    plan_jobs,
    predictor_config,
    segment_plainly,
    smooth_image,
)
from stubs import clear_log, logged_tiles, save_stub

from geoseg import scene_run, stream
from geoseg.cluster import ModelPlugin, plugin_name
from geoseg.finish import SceneResult
from geoseg.graph import PartRecord, SceneJob, find_part
from geoseg.stopping import Stop, stoppable
from geoseg.stream import SceneStream


class Run:
    """A scene of many bands on a slow model."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client, self.log = client, folder / "log"
        image = smooth_image(64 + 48 * 9, 64 + 48 * 23)
        self.scene = write_raster(folder / "scene.tif", image)
        self.model = save_stub(
            folder / "model", kind="levels", seconds=0.01, log_folder=self.log
        )
        config = configuration(self.scene, folder / "out", self.model)
        self.predictor = predictor_config(config)
        client.register_plugin(ModelPlugin(self.predictor))
        [self.job] = plan_jobs(config)

    def stream(self, **options: Any) -> SceneStream:  # noqa: ANN401 (its own)
        jobs = options.pop("jobs", iter([self.job]))
        name = plugin_name(self.predictor)
        tiles_done = options.pop("tiles_done", lambda *_: None)
        return SceneStream(self.client, name, jobs, tiles_done, **options)

    def parts(self) -> int:
        return sum(find_part(self.job, b.index) is not None for b in self.job.parts)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_parts_in_hand_are_finished_and_nothing_is_begun(
    client: Client, tmp_path: Path
) -> None:
    run, stop = Run(client, tmp_path), Stop()
    told, made = [], []

    def tiles_done(_: str, tiles: int) -> None:
        told.append(tiles)
        if len(told) == 5:  # the first tells what an earlier run left
            made.append(run.parts())
            stop.ask(interrupt)

    announced: list[int] = []
    running = run.stream(
        tiles_done=tiles_done, stop=stop, stopping=announced.append, in_flight=12
    )
    with pytest.raises(KeyboardInterrupt):
        list(running)
    # The band that was being predicted, and at most one that waited to be blended.
    assert announced in ([1], [2])
    parts = run.parts()
    assert parts == made[0] + announced[0]
    bands = sum(logged_tiles(run.log).values()) / 24
    # A band that begins while the worker is asked what it does may be dropped.
    assert parts <= bands < parts + 1
    [expected] = segment_plainly(run.scene, tmp_path / "plain", run.model)
    clear_log(run.log)
    [result] = run.stream()
    assert isinstance(result, SceneResult)
    again = sum(logged_tiles(run.log).values()) / 24
    assert again <= len(run.job.parts) - parts + 1
    assert fingerprint(Path(result.folder)) == fingerprint(Path(expected.folder))


def test_what_takes_longer_than_the_grace_is_given_up(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, stop = Run(client, tmp_path), Stop()
    monkeypatch.setattr(stream, "GRACE", 0.0)

    def tiles_done(_: str, tiles: int) -> None:
        if tiles:
            stop.ask(interrupt)

    announced: list[int] = []
    running = run.stream(tiles_done=tiles_done, stop=stop, stopping=announced.append)
    with pytest.raises(KeyboardInterrupt):
        list(running)
    assert announced
    assert run.parts() < 3


def test_a_stop_is_seen_while_scenes_need_no_work(
    client: Client, tmp_path: Path
) -> None:
    run, stop = Run(client, tmp_path), Stop()
    seen: list[int] = []

    def whole() -> Iterator[SceneJob | None]:
        for number in range(1000):
            seen.append(number)
            if number == 2:
                stop.ask(interrupt)
            yield None

    with pytest.raises(KeyboardInterrupt):
        list(run.stream(stop=stop, jobs=whole()))
    assert seen == [0, 1, 2]


def test_a_stop_is_seen_while_parts_are_looked_for(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, stop = Run(client, tmp_path), Stop()
    looked: list[int] = []

    def found(job: SceneJob, index: int) -> PartRecord | None:
        looked.append(index)
        stop.ask(interrupt)
        return find_part(job, index)

    monkeypatch.setattr(scene_run, "find_part", found)
    assert len(run.job.parts) > 1
    with pytest.raises(KeyboardInterrupt):
        list(run.stream(stop=stop))
    assert looked == [0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_wish_and_the_second_an_order(
    number: signal.Signals,
) -> None:
    def end(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(number, end)
    try:
        with stoppable() as stop:
            asked = [stop.asked]
            os.kill(os.getpid(), number)
            asked.append(stop.asked)
            assert asked == [False, True]
            with pytest.raises(InterruptedError):
                stop.end()
            with pytest.raises(InterruptedError):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)


def test_signals_that_nobody_handles_here_stay_as_they_are() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert before == signal.SIG_DFL
    with stoppable() as stop:
        assert signal.getsignal(signal.SIGTERM) == before
        assert not stop.asked
    found: list[bool] = []

    def elsewhere() -> None:
        with stoppable() as stop:
            found.append(stop.asked)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [False]
