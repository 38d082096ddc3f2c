"""Options of a call of `geoseg evaluate`, and the configuration they make."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MissingMandatoryValue

from geoseg.config import compose, convert, override
from geoseg.errors import ConfigError, UsageError
from geoseg.layout import RUN_YAML
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
    if _is_path(named := str(given.get("data", ""))):
        del given["data"]
        overrides = _section(named, given.get("root"), settings)
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


def _is_path(name: str) -> bool:
    """Tell a file from the name of a part; a folder is what a training left."""
    return len(Path(name).parts) > 1 or bool(Path(name).suffix) or name.endswith("/")


def _section(name: str, root: str | None, settings: Sequence[str]) -> list[str]:
    """Read the section `data` of a file: a recipe, a run's, or the section alone.

    Args:
        name: The file, or the folder of a run.
        root: Folder of the labelled scenes, for a file that leaves it open.
        settings: Of the call; they may set it, too.

    Returns:
        It as overrides.

    Raises:
        ConfigError: It cannot be read, or has no such section.
    """
    path = Path(name)
    if (path / RUN_YAML).is_file():
        path = path / RUN_YAML
    alone = _is_alone(path)
    given = [text for text in settings if text.startswith("data.")]
    if root is not None:
        given.insert(0, override("data.root", root))
    if alone:
        given = [text.removeprefix("data.") for text in given]
    try:
        composed = compose(str(path), given)
    except ConfigError as error:
        missing = error.__cause__
        if not (alone and isinstance(missing, MissingMandatoryValue)):
            raise
        key = f"data.{missing.full_key}"
        raise ConfigError(
            f"{path}: {key} has no value; set it with --set {key}=VALUE"
        ) from error
    section = composed if alone else composed.get("data")
    if not isinstance(section, dict) or not section.keys() - {"root"}:
        raise ConfigError(f"{path} has no section `data`; name a recipe that has one")
    return [override(f"data.{name}", value) for name, value in section.items()]


def _is_alone(path: Path) -> bool:
    """Tell whether a file is a section `data` itself, and does not say so to Hydra."""
    try:
        text = path.read_text()
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return False  # told of by `compose`
    inside = isinstance(content, dict) and not content.keys() & {"data", "defaults"}
    # After another comment Hydra takes no notice of it.
    return inside and not re.match(r"\s*#\s*@package\s+data\b", text)


def _pair(text: str) -> tuple[str, str]:
    source, equals, target = text.partition("=")
    if not equals or not source.strip() or not target.strip():
        raise UsageError(
            f"--map {text!r} pairs nothing; write it as MODEL=LABEL, the class of the "
            "model and that of the labels"
        )
    return source.strip(), target.strip()
