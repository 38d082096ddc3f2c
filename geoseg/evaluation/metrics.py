"""Metrics from counts; arrays of counts give arrays of metrics.

Formulas are those of torchmetrics with `average="macro"`: a class that neither occurs
nor is predicted is left out of means. Mean accuracy alone differs: a class that is
predicted and does not occur has no recall, and torchmetrics takes it for 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geoseg.evaluation.counts import LEVELS, SceneCounts

Floats = npt.NDArray[np.float64]

BINS = 15
"""Bins of confidence, as in the paper of the calibration error."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of counts with any leading axes (...); NaN where one is not defined."""

    accuracy: Floats
    """Share of pixels that are right, shape (...)."""
    mean_accuracy: Floats
    """Mean of recall over classes that occur, shape (...)."""
    mean_iou: Floats
    """Mean of IoU over classes that occur or are predicted, shape (...)."""
    mean_f1: Floats
    """The same of F1."""
    mean_boundary_iou: Floats
    """The same of boundary IoU, over classes with a border."""
    calibration_error: Floats
    """Expected calibration error, shape (...); NaN without confidence."""
    iou: Floats
    """Intersection over union by class, shape (..., L)."""
    f1: Floats
    """2 TP / (2 TP + FP + FN) by class."""
    precision: Floats
    """Share of what is predicted as a class that is it; NaN if nothing is."""
    recall: Floats
    """Share of a class that is predicted as it; NaN if it does not occur."""
    boundary_iou: Floats
    """IoU of pixels near borders, by class."""
    area_bias: Floats
    """(predicted - true) / true area by class; NaN if it does not occur."""


OVERALL = (
    "mean_iou",
    "accuracy",
    "mean_accuracy",
    "mean_f1",
    "mean_boundary_iou",
    "calibration_error",
)
"""Metrics of a whole set, in the order of tables."""

BY_CLASS = ("iou", "f1", "precision", "recall", "boundary_iou", "area_bias")
"""Metrics of each class, in the order of tables."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Pixels whose confidence lies in a range."""

    low: float
    """Lower end, left out, 0..1."""
    high: float
    """Upper end, taken in, 0..1."""
    pixels: int
    """Pixels in it."""
    confidence: float
    """Their mean confidence, 0..1; NaN if there are none."""
    accuracy: float
    """Share of them that are right; NaN if there are none."""


def measure(counts: SceneCounts) -> Metrics:
    """Return the metrics of counts whose arrays may have leading axes (...)."""
    confusion = np.asarray(counts.confusion, np.float64)
    num_labels = confusion.shape[-2]
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true = confusion.sum(axis=-1)
    predicted = confusion.sum(axis=-2)[..., :num_labels]
    iou = _ratio(hits, true + predicted - hits)
    f1 = _ratio(2 * hits, true + predicted)
    recall = _ratio(hits, true)
    both, near_true, near_predicted = np.moveaxis(
        np.asarray(counts.border, np.float64), -2, 0
    )
    boundary = _ratio(both, near_true + near_predicted - both)
    return Metrics(
        accuracy=_ratio(hits.sum(axis=-1), true.sum(axis=-1)),
        mean_accuracy=_mean(recall),
        mean_iou=_mean(iou),
        mean_f1=_mean(f1),
        mean_boundary_iou=_mean(boundary),
        calibration_error=calibration_error(counts.levels),
        iou=iou,
        f1=f1,
        precision=_ratio(hits, predicted),
        recall=recall,
        boundary_iou=boundary,
        area_bias=_ratio(predicted - true, true),
    )


def calibration_error(levels: npt.NDArray[np.int64]) -> Floats:
    """Return the expected calibration error: mean gap of confidence and accuracy.

    Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks", ICML 2017,
    equation 3, with their 15 bins of equal width.

    Args:
        levels: Pixels by percent of confidence, all and right ones, shape
            (..., 2, LEVELS).
    """
    pixels, confidence, right = _binned(levels)
    gaps = np.abs(right - confidence).sum(axis=-1)  # n_b |acc - conf|, by bin
    return _ratio(gaps, pixels.sum(axis=-1))


def reliability(levels: npt.NDArray[np.int64]) -> list[Bin]:
    """Return what a reliability diagram shows: accuracy by confidence.

    Args:
        levels: As for `calibration_error`, shape (2, LEVELS).
    """
    pixels, confidence, right = _binned(levels)
    means, shares = _ratio(confidence, pixels), _ratio(right, pixels)
    return [
        Bin(i / BINS, (i + 1) / BINS, int(pixels[i]), float(means[i]), float(shares[i]))
        for i in range(BINS)
    ]


def _binned(levels: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Return pixels, and sums of confidence and of right ones, shape (..., BINS)."""
    percent = np.arange(LEVELS)
    # Bins are (low, high]; whole numbers, as 3 / 15 and 0.2 need not be the same.
    place = np.maximum(0, -(-percent * BINS // (LEVELS - 1)) - 1)
    member = (place[:, None] == np.arange(BINS)).astype(np.float64)
    counted = np.asarray(levels, np.float64)
    pixels, right = counted[..., 0, :], counted[..., 1, :]
    return (
        pixels @ member,
        (pixels * percent / (LEVELS - 1)) @ member,
        right @ member,
    )


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where there is nothing."""
    undefined = np.full(np.broadcast(part, whole).shape, np.nan)
    ratio: Floats = np.divide(part, whole, out=undefined, where=whole != 0)
    return ratio


def _mean(values: Floats) -> Floats:
    """Return the mean over the last axis of what is defined, NaN if nothing is."""
    defined = ~np.isnan(values)
    return _ratio(
        np.where(defined, values, 0).sum(axis=-1),
        np.asarray(defined.sum(axis=-1), np.float64),
    )
