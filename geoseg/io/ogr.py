"""Polygons into the formats that GDAL writes, and the style table of a GeoPackage."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyogrio
import pyogrio._err
from pyogrio.util import vsi_path

from geoseg.grid import Grid
from geoseg.io.segment_table import GEOMETRY, SCHEMA
from geoseg.io.style import qml, sld
from geoseg.types import ClassInfo

LAYER = "segments"
"""Name of the layer; never made from data."""

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

_MOMENT = "1970-01-01T00:00:00.000Z"
"""Instead of the time of writing: equal inputs give equal bytes."""

_TIMES = (
    ("gpkg_contents", "last_change"),
    ("gpkg_metadata_reference", "timestamp"),
    ("layer_styles", "update_time"),
)
"""Tables and columns that GDAL, or their defaults, fill from the clock."""

_COUNTS = f"""
SELECT count(*) FROM rtree_{LAYER}_{GEOMETRY}_rowid
UNION ALL SELECT feature_count FROM gpkg_ogr_contents WHERE table_name = '{LAYER}'
"""

_FORMATS = {
    # 1.2: QGIS with GDAL before 3.7 warns of newer ones.
    ".gpkg": {"driver": "GPKG", "VERSION": "1.2"},
    # The index is made in the end, from a temporary file beside it of the same size.
    ".fgb": {"driver": "FlatGeobuf"},
}

_PRAGMA, _PAGES = "OGR_SQLITE_PRAGMA", "page_size=16384"
"""Pages of 16 kB instead of 4 make a GeoPackage a tenth cheaper to write."""

_users = 0
_users_lock = threading.Lock()


@contextmanager
def _large_pages() -> Iterator[None]:
    """Let databases that are made meanwhile have larger pages.

    GDAL has this as an option of the process only. It is left alone if a user set it.
    """
    global _users
    with _users_lock:
        mine = _users > 0 or pyogrio.get_gdal_config_option(_PRAGMA) is None
        if mine:
            _users += 1
            pyogrio.set_gdal_config_options({_PRAGMA: _PAGES})
    try:
        yield
    finally:
        with _users_lock:
            if mine:
                _users -= 1
            if mine and not _users:
                pyogrio.set_gdal_config_options({_PRAGMA: None})


def _collect_messages() -> None:
    """Let pyogrio put GDAL's messages in its errors in this thread, too.

    It does so in the thread that imported it. Elsewhere they are printed as well.
    """
    register = getattr(pyogrio._err, "_register_error_handler", None)
    if register is not None:
        register()


@contextmanager
def _plain_path(path: Path) -> Iterator[Path]:
    """Give a path to the same file that pyogrio passes to GDAL as it is.

    Of any other it takes what precedes `!` for an archive, and cuts off what follows
    `;`. It may be the folder that is named so; `atomic_path` names no file so.
    """
    if vsi_path(path) == str(path):
        yield path
        return
    with TemporaryDirectory(prefix="geoseg-") as folder:
        link = Path(folder, "folder")
        link.symlink_to(path.parent.absolute())
        yield link / path.name


def write_ogr(
    path: Path,
    records: Iterator[pa.RecordBatch],
    *,
    grid: Grid,
    provenance: Mapping[str, str],
) -> None:
    """Write the layer, with a spatial index and metadata.

    Args:
        path: A new GeoPackage (.gpkg) or FlatGeobuf (.fgb).
        records: Rows, of `SCHEMA`.
        grid: Its CRS is the layer's.
        provenance: Metadata of the layer.
    """
    reader = pa.RecordBatchReader.from_batches(SCHEMA, records)
    _collect_messages()
    with _large_pages(), _plain_path(path) as plain:
        pyogrio.write_arrow(
            reader,
            plain,
            layer=LAYER,
            geometry_name=GEOMETRY,
            geometry_type="Polygon",
            crs=grid.crs,
            layer_metadata=dict(provenance),
            SPATIAL_INDEX="YES",
            **_FORMATS[path.suffix.lower()],
        )


def finish_geopackage(path: Path, rows: int, classes: Sequence[ClassInfo]) -> None:
    """Check what GDAL does when it closes the file; add the default style, no clock.

    Args:
        path: A GeoPackage of `write_ogr`.
        rows: Rows that went there.
        classes: Classes with their names and colours.

    Raises:
        OSError: Something is missing.
    """
    row = (
        LAYER,
        GEOMETRY,
        "geoseg classes",
        qml(classes),
        sld(classes, LAYER),
        "Classes as their model colours them",
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        # Nobody sees the file before it is whole and synced: see `atomic_path`.
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        _check_index(connection, rows)
        _add_styles(connection, [row])
        _set_times(connection)


def style_geopackage(path: Path, styles: Mapping[str, str]) -> None:
    """Give the layers of a GeoPackage that is not published yet their default styles.

    Args:
        path: A GeoPackage whose geometry columns are called as those of segments are.
        styles: QML by the name of the layer.
    """
    rows = [(layer, GEOMETRY, "geoseg", qml, "", "") for layer, qml in styles.items()]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        _add_styles(connection, rows)
        _set_times(connection)


def _add_styles(
    connection: sqlite3.Connection, rows: Sequence[tuple[str, ...]]
) -> None:
    connection.execute(_STYLE_TABLE)
    connection.executemany(_STYLE_ROW, rows)
    connection.execute(_STYLE_CONTENTS)


def _set_times(connection: sqlite3.Connection) -> None:
    """Replace the clock's times in all tables that are there."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    there = {name for (name,) in tables.fetchall()}
    for table, column in _TIMES:
        if table in there:  # Without provenance there is no metadata.
            connection.execute(f"UPDATE {table} SET {column} = ?", (_MOMENT,))


def _check_index(connection: sqlite3.Connection, rows: int) -> None:
    """Raise an OSError unless the index is there and holds all rows.

    On a full disk GDAL closes the file without index or counts, and says nothing.
    """
    try:
        counts = [count for (count,) in connection.execute(_COUNTS)]
    except sqlite3.OperationalError:
        counts = []
    if counts != [rows, rows]:
        raise OSError(errno.ENOSPC, "GDAL could not finish the spatial index")
