"""Functions of x and y in the shape that shapely and numpy want them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

Points = npt.NDArray[np.float64]
"""Coordinates, shape (n, 2): x and y, or column and row."""


def on_points(function: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[..., Points]:
    """Make a function of x and y, shape (n,) each, one of points, shape (n, 2)."""

    def apply(points: Points) -> Points:
        return np.column_stack(function(points[:, 0], points[:, 1]))

    return apply


def affine_points(transform: Affine) -> Callable[..., Points]:
    """Return a transform as a function of points, shape (n, 2)."""

    def apply(points: Points) -> Points:
        x, y = points[:, 0], points[:, 1]
        return np.column_stack(
            [
                transform.a * x + transform.b * y + transform.c,
                transform.d * x + transform.e * y + transform.f,
            ]
        )

    return apply
