"""At which ground resolution a scene runs."""

from __future__ import annotations

import math
import warnings
from typing import Literal

from geoseg.errors import GeosegWarning, SceneError, UsageError
from geoseg.grid import Grid
from geoseg.types import ModelSpec

Resolution = Literal["auto", "native"] | float
"""Ground resolution to run at: by the model's, the scene's own, or metres a pixel."""

TOLERATED_RATIO = 1.5
"""How far scene and model resolution may differ before one of them gives way."""

_MOST_ENLARGED = 8
"""How many times finer than the scene a resolution may not be: 64 pixels of one."""

_SAME_RESOLUTION = 0.01
"""Relative difference from a whole number of pixels that is none."""

_SAME_AS_ASKED = 0.001
"""The same where a resolution was given in metres."""


def processed_grid(
    source: Grid, spec: ModelSpec, resolution: Resolution, name: str
) -> Grid:
    """Return the grid to run on.

    Args:
        source: Grid of the file.
        spec: What the model declares.
        resolution: See `open_scene`.
        name: The file, for messages.

    Raises:
        UsageError: The resolution is no length.
        SceneError: The scene cannot be resampled to it.

    Warns:
        GeosegWarning: The scene is coarser than the model.
    """
    if resolution == "native":
        return source
    wanted = spec.resolution if resolution == "auto" else float(resolution)
    if wanted is None:
        return source
    if not (math.isfinite(wanted) and wanted > 0):
        raise UsageError(
            f"a resolution of {wanted} is not a length; pass metres above 0, "
            "or native or auto"
        )
    ground = source.ground_resolution()
    if ground is None:
        if resolution == "auto":
            return source
        raise SceneError(
            f"{name} is not tied to the ground, so it cannot be resampled to {wanted} "
            "metres; give it a CRS, or pass --resolution native"
        )
    ratio = wanted / ground
    if resolution == "auto" and ratio < 1 / TOLERATED_RATIO:
        warnings.warn(
            f"{name} has pixels of {ground:.3g} m and model {spec.name} was trained on "
            f"{wanted:.3g} m: results may be poor; use a finer image, or pass "
            f"--resolution {wanted:.3g} to enlarge it",
            GeosegWarning,
            stacklevel=3,
        )
    if resolution == "auto" and ratio <= TOLERATED_RATIO:
        return source
    if ratio > max(source.shape):
        raise SceneError(
            f"{name} is smaller than one pixel of {wanted:g} m; pass a finer "
            "--resolution, in metres"
        )
    if ratio * _MOST_ENLARGED < 1 + _SAME_RESOLUTION:
        finest = ground / _MOST_ENLARGED * (1 + _SAME_RESOLUTION)
        raise SceneError(
            f"{name} has pixels of {ground:.3g} m, and {wanted:g} m is {1 / ratio:.3g} "
            f"times finer; pass a --resolution above {finest:.3g} metres, or native"
        )
    factor = _steady(ratio, asked=resolution != "auto")
    return source if factor == 1 else source.resampled((factor, factor))


def _steady(ratio: float, *, asked: bool) -> float:
    """Round a ratio, so that neighbouring scenes get pixels of one size.

    It depends a little on where a scene's centre lies: 3.00027 here, 3.00028 there.
    What was asked for in metres is met more closely.
    """
    tolerance, digits = (_SAME_AS_ASKED, 6) if asked else (_SAME_RESOLUTION, 4)
    whole = round(ratio)
    if abs(ratio - whole) < tolerance * whole:
        return float(whole)
    return float(f"{ratio:.{digits}g}")
