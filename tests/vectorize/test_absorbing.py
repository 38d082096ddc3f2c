from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

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
    join,
    partitions,
    trace_parts,
    trace_whole,
    whole_window,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geoseg.types import NODATA
from geoseg.vectorize import PolygonBatch, absorb_small


def absorb(
    batch: PolygonBatch, least: float, transform: Affine = IDENTITY
) -> PolygonBatch:
    """Absorb polygons of fewer pixels."""
    middle = len(batch) // 2  # two batches in, and any number out
    with TemporaryDirectory() as folder:
        batches = absorb_small(
            [batch.slice(0, middle), batch.slice(middle, len(batch))],
            least,
            area=lambda some: some.pixels.astype(np.float64),
            transform=transform,
            spill=Path(folder),
        )
        return PolygonBatch.concat(list(batches))


def components(mask: Mask) -> npt.NDArray[np.int64]:
    """Number the 4-connected components by their first pixel, from 1; nodata is 0."""
    labels: npt.NDArray[np.int64] = np.zeros(mask.shape, np.int64)
    for value in np.unique(mask[mask != NODATA]):
        found, _ = ndimage.label(mask == value)
        labels = np.where(found > 0, found + labels.max(), labels)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(np.where(labels.ravel()[first] == 0, -1, first)))
    has_nodata = (mask == NODATA).any()
    numbered: npt.NDArray[np.int64] = (rank + (not has_nodata))[inverse].reshape(
        mask.shape
    )
    return numbered


def absorb_slowly(mask: Mask, least: int) -> Mask:
    """Recolour the smallest component, one at a time, as the rule says."""
    mask = mask.copy()
    while True:
        labels = components(mask)
        sizes = np.bincount(labels.ravel())
        for label in sorted(range(1, len(sizes)), key=lambda n: (sizes[n], n)):
            if sizes[label] >= least:
                return mask
            shared: dict[int, int] = {}
            for axis in (0, 1):
                pairs = np.moveaxis(labels, axis, 0)
                for a, b in ((pairs[1:], pairs[:-1]), (pairs[:-1], pairs[1:])):
                    for other in b[(a == label) & (b != label) & (b != 0)].tolist():
                        shared[other] = shared.get(other, 0) + 1
            if shared:
                winner = max(shared, key=lambda other: (shared[other], -other))
                mask[labels == label] = mask[labels == winner][0]
                break
        else:
            return mask


@settings(max_examples=60, deadline=None)
@given(class_masks(max_side=9), st.integers(1, 9))
def test_small_polygons_go_where_the_rule_says(mask: Mask, least: int) -> None:
    percents = (np.arange(mask.size).reshape(mask.shape) % 101).astype(np.uint8)
    found = absorb(trace_whole(mask, percents), least)
    assert_same_batch(found, trace_whole(absorb_slowly(mask, least), percents))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_absorbed_polygons_do_not_depend_on_the_parts(data: st.DataObject) -> None:
    mask = data.draw(class_masks())
    windows = data.draw(partitions(whole_window(mask)))
    parts = join(trace_parts(mask, windows, mask))
    assert_same_batch(absorb(parts, 4), absorb(trace_whole(mask, mask), 4))


@pytest.mark.parametrize("angle", [0, 31])
def test_none_below_the_area_is_left_beside_another(angle: float) -> None:
    mask = blobs(200, 6, sigma=1)
    mask[blobs(200, 9, sigma=9, seed=1) == 0] = NODATA
    mask[4:7, 4:7] = NODATA
    mask[5, 5] = 3  # an island
    grid = Affine.translation(4e5, 5e6) @ Affine.rotation(angle) @ Affine.scale(0.25)
    before = trace_whole(mask, mask, grid)
    after = absorb(before, 25, grid)
    small = after.take(np.flatnonzero(after.pixels < 25))
    assert 0 < len(small) < len(after) < len(before)
    geometries = after.geometries()
    assert shapely.coverage_is_valid(geometries)
    tree = shapely.STRtree(geometries)
    for island in small.geometries():
        near = geometries[tree.query(island, predicate="touches")]
        assert shapely.length(shapely.intersection(island, near)).sum() == 0
    assert after.pixels.sum() == before.pixels.sum()
    assert after.confidence_sum.sum() == before.confidence_sum.sum()
    np.testing.assert_allclose(
        shapely.area(geometries).sum(), before.pixels.sum() / 16, rtol=1e-9
    )


def test_nothing_is_absorbed_below_nothing() -> None:
    batch = trace_whole(blobs(40, 4, sigma=1))
    assert_same_batch(absorb(batch, 0), batch)
    assert len(absorb(PolygonBatch.empty(), 5)) == 0
