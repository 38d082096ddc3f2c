"""Polygons of a scene as a file that opens styled."""

from __future__ import annotations

import errno
import re
import sqlite3
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from pyogrio.errors import (
    DataLayerError,
    DataSourceError,
    FeatureError,
    FieldError,
    GeometryError,
)

from geoseg.errors import FileOutputError, GeosegWarning, OutputError
from geoseg.grid import Grid
from geoseg.io.atomic import atomic_path
from geoseg.io.channel import run_beside
from geoseg.io.geoparquet import write_geoparquet
from geoseg.io.ogr import LAYER, finish_geopackage, write_ogr
from geoseg.io.segment_table import ClassTotal, SegmentTable
from geoseg.io.style import qml
from geoseg.io.style_file import (
    is_users_style,
    marked,
    serves_raster,
    style_beside,
)
from geoseg.types import ClassInfo
from geoseg.vectorize import PolygonBatch

__all__ = [
    "LAYER",
    "SUFFIXES",
    "ClassTotal",
    "style_path",
    "write_segments",
]


class _Writer(Protocol):
    """Writes the rows of a new file."""

    def __call__(
        self,
        path: Path,
        records: Iterator[pa.RecordBatch],
        *,
        grid: Grid,
        provenance: Mapping[str, str],
    ) -> None: ...


_WRITERS: dict[str, _Writer] = {
    ".gpkg": write_ogr,
    ".fgb": write_ogr,
    ".parquet": write_geoparquet,
}

SUFFIXES = tuple(_WRITERS)
"""Endings of the files that can be written, which choose their format."""

FAILURES = (
    OSError,
    sqlite3.Error,
    pa.ArrowException,
    DataLayerError,
    DataSourceError,
    FeatureError,
    FieldError,
    GeometryError,
)
"""What the libraries raise when a disk is full or gone."""

_STATEMENT = re.compile(r"sqlite3_\w+\(.*\) failed(: no such table: \w+)?")
"""Where GDAL quotes SQL. A table is missing if there was no room for it, and GDAL went
on."""

_MOST_LETTERS = 200
"""Of what libraries say of a failure; GDAL may quote kilobytes."""

_WAITING = 2
"""Batches that may wait for the writer; the tracer's hold 4 MB of WKB."""


def write_segments(
    path: Path,
    batches: Iterable[PolygonBatch],
    *,
    grid: Grid,
    classes: Sequence[ClassInfo],
    scene_id: str,
    provenance: Mapping[str, str],
    with_confidence: bool = True,
    work: Path | None = None,
) -> dict[int, ClassTotal]:
    """Stream polygons into a file that appears when it is whole.

    Batches are made in this thread while those before are written in another one.
    A GeoPackage carries its style; beside the other formats it lies in a file that ends
    with .qml, and QGIS takes it from there; one that a user made is kept. Rows are in
    the order of the batches, but for FlatGeobuf, whose index puts neighbours together.

    Args:
        path: A GeoPackage (.gpkg), FlatGeobuf (.fgb) or GeoParquet (.parquet); an older
            file is replaced, and whoever reads it goes on reading that.
        batches: Polygons; each batch is read once and let go.
        grid: Grid that the polygons were traced on.
        classes: Classes with their names and colours.
        scene_id: Value of the column of that name.
        provenance: Written as metadata of the layer or, in GeoParquet, of the file.
        with_confidence: Whether the batches have confidence; without, its column is
            null.
        work: Folder of temporary files, of `work_folder`; None: that of `path`.

    Returns:
        Totals by class id, of every class, found or not.

    Raises:
        OutputError: The path has another ending.
        FileOutputError: The disk is full, or the file cannot be written.

    Warns:
        GeosegWarning: A user's style is kept, or areas of polygons are unknown.
    """
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        raise OutputError(
            f"{path} has no ending that names a format; use {', '.join(SUFFIXES)}"
        )
    table = SegmentTable(
        grid,
        classes,
        scene_id,
        with_confidence=with_confidence,
        with_bounds=suffix == ".parquet",
    )
    source, temporary = _Source(batches), path
    try:
        with (
            # Not in the writer's thread: filters are those of the process.
            warnings.catch_warnings(),
            _style_beside(path, classes, work),
            atomic_path(path, work) as temporary,
        ):
            # `open_scene` has said that there is no CRS.
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            file = partial(
                _WRITERS[suffix], temporary, grid=grid, provenance=provenance
            )
            # Rows are made on the writer's side: the tracer's does as little as it can
            # under Python's lock, which the writer holds most of the time.
            run_beside(source, partial(_write, table, file), capacity=_WAITING)
            if suffix == ".gpkg":
                finish_geopackage(temporary, table.rows, classes)
                remove_journals(path)
    except FAILURES as error:
        if error in (source.failure, table.failure):
            raise
        reason = failure_reason(error, temporary, path)
        raise FileOutputError(
            f"{path} cannot be written: {reason}; make room on its disk, or write "
            "elsewhere"
        ) from error
    _warn_unmeasured(path, table)
    return table.totals()


