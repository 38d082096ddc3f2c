"""STAC items: what a scene's outputs are and where on Earth they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pystac
import shapely
from affine import Affine
from pystac.utils import str_to_datetime
from shapely.geometry.base import BaseGeometry

from geoseg import __version__
from geoseg.errors import OutputError
from geoseg.grid import Grid
from geoseg.io.atomic import atomic_path
from geoseg.io.projection import affine_points
from geoseg.io.style import hex_color
from geoseg.layout import COLLECTION, MODEL
from geoseg.types import ClassInfo, StacSource

_EXTENSIONS = [
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
]

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_MEDIA_TYPES = {
    ".tif": _COG,
    ".gpkg": "application/geopackage+sqlite3",
    ".json": "application/json",
    ".png": "image/png",
}

ANY_TIME = ("1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
"""Stands for a time that is not known, for which STAC has no word; models are said to
be of it in the MLM extension."""

SOURCE = "source"
"""Name and role of the asset that was segmented; not an output."""

_EDGE_PARTS = 16
"""Straight parts that stand for each edge of a footprint."""


def write_item(
    path: Path,
    *,
    scene_id: str,
    grid: Grid,
    classes: Sequence[ClassInfo],
    assets: Mapping[str, str],
    properties: Mapping[str, Any],
    source: str | None = None,
    source_item: StacSource | None = None,
    collection: str | None = None,
) -> None:
    """Write the STAC item of a scene; it appears when it is whole.

    Nothing in it is taken from the clock: equal results give equal bytes.

    Args:
        path: The item; an older one is replaced.
        scene_id: Id of the item; its slashes tell how far above the run's files are.
        grid: Grid of the outputs.
        classes: Classes of the asset "classes".
        assets: Name -> file beside the item, for example classes -> classes.tif.
        properties: Added to the item's own. "datetime" is when the image was taken,
            ISO 8601, or "start_datetime" and "end_datetime" are; without them, it was
            taken at some time of `ANY_TIME`.
        source: Path or URL of what was read, an asset of its own.
        source_item: The item that it was given as; the new one is derived from it.
        collection: Id of the collection of the run; None links to none.
    """
    item = build_item(
        scene_id=scene_id,
        grid=grid,
        classes=classes,
        assets=assets,
        properties=properties,
        source=source,
        source_item=source_item,
        collection=collection,
    )
    write_stac(path, item.to_dict(include_self_link=False, transform_hrefs=False))


def write_stac(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object of STAC; it appears when it is whole."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"))


def build_item(
    *,
    scene_id: str,
    grid: Grid,
    classes: Sequence[ClassInfo],
    assets: Mapping[str, str],
    properties: Mapping[str, Any],
    source: str | None = None,
    source_item: StacSource | None = None,
    collection: str | None = None,
) -> pystac.Item:
    """Return the item that `write_item` writes."""
    area = footprint(grid)
    own = {"processing:software": {"geoseg": __version__}, **_projection(grid)}
    given = dict(properties)
    moment = given.pop("datetime", None)
    start, end = ANY_TIME
    between = {"start_datetime": start, "end_datetime": end} if moment is None else {}
    item = pystac.Item(
        id=scene_id,
        geometry=None if area is None else shapely.geometry.mapping(area),
        bbox=None if area is None else _bbox(area),
        datetime=None if moment is None else str_to_datetime(moment),
        properties={**between, **own, **given},
        stac_extensions=list(_EXTENSIONS),
    )
    for name, file in assets.items():
        item.add_asset(name, _asset(name, file, classes))
    if source is not None:
        is_tiff = source.lower().endswith((".tif", ".tiff"))
        media_type = pystac.MediaType.GEOTIFF if is_tiff else None
        title = "What was segmented"
        asset = pystac.Asset(source, title, media_type=media_type, roles=[SOURCE])
        item.add_asset(SOURCE, asset)
    if source_item is not None:
        item.properties |= _identity(source_item)
        kind, title = pystac.MediaType.GEOJSON, "The source's item"
        item.add_link(pystac.Link("derived_from", source_item.href, kind, title))
    if collection is not None:
        item.collection_id = collection
        item.add_links(_run_links("../" * (scene_id.count("/") + 1)))
    return item


def _identity(source: StacSource) -> dict[str, str]:
    """Return the properties that say which item a scene was given as."""
    known = {"geoseg:source_id": source.id}
    if source.collection is not None:
        known["geoseg:source_collection"] = source.collection
    return known


def _run_links(up: str) -> list[pystac.Link]:
    """Return the links of an item to the files of its run, `up` from it."""
    links = [
        pystac.Link(rel, f"{up}{COLLECTION}", pystac.MediaType.JSON)
        for rel in ("root", "parent", "collection")
    ]
    model = pystac.Link(
        "derived_from", f"{up}{MODEL}", pystac.MediaType.GEOJSON, "The model"
    )
    return [*links, model]


def read_item(path: Path) -> dict[str, Any]:
    """Read an item back.

    Raises:
        OutputError: The file is not a STAC item.
    """
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path} cannot be read as a STAC item ({error}); remove it, and its scene "
            "is made again"
        ) from error
    if not isinstance(item, dict) or not isinstance(item.get("properties"), dict):
        raise OutputError(
            f"{path} is not a STAC item; remove it, and its scene is made again"
        )
    return item


def footprint(grid: Grid) -> BaseGeometry | None:
    """Return the outline of a grid in longitude and latitude, WGS 84.

    An outline over the date line is two polygons, one on each side, as GeoJSON asks.

    Returns:
        None without a CRS, or where the grid reaches outside what its CRS can express.
    """
    if grid.crs is None or grid.ground_resolution() is None:
        return None
    along = np.linspace(0, 1, _EDGE_PARTS, endpoint=False)
    still = np.zeros(_EDGE_PARTS)
    cols = np.concatenate([along, still + 1, 1 - along, still]) * grid.width
    rows = np.concatenate([still, along, still + 1, 1 - along]) * grid.height
    rim = affine_points(grid.transform)(np.column_stack([cols, rows]))
    transformer = pyproj.Transformer.from_crs(grid.crs, "OGC:CRS84", always_xy=True)
    lon, lat = transformer.transform(*rim.T)
    if not np.isfinite([lon, lat]).all():
        return None
    lon = np.unwrap([*lon, lon[0]], period=360)
    if abs(lon[-1] - lon[0]) > 180:  # The outline runs round a pole.
        pole = np.copysign(90, lat.mean())
        low, high = sorted((float(pole), float(min(lat, key=abs))))
        return shapely.box(-180, low, 180, high)
    lon = lon[:-1] - 360 * np.floor((lon[:-1].mean() + 180) / 360)
    ring = shapely.make_valid(shapely.Polygon(np.column_stack([lon, lat])))
    return _split_at_date_line(ring)


def _split_at_date_line(ring: BaseGeometry) -> BaseGeometry:
    """Bring longitudes beyond 180 degrees back, as polygons of their own."""
    left, _, right, _ = ring.bounds
    if left >= -180 and right <= 180:
        return ring
    parts = []
    for turn in (-360, 0, 360):
        world = shapely.box(turn - 180, -90, turn + 180, 90)
        part = shapely.intersection(ring, world)
        if shapely.area(part) > 0:
            back = affine_points(Affine.translation(-turn, 0))
            parts.append(shapely.transform(part, back))
    return shapely.union_all(parts)


def _bbox(area: BaseGeometry) -> list[float]:
    """Return west, south, east, north; west > east over the date line."""
    west, south, east, north = area.bounds
    parts = shapely.get_parts(area)
    if len(parts) > 1 and east - west > 180:
        west = min(part.bounds[0] for part in parts if part.bounds[0] > 0)
        east = max(part.bounds[2] for part in parts if part.bounds[2] < 0)
    return [float(west), float(south), float(east), float(north)]


def _projection(grid: Grid) -> dict[str, Any]:
    """Return the fields of the projection extension."""
    transform = [float(value) for value in tuple(grid.transform)[:6]]
    fields: dict[str, Any] = {
        "proj:code": None,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": transform,
    }
    if grid.crs is not None:
        authority = pyproj.CRS.from_wkt(grid.crs).to_authority(min_confidence=70)
        fields["proj:code"] = ":".join(authority) if authority else None
        fields["proj:wkt2"] = grid.crs
    return fields


def _asset(name: str, file: str, classes: Sequence[ClassInfo]) -> pystac.Asset:
    """Describe one file beside the item."""
    fields = {}
    if name == "classes":
        fields["classification:classes"] = class_fields(classes)
    return pystac.Asset(
        f"./{file}",
        title=name,
        media_type=_MEDIA_TYPES.get(Path(file).suffix),
        roles=["data"],
        extra_fields=fields,
    )


def class_fields(classes: Sequence[ClassInfo]) -> list[dict[str, Any]]:
    """Describe classes as the classification extension does."""
    return [_class(info) for info in classes]


def _class(info: ClassInfo) -> dict[str, Any]:
    """Describe one class; STAC allows only plain characters in its name."""
    return {
        "value": info.id,
        "name": re.sub(r"[^0-9A-Za-z_-]+", "-", info.name),
        "title": info.name,
        "color_hint": hex_color(info.color).upper(),
    }
