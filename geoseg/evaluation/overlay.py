"""Labels on the grid of a class mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine

from geoseg.errors import SceneError
from geoseg.evaluation.counts import Indices
from geoseg.grid import Grid, Window
from geoseg.io.merged import same_crs
from geoseg.io.resample import below_centres

_MOST_PIXELS = 1 << 24
"""Labels that are read at once; a mask may be far coarser than they are."""

_TOLERANCE = 1e-6
"""Part of a pixel that rounding may move a grid by."""


class Overlay:
    """Finds the label at the centre of each pixel of a mask.

    Where the mask is coarser or finer than the labels that is the nearest one: classes
    have no mean.

    Args:
        mask: Grid of the class mask.
        labels: Grid of the labels.
        name: Scene, for messages.

    Raises:
        SceneError: They do not lie on the same ground, or their axes differ.
    """

    def __init__(self, mask: Grid, labels: Grid, name: str) -> None:
        if not same_crs(mask.crs, labels.crs):
            raise SceneError(
                f"{name}: the mask is in {_crs_name(mask.crs)} and the labels are in "
                f"{_crs_name(labels.crs)}; it was made of another image"
            )
        # From pixels of the mask to pixels of the labels.
        place = ~labels.transform @ mask.transform
        if max(abs(place.b), abs(place.d)) > _TOLERANCE or min(place.a, place.e) <= 0:
            raise SceneError(
                f"{name}: rows and columns of the mask ({_shown(mask)}) and of the "
                f"labels ({_shown(labels)}) run in other directions; it was made of "
                "another image"
            )
        if _outside(place.f, place.e, mask.height, labels.height) or _outside(
            place.c, place.a, mask.width, labels.width
        ):
            raise SceneError(
                f"{name}: the mask ({_shown(mask)}) reaches beyond the labels "
                f"({_shown(labels)}); it was made of another image"
            )
        rows, cols = np.arange(mask.height), np.arange(mask.width)
        self._rows = below_centres(rows, place.e, labels.height, place.f)
        self._cols = below_centres(cols, place.a, labels.width, place.c)
        self.resampled = not _of_one_pixel(place)
        """Pixels of the mask are not pixels of the labels."""
        self.covered = _share(place.f, place.e, mask.height, labels.height) * _share(
            place.c, place.a, mask.width, labels.width
        )
        """Part of the labels' grid that the mask covers, 0..1."""

    def read(self, window: Window, read: Callable[[Window], Indices]) -> Indices:
        """Return the labels of a window of the mask.

        Args:
            window: Inside of the mask.
            read: Reads a window of the labels.
        """
        rows = self._rows[window.row : window.row_stop]
        cols = self._cols[window.col : window.col_stop]
        width = int(cols[-1] - cols[0]) + 1
        labels = np.empty((window.height, window.width), np.uint8)
        for start, stop in _strips(rows, max(1, _MOST_PIXELS // width)):
            top = int(rows[start])
            height = int(rows[stop - 1]) - top + 1
            part = read(Window(top, int(cols[0]), height, width))
            labels[start:stop] = part[np.ix_(rows[start:stop] - top, cols - cols[0])]
        return labels


def _outside(offset: float, step: float, count: int, limit: int) -> bool:
    """Tell whether rows or columns of a mask reach beyond `limit` of the labels."""
    # A grid that was resampled ends half of its pixels beyond, at most.
    slack = max(1.0, step)
    return offset < -slack or offset + step * count > limit + slack


def _share(offset: float, step: float, count: int, limit: int) -> float:
    """Return the part of rows or columns of the labels below those of a mask."""
    stop = min(offset + step * count, limit)
    return max(0.0, stop - max(offset, 0.0)) / limit


def _strips(rows: npt.NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Cut rows of the mask so that each part lies on few rows of labels."""
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(rows, rows[start] + most, side="left"))
        yield start, stop
        start = stop


def _of_one_pixel(place: Affine) -> bool:
    return max(abs(place.a - 1), abs(place.e - 1)) < _TOLERANCE


def _crs_name(wkt: str | None) -> str:
    return "no CRS" if wkt is None else str(pyproj.CRS.from_wkt(wkt).name)


def _shown(grid: Grid) -> str:
    corner = ", ".join(
        f"{value:.10g}" for value in (grid.transform.c, grid.transform.f)
    )
    height, width = grid.pixel_size
    return (
        f"{grid.height} x {grid.width} pixels of {height:.4g} x {width:.4g} from "
        f"{corner}"
    )
