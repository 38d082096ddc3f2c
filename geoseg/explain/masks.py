"""Mask2Former's queries: their masks, where they may look, and what they contribute.

Cheng et al., "Masked-attention Mask Transformer for Universal Image Segmentation", CVPR
2022. In each layer of the decoder a query attends only where its own mask of the layer
before is above one half; where that is nowhere, it attends everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.errors import ExplainError
from geoseg.explain.attention import check_index
from geoseg.explain.capture import record, whole_call, with_arguments
from geoseg.models import query_logits


@dataclass(frozen=True)
class Prediction:
    """What the queries predict after a layer; the first is that of no layer at all."""

    masks: Tensor
    """Logits, shape (Q, h, w), float32, h and w at the model's stride."""
    classes: Tensor
    """Probability of each class, shape (Q, K + 1), float32; the last means "none"."""


@dataclass(frozen=True)
class DecoderLayer:
    """One layer of the decoder."""

    shape: tuple[int, int]
    """Height and width of the level that it looks at."""
    region: Tensor
    """Where each query may look, shape (Q, height, width), bool."""
    empty: Tensor
    """Queries whose mask was empty, so that they may look everywhere, (Q,), bool."""
    attention: Tensor
    """Where they do look, shape (M, Q, height, width), float32; sums to 1 over the
    level and is exactly 0 outside of the region."""
    after: Prediction
    """What they predict then."""


@dataclass(frozen=True)
class QueryMasks:
    """All that the decoder did with one image."""

    before: Prediction
    """What the learned queries predict before they have seen the image."""
    layers: tuple[DecoderLayer, ...]
    """Layers of the decoder, in order."""

    @property
    def final(self) -> Prediction:
        """What the model answers."""
        return self.layers[-1].after if self.layers else self.before

    def contributions(self, index: int) -> Tensor:
        """Return what each query adds to the score of a class (contract C2).

        Args:
            index: The class, by the order of the logits.

        Returns:
            softmax(class)_qk * sigmoid(mask)_q, shape (Q, h, w), float32; the sum over
            queries is the class's score.

        Raises:
            ExplainError: There is no such class.
        """
        final = self.final
        check_index("class", index, final.classes.shape[1] - 1)
        return final.classes[:, index, None, None] * final.masks.sigmoid()

    def class_logits(self) -> Tensor:
        """Return the class logits that the pipeline works with, shape (K, h, w)."""
        final = self.final
        return query_logits(final.classes.log()[None], final.masks[None])[0]


@dataclass(frozen=True, slots=True)
class Rank:
    """A query's place in the order of those that make a class."""

    query: int
    """Number of the query."""
    amount: float
    """What it adds to the class's score, the mean over the pixels asked for."""
    share: float
    """Its part of the whole score, 0..1."""


def rank_queries(contributions: Tensor, where: Tensor | None = None) -> list[Rank]:
    """Order queries by what they add to a class, the largest first.

    Args:
        contributions: Of `QueryMasks.contributions`, shape (Q, h, w).
        where: Pixels that count, shape (h, w), bool; None for all.
    """
    flat = contributions.flatten(1)
    if where is not None:
        flat = flat[:, where.flatten()]
    amounts = flat.mean(dim=1, dtype=torch.float64)
    total = float(amounts.sum())
    order = amounts.argsort(descending=True, stable=True).tolist()
    return [
        Rank(query, float(amounts[query]), float(amounts[query]) / total)
        for query in order
    ]


@torch.inference_mode()
def capture_masks(model: nn.Module, images: Tensor) -> QueryMasks:
    """Run a Mask2Former and return what its decoder did.

    Args:
        model: In eval mode.
        images: One normalised image, shape (1, 3, H, W).

    Raises:
        ExplainError: The model is no Mask2Former.
    """
    if not isinstance(model, Mask2FormerForUniversalSegmentation):
        raise ExplainError(
            f"a {type(model).__name__} has no masked attention; masks are explained of "
            "Mask2Former models"
        )
    decoder: Any = model.model.transformer_module.decoder
    crosses = [layer.cross_attn for layer in decoder.layers]
    names = {f"layer {number}": cross for number, cross in enumerate(crosses)}
    modules = {"predictor": decoder.mask_predictor, "decoder": decoder, **names}
    with (
        # Its weights are averaged over the heads otherwise.
        with_arguments(crosses, need_weights=True, average_attn_weights=False),
        record(modules, whole_call) as recording,
    ):
        model(images)
        # Each prediction's classes, of the states that its masks are made of.
        predicted = recording.calls("predictor")
        logits = [model.class_predictor(c.arguments["outputs"]) for c in predicted]
    predictions = [
        Prediction(
            masks=call.output[0][0].float(),
            classes=_only_image(classes.transpose(0, 1)).softmax(-1),
        )
        for call, classes in zip(predicted, logits, strict=True)
    ]
    shapes = recording.only("decoder").arguments["feature_size_list"]
    layers = []
    for number, name in enumerate(names):
        call = recording.only(name)
        height, width = (int(side) for side in shapes[number % len(shapes)])
        heads = model.config.num_attention_heads
        # Of all heads the same; True hides a cell.
        hidden = call.arguments["attn_mask"][::heads][0]
        wanted = predicted[number].output[1][::heads][0]
        layers.append(
            DecoderLayer(
                shape=(height, width),
                region=~hidden.unflatten(1, (height, width)),
                empty=wanted.all(dim=1),
                attention=_only_image(call.output[1]).unflatten(2, (height, width)),
                after=predictions[number + 1],
            )
        )
    return QueryMasks(predictions[0], tuple(layers))


def _only_image(tensor: Tensor) -> Tensor:
    assert len(tensor) == 1, "one image at a time"
    return tensor[0].to(torch.float32)
