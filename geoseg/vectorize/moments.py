"""Area, centroid and bounds of polygons, from their WKB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from geoseg.vectorize.native import check, library

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """What polygons are in the plane; of one without rings, area 0 and else NaN."""

    area: Floats
    """Area, squared CRS units, shape (n,)."""
    centroid: Floats
    """Centroids, x and y, CRS units, shape (n, 2)."""
    bounds: Floats
    """Boxes around the polygons, x_min, y_min, x_max, y_max, shape (n, 4)."""


def polygon_moments(geometry: pa.BinaryArray) -> Moments:
    """Measure polygons in the plane; the library needs no geometry objects for it.

    Args:
        geometry: WKB of polygons, little-endian, two-dimensional, none of them null.

    Raises:
        VectorizeError: Something else is among them.
    """
    native = library()
    if native is None:
        return _moments_reference(geometry)
    count = len(geometry)
    rows = np.empty((count, 7), np.float64)
    if count:
        _, offsets, values = geometry.buffers()
        code = native.geoseg_measure_polygons(
            values.address if values is not None else None,
            offsets.address + geometry.offset * 4,  # They are int32.
            count,
            rows.ctypes.data,
        )
        check(native, code, Path())
    return Moments(rows[:, 0], rows[:, 1:3], rows[:, 3:])


def _moments_reference(geometry: pa.BinaryArray) -> Moments:
    """Measure with GEOS."""
    polygons = shapely.from_wkb(geometry.to_numpy(zero_copy_only=False))
    centroids = shapely.get_coordinates(shapely.centroid(polygons))
    found = np.full((len(polygons), 2), np.nan)
    found[~shapely.is_empty(polygons)] = centroids
    return Moments(shapely.area(polygons), found, shapely.bounds(polygons))
