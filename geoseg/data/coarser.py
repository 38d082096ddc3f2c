"""Labelled scenes on the grid that inference reads their images on."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoseg.data.classes import IGNORE
from geoseg.data.labelled import LabelledPixels, LabelledSource, digital_mean
from geoseg.errors import GeosegWarning, SceneError
from geoseg.grid import Grid, Window
from geoseg.io.raster import pixel_factors
from geoseg.io.resample import WindowResampler, axis_kernel, below_centres
from geoseg.io.resolution import TOLERATED_RATIO, processed_grid
from geoseg.types import ModelSpec, OnError

_STRIP_PIXELS = 1 << 22
"""Most source pixels that are read at a time, but for a window of a row."""


def as_processed(scene: LabelledSource, spec: ModelSpec) -> LabelledSource:
    """Return a scene on the grid that `geoseg segment` would run it on by default.

    Args:
        scene: The scene on its own grid.
        spec: What the model declares.

    Returns:
        The scene itself, unless it is much finer than the model.

    Raises:
        SceneError: It is smaller than a pixel of the model's.

    Warns:
        GeosegWarning: It is much coarser than the model.
    """
    ground, wanted = scene.grid.ground_resolution(), spec.resolution
    if ground is None or wanted is None:
        return scene
    if wanted > ground * max(scene.grid.shape):
        raise SceneError(
            f"{scene.name} is smaller than one pixel of {wanted:g} m, which "
            "data.resolution asks for; leave it out (data.leave_out), or train at a "
            "finer resolution"
        )
    if ground > wanted * TOLERATED_RATIO:
        warnings.warn(
            f"{scene.name} has pixels of {ground:.3g} m and data.resolution is "
            f"{wanted:.3g} m: scores may be poor; use a finer image",
            GeosegWarning,
            stacklevel=2,
        )
        return scene
    grid = processed_grid(scene.grid, spec, "auto", scene.name)
    return scene if grid == scene.grid else CoarserScene(scene, grid, spec.mean)


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
    """A `LabelledSource` with larger pixels than another has, made window by window.

    A pixel of the image is the mean of those with data that it covers, as in
    production; its label is that of its centre. Neither depends on the window it is
    read in.
    """

    source: LabelledSource
    grid: Grid
    """Larger pixels from the same corner on."""
    mean: tuple[float, ...]
    """Mean per band, 0..1: what stands where there is no data."""

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

    def read(self, window: Window) -> LabelledPixels:
        """Read a window, float32 digital numbers and labels."""
        source = self.source.grid
        along, across = pixel_factors(source, self.grid)
        rows = axis_kernel(window.row, window.row_stop, along, source.height)
        cols = axis_kernel(window.col, window.col_stop, across, source.width)
        resampler: WindowResampler | None = None
        labels = np.full((window.height, window.width), IGNORE, np.uint8)
        width = cols.stop - cols.start
        for row, height in _strips(rows.start, rows.stop, width):
            strip = Window(row, cols.start, height, width)
            values, marks, there = self.source.read(strip)
            resampler = resampler or WindowResampler(rows, cols, len(values))
            resampler.add(row, values, there)
            self._pick(marks, strip, window, labels)
        assert resampler is not None, "windows are not empty"
        image, valid = resampler.result()
        fill = digital_mean(self.mean, self.scale, image.dtype)
        image[:, ~valid] = fill[:, None]
        labels[~valid] = IGNORE
        return LabelledPixels(image, labels, valid)

    def read_labels(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Read labels only."""
        labels = np.full((window.height, window.width), IGNORE, np.uint8)
        rows, cols = self._centres(window)
        start, width = int(cols[0]), int(cols[-1] - cols[0]) + 1
        for row, height in _strips(int(rows[0]), int(rows[-1]) + 1, width):
            strip = Window(row, start, height, width)
            marks = self.source.read_labels(strip, unknown)
            self._pick(marks, strip, window, labels)
        return labels

    def _pick(
        self,
        marks: npt.NDArray[np.uint8],
        strip: Window,
        window: Window,
        labels: npt.NDArray[np.uint8],
    ) -> None:
        """Fill in the labels of a window whose centres lie in a strip of the source."""
        rows, cols = self._centres(window)
        inside = (rows >= strip.row) & (rows < strip.row_stop)
        labels[inside] = marks[np.ix_(rows[inside] - strip.row, cols - strip.col)]

    def _centres(
        self, window: Window
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows and columns of the source where a window's centres lie."""
        source = self.source.grid
        along, across = pixel_factors(source, self.grid)
        rows = np.arange(window.row, window.row_stop)
        cols = np.arange(window.col, window.col_stop)
        return (
            below_centres(rows, along, source.height),
            below_centres(cols, across, source.width),
        )


def _strips(start: int, stop: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut source rows into strips: first row and height."""
    step = max(1, _STRIP_PIXELS // width)
    for row in range(start, stop, step):
        yield row, min(step, stop - row)
