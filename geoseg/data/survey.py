"""A look at all labels before training: where classes are, and what is wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.data.classes import refuse_or_warn
from geoseg.data.config import DataConfig
from geoseg.data.labelled import LabelledSource
from geoseg.data.pairs import listed
from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.grid import Grid, Window

BLOCK = 512
"""Side of the blocks whose classes are counted, pixels."""

_ONE_BLOCK = 1 << 20
"""Scenes of at most so many pixels are one block: a PNG is decoded from its top."""

_MOST_BLOCKS = 256
"""Blocks of a scene that are looked at; of a larger one they are drawn."""


@dataclass(frozen=True, slots=True)
class SceneSurvey:
    """Where the classes of one scene are."""

    blocks: tuple[Window, ...]
    counts: npt.NDArray[np.int64]
    """Pixels of each class by block, shape (blocks, classes)."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Scenes whose labels could be read, and where their classes are."""

    sources: tuple[LabelledSource, ...]
    scenes: tuple[SceneSurvey, ...]

    @property
    def totals(self) -> npt.NDArray[np.int64]:
        """Pixels of each class in the blocks that were looked at, shape (classes,)."""
        totals: npt.NDArray[np.int64] = np.sum(
            [scene.counts.sum(0) for scene in self.scenes], axis=0
        )
        return totals


def survey(
    sources: Sequence[LabelledSource], config: DataConfig, part: str = "training"
) -> Survey:
    """Count classes in all scenes and say what is wrong with their labels.

    Args:
        sources: The scenes.
        config: What labels mean, and what to do about bad ones.
        part: What the scenes are for, in messages.

    Raises:
        ConfigError: No scene is left, or none has a label.
        SceneError: Labels cannot be read, or are not in the class table; unless
            `data.on_bad` is skip and `data.unknown` is ignore.

    Warns:
        GeosegWarning: A class has no pixel, labels have no meaning, or a scene is left
            out.
    """
    unknown: Counter[str] = Counter()
    guilty: list[str] = []
    kept: list[tuple[LabelledSource, SceneSurvey]] = []
    looked_at = 0
    # Validation looks at every pixel, and wrong labels are to be found before.
    whole = part == "validation"
    for source in sources:
        found: Counter[str] = Counter()
        try:
            seen = survey_scene(source, len(config.classes), found, whole=whole)
        except SceneError as error:
            if config.on_bad == "fail":
                raise
            warnings.warn(
                f"{source.name} is left out: {error}", GeosegWarning, stacklevel=2
            )
            continue
        looked_at += sum(block.height * block.width for block in seen.blocks)
        unknown += found
        guilty += [source.name] if found else []
        kept.append((source, seen))
    if not kept:
        raise ConfigError(
            f"there is no {part} scene whose labels can be read; check data.split"
        )
    where = f"the labels of {listed(guilty)}"
    refuse_or_warn(config.unknown, unknown, looked_at, where)
    result = Survey(tuple(s for s, _ in kept), tuple(seen for _, seen in kept))
    _tell_empty(result, config, part)
    return result


def survey_scene(
    source: LabelledSource,
    num_classes: int,
    unknown: Counter[str] | None = None,
    *,
    whole: bool = False,
) -> SceneSurvey:
    """Count the classes of one scene by block; of a large one by some, unless whole."""
    blocks = _blocks(source.grid, whole=whole)
    counts = [
        np.bincount(source.read_labels(block, unknown).ravel(), minlength=256)[
            :num_classes
        ]
        for block in blocks
    ]
    return SceneSurvey(blocks, np.array(counts, np.int64))


def _blocks(grid: Grid, *, whole: bool) -> tuple[Window, ...]:
    """Cover a grid with blocks, or draw some of them, always the same."""
    if grid.height * grid.width <= _ONE_BLOCK:
        return (grid.whole,)
    across, down = -(-grid.width // BLOCK), -(-grid.height // BLOCK)
    places = np.arange(across * down)
    if len(places) > _MOST_BLOCKS and not whole:
        drawn = np.random.default_rng(0).choice(places, _MOST_BLOCKS, replace=False)
        places = np.sort(drawn)
    corners = [(int(p) // across * BLOCK, int(p) % across * BLOCK) for p in places]
    return tuple(
        Window(r, c, min(BLOCK, grid.height - r), min(BLOCK, grid.width - c))
        for r, c in corners
    )


def _tell_empty(result: Survey, config: DataConfig, part: str) -> None:
    empty = [
        entry.name
        for entry, total in zip(config.classes, result.totals, strict=True)
        if total == 0
    ]
    if len(empty) == len(config.classes) and _all_seen(result):
        raise ConfigError(
            f"no pixel of the {part} scenes has a label; check what data.ignore and "
            "the mask of data.classes name, and what the labels hold"
        )
    if empty:
        what = "learn" if part == "training" else "be judged by"
        warnings.warn(
            f"no pixel of the {part} scenes is {' or '.join(empty)}; a model cannot "
            f"{what} it: check data.classes, or take it out",
            GeosegWarning,
            stacklevel=3,
        )


def _all_seen(result: Survey) -> bool:
    """Tell whether blocks cover all scenes: of large ones only some are looked at."""
    return all(
        sum(block.height * block.width for block in seen.blocks)
        == source.grid.height * source.grid.width
        for source, seen in zip(result.sources, result.scenes, strict=True)
    )
