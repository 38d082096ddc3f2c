"""Made scenes with labels, in memory and as the folders that training reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoseg.data.labelled import IGNORE

CLASSES = ("water", "land", "road")
COLORS = ((0, 0, 255), (128, 128, 0), (255, 255, 0))


def draw(
    height: int, width: int, *, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Draw an image whose colour tells the class, and its labels, some unlabelled."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, len(CLASSES), (height // 16 + 1, width // 16 + 1))
    labels = np.kron(coarse, np.ones((16, 16), np.int64))[:height, :width]
    shades = np.array([[20, 40, 200], [150, 140, 60], [230, 230, 230]])
    image = shades[labels].transpose(2, 0, 1) + rng.integers(
        -15, 16, (3, height, width)
    )
    labels[:5] = IGNORE
    return image.clip(0, 255).astype(np.uint8), labels.astype(np.uint8)


def write(root: Path, scenes: Sequence[str], *, side: int = 48) -> Path:
    """Write scenes of 2 x 2 parts with colour-coded masks."""
    rows = []
    root.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(scenes):
        image, labels = draw(2 * side, 2 * side, seed=number)
        colors = np.zeros((*labels.shape, 3), np.uint8)
        for index, color in enumerate(COLORS):
            colors[labels == index] = color
        for kind in ("images", "masks"):
            (root / scene / kind).mkdir(parents=True)
        for part in range(4):
            row, col = divmod(part, 2)
            rows.append((scene, f"part-{part}", row, col))
            place = np.s_[row * side : (row + 1) * side, col * side : (col + 1) * side]
            Image.fromarray(image.transpose(1, 2, 0)[place]).save(
                root / scene / "images" / f"part-{part}.jpg", quality=95
            )
            Image.fromarray(colors[place]).save(
                root / scene / "masks" / f"part-{part}.png"
            )
    with (root / "index.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("scene", "part", "grid_row", "grid_col"))
        writer.writerows(rows)
    entries = [
        {"name": f"{name} (all of it)", "colour": to_hex(color)}
        for name, color in zip(CLASSES, COLORS, strict=True)
    ]
    entries.append({"name": "unlabeled", "colour": "#000000"})
    (root / "labels.json").write_text(json.dumps({"classes": entries}))
    return root


def to_hex(color: tuple[int, int, int]) -> str:
    """Write a colour as HTML does."""
    return f"#{bytes(color).hex()}"
