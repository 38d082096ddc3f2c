"""A scene and a model for bench_chain.py: thousands of polygons a Mpx, with nodata."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window
from record import ROOT
from scipy import ndimage

CLASSES, TILE, STRIDE, FACTOR = 7, 720, 624, 4

Float32Array = npt.NDArray[np.float32]


def save_model(folder: Path) -> Path:
    """A stub of next to no cost: classes are levels of red, logits at stride 4."""
    sys.path.insert(0, str(ROOT / "tests"))
    import stubs

    return stubs.save_stub(
        folder,
        kind="levels",
        num_classes=CLASSES,
        tile_size=TILE,
        output_stride=FACTOR,
    )


def make_scene(path: Path, side: int, times: int = 1) -> None:
    """Write a scene whose red is the class: land cover with small objects on it.

    The upper left corner holds no data, behind a slanted edge, as in most real scenes.

    Args:
        path: A GeoTIFF to make.
        side: Width in pixels, and height of what is repeated.
        times: How often it is, downwards.
    """
    rng = np.random.default_rng(0)
    red = _levels(_field(rng, side), rng)
    rows, cols = np.ogrid[:side, :side]
    red[cols < (side // 8) - rows // 4] = 0
    values = np.stack([red, red, red])  # Bands of a photograph are alike, too.
    # Noise of three bits, as in real scenes, is what decoding costs; it is too weak to
    # change many classes.
    values += rng.integers(0, 8, values.shape, np.uint8)
    values[:, red == 0] = 0
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=times * side, width=side,
        dtype="uint8", nodata=0, crs="EPSG:32631",
        transform=from_origin(5e5, 5.8e6, 0.5, 0.5),
        tiled=True, blockxsize=512, blockysize=512, compress="DEFLATE", predictor=2,
        interleave="pixel", photometric="RGB",
    ) as raster:  # fmt: skip
        for row in range(0, times * side, side):
            raster.write(values, window=Window(0, row, side, side))


def _field(rng: np.random.Generator, side: int) -> Float32Array:
    """Noise of four scales, as wide as large fields and as small as a car."""
    field = np.zeros((side, side), np.float32)
    for scale, weight in ((320, 1.0), (80, 0.55), (20, 0.3), (8, 0.2)):
        count = side // scale + 2
        coarse = rng.standard_normal((count, count)).astype(np.float32)
        fine = ndimage.zoom(coarse, scale, order=1, grid_mode=True, mode="nearest")
        field += weight * fine[:side, :side]
    return field


def _levels(field: Float32Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Cut a field into equally common classes; small blobs of others lie on them."""
    cuts = np.quantile(field[::16, ::16], np.arange(1, CLASSES) / CLASSES)
    index = np.searchsorted(cuts.astype(np.float32), field).astype(np.uint8)
    blobs = rng.integers(0, len(field) - 12, (field.size // 900, 2))
    sizes = rng.integers(4, 12, len(blobs))
    for (row, col), size, value in zip(
        blobs, sizes, rng.integers(0, CLASSES, len(blobs)), strict=True
    ):
        index[row : row + size, col : col + size] = value
    centers = ((np.arange(CLASSES) + 0.5) / CLASSES * 255).round().astype(np.uint8)
    return centers[index] - 3  # Half of the noise.
