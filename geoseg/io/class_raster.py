"""Class rasters of any origin: which band, what is nodata, and pixels by rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from geoseg.errors import SceneError, UsageError
from geoseg.grid import Grid, Window
from geoseg.io.gdal import (
    RasterReader,
    absolute,
    files_behind,
    gdal_env,
    open_dataset,
    scene_errors,
)
from geoseg.io.legend import Legend, read_legend
from geoseg.io.radiometry import alpha_band, data_bands
from geoseg.io.raster import locating_hint, native_grid, no_bands
from geoseg.io.validity import has_mask, read_bands

_STRIP_PIXELS = 1 << 22
"""Pixels that are read at a time, or one row of blocks if that is more."""

_MOST_PIXELS = 1 << 26
"""Pixels of a row of blocks above which it is read in pieces."""

_MOST_RANGE = 1 << 16
"""From the least to the largest value of a strip, up to which a list counts them."""

_MOST_VALUES = 4096
"""Different values above which a raster holds no classes."""

_LARGEST_EXACT = (1 << 53) - 1
"""Nodata values are read as float64, also those of 64-bit pixels."""

_LISTED = 20
"""Bands that a message lists: a broken file may have 65,535."""

Values = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class ClassRaster:
    """One band of class ids and how it is read; plain values, no open file."""

    path: str
    """Absolute path, or whatever else GDAL opens."""
    band: int
    """Band that holds the classes, 1-based."""
    dtype: str
    """Its dtype, of whole numbers."""
    grid: Grid
    """Where its pixels lie."""
    nodata: int | None
    """Value of pixels without data."""
    alpha: int | None
    """Alpha band, 1-based."""
    mask: bool
    """A mask band hides pixels, or a list of nodata values by band."""
    rows: int
    """Rows that are read together: whole blocks of the file."""
    legend: Legend
    """Names and colours that the file has for its values."""
    tags: dict[str, str]
    """Metadata of the file."""
    hint: str
    """How it gets a CRS, if it has none."""
    files: tuple[str, ...]
    """Local files that it is read from: also sources of VRTs, archives."""

    @property
    def masked(self) -> bool:
        """Whether more than the nodata value hides pixels."""
        return self.mask or self.alpha is not None


def open_class_raster(
    path: str | Path,
    *,
    band: int | None = None,
    nodata: int | None = None,
    percents: bool = False,
) -> ClassRaster:
    """Look at a class raster; reads no pixel.

    Args:
        path: File, or anything else that GDAL opens as a raster.
        band: Band of the classes, 1-based; None takes the only one.
        nodata: Replaces the file's own nodata value.
        percents: It holds no classes but their confidence.

    Raises:
        SceneError: It cannot be read, or its pixels are no whole numbers; of percents,
            no bytes.
        UsageError: There are several bands, or not the one asked for, or its pixels
            cannot be `nodata`.
    """
    name = absolute(path)
    with open_dataset(name) as dataset, gdal_env(), scene_errors(name):
        if dataset.count == 0:
            raise SceneError(no_bands(dataset))
        chosen = _choose_band(dataset, band, percents=percents)
        dtype = _choose_dtype(dataset, chosen, percents=percents)
        return ClassRaster(
            path=name,
            band=chosen,
            dtype=str(dtype),
            grid=native_grid(dataset),
            nodata=_choose_nodata(dataset, chosen, dtype, nodata),
            alpha=alpha_band(dataset, (chosen,)),
            mask=has_mask(dataset, chosen, replaced=nodata is not None),
            rows=_rows(dataset, chosen),
            legend=read_legend(dataset, chosen),
            tags=dataset.tags(),
            hint=locating_hint(dataset),
            files=files_behind(dataset),
        )


class ClassReader(RasterReader):
    """Reads windows of a class raster through one open file; belongs to one thread."""

    def __init__(self, raster: ClassRaster) -> None:
        """Keep the raster; the file is opened by `with`."""
        super().__init__(raster.path)
        self.raster = raster

    def read(self, window: Window) -> tuple[Values, npt.NDArray[np.bool_] | None]:
        """Read one window.

        Returns:
            Values, shape (height, width), and where mask and alpha show them; None
            where there is neither. Pixels of the nodata value are not looked for.

        Raises:
            SceneError: The file is truncated or corrupt.
        """
        raster = self.raster
        with gdal_env(), scene_errors(raster.path):
            pixels, shown = read_bands(
                self.dataset,
                [raster.band],
                window,
                alpha=raster.alpha,
                masked=raster.mask,
            )
        values: Values = pixels[0]
        return values, shown


def hidden_pixels(
    raster: ClassRaster, values: Values, shown: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_]:
    """Tell which pixels hold no data.

    Args:
        raster: Where they were read from.
        values: Values of `ClassReader.read`, shape (height, width).
        shown: What comes with them, same shape.
    """
    hidden = np.zeros(values.shape, np.bool_) if shown is None else ~shown
    if raster.nodata is not None:
        hidden |= values == raster.nodata
    return hidden


def strips(raster: ClassRaster) -> Iterator[Window]:
    """Cut a raster into the windows that it is read by, from the top."""
    for row in range(0, raster.grid.height, raster.rows):
        height = min(raster.rows, raster.grid.height - row)
        yield Window(row, 0, height, raster.grid.width)


def count_values(
    raster: ClassRaster, rows_done: Callable[[int], None]
) -> dict[int, int]:
    """Read a raster and return the pixels of each value that is not hidden.

    Args:
        raster: What to read.
        rows_done: Told of rows that were read.

    Raises:
        SceneError: There are so many values that they can be no classes.
    """
    counts: Counter[int] = Counter()
    with ClassReader(raster) as reader:
        for window in strips(raster):
            values, shown = reader.read(window)
            flat = values.ravel() if shown is None else values[shown]
            counts.update(_counted(flat))
            rows_done(window.height)
            if len(counts) > _MOST_VALUES:
                raise SceneError(
                    f"{raster.path} holds over {_MOST_VALUES} different values, so "
                    "they are no classes; reclassify it first, or choose another "
                    "--band"
                )
    if raster.nodata is not None:
        counts.pop(raster.nodata, None)
    return dict(sorted(counts.items()))


def _counted(values: Values) -> dict[int, int]:
    """Return how often each value occurs."""
    if not len(values):
        return {}
    low, high = int(values.min()), int(values.max())
    if high - low > _MOST_RANGE:
        found, often = np.unique(values, return_counts=True)
    else:
        # Many times faster than sorting.
        counts = np.bincount(_above(values, low))
        found = np.flatnonzero(counts)
        often = counts[found]
        return {
            low + value: count
            for value, count in zip(found.tolist(), often.tolist(), strict=True)
        }
    return dict(zip(found.tolist(), often.tolist(), strict=True))


def _above(values: Values, low: int) -> Values:
    """Return by how much values are above the least, for `bincount`.

    The least may be any number of 64 bits, and the sign of small ones would overflow.
    """
    if values.dtype.kind == "u":
        above = values if low == 0 else values - values.dtype.type(low)
        return above if above.itemsize < 8 else above.astype(np.int64)
    return values.astype(np.int64) - low


def check_same_grid(raster: ClassRaster, other: ClassRaster) -> None:
    """Refuse a second raster whose pixels lie elsewhere.

    Raises:
        UsageError: Size, CRS, or a corner by over a thousandth of a pixel differs.
    """
    own, theirs = raster.grid, other.grid
    difference = None
    if own.shape != theirs.shape:
        difference = f"{_size(theirs)} instead of {_size(own)}"
    elif _crs(own) != _crs(theirs):
        difference = "another CRS"
    else:
        for corner in ((0, 0), (own.width, 0), (0, own.height)):
            col, row = ~own.transform @ (theirs.transform @ corner)
            if abs(col - corner[0]) > 1e-3 or abs(row - corner[1]) > 1e-3:
                difference = "pixels that lie elsewhere"
    if difference is not None:
        raise UsageError(
            f"{other.path} is not on the grid of {raster.path}: it has {difference}; "
            "warp it to that grid, for example with gdalwarp -te -tr -t_srs"
        )


def _size(grid: Grid) -> str:
    return f"{grid.height} x {grid.width} pixels"


def _crs(grid: Grid) -> CRS | None:
    return None if grid.crs is None else CRS.from_wkt(grid.crs)


def _choose_band(dataset: DatasetReader, band: int | None, *, percents: bool) -> int:
    bands = data_bands(dataset)
    if band is None and len(bands) == 1:
        return bands[0]
    if band is not None and 1 <= band <= dataset.count:
        return band
    listed = ", ".join(_describe(dataset, number) for number in bands[:_LISTED] or (1,))
    if len(bands) > _LISTED:
        listed += f", and {len(bands) - _LISTED} more"
    count = "1 band" if dataset.count == 1 else f"{dataset.count} bands"
    what = f"{dataset.name} has {count}"
    if percents:
        raise UsageError(
            f"the confidence {what}, and percents are in one; take it out with "
            "gdal_translate -b 1 IN.tif OUT.tif"
        )
    if band is not None:
        raise UsageError(f"{what} and no band {band}; choose one of: {listed}")
    raise UsageError(
        f"{what}, and classes are in one; choose it with --band, one of: {listed}"
    )


def _describe(dataset: DatasetReader, band: int) -> str:
    name = dataset.colorinterp[band - 1].name
    with suppress(UnicodeDecodeError):  # GDAL hands them on in Latin-1, too.
        name = dataset.descriptions[band - 1] or name
    return f"{band} ({name}, {dataset.dtypes[band - 1]})"


def _choose_dtype(
    dataset: DatasetReader, band: int, *, percents: bool
) -> np.dtype[Any]:
    # Text, as numpy has no complex_int16.
    dtype = str(dataset.dtypes[band - 1])
    if percents and dtype != "uint8":
        raise SceneError(
            f"the confidence {dataset.name} is {dtype}, and percents are uint8, 0 to "
            "100; convert it, for example with gdal_translate -ot Byte -scale 0 1 0 100"
        )
    if not dtype.startswith(("int", "uint")):
        raise SceneError(
            f"{dataset.name} is {dtype} in band {band}, and class ids are whole "
            "numbers; if it holds ids all the same, convert it: gdal_translate -ot "
            "Byte IN.tif OUT.tif"
        )
    return np.dtype(dtype)


def _choose_nodata(
    dataset: DatasetReader, band: int, dtype: np.dtype[Any], given: int | None
) -> int | None:
    limits = np.iinfo(dtype)
    if given is not None:
        if not limits.min <= given <= limits.max:
            raise UsageError(
                f"nodata {given} is no value of {dtype}, which {dataset.name} is; use "
                f"{limits.min} to {limits.max}"
            )
        return given
    own = dataset.nodatavals[band - 1]
    if own is None or not float(own).is_integer():
        return None
    if not limits.min <= own <= limits.max:
        return None
    if abs(own) > _LARGEST_EXACT:
        raise UsageError(
            f"the nodata value of {dataset.name} is too large to be read exactly "
            f"(about {own:.6g}); pass it with --nodata"
        )
    return int(own)


def _rows(dataset: DatasetReader, band: int) -> int:
    block = int(dataset.block_shapes[band - 1][0])
    width = int(dataset.width)
    if block * width > _MOST_PIXELS:
        return max(1, _STRIP_PIXELS // width)
    # Ends between blocks would decode a row of blocks twice.
    return max(1, _STRIP_PIXELS // width // block) * block
