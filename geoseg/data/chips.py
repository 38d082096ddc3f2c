"""Training chips: crops whose every draw is a function of (seed, step, sample)."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geoseg.data.augment import recolor, resize, turn
from geoseg.data.classes import IGNORE
from geoseg.data.config import DataConfig
from geoseg.data.labelled import LabelledSource
from geoseg.data.pairs import listed
from geoseg.data.survey import SceneSurvey, Survey, block_at, survey_scene
from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.grid import Grid, Window
from geoseg.io.resolution import TOLERATED_RATIO
from geoseg.types import OnError

_TRIES = 8
"""Places looked at for a chip with labels, and least failures that end it."""


@dataclass(frozen=True, slots=True)
class ChipConfig:
    """How chips are cut and varied."""

    size: int = 320
    """Side of a chip, pixels; a multiple of the patch size."""
    scale: tuple[float, float] = (0.6, 1.6)
    """Range of the magnification, drawn log-uniformly."""
    balance: float = 0.5
    """Share of chips centred on a pixel of a class drawn evenly."""
    color: float = 0.25
    """Largest relative change of brightness, contrast and saturation."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number makes no chip.
        """
        low, high = self.scale
        if self.size < 1:
            raise ConfigError(f"chips.size is {self.size}; use 1 or more")
        if not 0 < low <= high:
            raise ConfigError(
                f"chips.scale is [{low:g}, {high:g}]; give two numbers above 0, the "
                "smaller one first"
            )
        for name in ("balance", "color"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"chips.{name} is {getattr(self, name)}; use 0 to 1")


class _Draw(NamedTuple):
    """What a chip is cut from."""

    place: int
    """Place of the scene in the list."""
    wanted: int | None
    """Class that its centre is of; None: it lies anywhere."""
    magnified: float
    """How many times larger a pixel is shown."""


class ChipSampler:
    """Draws batches of chips; the same (seed, step) always gives the same batch.

    It holds no open file and no state that draws change: it may be pickled, and asked
    from several threads and processes.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledSource],
        num_classes: int,
        config: ChipConfig,
        *,
        index: Sequence[SceneSurvey] | None = None,
        resolution: float | None = None,
        on_bad: OnError = "fail",
    ) -> None:
        """Find out where the classes are.

        Args:
            scenes: What chips are cut from.
            num_classes: Classes that labels have.
            config: How chips are cut.
            index: Where the classes of each scene are, if that is known already.
            resolution: Metres a pixel of a chip that is not magnified; georeferenced
                scenes that are finer by more than 1.5 times are resampled to it.
            on_bad: What to do about a scene that cannot be read: take another one, and
                raise when none can, or raise at once.

        Raises:
            ConfigError: There is no scene.
        """
        if not scenes:
            raise ConfigError("there is no scene to cut chips from; check data.split")
        self.scenes = list(scenes)
        self.num_classes = num_classes
        self.config = config
        self.on_bad = on_bad
        self.index = index or [survey_scene(scene, num_classes) for scene in scenes]
        areas = np.array([s.grid.height * s.grid.width for s in scenes], np.float64)
        # Square root: a scene four times as large is drawn twice as often.
        self.weights = np.sqrt(areas) / np.sqrt(areas).sum()
        holds = np.array([seen.counts.sum(0) > 0 for seen in self.index])
        self.present = np.flatnonzero(holds.any(axis=0))
        # Weights of the scenes that hold each class, shape (classes, scenes).
        self._by_class = self.weights * holds.T
        self._reduction = [_reduction(scene.grid, resolution) for scene in scenes]

    def batch(
        self, seed: int, step: int, count: int, side: int
    ) -> tuple[Tensor, Tensor]:
        """Draw one batch of `count` chips, `side` pixels wide.

        Returns:
            Images (B, C, side, side), float32 in 0..1, and labels (B, side, side),
            int64, `geoseg.data.labelled.IGNORE` where unlabelled.

        Raises:
            SceneError: A scene cannot be read.
        """
        chips = [self.chip((seed, step, sample), side) for sample in range(count)]
        images, labels = zip(*chips, strict=True)
        return torch.stack(images), torch.stack(labels)

    def chip(self, key: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
        """Draw one chip: image (C, side, side), float32, and labels, int64.

        Args:
            key: Seed, step and sample: all that the chip depends on.
            side: Its side, pixels.

        Raises:
            SceneError: A scene cannot be read.
        """
        rng = np.random.default_rng(key)
        image, labels = self._labelled(rng, side)
        image, labels = resize(image, labels, side)
        image, labels = turn(rng, image, labels)
        return recolor(rng, image, self.config.color), labels.long()

    def _labelled(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Cut a place with labels out, of its own size; where there are few, any.

        What cannot be read is warned of each time, and scenes that it is of are drawn
        again only when there are no others.
        """
        tries, failures = 0, 0
        bad: set[int] = set()
        while True:
            draw = self._draw(rng, bad)
            scene = self.scenes[draw.place]
            try:
                image, labels, _ = scene.read(self._window(rng, draw, size))
            except SceneError as error:
                failures += 1
                bad.add(draw.place)
                over = len(bad) == len(self.scenes)
                if self.on_bad == "fail" or (over and failures >= _TRIES):
                    raise
                if over:  # A file may be broken in part only.
                    bad.clear()
                warnings.warn(str(error), GeosegWarning, stacklevel=4)
                continue
            tries += 1
            if tries == _TRIES or (labels != IGNORE).any():
                break
        pixels = np.asarray(image, np.float32) / np.float32(scene.scale)
        return torch.from_numpy(pixels), torch.from_numpy(np.array(labels))

    def _draw(self, rng: np.random.Generator, bad: Collection[int]) -> _Draw:
        """Draw a scene, as it is or for a class drawn evenly, and a magnification.

        Args:
            rng: Where numbers come from.
            bad: Scenes that are not wanted; not all of them.
        """
        low, high = np.log(self.config.scale)
        magnified = float(np.exp(rng.uniform(low, high)))
        wanted: int | None = None
        shares = self.weights
        if len(self.present) and rng.random() < self.config.balance:
            wanted = int(rng.choice(self.present))
            shares = self._by_class[wanted]
        if bad:
            good = np.isin(np.arange(len(shares)), list(bad), invert=True)
            if not (shares * good).any():  # Only bad ones hold the class.
                wanted, shares = None, self.weights
            shares = shares * good
        if wanted is not None or bad:
            shares = shares / shares.sum()
        return _Draw(int(rng.choice(len(shares), p=shares)), wanted, magnified)

    def _window(self, rng: np.random.Generator, draw: _Draw, size: int) -> Window:
        """Draw a window of a scene: anywhere, or around a pixel of the class."""
        grid = self.scenes[draw.place].grid
        side = max(1, round(size * self._reduction[draw.place] / draw.magnified))
        side = min(side, grid.height, grid.width)
        if draw.wanted is None:
            row = int(rng.integers(0, grid.height - side + 1))
            col = int(rng.integers(0, grid.width - side + 1))
        else:
            center = self._pixel_of(rng, draw.place, draw.wanted)
            row = min(max(center[0] - side // 2, 0), grid.height - side)
            col = min(max(center[1] - side // 2, 0), grid.width - side)
        return Window(row, col, side, side)

    def _pixel_of(
        self, rng: np.random.Generator, place: int, wanted: int
    ) -> tuple[int, int]:
        """Draw a pixel of a class, all in the blocks that are known alike."""
        seen = self.index[place]
        shares: npt.NDArray[np.float64] = (
            seen.counts[:, wanted] / seen.counts[:, wanted].sum()
        )
        number = int(rng.choice(len(shares), p=shares))
        block = block_at(self.scenes[place].grid, number)
        labels = self.scenes[place].read_labels(block)
        found = np.flatnonzero(labels == wanted)
        if not len(found):
            raise SceneError(
                f"the labels of {self.scenes[place].name} changed since the training "
                "looked at them; start it again"
            )
        row, col = divmod(int(found[int(rng.integers(len(found)))]), block.width)
        return block.row + row, block.col + col


def chip_sampler(
    seen: Survey, data: DataConfig, chips: ChipConfig, *, largest: int = 0
) -> ChipSampler:
    """Return what draws chips from scenes that were looked at.

    Args:
        seen: The scenes, by `survey`.
        data: What their labels mean.
        chips: How chips are cut.
        largest: Side of the largest chip that will be drawn, in pixels, if that is
            more than `chips` says.

    Warns:
        GeosegWarning: Scenes are too small for their chips, or much coarser than they
            are said to be.
    """
    side = max(chips.size, largest)
    _tell_small(seen.sources, side, chips.scale[1], data.resolution)
    _tell_coarse(seen.sources, data.resolution)
    return ChipSampler(
        seen.sources,
        len(data.classes),
        chips,
        index=seen.scenes,
        resolution=data.resolution,
        on_bad=data.on_bad,
    )


def _reduction(grid: Grid, resolution: float | None) -> float:
    """Return how many pixels of a scene become one of a chip, along an edge."""
    own = None if resolution is None else grid.ground_resolution()
    if own is None or resolution is None or own * TOLERATED_RATIO >= resolution:
        return 1.0
    return resolution / own


def _tell_small(
    scenes: Sequence[LabelledSource], chip: int, most: float, resolution: float
) -> None:
    """Warn of scenes whose chips are all magnified more than `chips.scale` says."""
    sides = {
        scene.name: min(scene.grid.shape) / _reduction(scene.grid, resolution)
        for scene in scenes
    }
    small = [name for name, side in sides.items() if round(chip / most) > side]
    if small:
        fitting = max(1, int(min(sides.values()) * most))
        warnings.warn(
            f"{len(small)} of {len(scenes)} training scenes ({listed(small)}) are less "
            f"than {chip / most:.0f} pixels wide or high, so their chips are magnified "
            "beyond chips.scale; set chips.size and train.final_chip_size to "
            f"{fitting} or less, a multiple of the patch size",
            GeosegWarning,
            stacklevel=3,
        )


def _tell_coarse(scenes: Sequence[LabelledSource], resolution: float) -> None:
    """Warn of scenes whose pixels are larger than the model will say it wants."""
    pixels = {scene.name: scene.grid.ground_resolution() for scene in scenes}
    coarse = {
        name: own
        for name, own in pixels.items()
        if own is not None and own > resolution * TOLERATED_RATIO
    }
    if coarse:
        warnings.warn(
            f"{len(coarse)} of {len(scenes)} training scenes ({listed(coarse)}) have "
            f"pixels of {min(coarse.values()):.3g} m or more and data.resolution is "
            f"{resolution:.3g} m, which the model will ask for; set data.resolution to "
            "that of the images",
            GeosegWarning,
            stacklevel=3,
        )
