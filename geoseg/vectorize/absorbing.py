"""Absorption of small polygons by their neighbours."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine

from geoseg.vectorize.batch import LAST_ROW, IntArray, PolygonBatch
from geoseg.vectorize.tracing import trace_rows

FloatArray = npt.NDArray[np.float64]
Area = Callable[[PolygonBatch], FloatArray]

_PIXELS = 1 << 24
"""Pixels that are drawn at a time."""


def absorb_small(
    batches: Iterable[PolygonBatch],
    min_area: float,
    *,
    area: Area,
    transform: Affine,
    spill: Path,
) -> Iterator[PolygonBatch]:
    """Give polygons below an area to the neighbour with the longest shared border.

    The smallest goes first; ties go to the first pixel in row order. What it brings
    together of one class becomes one polygon. This is repeated until none is left but
    those that touch nothing but nodata. The result depends on the polygons only, not on
    how the mask was cut. Edges of all polygons of the scene are in memory together.

    Args:
        batches: All polygons of a scene, not simplified.
        min_area: What polygons must have, in the unit of `area`; 0 changes nothing.
        area: Gives the area of each polygon of a batch, shape (n,): its true one in
            square metres, or `lambda batch: batch.pixels` for pixels. Areas of polygons
            that become one are added.
        transform: The one that they were traced with.
        spill: Folder for a temporary file, which holds what memory should not.

    Yields:
        The polygons, by their last pixel in row order; sums are those of all pixels.
    """
    if min_area <= 0:
        yield from batches
        return
    polygons = _Polygons.read(batches, area, transform)
    if not len(polygons.class_id):
        return
    groups = _absorb(polygons, min_area, transform)
    group_of = np.array([groups.find(index) for index in range(len(groups.parent))])
    class_id = np.array(groups.class_id, np.uint8)[group_of]
    yield from _trace_again(polygons, group_of, class_id, transform, spill)


@dataclass(frozen=True, slots=True, eq=False)
class _Polygons:
    """Polygons of a scene and the edges of their rings, region on the right."""

    class_id: npt.NDArray[np.uint8]
    """Class of each polygon, shape (n,)."""
    area: FloatArray
    """What `area` gave for each polygon, shape (n,)."""
    confidence_sum: IntArray
    """Sum of the pixels' confidence, shape (n,)."""
    first: IntArray
    """First pixel of each polygon in row order, as a number, shape (n,)."""
    bounds: npt.NDArray[np.int32]
    """Grid corners around all: col_min, row_min, col_max, row_max, shape (4,)."""
    start: npt.NDArray[np.int32]
    """Where each edge begins, (col, row), shape (m, 2)."""
    step: npt.NDArray[np.int32]
    """From there to where it ends, along one axis, shape (m, 2)."""
    polygon: npt.NDArray[np.int32]
    """Polygon of each edge, shape (m,)."""

    @classmethod
    def read(
        cls, batches: Iterable[PolygonBatch], area: Area, transform: Affine
    ) -> _Polygons:
        """Read batches, each of which can be let go then."""
        class_id, areas, confidence, first, bounds = [], [], [], [], []
        edges = []
        count = 0
        for batch in batches:
            if not len(batch):
                continue
            class_id.append(batch.class_id)
            areas.append(np.asarray(area(batch), np.float64))
            confidence.append(batch.confidence_sum)
            first.append(_pixel(batch.bounds[:, 1], batch.first_col))
            low = batch.bounds[:, :2].min(axis=0)
            high = batch.bounds[:, 2:].max(axis=0)
            bounds.append(np.concatenate([low, high]))
            edges.append(_edges(batch, count, transform))
            count += len(batch)
        if not count:
            nothing = np.zeros((0, 2), np.int32)
            edges = [(nothing, nothing, np.zeros(0, np.int32))]
            bounds = [np.zeros(4, np.int32)]
        corners = np.array(bounds)
        return cls(
            class_id=np.concatenate([*class_id, np.zeros(0, np.uint8)]),
            area=np.concatenate([*areas, np.zeros(0)]),
            confidence_sum=np.concatenate([*confidence, np.zeros(0, np.int64)]),
            first=np.concatenate([*first, np.zeros(0, np.int64)]),
            bounds=np.concatenate(
                [corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)]
            ),
            start=np.concatenate([start for start, _, _ in edges]),
            step=np.concatenate([step for _, step, _ in edges]),
            polygon=np.concatenate([polygon for _, _, polygon in edges]),
        )


