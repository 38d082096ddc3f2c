"""Class masks and confidence as Cloud Optimized GeoTIFFs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import rasterio.windows
from affine import Affine
from rasterio.io import DatasetWriter

from geoseg.grid import Grid, Window
from geoseg.io.atomic import atomic_path, publish
from geoseg.io.gdal import gdal_env, write_errors
from geoseg.types import NODATA, ClassInfo

BLOCK_SIZE = 512
"""Side of the blocks of scratch rasters and COGs, pixels."""


class ScratchRaster:
    """A raster that parts are written into in any order, before it becomes a COG.

    Pixels that nothing was written to are nodata and take no space.
    """

    def __init__(self, path: Path, shape: tuple[int, int], *, count: int = 1) -> None:
        """Name the file; it is made by `with`.

        Args:
            path: A GeoTIFF to make; the caller removes it.
            shape: Height and width, pixels.
            count: Bands.
        """
        self.path = path
        self._shape = shape
        self._count = count
        self._dataset: DatasetWriter | None = None

    def __enter__(self) -> Self:
        """Make the file."""
        height, width = self._shape
        with gdal_env(), write_errors(self.path):
            self._dataset = rasterio.open(
                self.path,
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=self._count,
                # Blocks of all of many bands would be large.
                interleave="band",
                dtype="uint8",
                nodata=NODATA,
                # Any but the identity, which rasterio warns of; `write_cog` sets it.
                transform=Affine.scale(2, -2),
                tiled=True,
                blockxsize=BLOCK_SIZE,
                blockysize=BLOCK_SIZE,
                # Every GDAL has deflate; level 1, as the file lives for minutes.
                compress="DEFLATE",
                zlevel=1,
                # A scene over 4 GB would otherwise fail at the end of its run.
                bigtiff="IF_SAFER",
                sparse_ok=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file."""
        if self._dataset is not None:
            with gdal_env(), write_errors(self.path):
                self._dataset.close()
            self._dataset = None

    def write(self, window: Window, pixels: npt.NDArray[np.uint8]) -> None:
        """Write one part.

        Args:
            window: Where it lies, pixels of this raster.
            pixels: Shape (window.height, window.width), or (count, ...) for all bands.
        """
        assert self._dataset is not None, "use the raster in a with statement"
        place = rasterio.windows.Window(
            window.col, window.row, window.width, window.height
        )
        with gdal_env(), write_errors(self.path):
            self._dataset.write(
                pixels.reshape(self._count, window.height, window.width), window=place
            )

    def paste(self, window: Window, part: Path) -> None:
        """Write one part that is a scratch raster itself, of as many bands.

        Args:
            window: Where it lies, pixels of this raster.
            part: The file.
        """
        assert self._dataset is not None, "use the raster in a with statement"
        with gdal_env(), write_errors(self.path), rasterio.open(part) as source:
            for band in range(1, self._count + 1):
                for row in range(0, window.height, BLOCK_SIZE):
                    height = min(BLOCK_SIZE, window.height - row)
                    own = rasterio.windows.Window(0, row, window.width, height)
                    place = rasterio.windows.Window(
                        window.col, window.row + row, window.width, height
                    )
                    pixels = source.read(band, window=own)
                    self._dataset.write(pixels, band, window=place)


def write_cog(
    scratch: Path,
    final: Path,
    *,
    grid: Grid,
    classes: Sequence[ClassInfo] | None,
    tags: Mapping[str, str],
    nodata: int = NODATA,
    bands: Sequence[str] = ("",),
) -> None:
    """Turn a scratch raster into a COG that appears under its name when it is whole.

    A class mask gets a colour table, class names and overviews by the most frequent
    class; other rasters get overviews by mean. Nodata counts in neither. GDAL keeps
    class names in a sidecar, `<final>.aux.xml`, which is there before the raster is.

    Args:
        scratch: Raster of uint8 bands, see `ScratchRaster`.
        final: The COG; an older one is replaced.
        grid: Where the pixels lie; its shape is the scratch raster's.
        classes: Classes of a class mask, None for confidence and scores.
        tags: Provenance, written as metadata.
        nodata: Value of pixels without data.
        bands: Description of each band; none is "".
    """
    description = _describe(scratch, grid, classes, tags, nodata, bands)
    with atomic_path(final) as temporary:
        with gdal_env(), write_errors(final):
            rasterio.shutil.copy(
                description,
                temporary,
                driver="COG",
                BLOCKSIZE=BLOCK_SIZE,
                # Zstd is smaller, but builds of GDAL and web viewers may lack it.
                COMPRESS="DEFLATE",
                # Neighbouring percents are close numbers; class ids are names.
                PREDICTOR="NO" if classes else "STANDARD",
                OVERVIEW_RESAMPLING="MODE" if classes else "AVERAGE",
                BIGTIFF="IF_SAFER",
            )
        sidecar, final_sidecar = _sidecar(temporary), _sidecar(final)
        if sidecar.exists():
            publish(sidecar, final_sidecar)
        else:
            final_sidecar.unlink(missing_ok=True)  # Of an older raster.


def _sidecar(path: Path) -> Path:
    """Return where GDAL keeps what a GeoTIFF cannot hold."""
    return path.with_name(path.name + ".aux.xml")


def _describe(
    scratch: Path,
    grid: Grid,
    classes: Sequence[ClassInfo] | None,
    tags: Mapping[str, str],
    nodata: int,
    bands: Sequence[str],
) -> str:
    """Return a VRT that adds grid, colours, names and tags to the scratch raster.

    Through a VRT, because rasterio cannot set category names on a dataset.
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
            _add_classes(band, classes)
        source = ET.SubElement(band, "SimpleSource")
        name = ET.SubElement(source, "SourceFilename", relativeToVRT="0")
        name.text = str(scratch.absolute())
        ET.SubElement(source, "SourceBand").text = str(number)
    return ET.tostring(root, encoding="unicode")


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
