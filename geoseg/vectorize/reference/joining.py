"""Joining of traced parts at their seams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.merging import merge_batches
from geoseg.vectorize.reference.chains import (
    CHECKERBOARD,
    IS_VERTEX,
    TURN,
    find_chains,
    walk,
)
from geoseg.vectorize.reference.components import group
from geoseg.vectorize.reference.part import Lines, TracedPart
from geoseg.vectorize.reference.ragged import (
    IntArray,
    flat_index,
    offsets_of,
    take_rows,
)
from geoseg.vectorize.reference.rings import RingBatch

_POLYGONS = 1 << 13
"""Polygons of a batch."""

_ROW = 2**32
"""Step of a corner's key from row to row; columns of a raster are fewer."""


def join_saved(
    paths: Sequence[Path], *, region: Window | None = None
) -> Iterator[PolygonBatch]:
    """Return all polygons of a region from the files of its parts.

    Args:
        paths: Saved parts that fill their region without overlap, in any order.
        region: Their region, where parts were traced before it was known.

    Yields:
        The polygons by their last pixel in row order, some thousands at a time.

    Raises:
        VectorizeError: The parts do not fill one region, or cannot be read.
    """
    if not paths:
        return
    light = [TracedPart.load(path, closed=False) for path in paths]
    if region is not None:
        light = [replace(part, region=region) for part in light]
    transform = light[0].transform
    joined = _in_batches(join_open(light), transform)
    stops = [part.window.row_stop for part in light]
    order = np.lexsort(([part.window.col for part in light], stops))
    closed = (
        (stop, [_closed(paths[index], transform) for index in row])
        for stop, row in groupby(order.tolist(), key=lambda index: stops[index])
    )
    yield from merge_batches(closed, joined)


def _closed(path: Path, transform: Affine) -> Iterator[PolygonBatch]:
    """Read a part's polygons that touch no seam, when the first is asked for."""
    yield from _in_batches(TracedPart.load(path).closed, transform)


def _in_batches(rings: RingBatch, transform: Affine) -> Iterator[PolygonBatch]:
    for start in range(0, len(rings), _POLYGONS):
        index = np.arange(start, min(start + _POLYGONS, len(rings)))
        yield rings.take(index).polygons(transform)


def join_open(parts: Sequence[TracedPart]) -> RingBatch:
    """Return only the polygons that touch a seam; the others are in `part.closed`.

    Args:
        parts: Parts that fill their region without overlap, in any order.

    Raises:
        VectorizeError: The parts do not fill one region.
    """
    parts = [part for part in parts if part.window.height and part.window.width]
    if not parts:
        return RingBatch.empty()
    _check_regions(parts)
    first_label = offsets_of(np.array([len(part.class_id) for part in parts]))
    class_id = np.concatenate([part.class_id for part in parts])
    seams = _match_seams(parts, first_label)

    component = _unite(seams, class_id)
    arms = _gather([part.arms for part in parts], component, first_label)
    along_seams = _seam_lines(seams, class_id, component)
    rings = _gather([part.rings for part in parts], component, first_label)
    joined = _join_lines(_concat([arms, along_seams]))
    return _polygons(_concat([joined, rings]), parts, component)


@dataclass(frozen=True, slots=True, eq=False)
class _Seams:
    """The pixel edges along all seams, walked east or south."""

    corner: npt.NDArray[np.int32]
    """Corner (col, row) where the edge begins, shape (n, 2)."""
    step: npt.NDArray[np.int32]
    """From there to where it ends, (1, 0) or (0, 1), shape (n, 2)."""
    right: IntArray
    """Open component on the right (south or west), -1 for nodata, shape (n,)."""
    left: IntArray
    """Open component on the left (north or east), -1 for nodata, shape (n,)."""


def _check_regions(parts: Sequence[TracedPart]) -> None:
    region = parts[0].region
    if any(part.region != region for part in parts):
        raise VectorizeError("the parts are of several regions; join each on its own")
    filled = sum(part.window.height * part.window.width for part in parts)
    wanted = region.height * region.width
    if filled != wanted:
        raise VectorizeError(
            f"the parts hold {filled} pixels, their region {wanted}; pass each part of "
            "the region once"
        )


