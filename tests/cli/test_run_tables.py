"""The closing table of a run: bounded, with what needs attention first."""

from __future__ import annotations

from commands import RecordedRun, geoseg

from geoseg.cli.run_tables import MOST_SCENES
from geoseg.reporting.record import ClassAmount, RunRecord, SceneRecord, SceneState


def record_of(*states: SceneState) -> RunRecord:
    classes = (ClassAmount(1, "water", 30, 2, 3e4), ClassAmount(2, "land", 10, 1, 1e4))
    scenes = [
        SceneRecord(
            f"s{number}",
            "source",
            state=state,
            tiles=1200,
            tiles_done=1200 if state == "done" else 300,
            tiles_skipped=7 if state == "done" else None,
            seconds=75.2,
            peak_memory=3 << 29,
            classes=classes if state == "done" else (),
        )
        for number, state in enumerate(states)
    ]
    peak: dict[str, int | None] = {"client": 300 << 20, "worker": 3 << 29}
    return RunRecord(scenes=scenes, seconds=3725.0, peak_memory=peak)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.lstrip().startswith("s")]


def test_each_scene_has_its_state_tiles_area_time_and_memory(
    recorded: RecordedRun,
) -> None:
    recorded.record = record_of("done", "unfinished")
    output = geoseg("segment", "a.tif", "-o", "out").stdout
    title, done, unfinished = rows(output)[:3]
    assert title[:5] == ["scene", "state", "tiles", "skipped", "area"]
    assert done == [
        *("s0", "done", "1,200", "7", "4.00", "1:15", "1.5", "GiB", "75%", "water")
    ]
    assert unfinished[:4] == ["s1", "unfinished", "300/1,200", "25%"]
    assert "Scenes:  2 (1 done, 1 unfinished)" in output
    assert "Time:    1:02:05; most memory: client 300 MiB, worker 1.5 GiB" in output


def test_a_large_run_has_a_short_table_with_failures_first(
    recorded: RecordedRun,
) -> None:
    states: list[SceneState] = ["done"] * 500
    recorded.record = record_of(*states, "failed")
    output = geoseg("segment", "a.tif", "-o", "out").stdout
    listed = rows(output)[1:]
    assert [cells[0] for cells in listed] == [
        "s500",
        *(f"s{number}" for number in range(MOST_SCENES - 1)),
    ]
    assert f"and {501 - MOST_SCENES} more" in output
    assert "Scenes:  501 (500 done, 1 failed)" in output


def test_one_scene_needs_no_table_of_scenes(recorded: RecordedRun) -> None:
    recorded.record = record_of("done")
    output = geoseg("segment", "a.tif", "-o", "out").stdout
    assert rows(output) == []
    assert "Time:    1:02:05" in output
    assert geoseg("segment", "a.tif", "-o", "out", "-q").stdout == ""
