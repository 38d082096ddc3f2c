"""Boundary IoU equals the definition, whole and by blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from geoseg.evaluation.boundary import border_width, near_border
from geoseg.evaluation.counts import IGNORE, count_block
from geoseg.evaluation.metrics import measure

Pixels = npt.NDArray[np.uint8]


def blobs(seed: int, *, sigma: float = 4) -> Pixels:
    """Draw three classes in patches."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.random((80, 100)), sigma) for _ in range(3)]
    largest: Pixels = np.argmax(fields, axis=0).astype(np.uint8)
    return largest


def inner_border(mask: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """What the paper's code calls the boundary: a mask less its erosion."""
    square = np.ones((3, 3), bool)
    eroded = ndimage.binary_erosion(mask, square, iterations=width, border_value=0)
    border: npt.NDArray[np.bool_] = mask & ~eroded
    return border


@pytest.mark.parametrize("width", [1, 5])
def test_boundary_iou_follows_its_definition(width: int) -> None:
    truth = blobs(0)
    predicted = np.where(blobs(1, sigma=8) == 0, truth, blobs(2)).astype(np.uint8)
    near = (near_border(truth, width), near_border(predicted, width))
    metrics = measure(count_block(truth, predicted, near, None, (3, 3)))
    for index in range(3):
        one = inner_border(truth == index, width)
        other = inner_border(predicted == index, width)
        expected = (one & other).sum() / (one | other).sum()
        assert metrics.boundary_iou[index] == expected


def test_what_is_unknown_makes_no_border() -> None:
    labels = np.zeros((9, 30), np.uint8)
    labels[:, 10:20] = IGNORE
    labels[:, 25:] = 1
    near = near_border(labels, 2)[4]  # a row away from the edges
    assert np.flatnonzero(near).tolist() == [0, 1, 23, 24, 25, 26, 28, 29]


def test_a_margin_of_the_width_is_enough() -> None:
    labels, width = blobs(3), 6
    whole = near_border(labels, width)
    part = near_border(labels[20 - width : 50 + width, 30 - width :], width)
    np.testing.assert_array_equal(part[width:-width, width:], whole[20:50, 30:])


@pytest.mark.parametrize(
    ("shape", "given", "width"),
    [
        ((480, 640), None, 16),  # 2 % of 800, as in the paper
        ((1024, 1024), None, 29),
        ((30_000, 40_000), None, 29),
        ((10, 10), None, 1),
        ((480, 640), 3, 3),
    ],
)
def test_width_is_a_share_of_the_diagonal(
    shape: tuple[int, int], given: int | None, width: int
) -> None:
    assert border_width(shape, given) == width
