"""Figures, layer and table of deformable sampling."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import shapely

from geoseg.explain.cost import Cost, cost_table
from geoseg.explain.output import Output
from geoseg.explain.sampling import Sampling
from geoseg.explain.sheet import (
    FAINT,
    Sheet,
    orient,
    show_tile,
)
from geoseg.explain.subject import Subject
from geoseg.grid import Window
from geoseg.io.atomic import atomic_path
from geoseg.io.map_layers import FeatureLayer
from geoseg.io.map_style import points_qml
from geoseg.io.projection import affine_points
from geoseg.preview.marks import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rgb = tuple[int, int, int]
Shape = tuple[int, int]

COLORS: tuple[Rgb, ...] = (
    (255, 176, 0),
    (220, 38, 127),
    (100, 143, 255),
    (0, 158, 115),
)
"""Of levels; IBM's palette, which colour-blind eyes tell apart."""

_QUERY: Rgb = (0, 229, 255)

_LEAST_SIDE = 160
"""Side of what a panel shows, pixels, however near the points are."""


def show_sampling(
    output: Output, samplings: Sequence[Sampling], chosen: Sampling, level: int
) -> None:
    """Draw the points of the place's query, write them and the table of costs.

    Args:
        output: Where it goes.
        samplings: All deformable attentions of the model.
        chosen: The one that is drawn head by head.
        level: Level whose cell at the place is the query; where there is no such level,
            the last one.
    """
    query = chosen.query(level, *output.subject.share)
    looks = [
        _Look(s, s.query(min(level, len(s.query_shapes) - 1), *output.subject.share))
        for s in samplings
    ]
    shapes = sorted({shape for sampling in samplings for shape in sampling.shapes})
    colors = {shape: COLORS[i % len(COLORS)] for i, shape in enumerate(shapes)}
    _draw_heads(output, _Look(chosen, query), colors)
    _draw_parts(output, looks, colors)
    _write_points(output, looks, colors)
    costs = cost_table(samplings)
    _write_costs(output, costs)
    _draw_costs(output, costs)


@dataclass(frozen=True)
class _Look:
    """One query of a deformable attention."""

    sampling: Sampling
    query: int

    def places(self, size: int) -> npt.NDArray[np.float64]:
        """Return where it looks from and at, pixels of the tile, shape (n, 2)."""
        points = self.sampling.locations[self.query].reshape(-1, 2).double().numpy()
        return np.vstack([[self.sampling.centre(self.query)], points]) * size


def _draw_heads(output: Output, look: _Look, colors: Mapping[Shape, Rgb]) -> None:
    subject, heads = output.subject, look.sampling.weights.shape[1]
    sheet = Sheet(
        f"Deformable sampling of one query in {look.sampling.name}",
        output.facts,
        count=heads + 1,
        columns=3 if heads < 6 else 4 if heads < 12 else 6,
        below=0.5,
    )
    frame = _frame(subject, [look])
    axes = sheet.panel("all heads")
    _show_points(axes, output, look, colors, frame, None)
    _add_scale(axes, subject, frame)
    for head in range(heads):
        axes = sheet.panel(f"head {head}")
        _show_points(axes, output, look, colors, frame, head)
    shown = {shape: colors[shape] for shape in look.sampling.shapes}
    sheet.legend(_handles(shown))
    sheet.save(output.path("sampling.png"))


def _draw_parts(
    output: Output, looks: Sequence[_Look], colors: Mapping[Shape, Rgb]
) -> None:
    sheet = Sheet(
        "Deformable sampling of the place in each part of the model",
        output.facts,
        count=len(looks),
        columns=4,
        below=0.5,
    )
    frame = _frame(output.subject, looks)
    for number, look in enumerate(looks):
        axes = sheet.panel(look.sampling.name)
        _show_points(axes, output, look, colors, frame, None)
        if number == 0:
            _add_scale(axes, output.subject, frame)
    sheet.legend(_handles(colors))
    sheet.save(output.path("sampling-parts.png"))


def _frame(subject: Subject, looks: Sequence[_Look]) -> Window:
    """Return the smallest square of the tile that holds all points in it, and more."""
    window = subject.window
    places = np.vstack([look.places(subject.tile_size) for look in looks])
    inside = (places >= 0).all(1) & (places < (window.width, window.height)).all(1)
    places = places[inside]
    low, high = places.min(axis=0), places.max(axis=0)
    side = max(_LEAST_SIDE, int(1.1 * (high - low).max()))
    side = min(side, window.width, window.height)
    col, row = ((low + high - side) / 2).astype(int)
    return Window(
        int(np.clip(row, 0, window.height - side)),
        int(np.clip(col, 0, window.width - side)),
        side,
        side,
    )


def _add_scale(axes: Axes, subject: Subject, frame: Window) -> None:
    """Add scale bar and north arrow; their coordinates begin at the frame's corner."""
    grid = subject.grid.window(frame)
    twin = axes.inset_axes((0, 0, 1, 1))
    twin.set(xlim=(0, frame.width), ylim=(frame.height, 0))
    twin.axis("off")
    orient(twin, grid)


