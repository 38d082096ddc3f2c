"""The native library as the tracer sees it: calls by ctypes, results without a copy."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from affine import Affine

from geoseg._plain_c import open_library
from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.vectorize.batch import DTYPES, PolygonBatch
from geoseg.vectorize.parts import TABLES, Tables

Pixels = npt.NDArray[np.uint8]

MOST_BYTES = 256 << 20
"""Of open boundaries in memory; what is more goes to the spill folder."""

_BLOCK_BYTES = 128

Pointer = ctypes.c_void_p
Int64 = ctypes.c_int64


class _Extent(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("row", "col", "height", "width")),
        ("seams", ctypes.c_bool * 4),
    ]


class _TracerOptions(ctypes.Structure):
    _fields_ = [
        ("extent", _Extent),
        ("transform", ctypes.c_double * 6),
        ("nodata", ctypes.c_uint8),
        ("has_confidence", ctypes.c_bool),
        ("has_excluded", ctypes.c_bool),
        ("classes", ctypes.c_uint8 * 256),
        ("most_blocks", Int64),
    ]


_COLUMNS = (
    "class_id",
    "pixels",
    "confidence_sum",
    "col_sum",
    "row_sum",
    "bounds",
    "first_col",
    "last_col",
)


class _BatchView(ctypes.Structure):
    _fields_ = [
        ("count", Int64),
        ("size", Int64),
        *((name, Pointer) for name in ("wkb", "offsets", *_COLUMNS)),
    ]


class _Table(ctypes.Structure):
    """Rows of a native struct, contiguous."""

    _fields_ = [("rows", Pointer), ("count", Int64)]

    def array(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return a copy as a structured array, shape (count,)."""
        if not self.count:
            return np.empty(0, dtype)
        rows = ctypes.string_at(self.rows, self.count * dtype.itemsize)
        return np.frombuffer(rows, dtype)


@cache
def library() -> ctypes.CDLL | None:
    """Load the library, None if geoseg runs without native operators.

    Raises:
        OperatorError: GEOSEG_OPS asks for what is not there, or the library is older
            than this file.
    """
    loaded = open_library(_ARGUMENTS)
    if loaded is not None:
        loaded.geoseg_tracer_take.restype = Pointer
    return loaded


_ARGUMENTS: dict[str, list[Any]] = {
    "geoseg_tracer_new": [Pointer, ctypes.c_char_p, Pointer],
    "geoseg_tracer_feed": [Pointer, Pointer, Pointer, Int64, Pointer],
    "geoseg_tracer_finish": [Pointer],
    "geoseg_tracer_take": [Pointer, ctypes.c_bool],
    "geoseg_tracer_open": [Pointer, Pointer],
    "geoseg_tracer_free": [Pointer],
    "geoseg_join_new": [Pointer, Pointer, ctypes.c_char_p, Pointer],
    "geoseg_join_begin_row": [Pointer, ctypes.c_int32, ctypes.c_int32],
    "geoseg_join_add": [Pointer, Pointer, Pointer],
    "geoseg_join_end_row": [Pointer],
    "geoseg_join_take": [Pointer, Pointer],
    "geoseg_join_free": [Pointer],
    "geoseg_batch_view": [Pointer, Pointer],
    "geoseg_batch_free": [Pointer],
    "geoseg_measure_polygons": [Pointer, Pointer, Int64, Pointer],
}


def check(native: ctypes.CDLL, code: int, folder: Path) -> None:
    """Raise what a native call failed with.

    Raises:
        MemoryError: There was not enough.
        OSError: A system call failed; names the folder.
        VectorizeError: Anything else.
    """
    if code == errno.ENOMEM:
        raise MemoryError("tracing polygons")
    if code > 0:
        raise OSError(code, os.strerror(code), str(folder))
    if code:
        raise VectorizeError(native.geoseg_error().decode())


def _extent(window: Window, seams: Sequence[bool]) -> _Extent:
    extent = (window.row, window.col, window.height, window.width)
    return _Extent(*extent, (ctypes.c_bool * 4)(*seams))


