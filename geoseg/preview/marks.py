"""What lies over a panel: scale bar, north arrow, the frame of the detail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from geoseg.grid import Grid, Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#1f2933"
"""Colour of text and lines."""

ABOVE = 5
"""Order of what lies over pixels and outlines."""

SCALE_BAR_SHARE = 0.3
"""Longest scale bar over the panel's width."""


def add_frame(axes: Axes, window: Window) -> None:
    """Mark a window, white with a dark casing."""
    from matplotlib.patches import Rectangle

    corner = (window.col, window.row)
    for color, width in (("black", 3.2), ("white", 1.6)):
        axes.add_patch(
            Rectangle(
                corner,
                window.width,
                window.height,
                fill=False,
                edgecolor=color,
                linewidth=width,
            )
        )


def add_scale_bar(axes: Axes, grid: Grid) -> None:
    """Draw a bar of a round length, metres on the ground, at the lower left."""
    from matplotlib.patches import Rectangle

    resolution = grid.ground_resolution()
    if resolution is None:
        return
    metres = round_length(SCALE_BAR_SHARE * grid.width * resolution)
    half = metres / resolution / 2
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    unit = _unit_length(axes, grid)
    left, bottom = 22 * unit, grid.height - 24 * unit
    plate = (12 * unit, bottom - 21 * unit, 2 * half + 20 * unit, 33 * unit)
    _add_plate(axes, plate, unit)
    for start, color in ((left, INK), (left + half, "white")):
        axes.add_patch(
            Rectangle(
                (start, bottom),
                half,
                5 * unit,
                facecolor=color,
                edgecolor=INK,
                linewidth=0.8,
                zorder=ABOVE,
            )
        )
    axes.text(
        left + half,
        bottom - 3 * unit,
        text,
        ha="center",
        va="bottom",
        fontsize=9,
        color=INK,
        zorder=ABOVE,
    )


def round_length(longest: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, ... that is not above `longest`."""
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1, 2, 5) if step * power <= longest * 1.000001)


def add_north(axes: Axes, grid: Grid) -> None:
    """Draw an arrow to the CRS's north: pictures show rows downward as they are."""
    if grid.crs is None:
        return
    inverse = ~grid.transform
    col, row = inverse.b, inverse.e
    unit = _unit_length(axes, grid)
    reach = 14 * unit / math.hypot(col, row)
    x, y = grid.width - 30 * unit, 30 * unit
    _add_plate(axes, (x - 18 * unit, y - 18 * unit, 36 * unit, 36 * unit), unit)
    axes.annotate(
        "N",
        xy=(x + col * reach, y + row * reach),
        xytext=(x - col * reach * 0.6, y - row * reach * 0.6),
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        color=INK,
        arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.4, "shrinkA": 0},
        zorder=ABOVE,
    )


def _unit_length(axes: Axes, grid: Grid) -> float:
    """Return pixels of the grid in a hundredth of an inch; the same up and across."""
    return float(grid.width / axes.get_window_extent().width)


def _add_plate(
    axes: Axes, plate: tuple[float, float, float, float], unit: float
) -> None:
    """Draw a pale plate that keeps what is written on it readable.

    Args:
        axes: The panel.
        plate: Left, top, width, height.
        unit: A hundredth of an inch.
    """
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            plate[:2],
            *plate[2:],
            boxstyle=f"round,pad=0,rounding_size={4 * unit}",
            facecolor="white",
            edgecolor="none",
            alpha=0.82,
            zorder=ABOVE,
        )
    )
