"""Polygons as rows of the columns that users see."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from geoseg._heap import return_memory
from geoseg.grid import Grid
from geoseg.io.area import GroundArea
from geoseg.types import ClassInfo
from geoseg.vectorize import PolygonBatch
from geoseg.vectorize.moments import Moments, polygon_moments

GEOMETRY, BOUNDS = "geom", "bbox"
"""Names of the columns that formats treat in their own way."""

SCHEMA = pa.schema(
    [
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("area_m2", pa.float64()),
        ("pixels", pa.int64()),
        ("confidence_mean", pa.float64()),
        ("scene_id", pa.string()),
        (GEOMETRY, pa.binary()),
    ]
)
"""Columns of every format, in order."""

BOUNDS_TYPE = pa.struct(
    [(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")]
)
"""Box around a polygon, CRS units."""

_POLYGONS = 1 << 14
"""Polygons that are made rows at once, as many as a traced batch has."""

_ROWS = 1 << 9
"""Rows that are written at once. pyogrio holds Python's lock meanwhile, which the
tracer needs after each batch: so few take 1.5 ms."""

_TRIM_EVERY = 8
"""Batches after which free memory is returned: threads take it, and others drop it."""

_BYTES = 1 << 25
"""Bytes of WKB that end a record of fewer rows: one polygon may have gigabytes."""


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """What a scene holds of one class."""

    polygons: int
    """Number of polygons."""
    pixels: int
    """Number of pixels."""
    area_m2: float | None
    """Ground area, square metres; None where that of a polygon is unknown, or the grid
    is not tied to the ground."""


class SegmentTable:
    """Turns batches into Arrow record batches and counts what goes by."""

    def __init__(
        self,
        grid: Grid,
        classes: Sequence[ClassInfo],
        scene_id: str,
        *,
        with_confidence: bool,
        with_bounds: bool,
    ) -> None:
        """Prepare a table.

        Args:
            grid: Grid that the polygons were traced on.
            classes: Classes with their names.
            scene_id: Value of the column of that name.
            with_confidence: Whether the polygons have any; without, theirs is null.
            with_bounds: Whether a last column holds boxes around the polygons.
        """
        self.failure: Exception | None = None
        """Why there are no more rows: a C stream passes on no more than that."""
        bounds = pa.field(BOUNDS, BOUNDS_TYPE)
        self._schema = SCHEMA.append(bounds) if with_bounds else SCHEMA
        self._scene_id = scene_id
        self._with_confidence = with_confidence
        self._ids = [info.id for info in classes]
        self._area = GroundArea(grid)
        names: list[str | None] = [None] * 256
        for info in classes:
            names[info.id] = info.name
        self._names = pa.array(names, pa.string())
        self._polygons = np.zeros(256, np.int64)
        self._pixels = np.zeros(256, np.int64)
        self._area_m2 = np.zeros(256, np.float64)
        self._unmeasured = 0

    def records(self, batches: Iterable[PolygonBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of all batches; each is read once and let go.

        Records have the same rows however the batches are cut, and so do files.
        """
        try:
            yield from _recut(self._records(batches))
        except Exception as error:
            self.failure = error
            raise

    @property
    def rows(self) -> int:
        """How many rows were made."""
        return int(self._polygons.sum())

    @property
    def unmeasured(self) -> int:
        """How many rows have no area although the grid is tied to the ground."""
        return self._unmeasured if self._area.known else 0

    def totals(self) -> dict[int, ClassTotal]:
        """Return the totals of all batches."""
        return {class_id: self._total(class_id) for class_id in self._ids}

    def _total(self, class_id: int) -> ClassTotal:
        area = float(self._area_m2[class_id])
        known = self._area.known and math.isfinite(area)
        return ClassTotal(
            polygons=int(self._polygons[class_id]),
            pixels=int(self._pixels[class_id]),
            area_m2=area if known else None,
        )

    def _records(self, batches: Iterable[PolygonBatch]) -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches, start=1):
            for start in range(0, len(batch), _POLYGONS):
                yield self._record(batch.slice(start, start + _POLYGONS))
            if number % _TRIM_EVERY == 0:
                return_memory()

    def _record(self, batch: PolygonBatch) -> pa.RecordBatch:
        moments = polygon_moments(batch.geometry)
        area = self._area.measure_batch(batch, moments)
        self._count(batch, area)
        columns = [
            pa.array(batch.class_id, pa.int32()),
            self._names.take(pa.array(batch.class_id)),
            pa.array(area, pa.float64(), mask=np.isnan(area)),
            pa.array(batch.pixels, pa.int64()),
            self._confidence(batch),
            pa.repeat(pa.scalar(self._scene_id), len(batch)),
            batch.geometry,
        ]
        if len(self._schema) > len(columns):
            columns.append(_boxes(moments))
        return pa.record_batch(columns, schema=self._schema)

    def _confidence(self, batch: PolygonBatch) -> pa.Array:
        if not self._with_confidence:
            return pa.nulls(len(batch), pa.float64())
        return pa.array(batch.confidence_sum / batch.pixels, pa.float64())

    def _count(self, batch: PolygonBatch, area: npt.NDArray[np.float64]) -> None:
        ids = batch.class_id
        np.add.at(self._polygons, ids, 1)
        np.add.at(self._pixels, ids, batch.pixels)
        # NaN stays: a sum of the known ones would look like that of all.
        np.add.at(self._area_m2, ids, area)
        self._unmeasured += int(np.isnan(area).sum())


def _recut(records: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut and join records by their rows alone, whatever they were cut by.

    One ends with its row number `_ROWS`, or before, with the row whose geometry takes
    it to `_BYTES`.
    """
    begun: list[pa.RecordBatch] = []
    rows, room = _ROWS, _BYTES
    for record in records:
        sizes = geometry_bytes(record)
        start = 0
        while start < len(record):
            filled = np.cumsum(sizes[start : start + rows])
            taken = min(int(np.searchsorted(filled, room)) + 1, len(filled))
            begun.append(record.slice(start, taken))
            start += taken
            rows, room = rows - taken, room - int(filled[taken - 1])
            if rows == 0 or room <= 0:
                yield pa.concat_batches(begun)
                begun, rows, room = [], _ROWS, _BYTES
    if begun:
        yield pa.concat_batches(begun)


def geometry_bytes(record: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Return the bytes of each polygon's WKB, shape (rows,)."""
    sizes = pc.binary_length(record.column(GEOMETRY)).to_numpy(zero_copy_only=False)
    return np.asarray(sizes, np.int64)


def _boxes(moments: Moments) -> pa.StructArray:
    """Return the boxes around polygons as a column."""
    sides = [pa.array(np.ascontiguousarray(side)) for side in moments.bounds.T]
    return pa.StructArray.from_arrays(sides, fields=list(BOUNDS_TYPE))
