"""Progress without a terminal, and why a scene runs at its resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import scene_result
from rasters import rgb_spec, write_raster

from geoseg.cli import display, progress
from geoseg.cli.progress import (
    RunProgress,
    describe_scene,
)
from geoseg.io.raster import Scene, open_scene
from geoseg.pipelines.segment import SegmentConfig
from geoseg.reporting.amounts import duration
from geoseg.stream import SceneFailure


@pytest.fixture
def half_metre(tmp_path: Path) -> Path:
    """A scene of 40 x 60 pixels of half a metre."""
    return write_raster(tmp_path / "scene.tif", np.full((3, 40, 60), 9, np.uint8))


class Clock:
    """A clock that tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in (display, progress):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)


def opened(path: Path, model: float | None, asked: float | None = None) -> Scene:
    spec = rgb_spec(resolution=model)
    return open_scene(path, spec, resolution="auto" if asked is None else asked)


def test_a_finer_scene_says_why_it_is_resampled(half_metre: Path) -> None:
    assert describe_scene("a", opened(half_metre, 2.0), 4, "auto") == (
        "a: resampled from 0.5 m to 2 m, because the model was trained on 2 m; "
        "10 x 15 pixels, 4 tiles"
    )


def test_a_scene_resampled_on_demand_says_so(half_metre: Path) -> None:
    text = describe_scene("a", opened(half_metre, 2.0, 1.0), 1, 1.0)
    assert "from 0.5 m to 1 m, as --resolution 1.0 asks; 20 x 30 pixels, 1 tile" in text


def test_a_scene_at_its_own_resolution_says_why(half_metre: Path) -> None:
    scene = opened(half_metre, 0.6)
    told = describe_scene("a", scene, 1, "auto")
    assert "runs at its own 0.5 m, as it is not over" in told
    assert "0.5 m, as --resolution native" in describe_scene("a", scene, 1, "native")


def config() -> SegmentConfig:
    return SegmentConfig(("a.tif",), Path("out"))


def test_without_a_terminal_lines_come_now_and_then(
    half_metre: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    with RunProgress(config()) as shown:
        for name in ("a", "b"):
            shown.planned(name, opened(half_metre, None), 10)
        for tiles in (0, 2, 2, 2, 2, 2):
            shown.tiles_done("a", tiles)
            clock.now += 4
        shown.scene_done(scene_result("a", (1,)))
        shown.tiles_done("b", 0)
        clock.now += 16
        shown.scene_done(SceneFailure("b", "broken"))
    assert shown.finished == 1
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("Segmenting")]
    assert told == [
        "Segmenting: 0/2 scenes, 8/20 tiles, 0.5 tiles/s, 0:24 left",
        "Segmenting: 2/2 scenes, 10/10 tiles, 0.25 tiles/s, 0:00 left",
    ]
    assert "Failed: b" in lines
    assert "\r" not in "".join(lines)


def test_tiles_of_an_earlier_run_do_not_count_as_speed(half_metre: Path) -> None:
    shown = RunProgress(config())
    shown.planned("a", opened(half_metre, None), 100)
    shown.tiles_done("a", 90)
    assert shown.speed() is None
    shown.tiles_done("a", 5)
    speed = shown.speed()
    assert speed is not None
    assert shown.done == 95


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00"), (309, "5:09"), (3909, "1:05:09"), (-5, "0:00")],
)
def test_durations_read_as_clocks(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_scene_that_is_begun_again_takes_its_speed_back(
    half_metre: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    running = RunProgress(SegmentConfig((), Path("out")), verbosity=-1)
    running.planned("a", opened(half_metre, None), 600)
    running.tiles_done("a", 500)
    clock.now += 10
    running.tiles_done("a", 10)
    assert running.speed() == 1
    running.tiles_done("a", -510)
    assert running.speed() is None, "nothing that was predicted is left"
    running.tiles_done("a", 505)
    running.tiles_done("a", 20)
    assert running.speed() == 2
