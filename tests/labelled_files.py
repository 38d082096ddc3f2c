"""Made images with masks in files, and the section `data` that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoseg.config import convert
from geoseg.data.config import DataConfig

CLASSES: tuple[dict[str, Any], ...] = (
    {"id": 1, "name": "water", "color": [0, 0, 255]},
    {"id": 2, "name": "land", "color": [128, 128, 0]},
    {"id": 7, "name": "road", "color": [255, 255, 0]},
)
"""Classes whose ids are not their indices."""


def data(root: Path, **changes: Any) -> DataConfig:  # noqa: ANN401 (keys of a recipe)
    """Return the section `data` of a recipe."""
    keys = {
        "root": str(root),
        "classes": list(CLASSES),
        "resolution": 0.5,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "ignore": [0],
    }
    return convert({**keys, **changes}, DataConfig)


def save(path: Path, pixels: npt.NDArray[np.uint8]) -> Path:
    """Write a picture: (height, width) or (3, height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turned = pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0)
    Image.fromarray(turned).save(path)
    return path


def values(height: int = 40, width: int = 50, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Draw a mask: ids of the classes in patches of 8 pixels, 0 at the top."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([1, 2, 7], (height // 8 + 1, width // 8 + 1))
    mask = np.kron(coarse, np.ones((8, 8), np.int64))[:height, :width]
    mask[:3] = 0
    return mask.astype(np.uint8)


def indices(mask: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8]:
    """Return what a mask of ids means: class indices, 255 for 0."""
    table = np.full(256, 255, np.uint8)
    table[[1, 2, 7]] = [0, 1, 2]
    meant: npt.NDArray[np.uint8] = table[mask]
    return meant


def image_of(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return an image that holds the mask's values in its red band."""
    return np.stack([mask, 2 * mask + 1, 255 - mask])


def write_pair(root: Path, name: str, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Write images/NAME.png and masks/NAME.png; return the mask."""
    mask = values(seed=seed)
    save(root / "images" / f"{name}.png", image_of(mask))
    save(root / "masks" / f"{name}.png", mask)
    return mask
