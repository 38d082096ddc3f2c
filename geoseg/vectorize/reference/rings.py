"""Polygons of class masks as rings of grid corners, in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from affine import Affine

from geoseg.vectorize.batch import LAST_ROW, PolygonBatch
from geoseg.vectorize.reference.ragged import IntArray, offsets_of, take_rows

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RingBatch:
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
    def empty(cls) -> RingBatch:
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
    def concat(batches: Sequence[RingBatch]) -> RingBatch:
        """Return the polygons of all batches, in the order given."""
        if not batches:
            return RingBatch.empty()
        rings = [np.diff(batch.ring_offsets) for batch in batches]
        polygons = [np.diff(batch.polygon_offsets) for batch in batches]
        return RingBatch(
            class_id=np.concatenate([batch.class_id for batch in batches]),
            pixels=np.concatenate([batch.pixels for batch in batches]),
            confidence_sum=np.concatenate([batch.confidence_sum for batch in batches]),
            coords=np.concatenate([batch.coords for batch in batches]),
            ring_offsets=offsets_of(np.concatenate(rings)),
            polygon_offsets=offsets_of(np.concatenate(polygons)),
        )

    def take(self, order: IntArray) -> RingBatch:
        """Return the polygons with these indices, shape (k,), in this order."""
        rings, polygon_offsets = take_rows(self.polygon_offsets, order)
        vertices, ring_offsets = take_rows(self.ring_offsets, rings)
        return RingBatch(
            class_id=self.class_id[order],
            pixels=self.pixels[order],
            confidence_sum=self.confidence_sum[order],
            coords=self.coords[vertices],
            ring_offsets=ring_offsets,
            polygon_offsets=polygon_offsets,
        )

    def sorted(self) -> RingBatch:
        """Return the polygons by their last pixel in row order.

        The order does not depend on how the mask was cut into parts.
        """
        return self.take(np.argsort(self._last_corners()))

    def _last_corners(self) -> IntArray:
        """Return the largest (row, col) corner of each exterior as a number."""
        if not len(self):
            return np.zeros(0, np.int64)
        keys = self.coords[:, 1].astype(np.int64) * LAST_ROW + self.coords[:, 0]
        # holes lie above it
        bounds = self.ring_offsets[self.polygon_offsets]
        return np.asarray(np.maximum.reduceat(keys, bounds[:-1]), np.int64)

    def polygons(self, transform: Affine) -> PolygonBatch:
        """Return the polygons as they are written.

        Args:
            transform: Grid corners (col, row) to CRS coordinates (x, y).
        """
        if not len(self):
            return PolygonBatch.empty()
        starts = self.ring_offsets[self.polygon_offsets[:-1]]
        _, last_col = np.divmod(self._last_corners(), LAST_ROW)
        low = np.minimum.reduceat(self.coords, starts)
        high = np.maximum.reduceat(self.coords, starts)
        col_sum, row_sum = self._moments(starts)
        return PolygonBatch(
            class_id=self.class_id,
            pixels=self.pixels,
            confidence_sum=self.confidence_sum,
            col_sum=col_sum,
            row_sum=row_sum,
            bounds=np.column_stack([low, high]),
            first_col=self.coords[starts, 0],
            last_col=(last_col - 1).astype(np.int32),
            geometry=pa.array(shapely.to_wkb(self.geometries(transform)), pa.binary()),
        )

    def _moments(self, starts: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return the sums of col + 0.5 and row + 0.5, by Green's theorem.

        Args:
            starts: First vertex of each polygon, shape (n,).
        """
        after = np.arange(1, len(self.coords) + 1)
        after[self.ring_offsets[1:] - 1] = self.ring_offsets[:-1]
        col, row = self.coords.astype(np.int64).T
        rise = row[after] - row
        # twice the sums are whole numbers
        by_col = np.add.reduceat(col * col * rise, starts)
        by_row = np.add.reduceat(col * rise * (row[after] + row), starts)
        return by_col / 2, by_row / 2

    def geometries(self, transform: Affine) -> npt.NDArray[np.object_]:
        """Return the polygons as shapely geometries, shape (n,)."""
        col, row = self.coords.T.astype(np.float64)
        xy = np.empty((len(self.coords), 2))
        xy[:, 0] = transform.a * col + transform.b * row + transform.c
        xy[:, 1] = transform.d * col + transform.e * row + transform.f
        geometries: npt.NDArray[np.object_] = shapely.from_ragged_array(
            shapely.GeometryType.POLYGON, xy, (self.ring_offsets, self.polygon_offsets)
        )
        return geometries
