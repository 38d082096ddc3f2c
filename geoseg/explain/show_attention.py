"""Figures and layers of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from geoseg.explain.attention import Attention
from geoseg.explain.output import Output
from geoseg.explain.sheet import (
    Sheet,
    aspect_of,
    mark_place,
    orient,
    show_map,
    show_tile,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOP = 99.5
"""Percentile of a map that has the last colour: single tokens draw most attention."""


def show_attention(
    output: Output, attention: Attention, layer: int, token: str
) -> None:
    """Draw where a token looks, and write the maps as layers.

    Args:
        output: Where it goes.
        attention: What to show.
        layer: Zero-based layer whose heads are shown.
        token: What the token is called.
    """
    _draw_heads(output, attention, layer, token)
    _draw_layers(output, attention, token)
    layers, heads = attention.weights.shape[:2]
    output.maps(
        "attention.tif",
        [
            ("rollout", attention.map()),
            *((f"layer {i}, mean", attention.map(i)) for i in range(layers)),
            *(
                (f"layer {i}, head {j}", attention.map(i, j))
                for i in range(layers)
                for j in range(heads)
            ),
        ],
        limits=(0.0, _top(attention.map())),
    )


def _draw_heads(output: Output, attention: Attention, layer: int, token: str) -> None:
    subject, heads = output.subject, attention.weights.shape[1]
    attention.map(layer)  # Refuses a layer that does not exist.
    maps: list[tuple[str, int | None]] = [("mean", None)]
    maps += [(f"head {head}", head) for head in range(heads)]
    sheet = Sheet(
        f"Attention of {token} in layer {layer}",
        output.facts,
        count=len(maps) + 1,
        columns=3 if heads <= 4 else 5,
        aspect=aspect_of(subject),
    )
    top = max(_top(attention.map(layer, head)) for _, head in maps)
    axes = sheet.panel("tile")
    show_tile(axes, subject, output.picture)
    mark_place(axes, subject)
    orient(axes, subject.scene.grid.window(subject.window))
    for name, head in maps:
        shares = _shares(attention, layer, head)
        axes = sheet.panel(f"{name}   ·   {shares}")
        image = show_map(
            axes,
            subject,
            output.picture,
            attention.map(layer, head).numpy(),
            (0.0, top),
        )
        _mark_query(axes, output, attention)
    sheet.bar(image, "attention to a patch; all patches and other tokens sum to 1")
    sheet.save(output.path("attention.png"))


def _draw_layers(output: Output, attention: Attention, token: str) -> None:
    subject, layers = output.subject, len(attention.weights)
    sheet = Sheet(
        f"Attention of {token} through the layers, and rolled out over all of them",
        output.facts,
        count=layers + 1,
        columns=3 if layers < 12 else 6,
        aspect=aspect_of(subject),
        panel=3.7 if layers < 12 else 2.6,
    )
    for layer in [*range(layers), None]:
        name = "rollout" if layer is None else f"layer {layer}"
        values = attention.map(layer)
        axes = sheet.panel(f"{name}   ·   {_shares(attention, layer, None)}")
        # Each by its own: early layers are even, late ones are not.
        image = show_map(
            axes, subject, output.picture, (values / _top(values)).numpy(), (0.0, 1.0)
        )
        _mark_query(axes, output, attention)
    sheet.bar(
        image, f"attention to a patch over the {_TOP:g}th percentile of its own panel"
    )
    sheet.save(output.path("attention-layers.png"))


def _mark_query(axes: Axes, output: Output, attention: Attention) -> None:
    if attention.query >= len(attention.tokens.extra):
        mark_place(axes, output.subject)


def _shares(attention: Attention, layer: int | None, head: int | None) -> str:
    """Say what part of the attention goes to tokens that are no patches."""
    shares = attention.shares(layer, head)
    names = attention.tokens.extra
    parts = []
    if "cls" in names:
        parts.append(f"[CLS] {float(shares[names.index('cls')]):.1%}")
    registers = [i for i, name in enumerate(names) if name.startswith("register")]
    if registers:
        parts.append(f"registers {float(shares[registers].sum()):.1%}")
    return ", ".join(parts) or "patches only"


def _top(values: Tensor) -> float:
    return max(float(np.percentile(values.numpy(), _TOP)), 1e-9)
