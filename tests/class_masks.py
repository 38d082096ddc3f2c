"""Class masks, ways to cut them into parts, and plain references for their polygons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from affine import Affine
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize import (
    PolygonBatch,
    TracedPart,
    join_parts,
    trace_part,
    trace_rows,
)

Mask = npt.NDArray[np.uint8]
Corner = tuple[int, int]

IDENTITY = Affine.identity()


@st.composite
def class_masks(draw: st.DrawFn, *, max_side: int = 12) -> Mask:
    """Draw noise of 1 to 4 classes, with or without nodata: junctions everywhere."""
    classes = [0, 1, 2, 7][: draw(st.integers(1, 4))]
    values = [*classes, NODATA] if draw(st.booleans()) else classes
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=max_side))
    return draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from(values)))


@st.composite
def partitions(draw: st.DrawFn, region: Window) -> list[Window]:
    """Cut a region into rows of segments, shuffled; each row has cuts of its own."""
    windows = []
    for top, bottom in pairwise(_cuts(draw, region.row, region.row_stop)):
        for left, right in pairwise(_cuts(draw, region.col, region.col_stop)):
            windows.append(Window(top, left, bottom - top, right - left))
    return draw(st.permutations(windows))


def _cuts(draw: st.DrawFn, start: int, stop: int) -> list[int]:
    inner = draw(st.lists(st.integers(start, stop), max_size=4))
    return [start, *sorted(inner), stop]


def whole_window(mask: Mask) -> Window:
    """Return the window of a mask that lies at the scene's corner."""
    return Window(0, 0, *mask.shape)


def split(mask: Mask, height: int, width: int) -> list[Window]:
    """Cut a mask into parts of at most height x width pixels."""
    rows, cols = mask.shape
    return [
        Window(row, col, min(height, rows - row), min(width, cols - col))
        for row in range(0, rows, height)
        for col in range(0, cols, width)
    ]


def trace_parts(
    mask: Mask, windows: Sequence[Window], confidence: Mask | None = None
) -> list[TracedPart]:
    """Trace the parts of a mask that lies at the scene's corner."""
    return [
        trace_part(
            mask[window.slices],
            None if confidence is None else confidence[window.slices],
            window,
            region=whole_window(mask),
            transform=IDENTITY,
        )
        for window in windows
    ]


def join(parts: Sequence[TracedPart | Path]) -> PolygonBatch:
    """Return all polygons of some parts."""
    with TemporaryDirectory() as folder:
        return PolygonBatch.concat(list(join_parts(parts, spill=Path(folder))))


def trace_whole(
    mask: Mask, confidence: Mask | None = None, transform: Affine = IDENTITY
) -> PolygonBatch:
    """Return the polygons of a mask that is traced in one piece."""
    with TemporaryDirectory() as folder:
        batches = trace_rows(
            [(mask, confidence)], mask.shape[1], transform=transform, spill=Path(folder)
        )
        return PolygonBatch.concat(list(batches))


def blobs(side: int, classes: int, *, sigma: float, seed: int = 0) -> Mask:
    """Return a class mask like a map's: smooth regions, shape (side, side)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((classes, side, side)).astype(np.float32)
    smooth = [ndimage.gaussian_filter(field, sigma) for field in noise]
    mask: Mask = np.argmax(smooth, axis=0).astype(np.uint8)
    return mask


def component_masks(mask: Mask) -> list[npt.NDArray[np.bool_]]:
    """Return the pixels of each 4-connected component, by its last pixel."""
    found = []
    for value in np.unique(mask[mask != NODATA]):
        labels, count = ndimage.label(mask == value)
        found += [labels == label for label in range(1, count + 1)]
    return sorted(found, key=lambda pixels: int(np.flatnonzero(pixels)[-1]))


def expected_vertices(mask: Mask) -> list[set[Corner]]:
    """Return the vertices (col, row) of each component, corner by corner."""
    padded = np.pad(mask, 1, constant_values=NODATA)
    vertices: list[set[Corner]] = []
    for component in component_masks(mask):
        own = np.pad(component, 1)
        corners = np.ndindex(mask.shape[0] + 1, mask.shape[1] + 1)
        vertices.append(
            {
                (col, row)
                for row, col in corners
                if _is_vertex(
                    padded[row : row + 2, col : col + 2],
                    own[row : row + 2, col : col + 2],
                )
            }
        )
    return vertices


def _is_vertex(classes: Mask, own: npt.NDArray[np.bool_]) -> bool:
    """Tell from the 2 x 2 pixels at a corner whether a component has a vertex there."""
    if not own.any():
        return False
    (a, b), (c, d) = classes.tolist()
    is_node = (a != b) + (c != d) + (a != c) + (b != d) >= 3
    return is_node or int(own.sum()) in (1, 3)


def polygon_rings(batch: PolygonBatch) -> list[list[list[Corner]]]:
    """Return the vertices (col, row) of each ring of each polygon, exterior first."""
    return [
        [
            [(int(col), int(row)) for col, row in ring.coords[:-1]]
            for ring in (polygon.exterior, *polygon.interiors)
        ]
        for polygon in batch.geometries()
    ]


def polygon_vertices(batch: PolygonBatch) -> list[set[Corner]]:
    """Return the vertices (col, row) of each polygon."""
    return [set().union(*rings) for rings in polygon_rings(batch)]


def assert_same_batch(batch: PolygonBatch, expected: PolygonBatch) -> None:
    """Fail unless two batches are equal in every value, dtype and order."""
    for name in PolygonBatch.__slots__:
        found, wanted = getattr(batch, name), getattr(expected, name)
        if name == "geometry":
            assert found.equals(wanted)
        else:
            assert found.dtype == wanted.dtype, name
            np.testing.assert_array_equal(found, wanted, err_msg=name)
