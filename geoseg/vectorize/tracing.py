"""Tracing of class masks: a whole raster by rows, or one part of it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.native import Tracer, library, seams_of
from geoseg.vectorize.parts import NativePart, SavedPart, TracedPart
from geoseg.vectorize.reference.part import TracedPart as ReferencePart
from geoseg.vectorize.reference.rows import trace_rows as trace_rows_reference
from geoseg.vectorize.reference.tracing import trace_part as trace_part_reference

__all__ = ["TracedPart", "load_part", "trace_part", "trace_rows"]

Pixels = npt.NDArray[np.uint8]


def trace_rows(
    rows: Iterable[tuple[Pixels, Pixels | None]],
    width: int,
    *,
    transform: Affine,
    spill: Path,
    nodata: int = NODATA,
    excluded: Set[int] = frozenset(),
    classes: Pixels | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Iterator[PolygonBatch]:
    """Trace a whole raster as its rows are read.

    Polygons leave as soon as they are closed. Memory does not grow with the raster, but
    for the largest polygon.

    Args:
        rows: Class and percent of each pixel of some rows, from the top: shapes
            (height, width) both, uint8, any number of rows a pair. Percents are None
            throughout, or never.
        width: Columns of the raster.
        transform: Grid corners (col, row) to CRS coordinates (x, y), applied as
            `x = a * col + b * row + c` in float64.
        spill: Folder for a temporary file, which holds what memory should not.
        nodata: Class of pixels that get no polygon.
        excluded: More classes that get none; they count as nodata.
        classes: Class that each value of the mask stands for, shape (256,), uint8;
            None: the value itself. Nodata and excluded are classes, not values.
        origin: Row and column of the first pixel in the scene.

    Raises:
        VectorizeError: Rows are of another shape or dtype.
        OSError: The folder cannot be written to, or is full.
    """
    native = library()
    checked = _checked_rows(rows, width)
    counted = _counted_as(classes, nodata, excluded)
    if native is None:
        yield from trace_rows_reference(
            _recoded(checked, counted),
            width,
            transform=transform,
            spill=spill,
            nodata=nodata,
            origin=origin,
        )
        return
    tracer: Tracer | None = None
    for mask, confidence in checked:
        if tracer is None:
            tracer = Tracer(
                native,
                Window(*origin, 0, width),
                transform=transform,
                nodata=nodata,
                classes=counted,
                has_confidence=confidence is not None,
                spill=spill,
            )
        yield from tracer.feed(mask, confidence)
    if tracer is not None:
        yield from tracer.finish()


def trace_part(
    class_mask: Pixels,
    confidence: Pixels | None,
    window: Window,
    *,
    region: Window,
    transform: Affine,
    nodata: int = NODATA,
    excluded: Set[int] = frozenset(),
    classes: Pixels | None = None,
) -> TracedPart:
    """Trace one part of a class mask; parts may be traced in any order and process.

    Args:
        class_mask: Class of each pixel of the part, shape (height, width).
        confidence: Percent of each pixel, same shape; None gives sums of 0.
        window: Where the part lies, in pixels of the scene; may be empty.
        region: What all parts together fill, in pixels of the scene. Its sides are
            boundaries; the other sides of the part are seams. Parts lie in rows: those
            that begin at one row end at one row.
        transform: Grid corners (col, row) of the scene to CRS coordinates (x, y).
        nodata: Class of pixels that get no polygon.
        excluded: More classes that get none; they count as nodata.
        classes: Class that each value of the mask stands for, shape (256,), uint8;
            None: the value itself. Nodata and excluded are classes, not values.

    Returns:
        The part, for `join_parts`: as it is, or saved (`save`) and by its path.

    Raises:
        VectorizeError: An array does not fit the window, or the window the region.
    """
    shape = (window.height, window.width)
    _check(class_mask, "class mask", shape)
    if confidence is not None:
        _check(confidence, "confidence", shape)
    if not region.contains(window):
        raise VectorizeError(
            f"the part {window} reaches outside of the region {region}; clip it"
        )
    native = library()
    counted = _counted_as(classes, nodata, excluded)
    if native is None:
        [(mask, percents)] = _recoded([(class_mask, confidence)], counted)
        return trace_part_reference(
            mask, percents, window, region=region, transform=transform, nodata=nodata
        )
    return native_part(
        native,
        [(class_mask, confidence)],
        window,
        region=region,
        transform=transform,
        nodata=nodata,
        classes=counted,
    )


def native_part(
    native: ctypes.CDLL,
    rows: Iterable[tuple[Pixels, Pixels | None]],
    window: Window,
    *,
    region: Window,
    transform: Affine,
    nodata: int,
    classes: Pixels | None,
) -> NativePart:
    """Trace a part whose rows come in order, from top to bottom.

    Args:
        native: The library.
        rows: Class and percent of pixels, as `trace_rows` takes them; empty only if
            the window is.
        window: Where the part lies; the rest is as `trace_part` takes it.
    """
    tracer: Tracer | None = None
    batches: list[PolygonBatch] = []
    for mask, confidence in _checked_rows(rows, window.width):
        tracer = tracer or Tracer(
            native,
            window,
            seams=seams_of(window, region),
            transform=transform,
            nodata=nodata,
            classes=classes,
            has_confidence=confidence is not None,
            spill=None,  # a part is small
        )
        batches.extend(tracer.feed(mask, confidence))
    assert tracer is not None, "there are rows"
    batches.extend(tracer.finish())
    return NativePart(window, region, transform, tuple(batches), tracer.open_pieces())


def load_part(path: Path) -> TracedPart:
    """Open a part that `TracedPart.save` wrote.

    Raises:
        VectorizeError: The file is missing, cut short, or not a part.
    """
    return ReferencePart.load(path) if library() is None else SavedPart(path)


def _check(values: Pixels, name: str, shape: tuple[int, int]) -> None:
    if values.shape != shape:
        raise VectorizeError(
            f"the {name} has the shape {values.shape}, its window {shape}; pass "
            "the pixels of the window"
        )
    if values.dtype != np.uint8:
        raise VectorizeError(
            f"the {name} is {values.dtype}, not uint8; convert it first"
        )


def _checked_rows(
    rows: Iterable[tuple[Pixels, Pixels | None]], width: int
) -> Iterator[tuple[Pixels, Pixels | None]]:
    has_confidence: bool | None = None
    for mask, confidence in rows:
        height = mask.shape[0] if mask.ndim else 0
        _check(mask, "class mask", (height, width))
        if confidence is not None:
            _check(confidence, "confidence", (height, width))
        if has_confidence not in (None, confidence is not None):
            raise VectorizeError(
                "some rows come with confidence and some without; give it for all rows "
                "or none"
            )
        has_confidence = confidence is not None
        yield mask, confidence


def _counted_as(
    classes: Pixels | None, nodata: int, excluded: Set[int]
) -> Pixels | None:
    """Return what each value counts as, shape (256,); None if that is the value."""
    if classes is None and not excluded:
        return None
    counted = np.arange(256, dtype=np.uint8) if classes is None else classes.copy()
    counted[np.isin(counted, list(excluded))] = nodata
    return counted


def _recoded(
    rows: Iterable[tuple[Pixels, Pixels | None]], counted: Pixels | None
) -> Iterator[tuple[Pixels, Pixels | None]]:
    """Give each value the class that it counts as."""
    for mask, confidence in rows:
        yield (mask if counted is None else counted[mask]), confidence
