"""Figures as cells: the same in Markdown, on the page and on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.evaluation.bootstrap import Interval
from geoseg.evaluation.metrics import BY_CLASS, OVERALL, measure
from geoseg.evaluation.results import Evaluation, RunResult

TITLES = {
    "mean_iou": "mIoU",
    "accuracy": "accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_f1": "mean F1",
    "mean_boundary_iou": "boundary mIoU",
    "calibration_error": "ECE",
    "iou": "IoU",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "boundary_iou": "boundary IoU",
    "area_bias": "area bias",
}
"""Metrics as people call them."""

MEANS = {
    "iou": "mean_iou",
    "f1": "mean_f1",
    "recall": "mean_accuracy",
    "boundary_iou": "mean_boundary_iou",
}
"""Mean over the classes of a metric by class, where there is one."""

_OF_SCENES = ("mean_iou", "accuracy", "mean_f1", "mean_boundary_iou")

Values = npt.NDArray[np.float64] | float


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns: names first, then numbers."""

    titles: tuple[str, ...]
    """Names of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Cells."""
    names: int = 1
    """Columns that hold names, not numbers."""


def class_table(run: RunResult, *, brief: bool = False) -> Table:
    """Return a row a class, and one of means.

    Args:
        run: The run.
        brief: Leave intervals out, which are wide.
    """
    ends = None if brief else run.intervals
    pixels = run.counts.confusion.sum(axis=1)
    total = max(1, int(pixels.sum()))
    rows = [
        (
            info.name,
            *(
                figure(
                    getattr(run.metrics, name)[index],
                    name,
                    _of_class(ends, name, index),
                )
                for name in BY_CLASS
            ),
            f"{pixels[index] / total:.1%}",
        )
        for index, info in enumerate(run.pairs.labels)
    ]
    means = [
        figure(getattr(run.metrics, MEANS[name]), MEANS[name]) if name in MEANS else ""
        for name in BY_CLASS
    ]
    titles = [TITLES[name] for name in BY_CLASS]
    return Table(("class", *titles, "of labels"), (*rows, ("mean", *means, "")))


def comparison_table(evaluation: Evaluation) -> Table:
    """Return a row a run, with the difference of mIoU to the first.

    Runs are told by what was compared, a column a setting, or by their names.
    """
    keys = tuple(evaluation.runs[0].settings)
    rows = []
    gaps = [None, *evaluation.differences]
    for run, gap in zip(evaluation.runs, gaps, strict=True):
        told = ""
        if gap is not None:
            ends = None if gap.intervals is None else gap.intervals["mean_iou"]
            told = _signed(gap.metrics.mean_iou, ends)
        cells = [figure(getattr(run.metrics, name), name) for name in OVERALL]
        names = [run.settings[key] for key in keys] or [run.name]
        rows.append((*names, *cells, told))
    heads = _short(keys) or ("run",)
    titles = [TITLES[name] for name in OVERALL]
    return Table((*heads, *titles, "mIoU vs first"), tuple(rows), len(heads))


def _short(keys: Sequence[str]) -> tuple[str, ...]:
    """Return several keys without their sections, where that tells them apart."""
    names = tuple(key.rpartition(".")[2] for key in keys)
    return names if 1 < len(set(names)) == len(keys) else tuple(keys)


def overall_table(run: RunResult) -> Table:
    """Return a row a metric of the whole set."""
    rows = [
        (
            TITLES[name],
            figure(
                getattr(run.metrics, name),
                name,
                None if run.intervals is None else run.intervals[name],
            ),
        )
        for name in OVERALL
    ]
    return Table(("metric", "value"), tuple(rows))


def scene_table(run: RunResult) -> Table:
    """Return a row a scene, in the order of the labels."""
    rows = []
    for name, score in run.scores.items():
        metrics = measure(score.counts)
        cells = [figure(getattr(metrics, metric), metric) for metric in _OF_SCENES]
        rows.append((name, *cells, f"{score.counts.scored:,}"))
    titles = [TITLES[name] for name in _OF_SCENES]
    return Table(("scene", *titles, "pixels"), tuple(rows))


def figure(value: Values, name: str, ends: Interval | None = None) -> str:
    """Write a metric, its interval behind it; "-" where it is not defined."""
    number = float(value)
    if not math.isfinite(number):
        return "-"
    text = f"{number:+z.1%}" if name == "area_bias" else f"{number:.3f}"
    if ends is None or not np.isfinite(ends).all():
        return text
    low, high = (figure(float(end), name) for end in ends)
    return f"{text} ({low} to {high})"


def _signed(value: Values, ends: Interval | None) -> str:
    number = float(value)
    if not math.isfinite(number):
        return "-"
    # "z": a difference that rounds to nothing has no sign.
    told = ""
    if ends is not None:
        told = f" ({float(ends[0]):+z.3f} to {float(ends[1]):+z.3f})"
    return f"{number:+z.3f}{told}"


def _of_class(
    intervals: Mapping[str, Interval] | None, name: str, index: int
) -> Interval | None:
    if intervals is None:
        return None
    low, high = intervals[name]
    return low[index], high[index]
