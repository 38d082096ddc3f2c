"""Labelled scenes held in memory: an image and its class indices, pixel by pixel."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoseg.errors import ConfigError

IGNORE = 255
"""Class index of a pixel without a label."""


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """One scene with its labels."""

    name: str
    image: npt.NDArray[np.uint8]
    """(3, height, width), 0-255."""
    labels: npt.NDArray[np.uint8]
    """(height, width), index into the class table, `IGNORE` where unlabelled."""


def load_part_scenes(
    root: Path, scenes: Sequence[str], classes: Sequence[str]
) -> list[LabelledScene]:
    """Load scenes that are stored as a grid of image and colour-coded mask parts.

    The folder holds `index.csv` (scene, part, grid_row, grid_col), `labels.json`
    (colour of each class name), and per scene `images/*.jpg` and `masks/*.png`, as in
    the MBRSC aerial data of Dubai.

    Args:
        root: The folder.
        scenes: Names of the scenes to load.
        classes: Class names, in the order of their indices; others are ignored.

    Returns:
        Scenes in the order asked for, their parts joined.

    Raises:
        ConfigError: The folder, a scene or a class is not there.
    """
    if not (root / "index.csv").is_file():
        raise ConfigError(
            f"{root} holds no index.csv; set data.root to the folder of the labelled "
            "scenes"
        )
    palette = _palette(root / "labels.json", classes)
    with (root / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    known = sorted({row["scene"] for row in rows})
    loaded = []
    for scene in scenes:
        if scene not in known:
            raise ConfigError(f"scene {scene} is not in {root}; it has {known}")
        parts = [row for row in rows if row["scene"] == scene]
        loaded.append(_join(root / scene, parts, palette))
    return loaded


def _palette(path: Path, classes: Sequence[str]) -> dict[tuple[int, int, int], int]:
    """Colour -> class index; a class is matched by the first word of its name."""
    colors = {}
    for entry in json.loads(path.read_text())["classes"]:
        name = entry["name"].split()[0]
        if name in classes:
            color = bytes.fromhex(entry["colour"].lstrip("#"))
            colors[(color[0], color[1], color[2])] = list(classes).index(name)
    missing = set(classes) - {list(classes)[index] for index in colors.values()}
    if missing:
        raise ConfigError(f"{path} has no colour for the classes {sorted(missing)}")
    return colors


def _join(
    folder: Path,
    parts: Sequence[dict[str, str]],
    palette: dict[tuple[int, int, int], int],
) -> LabelledScene:
    grid: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
    for part in parts:
        image = np.asarray(
            Image.open(folder / "images" / f"{part['part']}.jpg").convert("RGB")
        )
        colors = np.asarray(
            Image.open(folder / "masks" / f"{part['part']}.png").convert("RGB")
        )
        labels = np.full(colors.shape[:2], IGNORE, np.uint8)
        for color, index in palette.items():
            labels[(colors == np.array(color, np.uint8)).all(-1)] = index
        place = (int(part["grid_row"]), int(part["grid_col"]))
        grid[place] = (image.transpose(2, 0, 1), labels)
    rows = sorted({row for row, _ in grid})
    cols = sorted({col for _, col in grid})
    image = np.concatenate(
        [np.concatenate([grid[r, c][0] for c in cols], axis=2) for r in rows], axis=1
    )
    labels = np.concatenate(
        [np.concatenate([grid[r, c][1] for c in cols], axis=1) for r in rows], axis=0
    )
    return LabelledScene(folder.name, np.ascontiguousarray(image), labels)
