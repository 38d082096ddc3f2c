"""Elements of GDAL's VRT that rasters are put together from."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Literal

from geoseg.grid import Window


def add_file(element: ET.Element, name: str, band: str, *, relative: bool) -> None:
    """Name the file and the band that hold pixels.

    Args:
        element: A source, or an overview.
        name: The file.
        band: Number of its band, or "mask,1".
        relative: Whether the name is relative to the VRT's folder.
    """
    file = ET.SubElement(element, "SourceFilename", relativeToVRT=str(int(relative)))
    file.text = name
    ET.SubElement(element, "SourceBand").text = band


def add_source(
    band: ET.Element,
    name: str,
    window: Window,
    *,
    block: tuple[int, int],
    source_band: str = "1",
    dtype: str = "Byte",
    relative: bool = False,
    kind: Literal["SimpleSource", "ComplexSource"] = "SimpleSource",
) -> ET.Element:
    """Add a whole file to a band, pixel for pixel.

    Args:
        band: The band of the VRT.
        name: The file.
        window: Where it lies, pixels of the VRT; of the file's own size.
        block: Height and width of the file's blocks, pixels.
        source_band: Number of the file's band, or "mask,1".
        dtype: Of the file, as GDAL calls it.
        relative: Whether the name is relative to the VRT's folder.
        kind: A complex source may have a nodata value of its own.

    Returns:
        The source.
    """
    source = ET.SubElement(band, kind)
    add_file(source, name, source_band, relative=relative)
    # GDAL would otherwise open all files at once to learn this.
    ET.SubElement(
        source,
        "SourceProperties",
        RasterXSize=str(window.width),
        RasterYSize=str(window.height),
        DataType=dtype,
        BlockXSize=str(block[1]),
        BlockYSize=str(block[0]),
    )
    _add_rectangle(source, "SrcRect", Window(0, 0, window.height, window.width))
    _add_rectangle(source, "DstRect", window)
    return source


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
