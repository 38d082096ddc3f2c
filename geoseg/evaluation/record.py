"""`evaluation.json`: everything that an evaluation found, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from geoseg import __version__
from geoseg.evaluation.bootstrap import LEVEL, Interval
from geoseg.evaluation.metrics import BINS, BY_CLASS, OVERALL, Metrics, measure
from geoseg.evaluation.results import Evaluation, RunResult, notes_of

FORMAT = 1
"""Version of the file's layout; higher when one that reads it must know."""

_LINE, _DEPTH = 80, 4
"""Characters up to which a value stays on one line, and depth from which it does."""


def record(evaluation: Evaluation) -> dict[str, Any]:
    """Return what the file holds; equal results give equal content."""
    first, *others = (_run(run) for run in evaluation.runs)
    for entry, run, difference in zip(
        others, evaluation.runs[1:], evaluation.differences, strict=True
    ):
        names = [info.name for info in run.pairs.labels]
        entry["difference"] = _figures(difference.metrics, difference.intervals, names)
    return {
        "format": FORMAT,
        "geoseg": __version__,
        "title": evaluation.title,
        "notes": notes_of(evaluation),
        "failures": [
            {"run": f.run, "scene": f.scene, "reason": f.reason}
            for f in evaluation.failures
        ],
        "runs": [first, *others],
    }


def dumps(value: object, indent: int = 0) -> str:
    """Write JSON, short and deep values on one line: `grep` finds a scene."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, (dict, list)) or len(flat) <= _LINE or indent >= _DEPTH:
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        parts = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {dumps(each, indent + 1)}"
            for key, each in value.items()
        ]
    else:
        parts = [f"{inner}{dumps(each, indent + 1)}" for each in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"


def _run(run: RunResult) -> dict[str, Any]:
    names = [info.name for info in run.pairs.labels]
    return {
        "name": run.name,
        "settings": dict(run.settings),
        "folder": run.folder,
        "model": {"name": run.model, "sha256": run.model_sha256},
        "classes": [
            {"name": info.name, "color": list(info.color)} for info in run.pairs.columns
        ],
        **_figures(run.metrics, run.intervals, names),
        "confusion": {
            "rows": names,
            "columns": [info.name for info in run.pairs.columns],
            "pixels": run.counts.confusion.tolist(),
            "nodata": run.counts.unpredicted.tolist(),
            "ignored": run.counts.uncounted.tolist(),
            "unlabelled": int(run.counts.unlabelled),
        },
        "boundary": {"pixels": list(run.border)},
        "calibration": {
            "bins": BINS,
            "reliability": [
                {
                    "low": each.low,
                    "high": each.high,
                    "pixels": each.pixels,
                    "confidence": _number(each.confidence),
                    "accuracy": _number(each.accuracy),
                }
                for each in run.bins
            ],
        },
        "bootstrap": {
            "resamples": run.resampling.resamples if run.can_resample else 0,
            "seed": run.resampling.seed,
            "level": LEVEL,
        },
        "scenes": [_scene(run, name) for name in run.scores],
        "worst_chips": [
            {
                "scene": name,
                "row": chip.window.row,
                "col": chip.window.col,
                "height": chip.window.height,
                "width": chip.window.width,
                "error": chip.error,
                "wrong": chip.wrong,
                "scored": chip.scored,
            }
            for name, chip in run.worst_chips
        ],
    }


def _scene(run: RunResult, name: str) -> dict[str, Any]:
    score, masks = run.scores[name], run.scenes[name]
    return {
        "scene": name,
        "scene_id": masks.scene_id,
        "image": masks.image,
        "scored": score.counts.scored,
        "nodata": int(score.counts.unpredicted.sum()),
        "ignored": int(score.counts.uncounted.sum()),
        "covered": score.covered,
        "labels_resampled": score.resampled,
        "boundary_pixels": score.border,
        "metrics": _overall(measure(score.counts)),
        "confusion": score.counts.confusion.tolist(),
    }


def _figures(
    metrics: Metrics, ends: Mapping[str, Interval] | None, names: Sequence[str]
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "metrics": _overall(metrics),
        "by_class": _by_class(
            {name: getattr(metrics, name) for name in BY_CLASS}, names
        ),
        "intervals": None,
    }
    if ends is not None:
        figures["intervals"] = {
            "metrics": {name: [_number(end) for end in ends[name]] for name in OVERALL},
            "by_class": _by_class(
                {name: np.stack(ends[name], axis=-1) for name in BY_CLASS}, names
            ),
        }
    return figures


def _overall(metrics: Metrics) -> dict[str, float | None]:
    return {name: _number(getattr(metrics, name)) for name in OVERALL}


def _by_class(
    values: Mapping[str, npt.NDArray[np.float64]], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    return {
        name: {metric: _plain(each[index]) for metric, each in values.items()}
        for index, name in enumerate(names)
    }


def _plain(value: npt.NDArray[np.float64] | float) -> float | list[float | None] | None:
    if np.ndim(value):
        return [_number(each) for each in np.asarray(value)]
    return _number(float(value))


def _number(value: float | npt.NDArray[np.float64]) -> float | None:
    """Return a number that JSON can hold, null where a metric is not defined."""
    number = float(value)
    return number if math.isfinite(number) else None
