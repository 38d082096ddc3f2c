"""Tracing of one part of a class mask."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize.reference.boundaries import (
    Corners,
    Edges,
    Seams,
    find_corners,
    find_edges,
)
from geoseg.vectorize.reference.chains import find_chains, walk
from geoseg.vectorize.reference.components import Components, label_components
from geoseg.vectorize.reference.part import Lines, TracedPart
from geoseg.vectorize.reference.ragged import IntArray, offsets_of
from geoseg.vectorize.reference.rings import RingBatch


def trace_part(
    class_mask: npt.NDArray[np.uint8],
    confidence: npt.NDArray[np.uint8] | None,
    window: Window,
    *,
    region: Window,
    transform: Affine,
    nodata: int = NODATA,
) -> TracedPart:
    """Trace the polygons of one part of a class mask.

    Args:
        class_mask: Class of each pixel of the part, shape (height, width).
        confidence: Percent of each pixel, same shape; None gives sums of 0.
        window: Where the part lies, in pixels of the scene; may be empty.
        region: What all parts together fill, in pixels of the scene. Its sides are
            boundaries; the other sides of the part are seams.
        transform: Grid corners (col, row) of the scene to CRS coordinates.
        nodata: Class of pixels that get no polygon.
    """
    seams = Seams(
        top=window.row > region.row,
        bottom=window.row_stop < region.row_stop,
        left=window.col > region.col,
        right=window.col_stop < region.col_stop,
    )
    if not class_mask.size:
        return _empty_part(window, region, transform)
    components = label_components(class_mask, confidence)
    numbers, borders = _open_components(components, seams, nodata)
    corners = find_corners(class_mask, seams, nodata)
    edges = find_edges(corners, components, numbers >= 0, nodata)
    lines = _trace_lines(corners, edges, components, numbers >= 0)
    coords = np.column_stack([corners.col[lines.corner], corners.row[lines.corner]])
    coords += window.col, window.row

    opened = np.flatnonzero(numbers >= 0)
    closed, rings, arms = lines.split(coords.astype(np.int32))
    return TracedPart(
        window=window,
        region=region,
        transform=transform,
        closed=_polygons(closed, components),
        class_id=components.class_id[opened],
        pixels=components.pixels[opened],
        confidence_sum=components.confidence_sum[opened],
        arms=Lines(numbers[arms.label], arms.coords, arms.offsets),
        rings=Lines(numbers[rings.label], rings.coords, rings.offsets),
        **borders,
    )


def _empty_part(window: Window, region: Window, transform: Affine) -> TracedPart:
    nothing = RingBatch.empty()
    none = np.zeros(0, np.int32)
    return TracedPart(
        window=window,
        region=region,
        transform=transform,
        closed=nothing,
        class_id=nothing.class_id,
        pixels=nothing.pixels,
        confidence_sum=nothing.confidence_sum,
        arms=Lines.empty(),
        rings=Lines.empty(),
        top=none,
        bottom=none,
        left=none,
        right=none,
    )


def _open_components(
    components: Components, seams: Seams, nodata: int
) -> tuple[npt.NDArray[np.int32], dict[str, npt.NDArray[np.int32]]]:
    """Number the components that touch a seam.

    Returns:
        The number of each component, -1 if it is closed or nodata, and the numbers
        along each side of the part.
    """
    run_ids = components.run_ids
    sides = {
        "top": run_ids[0, : None if seams.top else 0],
        "bottom": run_ids[-1, : None if seams.bottom else 0],
        "left": run_ids[: None if seams.left else 0, 0],
        "right": run_ids[: None if seams.right else 0, -1],
    }
    borders = {side: components.run_labels[runs] for side, runs in sides.items()}
    is_open = np.zeros(len(components.class_id), np.bool_)
    is_open[np.concatenate(list(borders.values()))] = True
    is_open &= components.class_id != nodata
    numbers = np.full(len(is_open), -1, np.int32)
    numbers[is_open] = np.arange(np.count_nonzero(is_open))
    return numbers, {side: numbers[labels] for side, labels in borders.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _TracedLines:
    """All boundaries: rings of closed components, rings of open ones, then arms."""

    corner: IntArray
    """Vertices of all lines, as indices into `Corners`, shape (m,)."""
    offsets: IntArray
    """First vertex of each line, and their end, shape (n + 1,)."""
    label: npt.NDArray[np.int32]
    """Component of each line, shape (n,)."""
    kind: npt.NDArray[np.uint8]
    """0, 1 or 2 as above, ascending, shape (n,)."""

    def split(self, coords: npt.NDArray[np.int32]) -> list[Lines]:
        """Return the lines of each kind.

        Args:
            coords: Vertices as (col, row), shape (m, 2).
        """
        bounds = np.searchsorted(self.kind, np.arange(4))
        return [
            Lines(
                self.label[start:stop],
                coords[self.offsets[start] : self.offsets[stop]],
                self.offsets[start : stop + 1] - self.offsets[start],
            )
            for start, stop in pairwise(bounds.tolist())
        ]


def _trace_lines(
    corners: Corners,
    edges: Edges,
    components: Components,
    is_open: npt.NDArray[np.bool_],
) -> _TracedLines:
    """Chain the edges.

    Edges are in raster order of the corner they leave, so a ring begins at its smallest
    corner. From there an exterior goes east and a hole south.
    """
    chains = find_chains(edges.successor)
    direction = edges.direction[chains.head]
    label = corners.label(components, edges.corner[chains.head], direction)
    kind = np.where(chains.is_ring, is_open[label], 2).astype(np.uint8)
    order = np.lexsort((chains.head, direction, label, kind))
    items = walk(edges.successor, chains, order)
    return _TracedLines(
        corner=edges.corner[items],
        offsets=offsets_of(chains.sizes[order]),
        label=label[order],
        kind=kind[order],
    )


def _polygons(rings: Lines, components: Components) -> RingBatch:
    """Return the polygons of rings, which are grouped by component, exterior first."""
    first = np.flatnonzero(np.diff(rings.label, prepend=-1))
    label = rings.label[first]
    return RingBatch(
        class_id=components.class_id[label],
        pixels=components.pixels[label],
        confidence_sum=components.confidence_sum[label],
        coords=rings.coords,
        ring_offsets=rings.offsets,
        polygon_offsets=np.append(first, len(rings.label)),
    ).sorted()
