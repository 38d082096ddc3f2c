"""Blended values become a class and a confidence, over float32's whole range."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from blended import classify
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geoseg.types import BlendSpace

Float32Array = npt.NDArray[np.float32]
SPACES: tuple[BlendSpace, ...] = get_args(BlendSpace)


def softmax(logits: Float32Array) -> npt.NDArray[np.float64]:
    """Softmax over the first axis in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=0))
    return np.asarray(shifted / shifted.sum(axis=0))


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-50, 50, width=32),
    )
)
def test_classes_are_the_largest_logit_with_its_softmax(logits: Float32Array) -> None:
    index, confidence = classify(logits, "logits")
    np.testing.assert_array_equal(index, logits.argmax(axis=0))
    percent = 100 * softmax(logits).max(axis=0)
    assert (np.abs(confidence - percent) <= 0.5 + 1e-3).all()


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(0, 1, width=32).map(lambda value: max(value, 2**-20)),
    )
)
def test_confidence_of_probabilities_is_normalised(values: Float32Array) -> None:
    index, confidence = classify(values, "probabilities")
    np.testing.assert_array_equal(index, values.argmax(axis=0))
    percent = 100 * values.max(axis=0) / values.astype(np.float64).sum(axis=0)
    assert (np.abs(confidence - percent) <= 0.5 + 1e-3).all()


def test_classify_withstands_the_whole_range_of_float32() -> None:
    largest = np.finfo(np.float32).max
    logits = np.array([[largest, -largest, 0], [-largest, largest, 0]], np.float32)
    index, confidence = classify(logits[:, None], "logits")
    assert index.tolist() == [[0, 1, 0]]
    assert confidence.tolist() == [[100, 100, 50]]


def test_equal_values_give_the_first_class() -> None:
    index, confidence = classify(np.zeros((4, 1, 2), np.float32), "logits")
    assert index.tolist() == [[0, 0]]
    assert confidence.tolist() == [[25, 25]]


@pytest.mark.parametrize("space", SPACES)
def test_rows_are_classified_alike_however_many_there_are(space: BlendSpace) -> None:
    # Wide and high enough for several chunks, the last of them shorter.
    values = np.random.default_rng(0).exponential(3, (9, 70, 3001)).astype(np.float32)
    index, confidence = classify(values, space)
    for rows in (slice(0, 1), slice(20, 70), slice(69, 70)):
        cols = slice(5, 2998)
        part = classify(values[:, rows, cols], space)
        np.testing.assert_array_equal(part[0], index[rows, cols])
        np.testing.assert_array_equal(part[1], confidence[rows, cols])
