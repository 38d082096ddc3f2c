"""How boundaries run through grid corners, and their chaining into rings.

Directions are 0 east, 1 south, 2 west, 3 north, rows down. A boundary edge is walked
with its region on the right; the pixel right of an edge that leaves a corner in
direction d lies in the corner's quadrant d: 0 south-east, 1 south-west, 2 north-west,
3 north-east. An edge that arrives in direction d has its region in quadrant d + 1. The
code of a corner has bit d set where the pixel edge in direction d is a boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csgraph, csr_array

from geoseg.vectorize.reference.components import group
from geoseg.vectorize.reference.ragged import IntArray, offsets_of

CHECKERBOARD = 15
"""Code of a corner whose four pixel edges are all boundaries."""

_EAST_WEST, _NORTH_SOUTH = 0b0101, 0b1010

IS_VERTEX = np.array([code not in (0, _EAST_WEST, _NORTH_SOUTH) for code in range(16)])
"""Whether a corner with this code is a vertex, shape (16,)."""


def _turn(code: int, direction: int) -> int:
    right, left = (direction + 1) % 4, (direction + 3) % 4
    if code >> right & 1:
        return right
    if code >> direction & 1 or not code >> left & 1:
        return direction
    return left


TURN = np.array([[_turn(code, d) for d in range(4)] for code in range(16)])
"""Direction in which a boundary leaves a corner, shape (16, 4): by code and arrival.

At a checkerboard whose diagonal pixels are in one component it must turn left instead:
then the boundaries of the two other pixels become two rings that touch here, and no
ring passes a corner twice. Where no edge goes on it is the arrival's own.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """Chains of linked items; a ring begins at its first item."""

    head: IntArray
    """First item of each chain, shape (n,)."""
    tail: IntArray
    """Last item of each chain, shape (n,)."""
    sizes: IntArray
    """Number of items in each chain, shape (n,)."""
    is_ring: npt.NDArray[np.bool_]
    """Whether a chain closes on itself, shape (n,)."""


def find_chains(successor: IntArray) -> Chains:
    """Find rings and open chains.

    Args:
        successor: The item after each item, shape (k,), -1 after the last of an open
            chain. No item has two predecessors.
    """
    count = len(successor)
    linked = np.flatnonzero(successor >= 0)
    label = group(linked, successor[linked], count)
    sizes = np.bincount(label)

    predecessor = np.full(count, -1, np.int64)
    predecessor[successor[linked]] = linked
    head = np.empty(len(sizes), np.int64)
    # of repeated indices the last one assigned stays: the smallest item
    head[label[::-1]] = np.arange(count - 1, -1, -1)
    begins = np.flatnonzero(predecessor < 0)
    head[label[begins]] = begins

    tail = predecessor[head]
    ends = np.flatnonzero(successor < 0)
    tail[label[ends]] = ends
    is_ring = np.ones(len(sizes), np.bool_)
    is_ring[label[ends]] = False
    return Chains(head, tail, sizes, is_ring)


def walk(successor: IntArray, chains: Chains, order: IntArray) -> IntArray:
    """Return the items, shape (k,), of all chains one after the other.

    Args:
        successor: As in `find_chains`.
        chains: What it found.
        order: The sequence of the chains, a permutation.
    """
    if not len(order):
        return np.zeros(0, np.int64)
    # tied into one list, all chains are walked in one compiled pass
    following = successor.copy()
    following[chains.tail[order[:-1]]] = chains.head[order[1:]]
    following[chains.tail[order[-1]]] = -1
    count = len(following)
    linked = following >= 0
    graph: csr_array[np.float64, tuple[int, int]] = csr_array(
        (np.ones(count - 1, np.float64), following[linked], offsets_of(linked)),
        shape=(count, count),
    )
    items = csgraph.breadth_first_order(
        graph, int(chains.head[order[0]]), return_predecessors=False
    )
    return np.asarray(items, np.int64)