def _show_points(
    axes: Axes,
    output: Output,
    look: _Look,
    colors: Mapping[Shape, Rgb],
    frame: Window,
    head: int | None,
) -> None:
    """Show the points of one head, or of all; as large as their weight is."""
    subject, sampling, query = output.subject, look.sampling, look.query
    show_tile(axes, subject, output.picture)
    x, y = (share * subject.tile_size for share in sampling.centre(query))
    heads = slice(None) if head is None else slice(head, head + 1)
    for level, shape in enumerate(sampling.shapes):
        places = sampling.locations[query, heads, level].reshape(-1, 2).numpy()
        weights = sampling.weights[query, heads, level].flatten().numpy()
        at = places * subject.tile_size
        if head is not None:
            for point in at:
                axes.plot([x, point[0]], [y, point[1]], color="white", lw=0.6)
        axes.scatter(
            at[:, 0],
            at[:, 1],
            s=_area(weights),
            color=[channel / 255 for channel in colors[shape]],
            edgecolors="black",
            linewidths=0.6,
            alpha=0.85,
            zorder=3,
        )
    axes.plot([x], [y], "s", ms=7, mfc="none", mec="#00e5ff", mew=1.8, zorder=4)
    axes.set(
        xlim=(frame.col, frame.col_stop),
        ylim=(frame.row_stop, frame.row),
    )


def _area(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return areas of markers, points squared, in proportion to weights."""
    return np.asarray(np.maximum(350 * weights, 4))


def _handles(colors: Mapping[Shape, Rgb]) -> list[object]:
    from matplotlib.lines import Line2D

    def dot(color: Rgb, size: float, label: str) -> Line2D:
        return Line2D(
            [],
            [],
            ls="",
            marker="o",
            color="#{:02x}{:02x}{:02x}".format(*color),
            mec="black",
            ms=size,
            label=label,
        )

    handles: list[object] = [
        dot(color, 8, f"level of {height} x {width} cells")
        for (height, width), color in colors.items()
    ]
    handles += [
        dot((195, 202, 210), float(_area(np.array(weight)) ** 0.5), f"weight {weight}")
        for weight in (0.05, 0.25)
    ]
    handles.append(
        Line2D(
            [], [], ls="", marker="s", mfc="none", mec="#00a5b8", mew=1.6, label="query"
        )
    )
    return handles


def _write_points(
    output: Output, looks: Sequence[_Look], colors: Mapping[Shape, Rgb]
) -> None:
    """Write the points of the place's query in all parts of the model."""
    places = np.vstack([look.places(output.subject.tile_size) for look in looks])
    rows = [row for look in looks for row in _rows(look)]
    size = output.subject.tile_size
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    columns["inside"] = np.all((places >= 0) & (places <= size), axis=1)
    on_map = affine_points(output.subject.grid.transform)(places)
    qml = points_qml(
        "role",
        {"query": _QUERY, **{_role(shape): color for shape, color in colors.items()}},
        'if("role" = \'query\', 3, 1 + 6 * sqrt("weight"))',
    )
    layer = FeatureLayer("sampling", np.asarray(shapely.points(on_map)), columns, qml)
    output.features("sampling.gpkg", [layer])


def _rows(look: _Look) -> Iterator[dict[str, object]]:
    """Yield what is known of the query and of its points, in the order of `places`."""
    sampling, weights = look.sampling, look.sampling.weights[look.query]
    yield {
        "part": sampling.name,
        "role": "query",
        **{"head": -1, "level": -1, "point": -1, "weight": 1.0},
    }
    for head, level, point in np.ndindex(*weights.shape):
        yield {
            "part": sampling.name,
            "role": _role(sampling.shapes[level]),
            "head": head,
            "level": level,
            "point": point,
            "weight": float(weights[head, level, point]),
        }


def _role(shape: Shape) -> str:
    return f"level of {shape[0]} x {shape[1]}"


def _write_costs(output: Output, costs: Sequence[Cost]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        [
            *("part", "queries", "cells", "points_per_head", "full_macs"),
            *("deformable_macs", "times", "full_weight_bytes", "deformable_bytes"),
        ]
    )
    for cost in costs:
        table.writerow(
            [
                *(cost.name, cost.queries, cost.cells, cost.points, cost.full),
                *(cost.deformable, f"{cost.ratio:.2f}", cost.full_bytes),
                cost.deformable_bytes,
            ]
        )
    with atomic_path(output.path("cost.csv")) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _draw_costs(output: Output, costs: Sequence[Cost]) -> None:
    """Draw the table, with what all layers cost together."""
    size = output.subject.tile_size
    sheet = Sheet(
        f"What attention costs at {size} x {size} px",
        "to every cell, or to a few points of each head; multiply-adds by formula from "
        "the shapes that ran",
        count=1,
        aspect=0.03 * (len(costs) + 3),
        panel=11.0,
        below=0.1,
    )
    axes = sheet.panel("")
    axes.axis("off")
    heads = ("part", "queries", "cells", "points", "full", "deformable", "times", "")
    total = (sum(c.full for c in costs), sum(c.deformable for c in costs))
    rows: list[tuple[str, ...]] = [
        (
            *(cost.name, f"{cost.queries:,}", f"{cost.cells:,}", str(cost.points)),
            *(_giga(cost.full), _giga(cost.deformable), f"{cost.ratio:.1f}"),
            f"{_mega(cost.full_bytes)} / {_mega(cost.deformable_bytes)}",
        )
        for cost in costs
    ]
    rows.append(
        ("all", "", "", "", *map(_giga, total), f"{total[0] / total[1]:.1f}", "")
    )
    heads = (*heads[:7], "weights, full / deformable")
    lefts = (0.0, 0.36, 0.45, 0.53, 0.64, 0.76, 0.83, 1.0)
    for line, row in enumerate([heads, *rows]):
        y = 1 - (line + 0.5) / (len(rows) + 1)
        for column, (text, x) in enumerate(zip(row, lefts, strict=True)):
            axes.text(
                x,
                y,
                text,
                transform=axes.transAxes,
                ha="left" if column == 0 else "right",
                va="center",
                fontsize=9.5,
                color=FAINT if line == 0 else INK,
                fontweight="bold" if line == len(rows) else "normal",
            )
    sheet.save(output.path("cost.png"))


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.3f} G"


def _mega(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
