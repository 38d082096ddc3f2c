"""Squares of a scene, ranked by how much of them is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import total_ordering

import numpy as np
import numpy.typing as npt

from geoseg.evaluation.counts import Indices, is_scored
from geoseg.grid import Window

LEAST_SHARE = 0.25
"""Part of a whole chip that must have a label and a prediction; of a few pixels all may
be wrong, and there is little to see."""


@total_ordering
@dataclass(frozen=True, slots=True)
class Chip:
    """A square of a class mask; the worst sorts first."""

    scene_id: str
    """Scene that it is a part of."""
    window: Window
    """Its place, pixels of the class mask."""
    wrong: int
    """Pixels whose class is wrong."""
    scored: int
    """Pixels with a label and a prediction."""

    @property
    def error(self) -> float:
        """Share of wrong pixels, 0..1."""
        return self.wrong / self.scored

    def __lt__(self, other: Chip) -> bool:
        """Order by error, then by place, so that equal results are listed alike."""
        return self._key() < other._key()

    def _key(self) -> tuple[float, str, int, int]:
        return -self.error, self.scene_id, self.window.row, self.window.col


def fewest_pixels(shape: tuple[int, int], side: int) -> float:
    """Return how many pixels of a chip must count, in a scene of a shape.

    Slivers at the edges of a scene are no chips, unless there are no larger ones.
    """
    height, width = (min(side, length) for length in shape)
    return max(1.0, LEAST_SHARE * height * width)


def chips_of(
    scene_id: str,
    truth: Indices,
    predicted: Indices,
    block: Window,
    side: int,
    least: float,
) -> Iterator[Chip]:
    """Yield the chips of a block that hold enough to be ranked.

    Args:
        scene_id: Scene of the block.
        truth: True class of each pixel, shape (height, width).
        predicted: Predicted class, same shape.
        block: Place of these pixels in the scene; starts with a chip.
        side: Side of a chip, pixels; those at the edge of a scene are smaller.
        least: Pixels of a chip that must count.
    """
    scored = is_scored(truth, predicted)
    counts = _summed(scored, side)
    errors = _summed(scored & (truth != predicted), side)
    for (i, j), count in np.ndenumerate(counts):
        if count < least:
            continue
        row, col = i * side, j * side
        height, width = min(side, block.height - row), min(side, block.width - col)
        place = Window(block.row + row, block.col + col, height, width)
        yield Chip(scene_id, place, int(errors[i, j]), int(count))


def _summed(flags: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.int64]:
    """Count flags by chip."""
    rows = np.add.reduceat(flags, range(0, flags.shape[0], side), axis=0, dtype="i8")
    sums: npt.NDArray[np.int64] = np.add.reduceat(
        rows, range(0, flags.shape[1], side), axis=1
    )
    return sums
