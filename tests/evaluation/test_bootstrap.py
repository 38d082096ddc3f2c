"""Intervals by resampling scenes: seeded, paired, and of the right width."""

from __future__ import annotations

import numpy as np
import pytest

from geoseg.evaluation import bootstrap
from geoseg.evaluation.bootstrap import intervals, paired_intervals
from geoseg.evaluation.counts import SceneCounts


def scene(right: int, wrong: int) -> SceneCounts:
    counts = SceneCounts.zeros(2, 2)
    counts.confusion[0] = [right, wrong]
    return counts


def scenes(number: int, *, shift: int = 0) -> list[SceneCounts]:
    """Draw scenes of 1000 pixels whose accuracy varies."""
    rng = np.random.default_rng(1)
    right = rng.integers(300, 900, number) + shift
    return [scene(int(n), 1000 - int(n)) for n in right]


def test_interval_of_accuracy_is_that_of_a_mean() -> None:
    drawn = scenes(400)
    shares = np.array([one.confusion[0, 0] / 1000 for one in drawn])
    low, high = intervals(drawn, 4000, seed=0)["accuracy"]
    error = 1.96 * shares.std() / np.sqrt(len(drawn))
    assert low == pytest.approx(shares.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(shares.mean() + error, abs=0.1 * error)


def test_a_seed_gives_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    first = intervals(scenes(12), 500, seed=3)
    # However many resamples are held at once.
    monkeypatch.setattr(bootstrap, "_MOST_VALUES", 12 * 7)
    for name, ends in intervals(scenes(12), 500, seed=3).items():
        np.testing.assert_array_equal(ends, first[name])
    other = intervals(scenes(12), 500, seed=4)["accuracy"]
    assert tuple(map(float, other)) != tuple(map(float, first["accuracy"]))


def test_a_paired_difference_is_free_of_what_scenes_share() -> None:
    drawn, better = scenes(20), scenes(20, shift=10)
    low, high = paired_intervals(better, drawn, 500, seed=0)["accuracy"]
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.01)
    apart = intervals(drawn, 500, seed=0)["accuracy"]
    assert apart[1] - apart[0] > 0.1


def test_a_class_that_never_occurs_has_no_interval() -> None:
    ends = intervals(scenes(12), 50, seed=0)
    assert np.isfinite(ends["iou"][0][0])
    assert np.isnan([ends["recall"][0][1], ends["recall"][1][1]]).all()
