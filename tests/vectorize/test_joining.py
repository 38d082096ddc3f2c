from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from class_masks import (
    Mask,
    assert_same_batch,
    blobs,
    class_masks,
    partitions,
    trace_parts,
    trace_whole,
    whole_window,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize import (
    PolygonBatch,
    TracedPart,
    join_open,
    join_parts,
    trace_part,
)


def spiral(side: int) -> Mask:
    """Return a path one pixel wide, of class 1, that winds inward on class 0."""
    mask = np.zeros((side, side), np.uint8)
    row, col, step = 0, -1, (0, 1)
    for length in [side, *(n for n in range(side - 1, 0, -2) for _ in range(2))]:
        for _ in range(length):
            row, col = row + step[0], col + step[1]
            mask[row, col] = 1
        step = (step[1], -step[0])
    return mask


def nested_rings(side: int) -> Mask:
    """Return squares of alternating class around each other."""
    row, col = np.indices((side, side))
    depth = np.minimum(np.minimum(row, col), side - 1 - np.maximum(row, col))
    rings: Mask = (depth % 3).astype(np.uint8)
    return rings


def diagonal_ring() -> Mask:
    """Return class 1 around two holes that meet, and meet the outside, at corners."""
    mask = np.ones((7, 7), np.uint8)
    mask[[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]] = 0
    mask[6, 6] = NODATA
    return mask


MASKS = {
    "spiral": spiral(15),
    "nested rings": nested_rings(11),
    "diagonal ring": diagonal_ring(),
    "checkerboard": (np.indices((7, 8)).sum(axis=0) % 2).astype(np.uint8),
    "one class": np.full((6, 9), 4, np.uint8),
    "nodata": np.full((6, 9), NODATA, np.uint8),
    "stripes": np.tile(np.array([1, 1, 2, NODATA], np.uint8), (9, 3)),
}


def split(mask: Mask, height: int, width: int) -> list[Window]:
    """Cut a mask into parts of at most height x width pixels."""
    rows, cols = mask.shape
    return [
        Window(row, col, min(height, rows - row), min(width, cols - col))
        for row in range(0, rows, height)
        for col in range(0, cols, width)
    ]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_parts_in_any_order_join_to_the_whole(data: st.DataObject) -> None:
    mask = data.draw(class_masks())
    windows = data.draw(partitions(whole_window(mask)))
    percents = (np.arange(mask.size).reshape(mask.shape) % 101).astype(np.uint8)
    batch = join_parts(trace_parts(mask, windows, percents))
    assert_same_batch(batch, trace_whole(mask, percents))


@pytest.mark.parametrize("size", [(1, 1), (1, 99), (99, 1), (2, 3), (4, 4), (99, 5)])
@pytest.mark.parametrize("name", MASKS)
def test_shapes_that_cross_seams_join_to_the_whole(
    name: str, size: tuple[int, int]
) -> None:
    mask = MASKS[name]
    batch = join_parts(trace_parts(mask, split(mask, *size), mask))
    assert_same_batch(batch, trace_whole(mask, mask))


def test_a_spiral_in_single_pixels_is_one_polygon() -> None:
    mask = spiral(15)
    batch = join_parts(trace_parts(mask, split(mask, 1, 1)))
    assert len(batch) == 2
    assert batch.pixels.sum() == mask.size


def test_a_hole_across_a_seam_is_one_ring() -> None:
    mask = np.ones((6, 6), np.uint8)
    mask[2:4, 2:4] = NODATA
    (polygon,) = join_parts(trace_parts(mask, split(mask, 3, 3))).geometries(
        Affine.identity()
    )
    assert polygon.area == 32
    (hole,) = polygon.interiors
    assert shapely.Polygon(hole).equals(shapely.box(2, 2, 4, 4))


def test_a_touch_inside_a_part_waits_for_what_lies_beyond_the_seam() -> None:
    # the ones left and right of the corner (col 1, row 2) are one component only
    # through the first row, which is another part
    mask = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], np.uint8)
    windows = [Window(0, 0, 1, 3), Window(1, 0, 2, 3)]
    batch = join_parts(trace_parts(mask, windows))
    assert_same_batch(batch, trace_whole(mask))
    assert len(batch.geometries(Affine.identity())[0].interiors) == 1


def test_seams_leave_no_vertex_behind() -> None:
    mask = np.full((8, 8), 2, np.uint8)
    batch = join_parts(trace_parts(mask, split(mask, 3, 3)))
    assert batch.coords.tolist() == [[0, 0], [8, 0], [8, 8], [0, 8]]


