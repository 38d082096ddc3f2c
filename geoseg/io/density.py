"""Ground area of a unit of map area, anywhere on a grid."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyproj

from geoseg.grid import Grid
from geoseg.io.projection import affine_points

Floats = npt.NDArray[np.float64]

_TOLERANCE = 1e-5
"""Relative: how far the density may bend within a cell. Cells are 40 km wide in UTM."""

_MOST_CELLS = 128
"""Cells along a side of the grid, at most: to measure so many takes 0.2 s."""

_STEP = 1000.0
"""Metres over which the density is measured: little against the Earth, and much against
the 1e-9 m that coordinates are rounded to."""


class AreaDensity:
    """Interpolates the density of an equal-area projection, bilinearly, in cells.

    A density that is linear over a polygon makes its area the planar one times the
    density at its centroid. Bent by `d` over a cell, it errs by about `d` for polygons
    no larger than the cell. Cells are halved until `d` is small enough.
    """

    def __init__(
        self, grid: Grid, transformer: pyproj.Transformer, resolution: float
    ) -> None:
        """Measure the density.

        Args:
            grid: Where polygons lie.
            transformer: From the grid's CRS to an equal-area projection, in metres.
            resolution: About what a pixel is on the ground, metres.
        """
        self._half_step = _STEP / 2 / resolution
        self._to_pixels = affine_points(~grid.transform)
        self._size = np.array([max(grid.width, 1), max(grid.height, 1)], np.float64)
        self._grid = grid
        self._transformer = transformer
        self._cells = 1
        while True:
            self._nodes, self._even = self._measure(self._cells)
            if self._even.all() or self._cells >= _MOST_CELLS:
                break
            self._cells *= 2

    def at(self, points: Floats, extents: Floats) -> Floats:
        """Return the density for polygons.

        Args:
            points: Their centroids, x and y, CRS units, shape (n, 2).
            extents: Their larger sides, as a part of the grid's, 0..1, shape (n,).

        Returns:
            Square metres on the ground for one squared CRS unit, shape (n,); NaN where
            it is too bent for the polygon.
        """
        place = self._to_pixels(points) / self._size * self._cells
        with np.errstate(invalid="ignore"):  # The centroid of an empty polygon.
            cell = np.clip(np.nan_to_num(place), 0, self._cells - 1).astype(np.int64)
        (across, down), (col, row) = (place - cell).T, cell.T
        nodes = self._nodes
        top = nodes[row, col] * (1 - across) + nodes[row, col + 1] * across
        bottom = nodes[row + 1, col] * (1 - across) + nodes[row + 1, col + 1] * across
        density: Floats = top * (1 - down) + bottom * down
        fits = self._even[row, col] & (extents * self._cells <= 1)
        return np.where(fits, density, np.nan)

    def _measure(self, cells: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return the density at the corners of cells, and which cells are even."""
        fine = self._density(2 * cells)
        nodes = fine[::2, ::2]
        top, bottom = nodes[:-1], nodes[1:]
        middle_of_top = (top[:, :-1] + top[:, 1:]) / 2
        middle_of_left = (top[:, :-1] + bottom[:, :-1]) / 2
        middle = (middle_of_top + (bottom[:, :-1] + bottom[:, 1:]) / 2) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            bends = [
                np.abs(fine[:-1:2, 1::2] - middle_of_top) / middle,
                np.abs(fine[1::2, :-1:2] - middle_of_left) / middle,
                np.abs(fine[1::2, 1::2] - middle) / middle,
            ]
            # False, too, where anything is not finite, outside of the CRS.
            return nodes, np.max(bends, axis=0) <= _TOLERANCE

    def _density(self, cells: int) -> Floats:
        """Return the density at (cells + 1)^2 nodes."""
        steps, half = np.linspace(0, 1, cells + 1), self._half_step
        col, row = np.meshgrid(steps * self._size[0], steps * self._size[1])
        right = self._place(col + half, row) - self._place(col - half, row)
        down = self._place(col, row + half) - self._place(col, row - half)
        determinant: Floats = right[0] * down[1] - right[1] * down[0]
        step_area = (2 * half) ** 2 * abs(self._grid.transform.determinant)
        return np.abs(determinant) / step_area

    def _place(self, col: Floats, row: Floats) -> Floats:
        """Transform pixel coordinates, shape (h, w) each; shape (2, h, w)."""
        points = affine_points(self._grid.transform)(
            np.column_stack([col.ravel(), row.ravel()])
        )
        found = np.array(self._transformer.transform(points[:, 0], points[:, 1]))
        found[~np.isfinite(found)] = math.nan
        return found.reshape(2, *col.shape)
