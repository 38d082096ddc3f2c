"""How far a run is, told by its directory alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import geoseg
from runs import TALL, PlainRuns, plain_runs

from geoseg.io.lock import exclusive
from geoseg.pipelines import segment_report


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlainRuns:
    return plain_runs(tmp_path, monkeypatch)


class PowerCut(BaseException):
    """Ends a run without a word."""


@pytest.fixture
def killed(runs: PlainRuns, monkeypatch: pytest.MonkeyPatch) -> PlainRuns:
    """Return a run that was killed: one scene is whole, one has one of its two parts.

    The report is as it was when work began.
    """
    runs.scene("a", seed=1)
    runs.scene("b", height=TALL)
    runs.scene("c", seed=2)
    runs.stop_after, runs.stop_by = 2, PowerCut()
    with monkeypatch.context() as patch:
        patch.setattr(segment_report, "RENEW_SECONDS", 1e6)
        patch.setattr(segment_report.RunLog, "__exit__", lambda *_: None)
        with pytest.raises(PowerCut):
            runs.run()
    runs.stop_after = None
    return runs


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of a table's rows by the first one."""
    found = [line.split() for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in found if len(cells) > 3}


def test_a_killed_run_is_told_from_what_is_on_disk(killed: PlainRuns) -> None:
    result = geoseg("status", killed.out)
    assert result.exit_code == 1
    table = rows(result.stdout)
    assert table["a"][:2] == ["done", "1"]
    assert table["b"][:3] == ["unfinished", "16/32", "50%"]
    assert "1/2" in table["b"]
    assert table["c"][0] == "unfinished"
    assert "Scenes: 3 (1 done, 2 unfinished)" in result.stdout
    assert "the run was killed" in result.stdout
    told = json.loads(geoseg("status", killed.out, "--json").stdout)
    assert (told["alive"], told["whole"]) == (False, False)
    assert told["parts_on_disk"] == {"b": 1}, "c was not opened yet"
    assert told["tiles"] == {"all": 33, "done": 17, "skipped": 0}
    assert (told["tiles_per_second"], told["seconds_left"]) == (None, None)


def test_a_run_at_work_tells_its_speed_and_the_time_left(killed: PlainRuns) -> None:
    report = killed.out / "report.json"
    begun = json.loads(report.read_text())
    begun["scenes"][1]["started"] = begun["scenes"][0]["started"]
    report.write_text(json.dumps(begun))
    with exclusive(killed.out / ".geoseg" / "lock", killed.out):
        result = geoseg("status", killed.out)
        told = json.loads(geoseg("status", killed.out, "--json").stdout)
    assert result.exit_code == 3
    assert [rows(result.stdout)[name][0] for name in "abc"] == [
        *("done", "running", "waiting")
    ]
    assert "Tiles:  17 of 33 (52%; 1 scenes not opened yet)" in result.stdout
    assert "Run:    at work" in result.stdout
    assert told["alive"]
    assert told["tiles_per_second"] > 0
    left = (33 * 3 / 2 - 17) / told["tiles_per_second"]
    assert told["seconds_left"] == pytest.approx(left)


def test_looking_does_not_keep_a_run_from_starting(killed: PlainRuns) -> None:
    lock = killed.out / ".geoseg" / "lock"
    before = {path: path.stat().st_mtime_ns for path in killed.out.rglob("*")}
    geoseg("status", killed.out)
    assert before == {path: path.stat().st_mtime_ns for path in killed.out.rglob("*")}
    with exclusive(lock, killed.out):
        pass


def test_a_whole_run_is_whole_until_a_scene_is_removed(runs: PlainRuns) -> None:
    runs.scene("x/a")
    runs.run()
    result = geoseg("status", runs.out)
    assert result.exit_code == 0, result.output
    assert "Scenes: 1 (1 done)" in result.stdout
    assert "Run:    ended" in result.stdout
    assert geoseg("status", runs.out, "-q").stdout == ""
    (runs.out / "x" / "a" / "item.json").unlink()
    told = geoseg("status", runs.out, "--json")
    assert told.exit_code == 1
    [scene] = json.loads(told.stdout)["scenes"]
    assert scene["state"] == "unfinished"
    assert "not there any more" in scene["reason"]


def test_failed_scenes_are_told_with_their_reasons(runs: PlainRuns) -> None:
    (runs.folder / "archive").mkdir()
    (runs.folder / "archive" / "b.tif").write_text("no raster")
    runs.scene("a")
    runs.run()
    result = geoseg("status", runs.out)
    assert result.exit_code == 1
    assert rows(result.stdout)["b"][0] == "failed"
    assert "\n  b: " in result.stdout
    assert "cannot be read" in result.stdout


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"format": 1}', "\x00"])
def test_a_damaged_report_is_one_line(killed: PlainRuns, damage: str) -> None:
    (killed.out / "report.json").write_text(damage)
    result = geoseg("status", killed.out)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert "report.json" in line
    assert "`geoseg segment`" in line
    assert rows(result.stdout)["a"][0] == "done", "it is on disk"


def test_a_report_of_another_version_is_one_line(killed: PlainRuns) -> None:
    report = '{"format": 2, "versions": {"geoseg": "99.1"}}'
    (killed.out / "report.json").write_text(report)
    result = geoseg("status", killed.out)
    assert result.exit_code == 1
    assert "of another version of geoseg (99.1)" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("lost", [".geoseg", ".geoseg/parts", "report.json", "a", "b"])
def test_a_half_deleted_run_is_told_without_a_traceback(
    killed: PlainRuns, lost: str
) -> None:
    path = killed.out / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    result = geoseg("status", killed.out)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "Scenes: " in result.stdout


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_what_is_no_run_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    result = geoseg("status", tmp_path / what)
    assert result.exit_code == 2
    assert "name the -o of a `geoseg segment` call" in result.stderr