def _match_seams(parts: Sequence[TracedPart], first_label: IntArray) -> _Seams:
    """Pair the pixels on both sides of each seam; components are numbered over all."""
    corners, steps, rights, lefts = [], [], [], []
    for right_side, left_side, step in (
        ("top", "bottom", (1, 0)),
        ("right", "left", (0, 1)),
    ):
        keys, right = _side(parts, first_label, right_side)
        other_keys, left = _side(parts, first_label, left_side)
        if not np.array_equal(keys, other_keys):
            raise VectorizeError(
                "the parts do not meet at their seams; pass parts that fill the region "
                "without overlap"
            )
        row, col = np.divmod(keys, _ROW)
        corners.append(np.column_stack([col, row]).astype(np.int32))
        steps.append(np.tile(np.array(step, np.int32), (len(keys), 1)))
        rights.append(right)
        lefts.append(left)
    return _Seams(
        corner=np.concatenate(corners),
        step=np.concatenate(steps),
        right=np.concatenate(rights),
        left=np.concatenate(lefts),
    )


def _side(
    parts: Sequence[TracedPart], first_label: IntArray, side: str
) -> tuple[IntArray, IntArray]:
    """Return where each pixel edge on one side of all parts begins, and its component.

    Returns:
        Keys of the north or west ends of the edges, ascending, and the components.
    """
    keys, labels = [], []
    for part, first in zip(parts, first_label[:-1], strict=True):
        window = part.window
        row = window.row_stop if side == "bottom" else window.row
        col = window.col_stop if side == "right" else window.col
        numbers: npt.NDArray[np.int32] = getattr(part, side)
        along = 1 if side in ("top", "bottom") else _ROW
        keys.append(row * _ROW + col + along * np.arange(len(numbers), dtype=np.int64))
        labels.append(np.where(numbers >= 0, numbers + first, -1))
    key, label = np.concatenate(keys), np.concatenate(labels)
    order = np.argsort(key)
    return key[order], label[order]


