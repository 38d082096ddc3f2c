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
from geoseg.data.coarser import CoarserScene
from geoseg.data.config import DataConfig
from geoseg.data.labelled import LabelledSource
from geoseg.data.pairs import listed
from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.grid import Grid, Window

BLOCK = 512
"""Side of the blocks whose classes are counted, pixels."""

_ONE_BLOCK = 1 << 20
"""Scenes of at most so many pixels are one block: a PNG is decoded from its top."""

_STRIP_PIXELS = 1 << 24
"""Most pixels that are read at a time: few reads, as each begins a PNG at its top."""

Looked = Callable[[int, int], None]
"""Called with the pixels that were looked at, and with how many there are."""


@dataclass(frozen=True, slots=True)
class SceneSurvey:
    """Where the classes of one scene are."""

    counts: npt.NDArray[np.int32]
    """Pixels of each class by block, see `block_at`, shape (blocks, classes)."""


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
        images: Whether to read the images, too: see `survey_scene`.

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
    first: SceneError | None = None
    total, before = sum(map(_area, sources)), 0
    for source in sources:
        found: Counter[str] = Counter()
        tell = partial(_tell, looked, before, total)
        before += _area(source)
        try:
            seen = survey_scene(source, len(config.classes), found, tell, images=images)
            found = _counted_on_file(source, found)
        except SceneError as error:
            if config.on_bad == "fail":
                raise
            first = first or error
            warnings.warn(
                f"{source.name} is left out: {error}", GeosegWarning, stacklevel=2
            )
            continue
        unknown += found
        guilty += [source.name] if found else []
        kept.append((source, seen))
    if not kept:
        raise ConfigError(_nothing_left(len(sources), part, first))
    where = f"the labels of {listed(guilty)}"
    pixels = sum(_area(_on_file(source)) for source, _ in kept)
    refuse_or_warn(config.unknown, unknown, pixels, where)
    result = Survey(tuple(s for s, _ in kept), tuple(seen for _, seen in kept))
    _tell_empty(result, config, part, images=images)
    return result


def _on_file(source: LabelledSource) -> LabelledSource:
    """Return a scene on its file's own grid: there labels without a meaning count."""
    return source.source if isinstance(source, CoarserScene) else source


def _counted_on_file(source: LabelledSource, found: Counter[str]) -> Counter[str]:
    """Count what has no meaning again where windows counted pixels in part or twice."""
    own = _on_file(source)
    if not found or own is source:
        return found
    counted: Counter[str] = Counter()
    for strip in _strips(own.grid):
        own.read_labels(strip, counted)
    return counted


def _nothing_left(count: int, part: str, first: SceneError | None) -> str:
    if first is None:
        return (
            f"there is no {part} scene; check data.split, data.leave_out and the "
            "warnings about what was left out"
        )
    return f"none of the {count} {part} scenes can be used; the first: {first}"


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
    *,
    images: bool = False,
) -> SceneSurvey:
    """Count the classes of one scene by block.

    Args:
        source: The scene.
        num_classes: Classes that labels have.
        unknown: Takes what has no meaning, by pixels; None: that is an error.
        looked: Called with the pixels that were looked at.
        images: Whether to read the image, too: labels then count where it holds data
            only. Without, all do, as reading an archive's images takes long.

    Raises:
        SceneError: Labels, or the image, cannot be read, or labels have no meaning.
    """
    height, width = _block_shape(source.grid)
    down, across = -(-source.grid.height // height), -(-source.grid.width // width)
    counts = np.zeros((down, across, num_classes), np.int32)
    done = 0
    for strip in _strips(source.grid):
        if images:
            labels = source.read(strip, unknown).labels
        else:
            labels = source.read_labels(strip, unknown)
        for row in range(0, strip.height, height):
            for col in range(0, strip.width, width):
                part = labels[row : row + height, col : col + width]
                found = np.bincount(part.ravel(), minlength=256)[:num_classes]
                counts[(strip.row + row) // height, (strip.col + col) // width] = found
        done += labels.size
        if looked is not None:
            looked(done)
    return SceneSurvey(counts.reshape(-1, num_classes))


def block_at(grid: Grid, number: int) -> Window:
    """Return a block of a scene by its number, which goes row by row.

    Args:
        grid: The scene's.
        number: 0 and up, as in `SceneSurvey.counts`.
    """
    height, width = _block_shape(grid)
    row, col = divmod(number, -(-grid.width // width))
    block = Window(row * height, col * width, height, width)
    inside = block.intersection(grid.whole)
    assert inside is not None, f"block {number} lies outside {grid.shape}"
    return inside


def _block_shape(grid: Grid) -> tuple[int, int]:
    """Return height and width of a scene's blocks; a small scene is one."""
    if grid.height * grid.width <= _ONE_BLOCK:
        return grid.shape
    return BLOCK, BLOCK


def _strips(grid: Grid) -> Iterator[Window]:
    """Cover a grid with what is read at a time: whole blocks, top down."""
    height, width = _block_shape(grid)
    wide = min(max(1, _STRIP_PIXELS // (height * width)) * width, grid.width)
    high = max(1, _STRIP_PIXELS // (height * wide)) * height
    for row in range(0, grid.height, high):
        for col in range(0, grid.width, wide):
            rows = min(high, grid.height - row)
            yield Window(row, col, rows, min(wide, grid.width - col))


def _tell_empty(result: Survey, config: DataConfig, part: str, *, images: bool) -> None:
    hidden = ", and whether the images hold data there (data.nodata)" if images else ""
    empty = [
        entry.name
        for entry, total in zip(config.classes, result.totals, strict=True)
        if total == 0
    ]
    if len(empty) == len(config.classes):
        raise ConfigError(
            f"no pixel of the {part} scenes has a label; check what data.ignore and "
            f"the mask of data.classes name, and what the labels hold{hidden}"
        )
    if empty:
        what = "learn" if part == "training" else "be judged by"
        warnings.warn(
            f"no pixel of the {part} scenes is {' or '.join(empty)}; a model cannot "
            f"{what} it: check data.classes, or take it out{hidden}",
            GeosegWarning,
            stacklevel=3,
        )
