"""Weights of a tile are above 0 up to its corners; `none` takes the nearest tile."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import tile_grids

from geoseg.blending.weights import axis_weights
from geoseg.tiling import TileGrid
from geoseg.types import BlendWindow

WINDOWS: tuple[BlendWindow, ...] = get_args(BlendWindow)


@given(st.integers(1, 400), st.integers(1, 64), st.data(), st.sampled_from(WINDOWS))
def test_weights_are_positive_inside_the_scene_and_zero_in_padding(
    length: int, tile_size: int, data: st.DataObject, window: BlendWindow
) -> None:
    stride = data.draw(st.integers(1, tile_size))
    origins = TileGrid(length, length, tile_size, stride).rows
    weights = axis_weights(origins, length, tile_size, window)
    assert len(weights) == len(origins)
    total = np.zeros(max(length, tile_size))
    for origin, tile_weights in zip(origins, weights, strict=True):
        assert tile_weights.shape == (tile_size,)
        assert tile_weights.dtype == np.float32
        inside = max(0, min(tile_size, length - origin))
        assert (tile_weights[inside:] == 0).all()
        assert (tile_weights <= 1).all()
        if window != "none":
            assert (tile_weights[:inside] > 0).all()
        total[origin : origin + tile_size] += tile_weights
    assert (total[:length] > 0).all()


def test_even_the_corner_of_a_tile_has_weight() -> None:
    for window in ("hann", "linear"):
        (weights,) = axis_weights((0,), 720, 720, window)
        np.testing.assert_allclose(weights, weights[::-1], rtol=1e-5)
        assert np.float32(weights[0]) * np.float32(weights[0]) > 1e-12
        assert weights[360] == pytest.approx(1, abs=2e-3)


@given(tile_grids())
def test_window_none_takes_the_nearest_centre_and_the_earlier_on_a_tie(
    grid: TileGrid,
) -> None:
    weights = axis_weights(grid.rows, grid.height, grid.tile_size, "none")
    centres = np.array(grid.rows) + grid.tile_size / 2
    for row in range(grid.output.row, grid.output.row_stop):
        nearest = int(np.abs(centres - (row + 0.5)).argmin())
        for i, (origin, tile_weights) in enumerate(
            zip(grid.rows, weights, strict=True)
        ):
            if origin <= row < origin + grid.tile_size:
                assert tile_weights[row - origin] == (i == nearest)
