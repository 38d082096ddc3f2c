"""Metrics equal torchmetrics' on random data, and what is counted adds up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
    multiclass_precision,
    multiclass_recall,
)

from geoseg.evaluation.counts import IGNORE, SceneCounts, count_block, stacked
from geoseg.evaluation.metrics import BINS, Metrics, measure, reliability

CLASSES = 5
Pixels = npt.NDArray[np.uint8]


def draw(seed: int) -> tuple[Pixels, Pixels, Pixels]:
    """Draw truth, prediction and confidence; the prediction is right half the time."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, (70, 90)).astype(np.uint8)
    guess = rng.choice(CLASSES, truth.shape, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    predicted = np.where(rng.random(truth.shape) < 0.5, truth, guess).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = IGNORE
    percent = rng.integers(0, 101, truth.shape).astype(np.uint8)
    # Ends of bins belong to the bin below in the paper, above in torchmetrics.
    percent[percent % 20 == 0] += 1
    return truth, predicted, np.minimum(percent, 99)


def counts_of(truth: Pixels, predicted: Pixels, percent: Pixels) -> SceneCounts:
    everywhere = np.ones(truth.shape, bool)
    size = (CLASSES, CLASSES)
    return count_block(truth, predicted, (everywhere, everywhere), percent, size)


@pytest.fixture(scope="module")
def drawn() -> tuple[Pixels, Pixels, Pixels]:
    return draw(0)


def test_metrics_equal_torchmetrics(drawn: tuple[Pixels, Pixels, Pixels]) -> None:
    truth, predicted, _ = drawn
    metrics = measure(counts_of(*drawn))
    known = torch.from_numpy(truth != IGNORE)
    target = torch.from_numpy(truth.astype(np.int64))[known]
    preds = torch.from_numpy(predicted.astype(np.int64))[known]
    both = preds, target, CLASSES
    for ours, theirs in (
        (metrics.mean_iou, multiclass_jaccard_index(*both, average="macro")),
        (metrics.iou, multiclass_jaccard_index(*both, average="none")),
        (metrics.accuracy, multiclass_accuracy(*both, average="micro")),
        (metrics.mean_accuracy, multiclass_accuracy(*both, average="macro")),
        (metrics.mean_f1, multiclass_f1_score(*both, average="macro")),
        (metrics.f1, multiclass_f1_score(*both, average="none")),
        (metrics.precision, multiclass_precision(*both, average="none")),
        (metrics.recall, multiclass_recall(*both, average="none")),
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


def test_confusion_equals_torchmetrics(drawn: tuple[Pixels, Pixels, Pixels]) -> None:
    truth, predicted, _ = drawn
    theirs = multiclass_confusion_matrix(
        torch.from_numpy(predicted.astype(np.int64)),
        torch.from_numpy(truth.astype(np.int64)),
        CLASSES,
        ignore_index=IGNORE,
    )
    np.testing.assert_array_equal(counts_of(*drawn).confusion, theirs.numpy())


def test_calibration_equals_torchmetrics(drawn: tuple[Pixels, Pixels, Pixels]) -> None:
    truth, predicted, percent = drawn
    known = truth != IGNORE
    right = torch.from_numpy((truth == predicted)[known].astype(np.int64))
    sure = torch.from_numpy(percent[known] / 100).float()
    # Its binary task takes the probability of class 1, and compares with the label.
    theirs = binary_calibration_error(sure, right, n_bins=BINS, norm="l1")
    ours = measure(counts_of(*drawn)).calibration_error
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_bins_hold_their_upper_end() -> None:
    levels = np.zeros((2, 101), np.int64)
    levels[0, [0, 20, 21, 100]] = [1, 2, 4, 8]
    levels[1, [20, 100]] = [1, 8]
    bins = reliability(levels)
    assert [each.pixels for each in bins] == [1, 0, 2, 4, *[0] * 10, 8]
    assert (bins[2].accuracy, bins[2].confidence) == (0.5, 0.2)
    assert np.isnan(bins[1].accuracy)


def test_metrics_of_a_made_matrix() -> None:
    counts = SceneCounts.zeros(3, 4)
    counts.confusion[:] = [[8, 1, 0, 1], [2, 6, 0, 0], [0, 0, 0, 0]]
    metrics = measure(counts)
    assert metrics.iou[:2].tolist() == [8 / 12, 6 / 9]
    assert np.isnan([metrics.iou[2], metrics.f1[2], metrics.recall[2]]).all()
    assert metrics.mean_iou == (8 / 12 + 6 / 9) / 2  # the absent class is left out
    assert metrics.accuracy == 14 / 18
    assert metrics.area_bias[:2].tolist() == [0.0, -1 / 8]
    assert np.isnan(metrics.calibration_error)


def test_a_class_that_is_only_predicted_has_no_recall_and_iou_0() -> None:
    counts = SceneCounts.zeros(2, 2)
    counts.confusion[:] = [[5, 5], [0, 0]]
    metrics = measure(counts)
    assert metrics.iou.tolist() == [0.5, 0.0]
    assert metrics.mean_iou == 0.25
    assert np.isnan(metrics.area_bias[1])
    assert metrics.mean_accuracy == 0.5


def test_unlabelled_and_nodata_are_told_apart_from_errors() -> None:
    truth = np.array([[0, 1, IGNORE], [1, 0, IGNORE]], np.uint8)
    predicted = np.array([[0, IGNORE, 1], [0, 2, IGNORE]], np.uint8)
    far = np.zeros(truth.shape, bool)
    counts = count_block(truth, predicted, (far, far), None, (2, 3))
    assert counts.confusion.tolist() == [[1, 0, 1], [1, 0, 0]]
    assert counts.unpredicted.tolist() == [0, 1]
    assert counts.unlabelled == 2
    assert not counts.border.any()
    assert not counts.levels.any()


def test_counts_of_blocks_add_up(drawn: tuple[Pixels, Pixels, Pixels]) -> None:
    parts = [
        counts_of(*(band[rows] for band in drawn))
        for rows in (
            slice(0, 33),
            slice(33, 70),
        )
    ]
    whole, joined = counts_of(*drawn), parts[0] + parts[1]
    for name in ("confusion", "unpredicted", "unlabelled", "border", "levels"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


def test_metrics_of_many_counts_at_once() -> None:
    each = [counts_of(*draw(seed)) for seed in range(3)]
    together = measure(stacked(each))
    for name in Metrics.__dataclass_fields__:
        np.testing.assert_array_equal(
            getattr(together, name), [getattr(measure(one), name) for one in each]
        )
