"""Evaluations of scenes that tests make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from running import segment_plainly

from geoseg.evaluation.results import Evaluation
from geoseg.evaluation.scene import ScoreSettings
from geoseg.pipelines.evaluate import EvaluateConfig, run


def segmented(
    root: Path,
    model: Path,
    out: Path,
    sections: dict[str, dict[str, Any]] | None = None,
) -> Path:
    images = sorted((root / "images").glob("*.tif"))
    quick = {"output": {"polygons": False}}
    segment_plainly(images, out, model, quick | (sections or {}))
    return out


def evaluated(
    out: Path,
    root: Path,
    runs: Sequence[Path],
    **options: Any,  # noqa: ANN401 (fields of EvaluateConfig)
) -> Evaluation:
    data = {"root": str(root), "ignore": [0], **options.pop("data", {})}
    scoring = options.pop("scoring", ScoreSettings(border=3, chip=32))
    config = EvaluateConfig(out, data, run=tuple(runs), scoring=scoring, **options)
    return run(config)
