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
from geoseg.io.vrt import add_file, add_source
from geoseg.types import ClassInfo


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a raster in a file of its own; see `geoseg.io.scratch`."""

    path: Path
    """GeoTIFF of bytes."""
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
    bands: Sequence[str] = ("",),
) -> str:
    """Return the VRT of a raster of bytes.

    Args:
        parts: Its pixels; what no part holds is nodata.
        overviews: Smaller versions of the whole, largest first; may be none.
        grid: Where the pixels lie.
        classes: Gives colours and names to a class mask, None to other rasters.
        tags: Metadata.
        nodata: Value of pixels without data.
        bands: Description of each band; none is "".
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
    for number, description in enumerate(bands, start=1):
        band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band=str(number))
        if description:
            ET.SubElement(band, "Description").text = description
        ET.SubElement(band, "NoDataValue").text = str(nodata)
        if classes is not None:
            add_classes(band, classes)
        for part in parts:
            add_source(
                band,
                str(part.path.absolute()),
                part.window,
                block=(BLOCK_ROWS, BLOCK_COLS),
                source_band=str(number),
            )
        for part in overviews:
            overview = ET.SubElement(band, "Overview")
            name = str(part.path.absolute())
            add_file(overview, name, str(number), relative=False)
    return ET.tostring(root, encoding="unicode")


def add_classes(band: ET.Element, classes: Sequence[ClassInfo]) -> None:
    """Add colour table and names to a band; both are lists that start at value 0."""
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