class Tracer:
    """A native tracer; see ops/csrc/vectorize/tracer.h.

    Args:
        native: The library.
        window: What is traced, in pixels of the scene; the height may be unknown (0)
            if there is no seam.
        seams: Whether the scene goes on at the top, bottom, left, right.
        transform: Grid corners (col, row) of the scene to CRS coordinates.
        nodata: Class without polygons.
        classes: What each value counts as, shape (256,); None: itself.
        has_confidence: Whether rows come with confidence.
        spill: Folder for what memory should not hold; None if it may hold all.
    """

    def __init__(
        self,
        native: ctypes.CDLL,
        window: Window,
        *,
        seams: Sequence[bool] = (False, False, False, False),
        transform: Affine,
        nodata: int,
        classes: Pixels | None,
        has_confidence: bool,
        spill: Path | None,
    ) -> None:
        options = _TracerOptions()
        options.extent = _extent(window, seams)
        options.transform[:] = transform[:6]
        options.nodata = nodata
        options.has_confidence = has_confidence
        options.has_excluded = classes is not None
        options.classes[:] = range(256) if classes is None else classes.tolist()
        options.most_blocks = MOST_BYTES // _BLOCK_BYTES if spill else 2**62
        self._native = native
        self._spill = spill or Path()
        self._has_confidence = has_confidence
        self._tracer = Pointer()
        self._check(
            native.geoseg_tracer_new(
                ctypes.byref(options),
                os.fsencode(self._spill),
                ctypes.byref(self._tracer),
            )
        )

    def __del__(self) -> None:
        self._native.geoseg_tracer_free(self._tracer)

    def feed(self, mask: Pixels, confidence: Pixels | None) -> Iterator[PolygonBatch]:
        """Trace rows, shapes (height, width); yield the batches that are full."""
        mask = np.ascontiguousarray(mask)
        percents = None
        if self._has_confidence:
            assert confidence is not None, "confidence was announced"
            confidence = np.ascontiguousarray(confidence)
            percents = confidence.ctypes.data
        height, width = mask.shape
        row, read = 0, Int64()
        while row < height:
            code = self._native.geoseg_tracer_feed(
                self._tracer,
                mask.ctypes.data + row * width,
                None if percents is None else percents + row * width,
                height - row,
                ctypes.byref(read),
            )
            self._check(code)
            row += read.value
            yield from self._batches(also_unfinished=False)

    def finish(self) -> Iterator[PolygonBatch]:
        """Close what is open; yield the last batches."""
        self._check(self._native.geoseg_tracer_finish(self._tracer))
        yield from self._batches(also_unfinished=True)

    def open_pieces(self) -> Tables:
        """Return a copy of the tables of what touches seams; see `TABLES`."""
        tables = (_Table * len(TABLES))()
        self._native.geoseg_tracer_open(self._tracer, tables)
        return {
            name: table.array(dtype)
            for table, (name, dtype) in zip(tables, TABLES.items(), strict=True)
        }

    def _batches(self, *, also_unfinished: bool) -> Iterator[PolygonBatch]:
        take = self._native.geoseg_tracer_take
        while address := take(self._tracer, also_unfinished):
            yield view_batch(self._native, address)

    def _check(self, code: int) -> None:
        check(self._native, code, self._spill)


class Join:
    """A native join; see ops/csrc/vectorize/join.h.

    Args:
        native: The library.
        region: What the parts fill together, in pixels of the scene.
        transform: Grid corners (col, row) of the scene to CRS coordinates.
        spill: Folder for what memory should not hold.
    """

    def __init__(
        self, native: ctypes.CDLL, region: Window, transform: Affine, spill: Path
    ) -> None:
        self._native = native
        self._region = region
        self._spill = spill
        self._join = Pointer()
        numbers = (ctypes.c_double * 6)(*transform[:6])
        self._check(
            native.geoseg_join_new(
                ctypes.byref(_extent(region, [False] * 4)),
                numbers,
                os.fsencode(spill),
                ctypes.byref(self._join),
            )
        )

    def __del__(self) -> None:
        self._native.geoseg_join_free(self._join)

    def add_row(
        self, row: range, parts: Iterable[tuple[Window, Tables]]
    ) -> Iterator[PolygonBatch]:
        """Join the next row of parts; yield what is closed, by its last pixel.

        Args:
            row: Rows that the parts cover; they begin where the row before ended.
            parts: Window and tables of each part, from the left; nothing is kept of
                them.
        """
        native = self._native
        self._check(native.geoseg_join_begin_row(self._join, row.start, len(row)))
        for part in parts:
            self._add(*part)
            del part  # The next one is read now, and then this row is written.
        self._check(native.geoseg_join_end_row(self._join))
        while address := self._take():
            yield view_batch(native, address)

    def _add(self, window: Window, tables: Tables) -> None:
        extent = _extent(window, seams_of(window, self._region))
        arrays = [np.ascontiguousarray(tables[name]) for name in TABLES]
        tables_given = [_Table(array.ctypes.data, len(array)) for array in arrays]
        rows = (_Table * len(arrays))(*tables_given)
        self._check(
            self._native.geoseg_join_add(self._join, ctypes.byref(extent), rows)
        )

    def _take(self) -> int | None:
        """Address of the next batch of the row, which is written now."""
        batch = Pointer()
        self._check(self._native.geoseg_join_take(self._join, ctypes.byref(batch)))
        return batch.value

    def _check(self, code: int) -> None:
        check(self._native, code, self._spill)


def seams_of(window: Window, region: Window) -> tuple[bool, bool, bool, bool]:
    """Tell at which sides of a part the region goes on: top, bottom, left, right."""
    return (
        window.row > region.row,
        window.row_stop < region.row_stop,
        window.col > region.col,
        window.col_stop < region.col_stop,
    )


class _Owner:
    """Keeps a native batch until no array needs it."""

    def __init__(self, native: ctypes.CDLL, address: int) -> None:
        self._free = native.geoseg_batch_free
        self._address = address

    def __del__(self) -> None:
        self._free(self._address)


def view_batch(native: ctypes.CDLL, address: int) -> PolygonBatch:
    """Return a native batch, which goes when its last array does."""
    owner = _Owner(native, address)
    view = _BatchView()
    native.geoseg_batch_view(address, ctypes.byref(view))
    count = int(view.count)
    arrays: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        shape = (count, 4) if name == "bounds" else (count,)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        buffer = pa.foreign_buffer(getattr(view, name), size, owner)
        arrays[name] = np.frombuffer(buffer, dtype).reshape(shape)
    offsets = pa.foreign_buffer(view.offsets, 4 * (count + 1), owner)
    wkb = pa.foreign_buffer(view.wkb, view.size, owner)
    geometry = pa.Array.from_buffers(pa.binary(), count, [None, offsets, wkb])
    return PolygonBatch(**arrays, geometry=geometry)
