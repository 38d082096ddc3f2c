"""Class rasters for tests of `vectorize`, and what their polygons must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.features
import rasterio.shutil
import shapely
from affine import Affine
from class_masks import blobs
from rasterio.crs import CRS
from rasters import NORTH_UP, UTM, write_mask, write_raster

from geoseg.grid import Grid
from geoseg.types import NODATA, ClassInfo

Mask = npt.NDArray[np.uint8]

LEGEND = (
    ClassInfo(0, "water", (74, 144, 210)),
    ClassInfo(1, "land & <sand>", (222, 203, 164)),
    ClassInfo(2, "road", (96, 96, 104)),
    ClassInfo(3, "building", (200, 72, 56)),
)


def class_mask(side: int = 120) -> Mask:
    """Return blobs of four classes with nodata in a corner and inside."""
    mask = blobs(side, 4, sigma=1.5)
    mask[: side // 6, : side // 4] = NODATA
    mask[side // 2 : side // 2 + 7, side // 2 : side // 2 + 9] = NODATA
    return mask


def write_classes(
    path: Path,
    values: npt.NDArray[Any],
    *,
    nodata: float | None = NODATA,
    **options: Any,  # noqa: ANN401 (of `write_raster`)
) -> Path:
    """Write a class raster without names, in strips of four rows."""
    return write_raster(path, values, nodata=nodata, blockysize=4, **options)


def write_own(path: Path, mask: Mask) -> Path:
    """Write a class mask as `segment` does."""
    wkt = CRS.from_string(UTM).to_wkt(version="WKT2_2019")
    height, width = mask.shape
    grid = Grid(height, width, NORTH_UP, wkt)
    return write_mask(path, mask, grid, LEGEND, {"scene_id": "2024/t_01"})


def read_polygons(path: Path) -> gpd.GeoDataFrame:
    """Read what was written."""
    if path.suffix == ".parquet":
        return gpd.read_parquet(path)
    if path.suffix == ".gpkg":
        return gpd.read_file(path, layer="segments")
    return gpd.read_file(path)


def rows_of(path: Path) -> list[tuple[int, str, int, float, bytes]]:
    """Return what polygons say, in the order of the file."""
    table = read_polygons(path)
    confidence = table.confidence_mean.astype(float).fillna(-1.0)  # NaN equals nothing.
    columns = (table.class_id, table.class_name, table.pixels, confidence)
    return list(zip(*columns, shapely.to_wkb(table.geometry.array), strict=True))


def assert_exact(path: Path, mask: Mask, transform: Affine = NORTH_UP) -> None:
    """Polygons are a coverage, fill the valid pixels, and give the mask back."""
    table = read_polygons(path)
    geometry = table.geometry.to_numpy()
    assert shapely.is_valid(geometry).all()
    assert shapely.coverage_is_valid(geometry)
    pixel = abs(transform.determinant)
    valid = int((mask != NODATA).sum())
    assert abs(shapely.area(geometry).sum() / (valid * pixel) - 1) < 1e-9
    assert int(table.pixels.sum()) == valid
    assert np.allclose(shapely.area(geometry) / pixel, table.pixels, rtol=1e-6)
    drawn = rasterio.features.rasterize(
        zip(geometry, table.class_id, strict=True),
        out_shape=mask.shape,
        transform=transform,
        fill=NODATA,
        dtype="uint8",
    )
    assert np.array_equal(drawn, mask)
