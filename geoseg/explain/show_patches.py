"""Figure and layer of the patch grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from geoseg.explain.output import Output
from geoseg.explain.patches import Patch, patch_grid
from geoseg.explain.sheet import Sheet, aspect_of, show_tile
from geoseg.grid import Window
from geoseg.io.map_layers import FeatureLayer, boxes
from geoseg.io.map_style import outlines_qml

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_YELLOW, _CYAN = "#ffe14d", "#00e5ff"

_DIMMED = 0.45
"""Brightness of the tile below the numbers."""

_NUMBER = 0.31
"""Height of a number over that of a patch."""

_SIDE = 13.0
"""Width of the figure's panel, inches: 45 patches leave 0.3 inches to a number."""


def show_patches(output: Output, patch_size: int) -> None:
    """Draw the numbered patches of the tile, and write them as polygons.

    Args:
        output: Where it goes.
        patch_size: Side of a patch, pixels.
    """
    subject = output.subject
    patches = [
        patch
        for patch in patch_grid(subject.tile_size, patch_size)
        if patch.window.row < subject.window.height
        and patch.window.col < subject.window.width
    ]
    row, col = (pixel // patch_size for pixel in subject.place)
    (own,) = (patch for patch in patches if (patch.row, patch.col) == (row, col))
    _draw(output, patches, own)
    _write(output, patches, own)


def _draw(output: Output, patches: Sequence[Patch], own: Patch) -> None:
    subject, size = output.subject, own.window.width
    side = subject.tile_size // size
    sheet = Sheet(
        f"Patches: {side} x {side} = {side * side} of {size} px, one token each",
        output.facts,
        count=1,
        aspect=aspect_of(subject),
        panel=_SIDE,
        below=0.45,
    )
    axes = sheet.panel(
        "Numbers go by rows from the upper left; every fifth row and column is named"
    )
    show_tile(axes, subject, (output.picture * _DIMMED).astype(np.uint8))
    for patch in patches:
        axes.text(
            patch.window.col + size / 2,
            patch.window.row + size / 2,
            str(patch.number),
            ha="center",
            va="center",
            fontsize=min(9.0, _NUMBER * 72 * _SIDE / side),
            color=_CYAN if patch == own else _YELLOW,
            fontweight="bold" if patch == own else "normal",
            clip_on=True,
        )
    lines = np.arange(side + 1) * size
    axes.vlines(lines, 0, subject.window.height, color=_YELLOW, lw=0.35, alpha=0.7)
    axes.hlines(lines, 0, subject.window.width, color=_YELLOW, lw=0.35, alpha=0.7)
    _frame(axes, own.window)
    named = np.arange(0, side, 5)
    axes.set_xticks((named + 0.5) * size, [str(n) for n in named], fontsize=7)
    axes.set_yticks((named + 0.5) * size, [str(n) for n in named], fontsize=7)
    axes.tick_params(length=2, pad=1)
    axes.set(xlim=(0, subject.window.width), ylim=(subject.window.height, 0))
    sheet.legend(_handles(own))
    sheet.save(output.path("patches.png"))


def _write(output: Output, patches: Sequence[Patch], own: Patch) -> None:
    # Drawn in this order: its neighbours' outlines would lie on that of the place.
    ordered = sorted(patches, key=lambda patch: patch == own)
    columns = {
        "number": np.array([patch.number for patch in ordered]),
        "row": np.array([patch.row for patch in ordered]),
        "col": np.array([patch.col for patch in ordered]),
        "kind": np.array(["place" if patch == own else "patch" for patch in ordered]),
    }
    qml = outlines_qml("kind", ("patch", "place"), ((255, 225, 77), (0, 229, 255)))
    outlines = boxes(output.subject.grid, [patch.window for patch in ordered])
    output.features("patches.gpkg", [FeatureLayer("patches", outlines, columns, qml)])


def _frame(axes: Axes, window: Window) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (window.col, window.row),
            window.width,
            window.height,
            fill=False,
            edgecolor=_CYAN,
            linewidth=1.6,
        )
    )


def _handles(own: Patch) -> list[object]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=_YELLOW, label="patch and its number"),
        Line2D(
            [],
            [],
            color=_CYAN,
            label=f"the place, in patch {own.number} (row {own.row}, column {own.col})",
        ),
    ]
