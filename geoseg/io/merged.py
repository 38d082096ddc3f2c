"""Polygons of many scenes as one GeoPackage, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyogrio
import pyproj
import shapely
from pyproj.exceptions import ProjError
from shapely.errors import GEOSException

from geoseg.errors import FileOutputError, SceneError
from geoseg.grid import Grid
from geoseg.io.atomic import atomic_path
from geoseg.io.ogr import LAYER, finish_geopackage, write_ogr
from geoseg.io.segment_table import GEOMETRY, SCHEMA
from geoseg.io.vector import FAILURES, failure_reason, remove_journals
from geoseg.types import ClassInfo

_ROWS = 1 << 11
"""Polygons that are read at once; one may have megabytes."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Polygons of one scene."""

    scene_id: str
    """For messages."""
    path: Path
    """A GeoPackage of `write_segments`."""
    grid: Grid
    """What they were traced on."""


def write_merged(
    path: Path,
    scenes: Sequence[Segments],
    *,
    crs: str | None,
    classes: Sequence[ClassInfo],
    provenance: Mapping[str, str],
) -> int:
    """Write the polygons of all scenes as one layer, which appears when it is whole.

    Areas stay: they are of the ground, not of the plane.

    Args:
        path: The GeoPackage; an older one is replaced.
        scenes: Scenes in the order of their rows.
        crs: CRS of the layer; scenes of another one are projected, vertex by vertex,
            so that neighbours stay joined.
        classes: Classes of all scenes.
        provenance: Metadata of the layer.

    Returns:
        Number of polygons.

    Raises:
        SceneError: Polygons of a scene cannot be read or projected.
        FileOutputError: The disk is full, or the file cannot be written.
    """
    rows = _Rows(scenes, crs)
    temporary = path
    try:
        with atomic_path(path) as temporary:
            write_ogr(
                temporary,
                iter(rows),
                # Only its CRS is used.
                grid=replace(scenes[0].grid, crs=crs),
                provenance=provenance,
            )
            finish_geopackage(temporary, rows.count, classes)
            remove_journals(path)
    except Exception as error:
        if rows.failure is not None:
            raise rows.failure from error
        if not isinstance(error, FAILURES):
            raise
        raise FileOutputError(
            f"{path} cannot be written: {failure_reason(error, temporary, path)}; make "
            "room on its disk, or write elsewhere with -o"
        ) from error
    return rows.count


class _Rows:
    """Rows of all scenes, one scene after the other, and why there are no more."""

    def __init__(self, scenes: Sequence[Segments], crs: str | None) -> None:
        self.count = 0
        self.failure: SceneError | None = None
        """A C stream passes on no more than that there was one."""
        self._scenes, self._crs = scenes, crs

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for scene in self._scenes:
            try:
                for batch in _read(scene, self._crs):
                    self.count += len(batch)
                    yield batch
            except (*FAILURES, ValueError, KeyError, GEOSException, ProjError) as error:
                reason = " ".join(str(error).split())
                self.failure = SceneError(
                    f"polygons of {scene.scene_id} cannot be merged: {reason}; remove "
                    f"{scene.path}, and `geoseg segment` makes the scene again"
                )
                raise self.failure from error


def _read(scene: Segments, crs: str | None) -> Iterator[pa.RecordBatch]:
    turn = _turner(scene.grid.crs, crs)
    names = [name for name in SCHEMA.names if name != GEOMETRY]
    with pyogrio.open_arrow(
        scene.path, layer=LAYER, columns=names, batch_size=_ROWS, use_pyarrow=True
    ) as (meta, reader):
        geometry = meta["geometry_name"] or "wkb_geometry"
        for batch in reader:
            columns = [
                batch.column(name).cast(SCHEMA.field(name).type) for name in names
            ]
            wkb = batch.column(geometry).cast(pa.binary())
            columns.append(wkb if turn is None else turn(wkb))
            yield pa.record_batch(columns, schema=SCHEMA)


class _Turn:
    """Projects polygons."""

    def __init__(self, source: str, target: str) -> None:
        self._transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)

    def __call__(self, wkb: pa.Array) -> pa.Array:
        shapes = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
        turned = shapely.transform(shapes, self._project)
        if not np.isfinite(shapely.bounds(turned)).all():
            raise ValueError("they reach beyond what --crs can express")
        return pa.array(shapely.to_wkb(turned), pa.binary())

    def _project(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack(self._transformer.transform(*points.T))


def _turner(source: str | None, target: str | None) -> _Turn | None:
    if source is None or target is None or same_crs(source, target):
        return None
    return _Turn(source, target)


def same_crs(one: str | None, other: str | None) -> bool:
    """Tell whether two CRS are the same, whatever their WKT looks like."""
    if one == other or one is None or other is None:
        return one == other
    return bool(_parsed(one).equals(_parsed(other), ignore_axis_order=True))


@lru_cache(maxsize=64)
def _parsed(wkt: str) -> pyproj.CRS:
    """Parse a CRS: scenes are compared with the same few again and again."""
    return pyproj.CRS.from_wkt(wkt)
