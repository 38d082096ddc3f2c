"""Whole rasters by rows: every width that ends a word, every cut, against GDAL."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

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
    component_masks,
    join,
    trace_parts,
    trace_whole,
)
from rasterio.features import shapes
from shapely.geometry import shape

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize import PolygonBatch, native, trace_part, trace_rows

WIDTHS = (1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 200)


def random_masks(count: int, *, seed: int = 0) -> Iterator[Mask]:
    """Yield noise, some of it in blocks, of 2 to 7 classes, half of it with nodata."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        shape = int(rng.integers(1, 24)), WIDTHS[index % len(WIDTHS)]
        classes = int(rng.integers(2, 8))
        mask = rng.integers(0, classes, shape).astype(np.uint8)
        if rng.random() < 0.4:
            mask = np.kron(mask, np.ones((2, 3), np.uint8))[: shape[0], : shape[1]]
        if rng.random() < 0.5:
            mask[mask == classes - 1] = NODATA
        yield np.ascontiguousarray(mask)


def percents_of(mask: Mask) -> Mask:
    return (np.arange(mask.size).reshape(mask.shape) * 7 % 101).astype(np.uint8)


def order_by_last_pixel(
    polygons: npt.NDArray[np.object_],
) -> npt.NDArray[np.intp]:
    corners, owner = shapely.get_coordinates(polygons, return_index=True)
    last = np.full(len(polygons), -1.0)
    np.maximum.at(last, owner, corners[:, 1] * 1000 + corners[:, 0])
    return np.argsort(last)


def assert_equal_to_gdal(mask: Mask) -> None:
    batch = trace_whole(mask, percents_of(mask))
    pairs = list(shapes(mask, mask=mask != NODATA, connectivity=4))
    theirs = np.array([shapely.make_valid(shape(g)) for g, _ in pairs], object)
    ours = batch.geometries()
    assert len(ours) == len(theirs)
    by_last = order_by_last_pixel(theirs)
    assert (order_by_last_pixel(ours) == np.arange(len(ours))).all()
    assert shapely.equals(ours, theirs[by_last]).all()
    values = np.array([int(value) for _, value in pairs])[by_last]
    assert (batch.class_id == values).all()
    assert shapely.is_valid(ours).all()
    assert shapely.coverage_is_valid(ours)
    assert (shapely.area(ours) == batch.pixels).all()
    assert batch.pixels.sum() == np.count_nonzero(mask != NODATA)


@pytest.mark.parametrize(
    "count", [120, pytest.param(4000, marks=pytest.mark.slow)], ids=str
)
def test_polygons_of_random_masks_equal_those_of_gdal(count: int) -> None:
    for mask in random_masks(count):
        assert_equal_to_gdal(mask)


@pytest.mark.parametrize(
    "count", [24, pytest.param(400, marks=pytest.mark.slow)], ids=str
)
def test_any_cut_at_rows_gives_the_same_polygons(count: int) -> None:
    for mask in random_masks(count, seed=1):
        percents = percents_of(mask)
        whole = trace_whole(mask, percents)
        height, width = mask.shape
        cuts = [[0, row, height] for row in range(1, height)]
        for edges in [*cuts, list(range(height + 1))]:
            windows = [Window(a, 0, b - a, width) for a, b in pairwise(edges)]
            assert_same_batch(join(trace_parts(mask, windows, percents)), whole)


def test_statistics_are_those_of_the_pixels() -> None:
    for mask in random_masks(60, seed=2):
        percents = percents_of(mask)
        batch = trace_whole(mask, percents)
        numbers = np.arange(mask.size).reshape(mask.shape)
        rows, cols = np.divmod(numbers, mask.shape[1])
        components = component_masks(mask)
        assert len(components) == len(batch)
        for index, inside in enumerate(components):
            row, col = rows[inside], cols[inside]
            assert batch.pixels[index] == len(row)
            assert batch.confidence_sum[index] == percents[inside].sum(dtype=int)
            assert batch.row_sum[index] == (row + 0.5).sum()
            assert batch.col_sum[index] == (col + 0.5).sum()
            bounds = [col.min(), row.min(), col.max() + 1, row.max() + 1]
            assert batch.bounds[index].tolist() == bounds
            assert batch.first_col[index] == col[0]
            assert batch.last_col[index] == col[-1]


