"""Intervals of metrics by resampling scenes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from geoseg.evaluation.counts import SceneCounts, stacked
from geoseg.evaluation.metrics import Metrics, measure

FEWEST_SCENES = 10
"""Scenes below which there are no intervals: they would be far too narrow."""

LEVEL = 0.95
"""Share of resamples that an interval holds."""

_MOST_VALUES = 1 << 22
"""Numbers held at once, so that memory does not grow with scenes times resamples."""

Interval = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Lower and upper end of a metric, by class if it is by class."""


def intervals(
    scenes: Sequence[SceneCounts], resamples: int, seed: int
) -> dict[str, Interval]:
    """Return percentile intervals of each metric.

    Scenes are drawn with replacement, as many as there are: pixels of one scene are not
    independent. Efron and Tibshirani: "An Introduction to the Bootstrap", 1993,
    chapter 13.

    Args:
        scenes: Counts of each scene, at least `FEWEST_SCENES` of them.
        resamples: How often scenes are drawn.
        seed: Of the draws.
    """
    return _percentiles([measure(sums) for sums in _sums(scenes, resamples, seed)])


def paired_intervals(
    scenes: Sequence[SceneCounts],
    baseline: Sequence[SceneCounts],
    resamples: int,
    seed: int,
) -> dict[str, Interval]:
    """Return intervals of the difference of each metric to a baseline's.

    Each resample takes the same scenes of both: what makes a scene hard for both is no
    difference.

    Args:
        scenes: Counts of each scene.
        baseline: Counts of the same scenes in the same order by another run.
        resamples: How often scenes are drawn.
        seed: Of the draws.
    """
    both = zip(
        _sums(scenes, resamples, seed), _sums(baseline, resamples, seed), strict=True
    )
    return _percentiles([_less(measure(one), measure(two)) for one, two in both])


def _sums(
    scenes: Sequence[SceneCounts], resamples: int, seed: int
) -> Iterator[SceneCounts]:
    """Yield the counts of resamples, some at a time, shape (some, ...) each."""
    # Floats, which are multiplied a hundred times faster; exact up to 2 ** 53 pixels.
    every, count = stacked(scenes), len(scenes)
    stack = [
        getattr(every, field.name).astype(np.float64) for field in fields(SceneCounts)
    ]
    rng = np.random.default_rng(seed)
    step = max(1, _MOST_VALUES // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        # How often each scene is drawn, when one is drawn as often as there are scenes.
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=size)
        weights = drawn.astype(np.float64)
        yield SceneCounts(*(np.tensordot(weights, each, axes=1) for each in stack))


def _less(one: Metrics, other: Metrics) -> Metrics:
    return Metrics(
        *(getattr(one, f.name) - getattr(other, f.name) for f in fields(Metrics))
    )


def _percentiles(drawn: Sequence[Metrics]) -> dict[str, Interval]:
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    ends = {}
    for field in fields(Metrics):
        values = np.concatenate([getattr(part, field.name) for part in drawn])
        ends[field.name] = _defined_quantiles(values, tails)
    return ends


def _defined_quantiles(
    values: npt.NDArray[np.float64], tails: Sequence[float]
) -> Interval:
    """Return quantiles along the first axis; NaN if a value there is never defined.

    A resample may hold no scene with a class: it says nothing of that class.
    """
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat).all(axis=0)
    ends = np.full((2, flat.shape[1]), np.nan)
    if known.any():
        ends[:, known] = np.nanquantile(flat[:, known], tails, axis=0)
    low, high = ends.reshape(2, *values.shape[1:])
    return np.asarray(low), np.asarray(high)
