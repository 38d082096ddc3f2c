"""Scenes that are stored as a grid of image and colour-coded mask parts."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geoseg.data.classes import IGNORE, UNKNOWN, ClassTable, refuse_or_warn
from geoseg.data.labelled import LabelledScene
from geoseg.errors import ConfigError, SceneError
from geoseg.io.labels import pack_colors, read_picture

_COLUMNS = ("scene", "part", "grid_row", "grid_col")
"""Of the index."""


class _Part(NamedTuple):
    """A line of the index."""

    scene: str
    name: str
    row: int
    col: int


@dataclass(frozen=True, slots=True)
class PartIndex:
    """What `index.csv` says: which parts a scene has, and where they belong."""

    root: Path
    rows: tuple[_Part, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scenes, sorted."""
        return tuple(sorted({row.scene for row in self.rows}))


def read_part_index(root: Path) -> PartIndex:
    """Read the index of a folder of scenes in parts.

    The folder holds `index.csv` (scene, part, grid_row, grid_col), and per scene
    `images/*.jpg` and `masks/*.png`, as in the MBRSC aerial data of Dubai.

    Raises:
        ConfigError: There is none, or a line that says something else.
    """
    path = root / "index.csv"
    if not path.is_file():
        raise ConfigError(
            f"{root} holds no index.csv; set data.root to the folder of the labelled "
            "scenes, or write one: scene, part, grid_row and grid_col of each part"
        )
    # What spreadsheets write begins with a mark of the encoding.
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        try:
            named = reader.fieldnames or ()
            if missing := [name for name in _COLUMNS if name not in named]:
                raise ValueError(f"there is no column {missing[0]}")
            parts = [_part(row) for row in reader]
        except (TypeError, ValueError, csv.Error) as error:
            raise ConfigError(
                f"{path}, line {reader.line_num}: {error} (a line is scene, part, "
                "grid_row and grid_col, with commas between them; the first one names "
                "these); correct it"
            ) from error
    if not parts:
        raise ConfigError(f"{path} names no part; write a line for each of a scene")
    return PartIndex(root, tuple(parts))


def _part(row: dict[str, str]) -> _Part:
    if not row["scene"] or not row["part"]:
        raise ValueError("an empty cell")
    return _Part(row["scene"], row["part"], int(row["grid_row"]), int(row["grid_col"]))


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
    parts = [row for row in index.rows if row.scene == scene]
    return _join(root / scene, parts, table)


def _join(folder: Path, parts: Sequence[_Part], table: ClassTable) -> LabelledScene:
    coding = table.coding(colored=True)
    unknown: Counter[str] = Counter()
    pixels = 0
    grid: dict[tuple[int, int], tuple[npt.NDArray[np.uint8], ...]] = {}
    rows, cols = _axes(folder, parts)
    for part in parts:
        name = part.name
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
        grid[part.row, part.col] = (image, labels)
    refuse_or_warn(table.unknown, unknown, pixels, str(folder / "masks"))
    try:
        image, labels = (
            np.concatenate(
                [np.concatenate([grid[r, c][i] for c in cols], axis=-1) for r in rows],
                axis=-2,
            )
            for i in (0, 1)
        )
    except ValueError as error:
        raise SceneError(
            f"the parts of {folder} do not fit each other: those of a row must be of "
            f"one height, and all rows of one width; correct index.csv ({error})"
        ) from error
    return LabelledScene(folder.name, np.ascontiguousarray(image), labels)


def _axes(folder: Path, parts: Sequence[_Part]) -> tuple[list[int], list[int]]:
    """Return the rows and columns of a scene's parts, which fill them once each."""
    rows = sorted({part.row for part in parts})
    cols = sorted({part.col for part in parts})
    taken = Counter((part.row, part.col) for part in parts)
    for place in ((row, col) for row in rows for col in cols):
        if taken[place] != 1:
            count = taken[place] or "no"
            raise SceneError(
                f"index.csv has {count} parts of {folder.name} at row {place[0]}, "
                f"column {place[1]}; correct it"
            )
    return rows, cols