def test_rows_may_come_one_by_one(tmp_path: Path) -> None:
    mask = blobs(130, 5, sigma=1)
    percents = percents_of(mask)
    rows = ((mask[i : i + 1], percents[i : i + 1]) for i in range(len(mask)))
    found = list(trace_rows(rows, 130, transform=IDENTITY, spill=tmp_path))
    assert_same_batch(PolygonBatch.concat(found), trace_whole(mask, percents))
    assert list(tmp_path.iterdir()) == []


def test_no_rows_give_no_polygons(tmp_path: Path) -> None:
    assert list(trace_rows([], 5, transform=IDENTITY, spill=tmp_path)) == []


def test_an_origin_moves_the_polygons(tmp_path: Path) -> None:
    mask = blobs(30, 4, sigma=1)
    grid = Affine(0.25, 0.1, 3e5, 0.1, -0.25, 5e6)
    (moved,) = trace_rows(
        [(mask, None)], 30, transform=grid, spill=tmp_path, origin=(7, 1000)
    )
    region = Window(7, 1000, 30, 30)
    part = trace_part(mask, None, region, region=region, transform=grid)
    assert_same_batch(moved, join([part]))
    assert moved.bounds.min(axis=0).tolist()[:2] == [1000, 7]


def test_excluded_classes_count_as_nodata(tmp_path: Path) -> None:
    mask = blobs(60, 5, sigma=1)
    (found,) = trace_rows(
        [(mask, None)], 60, transform=IDENTITY, spill=tmp_path, excluded={1, 3}
    )
    hidden = np.where(np.isin(mask, (1, 3)), np.uint8(NODATA), mask)
    assert_same_batch(found, trace_whole(hidden))


def test_batches_keep_their_arrays_when_the_tracer_is_gone(tmp_path: Path) -> None:
    mask = blobs(200, 5, sigma=1)
    kept = [trace_whole(mask) for _ in range(3)]
    copies = [batch.take(np.arange(len(batch))) for batch in kept]
    for seed in range(8):
        trace_whole(blobs(200, 5, sigma=1, seed=seed))
    for batch, copy in zip(kept, copies, strict=True):
        assert_same_batch(batch, copy)


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    mask = np.zeros((2, 3), np.uint8)
    with pytest.raises(VectorizeError, match=r"class mask has the shape \(2, 3\)"):
        list(trace_rows([(mask, None)], 4, transform=IDENTITY, spill=tmp_path))
    for rows in ([(mask, None), (mask, mask)], [(mask, mask), (mask, None)]):
        traced = trace_rows(rows, 3, transform=IDENTITY, spill=tmp_path)
        with pytest.raises(VectorizeError, match="some rows come with confidence"):
            list(traced)


def test_open_boundaries_go_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracer: str
) -> None:
    if tracer == "numpy":
        return  # it always does so
    rng = np.random.default_rng(3)
    mask = (rng.random((400, 300)) < 0.45).astype(np.uint8)  # components without end
    percents = percents_of(mask)
    expected = trace_whole(mask, percents)
    monkeypatch.setattr(native, "MOST_BYTES", 1 << 12)
    assert_same_batch(trace_whole(mask, percents), expected)
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        list(
            trace_rows(
                [(mask, percents)],
                300,
                transform=IDENTITY,
                spill=tmp_path / "no-such-folder",
            )
        )


@pytest.mark.parametrize("instructions", ["portable", "avx2", "avx512"])
def test_every_instruction_set_traces_alike(instructions: str, tracer: str) -> None:
    if tracer == "numpy":
        return
    code = """
        import sys, numpy as np
        from test_rows import percents_of, random_masks
        from class_masks import assert_same_batch, trace_whole
        from geoseg.errors import VectorizeError
        from geoseg.vectorize import joining, tracing
        native = tracing.library
        for mask in random_masks(60, seed=4):
            try:
                found = trace_whole(mask, percents_of(mask))
            except VectorizeError:
                sys.exit(3)
            tracing.library = lambda: None
            assert_same_batch(found, trace_whole(mask, percents_of(mask)))
            tracing.library = native
    """
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests / "vectorize"), str(tests.parent)])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "GEOSEG_CPU": instructions, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 3 and instructions != "portable":
        pytest.skip(f"this processor has no {instructions}")
    assert done.returncode == 0, done.stderr
