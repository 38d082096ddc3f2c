"""Byte rasters that live for minutes: parts of a scene, and its overviews."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.windows
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter, MemoryFile

from geoseg.io.gdal import gdal_env
from geoseg.types import NODATA

BLOCK_ROWS = 64
"""Rows of a block; written in multiples of them, no block is encoded twice."""

BLOCK_COLS = 512
"""Columns of a block: those of a COG, which GDAL copies block by block."""


def write_scratch(path: Path, pixels: npt.NDArray[np.uint8], *, packed: bool) -> None:
    """Write a whole raster.

    Args:
        path: A GeoTIFF to make; one that is there is replaced.
        pixels: Shape (height, width); held a second time.
        packed: See `create_scratch`.

    Raises:
        OSError: It cannot be written.
    """
    height, width = pixels.shape
    with MemoryFile() as memory:
        with (
            gdal_env(),
            create_scratch(memory.name, (height, width), NODATA, packed=packed) as file,
        ):
            file.write(pixels, 1)
        # Not by GDAL, which says nothing of a disk that is full when a file is closed.
        path.write_bytes(memory.getbuffer())


def create_scratch(
    path: Path | str,
    shape: tuple[int, int],
    nodata: int,
    *,
    packed: bool,
    count: int = 1,
) -> DatasetWriter:
    """Make a GeoTIFF that is then written from top to bottom; the caller closes it.

    Args:
        path: Where it goes.
        shape: Height and width, pixels.
        nodata: Value of pixels without data.
        packed: Worth it for classes, which shrink to a tenth, and not for confidence.
        count: Bands.
    """
    height, width = shape
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        # Blocks of all of many bands would be large.
        interleave="band",
        dtype="uint8",
        nodata=nodata,
        # Any but the identity, which rasterio warns of; the COG has its own.
        transform=Affine.scale(2, -2),
        tiled=True,
        blockxsize=BLOCK_COLS,
        blockysize=BLOCK_ROWS,
        # The cheapest that every GDAL has; docs/decisions/0010-rasters.md.
        compress="PACKBITS" if packed else "NONE",
        # A scene over 4 GB would otherwise fail at the end of its run.
        bigtiff="IF_SAFER",
    )


def check_rows(
    path: Path,
    window: rasterio.windows.Window,
    expected: npt.NDArray[np.uint8],
    final: Path,
) -> None:
    """Raise an OSError unless rows of a file's last band are as they were written.

    On a full disk GDAL loses what it keeps until it closes the file, and says nothing.

    Args:
        path: The file, closed.
        window: Rows at its end.
        expected: What they hold.
        final: Name of the file to tell of.
    """
    try:
        with gdal_env(), rasterio.open(path) as written:
            whole = (written.read(written.count, window=window) == expected).all()
    except RasterioError:
        whole = False
    if not whole:
        raise OSError(errno.ENOSPC, "GDAL could not write all of it", str(final))
