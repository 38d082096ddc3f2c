"""Figures of several panels over a tile; matplotlib without its global state."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geoseg.explain.subject import Subject
from geoseg.grid import Grid
from geoseg.io.atomic import atomic_path
from geoseg.io.overview import read_picture
from geoseg.preview import choose_stretch, stretched
from geoseg.preview.marks import INK, add_north, add_scale_bar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Picture = npt.NDArray[np.uint8]
Map = npt.NDArray[Any]

FAINT = "#5f6b78"
"""Colour of lesser text."""

RAMP = "magma"
"""Colours of amounts; layers on the map have them as well."""

DPI = 130
"""Pixels of an inch of a figure."""

PANEL = 3.7
"""Side of a panel, inches."""

_HEADER, _CAPTION, _BAR, _MARGIN, _GAP = 0.85, 0.36, 0.75, 0.3, 0.18


class Sheet:
    """Panels of equal size in a grid, below a title.

    Args:
        title: First line.
        facts: Second line.
        count: Number of panels.
        columns: Panels in a row, at most.
        aspect: Height over width of a panel.
        panel: Width of a panel, inches.
        below: Room below the panels for what is no panel, inches.
    """

    def __init__(
        self,
        title: str,
        facts: str,
        *,
        count: int,
        columns: int = 4,
        aspect: float = 1.0,
        panel: float = PANEL,
        below: float = _BAR,
    ) -> None:
        from matplotlib.figure import Figure

        self._columns = min(columns, count)
        rows = math.ceil(count / self._columns)
        self._panel, self._high = panel, panel * aspect
        self._cell = self._high + _CAPTION + _GAP
        width = 2 * _MARGIN + self._columns * (panel + _GAP) - _GAP
        self.width = max(width, 7.5)
        self.height = _HEADER + rows * self._cell + below + _MARGIN
        self.figure: Figure = Figure(
            figsize=(self.width, self.height), dpi=DPI, facecolor="white"
        )
        self._below, self._used = below, 0
        for text, size, weight, color, top in (
            (title, 14, "bold", INK, 0.25),
            (facts, 10, "normal", FAINT, 0.54),
        ):
            self.figure.text(
                _MARGIN / self.width,
                1 - top / self.height,
                text,
                va="top",
                parse_math=False,
                fontsize=size,
                fontweight=weight,
                color=color,
            )

    def panel(self, caption: str) -> Axes:
        """Add the next panel, empty."""
        row, column = divmod(self._used, self._columns)
        self._used += 1
        left = _MARGIN + column * (self._panel + _GAP)
        bottom = self.height - _HEADER - row * self._cell - _CAPTION - self._high
        axes = self.figure.add_axes(
            (
                left / self.width,
                bottom / self.height,
                self._panel / self.width,
                self._high / self.height,
            )
        )
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color="#c3cad2", linewidth=0.8)
        axes.set_title(
            caption, loc="left", fontsize=10, color=INK, pad=4, parse_math=False
        )
        return axes

    def bar(self, image: AxesImage, label: str) -> None:
        """Add the legend of a ramp below the panels, once."""
        axes = self.figure.add_axes(
            (
                _MARGIN / self.width,
                (self._below - 0.22) / self.height,
                min(6.0, self.width - 2 * _MARGIN) / self.width,
                0.14 / self.height,
            )
        )
        bar = self.figure.colorbar(image, cax=axes, orientation="horizontal")
        bar.outline.set_linewidth(0.5)
        axes.tick_params(labelsize=8.5, colors=FAINT, length=2)
        axes.set_title(label, loc="left", fontsize=9, color=INK, pad=3)

    def legend(self, handles: Sequence[Any], columns: int = 6) -> None:
        """Add a legend of symbols at the bottom."""
        self.figure.legend(
            handles=list(handles),
            loc="lower left",
            bbox_to_anchor=((_MARGIN - 0.05) / self.width, 0.1 / self.height),
            ncols=columns,
            frameon=False,
            fontsize=9.5,
            labelcolor=INK,
            borderaxespad=0,
        )

    def save(self, path: Path) -> None:
        """Write the PNG; it appears when it is whole."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        with (
            atomic_path(path) as temporary,
            warnings.catch_warnings(action="ignore", category=UserWarning),
        ):
            # Names may hold characters that the font lacks; boxes are shown for them.
            FigureCanvasAgg(self.figure).print_figure(str(temporary), format="png")


def tile_picture(subject: Subject) -> Picture:
    """Read what the tile shows, red, green, blue; shape (height, width, 3)."""
    window = subject.window
    picture = read_picture(
        subject.scene.path,
        subject.scene.grid.window(window),
        None,
        (window.height, window.width),
    )
    return stretched(picture, choose_stretch(picture))


def show_tile(axes: Axes, subject: Subject, picture: Picture) -> None:
    """Show the tile; coordinates of the panel are pixels of the tile."""
    window = subject.window
    axes.imshow(picture, extent=(0, window.width, window.height, 0), aspect="auto")
    axes.set(xlim=(0, window.width), ylim=(window.height, 0))


def show_map(
    axes: Axes,
    subject: Subject,
    picture: Picture,
    values: Map,
    limits: tuple[float, float],
    *,
    ramp: str = RAMP,
    alpha: float = 0.75,
) -> AxesImage:
    """Show a map of the whole tile over a grey one of its pixels.

    Args:
        axes: A panel.
        subject: The tile.
        picture: Of `tile_picture`.
        values: Shape (rows, columns); NaN shows the tile alone.
        limits: Values of the first and the last colour.
        ramp: Colours.
        alpha: How little of the tile shows through.
    """
    grey = (picture @ np.array((0.299, 0.587, 0.114))).astype(np.uint8)
    show_tile(axes, subject, np.repeat(grey[..., None], 3, axis=2))
    size = subject.tile_size
    return axes.imshow(
        np.ma.masked_invalid(values),
        extent=(0, size, size, 0),
        cmap=ramp,
        vmin=limits[0],
        vmax=limits[1],
        alpha=alpha,
        interpolation="nearest",
        aspect="auto",
    )


def mark_place(axes: Axes, subject: Subject, color: str = "#00e5ff") -> None:
    """Mark the place that is explained."""
    row, col = subject.place
    for width, own in ((3.0, "black"), (1.4, color)):
        axes.plot(
            [col + 0.5],
            [row + 0.5],
            marker="+",
            markersize=11,
            markeredgewidth=width,
            color=own,
        )


def orient(axes: Axes, grid: Grid) -> None:
    """Add scale bar and north arrow to a panel that shows a grid."""
    add_scale_bar(axes, grid)
    add_north(axes, grid)


def facts_of(subject: Subject, model: str) -> str:
    """Say which tile of what is shown."""
    row, col = subject.place
    x, y = subject.grid.transform @ (col + 0.5, row + 0.5)
    window = subject.window
    return (
        f"{Path(subject.scene.path).name}, tile of {subject.tile_size} px at row "
        f"{window.row}, column {window.col}   ·   place {x:.8g}, {y:.8g}   ·   "
        f"model {Path(model).name}"
    )


def aspect_of(subject: Subject) -> float:
    """Return height over width of the tile's part in the scene."""
    return subject.window.height / subject.window.width
