from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import shapely
from affine import Affine
from class_masks import (
    IDENTITY,
    Mask,
    assert_same_batch,
    blobs,
    class_masks,
    component_masks,
    expected_vertices,
    join,
    polygon_rings,
    polygon_vertices,
    trace_parts,
    trace_whole,
    whole_window,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from shapely.geometry import shape

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize import PolygonBatch, trace_part, trace_rows

Geometries = npt.NDArray[np.object_]

TRANSFORMS = {
    "identity": IDENTITY,
    "north-up": Affine(0.25, 0, 155_000.125, 0, -0.25, 463_000.5),
    "south-up": Affine(0.3, 0, 500_000.0, 0, 0.3, 4_000_000.0),
    "rotated": Affine.translation(4e5, 5e6) @ Affine.rotation(31) @ Affine.scale(0.6),
    "degrees": Affine(1e-5 / 3, 0, 13.1, 0, -1e-5 / 3, 52.3),
}

# a ring of ones that touches itself where only its corner closes it
RING = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1], [1, 1, 0, 0]], np.uint8)
CHECKERBOARD = (np.indices((6, 7)).sum(axis=0) % 2).astype(np.uint8)
T_JUNCTION = np.array([[0, 0], [1, 2]], np.uint8)


def reference_polygons(mask: Mask) -> list[tuple[int, shapely.Geometry]]:
    """Return class and polygon of each component as GDAL finds them, by last pixel."""
    found = [
        (int(value), shapely.make_valid(shape(geometry)))
        for geometry, value in shapes(mask, mask=mask != NODATA, connectivity=4)
    ]

    def last_corner(item: tuple[int, shapely.Geometry]) -> tuple[float, float]:
        return max((row, col) for col, row in shapely.get_coordinates(item[1]))

    return sorted(found, key=last_corner)


def assert_coverage(geometries: Geometries) -> None:
    assert shapely.is_valid(geometries).all()
    assert shapely.coverage_is_valid(geometries)
    assert (shapely.get_type_id(geometries) == shapely.GeometryType.POLYGON).all()


@settings(max_examples=150, deadline=None)
@given(class_masks())
def test_polygons_equal_those_of_gdal(mask: Mask) -> None:
    batch = trace_whole(mask)
    expected = reference_polygons(mask)
    assert batch.class_id.tolist() == [value for value, _ in expected]
    geometries = batch.geometries()
    wanted = np.array([geometry for _, geometry in expected], object)
    assert shapely.equals(geometries, wanted).all()


@settings(max_examples=150, deadline=None)
@given(class_masks())
def test_polygons_form_a_valid_coverage(mask: Mask) -> None:
    batch = trace_whole(mask)
    geometries = batch.geometries()
    assert_coverage(geometries)
    assert shapely.area(geometries).tolist() == batch.pixels.tolist()
    assert batch.pixels.sum() == np.count_nonzero(mask != NODATA)


@settings(max_examples=150, deadline=None)
@given(class_masks(max_side=8))
def test_vertices_are_the_nodes_and_turns_of_each_component(mask: Mask) -> None:
    assert polygon_vertices(trace_whole(mask)) == expected_vertices(mask)


def test_a_node_on_a_straight_side_is_a_vertex() -> None:
    upper, *_ = polygon_vertices(trace_whole(T_JUNCTION))
    assert upper == {(0, 0), (2, 0), (2, 1), (1, 1), (0, 1)}


def test_coverage_is_lost_without_node_vertices() -> None:
    """Show that the check of the coverage sees a missing node."""
    geometries = trace_whole(T_JUNCTION).geometries()
    assert shapely.coverage_is_valid(geometries)
    assert not shapely.coverage_is_valid(shapely.simplify(geometries, 0))


@settings(max_examples=100, deadline=None)
@given(class_masks())
def test_polygons_rasterize_back_to_the_mask(mask: Mask) -> None:
    batch = trace_whole(mask)
    burnt = np.full(mask.shape, NODATA, np.uint8)
    if len(batch):
        pairs = zip(batch.geometries(), batch.class_id.tolist(), strict=True)
        burnt = rasterize(pairs, out_shape=mask.shape, fill=NODATA, dtype="uint8")
    np.testing.assert_array_equal(burnt, mask)


@settings(max_examples=100, deadline=None)
@given(class_masks(), st.integers(0, 2**32 - 1))
def test_statistics_are_exact_sums_over_pixels(mask: Mask, seed: int) -> None:
    percents = np.random.default_rng(seed).integers(0, 101, mask.shape, np.uint8)
    batch = trace_whole(mask, percents)
    components = component_masks(mask)
    sums = [int(percents[pixels].sum()) for pixels in components]
    assert batch.confidence_sum.tolist() == sums
    assert batch.pixels.tolist() == [int(pixels.sum()) for pixels in components]
    assert batch.class_id.tolist() == [int(mask[pixels][0]) for pixels in components]


