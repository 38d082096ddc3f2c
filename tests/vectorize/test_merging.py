"""Polygons of several sources in one order, a batch of each at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from geoseg.vectorize.batch import DTYPES, PolygonBatch
from geoseg.vectorize.merging import merge_batches


def batch_of(places: list[int]) -> PolygonBatch:
    """Make polygons that end at these rows, and have them for a geometry."""
    count = len(places)
    arrays = {
        name: np.zeros((count, 4) if name == "bounds" else count, dtype)
        for name, dtype in DTYPES.items()
    }
    geometry = pa.array([str(place).encode() for place in places], pa.binary())
    batch = PolygonBatch(**arrays, geometry=geometry)
    bounds = batch.bounds.copy()
    bounds[:, 3] = np.array(places) + 1
    return replace(batch, bounds=bounds)


def rows_of(batches: Iterator[PolygonBatch]) -> list[int]:
    return [int(place) for batch in batches for place in batch.geometry.to_pylist()]


@given(data=st.data(), parts=st.integers(1, 4))
def test_parts_of_a_row_are_merged_with_what_was_joined(
    data: st.DataObject, parts: int
) -> None:
    places = data.draw(st.permutations(range(40)))
    owners = data.draw(st.lists(st.integers(0, parts), min_size=40, max_size=40))
    shares: list[list[int]] = [[] for _ in range(parts + 1)]
    for place, owner in zip(places, owners, strict=True):
        shares[owner].append(place)
    sizes = st.integers(1, 7)

    def batches(share: list[int]) -> Iterator[PolygonBatch]:
        share = sorted(share)
        while share:
            size = data.draw(sizes)
            yield batch_of(share[:size])
            yield batch_of([])
            share = share[size:]

    closed = [(40, [batches(share) for share in shares[1:]])]
    assert rows_of(merge_batches(closed, batches(shares[0]))) == list(range(40))


def test_of_each_part_and_of_what_is_joined_a_batch_is_read_at_a_time() -> None:
    read = [0, 0, 0]

    def source(number: int) -> Iterator[PolygonBatch]:
        for place in range(100):
            read[number] += 1
            yield batch_of([3 * place + number])

    merged = merge_batches([(300, [source(0), source(1)])], source(2))
    for expected in range(30):
        batch = next(merged)
        assert batch.geometry.to_pylist() == [str(expected).encode()]
        assert max(read) <= expected // 3 + 2
