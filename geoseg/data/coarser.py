"""Labelled scenes on the grid that inference reads their images on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoseg.data.classes import IGNORE
from geoseg.data.labelled import LabelledSource
from geoseg.grid import Grid, Window
from geoseg.io.raster import pixel_factors
from geoseg.io.resample import WindowResampler, axis_kernel
from geoseg.io.resolution import processed_grid
from geoseg.types import ModelSpec

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
    grid = processed_grid(scene.grid, spec, "auto", scene.name)
    return scene if grid == scene.grid else CoarserScene(scene, grid)


@dataclass(frozen=True, slots=True)
class CoarserScene:
    """A `LabelledSource` with larger pixels than another has, made window by window.

    A pixel of the image is the mean of those that it covers, as in production; its
    label is that of its centre. Neither depends on the window it is read in.
    """

    source: LabelledSource
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
        self, window: Window
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.uint8]]:
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
            values, marks = self.source.read(strip)
            resampler = resampler or WindowResampler(rows, cols, len(values))
            resampler.add(row, values, np.ones(marks.shape, np.bool_))
            self._pick(marks, strip, window, labels)
        assert resampler is not None, "windows are not empty"
        return resampler.result()[0], labels

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
        rows = (np.arange(window.row, window.row_stop) + 0.5) * along
        cols = (np.arange(window.col, window.col_stop) + 0.5) * across
        return (
            np.minimum(rows.astype(np.int64), source.height - 1),
            np.minimum(cols.astype(np.int64), source.width - 1),
        )


def _strips(start: int, stop: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut source rows into strips: first row and height."""
    step = max(1, _STRIP_PIXELS // width)
    for row in range(start, stop, step):
        yield row, min(step, stop - row)
