"""Layers and figures of features over a whole scene."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geoseg.explain.features import Basis, SceneFeatures, similarity_to
from geoseg.explain.sheet import RAMP, Picture, Sheet, orient
from geoseg.explain.subject import Subject
from geoseg.grid import Grid, Window
from geoseg.io.map_layers import raster_layer, read_layer
from geoseg.io.map_style import picture_qml, ramp_qml
from geoseg.io.overview import read_picture
from geoseg.preview import choose_stretch, stretched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Done = Callable[[int], None]

NODATA_COLOR = 0
"""Colour of pixels without data; those with data have 1 to 255 in each band."""

_DRAWN = 1400
"""Longer side of a panel's pixels."""

_SIDE = 6.0
"""Width of a panel, inches."""


def write_colors(
    path: Path,
    features: SceneFeatures,
    basis: Basis,
    tags: Mapping[str, str],
    done: Done,
) -> None:
    """Write the scene's features as red, green and blue."""
    grid, region = _placed(features)
    with raster_layer(
        path,
        grid,
        bands=("component 1", "component 2", "component 3"),
        dtype="uint8",
        nodata=NODATA_COLOR,
        qml=picture_qml(),
        tags=tags,
    ) as layer:
        for window, colors, keep in features.blended(basis.colors, done):
            shown = np.clip(np.rint(colors * 254 + 1), 1, 255)
            pixels = np.where(keep, shown, NODATA_COLOR).astype(np.uint8)
            layer.write(pixels, window.relative_to(region))


def write_similarity(
    path: Path,
    features: SceneFeatures,
    subject: Subject,
    tags: Mapping[str, str],
    done: Done,
) -> None:
    """Write how like each patch's feature is to that of the subject's place."""
    found = features.of(subject.images)
    row, col = (
        min(int(share * side), side - 1)
        for share, side in zip(subject.share, found.shape[1:], strict=True)
    )
    grid, region = _placed(features)
    with raster_layer(
        path,
        grid,
        bands=("similarity",),
        dtype="float32",
        nodata=float("nan"),
        qml=ramp_qml(0.0, 1.0),
        tags=tags,
    ) as layer:
        compare = similarity_to(found[:, row, col])
        for window, similar, keep in features.blended(compare, done):
            pixels = np.where(keep, similar, np.float32(np.nan))
            layer.write(pixels, window.relative_to(region))


def draw_features(
    path: Path,
    features: SceneFeatures,
    title: str,
    facts: str,
    colors: Path,
    similarity: Path | None,
    place: tuple[int, int] | None,
) -> None:
    """Draw the scene, its features and, if there is one, the similarity to a place.

    Args:
        path: PNG to write.
        features: What was made.
        title: First line.
        facts: Second line.
        colors: Raster of `write_colors`.
        similarity: Raster of `write_similarity`.
        place: Row and column in the scene's grid.
    """
    grid, region = _placed(features)
    factor = min(1.0, _DRAWN / max(grid.shape))
    shape = (max(1, round(grid.height * factor)), max(1, round(grid.width * factor)))
    picture = read_picture(features.scene.path, grid, None, shape)
    sheet = Sheet(
        title,
        facts,
        count=2 if similarity is None else 3,
        columns=3,
        aspect=min(3.0, grid.height / grid.width),
        panel=_SIDE,
        below=0.75 if similarity is not None else 0.1,
    )
    extent = (0, grid.width, grid.height, 0)
    axes = sheet.panel("scene")
    shown: Picture = stretched(picture, choose_stretch(picture))
    axes.imshow(shown, extent=extent, aspect="auto")
    orient(axes, grid)
    panels = [axes]
    axes = sheet.panel("features: components 1, 2, 3 as red, green, blue")
    axes.imshow(_decimated(colors, shape), extent=extent, aspect="auto")
    panels.append(axes)
    if similarity is not None:
        axes = sheet.panel("similarity to the place")
        values = _decimated(similarity, shape)[..., 0]
        image = axes.imshow(
            np.ma.masked_invalid(values),
            extent=extent,
            cmap=RAMP,
            vmin=0,
            vmax=1,
            aspect="auto",
        )
        panels.append(axes)
        sheet.bar(image, "cosine between the features of a patch and of the place")
    for axes in panels:
        if place is not None:
            _mark(axes, place, region)
        axes.set(xlim=(0, grid.width), ylim=(grid.height, 0))
    sheet.save(path)


def basis_facts(basis: Basis) -> str:
    """Say how much of the features' variance the three components hold."""
    shares = basis.variances / basis.total
    return "variance in red, green, blue " + ", ".join(f"{s:.0%}" for s in shares)


def _mark(axes: Axes, place: tuple[int, int], region: Window) -> None:
    x, y = place[1] + 0.5 - region.col, place[0] + 0.5 - region.row
    for width, color in ((3.4, "black"), (1.7, "#00e5ff")):
        axes.plot([x], [y], "+", ms=13, mew=width, color=color)


def _placed(features: SceneFeatures) -> tuple[Grid, Window]:
    """Return the grid of what is written, and where it lies in the scene."""
    region = features.tiles.output
    return features.scene.grid.window(region), region


def _decimated(path: Path, shape: tuple[int, int]) -> Picture:
    """Read a layer no finer than it is drawn, shape (height, width, bands)."""
    return np.moveaxis(read_layer(path, shape), 0, -1)


def place_of(subject: Subject) -> tuple[int, int]:
    """Return the row and column of a subject's place in the scene."""
    row, col = subject.place
    return subject.window.row + row, subject.window.col + col
