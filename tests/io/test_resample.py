from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.io.resample import WindowResampler, axis_kernel

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


def resample(
    values: npt.NDArray[np.generic],
    valid: npt.NDArray[np.bool_],
    factor: float,
    window: tuple[int, int, int, int] | None = None,
    strip: int = 1000,
) -> Arrays:
    """Resample (bands, height, width), reading `strip` source rows at a time."""
    height, width = valid.shape
    shape = [max(1, round(side / factor)) for side in (height, width)]
    top, bottom, left, right = window or (0, shape[0], 0, shape[1])
    rows = axis_kernel(top, bottom, factor, height)
    cols = axis_kernel(left, right, factor, width)
    resampler = WindowResampler(rows, cols, len(values))
    across = slice(cols.start, cols.stop)
    for row in range(rows.start, rows.stop, strip):
        down = slice(row, min(row + strip, rows.stop))
        resampler.add(row, values[:, down, across], valid[down, across])
    return resampler.result()


factors = st.one_of(
    st.floats(0.15, 8), st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 7.0])
)


@given(factors, st.integers(1, 40), st.integers(1, 40))
def test_every_target_pixel_has_weights_that_sum_to_one(
    factor: float, start: int, length: int
) -> None:
    kernel = axis_kernel(0, max(1, round(length / factor)), factor, length)
    np.testing.assert_allclose(kernel.weights.sum(axis=1), 1, rtol=1e-6)
    assert (kernel.weights >= 0).all()
    assert kernel.start >= 0
    assert kernel.stop <= length


@given(factors, st.integers(1, 30), st.integers(1, 30))
def test_a_constant_stays_constant_up_to_the_rim(
    factor: float, height: int, width: int
) -> None:
    values = np.full((2, height, width), 200, np.uint8)
    result, valid = resample(values, np.ones((height, width), bool), factor)
    assert valid.all()
    np.testing.assert_allclose(result, 200, rtol=1e-6)


def test_downsampling_by_a_whole_number_is_the_block_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (3, 12, 18), dtype=np.uint16)
    result, _ = resample(values, np.ones((12, 18), bool), 3)
    means = values.reshape(3, 4, 3, 6, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(result, means, rtol=1e-6)


def test_downsampling_by_a_fraction_weighs_by_covered_area() -> None:
    values = np.array([[[10, 20, 30, 40, 50]]], np.float32)
    result, _ = resample(values, np.ones((1, 5), bool), 2.5)
    np.testing.assert_allclose(
        result[0, 0], [(10 + 20 + 15) / 2.5, (15 + 40 + 50) / 2.5]
    )


@pytest.mark.parametrize("factor", [0.2, 0.5, 0.7, 1.7, 3.0])
def test_a_plane_keeps_its_slope_and_its_place(factor: float) -> None:
    row, col = np.mgrid[:60, :60].astype(np.float32)
    plane = (3 * (row + 0.5) + 5 * (col + 0.5))[None]  # at pixel centres
    result, _ = resample(plane, np.ones((60, 60), bool), factor)
    row, col = np.mgrid[: result.shape[1], : result.shape[2]]
    want = 3 * factor * (row + 0.5) + 5 * factor * (col + 0.5)
    inner = slice(5, -5)  # outer pixels are clamped
    # A tenth of a source pixel: covered lengths step through it. Half a pixel is a bug.
    np.testing.assert_allclose(
        result[0, inner, inner], want[inner, inner], atol=0.1 * (3 + 5)
    )


@given(data=st.data(), factor=factors, strip=st.integers(1, 9))
def test_a_window_has_the_bytes_of_the_whole(
    data: st.DataObject, factor: float, strip: int
) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (2, 37, 29), dtype=np.uint8)
    valid = rng.random((37, 29)) > 0.3
    whole, whole_valid = resample(values, valid, factor)
    height, width = whole_valid.shape
    top = data.draw(st.integers(0, height - 1))
    bottom = data.draw(st.integers(top + 1, height))
    left = data.draw(st.integers(0, width - 1))
    right = data.draw(st.integers(left + 1, width))
    part, part_valid = resample(
        values, valid, factor, (top, bottom, left, right), strip
    )
    assert part.tobytes() == whole[:, top:bottom, left:right].tobytes()
    assert (part_valid == whole_valid[top:bottom, left:right]).all()


@given(factors, st.sampled_from([0, 255, 7]))
def test_hidden_pixels_contribute_nothing(factor: float, fill: int) -> None:
    rng = np.random.default_rng(2)
    valid = rng.random((21, 23)) > 0.4
    values = np.where(valid, 100, fill).astype(np.uint8)[None]
    result, seen = resample(values, valid, factor)
    np.testing.assert_allclose(result[0][seen], 100, rtol=1e-6)
    assert (result[0][~seen] == 0).all()


def test_a_pixel_counts_from_half_of_its_weight() -> None:
    valid = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 0, 1]], bool)
    _, seen = resample(np.zeros((1, 2, 6), np.uint8), valid, 2)
    assert seen.tolist() == [[True, True, False]]
