"""Rasters of many scenes as one GDAL VRT; no pixel is copied."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affine import Affine

from geoseg.errors import FileOutputError
from geoseg.grid import Grid, Window
from geoseg.io.atomic import atomic_path
from geoseg.io.cog import BLOCK_SIZE
from geoseg.io.mosaic import add_classes
from geoseg.io.vrt import add_source
from geoseg.types import NODATA, ClassInfo


@dataclass(frozen=True, slots=True)
class Placed:
    """A raster of a scene and where it lies."""

    path: Path
    """A COG of `write_cog`."""
    grid: Grid
    """Where its pixels lie."""


def same_lattice(one: Grid, other: Grid) -> bool:
    """Tell whether pixels are parallel and of one size; they may lie between others.

    Sizes may differ by what is less than half a pixel over a whole raster.
    """
    first, second = one.transform, other.transform
    size = max(abs(first.a), abs(first.b), abs(first.d), abs(first.e))
    pairs = zip(tuple(first)[:6], tuple(second)[:6], strict=True)
    sides = [pair for number, pair in enumerate(pairs) if number not in (2, 5)]
    most = 0.5 * size / max(*one.shape, *other.shape)
    return all(abs(a - b) <= most for a, b in sides)


def is_upright(grid: Grid) -> bool:
    """Tell whether rows go east and columns go south or north."""
    return bool(grid.transform.b == 0 and grid.transform.d == 0)


def write_virtual(
    path: Path,
    rasters: Sequence[Placed],
    *,
    classes: Sequence[ClassInfo] | None,
    tags: Mapping[str, str],
) -> None:
    """Write a VRT of rasters of bytes; it appears when it is whole.

    Where rasters overlap the last one that has data is seen. A pixel of a raster that
    lies between those of the first one is moved by half a pixel at most.

    Args:
        path: The VRT; names in it are relative to its folder.
        rasters: Upright, of one CRS and of one size of pixels.
        classes: Gives colours and names to class masks, None to other rasters.
        tags: Metadata.

    Raises:
        FileOutputError: It cannot be written.
    """
    root = _described(path, rasters, classes, tags)
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(ET.tostring(root, encoding="utf-8"))
    except OSError as error:
        raise FileOutputError(
            f"{path} cannot be written: {error.strerror}; make room on its disk, or "
            "write elsewhere with -o"
        ) from error


def _described(
    path: Path,
    rasters: Sequence[Placed],
    classes: Sequence[ClassInfo] | None,
    tags: Mapping[str, str],
) -> ET.Element:
    whole = _union([raster.grid for raster in rasters])
    root = ET.Element(
        "VRTDataset", rasterXSize=str(whole.width), rasterYSize=str(whole.height)
    )
    if whole.crs is not None:
        ET.SubElement(root, "SRS").text = whole.crs
    coefficients = map(repr, map(float, whole.transform.to_gdal()))
    ET.SubElement(root, "GeoTransform").text = ", ".join(coefficients)
    metadata = ET.SubElement(root, "Metadata")
    for key, value in tags.items():
        ET.SubElement(metadata, "MDI", key=key).text = value
    band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    ET.SubElement(band, "NoDataValue").text = str(NODATA)
    if classes is not None:
        add_classes(band, classes)
    else:
        ET.SubElement(band, "ColorInterp").text = "Gray"
    for raster in rasters:
        _add_raster(band, raster, whole, path.parent)
    return root


def _union(grids: Sequence[Grid]) -> Grid:
    """Return the grid that holds all others, on the pixels of the first one."""
    first = grids[0].transform
    places = [_place(grid, first) for grid in grids]
    left, top = min(col for col, _ in places), min(row for _, row in places)
    pairs = list(zip(places, grids, strict=True))
    right = max(col + grid.width for (col, _), grid in pairs)
    bottom = max(row + grid.height for (_, row), grid in pairs)
    transform = first @ Affine.translation(left, top)
    return Grid(bottom - top, right - left, transform, grids[0].crs)


def _place(grid: Grid, transform: Affine) -> tuple[int, int]:
    """Return the column and row that a grid begins at, the nearest ones."""
    place = ~transform @ grid.transform
    return round(place.c), round(place.f)


def _add_raster(band: ET.Element, raster: Placed, whole: Grid, folder: Path) -> None:
    grid = raster.grid
    col, row = _place(grid, whole.transform)
    source = add_source(
        band,
        os.path.relpath(raster.path.resolve(), folder.resolve()),
        Window(row, col, *grid.shape),
        block=(BLOCK_SIZE, BLOCK_SIZE),
        relative=True,
        # Not simple: its nodata must not hide what another raster has there.
        kind="ComplexSource",
    )
    ET.SubElement(source, "NODATA").text = str(NODATA)
