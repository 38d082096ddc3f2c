"""Names and colours that a raster file has for its values."""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path

import rasterio.shutil
from rasterio.io import DatasetReader

from geoseg.io.gdal import gdal_env
from geoseg.types import writable

Color = tuple[int, int, int]

_VALUE, _NAME, _RED, _GREEN, _BLUE = range(5)

_USAGES = {"5": _VALUE, "2": _NAME, "6": _RED, "7": _GREEN, "8": _BLUE}
"""GDAL's numbers for what columns of an attribute table are for."""

_COLUMNS = {
    "value": _VALUE,
    **dict.fromkeys(("class_name", "classname", "class", "name", "label"), _NAME),
    **{"red": _RED, "green": _GREEN, "blue": _BLUE},
}
"""The same by their usual titles, where GDAL does not say."""


@dataclass(frozen=True, slots=True)
class Legend:
    """What a file says of its values; may be nothing, or of some of them."""

    names: dict[int, str] = field(default_factory=dict)
    """Name by value."""
    colors: dict[int, Color] = field(default_factory=dict)
    """Red, green, blue, each 0-255, by value."""


def read_legend(dataset: DatasetReader, band: int) -> Legend:
    """Read category names, attribute table and colour table of a band.

    Args:
        dataset: An open raster.
        band: Band of the classes, 1-based.
    """
    element = _described(dataset, band)
    names: dict[int, str] = {}
    colors = _color_table(element)
    table = element.find("GDALRasterAttributeTable")
    if table is not None:
        _read_attributes(table, names, colors)
    for value, category in enumerate(element.iterfind("CategoryNames/Category")):
        if category.text and category.text.strip():
            names[value] = category.text.strip()
    return Legend(names, colors)


def _described(dataset: DatasetReader, band: int) -> ET.Element:
    """Return GDAL's own description of a band; rasterio gives no category names."""
    with tempfile.TemporaryDirectory() as folder, gdal_env():
        path = Path(folder) / "raster.vrt"
        rasterio.shutil.copy(dataset, path, driver="VRT")
        # GDAL hands on names in Latin-1 or worse, with which this is no XML.
        text = path.read_text(encoding="utf-8", errors="replace")
        root = ET.fromstring(writable(text))
    for element in root.iterfind("VRTRasterBand"):
        if element.get("band") == str(band):
            return element
    return ET.Element("VRTRasterBand")


def _color_table(band: ET.Element) -> dict[int, Color]:
    colors = {}
    for value, entry in enumerate(band.iterfind("ColorTable/Entry")):
        red, green, blue, alpha = (int(entry.get(f"c{i}", "255")) for i in range(1, 5))
        if alpha:
            colors[value] = (red, green, blue)
    return colors


def _columns(table: ET.Element) -> dict[int, int]:
    """Return the place of the column for each usage that there is one for."""
    columns = list(table.iterfind("FieldDefn"))
    declared = [_USAGES.get(column.findtext("Usage", "")) for column in columns]
    titled = [_COLUMNS.get(column.findtext("Name", "").lower()) for column in columns]
    # A title only guesses, whatever the order: `Class` may hold numbers.
    titled = [
        guess if usage is None else None
        for guess, usage in zip(titled, declared, strict=True)
    ]
    places: dict[int, int] = {}
    for usages in (declared, titled):
        for place, usage in enumerate(usages):
            if usage is not None:
                places.setdefault(usage, place)
    return places


def _read_attributes(
    table: ET.Element, names: dict[int, str], colors: dict[int, Color]
) -> None:
    """Add what an attribute table says; rows that say nothing readable are skipped."""
    places = _columns(table)
    if _VALUE not in places:
        return
    for row in table.iterfind("Row"):
        cells = [cell.text or "" for cell in row.iterfind("F")]
        try:
            value = int(float(cells[places[_VALUE]]))
            if _NAME in places and cells[places[_NAME]].strip():
                names[value] = cells[places[_NAME]].strip()
            if {_RED, _GREEN, _BLUE} <= set(places):
                rgb = [int(cells[places[i]]) for i in (_RED, _GREEN, _BLUE)]
                if 0 <= min(rgb) <= max(rgb) <= 255:
                    colors[value] = (rgb[0], rgb[1], rgb[2])
        except (ValueError, OverflowError, IndexError):
            continue
