"""Attention of a vision transformer: what each layer and head looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from geoseg.errors import ExplainError
from geoseg.explain.capture import Call, record
from geoseg.explain.rollout import Fusion, Rollout
from geoseg.explain.vit import CLS, Tokens, ViT, attention_weights_given, find_vit

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Attention:
    """Where one token looks, in every layer and head."""

    tokens: Tokens
    """Which token is what."""
    query: int
    """The token that looks."""
    weights: Tensor
    """Its attention to all tokens, shape (layers, M, N), float32, rows sum to 1."""
    rollout: Tensor
    """The same through all layers together, shape (N,), float32, sums to 1."""

    def map(self, layer: int | None = None, head: int | None = None) -> Tensor:
        """Return the attention to patches.

        Args:
            layer: Zero-based layer; None gives the rollout over all of them.
            head: Zero-based head; None averages them.

        Returns:
            Shape (rows, columns) of patches; what is missing to 1 goes to the tokens
            that are no patches.

        Raises:
            ExplainError: There is no such layer or head.
        """
        row = self._row(layer, head)
        return row[len(self.tokens.extra) :].view(self.tokens.shape)

    def shares(self, layer: int | None = None, head: int | None = None) -> Tensor:
        """Return the attention to each token that is no patch, shape (extra,)."""
        return self._row(layer, head)[: len(self.tokens.extra)]

    def _row(self, layer: int | None, head: int | None) -> Tensor:
        if layer is None:
            return self.rollout
        layers, heads = self.weights.shape[:2]
        check_index("layer", layer, layers)
        if head is None:
            return self.weights[layer].mean(dim=0)
        check_index("head", head, heads)
        return self.weights[layer, head]


def explain_attention(
    model: nn.Module,
    images: Tensor,
    query: str | tuple[int, int] = CLS,
    *,
    fusion: Fusion = "mean",
    discard: float = 0.0,
) -> Attention:
    """Run a model and return where one token looks.

    Only that token's rows and the rollout's product are kept: all matrices of a ViT-L
    at 720 pixels would take 6 GB.

    Args:
        model: A ViT of Hugging Face or timm, or a model with one inside; eval mode.
        images: One normalised image, shape (1, 3, H, W).
        query: Name of a token, as "cls" or "register 1", or row and column of a patch.
        fusion: How rollout makes heads one.
        discard: Part of the weights that rollout counts as 0.

    Raises:
        ExplainError: The model gives no such attention, or has no such token.
    """
    vit = find_vit(model)
    tokens = vit.tokens(images.shape[2], images.shape[3])
    index = tokens.index(query) if isinstance(query, str) else tokens.patch(*query)
    has_cls = tokens.extra[:1] == (CLS,)
    rollout = Rollout(fusion, discard, keep_first=has_cls)

    def keep(_: int, weights: Tensor) -> Tensor:
        rollout.add(weights)
        return weights[:, index].clone()

    rows = capture_attention(model, images, keep, vit)
    return Attention(tokens, index, torch.stack(rows), rollout.weights[index])


def all_weights(_: int, weights: Tensor) -> Tensor:
    """Keep all of a layer's weights: for models and images that are small."""
    return weights


@torch.inference_mode()
def capture_attention(
    model: nn.Module,
    images: Tensor,
    keep: Callable[[int, Tensor], Kept],
    vit: ViT | None = None,
) -> list[Kept]:
    """Run a model and look at each layer's attention weights as they come.

    Args:
        model: A model in eval mode, run as a whole: what its attention sees is what it
            sees when scenes are segmented.
        images: One normalised image, shape (1, 3, H, W).
        keep: Gets each layer's number and weights, shape (M, N, N), float32, and
            returns what is to be kept of them. Tokens that a model puts in front of
            the image's in its last layers (the queries of EoMT) are left out.
        vit: Its transformer, if it is known.

    Returns:
        What was kept, by layer.

    Raises:
        ExplainError: An attention gives no weights, or none over the whole image.
    """
    vit = vit or find_vit(model)
    tokens = vit.tokens(images.shape[2], images.shape[3])

    def look(name: str, call: Call) -> Kept:
        output = call.output
        weights = output[1] if isinstance(output, tuple) else output
        return keep(int(name), _checked(weights, name, vit, tokens))

    with attention_weights_given(model), record(vit.listened, look) as recording:
        # A ViT alone must be told to take images of other sizes than its own.
        _ = vit.run(images) if model is vit.module else model(images)
    layers = [recording.calls(name) for name in vit.listened]
    # A model may leave out layers whose output it does not use.
    return [kept for calls in layers for kept in calls]


def _checked(weights: object, name: str, vit: ViT, tokens: Tokens) -> Tensor:
    """Return weights (M, N, N) of one image, or say why they are none."""
    owner = type(vit.module).__name__
    if not isinstance(weights, Tensor) or weights.ndim != 4:
        raise ExplainError(
            f"layer {name} of {owner} gives no attention weights, not even without its "
            "fused kernel; explain a model whose attention is that of transformers or "
            "timm"
        )
    batch, _, rows, columns = weights.shape
    count = len(tokens)
    if batch != 1 or rows != columns or rows < count:
        raise ExplainError(
            f"layer {name} of {owner} attends within windows of {rows} tokens, not "
            f"over the {count} of the image; explain a plain ViT, as DINOv3 or DINOv2"
        )
    return weights[0, :, -count:, -count:].to(torch.float32)


def check_index(what: str, index: int, count: int) -> None:
    """Refuse a number that is none of `count` things.

    Raises:
        ExplainError: It is none; lists those that are.
    """
    if not 0 <= index < count:
        valid = "0" if count == 1 else f"0 to {count - 1}"
        raise ExplainError(f"there is no {what} {index}; valid is {valid}")
