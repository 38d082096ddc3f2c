"""Labelled scenes on the grid that inference reads their images on."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoseg.data.classes import IGNORE
from geoseg.data.files import FileScene
from geoseg.data.labelled import LabelledPixels, LabelledSource
from geoseg.errors import GeosegWarning, SceneError
from geoseg.grid import Grid, Window
from geoseg.io.raster import pixel_factors
from geoseg.io.resample import below_centres, block_strips
from geoseg.io.resolution import TOLERATED_RATIO, processed_grid
from geoseg.types import ModelSpec, OnError

_STRIP_PIXELS = 1 << 24
"""Most labels that are read at a time, but for a window of a row: few reads, as each
begins a PNG at its top."""

_BLOCK = 512
"""Rows that a file's blocks mostly have, or a part of them, pixels."""


def as_processed(scene: LabelledSource, spec: ModelSpec) -> LabelledSource:
    """Return a scene on the grid that `geoseg segment` would run it on by default.

    Args:
        scene: The scene on its own grid.
        spec: What the model declares.

    Returns:
        The scene itself, unless it is a file that is much finer than the model.

    Raises:
        SceneError: It is smaller than a pixel of the model's.

    Warns:
        GeosegWarning: It is much coarser than the model.
    """
    ground, wanted = scene.grid.ground_resolution(), spec.resolution
    if ground is None or wanted is None or not isinstance(scene, FileScene):
        return scene
    # In the order of `processed_grid`: what runs as it is may be of any size.
    ratio = wanted / ground
    if ratio < 1 / TOLERATED_RATIO:
        warnings.warn(
            f"{scene.name} has pixels of {ground:.3g} m and data.resolution is "
            f"{wanted:.3g} m: scores may be poor; set data.resolution to that of the "
            "images, or use finer ones",
            GeosegWarning,
            stacklevel=2,
        )
    if ratio <= TOLERATED_RATIO:
        return scene
    if ratio > max(scene.grid.shape):
        raise SceneError(
            f"{scene.name} is smaller than one pixel of {wanted:g} m, which "
            "data.resolution asks for; leave it out (data.leave_out), or train at a "
            "finer resolution"
        )
    return CoarserScene(scene, processed_grid(scene.grid, spec, "auto", scene.name))


def on_processed_grids(
    scenes: Sequence[LabelledSource], spec: ModelSpec, on_bad: OnError
) -> list[LabelledSource]:
    """Return `as_processed` of each scene.

    Args:
        scenes: Scenes on their own grids.
        spec: What the model declares.
        on_bad: What to do about one that is too small: leave it out, or raise.
    """
    processed = []
    for scene in scenes:
        try:
            processed.append(as_processed(scene, spec))
        except SceneError as error:
            if on_bad == "fail":
                raise
            warnings.warn(
                f"{scene.name} is left out: {error}", GeosegWarning, stacklevel=2
            )
    return processed


@dataclass(frozen=True, slots=True)
class CoarserScene:
    """A `LabelledSource` with larger pixels than its file has, made window by window.

    A pixel of the image is the mean of those with data that it covers, as in
    production; its label is that of its centre, whatever hides that pixel of the image,
    as in evaluation. Neither depends on the window it is read in.
    """

    source: FileScene
    grid: Grid
    """Larger pixels from the same corner on."""

    @property
    def name(self) -> str:
        """Name of the source."""
        return self.source.name

    @property
    def path(self) -> Path | None:
        """Image of the source."""
        return self.source.path

    @property
    def scale(self) -> float:
        """Digital number that means 1.0."""
        return self.source.scale

    def read(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> LabelledPixels:
        """Read a window, float32 digital numbers and labels."""
        labels = self.read_labels(window, unknown)
        values, valid = self.source.read_image(window, self.grid)
        labels[~valid] = IGNORE
        return LabelledPixels(values, labels, valid)

    def read_labels(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Read labels only.

        What has no meaning is found in all of the source's pixels that a window covers,
        and counted in these.
        """
        source = self.source.grid
        along, across = pixel_factors(source, self.grid)
        rows, start, stop = _below(window.row, window.row_stop, along, source.height)
        cols, left, right = _below(window.col, window.col_stop, across, source.width)
        labels = np.empty((window.height, window.width), np.uint8)
        width = right - left
        for row, height in block_strips(start, stop, _BLOCK, _STRIP_PIXELS // width):
            strip = Window(row, left, height, width)
            marks = self.source.read_labels(strip, unknown)
            inside = (rows >= row) & (rows < row + height)
            labels[inside] = marks[np.ix_(rows[inside] - row, cols - left)]
        return labels


def _below(
    start: int, stop: int, factor: float, length: int
) -> tuple[npt.NDArray[np.int64], int, int]:
    """Find the source's rows, or columns, under those of a window.

    Returns:
        The ones at the centres of start..stop-1, and the first and one past the last of
        all that they cover.
    """
    centres = below_centres(np.arange(start, stop), factor, length)
    return centres, int(start * factor), min(math.ceil(stop * factor), length)
