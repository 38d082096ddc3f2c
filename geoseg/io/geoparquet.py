"""Polygons as GeoParquet 1.1, which GDAL in Python's wheels cannot write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj

from geoseg.grid import Grid
from geoseg.io.segment_table import (
    BOUNDS,
    BOUNDS_TYPE,
    GEOMETRY,
    SCHEMA,
    geometry_bytes,
)

_GEOMETRY = "geometry"
"""What readers of GeoParquet expect the column to be called."""

_SCHEMA = SCHEMA.set(
    SCHEMA.get_field_index(GEOMETRY), pa.field(_GEOMETRY, pa.binary())
).append(pa.field(BOUNDS, BOUNDS_TYPE))

_GROUP_ROWS, _GROUP_BYTES = 1 << 16, 32 << 20
"""Rows, or bytes of their WKB, that make a row group; readers skip whole ones."""


def write_geoparquet(
    path: Path,
    records: Iterator[pa.RecordBatch],
    *,
    grid: Grid,
    provenance: Mapping[str, str],
) -> None:
    """Write a new file by row groups; memory is bounded by one of them.

    Args:
        path: A new file.
        records: Rows, of the table's schema with bounds.
        grid: Its CRS is that of the polygons.
        provenance: Key-value metadata of the file.
    """
    box = np.array([np.inf, np.inf, -np.inf, -np.inf])
    # Opened here: the writer would leave its file open when it fails in the end.
    with (
        pa.OSFile(str(path), "wb") as file,
        pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer,
    ):
        for group in _groups(records):
            table = pa.Table.from_batches(group).rename_columns(_SCHEMA.names)
            writer.write_table(table, row_group_size=len(table))
            box = _around(box, table[BOUNDS])
        writer.add_key_value_metadata(
            {**provenance, "geo": json.dumps(_geo(grid.crs, box))}
        )


def _groups(records: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Gather records until they make a row group."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for record in records:
        group.append(record)
        rows += len(record)
        # Not all of its bytes in memory: they depend on how it came about.
        size += int(geometry_bytes(record).sum())
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _around(
    box: npt.NDArray[np.float64], bounds: pa.ChunkedArray
) -> npt.NDArray[np.float64]:
    """Return the box around a box and more of them."""
    xmin, ymin, xmax, ymax = (side.to_numpy() for side in bounds.flatten())
    low = np.fmin(box[:2], [np.nanmin(xmin), np.nanmin(ymin)])
    high = np.fmax(box[2:], [np.nanmax(xmax), np.nanmax(ymax)])
    return np.concatenate([low, high])


def _geo(crs: str | None, box: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the metadata that make a Parquet file a GeoParquet one."""
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        # Null says that it is unknown; left out, it would be longitude and latitude.
        "crs": None if crs is None else pyproj.CRS.from_wkt(crs).to_json_dict(),
        "covering": {
            "bbox": {side.name: [BOUNDS, side.name] for side in BOUNDS_TYPE},
        },
    }
    if np.isfinite(box).all():  # There are polygons.
        column["bbox"] = box.tolist()
    return {
        "version": "1.1.0",
        "primary_column": _GEOMETRY,
        "columns": {_GEOMETRY: column},
    }
