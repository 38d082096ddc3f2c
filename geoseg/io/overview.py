"""Small pictures of large files: decimated reads for previews."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyogrio.raw
import rasterio.windows
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader
from shapely.errors import GEOSException

from geoseg.errors import SceneError
from geoseg.grid import Grid, Window
from geoseg.io.gdal import gdal_env, open_dataset, scene_errors
from geoseg.io.projection import affine_points
from geoseg.io.vector import LAYER


@dataclass(frozen=True, slots=True)
class Picture:
    """What a scene shows."""

    values: npt.NDArray[np.float32]
    """Digital numbers of red, green, blue, shape (3, height, width)."""
    valid: npt.NDArray[np.bool_]
    """Pixels that hold data, shape (height, width)."""
    dtype: str
    """Dtype of the scene."""


@dataclass(frozen=True, slots=True)
class Outlines:
    """Polygons of one window, largest first."""

    class_id: npt.NDArray[np.int64]
    """Class of each polygon, shape (n,)."""
    rings: tuple[tuple[npt.NDArray[np.float64], ...], ...]
    """Rings of each polygon, shape (m, 2): column and row, pixels of the window."""


def read_mask_grid(path: Path) -> tuple[Grid, dict[str, str]]:
    """Return the grid of a class mask and its tags.

    Raises:
        SceneError: It cannot be read.
    """
    with open_dataset(str(path)) as dataset, gdal_env():
        crs = dataset.crs.to_wkt(version="WKT2_2019") if dataset.crs else None
        grid = Grid(dataset.height, dataset.width, dataset.transform, crs)
        return grid, dataset.tags()


def read_mask(
    path: Path, window: Window, shape: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """Read a window of a class mask; of many pixels the most frequent class is shown.

    Args:
        path: The class mask.
        window: What to read, pixels.
        shape: Height and width of the result.
    """
    with open_dataset(str(path)) as dataset, gdal_env(), scene_errors(str(path)):
        mask: npt.NDArray[np.uint8] = dataset.read(
            1, window=_place(window), out_shape=shape, resampling=Resampling.mode
        )
        return mask


def read_picture(
    path: str, grid: Grid, bands: Sequence[int] | None, shape: tuple[int, int]
) -> Picture:
    """Read what a scene shows where a grid lies.

    Args:
        path: The scene.
        grid: Part of the scene's ground, at any resolution, with its axes.
        bands: 1-based bands for red, green, blue; None chooses.
        shape: Height and width of the result.

    Raises:
        SceneError: The scene cannot be read, or lies elsewhere.
    """
    with open_dataset(path) as dataset, gdal_env(), scene_errors(path):
        window = _window_of(dataset, grid)
        indexes = list(bands or _picture_bands(dataset))
        size = {"window": window, "out_shape": (len(indexes), *shape)}
        values = dataset.read(indexes, resampling=Resampling.average, **size)
        valid = dataset.dataset_mask(window=window, out_shape=shape) != 0
        dtype = dataset.dtypes[indexes[0] - 1]
    numbers = np.real(values).astype(np.float32)
    valid &= np.isfinite(numbers).all(axis=0)
    return Picture(np.broadcast_to(numbers, (3, *shape)), valid, dtype)


def read_outlines(path: Path, grid: Grid, *, min_pixels: int, limit: int) -> Outlines:
    """Read the polygons that touch a grid, the largest ones.

    Args:
        path: A GeoPackage of segments.
        grid: Where to look.
        min_pixels: Smaller polygons are left out.
        limit: Polygons at most.

    Raises:
        SceneError: The file is missing or damaged.
    """
    where = f"pixels >= {min_pixels}"
    sql = f'SELECT class_id, pixels, geom FROM "{LAYER}" WHERE {where}'
    try:
        _, _, geometry, (class_id, _) = pyogrio.raw.read(
            path,
            sql=f"{sql} ORDER BY pixels DESC LIMIT {limit}",
            bbox=grid.bounds,
        )
        shapes = shapely.from_wkb(geometry)
    # ValueError and GEOSException: a table of other columns, or no polygons in it.
    except (DataSourceError, DataLayerError, ValueError, GEOSException) as error:
        raise SceneError(
            f"{path} cannot be read: {error}; remove item.json beside it, and `geoseg "
            "segment` makes the scene again"
        ) from error
    polygons = shapely.transform(shapes, affine_points(~grid.transform))
    return Outlines(
        class_id.astype(np.int64), tuple(_rings(polygon) for polygon in polygons)
    )


def _rings(polygon: shapely.Polygon) -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(shapely.get_coordinates(ring) for ring in shapely.get_rings(polygon))


def _place(window: Window) -> rasterio.windows.Window:
    return rasterio.windows.Window(window.col, window.row, window.width, window.height)


def _window_of(dataset: DatasetReader, grid: Grid) -> rasterio.windows.Window:
    """Return where a grid lies in a dataset, in fractions of its pixels."""
    to_source = ~dataset.transform @ grid.transform
    left, top = to_source @ (0, 0)
    right, bottom = to_source @ (grid.width, grid.height)
    left, right = max(0.0, left), min(float(dataset.width), right)
    top, bottom = max(0.0, top), min(float(dataset.height), bottom)
    if right - left < 0.5 or bottom - top < 0.5:
        raise SceneError(
            f"{dataset.name} does not lie where its results lie; it was changed or "
            "replaced since"
        )
    return rasterio.windows.Window(left, top, right - left, bottom - top)


def _picture_bands(dataset: DatasetReader) -> tuple[int, ...]:
    """Choose bands to show: those that say red, green, blue, else the first."""
    colors = list(dataset.colorinterp)
    named = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(color in colors for color in named):
        return tuple(colors.index(color) + 1 for color in named)
    data = [i for i, color in enumerate(colors, 1) if color != ColorInterp.alpha]
    return tuple(data[:3]) if len(data) >= 3 else tuple(data[:1])
