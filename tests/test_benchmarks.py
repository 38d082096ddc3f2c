"""What benchmarks say of their figures, and that they end when their servers do."""

from __future__ import annotations

import subprocess
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module(name)


def test_a_goal_is_met_or_missed_in_table_and_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    goals = load("goals", monkeypatch)
    records = goals.print_goals(
        [
            goals.Goal("ratio", 20.0, "at least", 20.0),
            goals.Goal("ratio", 19.9, "at least", 20.0),
            goals.Goal("seconds", 600.1, "at most", 600.0),
        ]
    )
    assert [record["met"] for record in records] == [True, False, False]
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "met",
        "MISSED",
        "MISSED",
    ]


def test_a_benchmark_ends_when_a_server_that_it_waits_for_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    servers = load("servers", monkeypatch)
    with subprocess.Popen(["sh", "-c", "exit 3"]) as dead:
        with (
            pytest.raises(SystemExit, match=r"^the scheduler ended with 3$"),
            servers.needed({"scheduler": dead}),
        ):
            threading.Event().wait()
        with pytest.raises(SystemExit, match=r"^the scheduler ended with 3$"):
            servers.wait_for_file(tmp_path / "none", dead)


def figures() -> dict[str, Any]:
    peaks = {"client": 100.0, "scheduler": 90.0, "worker": 400.0}
    stages = ("start", "bands", "rasters", "polygons")
    sizes: list[dict[str, Any]] = [
        {
            "size": size,
            "mpx": size**2 / 1e6,
            "polygons_per_mpx": 1200,
            "worries": [],
            "peak_mib": {stage: dict(peaks) for stage in stages},
        }
        for size in (1000, 2000)
    ]
    small: dict[str, Any] = {"scenes": 20, "whole": 20, "kinds": 1, "worries": []}
    small["peak_mib_first_tenth"] = small["peak_mib_rest"] = {"client": 100.0}
    return {"sizes": sizes, "small": small}


def test_wrong_outputs_and_unseen_stages_of_archives_are_no_missed_goals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = load("bench_archive", monkeypatch)
    seen = figures()
    assert list(bench.find_wrong(seen)) == []
    assert all(goal.met for goal in bench.find_goals(seen))
    seen["sizes"][1]["peak_mib"]["bands"]["worker"] = 500.0
    assert list(bench.find_wrong(seen)) == []
    [missed] = [goal for goal in bench.find_goals(seen) if not goal.met]
    assert missed.what == "worker, bands: peak of the last size over the first"
    assert missed.value == 1.25
    seen["sizes"][0]["peak_mib"]["rasters"]["client"] = 0.0
    seen["sizes"][1]["mpx"] = 3.9
    seen["small"]["kinds"] = 2
    assert list(bench.find_wrong(seen)) == [
        "1000, rasters: nobody saw client",
        "2000: 3.9 Mpx have a class, and all are valid",
        "small: 20 are whole, of 2 kinds",
    ]


def test_the_sum_that_all_schedulers_must_give_is_that_of_a_plain_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = load("bench_scheduler", monkeypatch)
    side = bench.TILE + bench.STRIDE * 4
    places = [(row, col) for row in range(5) for col in range(5)]
    total = sum(bench.one_tile(place, side) for place in places)
    assert bench.sum_of_all(side) == total