@settings(max_examples=100, deadline=None)
@given(class_masks())
def test_rings_begin_at_their_smallest_vertex_exterior_first(mask: Mask) -> None:
    for rings in polygon_rings(trace_whole(mask)):
        starts = [(ring[0][1], ring[0][0]) for ring in rings]
        assert starts[1:] == sorted(starts[1:])
        for ring in rings:
            col, row = np.array(ring).T
            vertices = list(zip(row.tolist(), col.tolist(), strict=True))
            assert min(vertices) == vertices[0]
            assert len(set(vertices)) == len(vertices)
            signed_area = np.sum(col * np.roll(row, -1) - np.roll(col, -1) * row) / 2
            assert (signed_area > 0) == (ring is rings[0])


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("mask", [RING, CHECKERBOARD, blobs(60, 4, sigma=2)])
def test_coverage_is_valid_on_every_kind_of_grid(mask: Mask, name: str) -> None:
    transform = TRANSFORMS[name]
    batch = trace_whole(mask, None, transform)
    geometries = batch.geometries()
    assert_coverage(geometries)
    areas = batch.pixels * abs(transform.determinant)
    np.testing.assert_allclose(shapely.area(geometries), areas, rtol=1e-3)
    col, row = shapely.get_coordinates(trace_whole(mask).geometries()).T
    x = transform.a * col + transform.b * row + transform.c
    y = transform.d * col + transform.e * row + transform.f
    assert (shapely.get_coordinates(geometries) == np.column_stack([x, y])).all()


def test_checkerboard_pixels_are_polygons_of_their_own() -> None:
    batch = trace_whole(CHECKERBOARD)
    assert len(batch) == CHECKERBOARD.size
    assert (batch.pixels == 1).all()
    assert all(len(vertices) == 4 for vertices in polygon_vertices(batch))


def test_a_ring_that_touches_itself_has_a_hole() -> None:
    batch = trace_whole(RING)
    [(index, *_)] = np.argwhere(batch.pixels == 11)
    ring = batch.geometries()[index]
    assert len(ring.interiors) == 1
    assert (2, 3) in ring.exterior.coords
    assert (2, 3) in ring.interiors[0].coords


def test_holes_that_touch_are_two_rings() -> None:
    mask = np.ones((4, 4), np.uint8)
    mask[1, 1] = mask[2, 2] = NODATA
    (polygon,) = trace_whole(mask).geometries()
    assert polygon.is_valid
    assert len(polygon.interiors) == 2


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_one_class_is_one_rectangle(size: tuple[int, int]) -> None:
    batch = trace_whole(np.full(size, 3, np.uint8))
    height, width = size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    assert polygon_rings(batch) == [[corners]]


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (3, 4)])
def test_nodata_gets_no_polygon(size: tuple[int, int]) -> None:
    batch = trace_whole(np.full(size, NODATA, np.uint8))
    assert len(batch) == 0
    assert batch.geometries().shape == (0,)


def test_another_nodata_value_can_be_declared(tmp_path: Path) -> None:
    mask = np.array([[0, 255], [255, 255]], np.uint8)
    (batch,) = trace_rows(
        [(mask, None)], 2, transform=IDENTITY, spill=tmp_path, nodata=0
    )
    assert batch.class_id.tolist() == [255]
    assert batch.pixels.tolist() == [3]


def test_coordinates_are_those_of_the_scene() -> None:
    region = Window(1000, 70_000, 1, 2)
    part = trace_part(
        np.zeros((1, 2), np.uint8), None, region, region=region, transform=IDENTITY
    )
    batch = join([part])
    assert batch.bounds.tolist() == [[70_000, 1000, 70_002, 1001]]
    assert batch.geometries()[0].bounds == (70_000, 1000, 70_002, 1001)


def test_more_columns_than_16_bits_are_traced() -> None:
    mask = np.zeros((2, 70_000), np.uint8)
    mask[1, ::1024] = 1  # columns that are equal modulo 2**16 among them
    batch = trace_whole(mask)
    assert shapely.area(batch.geometries()).tolist() == batch.pixels.tolist()
    assert len(batch) == 70


def test_batches_concatenate_and_select() -> None:
    batch = trace_whole(RING, RING * 50)
    twice = PolygonBatch.concat([batch, PolygonBatch.empty(), batch])
    assert len(twice) == 2 * len(batch)
    chosen = twice.take(np.array([len(batch) + 1]))
    assert chosen.confidence_sum.tolist() == batch.confidence_sum[1:2].tolist()
    assert chosen.geometries()[0] == batch.geometries()[1]
    assert_same_batch(twice.slice(len(batch) + 1, len(batch) + 2), chosen)
    assert len(PolygonBatch.concat([])) == 0


def test_arrays_that_do_not_fit_are_refused() -> None:
    mask = np.zeros((2, 3), np.uint8)
    window = whole_window(mask)
    with pytest.raises(VectorizeError, match=r"class mask has the shape \(3, 2\)"):
        trace_part(mask.T, None, window, region=window, transform=IDENTITY)
    with pytest.raises(VectorizeError, match=r"confidence has the shape \(1, 3\)"):
        trace_part(mask, mask[:1], window, region=window, transform=IDENTITY)
    wide: Any = mask.astype(np.int64)
    with pytest.raises(VectorizeError, match="class mask is int64, not uint8"):
        trace_part(wide, None, window, region=window, transform=IDENTITY)
    with pytest.raises(VectorizeError, match="reaches outside of the region"):
        trace_part(mask, None, window, region=Window(0, 0, 2, 2), transform=IDENTITY)


@pytest.mark.slow
def test_a_map_of_four_megapixels_takes_seconds() -> None:
    mask = blobs(2000, 8, sigma=8)
    parts = [Window(row, 0, 250, 2000) for row in range(0, 2000, 250)]
    start = time.process_time()
    batch = join(trace_parts(mask, parts, mask))
    seconds = time.process_time() - start
    assert len(batch) > 10_000
    assert batch.pixels.sum() == mask.size
    # 0.5 s on an idle core; a loop over pixels or vertices takes a minute
    assert seconds < 8
