"""Masks that people made: values or colours of a raster, read by window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from geoseg.errors import SceneError
from geoseg.grid import Grid, Window
from geoseg.io.gdal import gdal_env, open_dataset, scene_errors
from geoseg.io.radiometry import alpha_band
from geoseg.io.raster import native_grid, no_bands
from geoseg.io.validity import has_mask, read_bands, visible


@dataclass(frozen=True, slots=True)
class Mask:
    """A raster of classes and how it is stored; plain values, no open file."""

    path: str
    """The file."""
    grid: Grid
    """Its grid."""
    bands: int
    """Bands that are no alpha band."""
    paletted: bool
    """Its values are places in a colour table."""
    nodata: float | None
    """Value that hides a pixel."""


def open_mask(path: Path) -> Mask:
    """Look at a mask; reads no pixel.

    Raises:
        SceneError: It cannot be read, or holds no numbers that tell classes.
    """
    with open_dataset(str(path)) as dataset, gdal_env(), scene_errors(str(path)):
        if dataset.count == 0:
            raise SceneError(no_bands(dataset))
        if dataset.dtypes[0].startswith("complex"):
            raise SceneError(f"{path} has complex pixels; a mask holds whole numbers")
        return Mask(
            path=str(path),
            grid=native_grid(dataset),
            bands=sum(c != ColorInterp.alpha for c in dataset.colorinterp),
            paletted=dataset.colorinterp[0] == ColorInterp.palette,
            nodata=dataset.nodatavals[0],
        )


def read_mask(
    mask: Mask, window: Window, *, colored: bool
) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Read what a window of a mask holds.

    Args:
        mask: The mask.
        window: Inside of its grid.
        colored: Read colours, red << 16 | green << 8 | blue, whether they are stored as
            bands, as grey or in a colour table; values otherwise.

    Returns:
        Values or packed colours, integer; which pixels hold some: those that neither
        alpha nor a mask band hides and that are numbers; and which of them are not the
        nodata value. Shape (height, width) each.

    Raises:
        SceneError: It cannot be read, or has fractions or several bands of values.
    """
    with open_dataset(mask.path) as dataset, gdal_env(), scene_errors(mask.path):
        bands = _bands_to_read(mask, colored)
        pixels, shown = read_bands(
            dataset,
            bands,
            window,
            alpha=alpha_band(dataset, bands),
            masked=has_mask(dataset, 1, replaced=False),
        )
        there = visible(pixels, None)
        if shown is not None:
            there &= shown
        data = visible(pixels, mask.nodata) & there
        whole = _as_integers(pixels, there, mask.path)
        if colored:
            return pack_colors(_colors(mask, dataset, whole)), there, data
        return whole[0], there, data


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """Read all of a picture of 8 bits as red, green and blue.

    Returns:
        Shape (3, height, width).

    Raises:
        SceneError: It cannot be read, or holds no such picture.
    """
    mask = open_mask(path)
    with open_dataset(mask.path) as dataset, gdal_env(), scene_errors(mask.path):
        pixels = dataset.read(_bands_to_read(mask, colored=True))
        return _colors(mask, dataset, pixels)


def pack_colors(colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Write colours, shape (3, height, width), as one number each."""
    red, green, blue = colors.astype(np.int32)
    packed: npt.NDArray[np.int32] = red << 16 | green << 8 | blue
    return packed


def _colors(
    mask: Mask, dataset: DatasetReader, pixels: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.uint8]:
    """Return red, green and blue of pixels that are stored in whatever way."""
    if mask.paletted:
        return _palette(dataset)[:, pixels[0]]
    if pixels.dtype != np.uint8:
        if pixels.min() < 0 or pixels.max() > 255:
            raise SceneError(
                f"{mask.path} has {dataset.dtypes[0]} pixels, and the class table "
                "names colours; name the mask's values in data.classes, or write "
                "colours as 8 bits"
            )
        pixels = pixels.astype(np.uint8)
    colors: npt.NDArray[np.uint8] = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
    return colors


def _bands_to_read(mask: Mask, colored: bool) -> tuple[int, ...]:
    if mask.bands == 1 or (mask.bands == 2 and not colored):
        return (1,)
    if colored and mask.bands >= 3:
        return (1, 2, 3)
    raise SceneError(
        f"{mask.path} has {mask.bands} bands, and the class table names values; give "
        "the colours of its classes in data.classes, or a mask of one band"
    )


def _as_integers(
    pixels: npt.NDArray[np.generic], there: npt.NDArray[np.bool_], path: str
) -> npt.NDArray[np.integer[Any]]:
    if pixels.dtype.kind in "iu":
        return pixels  # type: ignore[return-value]  # dtype.kind tells it
    values = np.where(there, pixels, 0)
    whole: npt.NDArray[np.int64] = values.astype(np.int64)
    if (whole != values).any():
        raise SceneError(
            f"{path} holds fractions; a mask holds a whole number for each class"
        )
    return whole


def _palette(dataset: DatasetReader) -> npt.NDArray[np.uint8]:
    """Return the colour table, shape (3, 256 or more); black where it has no entry."""
    colors = dataset.colormap(1)
    table = np.zeros((3, 1 + max(255, *colors)), np.uint8)
    for value, color in colors.items():
        table[:, value] = color[:3]
    return table
