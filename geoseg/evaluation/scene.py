"""One scene: its class mask beside its labels, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import hypot
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio.windows
from affine import Affine
from rasterio.io import DatasetReader

from geoseg.data.labelled import LabelledSource
from geoseg.errors import ConfigError, SceneError
from geoseg.evaluation.boundary import border_width, near_border
from geoseg.evaluation.chips import Chip, chips_of, fewest_pixels
from geoseg.evaluation.counts import (
    IGNORE,
    LEVELS,
    Indices,
    SceneCounts,
    count_block,
    is_scored,
)
from geoseg.evaluation.matching import FOREIGN, ClassPairs
from geoseg.evaluation.overlay import Overlay
from geoseg.grid import Grid, Window
from geoseg.io.gdal import gdal_env, open_dataset, scene_errors
from geoseg.io.overview import read_mask_grid

BLOCK = 1024
"""Side of the squares that scenes are compared by, pixels; bounds memory."""

_SAME_PLACE = 0.01
"""Pixels by which corners of one grid may differ: what formats round away."""


@dataclass(frozen=True, slots=True)
class SceneMasks:
    """What `geoseg segment` wrote of a scene, and the labels to compare it with."""

    scene_id: str
    """Identity in the run."""
    labels: LabelledSource
    """The truth."""
    image: str
    """What was segmented, as GDAL opens it."""
    mask: Path
    """Class mask."""
    confidence: Path | None
    """Confidence raster; None if none was written."""
    by_name: bool = False
    """The mask was made of an image elsewhere, which bears the same name."""


@dataclass(frozen=True, slots=True)
class SceneScore:
    """What a comparison found."""

    counts: SceneCounts
    """All pixels."""
    border: int
    """Distance to a border that counts as near, pixels."""
    resampled: bool
    """Labels lie on another grid than the mask: the nearest of them were taken."""
    covered: float
    """Part of the labels' grid that the mask covers, 0..1."""
    chips: tuple[Chip, ...] = field(repr=False)
    """Its worst chips, the worst first."""


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """What is asked of a comparison."""

    border: int | None = None
    """Distance to a border that counts as near, pixels; None: see `border_width`."""
    chip: int = 256
    """Side of chips, pixels."""
    worst: int = 12
    """Chips to keep."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number makes no sense.
        """
        for name, least in (("border", 1), ("chip", 1), ("worst", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"scoring.{name} is {value}; use {least} or more")


class PairReader:
    """Reads windows of a mask and of the labels below it, both as class indices.

    Raises:
        SceneError: The files cannot be read, or lie elsewhere.
    """

    def __init__(self, scene: SceneMasks, pairs: ClassPairs) -> None:
        self.grid: Grid = read_mask_grid(scene.mask)[0]
        """Grid of the mask: what is compared."""
        self._scene, self._pairs = scene, pairs
        self.overlay = Overlay(self.grid, scene.labels.grid, scene.labels.name)
        self._stack = ExitStack()
        self._files: dict[Path, DatasetReader] = {}

    def __enter__(self) -> PairReader:
        """Open the rasters."""
        with ExitStack() as stack:
            for path in (self._scene.mask, self._scene.confidence):
                if path is not None:
                    file = stack.enter_context(open_dataset(str(path)))
                    self._files[path] = file
            if self._scene.confidence is not None:
                self._check_confidence(self._scene.confidence)
            # Nobody leaves what was not entered: after an error they close here.
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        self._stack.close()

    def indices(self, window: Window) -> tuple[Indices, Indices]:
        """Return true and predicted classes of a window.

        Both are `IGNORE` where unknown, predictions that do not count `UNCOUNTED`.
        """
        truth = self._pairs.of_labels[
            self.overlay.read(window, self._scene.labels.read_labels)
        ]
        values = self._band(self._scene.mask, window)
        predicted = self._pairs.of_mask[values]
        if (predicted == FOREIGN).any():
            strange = np.unique(values[predicted == FOREIGN]).tolist()
            raise SceneError(
                f"{self._scene.mask} holds the values {strange}, which are no classes "
                "of its model; remove item.json beside it, and the scene is made again"
            )
        return truth, predicted

    def confidence(
        self, window: Window, scored: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.uint8] | None:
        """Return the confidence of a window in percent, None if there is none.

        Args:
            window: Inside of the mask.
            scored: Pixels of the window that are compared.
        """
        path = self._scene.confidence
        if path is None:
            return None
        percent = self._band(path, window)
        if percent.max(initial=0, where=scored) >= LEVELS:
            raise SceneError(
                f"{path} holds no percent where {self._scene.mask.name} holds a class; "
                "remove item.json beside it, and the scene is made again"
            )
        return percent

    def _check_confidence(self, path: Path) -> None:
        """Refuse a raster that is not beside the mask's pixels."""
        mask, other = self._files[self._scene.mask], self._files[path]
        alike = (
            mask.shape == other.shape
            and _offset(self.grid, other.transform) <= _SAME_PLACE
            and mask.crs == other.crs
            and other.dtypes[0] == "uint8"
        )
        if not alike:
            raise SceneError(
                f"{path} is not in percent on the grid of {self._scene.mask.name}; "
                "remove item.json beside it, and the scene is made again"
            )

    def _band(self, path: Path, window: Window) -> npt.NDArray[np.uint8]:
        place = rasterio.windows.Window(
            window.col, window.row, window.width, window.height
        )
        with gdal_env(), scene_errors(str(path)):
            pixels: npt.NDArray[np.uint8] = self._files[path].read(1, window=place)
        return pixels


def score_scene(
    scene: SceneMasks, pairs: ClassPairs, settings: ScoreSettings
) -> SceneScore:
    """Compare a mask with its labels; memory does not grow with the scene.

    Args:
        scene: What is compared.
        pairs: Classes.
        settings: What is asked for.

    Raises:
        SceneError: A file cannot be read, or labels and mask lie apart.
    """
    total = SceneCounts.zeros(*pairs.size)
    worst: list[Chip] = []
    with PairReader(scene, pairs) as reader:
        width = border_width(reader.grid.shape, settings.border)
        least = fewest_pixels(reader.grid.shape, settings.chip)
        for block in blocks(reader.grid, settings.chip):
            outer = _grown(block, width, reader.grid)
            truth, predicted = reader.indices(outer)
            inner = block.relative_to(outer).slices
            # Where one of them is unknown nobody knows of a border in the other.
            unknown = ~is_scored(truth, predicted)
            near = tuple(
                near_border(np.where(unknown, np.uint8(IGNORE), each), width)[inner]
                for each in (truth, predicted)
            )
            truth, predicted = truth[inner], predicted[inner]
            total += count_block(
                truth,
                predicted,
                (near[0], near[1]),
                reader.confidence(block, is_scored(truth, predicted)),
                pairs.size,
            )
            worst += chips_of(
                scene.scene_id, truth, predicted, block, settings.chip, least
            )
            worst = sorted(worst)[: settings.worst]
        overlay = reader.overlay
        return SceneScore(
            total, width, overlay.resampled, overlay.covered, tuple(worst)
        )


def blocks(grid: Grid, chip: int) -> Iterator[Window]:
    """Cut a grid into squares of whole chips, the last ones smaller."""
    side = chip * -(-BLOCK // chip)
    for row in range(0, grid.height, side):
        for col in range(0, grid.width, side):
            height = min(side, grid.height - row)
            yield Window(row, col, height, min(side, grid.width - col))


def _offset(grid: Grid, transform: Affine) -> float:
    """Return how far a transform moves a corner of a grid, pixels.

    Not in units of the CRS, of which a degree is 100 km: a pixel is far less.
    """
    place = ~grid.transform @ transform
    far = []
    for corner in ((x, y) for x in (0, grid.width) for y in (0, grid.height)):
        col, row = place @ corner
        far.append(hypot(col - corner[0], row - corner[1]))
    return max(far)


def _grown(window: Window, margin: int, grid: Grid) -> Window:
    """Return a window with a margin, as far as the grid goes."""
    grown = Window(
        window.row - margin,
        window.col - margin,
        window.height + 2 * margin,
        window.width + 2 * margin,
    ).intersection(grid.whole)
    assert grown is not None
    return grown
