"""Polygons of a scene as a GeoPackage that opens styled."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyogrio

from geoseg.grid import Grid
from geoseg.io.area import GroundArea
from geoseg.io.atomic import atomic_path
from geoseg.io.style import qml, sld
from geoseg.types import ClassInfo
from geoseg.vectorize import PolygonBatch

LAYER = "segments"
"""Name of the layer; never made from data."""

_GEOMETRY = "geom"

_SCHEMA = pa.schema(
    [
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("area_m2", pa.float64()),
        ("pixels", pa.int64()),
        ("confidence_mean", pa.float64()),
        ("scene_id", pa.string()),
        (_GEOMETRY, pa.binary()),
    ]
)

_ROWS = 1 << 13
"""Polygons that are geometries at once; bounds memory."""

# The table that QGIS makes when a user saves a style in a GeoPackage.
_STYLE_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256),
    f_table_schema TEXT(256),
    f_table_name TEXT(256),
    f_geometry_column TEXT(256),
    styleName TEXT(30),
    styleQML TEXT,
    styleSLD TEXT,
    useAsDefault BOOLEAN,
    description TEXT,
    owner TEXT(30),
    ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""

_STYLE_ROW = """
INSERT INTO layer_styles (
    f_table_catalog, f_table_schema, f_table_name, f_geometry_column,
    styleName, styleQML, styleSLD, useAsDefault, description, owner
) VALUES ('', '', ?, ?, ?, ?, ?, 1, ?, '')
"""

_STYLE_CONTENTS = """
INSERT INTO gpkg_contents (table_name, data_type, identifier, description)
VALUES ('layer_styles', 'attributes', 'layer_styles', '')
"""


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """What a scene holds of one class."""

    polygons: int
    """Number of polygons."""
    pixels: int
    """Number of pixels."""
    area_m2: float | None
    """Ground area, square metres; None where the grid is not tied to the ground."""


def write_segments(
    path: Path,
    batches: Iterable[PolygonBatch],
    *,
    grid: Grid,
    classes: Sequence[ClassInfo],
    scene_id: str,
    provenance: Mapping[str, str],
) -> dict[int, ClassTotal]:
    """Stream polygons into a GeoPackage that appears when it is whole.

    Args:
        path: The GeoPackage; an older one is replaced.
        batches: Polygons; each batch is read once and let go.
        grid: Grid that the polygons were traced on.
        classes: Classes with their names and colours.
        scene_id: Value of the column of that name.
        provenance: Written as metadata of the layer.

    Returns:
        Totals by class id, of every class, found or not.
    """
    table = _Table(grid, classes, scene_id)
    with atomic_path(path) as temporary:
        try:
            _write_layer(temporary, table.stream(batches), grid, provenance)
        except Exception as error:
            raise table.failure or error from error
        _add_style(temporary, classes)
    return table.totals()


class _Table:
    """Turns batches into Arrow record batches and counts what went by."""

    def __init__(self, grid: Grid, classes: Sequence[ClassInfo], scene_id: str) -> None:
        self.failure: Exception | None = None
        """What `batches` raised: a C stream would pass on no more than that it did."""
        self._scene_id = scene_id
        self._ids = [info.id for info in classes]
        self._area = GroundArea(grid)
        self._names = np.full(256, None, object)
        self._names[self._ids] = [info.name for info in classes]
        self._polygons = np.zeros(256, np.int64)
        self._pixels = np.zeros(256, np.int64)
        self._area_m2 = np.zeros(256, np.float64)

    def stream(self, batches: Iterable[PolygonBatch]) -> pa.RecordBatchReader:
        """Return a reader that takes a batch when it is asked for more."""
        return pa.RecordBatchReader.from_batches(_SCHEMA, self._records(batches))

    def totals(self) -> dict[int, ClassTotal]:
        """Return the totals of all batches."""
        return {
            class_id: ClassTotal(
                polygons=int(self._polygons[class_id]),
                pixels=int(self._pixels[class_id]),
                area_m2=float(self._area_m2[class_id]) if self._area.known else None,
            )
            for class_id in self._ids
        }

    def _records(self, batches: Iterable[PolygonBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                for start in range(0, len(batch), _ROWS):
                    yield self._record(batch.slice(start, start + _ROWS))
        except Exception as error:
            self.failure = error
            raise

    def _record(self, batch: PolygonBatch) -> pa.RecordBatch:
        geometries = batch.geometries()
        area = self._area.measure(geometries)
        self._count(batch, area)
        confidence = batch.confidence_sum / batch.pixels
        columns = [
            pa.array(batch.class_id, pa.int32()),
            pa.array(self._names[batch.class_id], pa.string()),
            pa.array(area, pa.float64(), mask=np.isnan(area)),
            pa.array(batch.pixels, pa.int64()),
            pa.array(confidence, pa.float64()),
            pa.repeat(pa.scalar(self._scene_id), len(batch)),
            batch.geometry,
        ]
        return pa.record_batch(columns, schema=_SCHEMA)

    def _count(self, batch: PolygonBatch, area: npt.NDArray[np.float64]) -> None:
        ids = batch.class_id
        np.add.at(self._polygons, ids, 1)
        np.add.at(self._pixels, ids, batch.pixels)
        np.add.at(self._area_m2, ids, np.nan_to_num(area))


def _write_layer(
    path: Path,
    reader: pa.RecordBatchReader,
    grid: Grid,
    provenance: Mapping[str, str],
) -> None:
    """Write the layer, with R-tree and metadata."""
    with warnings.catch_warnings():
        # `open_scene` has said that there is no CRS.
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        pyogrio.write_arrow(
            reader,
            path,
            layer=LAYER,
            driver="GPKG",
            geometry_name=_GEOMETRY,
            geometry_type="Polygon",
            crs=grid.crs,
            layer_metadata=dict(provenance),
            SPATIAL_INDEX="YES",
            VERSION="1.2",  # QGIS with GDAL before 3.7 warns of newer ones.
        )


def _add_style(path: Path, classes: Sequence[ClassInfo]) -> None:
    """Add the table in which QGIS looks for a layer's default style."""
    row = (
        LAYER,
        _GEOMETRY,
        "geoseg classes",
        qml(classes),
        sld(classes, LAYER),
        "Classes as their model colours them",
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(_STYLE_TABLE)
        connection.execute(_STYLE_ROW, row)
        connection.execute(_STYLE_CONTENTS)
