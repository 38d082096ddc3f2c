"""The section `data` of a recipe: which scenes, which labels, who learns from what."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geoseg.data.classes import ClassConfig, ClassTable, Code, Unknown
from geoseg.errors import ConfigError
from geoseg.types import OnError

Layout = Literal["pairs", "parts"]
"""Images with labels beside them, or scenes cut into parts (`geoseg.data.parts`)."""


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """Which scenes train, which choose, which only measure. A scene is never cut.

    Names may be patterns: `Train/*`. What no list names trains, unless `train` has
    names.
    """

    train: tuple[str, ...] = ()
    """Scenes to train on; empty: all that nothing else takes."""
    validation: tuple[str, ...] = ()
    """Scenes that choose the best checkpoint and stop the training."""
    test: tuple[str, ...] = ()
    """Scenes that are only measured on, and never looked at before."""
    validation_share: float = 0.0
    """Share of the training scenes that is drawn for validation instead, 0..1, where
    `validation` has no names."""
    test_share: float = 0.0
    """The same for the test."""
    seed: int = 0
    """Seed of what is drawn by share."""

    def __post_init__(self) -> None:
        """Check the shares.

        Raises:
            ConfigError: Nothing would be left to train on.
        """
        shares = (self.validation_share, self.test_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError(
                f"data.split: shares of {shares[0]:g} and {shares[1]:g} leave nothing "
                "to train on; give 0 or more, less than 1 together"
            )


@dataclass(frozen=True, slots=True)
class VectorConfig:
    """How polygons become labels, where labels are a vector file."""

    layer: str | None = None
    """Layer of the file; None: the first with polygons."""
    class_column: str | None = None
    """Column that tells a polygon's class: its name, its id, or a code of `mask`."""
    class_name: str | None = None
    """Class of all polygons, where no column tells it."""
    background: str | None = None
    """Class of what no polygon covers; None: it has no label."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where labelled scenes are, what their labels mean, and how they are split."""

    root: Path
    """Folder that everything else is relative to."""
    classes: tuple[ClassConfig, ...]
    """Class table; the order is that of the logits."""
    resolution: float
    """Ground resolution to train at, metres per pixel; georeferenced scenes that are
    finer by more than 1.5 times are resampled to it, as `geoseg segment` does."""
    mean: tuple[float, ...]
    """Mean per band, 0..1."""
    std: tuple[float, ...]
    """Standard deviation per band."""
    layout: Layout = "pairs"
    images: str = "images/{stem}.*"
    """Pairs: where images lie below `root`. `{stem}` is what an image and its labels
    have in common, `{folder}` the folders above, `*` anything in a name."""
    labels: str = "masks/{stem}.*"
    """Pairs: where the labels of an image lie: a mask, or a vector file (.gpkg,
    .geojson, .shp, .fgb), which may be one for all."""
    leave_out: tuple[str, ...] = ()
    """Names or patterns of scenes that are not looked at."""
    split: SplitConfig = field(default_factory=SplitConfig)
    ignore: tuple[Code, ...] = ()
    """Values or colours of masks that mean: no label here."""
    unknown: Unknown = "fail"
    """Labels that `classes` and `ignore` do not name: an error, or no labels."""
    vector: VectorConfig = field(default_factory=VectorConfig)
    on_bad: OnError = "fail"
    """What happens when a scene cannot be read, or has no labels or no image."""
    bands: tuple[int, ...] | None = None
    """1-based bands of the images; None: all but alpha, as many as `mean` has."""
    scale: float | None = None
    """Digital number that means 1.0; None: 255, and images must be of 8 bits."""
    nodata: float | None = None
    """Value of images that hides a pixel; None: what the files say."""

    def __post_init__(self) -> None:
        """Check that lists fit each other.

        Raises:
            ConfigError: They do not, or there is nothing to tell apart.
        """
        if len(self.classes) < 2:
            raise ConfigError("data.classes: name two at least")
        if not self.mean or len(self.mean) != len(self.std):
            raise ConfigError(
                f"data.mean and data.std hold {len(self.mean)} and {len(self.std)} "
                "numbers; give one of each for each band"
            )
        if self.bands is not None and len(self.bands) != len(self.mean):
            raise ConfigError(
                f"data.bands names {len(self.bands)} bands, and data.mean has "
                f"{len(self.mean)} numbers; give one for each band"
            )
        self._check_pixels()
        of_files = self.bands, self.scale, self.nodata
        if self.layout == "parts" and any(value is not None for value in of_files):
            raise ConfigError(
                "data.bands, data.scale and data.nodata are of files; scenes in parts "
                "are red, green and blue of 8 bits: leave them null"
            )
        if not self.resolution > 0:
            raise ConfigError(
                f"data.resolution is {self.resolution} m; use more than 0"
            )
        self.table.declared_kind()  # Refuses what contradicts itself.

    def _check_pixels(self) -> None:
        """Check what numbers of pixels mean, before they make a loss that is NaN."""
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ConfigError(
                "data.mean and data.std: give numbers, and deviations above 0"
            )
        if self.scale is None and max(map(abs, (*self.mean, *self.std))) > 1:
            raise ConfigError(
                "data.mean and data.std are those of pixels that were divided by 255, "
                "0 to 1; where pixels are no 8 bits, set data.scale: 10000 for most "
                "reflectance, 1 for decibels and other floats"
            )
        if self.scale is not None and self.scale > 1 and max(map(abs, self.mean)) > 50:
            raise ConfigError(
                f"data.mean is {list(self.mean)}; give that of pixels divided by "
                f"data.scale, {self.scale:g}, and data.std alike"
            )
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ConfigError(
                f"data.scale is {self.scale}; give the digital number that means 1.0"
            )
        if self.bands is not None and min(self.bands, default=1) < 1:
            raise ConfigError(f"data.bands are {list(self.bands)}; they count from 1")

    @property
    def table(self) -> ClassTable:
        """The class table, with what is ignored."""
        return ClassTable(self.classes, self.ignore, self.unknown)
