"""What is counted where a class mask meets labels; every metric follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

IGNORE = 255
"""Class index of a pixel without a label, and of one without a prediction."""

UNCOUNTED = 254
"""Class index of a prediction that does not count, whatever the truth is."""

LEVELS = 101
"""Values of confidence: whole percents from 0 to 100."""

Indices = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SceneCounts:
    """Pixels of one scene, or of many: counts add up.

    L classes of the labels are the first of the C >= L that may be predicted.
    """

    confusion: Counts
    """Pixels by true (row) and predicted class (column), shape (L, C). Only pixels with
    a label and a prediction."""
    unpredicted: Counts
    """Pixels with a label of each class where the mask is nodata, shape (L,)."""
    uncounted: Counts
    """Pixels with a label of each class whose prediction does not count, shape (L,)."""
    unlabelled: Counts
    """Pixels without a label, shape ()."""
    border: Counts
    """Pixels near the borders of a class, shape (3, L): true and predicted at once,
    true, predicted; see `geoseg.evaluation.boundary`."""
    levels: Counts
    """Pixels of `confusion` by confidence in percent, shape (2, LEVELS): all, right
    ones. Zeros without a confidence raster."""

    @classmethod
    def zeros(cls, num_labels: int, num_predicted: int) -> SceneCounts:
        """Return counts of nothing."""
        return cls(
            confusion=np.zeros((num_labels, num_predicted), np.int64),
            unpredicted=np.zeros(num_labels, np.int64),
            uncounted=np.zeros(num_labels, np.int64),
            unlabelled=np.zeros((), np.int64),
            border=np.zeros((3, num_labels), np.int64),
            levels=np.zeros((2, LEVELS), np.int64),
        )

    def __add__(self, other: SceneCounts) -> SceneCounts:
        """Return the counts of both."""
        return SceneCounts(
            *(getattr(self, f.name) + getattr(other, f.name) for f in fields(self))
        )

    @property
    def scored(self) -> int:
        """Pixels with a label and a prediction."""
        return int(self.confusion.sum())

    @property
    def labelled(self) -> Counts:
        """Pixels with a label of each class, shape (L,)."""
        every: Counts = self.confusion.sum(axis=-1) + self.unpredicted + self.uncounted
        return every

    @property
    def pixels(self) -> int:
        """All pixels."""
        return int(self.labelled.sum() + self.unlabelled)


def stacked(scenes: Sequence[SceneCounts]) -> SceneCounts:
    """Return counts with a leading axis of scenes, shape (scenes, ...) each."""
    return SceneCounts(
        *(
            np.stack([getattr(scene, f.name) for scene in scenes])
            for f in fields(SceneCounts)
        )
    )


def summed(scenes: Iterable[SceneCounts], like: SceneCounts) -> SceneCounts:
    """Return the counts of all scenes, zeros shaped as `like` for none."""
    total = SceneCounts.zeros(*like.confusion.shape)
    for scene in scenes:
        total += scene
    return total


def count_block(
    truth: Indices,
    predicted: Indices,
    border: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    confidence: npt.NDArray[np.uint8] | None,
    size: tuple[int, int],
) -> SceneCounts:
    """Count a block of pixels.

    Args:
        truth: True class of each pixel, shape (height, width), below L or `IGNORE`.
        predicted: Predicted class, same shape, below C, `IGNORE` or `UNCOUNTED`.
        border: Whether a pixel lies near a border, of truth and of the prediction.
        confidence: Percent, same shape; None if unknown.
        size: L and C.
    """
    num_labels, _ = size
    scored = is_scored(truth, predicted)
    true, guess = truth[scored].astype(np.int64), predicted[scored]
    missed, left = (
        np.bincount(
            truth[(truth != IGNORE) & (predicted == value)], minlength=num_labels
        )
        for value in (IGNORE, UNCOUNTED)
    )
    right = true == guess
    levels = np.zeros((2, LEVELS), np.int64)
    if confidence is not None:
        percent = confidence[scored]
        levels[0] = np.bincount(percent, minlength=LEVELS)
        levels[1] = np.bincount(percent[right], minlength=LEVELS)
    return SceneCounts(
        confusion=_count_pairs(true, guess, size),
        unpredicted=missed,
        uncounted=left,
        unlabelled=np.array(np.count_nonzero(truth == IGNORE), np.int64),
        border=_count_border(true, guess, [b[scored] for b in border], num_labels),
        levels=levels,
    )


def is_scored(truth: Indices, predicted: Indices) -> npt.NDArray[np.bool_]:
    """Tell which pixels count in metrics: those with a label and a prediction."""
    scored: npt.NDArray[np.bool_] = (
        (truth != IGNORE) & (predicted != IGNORE) & (predicted != UNCOUNTED)
    )
    return scored


def count_confusion(
    truth: Indices, predicted: Indices, size: tuple[int, int]
) -> Counts:
    """Count pixels by true (row) and predicted class (column), shape (L, C).

    Args:
        truth: True class of each pixel, below L or `IGNORE`.
        predicted: Predicted class, same shape, below C or `IGNORE`.
        size: L and C.
    """
    scored = is_scored(truth, predicted)
    return _count_pairs(truth[scored].astype(np.int64), predicted[scored], size)


def _count_pairs(true: Counts, guess: Indices, size: tuple[int, int]) -> Counts:
    num_labels, num_predicted = size
    cells = np.bincount(
        true * num_predicted + guess, minlength=num_labels * num_predicted
    )
    return cells.reshape(num_labels, num_predicted)


def _count_border(
    true: Counts,
    guess: Indices,
    near: Sequence[npt.NDArray[np.bool_]],
    num_labels: int,
) -> Counts:
    near_true, near_guess = near
    both = near_true & near_guess & (true == guess)
    return np.stack(
        [
            np.bincount(indices, minlength=num_labels)[:num_labels]
            for indices in (true[both], true[near_true], guess[near_guess])
        ]
    )
