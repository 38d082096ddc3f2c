"""Figure and layer of how a ViT knows where a patch is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from geoseg.explain.output import Output
from geoseg.explain.position import (
    interpolate_positions,
    learned_positions,
    rotary_angles,
    rotary_similarity,
    table_similarity,
)
from geoseg.explain.sheet import RAMP, Sheet
from geoseg.explain.vit import ViT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_Panel = tuple[str, Tensor, tuple[int, int]]
"""Caption, how like each patch's position is, and row and column of the place."""

_EXAMPLE = 14
"""Side of a ViT's usual grid, 224 / 16, of the example for models without a table."""


def show_position(output: Output, vit: ViT) -> None:
    """Draw learned embeddings on their own grid and on the tile's, and rotary ones.

    A model has one of the two kinds. Of a model without a table, sines and cosines of
    the position (Vaswani et al., 2017) stand for one.
    """
    subject = output.subject
    tokens = vit.tokens(*subject.images.shape[2:])
    rows, cols = tokens.shape
    down, across = subject.share
    place = (min(int(down * rows), rows - 1), min(int(across * cols), cols - 1))
    found = learned_positions(vit)
    table, extra = found or (_sine_table(_EXAMPLE, 64), 0)
    side = round((table.shape[1] - extra) ** 0.5)
    kind = "learned" if found else "example, no table here"
    own = (place[0] * side // rows, place[1] * side // cols)
    learned = [
        (
            f"{kind}: {side} x {side}",
            table_similarity(table, extra, own[0] * side + own[1]).view(side, side),
            own,
        )
    ]
    fitted = {
        antialias: interpolate_positions(
            table, (rows, cols), extra=extra, antialias=antialias
        )
        for antialias in (False, True)
    }
    patch = place[0] * cols + place[1]
    learned += [
        (
            f"bicubic to {rows} x {cols}, {'with' if antialias else 'no'} antialias",
            table_similarity(fit, extra, patch).view(rows, cols),
            place,
        )
        for antialias, fit in fitted.items()
    ]
    angles = rotary_angles(vit, subject.images)
    rotary = []
    if angles is not None:
        similar = rotary_similarity(*angles, patch).view(rows, cols)
        rotary = [(f"rotary, any grid: here {rows} x {cols}", similar, place)]
    _draw(output, learned, rotary, fitted, angles, (rows, cols))
    maps = [(caption, values) for caption, values, _ in [*learned[1:], *rotary]]
    output.maps("position.tif", maps, limits=(-1.0, 1.0), band=len(maps))


def _draw(
    output: Output,
    learned: list[_Panel],
    rotary: list[_Panel],
    fitted: dict[bool, Tensor],
    angles: tuple[Tensor, Tensor] | None,
    shape: tuple[int, int],
) -> None:
    turning = [] if angles is None else _rotary_cosines(angles, shape)
    sheet = Sheet(
        "Position: how like the position of the place is to that of every patch",
        output.facts,
        count=len(learned) + 1 + len(rotary) + len(turning),
        columns=3 if rotary else 4,
        panel=3.3,
    )
    for panel in learned:
        image = _show_similarity(sheet, panel)
    difference = (fitted[True] - fitted[False]).norm(dim=-1)[0, -shape[0] * shape[1] :]
    scale = float(fitted[False].norm(dim=-1).mean())
    axes = sheet.panel(
        f"change by antialias: dark 0 to bright {float(difference.max()) / scale:.1%}"
    )
    _show(
        axes, difference.view(shape), (0.0, float(difference.max()) or 1.0), "viridis"
    )
    for panel in rotary:
        _show_similarity(sheet, panel)
    for caption, values in turning:
        _show(sheet.panel(caption), values, (-1.0, 1.0), "coolwarm")
    sheet.bar(
        image,
        "cosine of two embeddings; of rotary ones the mean of cos(angle - angle)."
        "  Rotary cosines: blue -1, red 1",
    )
    sheet.save(output.path("position.png"))


def _show_similarity(sheet: Sheet, panel: _Panel) -> AxesImage:
    caption, values, place = panel
    axes = sheet.panel(caption)
    axes.plot(place[1], place[0], "+", color="#00e5ff", ms=10, mew=1.6)
    return _show(axes, values, (-1.0, 1.0), RAMP)


def _show(
    axes: Axes, values: Tensor, limits: tuple[float, float], ramp: str
) -> AxesImage:
    return axes.imshow(
        values.numpy(),
        cmap=ramp,
        vmin=limits[0],
        vmax=limits[1],
        interpolation="nearest",
        aspect="auto",
    )


def _rotary_cosines(
    angles: tuple[Tensor, Tensor], shape: tuple[int, int]
) -> list[tuple[str, Tensor]]:
    """Return cosines of the channel that turns most and of a middling one."""
    cosines = angles[0].view(*shape, -1)
    turning = {
        "down": cosines.diff(dim=0).abs().mean(dim=(0, 1)),
        "across": cosines.diff(dim=1).abs().mean(dim=(0, 1)),
    }
    found = []
    for name, amount in turning.items():
        order = amount.argsort(descending=True)
        # Half of the channels turn with the other coordinate.
        for speed, channel in (("fastest", 0), ("middle", len(order) // 4)):
            caption = f"rotary cosine {name}, {speed} channel"
            found.append((caption, cosines[..., int(order[channel])]))
    return found


def _sine_table(side: int, channels: int) -> Tensor:
    """Return sines and cosines of rows and columns, (1, side * side, channels)."""
    frequencies = 1 / 100 ** (np.arange(channels // 4) / (channels // 4))
    angles = np.arange(side)[:, None] * frequencies
    axis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    rows = np.repeat(axis[:, None], side, axis=1)
    cols = np.repeat(axis[None], side, axis=0)
    table = np.concatenate([rows, cols], axis=2).reshape(1, side * side, channels)
    return torch.from_numpy(table).float()
