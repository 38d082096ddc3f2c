from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import shapely
from affine import Affine
from class_masks import Mask, class_masks, trace_whole
from hypothesis import given
from hypothesis import strategies as st

from geoseg.errors import VectorizeError
from geoseg.vectorize import moments
from geoseg.vectorize.moments import polygon_moments

FAR = Affine(0.5, 0.1, 500_000, 0.1, -0.5, 5_800_000)


@pytest.fixture(autouse=True)
def chosen(tracer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if tracer == "numpy":
        monkeypatch.setattr(moments, "library", lambda: None)


@given(mask=class_masks(), start=st.integers(0, 5))
def test_polygons_with_holes_are_what_geos_finds(mask: Mask, start: int) -> None:
    batch = trace_whole(mask, None, FAR)
    batch = batch.slice(min(start, len(batch)), len(batch))  # Offsets begin above 0.
    polygons, found = batch.geometries(), polygon_moments(batch.geometry)
    np.testing.assert_allclose(found.area, batch.pixels * 0.26, rtol=1e-9)
    np.testing.assert_allclose(found.area, shapely.area(polygons), rtol=1e-9)
    centroids = shapely.get_coordinates(shapely.centroid(polygons))
    np.testing.assert_allclose(found.centroid, centroids, rtol=0, atol=1e-8)
    assert (found.bounds == shapely.bounds(polygons)).all()


def test_rings_may_run_either_way() -> None:
    hole = [(1, 1), (2, 1), (2, 3), (1, 1)]
    outer = [(0, 0), (9, 0), (9, 9), (0, 9), (0, 0)]
    polygons = [
        shapely.Polygon(one, [other])
        for one in (outer, outer[::-1])
        for other in (hole, hole[::-1])
    ]
    found = polygon_moments(pa.array(shapely.to_wkb(polygons), pa.binary()))
    assert found.area == pytest.approx([80] * 4)
    assert np.ptp(found.centroid, axis=0) == pytest.approx([0, 0])


def test_a_polygon_without_rings_has_no_place() -> None:
    empty = pa.array(shapely.to_wkb([shapely.Polygon()]), pa.binary())
    found = polygon_moments(empty)
    assert found.area.tolist() == [0]
    assert np.isnan(found.centroid).all()
    assert np.isnan(found.bounds).all()
    assert polygon_moments(pa.array([], pa.binary())).area.shape == (0,)


@pytest.mark.parametrize("cut", [1, 4, 8, 12, 40])
def test_wkb_is_never_read_past_its_end(tracer: str, cut: int) -> None:
    if tracer == "numpy":
        return  # GEOS reads WKB there.
    whole = shapely.to_wkb(shapely.box(0, 0, 1, 1))
    with pytest.raises(VectorizeError, match="cut short"):
        polygon_moments(pa.array([whole[:cut], whole], pa.binary()))
    point = shapely.to_wkb(shapely.Point(1, 2))
    with pytest.raises(VectorizeError, match="no little-endian WKB polygon"):
        polygon_moments(pa.array([point], pa.binary()))
