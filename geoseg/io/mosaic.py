"""A raster described as a GDAL VRT: parts in their places, and what is known of them.

Through a VRT, because rasterio cannot set category names on a dataset.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geoseg.grid import Grid, Window
from geoseg.io.scratch import BLOCK_COLS, BLOCK_ROWS
from geoseg.types import ClassInfo


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a raster in a file of its own; see `geoseg.io.scratch`."""

    path: Path
    """GeoTIFF of one byte band."""
    window: Window
    """Where it lies, pixels of the raster."""


def describe(
    parts: Sequence[Part],
    overviews: Sequence[Part],
    *,
    grid: Grid,
    classes: Sequence[ClassInfo] | None,
    tags: Mapping[str, str],
    nodata: int,
) -> str:
    """Return the VRT of a raster of one byte band.

    Args:
        parts: Its pixels; what no part holds is nodata.
        overviews: Smaller versions of the whole, largest first; may be none.
        grid: Where the pixels lie.
        classes: Gives colours and names to a class mask, None to other rasters.
        tags: Metadata.
        nodata: Value of pixels without data.
    """
    height, width = grid.shape
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    if grid.crs is not None:
        ET.SubElement(root, "SRS").text = grid.crs
    coefficients = map(repr, map(float, grid.transform.to_gdal()))
    ET.SubElement(root, "GeoTransform").text = ", ".join(coefficients)
    metadata = ET.SubElement(root, "Metadata")
    for key, value in tags.items():
        ET.SubElement(metadata, "MDI", key=key).text = value
    band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    ET.SubElement(band, "NoDataValue").text = str(nodata)
    if classes is not None:
        _add_classes(band, classes)
    for part in parts:
        _add_part(band, part)
    for part in overviews:
        _add_file(ET.SubElement(band, "Overview"), part)
    return ET.tostring(root, encoding="unicode")


def _add_part(band: ET.Element, part: Part) -> None:
    """Add the pixels of one file."""
    source = ET.SubElement(band, "SimpleSource")
    _add_file(source, part)
    window = part.window
    # GDAL would otherwise open all files at once to learn this.
    ET.SubElement(
        source,
        "SourceProperties",
        RasterXSize=str(window.width),
        RasterYSize=str(window.height),
        DataType="Byte",
        BlockXSize=str(BLOCK_COLS),
        BlockYSize=str(BLOCK_ROWS),
    )
    _add_rectangle(source, "SrcRect", Window(0, 0, window.height, window.width))
    _add_rectangle(source, "DstRect", window)


def _add_rectangle(source: ET.Element, name: str, window: Window) -> None:
    """Say which pixels are read, or where they go."""
    ET.SubElement(
        source,
        name,
        xOff=str(window.col),
        yOff=str(window.row),
        xSize=str(window.width),
        ySize=str(window.height),
    )


def _add_file(element: ET.Element, part: Part) -> None:
    """Name the file that holds the pixels."""
    name = ET.SubElement(element, "SourceFilename", relativeToVRT="0")
    name.text = str(part.path.absolute())
    ET.SubElement(element, "SourceBand").text = "1"


def _add_classes(band: ET.Element, classes: Sequence[ClassInfo]) -> None:
    """Add colour table and names; both are lists that start at value 0."""
    by_id = {info.id: info for info in classes}
    ET.SubElement(band, "ColorInterp").text = "Palette"
    table = ET.SubElement(band, "ColorTable")
    names = ET.SubElement(band, "CategoryNames")
    for value in range(max(by_id) + 1):
        info = by_id.get(value)
        red, green, blue = (0, 0, 0) if info is None else info.color
        alpha = 0 if info is None else 255
        ET.SubElement(
            table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4=str(alpha)
        )
        ET.SubElement(names, "Category").text = "" if info is None else info.name
