"""Tracing of a whole raster in bands, on threads that run ahead of the join."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg.grid import Window
from geoseg.types import NODATA
from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.joining import join_parts
from geoseg.vectorize.native import library
from geoseg.vectorize.parts import NativePart, SavedPart, Tables
from geoseg.vectorize.tracing import native_part, trace_rows

Pixels = npt.NDArray[np.uint8]
Read = Callable[[Window], tuple[Pixels, Pixels | None]]
"""Gives class and percent of each pixel of a window, as `trace_rows` takes them."""

_READS = 4
"""Of 4 Mpx, in `geoseg vectorize`: a tenth of the time goes into seams, then."""


def trace_bands(
    read: Read,
    region: Window,
    *,
    height: int,
    transform: Affine,
    spill: Path,
    threads: int = 1,
    reads: int = _READS,
    nodata: int = NODATA,
    classes: Pixels | None = None,
) -> Generator[PolygonBatch]:
    """Trace a raster that is read a few rows at a time.

    The polygons and their order are the same for any height and number of threads.
    Memory is bounded by the polygons of a few bands a thread, and by the largest one.

    Args:
        read: Reads rows of the raster. Called by one thread at a time if `threads` is
            1, by so many at a time otherwise; each row is read once.
        region: The raster, in pixels of the scene.
        height: Rows of a read.
        transform: Grid corners (col, row) to CRS coordinates (x, y).
        spill: Folder for temporary files, which hold what memory should not.
        threads: Threads that read and trace; each takes bands of its own.
        reads: Reads that make a band; the fewer, the more time goes into seams.
        nodata: Class of pixels that get no polygon.
        classes: Class that each value stands for; see `trace_rows`.

    Raises:
        VectorizeError: Pixels are of another shape or dtype.
        OSError: The folder cannot be written to, or is full.
    """
    native = library()
    windows = _bands(region, height * reads)
    if threads == 1 or len(windows) == 1 or native is None:
        yield from trace_rows(
            map(read, _bands(region, height)),
            region.width,
            transform=transform,
            spill=spill,
            nodata=nodata,
            classes=classes,
            origin=(region.row, region.col),
        )
        return

    def trace(window: Window) -> NativePart:
        return native_part(
            native,
            map(read, _bands(window, height)),
            window,
            region=region,
            transform=transform,
            nodata=nodata,
            classes=classes,
        )

    with (
        tempfile.TemporaryDirectory(dir=spill) as folder,
        ThreadPoolExecutor(threads, "geoseg-trace") as executor,
    ):
        ahead = _Ahead(executor, trace, windows, 2 * threads, Path(folder))
        bands = [
            _Band(ahead, index, region, transform) for index in range(len(windows))
        ]
        try:
            yield from join_parts(bands, spill=spill)
        finally:
            # Also of a caller that had enough: what waits is not begun.
            executor.shutdown(cancel_futures=True)


def _bands(region: Window, height: int) -> list[Window]:
    return [
        Window(row, region.col, min(height, region.row_stop - row), region.width)
        for row in range(region.row, region.row_stop, height)
    ]


class _Ahead:
    """Bands that are traced before they are asked for, a bounded number in memory."""

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        trace: Callable[[Window], NativePart],
        windows: list[Window],
        most: int,
        folder: Path,
    ) -> None:
        self.windows = windows
        self._executor, self._trace = executor, trace
        self._most, self._folder = most, folder
        self._started: dict[int, Future[NativePart]] = {}
        self._next = 0
        self._held: dict[int, NativePart | SavedPart] = {}

    def part(self, index: int) -> NativePart | SavedPart:
        """Return a band, after it was traced."""
        if index not in self._held:
            stop = min(index + self._most, len(self.windows))
            for number in range(self._next, stop):
                window = self.windows[number]
                self._started[number] = self._executor.submit(self._trace, window)
            self._next = max(self._next, stop)
            self._held[index] = self._started.pop(index).result()
            self._save_oldest()
        return self._held[index]

    def let_go(self, index: int) -> None:
        """Forget a band."""
        part = self._held.pop(index)
        if isinstance(part, SavedPart):
            self._path(index).unlink()

    def _save_oldest(self) -> None:
        """Move bands to files: either half of the join may run far ahead."""
        in_memory = [
            i for i, part in self._held.items() if isinstance(part, NativePart)
        ]
        for index in in_memory[: -self._most]:
            self._held[index].save(self._path(index))
            self._held[index] = SavedPart(self._path(index))

    def _path(self, index: int) -> Path:
        return self._folder / f"{index}.part"


class _Band:
    """A part that is traced by the time that it is read; both halves are read once."""

    def __init__(
        self, ahead: _Ahead, index: int, region: Window, transform: Affine
    ) -> None:
        self.window = ahead.windows[index]
        """Rectangle of the part, in pixels of the scene."""
        self.region = region
        """Rectangle that all parts together fill, in pixels of the scene."""
        self.transform = transform
        """Grid corners (col, row) of the scene to CRS coordinates."""
        self._ahead, self._index = ahead, index
        self._halves = 2

    def closed(self) -> Iterator[PolygonBatch]:
        """Give the polygons that touch no seam, by their last pixel."""
        yield from self._ahead.part(self._index).closed()
        self._one_read()

    def tables(self) -> Tables:
        """Return the pieces of the others."""
        tables = self._ahead.part(self._index).tables()
        self._one_read()
        return tables

    def save(self, path: Path) -> None:
        """Write the part to `path`, which is taken as it is."""
        self._ahead.part(self._index).save(path)

    def _one_read(self) -> None:
        self._halves -= 1
        if not self._halves:
            self._ahead.let_go(self._index)
