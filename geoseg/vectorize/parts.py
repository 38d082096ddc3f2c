"""Traced parts of a class mask, as they travel from the native tracer to the join."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from affine import Affine
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.io.atomic import share
from geoseg.vectorize.batch import DTYPES, PolygonBatch

_CORNER = [("col", np.int32), ("row", np.int32)]

TABLES: dict[str, np.dtype[Any]] = {
    "pieces": np.dtype(
        [
            (name, np.int64)
            for name in (
                "pixels",
                "confidence_sum",
                "col_twice",
                "row_twice",
                "class_id",
            )
        ]
    ),
    "runs": np.dtype([(name, np.int32) for name in ("side", "start", "stop", "piece")]),
    "arms": np.dtype(
        [
            ("area", np.int64),
            ("first", np.int64),
            ("count", np.int64),
            ("piece", np.int32),
            ("start", _CORNER),
            ("end", _CORNER),
            ("start_direction", np.int32),
            ("end_direction", np.int32),
            ("unused", np.int32),
        ]
    ),
    "rings": np.dtype([(name, np.int64) for name in ("first", "count", "piece")]),
    "vertices": np.dtype(_CORNER),
}
"""Tables of what is open, in the order and layout of ops/csrc/vectorize/part.h."""

Tables = dict[str, npt.NDArray[Any]]


class TracedPart(Protocol):
    """What tracing one part gives, or the file where it is saved.

    A polygon is closed if it touches no seam: no side of the part that is not a side of
    the region.
    """

    @property
    def window(self) -> Window:
        """Rectangle of the part, in pixels of the scene."""
        ...

    @property
    def region(self) -> Window:
        """Rectangle that all parts together fill, in pixels of the scene."""
        ...

    @property
    def transform(self) -> Affine:
        """Grid corners (col, row) of the scene to CRS coordinates."""
        ...

    def save(self, path: Path) -> None:
        """Write the part to `path`, which is taken as it is."""
        ...


@runtime_checkable
class OpenPart(TracedPart, Protocol):
    """A part that the native join reads, wherever it is."""

    def closed(self) -> Iterator[PolygonBatch]:
        """Give the polygons that touch no seam, by their last pixel."""
        ...

    def tables(self) -> Tables:
        """Return the pieces of the others; see `TABLES`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class NativePart:
    """A part that the native tracer gave."""

    window: Window
    """Rectangle of the part, in pixels of the scene."""
    region: Window
    """Rectangle that all parts together fill, in pixels of the scene."""
    transform: Affine
    """Grid corners (col, row) of the scene to CRS coordinates."""
    batches: tuple[PolygonBatch, ...]
    """Polygons that touch no seam."""
    open: Tables
    """Pieces of those that touch one; see `TABLES`."""

    def closed(self) -> Iterator[PolygonBatch]:
        """Give the polygons that touch no seam, by their last pixel."""
        yield from self.batches

    def tables(self) -> Tables:
        """Return the pieces of the others."""
        return self.open

    def save(self, path: Path) -> None:
        """Write the part to `path`, which is taken as it is, in safetensors' format.

        Not .npz: its checksums and directories cost as much as tracing did.
        """
        arrays: dict[str, npt.NDArray[Any]] = {
            "native_part": _numbers(self.window, self.region),
            "transform": np.array(self.transform[:6], np.float64),
            "batches": np.array([len(self.batches)]),
            # The format knows no records.
            **{name: table.view(np.uint8) for name, table in self.open.items()},
        }
        for index, batch in enumerate(self.batches):
            arrays |= {f"{index}.{name}": getattr(batch, name) for name in DTYPES}
            offsets, wkb = _wkb_buffers(batch.geometry)
            arrays |= {f"{index}.offsets": offsets, f"{index}.wkb": wkb}
        try:
            save_file(arrays, path)
            share(path)
        except SafetensorError as error:  # Also of a disk that is full.
            raise OSError(str(error)) from error


class SavedPart:
    """A part in a file; its arrays are read when they are needed.

    Raises:
        VectorizeError: The file is missing, cut short, or not a part; the methods raise
            it, too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        header = self._read(["native_part", "transform", "batches"])
        numbers = header["native_part"].tolist()
        self.window = Window(*numbers[:4])
        """Rectangle of the part, in pixels of the scene."""
        self.region = Window(*numbers[4:])
        """Rectangle that all parts together fill, in pixels of the scene."""
        self.transform = Affine(*header["transform"].tolist())
        """Grid corners (col, row) of the scene to CRS coordinates."""
        self._batches = int(header["batches"][0])

    def closed(self) -> Iterator[PolygonBatch]:
        """Give the polygons that touch no seam, by their last pixel."""
        for index in range(self._batches):
            names = [f"{index}.{name}" for name in (*DTYPES, "offsets", "wkb")]
            values = self._read(names)
            arrays: dict[str, Any] = {n: values[f"{index}.{n}"] for n in DTYPES}
            buffers = [None, *map(pa.py_buffer, (values[n] for n in names[-2:]))]
            count = len(arrays["class_id"])
            geometry = pa.Array.from_buffers(pa.binary(), count, buffers)
            yield PolygonBatch(**arrays, geometry=geometry)

    def tables(self) -> Tables:
        """Return the pieces of the others; see `TABLES`."""
        tables = self._read(list(TABLES))
        return {name: tables[name].view(dtype) for name, dtype in TABLES.items()}

    def save(self, path: Path) -> None:
        """Copy the file."""
        path.write_bytes(self._path.read_bytes())

    def _read(self, names: list[str]) -> dict[str, npt.NDArray[Any]]:
        try:
            with safe_open(self._path, framework="numpy") as file:
                return {name: file.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise VectorizeError(
                f"{self._path} is not a traced part that can be read ({error}); delete "
                "it and run again"
            ) from error


def _numbers(*windows: Window) -> npt.NDArray[np.int64]:
    return np.array([(w.row, w.col, w.height, w.width) for w in windows]).ravel()


def _wkb_buffers(
    geometry: pa.BinaryArray,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Return offsets, shape (n + 1,), and bytes of an array that is no slice."""
    _, offsets, wkb = geometry.buffers()
    starts = np.frombuffer(offsets, np.int32, len(geometry) + 1)
    return starts, np.frombuffer(wkb, np.uint8, int(starts[-1]))
