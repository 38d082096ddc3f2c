"""From the section `data` of a recipe to labelled scenes, part by part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from geoseg.data.config import DataConfig
from geoseg.data.files import open_file_scene
from geoseg.data.labelled import LabelledSource
from geoseg.data.leaks import warn_of_leaks
from geoseg.data.pairs import find_pairs
from geoseg.data.parts import load_part_scene, read_part_index
from geoseg.data.split import PARTS, Part, split_names
from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.types import OnError


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
    opens: Callable[[str], LabelledSource]
    if config.layout == "parts":
        all_names: Sequence[str] = read_part_index(config.root).names
        opens = partial(load_part_scene, config.root, table=config.table)
    else:
        pairs = {pair.name: pair for pair in find_pairs(config)}
        all_names = list(pairs)

        def open_pair(name: str) -> LabelledSource:
            return open_file_scene(name, pairs[name].image, pairs[name].labels, config)

        opens = open_pair

    names = split_names(all_names, config.split)
    opened = {part: _opened(names[part], opens, config.on_bad) for part in parts}
    for part, scenes in opened.items():
        if names[part] and not scenes:
            raise ConfigError(
                f"no scene of data.split.{part} can be read; see the warnings"
            )
    warn_of_leaks(opened)
    return Split(*(opened.get(part, ()) for part in PARTS))


def _opened(
    names: Sequence[str], opens: Callable[[str], LabelledSource], on_bad: OnError
) -> tuple[LabelledSource, ...]:
    opened: list[LabelledSource] = []
    for name in names:
        try:
            opened.append(opens(name))
        except SceneError as error:
            if on_bad == "fail":
                raise
            warnings.warn(f"{name} is left out: {error}", GeosegWarning, stacklevel=3)
    return tuple(opened)
