"""One traced part of a class mask, as it travels from the tracer to the join."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from geoseg.errors import VectorizeError
from geoseg.grid import Window
from geoseg.vectorize.reference.ragged import IntArray
from geoseg.vectorize.reference.rings import RingBatch


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Boundary lines of components, each with its component on the right."""

    label: npt.NDArray[np.int32]
    """Component of each line, shape (n,)."""
    coords: npt.NDArray[np.int32]
    """Vertices, shape (m, 2): (col, row) of grid corners, in pixels of the scene."""
    offsets: IntArray
    """First vertex of each line in `coords`, and their end, shape (n + 1,)."""

    @classmethod
    def empty(cls) -> Lines:
        """Return no lines."""
        return cls(
            np.zeros(0, np.int32), np.zeros((0, 2), np.int32), np.zeros(1, np.int64)
        )


@dataclass(frozen=True, slots=True, eq=False)
class TracedPart:
    """What tracing one part gives; parts may be traced in any order and place.

    A component is open if it touches a seam: a side of the part that is not a side of
    the region. Each part numbers its own open components from 0.
    """

    window: Window
    """Rectangle of the part, in pixels of the scene."""
    region: Window
    """Rectangle that all parts together fill, in pixels of the scene."""
    transform: Affine
    """Grid corners (col, row) of the scene to CRS coordinates."""
    closed: RingBatch
    """Polygons of the components that touch no seam."""
    class_id: npt.NDArray[np.uint8]
    """Class of each open component, shape (k,)."""
    pixels: IntArray
    """Pixels of each open component within the part, shape (k,)."""
    confidence_sum: IntArray
    """Sum of these pixels' confidence, percent, shape (k,)."""
    arms: Lines
    """Boundaries of open components between corners that only the join can decide,
    both included: those on seams, and checkerboards of open components that may be one
    beyond a seam."""
    rings: Lines
    """Boundaries of open components that close within the part; the first vertex, the
    smallest by (row, col), is not repeated."""
    top: npt.NDArray[np.int32]
    """Open component of each pixel of the first row, shape (width,), -1 for nodata; of
    shape (0,) if that side is no seam, as are the three below."""
    bottom: npt.NDArray[np.int32]
    """Open components along the last row, shape (width,)."""
    left: npt.NDArray[np.int32]
    """Open components along the first column, shape (height,)."""
    right: npt.NDArray[np.int32]
    """Open components along the last column, shape (height,)."""

    def save(self, path: Path) -> None:
        """Write the part to `path`, which is taken as it is, in the .npz format."""
        arrays: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _NESTED:
                for inner in fields(value):
                    arrays[f"{field.name}.{inner.name}"] = getattr(value, inner.name)
            else:
                arrays[field.name] = value
        for name in _WINDOWS:
            window = arrays[name]
            arrays[name] = np.array(
                [window.row, window.col, window.height, window.width]
            )
        arrays["transform"] = np.array(self.transform[:6], np.float64)
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path, *, closed: bool = True) -> TracedPart:
        """Read a part that `save` wrote.

        Args:
            path: The file.
            closed: Whether to read the closed polygons, most of the file; `join_open`
                needs none.

        Raises:
            VectorizeError: The file is missing, cut short, or not a part.
        """
        try:
            # opened here: numpy leaves a file open that turns out to be cut short
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return _from_arrays(file, closed=closed)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise VectorizeError(
                f"{path} is not a traced part that can be read ({error}); delete it "
                "and run again"
            ) from error


_WINDOWS = ("window", "region")
_NESTED: dict[str, type[RingBatch] | type[Lines]] = {
    "closed": RingBatch,
    "arms": Lines,
    "rings": Lines,
}


def _from_arrays(file: Any, *, closed: bool) -> TracedPart:  # noqa: ANN401 (NpzFile)
    values: dict[str, Any] = {}
    for field in fields(TracedPart):
        name = field.name
        if name in _WINDOWS:
            values[name] = Window(*(int(value) for value in file[name]))
        elif name == "transform":
            values[name] = Affine(*file[name].tolist())
        elif name == "closed" and not closed:
            values[name] = RingBatch.empty()
        elif name in _NESTED:
            kind = _NESTED[name]
            values[name] = kind(
                **{inner.name: file[f"{name}.{inner.name}"] for inner in fields(kind)}
            )
        else:
            values[name] = file[name]
    return TracedPart(**values)
