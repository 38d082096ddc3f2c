"""Settings that `geoseg evaluate` compares: every combination of what is given."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from geoseg.config import choices, convert, dump
from geoseg.errors import ConfigError
from geoseg.pipelines.segment import InputConfig, ModelConfig, TilingConfig

SECTIONS = ("model", "tiling", "input")
"""Sections that masks depend on."""

_ONE_THING = {"tiling.overlap": "tiling.stride", "tiling.stride": "tiling.overlap"}
"""Keys that are two words for one thing: setting one unsets the other."""

_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Sections:
    """What masks depend on."""

    model: ModelConfig = field(default_factory=ModelConfig)
    tiling: TilingConfig = field(default_factory=TilingConfig)
    input: InputConfig = field(default_factory=InputConfig)


@dataclass(frozen=True, slots=True)
class Variant:
    """One run of those that are compared."""

    settings: Mapping[str, str]
    """Keys that differ between runs, and their values as text."""
    sections: Sections
    """All settings."""

    @property
    def name(self) -> str:
        """What tells it from others, for tables."""
        if not self.settings:
            return self.sections.model.path
        return ", ".join(f"{key}={value}" for key, value in self.settings.items())

    @property
    def folder(self) -> str:
        """Name of the folder of its masks; the same for the same settings."""
        text = "+".join(f"{key}={value}" for key, value in self.settings.items())
        safe = re.sub(r"[^A-Za-z0-9=+._-]", "_", text)[:_LONGEST_NAME]
        if safe == text:
            return text or "run"
        return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def make_variants(base: Sections, compare: Sequence[str]) -> list[Variant]:
    """Return every combination of values, in the order written; the last varies first.

    Args:
        base: Settings of all.
        compare: "key=value,value,...", as `compare` of the recipe.

    Raises:
        ConfigError: A key is not one that masks depend on, or a value does not fit it.
    """
    axes = [_axis(text) for text in compare]
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        raise ConfigError("compare names a key twice; give all its values at once")
    made = []
    for values in itertools.product(*(values for _, values in axes)):
        settings = dict(zip(keys, values, strict=True))
        told = {key: _told(value) for key, value in settings.items()}
        made.append(Variant(told, _applied(base, settings)))
    return made


def _axis(text: str) -> tuple[str, list[object]]:
    key, values = choices(text)
    section, _, name = key.partition(".")
    if section not in SECTIONS or not name:
        raise ConfigError(
            f"compare cannot vary {key}; use a key of {', '.join(SECTIONS)}, such as "
            "tiling.overlap=0,96"
        )
    if len({_told(value) for value in values}) < len(values):
        raise ConfigError(f"compare has a value of {key} twice; leave one")
    return key, values


def _told(value: object) -> str:
    """Write a value as a recipe has it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1e6)
    return text.removesuffix("...\n").strip()


def _applied(base: Sections, settings: Mapping[str, object]) -> Sections:
    plain: dict[str, dict[str, Any]] = yaml.safe_load(dump(base))
    for key, value in settings.items():
        section, _, name = key.partition(".")
        plain[section][name] = value
        if key in _ONE_THING and _ONE_THING[key] not in settings:
            plain[section][_ONE_THING[key].partition(".")[2]] = None
    return convert(plain, Sections)
