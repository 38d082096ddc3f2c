"""A look at all labels before training: where classes are, and what is wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

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

_STRIP = 32
"""Blocks that are read at a time, side by side: each read begins a PNG at its top."""

Looked = Callable[[int, int], None]
"""Called with the pixels that were looked at, and with how many there are."""


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
        """Pixels of each class, shape (classes,)."""
        totals: npt.NDArray[np.int64] = np.sum(
            [scene.counts.sum(0) for scene in self.scenes], axis=0
        )
        return totals


def survey(
    sources: Sequence[LabelledSource],
    config: DataConfig,
    part: str = "training",
    looked: Looked | None = None,
    *,
    images: bool = False,
) -> Survey:
    """Count classes in all scenes and say what is wrong with their labels.

    Args:
        sources: The scenes.
        config: What labels mean, and what to do about bad ones.
        part: What the scenes are for, in messages.
        looked: Hears how far it is.
        images: Whether to read the images, too.

    Raises:
        ConfigError: No scene is left, or none has a label.
        SceneError: A scene cannot be read, or labels are not in the class table; unless
            `data.on_bad` is skip and `data.unknown` is ignore.

    Warns:
        GeosegWarning: A class has no pixel, labels have no meaning, or a scene is left
            out.
    """
    unknown: Counter[str] = Counter()
    guilty: list[str] = []
    kept: list[tuple[LabelledSource, SceneSurvey]] = []
    total, before = sum(map(_area, sources)), 0
    for source in sources:
        found: Counter[str] = Counter()
        tell = partial(_tell, looked, before, total)
        before += _area(source)
        try:
            seen = survey_scene(source, len(config.classes), found, tell)
            # With labels that are an error anyway, all of them are to be told of.
            if images and not (found and config.unknown == "fail"):
                _read_image(source)
        except SceneError as error:
            if config.on_bad == "fail":
                raise
            warnings.warn(
                f"{source.name} is left out: {error}", GeosegWarning, stacklevel=2
            )
            continue
        unknown += found
        guilty += [source.name] if found else []
        kept.append((source, seen))
    if not kept:
        raise ConfigError(
            f"there is no {part} scene whose labels can be read; check data.split"
        )
    where = f"the labels of {listed(guilty)}"
    pixels = sum(_area(source) for source, _ in kept)
    refuse_or_warn(config.unknown, unknown, pixels, where)
    result = Survey(tuple(s for s, _ in kept), tuple(seen for _, seen in kept))
    _tell_empty(result, config, part)
    return result


def _area(source: LabelledSource) -> int:
    return source.grid.height * source.grid.width


def _tell(looked: Looked | None, before: int, total: int, done: int) -> None:
    if looked is not None:
        looked(before + done, total)


def survey_scene(
    source: LabelledSource,
    num_classes: int,
    unknown: Counter[str] | None = None,
    looked: Callable[[int], None] | None = None,
) -> SceneSurvey:
    """Count the classes of one scene by block.

    Args:
        source: The scene.
        num_classes: Classes that labels have.
        unknown: Takes what has no meaning, by pixels; None: that is an error.
        looked: Called with the pixels that were looked at.

    Raises:
        SceneError: Labels cannot be read, or have no meaning.
    """
    blocks: list[Window] = []
    counts = []
    done = 0
    for strip in _strips(source.grid):
        labels = source.read_labels(strip, unknown)
        for block in _blocks(source.grid, strip):
            part = labels[:, block.col - strip.col : block.col_stop - strip.col]
            counts.append(np.bincount(part.ravel(), minlength=256)[:num_classes])
            blocks.append(block)
        done += labels.size
        if looked is not None:
            looked(done)
    return SceneSurvey(tuple(blocks), np.array(counts, np.int64))


def _read_image(source: LabelledSource) -> None:
    for strip in _strips(source.grid):
        source.read(strip)


def _strips(grid: Grid) -> Iterator[Window]:
    """Cover a grid with what is read at a time."""
    if _is_small(grid):
        yield grid.whole
        return
    width = BLOCK * _STRIP
    for row in range(0, grid.height, BLOCK):
        for col in range(0, grid.width, width):
            height = min(BLOCK, grid.height - row)
            yield Window(row, col, height, min(width, grid.width - col))


def _is_small(grid: Grid) -> bool:
    return grid.height * grid.width <= _ONE_BLOCK


def _blocks(grid: Grid, strip: Window) -> Iterator[Window]:
    """Cut a strip into blocks; a small scene is one block."""
    side = strip.width if _is_small(grid) else BLOCK
    for col in range(strip.col, strip.col_stop, side):
        yield Window(strip.row, col, strip.height, min(side, strip.col_stop - col))


def _tell_empty(result: Survey, config: DataConfig, part: str) -> None:
    empty = [
        entry.name
        for entry, total in zip(config.classes, result.totals, strict=True)
        if total == 0
    ]
    if len(empty) == len(config.classes):
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
