"""What benchmarks say of their figures, and that they end when their servers do."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_runs import SPEC, loop_config, made_scene

from geoseg.data.chips import ChipConfig, ChipSampler
from geoseg.data.labelled import IGNORE

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


def test_a_timed_training_that_was_stopped_ends_as_if_it_had_not_been(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = load("timed_training", monkeypatch)
    drawn: list[tuple[int, int]] = []

    def make(clock: Callable[[], float]) -> Any:  # noqa: ANN401 (of a script)
        torch.manual_seed(0)
        chips = ChipSampler([made_scene("made")], 3, ChipConfig(size=16))
        whole = chips.batch

        def batch(seed: int, step: int, count: int, side: int) -> Any:  # noqa: ANN401
            drawn.append((count, side))
            return whole(seed, step, count, side)

        monkeypatch.setattr(chips, "batch", batch)
        return module.TimedTraining(
            Pixelwise(),
            lambda logits, labels: F.cross_entropy(logits, labels, ignore_index=IGNORE),
            chips,
            loop_config(checkpoint_seconds=2, final_chip_size=24),
            chip_size=16,
            data=SPEC,
            seconds=8,
            clock=clock,
        )

    unbroken = make(itertools.count().__next__)
    unbroken.run(tmp_path / "unbroken.pt", {})
    assert (unbroken.step, unbroken.spent) == (8, 8)
    # The last quarter of the seconds sees larger chips, as of the recipe's steps.
    assert drawn == [(2, 16)] * 6 + [(1, 24)] * 2
    ticks = iter(range(6))
    with pytest.raises(StopIteration):
        make(ticks.__next__).run(tmp_path / "last.pt", {"rate": 1})
    resumed = make(itertools.count(100).__next__)
    resumed.run(tmp_path / "last.pt", {"rate": 1})
    # Five steps were taken and four of them kept.
    assert len(drawn) == 8 + 6 + 4
    for name, value in unbroken.average.state_dict().items():
        assert torch.equal(resumed.average.state_dict()[name], value)
    with pytest.raises(SystemExit, match="other settings"):
        make(itertools.count().__next__).run(tmp_path / "last.pt", {"rate": 2})


class Pixelwise(nn.Module):
    """Logits of three classes from each pixel's colour."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(3, 3, kernel_size=1)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.linear(pixel_values))


def test_results_are_known_only_of_the_same_setup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    record = load("record", monkeypatch)
    path = tmp_path / "results.json"
    setup = {"seconds": 8000.0, "chips": {"scale": (0.5, 2.0)}}
    assert record.known_results(path, setup) == {}
    record.write_results(path, {**setup, "scores": {"U-Net, 0.001": {"miou": 0.5}}})
    known = record.known_results(path, setup)
    assert known["scores"] == {"U-Net, 0.001": {"miou": 0.5}}
    assert record.known_results(path, setup | {"seconds": 9000.0}) == {}
    assert record.known_results(path, setup | {"loss": "Dice"}) == {}
    assert record.known_results(None, setup) == {}
