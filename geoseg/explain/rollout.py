"""Attention rollout: how attention adds up over layers.

Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020. Rounding
apart, it is the product of all layers' matrices, each with the identity added for the
residual connection and its rows normalised.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geoseg.errors import ExplainError

Fusion = Literal["mean", "max", "min"]
"""How the heads of a layer become one matrix."""


class Rollout:
    """Multiplies the layers' attention, one after the other as they come.

    Args:
        fusion: How heads become one.
        discard: Part of a layer's fused weights, the smallest, that count as 0, in
            0..1 without 1. Attention to the first token is kept if that is [CLS].
        keep_first: Whether the first token is [CLS].

    Raises:
        ExplainError: `discard` is not in its range.
    """

    def __init__(
        self, fusion: Fusion = "mean", discard: float = 0.0, *, keep_first: bool = True
    ) -> None:
        if not 0 <= discard < 1:
            raise ExplainError(
                f"a discard ratio of {discard} is none; give 0 or more and less than 1"
            )
        self.fusion, self.discard, self.keep_first = fusion, discard, keep_first
        self._product: Tensor | None = None

    def add(self, weights: Tensor) -> None:
        """Add the next layer.

        Args:
            weights: Attention of each head, shape (M, N, N); rows are queries.

        Raises:
            ExplainError: It has another number of tokens than the layers before.
        """
        step = self._step(weights.to(torch.float32))
        if self._product is None:
            self._product = step
        elif len(step) != len(self._product):
            raise ExplainError(
                f"a layer has {len(step)} tokens and those before have "
                f"{len(self._product)}; rollout takes layers of one number of tokens"
            )
        else:
            self._product = step @ self._product

    @property
    def weights(self) -> Tensor:
        """How much of each token's answer comes from each input token.

        Shape (N, N), float32, rows sum to 1.
        """
        assert self._product is not None, "add a layer first"
        return self._product

    def _step(self, weights: Tensor) -> Tensor:
        fused = _fuse(weights, self.fusion)
        dropped = int(self.discard * fused.numel())
        if dropped:
            fused = fused.clone()
            first = fused[:, 0].clone()
            smallest = fused.flatten().topk(dropped, largest=False, sorted=False)
            fused.view(-1)[smallest.indices] = 0
            if self.keep_first:
                fused[:, 0] = first
        fused = fused + torch.eye(len(fused), device=fused.device)
        return fused / fused.sum(dim=-1, keepdim=True)


def _fuse(weights: Tensor, fusion: Fusion) -> Tensor:
    if fusion == "mean":
        return weights.mean(dim=0)
    return weights.amax(dim=0) if fusion == "max" else weights.amin(dim=0)