def _pixel(row: npt.NDArray[np.int32], col: npt.NDArray[np.int32]) -> IntArray:
    """Return numbers that order pixels by row, then column."""
    number: IntArray = row.astype(np.int64) * LAST_ROW + col
    return number


def _edges(
    batch: PolygonBatch, first: int, transform: Affine
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return start, step and polygon of each edge; polygons count from `first`."""
    _, coords, (ring_offsets, polygon_offsets) = shapely.to_ragged_array(
        batch.geometries()
    )
    inverse = ~transform
    x, y = coords.T
    corners = np.empty(coords.shape, np.int32)
    corners[:, 0] = np.rint(inverse.a * x + inverse.b * y + inverse.c)
    corners[:, 1] = np.rint(inverse.d * x + inverse.e * y + inverse.f)
    begins = np.ones(len(corners), np.bool_)
    begins[ring_offsets[1:] - 1] = False  # a ring's last vertex is its first
    sizes = np.diff(ring_offsets[polygon_offsets])
    polygon = np.repeat(np.arange(first, first + len(sizes), dtype=np.int32), sizes)
    start = np.flatnonzero(begins)
    return corners[start], corners[start + 1] - corners[start], polygon[start]


class _Groups:
    """Polygons that became one, as a forest; roots know the rest."""

    def __init__(self, polygons: _Polygons) -> None:
        self.parent = list(range(len(polygons.class_id)))
        self.class_id: list[int] = polygons.class_id.tolist()
        self.area: list[float] = polygons.area.tolist()
        self.first: list[int] = polygons.first.tolist()

    def find(self, index: int) -> int:
        parent = self.parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def unite(self, kept: int, joined: int) -> None:
        self.parent[joined] = kept
        self.area[kept] += self.area[joined]
        self.first[kept] = min(self.first[kept], self.first[joined])


Borders = dict[int, list[int]]
"""Pixel edges along columns and along rows that are shared, by neighbour."""


def _absorb(polygons: _Polygons, min_area: float, transform: Affine) -> _Groups:
    groups = _Groups(polygons)
    borders = _small_borders(polygons, polygons.area < min_area)
    along_row = float(np.hypot(transform.a, transform.d))
    along_col = float(np.hypot(transform.b, transform.e))

    def length(neighbour: tuple[int, list[int]]) -> tuple[float, int]:
        index, (cols, rows) = neighbour
        return cols * along_row + rows * along_col, -groups.first[index]

    waiting = [(groups.area[i], groups.first[i], i) for i in borders]
    heapq.heapify(waiting)
    while waiting:
        size, _, small = heapq.heappop(waiting)
        if groups.parent[small] != small or groups.area[small] != size:
            continue  # is part of another, or has grown
        around = _merged_borders(groups, small, borders.pop(small))
        if not around:
            continue
        winner, _ = max(around.items(), key=length)
        joined = [
            index
            for index in around
            if index == winner or groups.class_id[index] == groups.class_id[winner]
        ]
        for index in (small, *joined):
            if index != winner:
                groups.unite(winner, index)
        if groups.area[winner] < min_area:
            of_members = [around, *(borders.pop(index) for index in joined)]
            borders[winner] = _sum_borders(of_members)
            entry = groups.area[winner], groups.first[winner], winner
            heapq.heappush(waiting, entry)
    return groups


def _merged_borders(groups: _Groups, own: int, borders: Borders) -> Borders:
    """Return borders by the groups that neighbours are in by now."""
    merged: Borders = {}
    for index, (cols, rows) in borders.items():
        root = groups.find(index)
        if root != own:
            shared = merged.setdefault(root, [0, 0])
            shared[0] += cols
            shared[1] += rows
    return merged


def _sum_borders(members: Iterable[Borders]) -> Borders:
    total: Borders = {}
    for borders in members:
        for index, (cols, rows) in borders.items():
            shared = total.setdefault(index, [0, 0])
            shared[0] += cols
            shared[1] += rows
    return total


def _small_borders(
    polygons: _Polygons, is_small: npt.NDArray[np.bool_]
) -> dict[int, Borders]:
    """Return the borders of small polygons; neighbours share edges vertex by vertex."""
    borders: dict[int, Borders] = {int(i): {} for i in np.flatnonzero(is_small)}
    for axis in (0, 1):  # along rows, along columns
        edges = np.flatnonzero(polygons.step[:, axis])
        start, step = polygons.start[edges], polygons.step[edges]
        low = start[:, axis] + np.minimum(step[:, axis], 0)
        key = _pixel(start[:, 1 - axis], low)
        order = np.argsort(key, kind="stable")
        same = np.flatnonzero(key[order[1:]] == key[order[:-1]])
        one, other = order[same], order[same + 1]
        first, second = polygons.polygon[edges[one]], polygons.polygon[edges[other]]
        lengths = np.abs(step[one, axis])
        kept = is_small[first] | is_small[second]
        for a, b, shared in zip(
            first[kept].tolist(),
            second[kept].tolist(),
            lengths[kept].tolist(),
            strict=True,
        ):
            for own, neighbour in ((a, b), (b, a)):
                if own in borders:
                    borders[own].setdefault(neighbour, [0, 0])[axis] += shared
    return borders


def _trace_again(
    polygons: _Polygons,
    group_of: IntArray,
    class_id: npt.NDArray[np.uint8],
    transform: Affine,
    spill: Path,
) -> Iterator[PolygonBatch]:
    """Trace the mask that groups make; their borders need nodes of their own."""
    classes, number = np.unique(class_id, return_inverse=True)
    value = number.astype(np.uint8) + np.uint8(1)  # 0 is nodata
    first = np.full(len(group_of), np.iinfo(np.int64).max)
    np.minimum.at(first, group_of, polygons.first)
    confidence = np.zeros(len(group_of), np.int64)
    np.add.at(confidence, group_of, polygons.confidence_sum)
    by_pixel = np.argsort(first)
    first, confidence = first[by_pixel], confidence[by_pixel]
    col, row, col_stop, _ = polygons.bounds.tolist()
    for batch in trace_rows(
        ((rows, None) for rows in _draw(polygons, value)),
        col_stop - col,
        transform=transform,
        spill=spill,
        nodata=0,
        origin=(row, col),
    ):
        pixel = _pixel(batch.bounds[:, 1], batch.first_col)
        yield replace(
            batch,
            class_id=classes[batch.class_id - 1],
            confidence_sum=confidence[np.searchsorted(first, pixel)],
        )


def _draw(
    polygons: _Polygons, value: npt.NDArray[np.uint8]
) -> Iterator[npt.NDArray[np.uint8]]:
    """Draw polygons in rows of pixels, by their vertical edges.

    Args:
        polygons: What to draw.
        value: The pixels' value of each polygon, shape (n,).

    Yields:
        Rows of the bounds from the top, (height, width) uint8.
    """
    col_min, row_min, col_max, row_max = polygons.bounds.tolist()
    width = col_max - col_min
    vertical = np.flatnonzero(polygons.step[:, 1])
    start, rise = polygons.start[vertical], polygons.step[vertical, 1]
    top = start[:, 1] + np.minimum(rise, 0) - row_min
    bottom = top + np.abs(rise)
    col = start[:, 0] - col_min
    # northward a polygon begins here, southward it ends
    change = -np.sign(rise) * value[polygons.polygon[vertical]].astype(np.int16)
    order = np.argsort(top, kind="stable")
    top, bottom, col, change = (a[order] for a in (top, bottom, col, change))
    tall = np.maximum.accumulate(bottom)  # all edges before reach no further
    height = max(1, _PIXELS // max(1, width))
    for first in range(0, row_max - row_min, height):
        stop = min(first + height, row_max - row_min)
        chosen = slice(
            int(np.searchsorted(tall, first, side="right")),
            int(np.searchsorted(top, stop)),
        )
        low = np.maximum(top[chosen], first)
        sizes = np.maximum(np.minimum(bottom[chosen], stop) - low, 0)
        ends = np.cumsum(sizes)
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
            low - first - (ends - sizes), sizes
        )
        steps = np.zeros((stop - first, width + 1), np.int16)
        np.add.at(
            steps,
            (rows, np.repeat(col[chosen], sizes)),
            np.repeat(change[chosen], sizes),
        )
        drawn = np.cumsum(steps[:, :width], axis=1, dtype=np.int16)
        yield drawn.astype(np.uint8)
