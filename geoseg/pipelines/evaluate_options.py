"""Options of a call of `geoseg evaluate`, and the configuration they make."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from geoseg.config import compose, convert, override
from geoseg.errors import ConfigError, UsageError
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
"""Key of the recipe that each option sets; `data`, `clusters` choose from configs/, and
`data` may be a file."""


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
    overrides = []
    if str(given.get("data", "")).endswith(".yaml"):
        overrides = _section(given.pop("data"), given.get("root"))
    # What chooses a part goes first: the others set keys in it.
    names = sorted(given, key=lambda name: name not in ("data", "cluster"))
    overrides += [override(KEYS[name], given[name]) for name in names]
    recipe = DEFAULT_PIPELINE if config is None else os.fspath(config)
    composed = compose(recipe, [*overrides, *settings])
    if "mapping" not in composed:
        raise ConfigError(
            f"{recipe} is no recipe of geoseg evaluate; begin it with `defaults: "
            "[evaluate, _self_]`, or pass a recipe of geoseg train as --data, whose "
            "scenes and labels it then takes"
        )
    composed["data"] = composed.get("data") or {}
    composed["mapping"] = {**composed["mapping"], **dict(map(_pair, mapping))}
    if not composed.get("out"):
        raise UsageError(
            "no output folder is given; name one with -o, or as `out:` in the "
            "configuration"
        )
    return convert(composed, EvaluateConfig)


def _section(path: str, root: str | None) -> list[str]:
    """Read the section `data` of a file: a recipe, a run's, or the section alone.

    Args:
        path: The file.
        root: Folder of the labelled scenes, for a file that leaves it open.

    Returns:
        It as overrides.

    Raises:
        ConfigError: It cannot be read, or has no such section.
    """
    # Both roots are set, since one that is left open could not be composed.
    tried = compose(path, ["++data.root=.", "++root=."])
    alone = "classes" in tried
    if not alone and tried["data"].keys() == {"root"}:
        raise ConfigError(f"{path} has no section `data`; name a recipe that has one")
    key = "root" if alone else "data.root"
    composed = compose(path, [] if root is None else [override(key, root)])
    section = composed if alone else composed["data"]
    return [override(f"data.{name}", value) for name, value in section.items()]


def _pair(text: str) -> tuple[str, str]:
    source, equals, target = text.partition("=")
    if not equals or not source.strip() or not target.strip():
        raise UsageError(
            f"--map {text!r} pairs nothing; write it as MODEL=LABEL, the class of the "
            "model and that of the labels"
        )
    return source.strip(), target.strip()
