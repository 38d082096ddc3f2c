"""Labelled scenes: images and the class of each pixel, read window by window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg.data.classes import IGNORE
from geoseg.grid import Grid, Window

__all__ = [
    "IGNORE",
    "LabelledPixels",
    "LabelledScene",
    "LabelledSource",
    "digital_mean",
]


class LabelledPixels(NamedTuple):
    """A window of a labelled scene."""

    values: npt.NDArray[np.generic]
    """Digital numbers (bands, height, width), those of the mean where there is no
    data."""
    labels: npt.NDArray[np.uint8]
    """Class indices (height, width), `IGNORE` where there is no data or no label."""
    valid: npt.NDArray[np.bool_]
    """(height, width), False where there is no data."""


class LabelledSource(Protocol):
    """A scene with labels on its own grid; nothing of it need be in memory.

    Plain values, no open file: it may be pickled, and read from several threads and
    processes at a time.
    """

    @property
    def name(self) -> str:
        """Name by which it is split, told of and shown; unique in its data."""

    @property
    def path(self) -> Path | None:
        """Image that `geoseg segment` takes; None if it is in memory only."""

    @property
    def grid(self) -> Grid:
        """Grid of image and labels: the file's own, never resampled."""

    @property
    def scale(self) -> float:
        """Digital number that means 1.0."""

    def read(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> LabelledPixels:
        """Read a window of image and labels.

        Args:
            window: Inside of the grid.
            unknown: As for `read_labels`.

        Raises:
            SceneError: It cannot be read, or its labels are not in the class table.
        """

    def read_labels(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Read labels only, without a look at which pixels of the image hold data.

        Args:
            window: Inside of the grid.
            unknown: Collects the pixels of what is not in the class table, by how it is
                written, in place of an error; they are `IGNORE` then.

        Raises:
            SceneError: They cannot be read, or are not in the class table.
        """


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """A labelled scene in memory."""

    name: str
    image: npt.NDArray[np.uint8]
    """(3, height, width), 0-255."""
    labels: npt.NDArray[np.uint8]
    """(height, width), index into the class table, `IGNORE` where unlabelled."""

    @property
    def path(self) -> Path | None:
        """None: it lies in no file."""
        return None

    @property
    def grid(self) -> Grid:
        """Its shape; it has no place on the Earth."""
        height, width = self.labels.shape
        return Grid(height, width, Affine.identity(), None)

    @property
    def scale(self) -> float:
        """Digital number that means 1.0."""
        return 255.0

    def read(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> LabelledPixels:
        """Cut a window out; what was unknown has been told of before."""
        rows, cols = window.slices
        labels = self.labels[rows, cols]
        return LabelledPixels(
            self.image[:, rows, cols], labels, np.ones(labels.shape, np.bool_)
        )

    def read_labels(
        self, window: Window, unknown: Counter[str] | None = None
    ) -> npt.NDArray[np.uint8]:
        """Cut a window of the labels out; what was unknown has been told of before."""
        return self.labels[window.slices]


def digital_mean(
    mean: Sequence[float], scale: float, dtype: np.dtype[np.generic]
) -> npt.NDArray[np.generic]:
    """Return the digital numbers nearest to a mean, shape (bands,).

    Args:
        mean: Mean per band, 0..1.
        scale: Digital number that means 1.0.
        dtype: Type of the numbers.
    """
    numbers = np.array(mean) * scale
    if dtype.kind in "iu":
        limits = np.iinfo(dtype.str)
        numbers = np.clip(np.rint(numbers), limits.min, limits.max)
    return numbers.astype(dtype)
