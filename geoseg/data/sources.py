"""From the section `data` of a recipe to labelled scenes, part by part."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from geoseg.data.config import DataConfig
from geoseg.data.files import open_file_scene
from geoseg.data.labelled import LabelledSource
from geoseg.data.leaks import warn_of_leaks
from geoseg.data.pairs import Pair, find_pairs
from geoseg.data.parts import load_part_scenes, read_part_index
from geoseg.data.split import PARTS, Part, split_names
from geoseg.errors import ConfigError, GeosegWarning, SceneError


@dataclass(frozen=True, slots=True)
class Split:
    """Labelled scenes by what they are for."""

    train: tuple[LabelledSource, ...]
    """What is learned from."""
    validation: tuple[LabelledSource, ...]
    """What chooses a checkpoint."""
    test: tuple[LabelledSource, ...]
    """What is only measured on."""


def open_split(config: DataConfig, parts: Collection[Part] = PARTS) -> Split:
    """Find and open the labelled scenes of a recipe; reads no pixel of files.

    Args:
        config: The section `data`.
        parts: Parts that are wanted; those that are not stay empty.

    Raises:
        ConfigError: The recipe fits no data, or a part that is wanted comes out empty.
        SceneError: A scene cannot be read, unless `data.on_bad` is skip.

    Warns:
        GeosegWarning: A scene is left out, or two parts share ground or images.
    """
    if config.layout == "parts":
        index = read_part_index(config.root)
        names = split_names(index.names, config.split)
        opened = {
            part: tuple(load_part_scenes(config.root, names[part], config.table))
            for part in PARTS
            if part in parts
        }
    else:
        pairs = {pair.name: pair for pair in find_pairs(config)}
        names = split_names(list(pairs), config.split)
        opened = {
            part: _open_pairs([pairs[name] for name in names[part]], config)
            for part in PARTS
            if part in parts
        }
    for part, scenes in opened.items():
        if names[part] and not scenes:
            raise ConfigError(f"no scene of data.split.{part} can be read")
    warn_of_leaks(opened)
    return Split(*(opened.get(part, ()) for part in PARTS))


def _open_pairs(
    pairs: Sequence[Pair], config: DataConfig
) -> tuple[LabelledSource, ...]:
    opened: list[LabelledSource] = []
    for pair in pairs:
        try:
            opened.append(open_file_scene(pair.name, pair.image, pair.labels, config))
        except SceneError as error:
            if config.on_bad == "fail":
                raise
            warnings.warn(
                f"{pair.name} is left out: {error}", GeosegWarning, stacklevel=3
            )
    return tuple(opened)
