"""Simplification of a scene's polygons that keeps them a coverage."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import shapely

from geoseg.errors import GeosegWarning
from geoseg.vectorize.batch import PolygonBatch


def simplify(
    batches: Iterable[PolygonBatch], tolerance: float
) -> Iterator[PolygonBatch]:
    """Simplify the borders between polygons, each of them once.

    Neighbours keep sharing their edges; nodes stay where they are, and so does the
    outer boundary, holes of nodata included: no polygon is lost, and the sum of areas
    is kept. Columns but the geometry are those of the pixels: `pixels`, sums and bounds
    tell what the polygons were. The polygons of the scene are in memory together.

    Args:
        batches: All polygons of a scene.
        tolerance: CRS units: a corner is dropped where that moves the border by an area
            of up to its square. 0 changes nothing.

    Yields:
        The same polygons in the same order and batches.
    """
    if tolerance <= 0:
        yield from batches
        return
    held = list(batches)
    if not held:
        return
    simplified = shapely.coverage_simplify(
        np.concatenate([batch.geometries() for batch in held]),
        tolerance,
        simplify_boundary=False,
    )
    if not (shapely.is_valid(simplified) & ~shapely.is_empty(simplified)).all():
        # GEOS has not been seen to do this; a broken polygon would be worse.
        warnings.warn(
            f"simplifying by {tolerance} would break polygons; they are left as they "
            "are, choose a smaller tolerance",
            GeosegWarning,
            stacklevel=2,
        )
        yield from held
        return
    start = 0
    for index, batch in enumerate(held):
        held[index] = PolygonBatch.empty()  # let it go
        stop = start + len(batch)
        wkb = pa.array(shapely.to_wkb(simplified[start:stop]), pa.binary())
        yield replace(batch, geometry=wkb)
        start = stop
