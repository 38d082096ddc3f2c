"""When runs are said to be scored on different parts of the labelled scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from evaluations import run_result

from geoseg.evaluation.counts import SceneCounts
from geoseg.evaluation.results import Evaluation, notes_of
from geoseg.evaluation.scene import SceneScore
from geoseg.types import ClassInfo

INFOS = [ClassInfo(n, f"class {n}", (n, 0, 0)) for n in range(1, 5)]


def score(scored: list[int], left: list[int] | None = None) -> SceneScore:
    """Return what a comparison counts by class: scored, and nodata in the mask."""
    counts = SceneCounts.zeros(4, 4)
    np.fill_diagonal(counts.confusion, scored)
    counts.unpredicted[:] = left or 0
    return SceneScore(counts, 3, False, 1.0, ())


def told(*runs: Mapping[str, SceneScore]) -> list[str]:
    """Return notes of different parts."""
    every = tuple(run_result(f"run{n}", INFOS, scores) for n, scores in enumerate(runs))
    return [
        note
        for note in notes_of(Evaluation("made", every))
        if "different parts" in note
    ]


def test_grids_that_meet_a_class_less_often_leave_nothing_out() -> None:
    fine = {"north": score([3600, 3600, 3600, 3600])}
    coarse = {"north": score([948, 852, 900, 900])}
    assert told(fine, coarse) == []


def test_what_one_mask_says_is_nodata_another_may_not_cover() -> None:
    whole = {"north": score([300, 200, 0, 0], [0, 0, 200, 300])}
    part = {"north": replace(score([300, 200, 0, 0]), covered=0.5)}
    assert told(whole, part) == []
    # Of what the second one scores, the first one leaves a part out.
    whole = {"north": score([300, 100, 100, 0], [0, 100, 100, 300])}
    [note] = told(whole, part)
    assert "(run0: 50.0%; run1: 50.0%; most of all in north)" in note


@pytest.mark.parametrize("order", [("north", "south"), ("south", "north")])
def test_the_scene_is_one_that_is_told_of(order: tuple[str, str]) -> None:
    """Here many classes are left out in part, there one of them in a part too small."""
    whole = score([2500] * 4)
    north = score([2460] * 4, [40] * 4)
    south = score([2420, 2500, 2500, 2500], [80, 0, 0, 0])
    other = {"north": north, "south": south}
    [note] = told(dict.fromkeys(order, whole), {name: other[name] for name in order})
    assert "most of all in north" in note
    assert told({"south": whole}, {"south": south}) == []
