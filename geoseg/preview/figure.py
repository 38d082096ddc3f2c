"""Layout and drawing of a picture; matplotlib without its global state."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geoseg.grid import Window
from geoseg.io.overview import Outlines
from geoseg.preview.marks import INK, add_frame, add_north, add_scale_bar
from geoseg.preview.paint import Rgba, class_pixels, scene_pixels
from geoseg.preview.subject import Subject, View
from geoseg.types import NODATA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAINT = "#5f6b78"
"""Colour of lesser text."""

NO_DATA, HATCH, SKIPPED = "#f4f5f7", "#c3cad2", "#cdcdcd"
"""Colours of pixels without data, their hatching, and pixels not segmented."""

# Inches, of a picture 16 inches wide; more pixels make everything finer.
WIDTH, MARGIN, GAP = 16.0, 0.35, 0.3
HEADER, CAPTION, LEGEND_LINE = 0.8, 0.34, 0.36

STACKED_BELOW = 0.45
"""Height over width of a scene from which panels lie side by side."""

TALLEST, NARROWEST = 1.5, 2.8
"""Height over width of a panel, at most; its width, inches, at least."""

LEGEND_COLUMNS, LEGEND_ENTRIES = 8, 24
"""Entries of a legend in a line and in all."""

MARGINAL = 0.001
"""Share of pixels below which a kind of missing pixels is left out of the legend."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the row."""

    caption: str
    """Text above it."""
    view: View
    """What part of the scene it shows."""
    pixels: Rgba
    """Its pixels."""
    outlines: Outlines | None = None
    """Polygons over it."""
    frame: Window | None = None
    """Window to mark in it."""


def is_stacked(shape: tuple[int, int]) -> bool:
    """Tell whether panels of a scene lie one above the other, each at full width."""
    return shape[0] / shape[1] < STACKED_BELOW


def render(subject: Subject, path: Path, width: int) -> None:
    """Draw a picture.

    Args:
        subject: What to show.
        path: PNG to write.
        width: Its width, pixels.
    """
    # Here, not above: matplotlib takes half a second, and few commands draw.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with warnings.catch_warnings(action="ignore", category=UserWarning):
        # Names may hold characters that the font lacks; boxes are shown for them.
        canvas = FigureCanvasAgg(_draw(subject))
        canvas.print_figure(str(path), format="png", dpi=width / WIDTH)


def _draw(subject: Subject) -> Figure:
    from matplotlib.figure import Figure

    panels = _panels(subject)
    columns = 1 if is_stacked(subject.grid.shape) else len(panels)
    rows = math.ceil(len(panels) / columns)
    cell_width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
    aspect = subject.grid.height / subject.grid.width
    cell_height = cell_width * min(max(aspect, 0.04), TALLEST)
    cell_width = min(cell_width, max(NARROWEST, cell_height / aspect))
    legend = LEGEND_LINE * math.ceil(_legend_size(subject) / LEGEND_COLUMNS)
    height = HEADER + rows * (CAPTION + cell_height) + (rows - 1) * GAP / 2
    height += legend + 1.4 * MARGIN
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor="white")
    _write_header(figure, subject)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        left = MARGIN + column * (cell_width + GAP)
        top = HEADER + CAPTION + row * (CAPTION + cell_height + GAP / 2)
        cell = (left, top, cell_width, cell_height)
        _draw_panel(figure, panel, subject, cell, is_first=index == 0)
    _add_legend(figure, subject, bottom=MARGIN * 0.6)
    return figure


def _panels(subject: Subject) -> list[Panel]:
    """Choose what is there to show: without the scene, classes only."""
    whole, shown = subject.whole, subject.detail or subject.whole
    frame = None if subject.detail is None else subject.detail.window
    colors = {share.id: share.color for share in subject.shares}
    panels = []
    if whole.picture is not None:
        panels.append(Panel("Scene", whole, scene_pixels(whole), frame=frame))
    panels.append(Panel("Classes", whole, class_pixels(whole, colors), frame=frame))
    if subject.outlines is None and subject.detail is None:
        return panels
    caption = "Polygons" if subject.outlines is not None else "Classes"
    if frame is not None:
        caption += f", detail of {frame.height} x {frame.width} pixels"
    if shown.picture is not None and subject.outlines is not None:
        pixels = scene_pixels(shown)
    else:
        pixels = class_pixels(shown, colors)
        pixels[..., :3] = 255 - (255 - pixels[..., :3]) // 2  # Pale under outlines.
    panels.append(Panel(caption, shown, pixels, subject.outlines))
    return panels


def _write_header(figure: Figure, subject: Subject) -> None:
    grid, height = subject.grid, figure.get_figheight()
    resolution = grid.ground_resolution()
    facts = [f"{grid.height} x {grid.width} pixels"]
    facts.append("no CRS" if grid.crs is None else subject.code or "CRS without a code")
    if resolution is not None:
        facts.insert(1, f"{resolution:.3g} m a pixel")
    if subject.model is not None:
        facts.append(f"model {Path(subject.model).name}")
    title = (subject.title, 17, "bold", INK)
    below = ("   ·   ".join(facts), 11.5, "normal", FAINT)
    top = MARGIN * 0.8
    for text, size, weight, color in (title, below):
        # Not parsed as TeX: a scene may be called `a_$1$`.
        figure.text(
            MARGIN / WIDTH,
            1 - top / height,
            text,
            va="top",
            parse_math=False,
            color=color,
            fontsize=size,
            fontweight=weight,
        )
        top += 0.34


