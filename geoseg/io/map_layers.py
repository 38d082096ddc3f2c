"""Layers of any content for a map: rasters as COGs and features as GeoPackages.

Both open styled in QGIS: a raster by a QML file beside it, features by the table of
styles in the GeoPackage.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
import rasterio.windows
import shapely
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter

from geoseg.grid import Grid, Window
from geoseg.io.atomic import atomic_path, work_folder
from geoseg.io.cog import BLOCK_SIZE
from geoseg.io.gdal import gdal_env, open_dataset, write_errors
from geoseg.io.ogr import style_geopackage
from geoseg.io.segment_table import GEOMETRY

_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True, slots=True)
class FeatureLayer:
    """Points, lines or polygons with their columns."""

    name: str
    """Name of the layer; never made from data."""
    geometry: npt.NDArray[np.object_]
    """Shapes of shapely, CRS units, shape (n,)."""
    columns: Mapping[str, npt.NDArray[Any]]
    """Values by name of the column, shape (n,) each."""
    qml: str
    """Default style."""


class RasterLayer:
    """A raster that is written window by window."""

    def __init__(self, dataset: DatasetWriter) -> None:
        self._dataset = dataset

    def write(self, pixels: npt.NDArray[Any], window: Window) -> None:
        """Write a window, shape (bands, height, width)."""
        place = rasterio.windows.Window(
            window.col, window.row, window.width, window.height
        )
        self._dataset.write(pixels, window=place)


@contextmanager
def raster_layer(
    final: Path,
    grid: Grid,
    *,
    bands: Sequence[str],
    dtype: str,
    nodata: float,
    qml: str,
    tags: Mapping[str, str],
) -> Iterator[RasterLayer]:
    """Write a COG that appears with its style when the block ends without an error.

    Args:
        final: The COG; its style goes beside it, under the same name with .qml.
        grid: Where its pixels lie.
        bands: Description of each band; three of uint8 are red, green and blue.
        dtype: "uint8" or "float32".
        nodata: Value of pixels without data; what is not written has it, too.
        qml: Style.
        tags: Provenance.

    Yields:
        What takes the pixels.

    Raises:
        OSError: It cannot be written.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(final) as work:
        scratch = work / "layer.tif"
        with (
            gdal_env(),
            write_errors(final),
            _create(scratch, grid, len(bands), dtype, nodata) as dataset,
        ):
            dataset.descriptions = tuple(bands)
            dataset.update_tags(**tags)
            if len(bands) == 3 and dtype == "uint8":
                dataset.colorinterp = _RGB
            yield RasterLayer(dataset)
        with atomic_path(final) as temporary, gdal_env(), write_errors(final):
            rasterio.shutil.copy(
                scratch,
                temporary,
                driver="COG",
                BLOCKSIZE=BLOCK_SIZE,
                COMPRESS="DEFLATE",
                PREDICTOR="YES",
                OVERVIEW_RESAMPLING="AVERAGE",
                BIGTIFF="IF_SAFER",
            )
        with atomic_path(final.with_suffix(".qml")) as temporary:
            temporary.write_text(qml, encoding="utf-8")


def read_layer(path: Path, shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Read a raster layer no finer than needed, by mean: shape (bands, *shape)."""
    with gdal_env(), open_dataset(str(path)) as dataset:
        pixels: npt.NDArray[Any] = dataset.read(
            out_shape=(dataset.count, *shape), resampling=Resampling.average
        )
        return pixels


def _create(
    path: Path, grid: Grid, count: int, dtype: str, nodata: float
) -> DatasetWriter:
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        return rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=grid.height,
            width=grid.width,
            count=count,
            dtype=dtype,
            nodata=nodata,
            crs=grid.crs,
            transform=grid.transform,
            tiled=True,
            blockxsize=BLOCK_SIZE,
            blockysize=BLOCK_SIZE,
            bigtiff="IF_SAFER",
        )


def write_features(final: Path, layers: Sequence[FeatureLayer], grid: Grid) -> None:
    """Write a GeoPackage of one or more layers; appears when it is whole.

    Args:
        final: The file.
        layers: At least one.
        grid: Its CRS is that of the layers.

    Raises:
        OSError: It cannot be written.
    """
    with atomic_path(final) as temporary:
        for layer in layers:
            frame = geopandas.GeoDataFrame(
                dict(layer.columns), geometry=list(layer.geometry), crs=grid.crs
            )
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                # A scene without a CRS gives layers without one.
                frame.to_file(
                    temporary,
                    layer=layer.name,
                    driver="GPKG",
                    engine="pyogrio",
                    geometry_name=GEOMETRY,
                    VERSION="1.2",
                )
        style_geopackage(temporary, {layer.name: layer.qml for layer in layers})


def boxes(grid: Grid, windows: Sequence[Window]) -> npt.NDArray[np.object_]:
    """Return the outlines of windows of a grid as polygons, CRS units."""
    corners = [
        [
            grid.transform @ corner
            for corner in (
                (w.col, w.row),
                (w.col_stop, w.row),
                (w.col_stop, w.row_stop),
                (w.col, w.row_stop),
            )
        ]
        for w in windows
    ]
    return np.asarray(shapely.polygons(np.array(corners)))
