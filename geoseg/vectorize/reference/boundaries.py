"""The boundary edges of one class mask, between the corners that are vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.vectorize.reference.chains import CHECKERBOARD, IS_VERTEX, TURN
from geoseg.vectorize.reference.components import Components
from geoseg.vectorize.reference.ragged import IntArray

# pixel in quadrant 0..3 of a corner, as steps in (row, col) from the corner's own
_ROW_STEP = np.array([0, 0, -1, -1])
_COL_STEP = np.array([0, -1, -1, 0])

_HAS_ONE_EDGE = np.isin(np.arange(16), (1, 2, 4, 8))


@dataclass(frozen=True, slots=True)
class Seams:
    """The sides of a part behind which the scene goes on."""

    top: bool
    bottom: bool
    left: bool
    right: bool


@dataclass(frozen=True, slots=True, eq=False)
class Corners:
    """The corners of a class mask that are vertices, in raster order."""

    row: IntArray
    """Row of the corner, 0..height, shape (n,)."""
    col: IntArray
    """Column of the corner, 0..width, shape (n,)."""
    code: npt.NDArray[np.uint8]
    """Which of the corner's pixel edges are boundaries, shape (n,)."""
    quadrants: npt.NDArray[np.uint8]
    """Class of the four pixels around the corner, shape (n, 4)."""

    def label(
        self, components: Components, corner: IntArray, quadrant: IntArray
    ) -> npt.NDArray[np.int32]:
        """Return the component of the pixel in a corner's quadrant, shape (k,)."""
        row = self.row[corner] + _ROW_STEP[quadrant]
        return components.at(row, self.col[corner] + _COL_STEP[quadrant])


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Straight boundary edges, each with its region on the right, in raster order.

    A boundary that the part cannot follow further has one more edge, of no length, at
    its end: with it the corners of a chain of edges are all the vertices of the chain.
    These come last.
    """

    corner: IntArray
    """Corner that the edge leaves, an index into `Corners`, shape (k,)."""
    direction: IntArray
    """Direction in which it leaves, shape (k,)."""
    successor: IntArray
    """Next edge of the same boundary, -1 if the part has none, shape (k,)."""


def find_corners(
    class_mask: npt.NDArray[np.uint8], seams: Seams, nodata: int
) -> Corners:
    """Find the corners where boundaries turn, meet, or end at a seam.

    Args:
        class_mask: Class of each pixel, shape (height, width), not empty.
        seams: Sides along which it is unknown where boundaries run.
        nodata: Class of pixels without data, and of the outside.
    """
    padded = np.pad(class_mask, 1, constant_values=nodata)
    codes = _corner_codes(padded, seams)
    found = np.flatnonzero(IS_VERTEX.take(codes))
    row, col = np.divmod(found, codes.shape[1])
    pixel = row * padded.shape[1] + col  # north-west of the corner, in `padded`
    around = pixel[:, None] + np.array([1, 0, 0, 1])
    around[:, :2] += padded.shape[1]
    return Corners(row, col, codes.ravel()[found], padded.ravel()[around])


def _corner_codes(padded: npt.NDArray[np.uint8], seams: Seams) -> npt.NDArray[np.uint8]:
    """Return the code of every corner, shape (height + 1, width + 1)."""
    horizontal = (padded[1:] != padded[:-1]).view(np.uint8)
    vertical = (padded[:, 1:] != padded[:, :-1]).view(np.uint8)
    for at_seam, edges in (
        (seams.top, horizontal[0]),
        (seams.bottom, horizontal[-1]),
        (seams.left, vertical[:, 0]),
        (seams.right, vertical[:, -1]),
    ):
        if at_seam:
            edges[:] = 0
    codes: npt.NDArray[np.uint8] = horizontal[:, 1:] | vertical[1:] << 1
    codes |= horizontal[:, :-1] << 2
    codes |= vertical[:-1] << 3
    return codes


def find_edges(
    corners: Corners,
    components: Components,
    is_open: npt.NDArray[np.bool_],
    nodata: int,
) -> Edges:
    """Find the edges between the corners and how they follow each other.

    Args:
        corners: Where edges begin and end.
        components: The components of the class mask.
        is_open: Whether each component goes on in other parts.
        nodata: Class of pixels without data.
    """
    leaving = (corners.code[:, None] >> np.arange(4, dtype=np.uint8) & 1).view(np.bool_)
    leaving &= corners.quadrants != nodata
    slots = np.flatnonzero(leaving)  # 4 * corner + direction
    number = np.full(leaving.size, -1, np.int64)
    number[slots] = np.arange(len(slots))
    direction = slots & 3

    target = _neighbours(corners).ravel()[slots]
    code = corners.code[target]
    onward = TURN[code, direction]
    crossing = np.flatnonzero(code == CHECKERBOARD)
    left, undecided = _cross(
        corners, components, is_open, target[crossing], direction[crossing]
    )
    left, undecided = crossing[left], crossing[undecided]
    onward[left] = (direction[left] + 3) % 4
    successor = number[4 * target + onward]

    # at a seam the only boundary edge is the one that arrives
    ends = np.union1d(np.flatnonzero(_HAS_ONE_EDGE[code]), undecided)
    successor[ends] = len(slots) + np.arange(len(ends))
    return Edges(
        corner=np.concatenate([slots >> 2, target[ends]]),
        direction=np.concatenate([direction, direction[ends]]),
        successor=np.concatenate([successor, np.full(len(ends), -1)]),
    )


def _neighbours(corners: Corners) -> IntArray:
    """Return the next corner in each direction, shape (n, 4), where an edge leads."""
    count = len(corners.code)
    neighbours = np.zeros((count, 4), np.int64)
    neighbours[:-1, 0] = np.arange(1, count)
    neighbours[1:, 2] = np.arange(count - 1)
    # 16 bits where they do: numpy sorts those in linear time
    narrow = corners.col.max(initial=0) < 2**16
    col = corners.col.astype(np.uint16) if narrow else corners.col
    downward = np.argsort(col, kind="stable")
    neighbours[downward[:-1], 1] = downward[1:]
    neighbours[downward[1:], 3] = downward[:-1]
    return neighbours


def _cross(
    corners: Corners,
    components: Components,
    is_open: npt.NDArray[np.bool_],
    corner: IntArray,
    direction: IntArray,
) -> tuple[IntArray, IntArray]:
    """Decide how boundaries cross checkerboards whose opposite pixels are of one class.

    Args:
        corners: All corners.
        components: The components of the class mask.
        is_open: Whether each component goes on in other parts.
        corner: Checkerboards where edges arrive, shape (k,).
        direction: Directions in which they arrive, shape (k,).

    Returns:
        The arrivals that turn left, for both pixels are of one component; and those
        that only the join can decide, for two components may be one beyond a seam.
    """
    own, opposite = (direction + 1) % 4, (direction + 3) % 4
    quadrants = corners.quadrants[corner]
    each = np.arange(len(corner))
    alike = np.flatnonzero(quadrants[each, own] == quadrants[each, opposite])
    corner = corner[alike]
    first = corners.label(components, corner, own[alike])
    second = corners.label(components, corner, opposite[alike])
    undecided = (first != second) & is_open[first] & is_open[second]
    return alike[first == second], alike[undecided]
