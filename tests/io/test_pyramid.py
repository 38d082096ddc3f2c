from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geoseg.io import halving
from geoseg.io.halving import halve_by_mean, halve_by_mode
from geoseg.io.pyramid import Rule, overview_shapes, write_overviews
from geoseg.io.scratch import BLOCK_ROWS

Rows = npt.NDArray[np.uint8]


def squares(pixels: Rows, nodata: int) -> Iterator[tuple[int, int, list[int]]]:
    """Yield row, column and the pixels with data of each 2 x 2 square, by rows."""
    for row in range(0, pixels.shape[0], 2):
        for col in range(0, pixels.shape[1], 2):
            values = pixels[row : row + 2, col : col + 2].ravel().tolist()
            yield row // 2, col // 2, [v for v in values if v != nodata]


def expected(pixels: Rows, nodata: int, rule: Rule) -> Rows:
    """Halve pixel by pixel."""
    halved = np.full([-(-side // 2) for side in pixels.shape], nodata, np.uint8)
    for row, col, values in squares(pixels, nodata):
        if values and "mode" in rule.__name__:
            # `most_common` keeps the order of first sight among equals.
            halved[row, col] = Counter(values).most_common(1)[0][0]
        elif values:
            halved[row, col] = (2 * sum(values) + len(values)) // (2 * len(values))
    return halved


rules = pytest.mark.parametrize(
    "rule",
    [
        *(halve_by_mode, halving._by_mode_with_numpy),
        *(halve_by_mean, halving._by_mean_with_numpy),
    ],
)


@rules
@given(data=st.data(), nodata=st.sampled_from([0, 2, 255]))
def test_four_pixels_become_one_by_the_rule(
    rule: Rule, data: st.DataObject, nodata: int
) -> None:
    values = st.sampled_from([0, 1, 2, 3, 254, 255])
    sides = st.integers(1, 4).map(lambda n: 2 * n)
    pixels = data.draw(arrays(np.uint8, st.tuples(sides, sides), elements=values))
    assert rule(pixels, nodata).tolist() == expected(pixels, nodata, rule).tolist()


@rules
def test_every_square_of_three_values_and_nodata(rule: Rule) -> None:
    corners = np.array([[0, 1, 2, 255]] * 4, np.uint8)
    nw, ne, sw, se = (grid.ravel() for grid in np.meshgrid(*corners))
    pixels = np.stack([[nw, ne], [sw, se]]).transpose(0, 2, 1).reshape(2, -1)
    assert (rule(pixels, 255) == expected(pixels, 255, rule)).all()


@rules
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (300, 5), (131, 257), (515, 130)])
def test_overviews_are_those_of_the_whole_raster(
    tmp_path: Path, rule: Rule, shape: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.choice(np.array([1, 2, 3, 255], np.uint8), shape)
    shapes = overview_shapes(shape, 16)
    paths = [tmp_path / f"{level}.tif" for level in range(len(shapes))]
    step = 2 * BLOCK_ROWS
    rows = (pixels[row : row + step] for row in range(0, shape[0], step))
    write_overviews(
        rows, zip(paths, shapes, strict=True), halve=rule, nodata=255, packed=True
    )
    whole = pixels
    for path, size in zip(paths, shapes, strict=True):
        whole = expected(whole, 255, rule)
        assert whole.shape == size
        with rasterio.open(path) as file:
            assert (file.read(1) == whole).all(), path


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_overviews_end_with_the_first_that_fits_a_block(
    height: int, width: int
) -> None:
    shapes = [(height, width), *overview_shapes((height, width), 512)]
    assert max(shapes[-1]) <= 512
    assert all(max(shape) > 512 for shape in shapes[:-1])
