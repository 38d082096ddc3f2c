from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from class_masks import assert_same_batch, blobs, join, split, trace_parts, trace_whole

from geoseg.errors import GeosegWarning
from geoseg.types import NODATA
from geoseg.vectorize import PolygonBatch, simplify

GRID = Affine(0.25, 0, 155_000, 0, -0.25, 463_000)


@pytest.mark.parametrize("pixels", [1, 2, 5, 20])
@pytest.mark.parametrize(
    "side", [300, pytest.param(1000, marks=pytest.mark.slow)], ids=str
)
def test_a_simplified_coverage_is_valid_and_complete(side: int, pixels: int) -> None:
    mask = blobs(side, 7, sigma=1)
    mask[blobs(side, 9, sigma=9, seed=1) == 0] = NODATA
    before = trace_whole(mask, None, GRID)
    middle = len(before) // 2
    halves = [before.slice(0, middle), before.slice(middle, len(before))]
    after = PolygonBatch.concat(list(simplify(halves, pixels * 0.25)))
    one, other = before.geometries(), after.geometries()
    assert len(other) == len(one)
    assert (shapely.get_type_id(other) == shapely.GeometryType.POLYGON).all()
    assert shapely.is_valid(other).all()
    assert shapely.coverage_is_valid(other)
    assert (shapely.area(other) > 0).all()
    total = shapely.area(one).sum()
    assert abs(shapely.area(other).sum() - total) <= 1e-9 * total
    outline = shapely.coverage_union_all
    assert shapely.normalize(outline(other)) == shapely.normalize(outline(one))
    vertices = shapely.get_num_coordinates
    assert vertices(other).sum() < 0.8 * vertices(one).sum()
    assert (after.pixels == before.pixels).all()


def test_simplified_polygons_do_not_depend_on_the_parts() -> None:
    mask = blobs(80, 5, sigma=1)
    whole = list(simplify([trace_whole(mask)], 2))
    parts = list(simplify([join(trace_parts(mask, split(mask, 23, 31)))], 2))
    assert_same_batch(PolygonBatch.concat(parts), PolygonBatch.concat(whole))


def test_no_tolerance_changes_nothing() -> None:
    batch = trace_whole(blobs(40, 4, sigma=1))
    (same,) = simplify([batch], 0)
    assert same is batch
    assert list(simplify([], 3)) == []


def test_polygons_that_would_break_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = trace_whole(blobs(40, 4, sigma=1))
    broken = np.full(len(batch), shapely.Polygon(), object)
    monkeypatch.setattr(shapely, "coverage_simplify", lambda *_, **__: broken)
    with pytest.warns(GeosegWarning, match="choose a smaller tolerance"):
        (same,) = simplify([batch], 3)
    assert same is batch
