"""Options of a call of `geoseg evaluate`, and the configuration they make."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from geoseg.config import compose, convert, override
from geoseg.errors import UsageError
from geoseg.pipelines.evaluate import EvaluateConfig

DEFAULT_PIPELINE = "evaluate"
"""Recipe that is read when none is named."""

KEYS: Mapping[str, str] = {
    "root": "data.root",
    "out": "out",
    "data": "data",
    "images": "data.images",
    "labels": "data.labels",
    "part": "part",
    "leave_out": "leave_out",
    "run": "run",
    "compare": "compare",
    "border": "scoring.border",
    "worst": "scoring.worst",
    "model": "model.path",
    "device": "model.device",
    "resolution": "input.resolution",
    "cluster": "clusters",
    "workers": "cluster.workers",
    "scheduler": "cluster.scheduler",
    "scheduler_file": "cluster.scheduler_file",
}
"""Key of the recipe that each option sets; `data`, `clusters` choose from configs/."""


def evaluate_config(
    *,
    config: str | os.PathLike[str] | None = None,
    settings: Sequence[str] = (),
    mapping: Sequence[str] = (),
    options: Mapping[str, Any],
) -> EvaluateConfig:
    """Compose what a call depends on: the recipe, then options, then settings.

    Args:
        config: Name of a recipe or path of a YAML file; None is "evaluate".
        settings: "key=value", as after --set; they win over options.
        mapping: "MODEL=LABEL" of classes, over those of the recipe.
        options: By the names of `KEYS`; None and () leave it to the recipe.

    Raises:
        UsageError: An option, key or value is wrong, or the folder is missing.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    # What chooses a part goes first: the others set keys in it.
    names = sorted(given, key=lambda name: name not in ("data", "cluster"))
    overrides = [override(KEYS[name], given[name]) for name in names]
    recipe = DEFAULT_PIPELINE if config is None else os.fspath(config)
    composed = compose(recipe, [*overrides, *settings])
    composed["data"] = composed.get("data") or {}
    composed["mapping"] = {**composed["mapping"], **dict(map(_pair, mapping))}
    if not composed.get("out"):
        raise UsageError(
            "no output folder is given; name one with -o, or as `out:` in the "
            "configuration"
        )
    return convert(composed, EvaluateConfig)


def _pair(text: str) -> tuple[str, str]:
    source, equals, target = text.partition("=")
    if not equals or not source.strip() or not target.strip():
        raise UsageError(
            f"--map {text!r} pairs nothing; write it as MODEL=LABEL, the class of the "
            "model and that of the labels"
        )
    return source.strip(), target.strip()
