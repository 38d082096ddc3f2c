"""Joining of traced parts at their seams."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.merging import merge_batches
from geoseg.vectorize.native import Join, library
from geoseg.vectorize.parts import OpenPart, SavedPart, TracedPart
from geoseg.vectorize.reference.joining import join_saved


def join_parts(
    parts: Sequence[TracedPart | Path], *, spill: Path
) -> Iterator[PolygonBatch]:
    """Join the parts of a region to its polygons.

    Memory is bounded by a row of parts, and by the number of boundaries that are open
    at a seam.

    Args:
        parts: Parts that fill their region without overlap, or paths where they are
            saved, in any order. Each is read once, when it is needed.
        spill: Folder for a temporary file, which holds what memory should not.

    Yields:
        The polygons, by their last pixel in row order: neither their order nor their
        vertices depend on the parts.

    Raises:
        VectorizeError: The parts do not fill one region, or cannot be read.
        OSError: The folder cannot be written to, or is full.
    """
    if library() is None:
        yield from _join_with_numpy(parts, spill)
        return
    opened = [_native(part) for part in parts]
    opened = [part for part in opened if part.window.height and part.window.width]
    if not opened:
        return
    opened.sort(key=lambda part: (part.window.row, part.window.col))
    rows = [list(row) for _, row in groupby(opened, key=lambda part: part.window.row)]
    _check_rows(rows)
    closed = ((row[0].window.row_stop, [part.closed() for part in row]) for row in rows)
    yield from merge_batches(closed, _join_rows(rows, spill))


def _join_rows(parts: list[list[OpenPart]], spill: Path) -> Iterator[PolygonBatch]:
    """Give the polygons across seams."""
    native = library()
    assert native is not None, "the caller has looked"
    first = parts[0][0]
    join = Join(native, first.region, first.transform, spill)
    for row in parts:
        rows = range(row[0].window.row, row[0].window.row_stop)
        yield from join.add_row(rows, ((part.window, part.tables()) for part in row))


def _native(part: TracedPart | Path) -> OpenPart:
    if isinstance(part, Path):
        return SavedPart(part)
    if isinstance(part, OpenPart):
        return part
    raise VectorizeError(
        "a part was traced without native operators; trace and join alike, with or "
        "without GEOSEG_OPS=none"
    )


def _check_rows(rows: list[list[OpenPart]]) -> None:
    """Check that parts fill one region, row by row.

    Raises:
        VectorizeError: They do not.
    """
    parts = [part for row in rows for part in row]
    region = parts[0].region
    if any(part.region != region for part in parts):
        raise VectorizeError("the parts are of several regions; join each on its own")
    if any(part.transform != parts[0].transform for part in parts):
        raise VectorizeError("the parts lie on several grids; join each on its own")
    filled = sum(part.window.height * part.window.width for part in parts)
    wanted = region.height * region.width
    if filled != wanted:
        raise VectorizeError(
            f"the parts hold {filled} pixels, their region {wanted}; pass each part of "
            "the region once"
        )
    top = region.row
    for row in rows:
        left = region.col
        for part in row:
            height, width = row[0].window.height, part.window.width
            if part.window != Window(top, left, height, width):
                raise VectorizeError(
                    f"the parts do not meet at their seams: {part.window} should begin "
                    f"at row {top}, column {left}, {height} pixels high; pass parts "
                    "that fill the region without overlap, in rows"
                )
            left = part.window.col_stop
        top = row[0].window.row_stop


def _join_with_numpy(
    parts: Sequence[TracedPart | Path], spill: Path
) -> Iterator[PolygonBatch]:
    with tempfile.TemporaryDirectory(dir=spill) as folder:
        paths = []
        for index, part in enumerate(parts):
            if isinstance(part, Path):
                paths.append(part)
            else:
                paths.append(Path(folder) / f"{index}.part")
                part.save(paths[-1])
        yield from join_saved(paths)
