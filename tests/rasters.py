"""Tiny GeoTIFFs for tests: every kind of grid, and every way to hide a pixel."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from geoseg.grid import Grid
from geoseg.io.cog import write_cog
from geoseg.io.mosaic import Part
from geoseg.io.scratch import write_scratch
from geoseg.types import ClassInfo, ModelSpec

UTM = "EPSG:32631"
NORTH_UP = Affine(0.5, 0.0, 500_000.25, 0.0, -0.5, 5_800_000.75)
SOUTH_UP = Affine(0.5, 0.0, 500_000.25, 0.0, 0.5, 5_800_000.75)
ROTATED = Affine.translation(500_000, 5_800_000) @ Affine.rotation(30)
ROTATED = ROTATED @ Affine.scale(0.5, -0.5)

GRIDS: dict[str, tuple[str, Affine]] = {
    "north-up": (UTM, NORTH_UP),
    "south-up": (UTM, SOUTH_UP),
    "rotated": (UTM, ROTATED),
    "degrees": ("EPSG:4326", Affine(5e-6, 0, 5.1, 0, -5e-6, 52.3)),
    "us-feet": ("EPSG:2263", Affine(1.6, 0, 985_000, 0, -1.6, 205_000)),
}
"""Name -> CRS and transform of pixels of about half a metre."""

CLASSES = (
    ClassInfo(1, "water", (226, 169, 41)),
    ClassInfo(2, 'O\'Brien "road" <é>', (110, 193, 228)),
    ClassInfo(7, "building", (60, 16, 152)),
)
"""Classes with gaps between ids and a name that is hard to quote."""


def rgb_spec(
    resolution: float | None = None, bands: tuple[str, ...] = ("red", "green", "blue")
) -> ModelSpec:
    """Return what a small model of 8-bit bands declares.

    Args:
        resolution: Metres a pixel; None runs every scene on its own grid.
        bands: Names of the bands.
    """
    return ModelSpec(
        name="toy",
        tile_size=32,
        patch_size=16,
        classes=CLASSES,
        bands=bands,
        scale=(("uint8", 255.0),),
        mean=(0.5,) * len(bands),
        std=(0.2,) * len(bands),
        resolution=resolution,
        weights_sha256="0" * 64,
    )


def write_raster(
    path: Path,
    pixels: npt.NDArray[Any],
    *,
    crs: str | None = UTM,
    transform: Affine = NORTH_UP,
    nodata: float | None = None,
    alpha: npt.NDArray[np.bool_] | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    tags: dict[str, str] | None = None,
    **profile: Any,  # noqa: ANN401  creation options of GDAL
) -> Path:
    """Write a GeoTIFF and return its path.

    Args:
        path: Where to write.
        pixels: Shape (bands, height, width) or (height, width); the dtype is kept.
        crs: None writes none.
        transform: The identity writes none.
        nodata: Nodata value of all bands.
        alpha: Shape (height, width); adds an alpha band, opaque where true.
        mask: Shape (height, width); adds an internal mask band, valid where true.
        tags: Metadata of the default domain.
        profile: More creation options.
    """
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    bands, height, width = pixels.shape
    names = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    names = names if bands == 3 else [ColorInterp.gray]
    names += [ColorInterp.undefined] * (bands - len(names))
    if alpha is not None:
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
        layer = np.where(alpha, top, 0).astype(pixels.dtype)
        pixels = np.concatenate([pixels, layer[None]])
        names.append(ColorInterp.alpha)
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=len(pixels),
            dtype=pixels.dtype,
            crs=crs,
            transform=transform,
            nodata=nodata,
            **profile,
        ) as dataset,
    ):
        dataset.colorinterp = names
        dataset.write(pixels)
        dataset.update_tags(**(tags or {}))
        if mask is not None:
            dataset.write_mask(mask)
    return path


def write_mask(
    path: Path,
    mask: npt.NDArray[np.uint8],
    grid: Grid,
    classes: Sequence[ClassInfo] | None = CLASSES,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write a class mask, or without classes a confidence raster, as `segment` does."""
    part = Part(path.with_name("part.tif"), grid.whole)
    write_scratch(part.path, mask, packed=True)
    write_cog(
        [part], path, grid=grid, classes=classes, tags=tags or {}, work=path.parent
    )
    part.path.unlink()
    return path
