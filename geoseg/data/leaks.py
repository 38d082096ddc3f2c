"""What a split lets through: one place, or one image, on both of its sides."""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import ProjError
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from geoseg.data.labelled import LabelledScene
from geoseg.errors import GeosegWarning
from geoseg.grid import Grid
from geoseg.io.projection import affine_points, on_points

_LEAST_SHARE = 1e-3
"""Overlap of neighbours that only rounding makes, as a part of the smaller scene."""

_MOST_TOLD = 10
"""Pairs of scenes that a warning names."""

_EDGE_PARTS = 16
"""Straight parts that stand for an edge of a scene in degrees."""


class Placed(Protocol):
    """What is asked of a scene; a `LabelledSource` has it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def path(self) -> Path | None:
        """Its image; None if it is in memory only."""

    @property
    def grid(self) -> Grid:
        """Where it lies."""


InPart = tuple[str, Placed]
"""A part of the split, and a scene in it."""


def warn_of_leaks(parts: Mapping[str, Sequence[Placed]]) -> None:
    """Warn of scenes in different parts that show one place or are one image.

    Places are compared for georeferenced scenes only. Images are the same where their
    files, or their pixels in memory, are equal byte for byte.

    Warns:
        GeosegWarning: There are some: what is measured would be too good.
    """
    placed = [(part, scene) for part, scenes in parts.items() for scene in scenes]
    _warn("the same image", _equal(placed))
    _warn("the same ground", _overlapping(placed))


def _warn(what: str, pairs: Iterator[str]) -> None:
    told = list(itertools.islice(pairs, _MOST_TOLD + 1))
    if told:
        more = "; and more" if len(told) > _MOST_TOLD else ""
        warnings.warn(
            f"scenes on different sides of the split show {what}, so that scores will "
            f"be too good: {'; '.join(told[:_MOST_TOLD])}{more}; put them in one part",
            GeosegWarning,
            stacklevel=4,
        )


def _overlapping(placed: Sequence[InPart]) -> Iterator[str]:
    """Say which scenes of different parts overlap, and by how much."""
    found = [(part, s.name, _footprint(s.grid)) for part, s in placed if s.grid.crs]
    footprints = np.array([footprint for _, _, footprint in found], dtype=object)
    for i, j in shapely.STRtree(footprints).query(footprints).T:
        if i >= j or found[i][0] == found[j][0]:
            continue
        shared = shapely.intersection(footprints[i], footprints[j])
        smaller = min(shapely.area(footprints[i]), shapely.area(footprints[j]))
        if smaller > 0 and (share := shapely.area(shared) / smaller) > _LEAST_SHARE:
            yield f"{_told(*found[i][:2])} and {_told(*found[j][:2])} ({share:.1%})"


def _footprint(grid: Grid) -> BaseGeometry:
    """Return the outline of a scene in degrees; empty where its CRS ends.

    And where no way leads there: local grids, other planets.
    """
    frame = shapely.box(0, 0, grid.width, grid.height)
    longest = max(grid.width, grid.height)
    edges = shapely.segmentize(frame, longest / _EDGE_PARTS)
    outline = shapely.transform(edges, affine_points(grid.transform))
    try:
        to_degrees = pyproj.Transformer.from_crs(
            pyproj.CRS.from_wkt(str(grid.crs)), "EPSG:4326", always_xy=True
        )
    except ProjError:
        return shapely.Polygon()
    degrees = shapely.transform(outline, on_points(to_degrees.transform))
    points = shapely.get_coordinates(degrees)
    if not np.isfinite(points).all():
        return shapely.Polygon()
    turned = np.where(points[:, 0] < 0, points[:, 0] + 360, points[:, 0])
    # Across the date line: 179 and 181, not -179. What is wide either way goes around.
    if np.ptp(points[:, 0]) > 180 >= np.ptp(turned):
        points[:, 0] = turned
        degrees = shapely.set_coordinates(degrees, points)
    return _wrapped(shapely.make_valid(degrees))


def _wrapped(shape: BaseGeometry) -> BaseGeometry:
    """Cut at the date line: 179 to 181 is 179 to 180 and -180 to -179."""
    left, _, right, _ = shape.bounds
    if left >= -180 and right <= 180:
        return shape
    turns = range(math.floor((left + 180) / 360), math.ceil((right + 180) / 360))
    world = shapely.box(-180, -90, 180, 90)
    moved = [translate(shape, xoff=-360 * turn) for turn in turns]
    return shapely.union_all(shapely.intersection(moved, world))


def _equal(placed: Sequence[InPart]) -> Iterator[str]:
    """Say which scenes of different parts are one image; hashes what may be."""
    by_size: dict[tuple[str, int], list[InPart]] = defaultdict(list)
    for part, scene in placed:
        by_size[_size(scene)].append((part, scene))
    for alike in by_size.values():
        if len({part for part, _ in alike}) < 2:
            continue
        by_digest: dict[bytes, list[InPart]] = defaultdict(list)
        for part, scene in alike:
            by_digest[_digest(scene)].append((part, scene))
        for same in by_digest.values():
            for (part, scene), (other, twin) in itertools.combinations(same, 2):
                if part != other:
                    yield f"{_told(part, scene.name)} and {_told(other, twin.name)}"


def _size(scene: Placed) -> tuple[str, int]:
    """Return what equal images have in common, without a look at their bytes."""
    if isinstance(scene, LabelledScene):
        return "memory", scene.image.nbytes
    if scene.path is not None and scene.path.is_file():
        return "file", scene.path.stat().st_size
    return scene.name, 0  # Of another machine: not fetched for this.


def _digest(scene: Placed) -> bytes:
    if isinstance(scene, LabelledScene):
        return hashlib.sha256(scene.image.tobytes()).digest()
    if scene.path is None or not scene.path.is_file():
        return scene.name.encode()
    with scene.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _told(part: str, name: str) -> str:
    return f"{name} ({part})"
