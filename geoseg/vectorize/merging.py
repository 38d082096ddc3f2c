"""Batches from several sources in the one order that polygons leave in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from geoseg.vectorize.batch import LAST_ROW, PolygonBatch


def merge_batches(
    closed: Iterable[tuple[int, Sequence[Iterator[PolygonBatch]]]],
    joined: Iterable[PolygonBatch],
) -> Iterator[PolygonBatch]:
    """Merge polygons by their last pixel in row order.

    Of each part, and of what was joined, a batch or two are held at a time.

    Args:
        closed: For each row of parts, the row at which they stop, and the polygons of
            each part that touch no seam, in order.
        joined: Polygons across seams, in order.

    Yields:
        Batches; those that nothing comes between are passed on as they are.
    """
    waiting = iter(joined)
    held = PolygonBatch.empty()
    for stop, parts in closed:
        # what ends at the seam itself comes before all that lies below
        held, due = _up_to(held, waiting, stop)
        yield from _interleave(_side_by_side(parts), due)
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
    batches: Iterable[PolygonBatch], due: PolygonBatch
) -> Iterator[PolygonBatch]:
    """Merge batches with the polygons due among them, which are few."""
    keys = due.last_pixels()
    start = 0
    for batch in batches:
        stop = int(np.searchsorted(keys, batch.last_pixels()[-1]))
        mine = due.slice(start, stop)
        start = stop
        yield _sorted(PolygonBatch.concat([batch, mine])) if len(mine) else batch
    if start < len(due):
        yield due.slice(start, len(due))


def _side_by_side(parts: Sequence[Iterator[PolygonBatch]]) -> Iterator[PolygonBatch]:
    """Merge the parts of a row, none of whose batches given is empty."""
    sources = [filter(len, part) for part in parts]
    if len(sources) == 1:
        yield from sources[0]
        return
    heads = [(batch, source) for source in sources for batch in _next(source)]
    while heads:
        # All that comes before the end of some batch is there.
        stop = min(batch.last_pixels()[-1] for batch, _ in heads)
        due, left = [], []
        for batch, source in heads:
            count = int(np.searchsorted(batch.last_pixels(), stop, side="right"))
            due.append(batch.slice(0, count))
            if count < len(batch):
                left.append((batch.slice(count, len(batch)), source))
            else:
                left += [(following, source) for following in _next(source)]
        heads = left
        yield _sorted(PolygonBatch.concat(due))


def _next(source: Iterator[PolygonBatch]) -> Iterator[PolygonBatch]:
    return itertools.islice(source, 1)


def _sorted(batch: PolygonBatch) -> PolygonBatch:
    return batch.take(np.argsort(batch.last_pixels()))
