"""Scenes that are stored as a grid of image and colour-coded mask parts."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from geoseg.data.classes import IGNORE, UNKNOWN, ClassTable, refuse_or_warn
from geoseg.data.labelled import LabelledScene
from geoseg.errors import ConfigError, SceneError
from geoseg.io.labels import pack_colors, read_picture


@dataclass(frozen=True, slots=True)
class PartIndex:
    """What `index.csv` says: which parts a scene has, and where they belong."""

    root: Path
    rows: tuple[dict[str, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scenes, sorted."""
        return tuple(sorted({row["scene"] for row in self.rows}))


def read_part_index(root: Path) -> PartIndex:
    """Read the index of a folder of scenes in parts.

    The folder holds `index.csv` (scene, part, grid_row, grid_col), and per scene
    `images/*.jpg` and `masks/*.png`, as in the MBRSC aerial data of Dubai.

    Raises:
        ConfigError: There is none.
    """
    if not (root / "index.csv").is_file():
        raise ConfigError(
            f"{root} holds no index.csv; set data.root to the folder of the labelled "
            "scenes"
        )
    with (root / "index.csv").open(newline="") as stream:
        return PartIndex(root, tuple(csv.DictReader(stream)))


def load_part_scene(root: Path, scene: str, table: ClassTable) -> LabelledScene:
    """Load a scene that is stored in parts, its parts joined.

    Args:
        root: The folder, see `read_part_index`.
        scene: Name of the scene.
        table: Classes with their colours in the masks.

    Raises:
        ConfigError: The folder or the scene is not there.
        SceneError: A part cannot be read, or a mask has colours without a meaning.
    """
    index = read_part_index(root)
    if scene not in index.names:
        raise ConfigError(f"scene {scene} is not in {root}; it has {list(index.names)}")
    parts = [row for row in index.rows if row["scene"] == scene]
    return _join(root / scene, parts, table)


def _join(
    folder: Path, parts: Sequence[dict[str, str]], table: ClassTable
) -> LabelledScene:
    coding = table.coding(colored=True)
    unknown: Counter[str] = Counter()
    pixels = 0
    grid: dict[tuple[int, int], tuple[npt.NDArray[np.uint8], ...]] = {}
    for part in parts:
        name = part["part"]
        image = read_picture(folder / "images" / f"{name}.jpg")
        colors = read_picture(folder / "masks" / f"{name}.png")
        if image.shape != colors.shape:
            raise SceneError(
                f"{folder / 'images' / name}.jpg has {image.shape[1:]} pixels and its "
                f"mask {colors.shape[1:]}; they must be of one size"
            )
        packed = pack_colors(colors)
        labels = coding.labels(packed)
        unexplained = labels == UNKNOWN
        unknown += coding.count(packed, unexplained)
        pixels += labels.size
        labels[unexplained] = IGNORE
        grid[int(part["grid_row"]), int(part["grid_col"])] = (image, labels)
    refuse_or_warn(table.unknown, unknown, pixels, str(folder / "masks"))
    rows = sorted({row for row, _ in grid})
    cols = sorted({col for _, col in grid})
    image, labels = (
        np.concatenate(
            [np.concatenate([grid[r, c][i] for c in cols], axis=-1) for r in rows],
            axis=-2,
        )
        for i in (0, 1)
    )
    return LabelledScene(folder.name, np.ascontiguousarray(image), labels)
