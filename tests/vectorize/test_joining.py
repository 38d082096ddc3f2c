from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from class_masks import (
    IDENTITY,
    Mask,
    assert_same_batch,
    blobs,
    class_masks,
    join,
    partitions,
    polygon_rings,
    polygon_vertices,
    split,
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
    load_part,
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


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_parts_in_any_order_join_to_the_whole(data: st.DataObject) -> None:
    mask = data.draw(class_masks())
    windows = data.draw(partitions(whole_window(mask)))
    percents = (np.arange(mask.size).reshape(mask.shape) % 101).astype(np.uint8)
    batch = join(trace_parts(mask, windows, percents))
    assert_same_batch(batch, trace_whole(mask, percents))


@pytest.mark.parametrize("size", [(1, 1), (1, 99), (99, 1), (2, 3), (4, 4), (99, 5)])
@pytest.mark.parametrize("name", MASKS)
def test_shapes_that_cross_seams_join_to_the_whole(
    name: str, size: tuple[int, int]
) -> None:
    mask = MASKS[name]
    batch = join(trace_parts(mask, split(mask, *size), mask))
    assert_same_batch(batch, trace_whole(mask, mask))


def test_more_polygons_may_cross_a_seam_than_a_batch_holds() -> None:
    mask = (np.indices((4, 20_000)).sum(axis=0) % 2).astype(np.uint8)
    batch = join(trace_parts(mask, split(mask, 1, 20_000)))
    assert_same_batch(batch, trace_whole(mask))


def test_a_spiral_in_single_pixels_is_one_polygon() -> None:
    mask = spiral(15)
    batch = join(trace_parts(mask, split(mask, 1, 1)))
    assert len(batch) == 2
    assert batch.pixels.sum() == mask.size


def test_a_hole_across_a_seam_is_one_ring() -> None:
    mask = np.ones((6, 6), np.uint8)
    mask[2:4, 2:4] = NODATA
    (polygon,) = join(trace_parts(mask, split(mask, 3, 3))).geometries()
    assert polygon.area == 32
    (hole,) = polygon.interiors
    assert shapely.Polygon(hole).equals(shapely.box(2, 2, 4, 4))


def test_a_touch_inside_a_part_waits_for_what_lies_beyond_the_seam() -> None:
    # the ones left and right of the corner (col 1, row 2) are one component only
    # through the first row, which is another part
    mask = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], np.uint8)
    windows = [Window(0, 0, 1, 3), Window(1, 0, 2, 3)]
    batch = join(trace_parts(mask, windows))
    assert_same_batch(batch, trace_whole(mask))
    assert sorted(len(p.interiors) for p in batch.geometries()) == [0, 0, 1]


def test_seams_leave_no_vertex_behind() -> None:
    mask = np.full((8, 8), 2, np.uint8)
    batch = join(trace_parts(mask, split(mask, 3, 3)))
    assert polygon_rings(batch) == [[[(0, 0), (8, 0), (8, 8), (0, 8)]]]


def test_a_node_on_a_seam_is_a_vertex_of_all_polygons_around_it() -> None:
    mask = np.array([[0, 0], [1, 2]], np.uint8)
    batch = join(trace_parts(mask, split(mask, 1, 1)))
    assert [(1, 1) in vertices for vertices in polygon_vertices(batch)] == [True] * 3
    assert shapely.coverage_is_valid(batch.geometries())


def test_a_map_in_bands_of_segments_is_a_valid_coverage() -> None:
    mask = blobs(300, 6, sigma=3)
    mask[blobs(300, 9, sigma=12, seed=1) == 0] = NODATA
    batch = join(trace_parts(mask, split(mask, 37, 101)))
    geometries = batch.geometries()
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
            transform=IDENTITY,
        )
        for window in split(mask, 11, 17)
    ]
    whole = join([trace_part(mask, None, region, region=region, transform=IDENTITY)])
    assert_same_batch(join(parts), whole)
    assert whole.bounds[:, :2].min(axis=0).tolist() == [2000, 100]


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
    assert [load_part(path).window for path in paths] == windows
    assert_same_batch(join(paths), join(parts))


def test_another_account_may_join_a_part(tmp_path: Path) -> None:
    path, new = tmp_path / "band-0.part", tmp_path / "new"
    trace_parts(MASKS["spiral"], [Window(0, 0, 7, 15)])[0].save(path)
    new.touch()
    assert path.stat().st_mode == new.stat().st_mode


def test_a_broken_part_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "band-3.part"
    with pytest.raises(VectorizeError, match=r"band-3\.part is not a traced part"):
        load_part(path)
    trace_parts(MASKS["spiral"], [Window(0, 0, 7, 15)])[0].save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(VectorizeError, match="delete it and run again"):
        load_part(path)
    path.write_bytes(b"")
    with pytest.raises(VectorizeError, match="delete it and run again"):
        load_part(path)
    with path.open("wb") as file:
        np.savez(file, window=np.zeros(4, np.int64))
    with pytest.raises(VectorizeError, match="delete it and run again"):
        load_part(path)


def test_parts_that_do_not_fill_their_region_are_refused() -> None:
    mask = spiral(8)
    upper, lower = trace_parts(mask, split(mask, 4, 8))
    with pytest.raises(VectorizeError, match="hold 32 pixels, their region 64"):
        join([upper])
    with pytest.raises(VectorizeError, match="do not meet at their seams"):
        join([upper, upper])
    window, taller = Window(0, 0, 8, 8), Window(0, 0, 9, 8)
    other = trace_part(
        mask, None, window, region=Window(0, 0, 8, 8), transform=IDENTITY
    )
    foreign = trace_part(mask, None, window, region=taller, transform=IDENTITY)
    with pytest.raises(VectorizeError, match="several regions"):
        join([other, foreign])
    assert len(join([upper, lower])) == len(join([other]))
    assert len(join([])) == 0
