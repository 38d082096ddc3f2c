"""Scenes as models see them: what to read, on which grid, and which pixels count."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.io import DatasetReader

from geoseg.errors import SceneError, UnlocatedWarning
from geoseg.grid import Grid, Window
from geoseg.io.aoi import Box, area_of_interest, in_pixels, inside_mask, region_of
from geoseg.io.gdal import (
    RasterReader,
    absolute,
    gdal_env,
    open_dataset,
    scene_errors,
)
from geoseg.io.radiometry import alpha_band, choose_bands, choose_nodata, choose_scale
from geoseg.io.resample import WindowResampler, axis_kernel, block_strips
from geoseg.io.resolution import Resolution, processed_grid
from geoseg.io.validity import has_mask, read_bands, visible
from geoseg.types import ModelSpec

_STRIP_PIXELS = 1 << 22
"""Source pixels of a strip while resampling; bounds memory, not results."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One input raster and how it is read; plain values, no open file."""

    path: str
    """Absolute path, or whatever else GDAL opens."""
    grid: Grid
    """Processed grid: what outputs lie on."""
    source: Grid
    """Native grid of the file."""
    bands: tuple[int, ...]
    """Bands of the file in the model's order, 1-based; may repeat."""
    dtype: str
    """Dtype of these bands."""
    scale: float
    """Digital number that means 1.0."""
    nodata: float | None
    """Value that hides a pixel where every used band holds it."""
    alpha: int | None
    """Alpha band, 1-based."""
    masked: bool
    """A mask band hides pixels, or a list of nodata values by band."""
    by_rows: bool
    """No part of a row of the file is read without the rest of it."""
    region: Window | None
    """Bounds of the area of interest in `grid`, None for the whole scene."""
    aoi: bytes | None
    """Area of interest in the scene's CRS, WKB; None for the whole scene."""
    acquired: str | None = None
    """When the image was taken, as its TIFF tag says it: ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """What one window of a scene holds."""

    values: npt.NDArray[np.generic]
    """Digital numbers, shape (bands, height, width), 0 where not valid; the scene's
    dtype, or float32 when resampled."""
    valid: npt.NDArray[np.bool_]
    """Pixels that hold data, shape (height, width)."""
    keep: npt.NDArray[np.bool_]
    """Valid pixels inside the area of interest, shape (height, width)."""


def open_scene(
    path: str | Path,
    spec: ModelSpec,
    *,
    resolution: Resolution = "auto",
    bands: Sequence[int] | None = None,
    scale: float | None = None,
    nodata: float | None = None,
    aoi: Path | None = None,
    bbox: Box | None = None,
) -> Scene:
    """Look at a raster and decide how the model will read it; reads no pixel.

    Args:
        path: File, URL or anything else that GDAL opens as a raster.
        spec: What the model takes.
        resolution: "auto" resamples a scene more than 1.5 times finer than the model to
            the model's resolution; "native" never does; metres always do.
        bands: 1-based bands in the model's order; may repeat.
        scale: Digital number that means 1.0; needed for dtypes the model does not
            declare.
        nodata: Replaces the file's own nodata value; may be NaN.
        aoi: File of polygons, in any CRS: pixels outside are not wanted.
        bbox: Left, bottom, right, top in the scene's CRS: the same as a box.

    Raises:
        SceneError: The raster cannot be read or used, or the area lies outside it.
        RadiometryError: Its bands or dtype are not what the model takes.
        UsageError: An option is wrong for every scene.

    Warns:
        GeosegWarning: No CRS, or a scene coarser than the model.
    """
    name = absolute(path)
    with open_dataset(name) as dataset, gdal_env(), scene_errors(name):
        if dataset.count == 0:
            raise SceneError(no_bands(dataset))
        chosen = choose_bands(dataset, spec, bands)
        dtype, dn_of_one = choose_scale(dataset, spec, chosen, scale)
        source = native_grid(dataset)
        if source.crs is None:
            _warn_unlocated(dataset)
        grid = processed_grid(source, spec, resolution, name)
        area = area_of_interest(grid, aoi, bbox)
        alpha = alpha_band(dataset, chosen)
        return Scene(
            path=name,
            grid=grid,
            source=source,
            bands=chosen,
            dtype=dtype,
            scale=dn_of_one,
            nodata=choose_nodata(dataset, chosen, nodata),
            alpha=alpha,
            masked=has_mask(dataset, chosen[0], replaced=nodata is not None),
            by_rows=dataset.block_shapes[chosen[0] - 1][1] >= dataset.width,
            region=None if area is None else region_of(area, grid),
            aoi=None if area is None else shapely.to_wkb(area),
            acquired=_acquired(dataset),
        )


class SceneReader(RasterReader):
    """Reads windows of a scene through one open file; for one thread at a time.

    A window's pixels do not depend on which windows were read before, nor on how the
    scene was cut into windows.
    """

    def __init__(self, scene: Scene) -> None:
        """Keep the scene; the file is opened by `with`."""
        super().__init__(scene.path)
        self.scene = scene
        self._area = (
            None
            if scene.aoi is None
            else in_pixels(shapely.from_wkb(scene.aoi), scene.grid)
        )

    def read(self, window: Window) -> Pixels:
        """Read one window; each source pixel it needs is read once.

        Args:
            window: Window of `scene.grid`, inside it.

        Raises:
            SceneError: The file is truncated or corrupt.
        """
        assert self.scene.grid.whole.contains(window), window
        with gdal_env(), scene_errors(self.scene.path):
            if self.scene.grid == self.scene.source:
                values, valid = self._native(window)
            else:
                values, valid = self._resampled(window)
        if self._area is None:
            return Pixels(values, valid, valid)
        return Pixels(values, valid, valid & inside_mask(self._area, window))

    def _native(
        self, window: Window
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
        """Read a window of the file as it is stored, hidden pixels set to 0."""
        scene = self.scene
        unique = sorted(set(scene.bands))
        pixels, shown = read_bands(
            self.dataset, unique, window, alpha=scene.alpha, masked=scene.masked
        )
        valid = visible(pixels, scene.nodata)
        if shown is not None:
            valid &= shown
        order = [unique.index(band) for band in scene.bands]
        in_order = order == list(range(len(order)))
        values = pixels if in_order else pixels[order]
        if not valid.all():
            np.copyto(values, 0, where=~valid)
        return values, valid

    def _resampled(
        self, window: Window
    ) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
        """Read the source pixels under a window strip by strip and resample them."""
        source = self.scene.source
        row_factor, col_factor = pixel_factors(source, self.scene.grid)
        rows = axis_kernel(window.row, window.row_stop, row_factor, source.height)
        cols = axis_kernel(window.col, window.col_stop, col_factor, source.width)
        resampler = WindowResampler(rows, cols, len(self.scene.bands))
        width = cols.stop - cols.start
        block = self.dataset.block_shapes[self.scene.bands[0] - 1][0]
        most = _STRIP_PIXELS // width
        for row, height in block_strips(rows.start, rows.stop, block, most):
            strip = Window(row, cols.start, height, width)
            resampler.add(row, *self._native(strip))
        return resampler.result()


def native_grid(dataset: DatasetReader) -> Grid:
    """Return the grid of a file; without a transform its CRS says nothing.

    Raises:
        SceneError: Its pixels have no size.
    """
    transform, crs = dataset.transform, dataset.crs
    if not (math.isfinite(transform.determinant) and transform.determinant != 0):
        raise SceneError(
            f"{dataset.name} has pixels of no size (transform {tuple(transform)[:6]}); "
            "set it with gdal_edit -a_ullr"
        )
    located = bool(crs) and not transform.is_identity
    wkt = crs.to_wkt(version="WKT2_2019") if located else None
    return Grid(dataset.height, dataset.width, transform, wkt)


def locating_hint(dataset: DatasetReader) -> str:
    """Say how a raster gets the CRS and the transform that it lacks."""
    if dataset.gcps[0]:
        return "it has ground control points: apply them with gdalwarp"
    return "set both with gdal_translate -a_srs -a_ullr"


def no_bands(dataset: DatasetReader) -> str:
    """Say what to do about a container without bands of its own."""
    if dataset.subdatasets:
        return (
            f"{dataset.name} holds {len(dataset.subdatasets)} rasters and no band of "
            "its own; write the one you mean to a file of its own, for example with "
            f"gdal_translate {shlex.quote(dataset.subdatasets[0])} out.tif"
        )
    return f"{dataset.name} has 0 bands; give a raster with pixels"


def _warn_unlocated(dataset: DatasetReader) -> None:
    warnings.warn(
        f"{dataset.name} has no CRS or no transform, so it runs at its own "
        f"resolution and areas are in pixels; {locating_hint(dataset)}",
        UnlocatedWarning,
        stacklevel=4,
    )


def pixel_factors(source: Grid, grid: Grid) -> tuple[float, float]:
    """Return target over source pixel edges (row, column), free of rounding noise."""
    (height, width), (old_height, old_width) = grid.pixel_size, source.pixel_size
    factors = (height / old_height, width / old_width)
    # 3.0000000000000004 would draw in a fourth source pixel, with a weight of nothing.
    row, col = (float(round(f)) if abs(f - round(f)) < 1e-9 * f else f for f in factors)
    return row, col


def _acquired(dataset: DatasetReader) -> str | None:
    """Read the TIFF tag of the time, which has no time zone: taken as UTC."""
    text = dataset.tags().get("TIFFTAG_DATETIME", "")
    try:
        time = datetime.strptime(text.strip(), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
    return time.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")