def remove_journals(path: Path) -> None:
    """Remove what an older GeoPackage left that somebody edits or died in.

    SQLite would replay it into the new one.
    """
    for rest in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + rest).unlink(missing_ok=True)


def _warn_unmeasured(path: Path, table: SegmentTable) -> None:
    """Say how many polygons have no area, if any should."""
    if table.unmeasured:
        warnings.warn(
            f"{path.name} has {table.unmeasured:,} of {table.rows:,} polygons whose "
            "area is unknown (NULL), as are the totals of their classes: they reach "
            "beyond what the CRS can express; warp the raster to another CRS, or crop "
            "it, to get them",
            GeosegWarning,
            stacklevel=3,
        )


def style_path(path: Path) -> Path | None:
    """Return where QGIS looks for the style of a file, None if that holds it itself."""
    return None if path.suffix.lower() == ".gpkg" else style_beside(path)


def failure_reason(error: Exception, temporary: Path, final: Path) -> str:
    """Return in a line or two what a library said, of the file that users know."""
    text = _STATEMENT.sub("SQLite failed", " ".join(str(error).split()))
    text = text.replace(str(temporary), final.name)
    # pyogrio may know its folder by another name, without spaces.
    text = re.sub(rf"(/\S*/)?{re.escape(temporary.name)}", lambda _: final.name, text)
    return textwrap.shorten(text, _MOST_LETTERS, placeholder=" ...")


@contextmanager
def _style_beside(
    path: Path, classes: Sequence[ClassInfo], work: Path | None
) -> Iterator[None]:
    """Put a style beside a file that cannot hold one, when the block has written it."""
    style = style_path(path)
    # What a raster opens with has all of its classes, and these may be fewer.
    if style is None or serves_raster(style):
        yield
        return
    if is_users_style(style):
        warnings.warn(
            f"{style} is not of geoseg and is kept, and {path.name} opens with it; "
            "remove it to get a style of the classes",
            GeosegWarning,
            stacklevel=4,
        )
        yield
        return
    with atomic_path(style, work) as temporary:
        # Written first: on a full disk it must fail before the other file has its name.
        temporary.write_text(marked(qml(classes)), encoding="utf-8")
        yield


class _Source:
    """Batches, and what they raised, which is no failure of the file."""

    def __init__(self, batches: Iterable[PolygonBatch]) -> None:
        self.failure: Exception | None = None
        self._batches = batches

    def __iter__(self) -> Iterator[PolygonBatch]:
        try:
            yield from self._batches
        except Exception as error:
            self.failure = error
            raise


def _write(
    table: SegmentTable,
    file: Callable[[Iterator[pa.RecordBatch]], None],
    batches: Iterator[PolygonBatch],
) -> None:
    """Write the rows of batches, all of them."""
    records = table.records(batches)
    try:
        file(records)
        if next(records, None) is not None:
            raise OSError(errno.EIO, "its library took a part of the rows only")
    except Exception as error:
        raise table.failure or error from error
