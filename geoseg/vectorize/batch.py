"""Polygons of class masks, ready to be written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PolygonBatch:
    """Polygons, one per 4-connected component of one class, without seams.

    Whatever gives batches gives the polygons by their last pixel in row order, however
    the mask was cut. Rings begin at their smallest (row, col) vertex and pass no vertex
    twice; exteriors run clockwise as seen with rows down, holes, which follow by their
    first vertex, the other way round.
    """

    class_id: npt.NDArray[np.uint8]
    """Class of each polygon, shape (n,)."""
    pixels: IntArray
    """Pixels in each polygon, shape (n,)."""
    confidence_sum: IntArray
    """Sum of the pixels' confidence, percent, shape (n,); 0 without confidence."""
    col_sum: npt.NDArray[np.float64]
    """Sum of col + 0.5 over the pixels, shape (n,): `col_sum / pixels` is the
    centroid's column, in pixels of the scene."""
    row_sum: npt.NDArray[np.float64]
    """Sum of row + 0.5 over the pixels, shape (n,)."""
    bounds: npt.NDArray[np.int32]
    """Grid corners around each polygon, pixels of the scene, shape (n, 4): col_min,
    row_min, col_max, row_max."""
    first_col: npt.NDArray[np.int32]
    """Column of the first pixel in row order, shape (n,); its row is row_min."""
    last_col: npt.NDArray[np.int32]
    """Column of the last pixel in row order, shape (n,); its row is row_max - 1."""
    geometry: pa.BinaryArray
    """WKB of each polygon in CRS coordinates, n values, none of them null."""

    def __len__(self) -> int:
        return len(self.class_id)

    @classmethod
    def empty(cls) -> PolygonBatch:
        """Return a batch without polygons."""
        shapes = {"bounds": (0, 4)}
        arrays: dict[str, Any] = {
            name: np.zeros(shapes.get(name, 0), dtype) for name, dtype in DTYPES.items()
        }
        return cls(**arrays, geometry=pa.array([], pa.binary()))

    @staticmethod
    def concat(batches: Sequence[PolygonBatch]) -> PolygonBatch:
        """Return the polygons of all batches, in the order given.

        Their WKB must take less than 2 GB together, as in any batch.
        """
        if not batches:
            return PolygonBatch.empty()
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(batch, name) for batch in batches])
            for name in DTYPES
        }
        geometry = pa.concat_arrays([batch.geometry for batch in batches])
        return PolygonBatch(**arrays, geometry=geometry)

    def take(self, index: npt.NDArray[np.integer]) -> PolygonBatch:
        """Return a copy of the polygons with these indices, shape (k,), in this order.

        `slice` copies nothing.
        """
        arrays: dict[str, Any] = {name: getattr(self, name)[index] for name in DTYPES}
        return PolygonBatch(**arrays, geometry=self.geometry.take(pa.array(index)))

    def slice(self, start: int, stop: int) -> PolygonBatch:
        """Return a view of the polygons `start` to `stop`."""
        arrays: dict[str, Any] = {
            name: getattr(self, name)[start:stop] for name in DTYPES
        }
        geometry = self.geometry.slice(start, max(0, stop - start))
        return PolygonBatch(**arrays, geometry=geometry)

    def last_pixels(self) -> IntArray:
        """Return numbers, shape (n,), that order polygons by their last pixel."""
        rows = self.bounds[:, 3].astype(np.int64)
        return rows * LAST_ROW + self.last_col

    def geometries(self) -> npt.NDArray[np.object_]:
        """Return the polygons as shapely geometries, shape (n,)."""
        wkb = self.geometry.to_numpy(zero_copy_only=False)
        geometries: npt.NDArray[np.object_] = shapely.from_wkb(wkb)
        return geometries


DTYPES = {
    "class_id": np.uint8,
    "pixels": np.int64,
    "confidence_sum": np.int64,
    "col_sum": np.float64,
    "row_sum": np.float64,
    "bounds": np.int32,
    "first_col": np.int32,
    "last_col": np.int32,
}
"""Dtype of each array of a batch, the geometry apart."""

LAST_ROW = 1 << 32
"""Step from row to row of `last_pixels`; columns of a raster are fewer."""

assert {field.name for field in fields(PolygonBatch)} == {*DTYPES, "geometry"}
