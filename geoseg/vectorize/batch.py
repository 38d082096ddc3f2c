"""Polygons of class masks as flat arrays, before they become geometries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from geoseg.vectorize.ragged import IntArray, offsets_of, take_rows


@dataclass(frozen=True, slots=True, eq=False)
class PolygonBatch:
    """Polygons, one per 4-connected component of one class.

    Rings are stored open (the first vertex is not repeated) and begin at their smallest
    (row, col) vertex; a polygon's first ring is its exterior. Exteriors run clockwise
    as seen with rows down, holes the other way round.
    """

    class_id: npt.NDArray[np.uint8]
    """Class of each polygon, shape (n,)."""
    pixels: IntArray
    """Pixels in each polygon, shape (n,)."""
    confidence_sum: IntArray
    """Sum of the pixels' confidence, percent, shape (n,)."""
    coords: npt.NDArray[np.int32]
    """Vertices, shape (m, 2): (col, row) of grid corners, in pixels of the scene."""
    ring_offsets: IntArray
    """First vertex of each ring in `coords`, and their end, shape (rings + 1,)."""
    polygon_offsets: IntArray
    """First ring of each polygon in `ring_offsets`, and their end, shape (n + 1,)."""

    def __len__(self) -> int:
        return len(self.class_id)

    @classmethod
    def empty(cls) -> PolygonBatch:
        """Return a batch without polygons."""
        none = np.zeros(0, np.int64)
        return cls(
            class_id=np.zeros(0, np.uint8),
            pixels=none,
            confidence_sum=none,
            coords=np.zeros((0, 2), np.int32),
            ring_offsets=offsets_of(none),
            polygon_offsets=offsets_of(none),
        )

    @staticmethod
    def concat(batches: Sequence[PolygonBatch]) -> PolygonBatch:
        """Return the polygons of all batches, in the order given."""
        if not batches:
            return PolygonBatch.empty()
        rings = [np.diff(batch.ring_offsets) for batch in batches]
        polygons = [np.diff(batch.polygon_offsets) for batch in batches]
        return PolygonBatch(
            class_id=np.concatenate([batch.class_id for batch in batches]),
            pixels=np.concatenate([batch.pixels for batch in batches]),
            confidence_sum=np.concatenate([batch.confidence_sum for batch in batches]),
            coords=np.concatenate([batch.coords for batch in batches]),
            ring_offsets=offsets_of(np.concatenate(rings)),
            polygon_offsets=offsets_of(np.concatenate(polygons)),
        )

    def take(self, order: IntArray) -> PolygonBatch:
        """Return the polygons with these indices, shape (k,), in this order."""
        rings, polygon_offsets = take_rows(self.polygon_offsets, order)
        vertices, ring_offsets = take_rows(self.ring_offsets, rings)
        return PolygonBatch(
            class_id=self.class_id[order],
            pixels=self.pixels[order],
            confidence_sum=self.confidence_sum[order],
            coords=self.coords[vertices],
            ring_offsets=ring_offsets,
            polygon_offsets=polygon_offsets,
        )

    def sorted(self) -> PolygonBatch:
        """Return the polygons by their topmost, then leftmost pixel.

        That pixel lies below and right of the exterior's first vertex, so it is unique:
        the order does not depend on how the mask was cut into parts.
        """
        first = self.coords[self.ring_offsets[self.polygon_offsets[:-1]]]
        return self.take(np.lexsort((first[:, 0], first[:, 1])))

    def geometries(self, transform: Affine) -> npt.NDArray[np.object_]:
        """Return the polygons as shapely geometries, shape (n,).

        Args:
            transform: Grid corners (col, row) to CRS coordinates (x, y).
        """
        col, row = self.coords.T.astype(np.float64)
        xy = np.empty((len(self.coords), 2))
        xy[:, 0] = transform.a * col + transform.b * row + transform.c
        xy[:, 1] = transform.d * col + transform.e * row + transform.f
        geometries: npt.NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, xy, (self.ring_offsets, self.polygon_offsets)
        )
        return geometries
