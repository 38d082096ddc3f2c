"""Reading ahead of whoever needs the pixels, through a file that stays open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np

from geoseg.grid import Window
from geoseg.io.location import is_remote
from geoseg.io.raster import Pixels, Scene, SceneReader
from geoseg.io.vsi import renew

_PIECE_TILES = 6
"""Width of a piece of a tiled file, in tiles: the model starts when it is there."""

_idle: list[tuple[Scene, str, SceneReader]] = []
"""The reader that was used last, open; at most one."""

_idle_lock = threading.Lock()


@contextmanager
def kept_reader(scene: Scene, state: str) -> Iterator[SceneReader]:
    """Give a reader that stays open for the next band of the scene in this process.

    GDAL then still has the blocks that both bands touch, which are up to half of them.

    Args:
        scene: What to read.
        state: What its files are; a reader of other ones is not used again.
    """
    with _idle_lock:
        kept = _idle.pop() if _idle else None
    reader = None
    if kept is not None and kept[:2] == (scene, state):
        reader = kept[2]
    elif kept is not None:
        kept[2].close()
    if reader is None:
        if is_remote(scene.path):
            renew(scene.path)
        reader = SceneReader(scene).__enter__()
    try:
        yield reader
    except BaseException:
        reader.close()
        raise
    with _idle_lock:
        _idle.append((scene, state, reader))
        surplus = _idle[:-1]
        del _idle[:-1]
    for _, _, other in surplus:
        other.close()


class PixelsAhead:
    """Pixels of a window that a thread reads piece by piece, as they are needed."""

    def __init__(self, reader: SceneReader, window: Window, size: int) -> None:
        """Plan the pieces; `with` starts to read them.

        Args:
            reader: Nobody else may use it until the end of the `with` statement.
            window: What to read, in the scene's grid.
            size: Height of a piece, pixels; tiles are needed row by row.
        """
        self._reader, self._window = reader, window
        width = window.width if reader.scene.by_rows else _PIECE_TILES * size
        self._pieces = [
            Window(
                row,
                col,
                min(size, window.row_stop - row),
                min(width, window.col_stop - col),
            )
            for row in range(window.row, window.row_stop, size)
            for col in range(window.col, window.col_stop, width)
        ]
        shape = (window.height, window.width)
        scene = reader.scene
        dtype = scene.dtype if scene.grid == scene.source else "float32"
        keep = valid = np.empty(shape, np.bool_)
        if scene.aoi is not None:
            keep = np.empty(shape, np.bool_)
        values = np.empty((len(scene.bands), *shape), dtype)
        self._pixels = Pixels(values, valid, keep)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="geoseg-read")
        self._read: list[Future[None]] = []

    def __enter__(self) -> Self:
        """Start to read."""
        self._read = [self._thread.submit(self._fill, piece) for piece in self._pieces]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave out what nobody asked for."""
        self._thread.shutdown(cancel_futures=True)

    def get(self, window: Window) -> Pixels:
        """Wait for the pixels of a window inside this one; they are views.

        Raises:
            SceneError: The file is truncated or corrupt.
        """
        for piece, read in zip(self._pieces, self._read, strict=True):
            if piece.intersection(window) is not None:
                read.result()
        rows, cols = window.relative_to(self._window).slices
        whole = self._pixels
        return Pixels(
            whole.values[:, rows, cols], whole.valid[rows, cols], whole.keep[rows, cols]
        )

    def _fill(self, piece: Window) -> None:
        """Read one piece to its place."""
        pixels = self._reader.read(piece)
        rows, cols = piece.relative_to(self._window).slices
        self._pixels.values[:, rows, cols] = pixels.values
        self._pixels.valid[rows, cols] = pixels.valid
        if self._pixels.keep is not self._pixels.valid:
            self._pixels.keep[rows, cols] = pixels.keep
