"""`evaluation.html`: an evaluation for people, one file that asks no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from geoseg import __version__
from geoseg.evaluation.bootstrap import LEVEL
from geoseg.evaluation.chips import Chip
from geoseg.evaluation.diagram import Diagram
from geoseg.evaluation.metrics import BINS
from geoseg.evaluation.pictures import ChipPictures
from geoseg.evaluation.results import Evaluation, RunResult, notes_of
from geoseg.evaluation.tables import (
    TITLES,
    class_table,
    comparison_table,
    figure,
    scene_table,
)
from geoseg.io.style import hex_color
from geoseg.reporting.style import CSS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The page runs no script and loads nothing, whatever a name in it may try."""

CARDS = ("mean_iou", "accuracy", "mean_f1", "mean_boundary_iou", "calibration_error")
"""Metrics at the top of a run."""

DARK = 0.5
"""Share of a row from which a cell of the heat map is dark, and its text light."""

ShownChip = tuple[str, Chip, ChipPictures]
"""Name of the scene, place, and pictures."""


def page(evaluation: Evaluation, chips: Sequence[Sequence[ShownChip]]) -> str:
    """Return the page.

    Args:
        evaluation: What was found.
        chips: For each run the chips to show.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    several = len(evaluation.runs) > 1
    return environment.get_template("page.html.jinja").render(
        css=CSS,
        policy=POLICY,
        version=__version__,
        title=evaluation.title,
        notes=notes_of(evaluation),
        failures=evaluation.failures,
        comparison=comparison_table(evaluation) if several else None,
        runs=[
            _run(run, shown) for run, shown in zip(evaluation.runs, chips, strict=True)
        ],
        level=f"{LEVEL:.0%}",
        bins=BINS,
        dark=DARK,
    )


def _run(run: RunResult, chips: Sequence[ShownChip]) -> Mapping[str, Any]:
    """Return what the template shows of a run."""
    low, high = run.border
    return {
        "name": run.name,
        "model": run.model,
        "sha256": run.model_sha256[:12],
        "scenes": len(run.scores),
        "pixels": run.counts.scored,
        "cards": [_card(run, name) for name in CARDS],
        "classes": class_table(run),
        "colors": [hex_color(info.color) for info in run.pairs.labels],
        "legend": [(i.name, hex_color(i.color)) for i in run.pairs.columns],
        "columns": [info.name for info in run.pairs.columns],
        "confusion": _confusion(run),
        "border": f"{low}" if low == high else f"{low} to {high}",
        "diagram": Diagram.of(run.bins) if run.bins else None,
        "scene_table": scene_table(run),
        "chips": chips,
        "resamples": run.resampling.resamples if run.can_resample else 0,
    }


def _card(run: RunResult, name: str) -> tuple[str, str, str]:
    """Return title, value and interval of a metric."""
    value = figure(getattr(run.metrics, name), name)
    if run.intervals is None:
        return TITLES[name], value, ""
    low, high = (figure(float(end), name) for end in run.intervals[name])
    return TITLES[name], value, f"{low} to {high}"


def _confusion(run: RunResult) -> list[Mapping[str, Any]]:
    """Return the rows of the heat map: pixels, and shares of the true class."""
    rows: list[Mapping[str, Any]] = []
    for index, info in enumerate(run.pairs.labels):
        pixels = run.counts.confusion[index]
        total = max(1, int(pixels.sum()))
        rows.append(
            {
                "name": info.name,
                "cells": [(int(n), float(n / total)) for n in pixels],
                "nodata": int(run.counts.unpredicted[index]),
                "hit": index,
            }
        )
    return rows
