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
    across = _Across(joined)
    for stop, parts in closed:
        # What ends at the seam itself comes before all that lies below.
        yield from _side_by_side([*parts, across.up_to(stop)])
    yield from across.rest()


class _Across:
    """Polygons across seams; they are joined when they are asked for."""

    def __init__(self, batches: Iterable[PolygonBatch]) -> None:
        self._batches = filter(len, batches)
        self._held: PolygonBatch | None = None

    def up_to(self, row: int) -> Iterator[PolygonBatch]:
        """Give those whose last pixel lies above a row."""
        for batch in self.rest():
            last_pixels = batch.last_pixels()
            count = int(np.searchsorted(last_pixels, (row + 1) * LAST_ROW))
            if count < len(batch):
                self._held = batch.slice(count, len(batch))
                if count:
                    yield batch.slice(0, count)
                return
            yield batch

    def rest(self) -> Iterator[PolygonBatch]:
        """Give all others."""
        if self._held is not None:
            kept, self._held = [self._held], None
            # Not kept by this generator: one polygon may have gigabytes.
            yield kept.pop()
        yield from self._batches


def _side_by_side(
    sources: Iterable[Iterator[PolygonBatch]],
) -> Iterator[PolygonBatch]:
    """Merge the polygons of a row; no batch given is empty."""
    filled = (filter(len, source) for source in sources)
    heads = [(batch, source) for source in filled for batch in _next(source)]
    while heads:
        # All that comes before the end of some batch is there.
        stop = min(batch.last_pixels()[-1] for batch, _ in heads)
        due, left = [], []
        for batch, source in heads:
            count = int(np.searchsorted(batch.last_pixels(), stop, side="right"))
            if count:
                due.append(batch.slice(0, count))
            if count < len(batch):
                left.append((batch.slice(count, len(batch)), source))
            else:
                left += [(following, source) for following in _next(source)]
        heads = left
        yield due[0] if len(due) == 1 else _sorted(PolygonBatch.concat(due))


def _next(source: Iterator[PolygonBatch]) -> Iterator[PolygonBatch]:
    return itertools.islice(source, 1)


def _sorted(batch: PolygonBatch) -> PolygonBatch:
    return batch.take(np.argsort(batch.last_pixels()))
