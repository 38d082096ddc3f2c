"""From the section `data` of a recipe to labelled scenes, part by part."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from geoseg.data.config import DataConfig
from geoseg.data.files import ImageFile, open_file_scene, open_image_file
from geoseg.data.labelled import LabelledSource
from geoseg.data.leaks import warn_of_leaks
from geoseg.data.pairs import Pair, chosen, find_pairs
from geoseg.data.parts import load_part_scene, read_part_index
from geoseg.data.split import PARTS, Part, shares_drawn, split_names
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
        parts: Parts that are wanted; those that are not stay empty. Where their images
            are files, it is still looked at where they lie.

    Raises:
        ConfigError: The recipe fits no data, or a part that is wanted comes out empty.
        SceneError: A scene cannot be read, unless `data.on_bad` is skip.

    Warns:
        GeosegWarning: A scene is left out, or two parts share ground or images.
    """
    return _open(config, _find(config), parts)


def open_first(
    config: DataConfig, order: Sequence[Part]
) -> tuple[Part, tuple[LabelledSource, ...]]:
    """Open the first of some parts that has scenes; the last one may have none.

    Raises, warns: As `open_split`, but that nothing need be left to train on; warns of
        scenes that are not opened where they were drawn.
    """
    found = _find(config, trained=False)
    part = next((part for part in order if found.names[part]), order[-1])
    drawn, taken = shares_drawn(config.split), len(found.names[part])
    if taken < found.count and drawn and part in ("train", *drawn):
        warnings.warn(
            f"{taken} of {found.count} scenes are looked at, which the shares of "
            f"data.split make those of {part}; --part all takes all, also what the "
            "model has learned from",
            GeosegWarning,
            stacklevel=2,
        )
    opened: tuple[LabelledSource, ...] = getattr(_open(config, found, (part,)), part)
    return part, opened


@dataclass(frozen=True, slots=True)
class _Found:
    """Scenes that were found, and not opened yet."""

    names: Mapping[Part, Sequence[str]]
    pairs: Mapping[str, Pair]
    """Files by name of the scene; empty where scenes are in parts."""
    opens: Callable[[str], LabelledSource]
    count: int
    """Scenes of all parts, and of none."""


def _find(config: DataConfig, *, trained: bool = True) -> _Found:
    split = partial(split_names, config=config.split, trained=trained)
    if config.layout == "parts":
        of_parts = partial(load_part_scene, config.root, table=config.table)
        every = read_part_index(config.root).names
        left = chosen(every, config.leave_out)
        asked = [name for name in every if name not in left]
        return _Found(split(asked), {}, of_parts, len(asked))
    pairs = {pair.name: pair for pair in find_pairs(config)}
    opens = partial(_open_pair, pairs, config)
    return _Found(split(list(pairs)), pairs, opens, len(pairs))


def _open(config: DataConfig, found: _Found, parts: Collection[Part]) -> Split:
    names, pairs = found.names, found.pairs
    opened = {part: _opened(names[part], found.opens, config.on_bad) for part in parts}
    for part, scenes in opened.items():
        if names[part] and not scenes:
            raise ConfigError(
                f"no scene of data.split.{part} can be read; see the warnings"
            )
    others = {
        part: _images([pairs[name] for name in names[part] if name in pairs], config)
        for part in PARTS
        if part not in parts
    }
    warn_of_leaks({**others, **opened})
    return Split(*(opened.get(part, ()) for part in PARTS))


def _open_pair(
    pairs: Mapping[str, Pair], config: DataConfig, name: str
) -> LabelledSource:
    return open_file_scene(name, pairs[name].image, pairs[name].labels, config)


def _images(pairs: Sequence[Pair], config: DataConfig) -> list[ImageFile]:
    """Look at scenes that only have to be told from those of other parts."""
    found = []
    for pair in pairs:
        with contextlib.suppress(SceneError):  # Told of when it is wanted.
            found.append(open_image_file(pair.name, pair.image, config))
    return found


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
