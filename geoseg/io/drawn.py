"""Polygons of one scene, from any vector file, burned into windows of labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import pyproj
import shapely
from affine import Affine
from rasterio.features import rasterize

from geoseg.errors import SceneError
from geoseg.grid import Grid, Window
from geoseg.io.aoi import UNREADABLE, crs_of
from geoseg.io.projection import affine_points, on_points

_EDGE_PARTS = 128
"""Straight parts that stand for the scene's longest side when edges are projected."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Polygons in the pixels of a scene, in the order in which they are painted."""

    tree: shapely.STRtree
    """The polygons, (column, row) of the scene's grid."""
    values: npt.NDArray[np.uint8]
    """What each paints, shape (n,)."""

    def burn(self, window: Window, background: int) -> npt.NDArray[np.uint8]:
        """Paint a window: pixels whose centre a polygon covers, later ones on top.

        Args:
            window: Window of the scene's grid.
            background: Value where there is no polygon.

        Returns:
            Shape (window.height, window.width).
        """
        shape = (window.height, window.width)
        box = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        found = np.sort(self.tree.query(box))
        if not len(found):
            return np.full(shape, background, np.uint8)
        burned: npt.NDArray[np.uint8] = rasterize(
            [(self.tree.geometries[i], int(self.values[i])) for i in found],
            out_shape=shape,
            fill=background,
            transform=Affine.translation(window.col, window.row),
            dtype="uint8",
        )
        return burned


def read_shapes(
    path: Path,
    grid: Grid,
    value_of: Callable[[object], int],
    *,
    layer: str | None,
    column: str | None,
) -> Shapes:
    """Read the polygons that touch a scene, in its pixels.

    Args:
        path: Anything with polygons that OGR reads, in any CRS; without one it is taken
            to be in the scene's.
        grid: Grid of the scene.
        value_of: What a polygon paints, by its value in `column`; None without one.
        layer: Layer of the file; None: the first that has a geometry.
        column: Column that tells the class.

    Raises:
        SceneError: The file, the layer or the column cannot be read, or nobody can tell
            where file and scene meet.
    """
    try:
        layer = layer or _first_layer(path)
        info = pyogrio.read_info(path, layer=layer)
        if column is not None and column not in info["fields"]:
            raise SceneError(
                f"{path} has no column {column} in its layer {layer}, only "
                f"{', '.join(info['fields'])}; change data.vector.class_column"
            )
        crs = crs_of(info)
        _check_placed(path, crs, grid)
        target = None if grid.crs is None else pyproj.CRS.from_wkt(grid.crs)
        _, fids, shapes, fields = pyogrio.raw.read(
            path,
            layer=layer,
            columns=[] if column is None else [column],
            bbox=_bounds_in(crs, target, grid),
            force_2d=True,
            return_fids=True,
        )
        geometries = shapely.from_wkb(shapes, on_invalid="fix")
    except UNREADABLE as error:
        raise SceneError(
            f"the labels {path} cannot be read: {error}; give a file with polygons, "
            "for example GeoPackage or GeoJSON"
        ) from error
    except pyproj.exceptions.ProjError as error:
        raise SceneError(
            f"no way leads from the CRS of the labels {path} to that of the scene "
            f"({error}); convert them with ogr2ogr -t_srs"
        ) from error
    # An index of the file may give them in any order.
    order = np.argsort(fids)
    order = order[shapely.area(geometries[order]) > 0]  # Points and lines paint none.
    geometries = _projected(geometries[order], crs, target, grid)
    values = [None] * len(order) if column is None else fields[0][order].tolist()
    painted = np.array([value_of(value) for value in values], np.uint8)
    return Shapes(shapely.STRtree(geometries), painted)


def _check_placed(path: Path, crs: pyproj.CRS | None, grid: Grid) -> None:
    if crs is not None and grid.crs is None:
        raise SceneError(
            f"{path} has a CRS and the scene has none, so nobody can tell where they "
            "meet; give the scene its CRS and place with gdal_translate -a_srs -a_ullr"
        )


def _first_layer(path: Path) -> str:
    # QGIS keeps styles in a layer, `layer_styles`, which has no geometry.
    layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    if not layers:
        raise SceneError(f"the labels {path} have no layer with polygons")
    return str(layers[0])


def _bounds_in(
    crs: pyproj.CRS | None, target: pyproj.CRS | None, grid: Grid
) -> tuple[float, float, float, float] | None:
    """Return a box around the scene in the file's CRS, None where there is none."""
    if crs is None or target is None or crs == target:
        return grid.bounds
    back = pyproj.Transformer.from_crs(target, crs, always_xy=True)
    try:
        left, bottom, right, top = back.transform_bounds(*grid.bounds, densify_pts=21)
    except pyproj.exceptions.ProjError:
        return None
    # Across the date line left > right: all polygons are read then.
    if left > right or not np.isfinite([left, bottom, right, top]).all():
        return None
    return left, bottom, right, top


def _projected(
    geometries: npt.NDArray[Any],
    crs: pyproj.CRS | None,
    target: pyproj.CRS | None,
    grid: Grid,
) -> npt.NDArray[Any]:
    """Return geometries in pixels; edges are followed as the file's CRS has them."""
    if crs is not None and target is not None and crs != target:
        box = _bounds_in(crs, target, grid)
        if box is not None:
            longest = max(box[2] - box[0], box[3] - box[1])
            geometries = shapely.segmentize(geometries, longest / _EDGE_PARTS)
        transformer = pyproj.Transformer.from_crs(crs, target, always_xy=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # Outside the CRS: inf.
            geometries = shapely.transform(geometries, on_points(transformer.transform))
        there = np.isfinite(shapely.bounds(geometries)).all(axis=1)
        geometries[~there] = shapely.Polygon()
    return shapely.transform(geometries, affine_points(~grid.transform))
