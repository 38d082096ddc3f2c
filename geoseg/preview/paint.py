"""Pixels of a picture: stretches, classes over a scene, the place of the detail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.grid import Window
from geoseg.io.overview import Picture
from geoseg.preview.subject import Rgb, View
from geoseg.types import NODATA

Rgba = npt.NDArray[np.uint8]
"""Picture, shape (height, width, 4); alpha 0 where there is nothing to show."""

CLASS_SHARE = 0.65
"""Part of a pixel's colour that is its class's; the rest is the scene in grey."""

DARKEST = 70
"""Grey under a class where the scene is black, 0-255."""

PALE = 0.6
"""Part of white in a scene where it was not segmented."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green, blue in the brightness that eyes see."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Digital numbers that are drawn black and white."""

    low: float
    """Drawn as 0."""
    high: float
    """Drawn as 255."""


def choose_stretch(picture: Picture) -> Stretch:
    """Show 8 bits as they are; of other dtypes, 2 to 98 % of the values."""
    if picture.dtype == "uint8":
        return Stretch(0, 255)
    values = picture.values[:, picture.valid]
    if not values.size:
        return Stretch(0, 1)
    low, high = np.percentile(values, [2, 98])
    return Stretch(float(low), float(high) if high > low else float(low) + 1)


def stretched(picture: Picture, stretch: Stretch) -> Rgb:
    """Turn digital numbers into colours; black where there is no data."""
    values = np.where(picture.valid, picture.values, stretch.low)
    scaled = np.clip((values - stretch.low) / (stretch.high - stretch.low), 0, 1)
    colors: Rgb = (np.moveaxis(scaled, 0, -1) * 255).round().astype(np.uint8)
    return colors


def scene_pixels(view: View) -> Rgba:
    """Paint the scene alone."""
    assert view.picture is not None
    assert view.valid is not None
    return np.dstack([view.picture, np.where(view.valid, 255, 0).astype(np.uint8)])


def class_pixels(view: View, colors: Mapping[int, tuple[int, int, int]]) -> Rgba:
    """Paint classes over the scene in grey, or alone; pale scene where there are none.

    Args:
        view: What is shown.
        colors: Colour by class id.
    """
    table = np.zeros((256, 3), np.float32)
    for class_id, color in colors.items():
        table[class_id] = color
    known = view.mask != NODATA
    painted = table[view.mask]
    shown = known
    if view.picture is not None and view.valid is not None:
        grey = (view.picture @ np.array(LUMA, np.float32))[..., None]
        # Light greys only: a dark scene would make a class unlike its legend.
        light = DARKEST + (255 - DARKEST) * grey / 255
        mixed = CLASS_SHARE * painted + (1 - CLASS_SHARE) * light
        pale = PALE * 255 + (1 - PALE) * grey
        painted = np.where(known[..., None], mixed, pale)
        shown = known | view.valid
    alpha = np.where(shown, 255.0, 0.0)
    pixels: Rgba = np.dstack([painted, alpha]).round().astype(np.uint8)
    return pixels


def most_diverse(
    mask: npt.NDArray[np.uint8], shape: tuple[int, int], size: tuple[int, int]
) -> Window:
    """Find the window with the most even mixture of classes and least nodata.

    Args:
        mask: Class mask of the whole scene, any resolution.
        shape: Height and width of the scene, pixels.
        size: Height and width of the window, pixels of the scene.
    """
    height, width = (min(part, whole) for part, whole in zip(size, shape, strict=True))
    windows = [
        Window(row, col, height, width)
        for row in _steps(shape[0], height)
        for col in _steps(shape[1], width)
    ]
    return max(windows, key=lambda window: _mixture(_part(mask, shape, window)))


def _steps(length: int, size: int) -> list[int]:
    """Return starts half a window apart, the last one at the end."""
    return [*range(0, length - size, max(1, size // 2)), length - size]


def _part(
    mask: npt.NDArray[np.uint8], shape: tuple[int, int], window: Window
) -> npt.NDArray[np.uint8]:
    """Return a window of the scene out of its smaller mask, at least a pixel."""
    rows, cols = mask.shape[0] / shape[0], mask.shape[1] / shape[1]
    top, left = int(window.row * rows), int(window.col * cols)
    bottom = max(top + 1, int(window.row_stop * rows))
    right = max(left + 1, int(window.col_stop * cols))
    return mask[top:bottom, left:right]


def _mixture(part: npt.NDArray[np.uint8]) -> float:
    """Return the entropy of the classes, less where there is nodata."""
    counts = np.bincount(part.ravel(), minlength=256)
    valid = counts[:NODATA]
    shares = valid[valid > 0] / max(1, valid.sum())
    entropy = -(shares * np.log(shares)).sum()
    return float(entropy * valid.sum() / part.size)
