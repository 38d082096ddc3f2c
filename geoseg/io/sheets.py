"""Abutting rasters as one: what must agree, and the VRT that reads them in place."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import shapely
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from geoseg.errors import UsageError
from geoseg.grid import Window
from geoseg.io.gdal import open_dataset
from geoseg.io.location import is_virtual, shown
from geoseg.io.vrt import add_source

_OFF_GRID = 1e-2
"""Pixels that a sheet may lie off the grid of the others: rounding of coordinates."""

_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}
"""GDAL's names of dtypes; complex pixels are refused by every model."""

_UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f<\ud800-\udfff\ufffe\uffff]")
"""What the name of a file in a VRT cannot hold."""

_MOST_PIXELS = 2**31 - 1
"""Pixels of a side that GDAL can count."""

_AGREEING = {
    "crs": "CRS",
    "bands": "number of bands",
    "dtypes": "dtype",
    "colors": "meaning of bands",
    "nodata": "nodata value",
}


@dataclass(frozen=True, slots=True)
class _Sheet:
    """One raster, as far as it matters to its neighbours."""

    name: str
    window: Window
    transform: Affine
    crs: str | None
    bands: int
    dtypes: tuple[str, ...]
    colors: tuple[str, ...]
    nodata: tuple[str, ...]
    nodatavals: tuple[float | None, ...]
    block: tuple[int, int]
    masked: bool


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Sheets in their places on one grid."""

    sheets: tuple[_Sheet, ...]
    """In the order of their names; windows are pixels of the whole."""
    height: int
    """Of the whole, pixels."""
    width: int
    """Of the whole, pixels."""
    transform: Affine
    """Of the whole."""

    @property
    def has_gaps(self) -> bool:
        """Whether some pixels lie in no sheet."""
        covered = sum(sheet.window.height * sheet.window.width for sheet in self.sheets)
        return covered < self.height * self.width


def lay_out(names: Sequence[str]) -> Mosaic:
    """Look at sheets and find their places; reads no pixel.

    Args:
        names: Rasters, in any order.

    Raises:
        UsageError: One differs from the others, lies off their grid, or two overlap.
        SceneError: One cannot be read.
    """
    sheets = [_look_at(name) for name in sorted(names)]
    for field, what in _AGREEING.items():
        _check_agreement(sheets, field, what)
    first = sheets[0]
    places = [_place(sheet, first) for sheet in sheets]
    top = min(place.row for place in places)
    left = min(place.col for place in places)
    moved = tuple(
        replace(sheet, window=Window(p.row - top, p.col - left, p.height, p.width))
        for sheet, p in zip(sheets, places, strict=True)
    )
    _check_overlaps(moved)
    height = max(sheet.window.row_stop for sheet in moved)
    width = max(sheet.window.col_stop for sheet in moved)
    if max(height, width) > _MOST_PIXELS:
        raise UsageError(
            f"--mosaic: the sheets lie {max(height, width)} pixels apart; check their "
            "coordinates with gdalinfo, or run without --mosaic"
        )
    return Mosaic(
        moved,
        height,
        width,
        first.transform @ Affine.translation(left, top),
    )


def describe_sheets(mosaic: Mosaic) -> str:
    """Return the VRT of a mosaic, the same for the same sheets."""
    first = mosaic.sheets[0]
    root = ET.Element(
        "VRTDataset", rasterXSize=str(mosaic.width), rasterYSize=str(mosaic.height)
    )
    if first.crs is not None:
        ET.SubElement(root, "SRS").text = first.crs
    coefficients = map(repr, map(float, mosaic.transform.to_gdal()))
    ET.SubElement(root, "GeoTransform").text = ", ".join(coefficients)
    for number in range(1, first.bands + 1):
        band = ET.SubElement(
            root,
            "VRTRasterBand",
            dataType=_TYPES[first.dtypes[number - 1]],
            band=str(number),
        )
        value = first.nodatavals[number - 1]
        if value is not None:
            ET.SubElement(band, "NoDataValue").text = repr(value)
        ET.SubElement(band, "ColorInterp").text = first.colors[number - 1]
        for sheet in mosaic.sheets:
            _add_source(band, sheet, str(number))
    if _needs_mask(mosaic):
        _add_mask(root, mosaic)
    return ET.tostring(root, encoding="unicode")


def _look_at(name: str) -> _Sheet:
    if is_virtual(name):
        raise UsageError(
            f"--mosaic reads sheets of this machine only, and {shown(name)} is "
            "elsewhere; download the sheets first"
        )
    if _UNWRITABLE.search(name):
        raise UsageError(
            f"--mosaic: {name!r} has a name that no VRT can hold; rename it"
        )
    with open_dataset(name) as dataset:
        whole = Window(0, 0, dataset.height, dataset.width)
        unknown = set(dataset.dtypes) - set(_TYPES)
        if unknown or not dataset.count:
            what = f"{unknown.pop()} pixels" if unknown else "no band"
            raise UsageError(f"{shown(name)} has {what}, and is no sheet of a mosaic")
        return _Sheet(
            name=name,
            window=whole,
            transform=dataset.transform,
            crs=dataset.crs.to_wkt(version="WKT2_2019") if dataset.crs else None,
            bands=dataset.count,
            dtypes=tuple(dataset.dtypes),
            colors=tuple(color.name for color in dataset.colorinterp),
            # As text: NaN is not equal to itself.
            nodata=tuple(map(str, dataset.nodatavals)),
            nodatavals=tuple(dataset.nodatavals),
            block=dataset.block_shapes[0],
            masked=_has_own_mask(dataset),
        )


def _has_own_mask(dataset: DatasetReader) -> bool:
    flags = set(dataset.mask_flag_enums[0])
    return not flags & {MaskFlags.all_valid, MaskFlags.alpha, MaskFlags.nodata}


def _check_agreement(sheets: Sequence[_Sheet], field: str, what: str) -> None:
    """Name the sheet that differs from most of the others."""
    groups: dict[Any, list[_Sheet]] = {}
    for sheet in sheets:
        groups.setdefault(getattr(sheet, field), []).append(sheet)
    if len(groups) == 1:
        return
    *_, few, most = sorted(groups.values(), key=len)
    raise UsageError(
        f"--mosaic: {shown(few[0].name)} differs in its {what} from "
        f"{shown(most[0].name)} ({_told(few[0], field)}, {_told(most[0], field)}); "
        "convert it, leave it out, or run without --mosaic"
    )


def _told(sheet: _Sheet, field: str) -> str:
    value = getattr(sheet, field)
    if field == "crs" and value is not None:
        return str(value).split('"')[1]
    return ", ".join(dict.fromkeys(value)) if isinstance(value, tuple) else str(value)


def _place(sheet: _Sheet, first: _Sheet) -> Window:
    """Return where a sheet lies on the grid of the first one."""
    relative = ~first.transform @ sheet.transform
    row, col = round(relative.f), round(relative.c)
    corner = relative @ (sheet.window.width, sheet.window.height)
    wanted = (col + sheet.window.width, row + sheet.window.height)
    off = max(
        *(abs(a - b) for a, b in zip(corner, wanted, strict=True)),
        abs(relative.c - col),
        abs(relative.f - row),
    )
    if not (math.isfinite(off) and off <= _OFF_GRID):
        raise UsageError(
            f"--mosaic: {shown(sheet.name)} does not lie on the pixels of "
            f"{shown(first.name)}: its resolution, rotation or origin is another; "
            "resample it with gdalwarp -tr -tap, or run without --mosaic"
        )
    return Window(row, col, sheet.window.height, sheet.window.width)


def _check_overlaps(sheets: Sequence[_Sheet]) -> None:
    windows = [sheet.window for sheet in sheets]
    # Half a pixel less on each side: neighbours touch.
    boxes = [
        shapely.box(w.col + 0.25, w.row + 0.25, w.col_stop - 0.25, w.row_stop - 0.25)
        for w in windows
    ]
    tree = shapely.STRtree(boxes)
    pairs = tree.query(boxes, predicate="intersects").T
    clash = next(((one, other) for one, other in pairs if one < other), None)
    if clash is not None:
        one, other = (sheets[index].name for index in clash)
        raise UsageError(
            f"--mosaic: {shown(one)} and {shown(other)} overlap, and what holds there "
            "is not clear; cut them with gdal_translate -srcwin, or run without "
            "--mosaic"
        )


def _needs_mask(mosaic: Mosaic) -> bool:
    """Whether something has to tell where there is data: nodata and alpha do so."""
    first = mosaic.sheets[0]
    if any(sheet.masked for sheet in mosaic.sheets):
        return True
    told = "alpha" in first.colors or None not in first.nodatavals
    return mosaic.has_gaps and not told


def _add_mask(root: ET.Element, mosaic: Mosaic) -> None:
    """Add a mask band: 0 between sheets, theirs within."""
    mask = ET.SubElement(root, "MaskBand")
    band = ET.SubElement(mask, "VRTRasterBand", dataType="Byte")
    for sheet in mosaic.sheets:
        _add_source(band, sheet, "mask,1")


def _add_source(band: ET.Element, sheet: _Sheet, number: str) -> None:
    add_source(
        band,
        sheet.name,
        sheet.window,
        block=sheet.block,
        source_band=number,
        dtype=_TYPES[sheet.dtypes[0]],
    )
