"""`report.json`: read back as it was written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geoseg.reporting.record import (
    ClassAmount,
    RunRecord,
    SceneRecord,
    read_record,
    recorded_root,
    report_lines,
)


def record() -> RunRecord:
    scenes = [
        SceneRecord("a/münchen", "a.tif", state="failed", reason='it "broke"\n'),
        SceneRecord("b", "b.tif", classes=(ClassAmount(1, "x", 3, None, None),)),
    ]
    return RunRecord(root="/data/archive", versions={"geoseg": "1"}, scenes=scenes)


@pytest.mark.parametrize("scenes", [0, 1, 2])
def test_a_record_comes_back_and_each_scene_is_a_line(
    tmp_path: Path, scenes: int
) -> None:
    path, written = tmp_path / "report.json", record()
    del written.scenes[scenes:]
    path.write_text("".join(report_lines(written)), encoding="utf-8")
    assert read_record(path) == written
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line.rstrip(",")) for line in lines if '"scene_id"' in line]
    assert [entry["scene_id"] for entry in found] == ["a/münchen", "b"][:scenes]
    assert recorded_root(path) == "/data/archive"


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "report.json") is None
    assert recorded_root(tmp_path / "report.json") is None


@pytest.mark.parametrize("text", ["[]", '{"root": "/x"}', '{"root": 3}', "\x00"])
def test_no_root_is_taken_from_a_foreign_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    assert recorded_root(tmp_path / "report.json") is None