def _unite(seams: _Seams, class_id: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Return the joined component of each open component, shape (len(class_id),)."""
    linked = (seams.right >= 0) & (seams.left >= 0)
    right, left = seams.right[linked], seams.left[linked]
    alike = class_id[right] == class_id[left]
    right, left = right[alike], left[alike]
    order = np.argsort(right)
    return group(right[order], left[order], len(class_id))


def _seam_lines(
    seams: _Seams,
    class_id: npt.NDArray[np.uint8],
    component: npt.NDArray[np.int32],
) -> Lines:
    """Return the boundaries that run along seams, a line for each pixel edge."""
    class_or_nodata = np.append(class_id.astype(np.int16), -1)  # [-1]: nodata
    is_boundary = class_or_nodata[seams.right] != class_or_nodata[seams.left]
    end = seams.corner + seams.step
    forward = is_boundary & (seams.right >= 0)
    backward = is_boundary & (seams.left >= 0)
    coords = np.concatenate(
        [
            np.stack([seams.corner[forward], end[forward]], axis=1),
            np.stack([end[backward], seams.corner[backward]], axis=1),
        ]
    )
    return Lines(
        component[np.concatenate([seams.right[forward], seams.left[backward]])],
        coords.reshape(-1, 2),
        np.arange(0, 2 * len(coords) + 1, 2),
    )


def _gather(
    lines: Sequence[Lines], component: npt.NDArray[np.int32], first_label: IntArray
) -> Lines:
    """Return the lines of all parts, labelled by joined component."""
    labelled = [
        Lines(component[line.label + first], line.coords, line.offsets)
        for line, first in zip(lines, first_label[:-1], strict=True)
    ]
    return _concat(labelled)


def _concat(lines: Sequence[Lines]) -> Lines:
    return Lines(
        np.concatenate([line.label for line in lines]),
        np.concatenate([line.coords for line in lines]),
        offsets_of(np.concatenate([np.diff(line.offsets) for line in lines])),
    )


def _join_lines(lines: Lines) -> Lines:
    """Chain lines into rings."""
    if not len(lines.label):
        return lines
    first, last = lines.offsets[:-1], lines.offsets[1:] - 1
    leaving = _direction(lines.coords[first + 1] - lines.coords[first])
    arriving = _direction(lines.coords[last] - lines.coords[last - 1])
    keys = _corner_keys(lines.coords)
    _, corner = np.unique(
        np.concatenate([keys[first], keys[last]]), return_inverse=True
    )
    start, end = np.split(corner, 2)
    code = np.zeros(corner.max() + 1, np.uint8)
    np.bitwise_or.at(code, start, _bit(leaving))
    np.bitwise_or.at(code, end, _bit((arriving + 2) % 4))

    successor = _successors(start, leaving, end, arriving, code, lines.label)
    chains = find_chains(successor)
    items = walk(successor, chains, np.arange(len(chains.head)))

    # a line's last vertex is its successor's first, and that one is a vertex only if
    # the boundary turns or meets another there
    is_kept = np.ones(len(keys), np.bool_)
    is_kept[last] = False
    is_kept[first] = IS_VERTEX[code[start]]
    line_offsets = offsets_of(is_kept)[lines.offsets]
    vertices, item_offsets = take_rows(line_offsets, items)
    return _begin_at_smallest(
        Lines(
            lines.label[chains.head],
            lines.coords[is_kept][vertices],
            item_offsets[offsets_of(chains.sizes)],
        )
    )


def _successors(
    start: IntArray,
    leaving: IntArray,
    end: IntArray,
    arriving: IntArray,
    code: npt.NDArray[np.uint8],
    label: npt.NDArray[np.int32],
) -> IntArray:
    """Return the line that follows each line, shape (n,).

    Args:
        start: Corner that each line leaves, shape (n,).
        leaving: Direction in which it leaves, shape (n,).
        end: Corner where each line arrives, shape (n,).
        arriving: Direction in which it arrives, shape (n,).
        code: Code of each corner.
        label: Component of each line, shape (n,).
    """
    line_at = np.full(4 * len(code), -1, np.int64)
    line_at[4 * start + leaving] = np.arange(len(start))
    onward = TURN[code[end], arriving]
    left = (arriving + 3) % 4
    opposite = line_at[4 * end + left]
    # [-1]: the opposite pixel is nodata
    is_same = np.append(label, -1)[opposite] == label
    successor = line_at[
        4 * end + np.where(is_same & (code[end] == CHECKERBOARD), left, onward)
    ]
    assert successor.min() >= 0, "a boundary ends at a seam"
    assert np.bincount(successor).max() == 1, "two boundaries go on as one"
    return successor


def _begin_at_smallest(rings: Lines) -> Lines:
    """Turn each ring so that it begins at its smallest (row, col) vertex."""
    begin, sizes = rings.offsets[:-1], np.diff(rings.offsets)
    keys = _corner_keys(rings.coords)
    smallest = np.repeat(np.minimum.reduceat(keys, begin), sizes)
    shift = np.flatnonzero(keys == smallest) - begin  # a ring has each vertex once
    place = flat_index(shift, sizes) % np.repeat(sizes, sizes)
    return Lines(
        rings.label, rings.coords[np.repeat(begin, sizes) + place], rings.offsets
    )


def _polygons(
    rings: Lines, parts: Sequence[TracedPart], component: npt.NDArray[np.int32]
) -> RingBatch:
    """Return the polygons that the rings of all joined components make."""
    begin = rings.offsets[:-1]
    # from its smallest vertex an exterior goes east and a hole south
    is_hole = rings.coords[begin, 1] != rings.coords[begin + 1, 1]
    order = np.lexsort((_corner_keys(rings.coords[begin]), is_hole, rings.label))
    vertices, ring_offsets = take_rows(rings.offsets, order)
    count = int(component.max(initial=-1)) + 1
    class_id = np.zeros(count, np.uint8)
    class_id[component] = np.concatenate([part.class_id for part in parts])
    pixels, confidence_sum = np.zeros((2, count), np.int64)
    np.add.at(pixels, component, np.concatenate([part.pixels for part in parts]))
    np.add.at(
        confidence_sum,
        component,
        np.concatenate([part.confidence_sum for part in parts]),
    )
    return RingBatch(
        class_id=class_id,
        pixels=pixels,
        confidence_sum=confidence_sum,
        coords=rings.coords[vertices],
        ring_offsets=ring_offsets,
        polygon_offsets=offsets_of(np.bincount(rings.label, minlength=count)),
    ).sorted()


def _corner_keys(coords: npt.NDArray[np.int32]) -> IntArray:
    """Return numbers that order corners (col, row), shape (n, 2), by row, then col."""
    return coords[:, 1].astype(np.int64) * _ROW + coords[:, 0]


def _direction(step: npt.NDArray[np.int32]) -> IntArray:
    """Return the direction of steps (cols, rows), shape (n, 2), along one axis."""
    col, row = np.sign(step).astype(np.int64).T
    direction: IntArray = np.where(row == 0, 1 - col, 2 - row)
    return direction


def _bit(direction: IntArray) -> npt.NDArray[np.uint8]:
    return np.left_shift(1, direction).astype(np.uint8)