def _draw_panel(
    figure: Figure,
    panel: Panel,
    subject: Subject,
    cell: tuple[float, float, float, float],
    *,
    is_first: bool,
) -> None:
    """Draw one panel into a cell: left, top, width, height in inches."""
    left, top, width, height = cell
    window = panel.view.window
    # The whole window, as large as the cell allows.
    scale = min(width / window.width, height / window.height)
    inner_width, inner_height = window.width * scale, window.height * scale
    total = figure.get_figheight()
    axes = figure.add_axes(
        (
            left / WIDTH,
            1 - (top + inner_height) / total,
            inner_width / WIDTH,
            inner_height / total,
        )
    )
    axes.set(xlim=(0, window.width), ylim=(window.height, 0), xticks=[], yticks=[])
    axes.patch.set(facecolor=NO_DATA, edgecolor=HATCH, hatch="////", linewidth=0)
    for spine in axes.spines.values():
        spine.set(color=HATCH, linewidth=0.8)
    extent = (0, window.width, window.height, 0)
    axes.imshow(panel.pixels, extent=extent, aspect="auto")
    axes.set_title(panel.caption, loc="left", fontsize=12, color=INK, pad=7)
    if panel.outlines is not None:
        _add_outlines(axes, panel.outlines, subject)
    if panel.frame is not None:
        add_frame(axes, panel.frame)
    grid = subject.grid.window(window)
    if is_first or panel.view is subject.detail:
        add_scale_bar(axes, grid)
    if is_first:
        add_north(axes, grid)


def _add_outlines(axes: Axes, outlines: Outlines, subject: Subject) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.patheffects import Normal, Stroke

    # A little lighter than the classes, as scenes are darker than paper.
    colors = {share.id: _unit(share.color, white=0.25) for share in subject.shares}
    lines: list[npt.NDArray[np.float64]] = []
    line_colors: list[tuple[float, float, float]] = []
    for class_id, rings in zip(outlines.class_id, outlines.rings, strict=True):
        lines += rings
        line_colors += [colors.get(int(class_id), (1.0, 1.0, 1.0))] * len(rings)
    # Many polygons need thin lines, or the scene disappears.
    thin = 0.5 if len(lines) > 2000 else 0.9
    collection = LineCollection(
        lines, colors=line_colors, linewidths=thin, joinstyle="round"
    )
    casing = Stroke(linewidth=thin + 0.9, foreground="black", alpha=0.55)
    collection.set_path_effects([casing, Normal()])
    axes.add_collection(collection, autolim=False)


def _legend_size(subject: Subject) -> int:
    found = sum(share.share > 0 for share in subject.shares)
    return max(1, min(LEGEND_ENTRIES, found) + sum(_missing(subject.whole)))


def _missing(view: View) -> tuple[bool, bool]:
    """Tell whether there are pixels that were not segmented, and without data."""
    missing = view.mask == NODATA
    shown = np.zeros_like(missing) if view.valid is None else missing & view.valid
    hidden = missing & ~shown
    return bool(shown.mean() > MARGINAL), bool(hidden.mean() > MARGINAL)


def _add_legend(figure: Figure, subject: Subject, bottom: float) -> None:
    from matplotlib.patches import Patch

    found = [share for share in subject.shares if share.share > 0]
    handles = [
        Patch(
            facecolor=_unit(share.color),
            edgecolor=INK,
            linewidth=0.5,
            label=f"{share.name}  {_percent(share.share)}",
        )
        for share in found[:LEGEND_ENTRIES]
    ]
    if len(found) > LEGEND_ENTRIES:
        rest = found[LEGEND_ENTRIES - 1 :]
        share = _percent(sum(entry.share for entry in rest))
        handles[-1] = Patch(facecolor="white", label=f"{len(rest)} more  {share}")
    skipped, hidden = _missing(subject.whole)
    if skipped:
        handles.append(Patch(facecolor=SKIPPED, label="not segmented"))
    if hidden:
        handles.append(
            Patch(facecolor=NO_DATA, edgecolor=HATCH, hatch="////", label="no data")
        )
    legend = figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(MARGIN / WIDTH - 0.004, bottom / figure.get_figheight()),
        ncols=min(LEGEND_COLUMNS, max(1, len(handles))),
        frameon=False,
        fontsize=12,
        labelcolor=INK,
        handlelength=1.5,
        handleheight=1.1,
        columnspacing=2.0,
        borderaxespad=0,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 else "<0.1%"


def _unit(color: Sequence[int], white: float = 0.0) -> tuple[float, float, float]:
    """Return a colour as matplotlib wants it, 0..1, mixed with white."""
    red, green, blue = np.asarray(color) / 255 * (1 - white) + white
    return float(red), float(green), float(blue)
