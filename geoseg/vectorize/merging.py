"""Batches from several sources in the one order that polygons leave in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from geoseg.vectorize.batch import LAST_ROW, PolygonBatch


def merge_batches(
    closed: Iterable[tuple[int, PolygonBatch]], joined: Iterable[PolygonBatch]
) -> Iterator[PolygonBatch]:
    """Merge polygons by their last pixel in row order.

    Args:
        closed: Polygons that touch no seam, in order within a part, each batch with the
            row at which its part stops; parts that stop at one row follow each other.
        joined: Polygons across seams, in order.

    Yields:
        Batches; those that nothing comes between are passed on as they are.
    """
    waiting = iter(joined)
    held = PolygonBatch.empty()
    for stop, group in itertools.groupby(closed, key=lambda pair: pair[0]):
        batches = [batch for _, batch in group]
        # what ends at the seam itself comes before all that lies below
        held, due = _up_to(held, waiting, stop)
        yield from _interleave(batches, due)
    yield from (batch for batch in (held, *waiting) if len(batch))


def _up_to(
    held: PolygonBatch, waiting: Iterator[PolygonBatch], row: int
) -> tuple[PolygonBatch, PolygonBatch]:
    """Return the rest, and the polygons whose last pixel lies above a row."""
    due = [held]
    while not len(due[-1]) or due[-1].bounds[-1, 3] <= row:
        batch = next(waiting, None)
        if batch is None:
            break
        due.append(batch)
    merged = PolygonBatch.concat(due)
    count = int(np.searchsorted(merged.last_pixels(), (row + 1) * LAST_ROW))
    return merged.slice(count, len(merged)), merged.slice(0, count)


def _interleave(
    batches: list[PolygonBatch], due: PolygonBatch
) -> Iterator[PolygonBatch]:
    """Merge batches with the polygons due among them, which are few."""
    if len(batches) > 1 and not _in_order(batches):
        batches = [_sorted(PolygonBatch.concat(batches))]
    keys = due.last_pixels()
    start = 0
    for batch in batches:
        if len(batch):
            stop = int(np.searchsorted(keys, batch.last_pixels()[-1]))
            mine = due.slice(start, stop)
            start = stop
            yield _sorted(PolygonBatch.concat([batch, mine])) if len(mine) else batch
    if start < len(due):
        yield due.slice(start, len(due))


def _in_order(batches: list[PolygonBatch]) -> bool:
    keys = [batch.last_pixels() for batch in batches if len(batch)]
    return all(a[-1] < b[0] for a, b in itertools.pairwise(keys))


def _sorted(batch: PolygonBatch) -> PolygonBatch:
    return batch.take(np.argsort(batch.last_pixels()))
