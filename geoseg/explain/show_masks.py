"""Figures and layers of queries: masks, regions, attention and contributions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from geoseg.explain.attention import check_index
from geoseg.explain.masks import QueryMasks, rank_queries
from geoseg.explain.output import Output
from geoseg.explain.sheet import (
    Sheet,
    aspect_of,
    mark_place,
    orient,
    show_map,
    show_tile,
)
from geoseg.types import ClassInfo

_SHOWN, _LEAST = 8, 3
"""Queries that the figure of contributions shows, at most and at least."""

_WORTH = 0.005
"""Part of a score from which a query is shown."""

_TOP = 0.99
"""Quantile of the attention in its region that has the last colour."""


def show_masks(
    output: Output,
    masks: QueryMasks,
    classes: tuple[ClassInfo, ...],
    index: int,
    query: int | None,
    where: npt.NDArray[np.bool_],
) -> None:
    """Draw what makes a class, and what one query does; write both as layers.

    Args:
        output: Where it goes.
        masks: What the decoder did.
        classes: The model's classes, by the order of the logits.
        index: The class.
        query: Query that is followed through the layers; None: the one that adds most.
        where: Pixels of the tile that rank queries, shape (tile_size, tile_size).
    """
    count = len(masks.final.classes)
    if query is not None:
        check_index("query", query, count)
    _draw_contributions(output, masks, classes[index].name, index, where)
    shape = (masks.final.masks.shape[1], masks.final.masks.shape[2])
    ranks = rank_queries(
        masks.contributions(index), torch.from_numpy(_coarse(where, shape))
    )
    chosen = ranks[0].query if query is None else query
    _draw_query(output, masks, classes, chosen)
    for number, layer in enumerate(masks.layers):
        output.maps(
            f"query-{chosen}-layer-{number}.tif",
            [
                ("attention", layer.attention[:, chosen].mean(0)),
                ("may look here", layer.region[chosen].float()),
                *(
                    (f"attention, head {head}", weights[chosen])
                    for head, weights in enumerate(layer.attention)
                ),
            ],
        )
    predictions = [masks.before, *(layer.after for layer in masks.layers)]
    output.maps(
        f"query-{chosen}-masks.tif",
        [
            (_after(number), prediction.masks[chosen].sigmoid())
            for number, prediction in enumerate(predictions)
        ],
        limits=(0.0, 1.0),
        band=len(predictions),
    )


def _draw_contributions(
    output: Output,
    masks: QueryMasks,
    name: str,
    index: int,
    where: npt.NDArray[np.bool_],
) -> None:
    subject = output.subject
    contributions = masks.contributions(index)
    score = contributions.sum(0)
    shape = (score.shape[0], score.shape[1])
    ranks = rank_queries(contributions, torch.from_numpy(_coarse(where, shape)))
    worth = sum(rank.share >= _WORTH for rank in ranks)
    shown = ranks[: min(_SHOWN, max(_LEAST, worth))]
    sheet = Sheet(
        f"Queries that make '{name}': what each adds to the class's score",
        output.facts,
        count=len(shown) + 2,
        columns=5,
        aspect=aspect_of(subject),
        panel=3.1,
    )
    axes = sheet.panel("tile")
    show_tile(axes, subject, output.picture)
    mark_place(axes, subject)
    orient(axes, subject.scene.grid.window(subject.window))
    axes = sheet.panel(f"score: the sum of all {len(ranks)} queries")
    image = show_map(axes, subject, output.picture, score.numpy(), (0.0, 1.0))
    for rank in shown:
        axes = sheet.panel(f"query {rank.query}   ·   {rank.share:.0%} of the score")
        show_map(
            axes,
            subject,
            output.picture,
            contributions[rank.query].numpy(),
            (0.0, 1.0),
        )
    rest = 1 - sum(rank.share for rank in shown)
    sheet.bar(
        image,
        f"softmax(class) x sigmoid(mask) of a query; the {len(ranks) - len(shown)} "
        f"others add {rest:.0%}",
    )
    sheet.save(output.path("masks.png"))
    output.maps(
        "contributions.tif",
        [
            ("score", score),
            *((f"query {rank.query}", contributions[rank.query]) for rank in shown),
        ],
        limits=(0.0, 1.0),
    )


def _draw_query(
    output: Output, masks: QueryMasks, classes: tuple[ClassInfo, ...], query: int
) -> None:
    """Draw three panels a layer: its mask, where it may look, where it does."""
    subject = output.subject
    sheet = Sheet(
        f"Query {query} through the decoder: mask before, where it may look, where it "
        "does",
        output.facts,
        count=3 * (len(masks.layers) + 1),
        columns=3,
        aspect=aspect_of(subject),
        panel=3.1,
    )
    before = masks.before
    for number, layer in enumerate(masks.layers):
        axes = sheet.panel(
            f"{_after(number)}: {_named(before.classes[query], classes)}"
        )
        mask = before.masks[query].sigmoid().numpy()
        image = show_map(axes, subject, output.picture, mask, (0.0, 1.0))
        mark_place(axes, subject)
        height, width = layer.shape
        share = float(layer.region[query].float().mean())
        rule = "empty: everywhere" if layer.empty[query] else f"{share:.0%} of"
        axes = sheet.panel(
            f"layer {number} may look at   ·   {rule} {height} x {width}"
        )
        region = np.where(layer.region[query].numpy(), 1.0, np.nan)
        show_map(axes, subject, output.picture, region, (0.0, 1.5), ramp="Blues")
        mark_place(axes, subject)
        attention = layer.attention[:, query].mean(0)
        top = float(attention[layer.region[query]].quantile(_TOP))
        seen = attention / max(top, 1e-12)
        axes = sheet.panel(
            f"layer {number} looks   ·   most {float(attention.max()):.3f}"
        )
        values = np.where(layer.region[query].numpy(), seen.numpy(), np.nan)
        show_map(axes, subject, output.picture, values, (0.0, 1.0))
        mark_place(axes, subject)
        before = layer.after
    axes = sheet.panel(f"answer: {_named(before.classes[query], classes)}")
    mask = before.masks[query].sigmoid().numpy()
    show_map(axes, subject, output.picture, mask, (0.0, 1.0))
    mark_place(axes, subject)
    sheet.bar(
        image,
        "sigmoid of the mask, 0 to 1; attention, mean of heads, over its 99th "
        "percentile; blue: may look",
    )
    sheet.save(output.path(f"query-{query}.png"))


def _named(probabilities: torch.Tensor, classes: tuple[ClassInfo, ...]) -> str:
    """Say which class a query means, and how surely."""
    best = int(probabilities.argmax())
    name = classes[best].name if best < len(classes) else "nothing"
    return f"{name} {float(probabilities[best]):.0%}"


def _after(number: int) -> str:
    return "before all layers" if number == 0 else f"after layer {number - 1}"


def _coarse(
    where: npt.NDArray[np.bool_], shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Return which cells of a tile hold a wanted pixel."""
    rows, cols = np.nonzero(where)
    coarse = np.zeros(shape, np.bool_)
    coarse[rows * shape[0] // len(where), cols * shape[1] // len(where)] = True
    return coarse
