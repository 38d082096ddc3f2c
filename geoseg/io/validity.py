"""Which pixels hold data (contract C4): nodata values, alpha and mask bands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import rasterio.windows
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader

from geoseg.grid import Window


def has_mask(dataset: DatasetReader, band: int, *, replaced: bool) -> bool:
    """Tell whether a band has a mask that neither its nodata value nor alpha gives.

    GDAL knows one mask only: it presents a nodata value or alpha as a mask too, and one
    hides the other. They are read as what they are, so that all of them count; a nodata
    value that cannot be told counts as a mask.

    Args:
        dataset: Open raster.
        band: Its band, 1-based.
        replaced: The user gave a nodata value, in place of those that the file has.
    """
    flags = dataset.mask_flag_enums[band - 1]
    if MaskFlags.nodata in flags:
        # Of all bands: the tag NODATA_VALUES, which has a value for each of them.
        # Without a value: the largest of 64 bits, which rasterio cannot tell.
        read = MaskFlags.per_dataset in flags or dataset.nodatavals[band - 1] is None
        return read and not replaced
    return not {MaskFlags.all_valid, MaskFlags.alpha} & set(flags)


def read_bands(
    dataset: DatasetReader,
    bands: Sequence[int],
    window: Window,
    *,
    alpha: int | None,
    masked: bool,
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_] | None]:
    """Read bands of one dtype as they are stored, and what shows their pixels.

    Args:
        dataset: Open raster.
        bands: 1-based bands.
        window: Window of the raster.
        alpha: Its alpha band, 1-based.
        masked: Whether its mask is read, see `has_mask`.

    Returns:
        Pixels, shape (bands, height, width), and which of them neither alpha nor mask
        hides, shape (height, width); None where there is neither.
    """
    place = rasterio.windows.Window(window.col, window.row, window.width, window.height)
    joined = (
        alpha is not None and dataset.dtypes[alpha - 1] == dataset.dtypes[bands[0] - 1]
    )
    # Alpha in the same call: interleaved blocks are then decoded once.
    pixels = dataset.read([*bands, alpha] if joined else [*bands], window=place)
    shown: npt.NDArray[np.bool_] | None = None
    if alpha is not None:
        opacity = pixels[-1] if joined else dataset.read(alpha, window=place)
        shown = opacity != 0
    if masked:
        mask = dataset.read_masks(bands[0], window=place) != 0
        shown = mask if shown is None else shown & mask
    return pixels[: len(bands)], shown


def visible(
    pixels: npt.NDArray[np.generic], nodata: float | None
) -> npt.NDArray[np.bool_]:
    """Tell which pixels their values do not hide.

    A pixel is hidden when all bands hold nodata, or any band is NaN or infinite.

    Args:
        pixels: Shape (bands, height, width).
        nodata: Nodata value or None; NaN hides a pixel already in one band.

    Returns:
        Shape (height, width).
    """
    valid = np.ones(pixels.shape[1:], np.bool_)
    if pixels.dtype.kind == "f":
        largest = np.finfo(np.float32).max  # Beyond it, numbers are infinite to models.
        for band in pixels:
            valid &= np.abs(band) <= largest
    value = _as_dtype(nodata, pixels.dtype)
    if value is not None:
        shown = pixels[0] != value
        for band in pixels[1:]:
            shown |= band != value
        valid &= shown
    return valid


def _as_dtype(nodata: float | None, dtype: np.dtype[np.generic]) -> np.generic | None:
    """Return nodata as a pixel would hold it, None if no pixel can."""
    if nodata is None or math.isnan(nodata):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            value: np.generic = dtype.type(nodata)
        return value
    if not nodata.is_integer():
        return None
    try:
        return dtype.type(int(nodata))
    except OverflowError:
        return None
