"""Class masks and confidence as Cloud Optimized GeoTIFFs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import rasterio.windows

from geoseg._heap import return_memory
from geoseg.grid import Grid, Window
from geoseg.io.atomic import atomic_path, publish
from geoseg.io.gdal import gdal_env, write_errors
from geoseg.io.halving import halve_by_mean, halve_by_mode
from geoseg.io.mosaic import Part, describe
from geoseg.io.pyramid import overview_shapes, write_overviews
from geoseg.io.scratch import BLOCK_ROWS, check_rows
from geoseg.types import NODATA, ClassInfo, Codec

BLOCK_SIZE = 512
"""Side of the blocks of COGs, pixels."""

_MASK_LEVELS: dict[Codec, int] = {"zstd": 1, "deflate": 5}
"""Of class masks, chosen in docs/decisions/0010-rasters.md; other rasters have 1."""


def write_cog(
    parts: Sequence[Part],
    final: Path,
    *,
    grid: Grid,
    classes: Sequence[ClassInfo] | None,
    tags: Mapping[str, str],
    work: Path,
    codec: Codec = "zstd",
    nodata: int = NODATA,
    bands: Sequence[str] = ("",),
) -> None:
    """Join parts into a COG that appears under its name when it is whole.

    A class mask gets a colour table, class names and overviews by the most frequent
    class; other rasters get overviews by mean. Nodata counts in neither. GDAL keeps
    class names in a sidecar, `<final>.aux.xml`, which is there before the raster is.

    Args:
        parts: Its pixels; what no part holds is nodata.
        final: The COG; an older one is replaced.
        grid: Where the pixels lie.
        classes: Classes of a class mask, None for confidence and scores.
        tags: Provenance, written as metadata.
        work: Folder for overviews while they are made.
        codec: Compression.
        nodata: Value of pixels without data.
        bands: Description of each band; none is "". Overviews of several bands are
            GDAL's own, a whole pass for each of them.

    Raises:
        OSError: A part is gone, or a file cannot be written.
    """
    for part in parts:
        part.path.stat()  # GDAL's own message is that of a file it cannot write.
    raster = partial(
        describe,
        parts,
        grid=grid,
        classes=classes,
        tags=tags,
        nodata=nodata,
        bands=bands,
    )
    # Levels smaller than a block are none; those of many bands are left to GDAL.
    own = overview_shapes(grid.shape, BLOCK_SIZE) if len(bands) == 1 else []
    with (
        _overviews(raster([]), own, final.stem, work, classes, nodata) as overviews,
        atomic_path(final) as temporary,
    ):
        with gdal_env(), write_errors(final):
            rasterio.shutil.copy(
                raster(overviews),
                temporary,
                driver="COG",
                BLOCKSIZE=BLOCK_SIZE,
                COMPRESS=codec.upper(),
                LEVEL=_MASK_LEVELS[codec] if classes else 1,
                # Neighbouring percents are close numbers; class ids are names.
                PREDICTOR="NO" if classes else "STANDARD",
                # GDAL's own cost more than all the rest.
                OVERVIEWS="FORCE_USE_EXISTING" if len(bands) == 1 else "AUTO",
                OVERVIEW_RESAMPLING="AVERAGE",
                BIGTIFF="IF_SAFER",
            )
        _check_end(temporary, raster([]), final)
        sidecar, final_sidecar = _sidecar(temporary), _sidecar(final)
        if sidecar.exists():
            publish(sidecar, final_sidecar)
        else:
            final_sidecar.unlink(missing_ok=True)  # Of an older raster.


@contextmanager
def _overviews(
    raster: str,
    shapes: Sequence[tuple[int, int]],
    name: str,
    work: Path,
    classes: Sequence[ClassInfo] | None,
    nodata: int,
) -> Iterator[list[Part]]:
    """Make overviews in the work folder for as long as the block lasts."""
    # A task of a run that has ended may go on and make the same.
    token = secrets.token_hex(4)
    overviews = [
        Part(work / f"overview-{name}-{level}-{token}.tif", Window(0, 0, *shape))
        for level, shape in enumerate(shapes)
    ]
    try:
        if overviews:
            with gdal_env(), write_errors(work):
                write_overviews(
                    _rows(raster),
                    zip([part.path for part in overviews], shapes, strict=True),
                    halve=halve_by_mode if classes else halve_by_mean,
                    nodata=nodata,
                    packed=classes is not None,
                )
            return_memory()  # What is made next is of other sizes.
        yield overviews
    finally:
        for part in overviews:
            part.path.unlink(missing_ok=True)


def _rows(raster: str) -> Iterator[npt.NDArray[np.uint8]]:
    """Read a raster from top to bottom."""
    with rasterio.open(raster) as dataset:
        for row in range(0, dataset.height, 2 * BLOCK_ROWS):
            height = min(2 * BLOCK_ROWS, dataset.height - row)
            place = rasterio.windows.Window(0, row, dataset.width, height)
            yield dataset.read(1, window=place)


def _check_end(path: Path, raster: str, final: Path) -> None:
    """Raise an OSError unless a COG ends with the rows of the raster.

    These rows are the end of the file.
    """
    with gdal_env(), rasterio.open(raster) as dataset:
        rows = min(BLOCK_SIZE, dataset.height)
        place = rasterio.windows.Window(0, dataset.height - rows, dataset.width, rows)
        expected = dataset.read(dataset.count, window=place)
        check_rows(path, place, expected, final)


def _sidecar(path: Path) -> Path:
    """Return where GDAL keeps what a GeoTIFF cannot hold."""
    return path.with_name(path.name + ".aux.xml")
