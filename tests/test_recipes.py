"""Every file in configs/ and pipelines/ composes and fits its dataclass."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
import yaml

from geoseg.config import compose, convert, dump

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Pipeline:
    """Who runs a pipeline's YAML, and what a caller must give."""

    module: str
    """Module of its dataclass."""
    config: str
    """Name of its dataclass."""
    needed: list[str]
    """Overrides for what has no default."""


PIPELINES = {
    "segment": Pipeline(
        "geoseg.pipelines.segment", "SegmentConfig", ["scenes=[a.tif]", "out=out"]
    ),
    "evaluate": Pipeline(
        "geoseg.pipelines.evaluate",
        "EvaluateConfig",
        ["data.root=somewhere", "out=out"],
    ),
    **{
        name: Pipeline("geoseg.pipelines.train", "TrainConfig", ["data.root=somewhere"])
        for name in ("train-builtin", "train-loveda")
    },
    "refine-builtin": Pipeline(
        "geoseg.pipelines.train",
        "TrainConfig",
        ["data.root=somewhere", "start_from=model"],
    ),
}
# Which pipeline takes the parts of a group, how they are chosen, what they ask for.
GROUPS: dict[str, tuple[str, str, list[str]]] = {
    "clusters": ("segment", "clusters", []),
    "output": ("segment", "output", []),
    "data": ("train-builtin", "data", []),
    "models": ("train-builtin", "models@model", []),
}
# What single parts of a group ask for.
ASKED = {
    "scheduler": ["cluster.scheduler=tcp://host:8786"],
    "scheduler-file": ["cluster.scheduler_file=scheduler.json"],
    "spec": ["cluster.spec.cls=distributed.LocalCluster"],
}


def names(folder: str) -> list[str]:
    """Return the recipes of a folder, without the extension."""
    return sorted(path.stem for path in (ROOT / folder).glob("*.yaml"))


def parts() -> list[tuple[str, str]]:
    """Return (group, name) of every part in configs/."""
    groups = sorted(path.name for path in (ROOT / "configs").iterdir())
    return [(group, name) for group in groups for name in names(f"configs/{group}")]


def config_class(pipeline: str) -> type[object]:
    """Return the dataclass that a pipeline is checked into."""
    entry = PIPELINES[pipeline]
    found = getattr(importlib.import_module(entry.module), entry.config)
    assert isinstance(found, type)
    assert dataclasses.is_dataclass(found)
    return found


@pytest.mark.parametrize("pipeline", names("pipelines"))
def test_every_pipeline_fits_its_dataclass(pipeline: str) -> None:
    cls = config_class(pipeline)
    config = convert(compose(pipeline, PIPELINES[pipeline].needed), cls)
    assert convert(yaml.safe_load(dump(config)), cls) == config


@pytest.mark.parametrize("pipeline", names("pipelines"))
def test_every_pipeline_names_every_key(pipeline: str) -> None:
    # The YAML is where a user learns what can be set.
    composed = compose(pipeline, PIPELINES[pipeline].needed)
    full = yaml.safe_load(dump(convert(composed, config_class(pipeline))))
    assert missing_keys(full, composed) == []


def missing_keys(full: object, given: object, prefix: str = "") -> list[str]:
    """Return the dotted keys of `full` that `given` lacks."""
    if not isinstance(full, dict) or not isinstance(given, dict):
        return []
    missing = [f"{prefix}{key}" for key in full if key not in given]
    for key in full.keys() & given.keys():
        missing += missing_keys(full[key], given[key], f"{prefix}{key}.")
    return missing


@pytest.mark.parametrize(("group", "name"), parts())
def test_every_part_fits_the_pipeline_that_takes_it(group: str, name: str) -> None:
    pipeline, choice, needed = GROUPS[group]
    needed = [*PIPELINES[pipeline].needed, *needed, *ASKED.get(name, [])]
    composed = compose(pipeline, [f"{choice}={name}", *needed])
    kind = config_class(pipeline)
    assert isinstance(convert(composed, kind), kind)


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("configs/*/*.yaml"), *ROOT.glob("pipelines/*.yaml")],
    ids=lambda path: path.stem,
)
def test_every_recipe_starts_with_words(path: Path) -> None:
    assert path.read_text().startswith("# ")
