"""What a picture of a scene shows, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.grid import Grid, Window
from geoseg.io.overview import Outlines

Rgb = npt.NDArray[np.uint8]
"""Picture, shape (height, width, 3)."""


@dataclass(frozen=True, slots=True)
class Share:
    """A class in the legend."""

    id: int
    """Value in the class mask."""
    name: str
    """Name shown."""
    color: tuple[int, int, int]
    """Red, green, blue, 0-255."""
    share: float
    """Part of the pixels with data, 0..1."""


@dataclass(frozen=True, slots=True)
class View:
    """A window of a scene as it is drawn."""

    window: Window
    """Where it lies, pixels of the class mask."""
    mask: npt.NDArray[np.uint8]
    """Class ids, shape (height, width), no finer than the picture."""
    picture: Rgb | None
    """The scene, same height and width; None if it cannot be read."""
    valid: npt.NDArray[np.bool_] | None
    """Pixels of the scene that hold data, shape (height, width)."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that a picture shows."""

    title: str
    """Id of the scene."""
    grid: Grid
    """Grid of the class mask."""
    code: str | None
    """CRS as EPSG:28992, None if it has no code."""
    model: str | None
    """Name of the model."""
    shares: tuple[Share, ...]
    """Classes, in the legend's order."""
    whole: View
    """The whole scene."""
    detail: View | None
    """Part of a large scene; outlines are drawn there instead of everywhere."""
    outlines: Outlines | None
    """Polygons in pixels of the detail, else of the whole scene."""
