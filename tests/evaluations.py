"""Evaluations of scenes that tests make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from running import segment_plainly

from geoseg.data.labelled import LabelledScene
from geoseg.evaluation.matching import pair_classes
from geoseg.evaluation.results import Evaluation, Resampling, RunResult
from geoseg.evaluation.scene import SceneMasks, SceneScore, ScoreSettings
from geoseg.pipelines.evaluate import EvaluateConfig, run
from geoseg.types import ClassInfo


def run_result(
    name: str, infos: Sequence[ClassInfo], scores: Mapping[str, SceneScore]
) -> RunResult:
    """A run whose scenes count as told; no file of it is anywhere."""
    pixels = np.zeros((3, 4, 4), np.uint8)
    scenes = {
        scene: SceneMasks(
            scene,
            LabelledScene(scene, pixels, pixels[0]),
            f"{scene}.tif",
            Path("m.tif"),
            None,
        )
        for scene in scores
    }
    return RunResult(
        name=name,
        settings={},
        folder=name,
        model="toy",
        model_sha256="0" * 64,
        pairs=pair_classes(infos, infos),
        scenes=scenes,
        scores=scores,
        resampling=Resampling(),
        worst=0,
    )


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