def test_a_node_on_a_seam_is_a_vertex_of_all_polygons_around_it() -> None:
    mask = np.array([[0, 0], [1, 2]], np.uint8)
    batch = join_parts(trace_parts(mask, split(mask, 1, 1)))
    assert np.count_nonzero((batch.coords == (1, 1)).all(axis=1)) == 3
    assert shapely.coverage_is_valid(batch.geometries(Affine.identity()))


def test_a_map_in_bands_of_segments_is_a_valid_coverage() -> None:
    mask = blobs(300, 6, sigma=3)
    mask[blobs(300, 9, sigma=12, seed=1) == 0] = NODATA
    batch = join_parts(trace_parts(mask, split(mask, 37, 101)))
    geometries = batch.geometries(Affine(0.25, 0, 155_000, 0, -0.25, 463_000))
    assert shapely.is_valid(geometries).all()
    assert shapely.coverage_is_valid(geometries)
    assert_same_batch(batch, trace_whole(mask))


def test_parts_away_from_the_scene_corner_join() -> None:
    mask = blobs(40, 3, sigma=2)
    region = Window(100, 2000, 40, 40)
    parts = [
        trace_part(
            mask[window.slices],
            None,
            Window(window.row + 100, window.col + 2000, window.height, window.width),
            region=region,
        )
        for window in split(mask, 11, 17)
    ]
    whole = trace_part(mask, None, region, region=region).closed
    assert_same_batch(join_parts(parts), whole)
    assert whole.coords.min(axis=0).tolist() == [2000, 100]


def test_polygons_are_either_closed_in_a_part_or_joined() -> None:
    mask = blobs(120, 5, sigma=2)
    parts = trace_parts(mask, split(mask, 30, 50))
    joined = join_open(parts)
    closed = PolygonBatch.concat([part.closed for part in parts])
    assert len(joined) > 0
    assert len(closed) > 0
    assert_same_batch(PolygonBatch.concat([joined, closed]).sorted(), join_parts(parts))
    assert_same_batch(join_open(parts[::-1]), joined)
    for part in parts:
        row_bounds = part.closed.coords[:, 1].min(), part.closed.coords[:, 1].max()
        assert part.window.row <= row_bounds[0] <= row_bounds[1] <= part.window.row_stop


def test_a_part_carries_no_boundary_of_closed_components_to_the_join() -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[1:-1:2, 1:-1:2] = NODATA
    speckled = np.where(mask == NODATA, np.uint8(1), np.uint8(NODATA))
    part = trace_part(speckled, None, Window(0, 0, 50, 50), region=Window(0, 0, 99, 99))
    assert len(part.closed) == 24 * 24
    assert len(part.class_id) == 0
    assert len(part.arms.coords) == len(part.rings.coords) == 0


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_saved_parts_join_like_traced_ones(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mask = data.draw(class_masks())
    windows = data.draw(partitions(whole_window(mask)))
    folder = tmp_path_factory.mktemp("parts")
    parts = trace_parts(mask, windows, mask)
    for index, part in enumerate(parts):
        part.save(folder / f"{index}.part")
    paths = [folder / f"{index}.part" for index in range(len(parts))]
    loaded = [TracedPart.load(path) for path in paths]
    assert [part.window for part in loaded] == windows
    assert_same_batch(join_parts(loaded), join_parts(parts))
    light = [TracedPart.load(path, closed=False) for path in paths]
    assert_same_batch(join_open(light), join_open(parts))
    assert all(len(part.closed) == 0 for part in light)


def test_a_broken_part_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "band-3.part"
    with pytest.raises(VectorizeError, match=r"band-3\.part is not a traced part"):
        TracedPart.load(path)
    trace_parts(MASKS["spiral"], [Window(0, 0, 7, 15)])[0].save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(VectorizeError, match="delete it and run again"):
        TracedPart.load(path)
    path.write_bytes(b"")
    with pytest.raises(VectorizeError, match="delete it and run again"):
        TracedPart.load(path)
    with path.open("wb") as file:
        np.savez(file, window=np.zeros(4, np.int64))
    with pytest.raises(VectorizeError, match="delete it and run again"):
        TracedPart.load(path)


def test_parts_that_do_not_fill_their_region_are_refused() -> None:
    mask = spiral(8)
    upper, lower = trace_parts(mask, split(mask, 4, 8))
    with pytest.raises(VectorizeError, match="hold 32 pixels, their region 64"):
        join_parts([upper])
    with pytest.raises(VectorizeError, match="do not meet at their seams"):
        join_parts([upper, upper])
    other = trace_part(mask, None, Window(0, 0, 8, 8), region=Window(0, 0, 8, 8))
    foreign = trace_part(mask, None, Window(0, 0, 8, 8), region=Window(0, 0, 9, 8))
    with pytest.raises(VectorizeError, match="several regions"):
        join_parts([other, foreign])
    assert len(join_parts([upper, lower])) == len(other.closed)
    assert len(join_parts([])) == 0
