"""A whole raster by bands of rows, which are joined in the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg.grid import Window
from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.reference.joining import join_saved
from geoseg.vectorize.reference.tracing import trace_part

Pixels = npt.NDArray[np.uint8]

_ROWS = 512
"""Rows of a band."""


def trace_rows(
    rows: Iterable[tuple[Pixels, Pixels | None]],
    width: int,
    *,
    transform: Affine,
    spill: Path,
    nodata: int,
    origin: tuple[int, int],
) -> Iterator[PolygonBatch]:
    """Trace a raster as its rows are read; see `geoseg.vectorize.trace_rows`.

    Bands wait in a folder until the last one is read, for only then it is known how
    many rows there are. What crosses seams is joined in memory.
    """
    with tempfile.TemporaryDirectory(dir=spill) as folder:
        paths: list[Path] = []
        top, left = origin
        row = top
        for mask, confidence, is_last in _bands(rows):
            window = Window(row, left, mask.shape[0], width)
            row = window.row_stop
            # one row more than is known: a seam
            region = Window(top, left, row - top + (not is_last), width)
            part = trace_part(
                mask,
                confidence,
                window,
                region=region,
                transform=transform,
                nodata=nodata,
            )
            paths.append(Path(folder) / f"{len(paths)}.part")
            part.save(paths[-1])
        yield from join_saved(paths, region=Window(top, left, row - top, width))


def _bands(
    rows: Iterable[tuple[Pixels, Pixels | None]],
) -> Iterator[tuple[Pixels, Pixels | None, bool]]:
    """Gather rows to bands; tell which one is the last."""
    waiting: list[tuple[Pixels, Pixels | None]] = []
    held: tuple[Pixels, Pixels | None] | None = None
    for pair in rows:
        waiting.append(pair)
        if sum(len(mask) for mask, _ in waiting) >= _ROWS:
            if held is not None:
                yield *held, False
            held = _stack(waiting)
            waiting = []
    if waiting:
        if held is not None:
            yield *held, False
        held = _stack(waiting)
    if held is not None:
        yield *held, True


def _stack(
    rows: list[tuple[Pixels, Pixels | None]],
) -> tuple[Pixels, Pixels | None]:
    percents = [confidence for _, confidence in rows if confidence is not None]
    return np.concatenate([mask for mask, _ in rows]), (
        np.concatenate(percents) if percents else None
    )
