"""GeoTIFFs with labels that agree with their colours, more or less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasters import NORTH_UP, write_raster

CLASSES, SHAPE = 4, (150, 170)
Pixels = npt.NDArray[np.uint8]


def draw(seed: int, shape: tuple[int, int] = SHAPE) -> tuple[Pixels, Pixels]:
    """Draw an image whose red value tells the class, and labels that often agree.

    A corner holds no data, another one has no labels.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, CLASSES, (shape[0] // 12 + 1, shape[1] // 12 + 1))
    classes = np.kron(coarse, np.ones((12, 12), np.int64))[: shape[0], : shape[1]]
    red = ((classes + 0.5) * 255 / CLASSES).astype(np.uint8)
    labels = np.where(rng.random(shape) < 0.7, classes, rng.integers(0, 3, shape)) + 1
    red[:20, :30] = 0  # nodata
    labels[-25:, -40:] = 0  # ignored
    return np.stack([red] * 3), labels.astype(np.uint8)


def write_scene(
    root: Path,
    name: str,
    image: Pixels,
    labels: Pixels,
    transform: Affine = NORTH_UP,
) -> None:
    """Write both below `images` and `masks`; 0 is nodata of the image."""
    for folder, pixels, nodata in (("images", image, 0), ("masks", labels, None)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_raster(
            root / folder / f"{name}.tif", pixels, nodata=nodata, transform=transform
        )


def tallied(truth: Pixels, mask: Pixels) -> npt.NDArray[np.int64]:
    """Count pairs of label and mask one value at a time; 255 is the last column."""
    return np.array(
        [
            [np.sum((truth == i) & (mask == j)) for j in (*range(1, CLASSES + 1), 255)]
            for i in range(1, CLASSES + 1)
        ]
    )
