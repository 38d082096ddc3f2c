"""The area of interest: from a file or a box to pixels of one scene."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.features import geometry_mask
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SceneError, UsageError
from geoseg.grid import Grid, Window
from geoseg.io.projection import affine_points, on_points

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""

UNREADABLE = (
    DataSourceError,
    DataLayerError,
    GEOSException,
    pyproj.exceptions.CRSError,
    UnicodeDecodeError,  # names of fields
)
"""What libraries raise for a file of vectors that is broken."""

_EDGE_PARTS = 128
"""Straight parts that stand for an AOI's longest side when it is projected."""


def area_of_interest(
    grid: Grid, aoi: Path | None, bbox: Box | None
) -> BaseGeometry | None:
    """Return the area wanted, in the grid's CRS; None means all of it.

    Args:
        grid: Grid of the scene.
        aoi: File or .gdb folder that OGR can read, in any CRS; one without a CRS is
            taken to be in the grid's. The area is the union of the polygons of the
            first layer that has some.
        bbox: Box in the grid's CRS (pixels from the top left corner, rows counted
            downward, when the scene is not georeferenced). Given both, the area is
            what they share.

    Raises:
        UsageError: The file cannot be read, has no polygon, or the box is empty.
        SceneError: The file has a CRS and the scene has none, or they do not meet.
    """
    area = None if aoi is None else _read_area(aoi, grid)
    if bbox is None:
        return area
    left, bottom, right, top = bbox
    if not all(map(math.isfinite, bbox)) or left >= right or bottom >= top:
        raise UsageError(
            f"the box {bbox} is empty; give left,bottom,right,top in the scene's CRS"
        )
    box = shapely.box(left, bottom, right, top)
    return box if area is None else shapely.intersection(area, box)


def region_of(area: BaseGeometry, grid: Grid) -> Window:
    """Return the smallest window that holds every pixel centre inside the area.

    Raises:
        SceneError: No pixel centre lies inside.
    """
    frame = shapely.box(0, 0, grid.width, grid.height)
    inside = shapely.intersection(in_pixels(area, grid), frame)
    if shapely.area(inside) == 0:
        raise SceneError(
            "the area of interest (--aoi, --bbox) does not touch the scene; check its "
            "coordinates and its CRS"
        )
    left, top, right, bottom = inside.bounds
    rows = _centres(top, bottom)
    cols = _centres(left, right)
    if len(rows) == 0 or len(cols) == 0:
        raise SceneError(
            "the area of interest (--aoi, --bbox) covers no pixel centre of the scene; "
            "draw it larger than a pixel"
        )
    return Window(rows.start, cols.start, len(rows), len(cols))


def in_pixels(area: BaseGeometry, grid: Grid) -> BaseGeometry:
    """Return the area in (column, row) coordinates of the grid."""
    return shapely.transform(area, affine_points(~grid.transform))


def inside_mask(area_in_pixels: BaseGeometry, window: Window) -> npt.NDArray[np.bool_]:
    """Tell which pixels of a window have their centre inside the area.

    Args:
        area_in_pixels: As `in_pixels` returns it.
        window: Window of the same grid.

    Returns:
        Shape (window.height, window.width).
    """
    mask: npt.NDArray[np.bool_] = geometry_mask(
        [area_in_pixels],
        out_shape=(window.height, window.width),
        transform=Affine.translation(window.col, window.row),
        invert=True,
    )
    return mask


def _centres(low: float, high: float) -> range:
    """Return the pixels of an axis whose centre lies in low..high."""
    return range(math.ceil(low - 0.5), math.floor(high - 0.5) + 1)


def _read_area(path: Path, grid: Grid) -> BaseGeometry:
    """Read a file's polygons, united, in the grid's CRS."""
    area, crs = _read_polygons(path)
    if crs is None:
        return area
    if grid.crs is None:
        raise SceneError(
            f"the AOI {path} has a CRS and the scene has none, so nobody can tell "
            "where they meet; give the scene its CRS and place with gdal_translate "
            "-a_srs -a_ullr, or pass the area with --bbox in pixels"
        )
    return _project(area, crs, grid)


def _read_polygons(path: Path) -> tuple[BaseGeometry, pyproj.CRS | None]:
    """Read the first layer with polygons, united, and its CRS if it has one."""
    try:
        # QGIS keeps styles in a layer, `layer_styles`, which has no geometry.
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        for layer in layers:
            meta, _, shapes, _ = pyogrio.raw.read(
                path, layer=layer, columns=[], force_2d=True
            )
            # Rings that do not end where they begin are closed.
            geometries = shapely.make_valid(shapely.from_wkb(shapes, on_invalid="fix"))
            area = shapely.union_all(geometries[shapely.area(geometries) > 0])
            if not area.is_empty:
                return area, crs_of(meta)
    except UNREADABLE as error:
        raise UsageError(
            f"the AOI {path} cannot be read: {error}; give a file with polygons, for "
            "example GeoJSON or GeoPackage"
        ) from error
    raise UsageError(f"the AOI {path} has no polygon; draw one around the area")


def crs_of(meta: Mapping[str, Any]) -> pyproj.CRS | None:
    """Return the CRS of a layer; a GeoPackage may say outright that it has none."""
    if meta["crs"] is None:
        return None
    crs = pyproj.CRS.from_user_input(meta["crs"])
    return None if crs.type_name == "Engineering CRS" else crs


def _project(area: BaseGeometry, crs: pyproj.CRS, grid: Grid) -> BaseGeometry:
    """Transform an area to the grid's CRS, edges followed as its own CRS has them."""
    target = pyproj.CRS.from_wkt(str(grid.crs))
    if crs == target:
        return area
    near = _clip_near(area, crs, target, grid)
    if near.is_empty:
        return near
    left, bottom, right, top = near.bounds
    near = shapely.segmentize(near, max(right - left, top - bottom) / _EDGE_PARTS)
    transformer = pyproj.Transformer.from_crs(crs, target, always_xy=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Points outside the CRS: inf.
        projected = shapely.transform(near, on_points(transformer.transform))
    if not np.isfinite(shapely.get_coordinates(projected)).all():
        raise SceneError(
            "the AOI cannot be expressed in the scene's CRS; draw it closer around the "
            "scene, or in the scene's CRS"
        )
    return shapely.make_valid(projected)


def _clip_near(
    area: BaseGeometry, crs: pyproj.CRS, target: pyproj.CRS, grid: Grid
) -> BaseGeometry:
    """Cut an area to a box around the scene: far off, the scene's CRS may end."""
    back = pyproj.Transformer.from_crs(target, crs, always_xy=True)
    try:
        left, bottom, right, top = back.transform_bounds(*grid.bounds, densify_pts=21)
    except pyproj.exceptions.ProjError:
        return area
    # A box across the date line has left > right; a margin covers curved edges.
    if left > right or not all(map(math.isfinite, (left, bottom, right, top))):
        return area
    margin = (right - left) + (top - bottom)
    return shapely.intersection(
        area,
        shapely.box(left - margin, bottom - margin, right + margin, top + margin),
    )
