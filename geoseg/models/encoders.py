"""The ViTs that the adapter reads, run block by block.

Each stays the library's own model, so that its checkpoints load and save as ever; a
view says which of its tokens are patches, and how a forward pass begins and ends.
DINOv3 rotates its queries and keys; ViT and DINOv2 have learned position embeddings,
which transformers interpolates bicubically to the grid at hand, without antialiasing
(timm's are in `timm_encoder.py`, with it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from torch import Tensor, nn
from transformers import (
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    PreTrainedModel,
    ViTModel,
)

from geoseg.models.configuration import TIMM

PATCH_SIZES = (8, 14, 16)
"""Patches that the adapter's strides 4 to 32 were tried with, pixels."""


class Encoder(ABC):
    """A view of a ViT whose tokens are [CLS, registers, patches].

    Made when it is used and not kept: a copy of the model needs a view of its own.

    Args:
        model: The library's model.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - attributes differ by kind
        self.model = model

    @property
    def width(self) -> int:
        """Channels of a token, D."""
        return cast(int, self.model.config.hidden_size)

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        return cast(int, self.model.config.patch_size)

    @property
    def channels(self) -> int:
        """Bands of the image, K."""
        return cast(int, self.model.config.num_channels)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return 1 + getattr(self.model.config, "num_register_tokens", 0)

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """Transformer blocks, in order."""

    @abstractmethod
    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Make the tokens that enter the first block.

        Args:
            pixel_values: Normalised image, (B, K, H, W), multiples of the patch size.

        Returns:
            Tokens (B, prefix + h * w, D), patches row by row, and the keyword arguments
            that each block is called with.
        """

    @abstractmethod
    def final_norm(self, tokens: Tensor) -> Tensor:
        """Apply the norm that follows the last block, (B, N, D) -> (B, N, D)."""


class _DINOv3(Encoder):
    @property
    def blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.model.model.layer)

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        rope = self.model.rope_embeddings(pixel_values)
        return self.model.embeddings(pixel_values), {"position_embeddings": rope}

    def final_norm(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.model.norm(tokens))


class _ViT(Encoder):
    @property
    def blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.model.layers)

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return self.model.embeddings(pixel_values, interpolate_pos_encoding=True), {}

    def final_norm(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.model.layernorm(tokens))


class _DINOv2(Encoder):
    """DINOv2; of the variant with registers, transformers antialiases positions."""

    @property
    def blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.model.encoder.layer)

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return self.model.embeddings(pixel_values), {}

    def final_norm(self, tokens: Tensor) -> Tensor:
        return cast(Tensor, self.model.layernorm(tokens))


_VIEWS: dict[str, type[Encoder]] = {
    "dinov3_vit": _DINOv3,
    "vit": _ViT,
    "dinov2": _DINOv2,
    "dinov2_with_registers": _DINOv2,
}

_MODELS: dict[str, type[PreTrainedModel]] = {
    "dinov3_vit": DINOv3ViTModel,
    "dinov2": Dinov2Model,
    "dinov2_with_registers": Dinov2WithRegistersModel,
}


def build_vit(config: Any) -> PreTrainedModel:  # noqa: ANN401 - any model's
    """Build the ViT that a configuration of transformers' describes, random weights.

    Raises:
        ModelError: It is timm's, and timm is not installed.
        ValueError: It is of no kind known here, or its patches do not fit the adapter.
    """
    kind = getattr(config, "model_type", config)
    if kind == TIMM:
        # Here: its import takes a second, and few models need it.
        from geoseg.models.timm_encoder import build_timm

        model: PreTrainedModel = build_timm(config)
    elif kind == "vit":
        model = ViTModel(config, add_pooling_layer=False)
    elif kind in _MODELS:
        model = _MODELS[kind](config)
    else:
        known = ", ".join(_VIEWS)
        raise ValueError(f"backbone_config must be a {known} or {TIMM}, not {kind}")
    patch = view(model).patch
    if patch not in PATCH_SIZES:
        raise ValueError(
            f"patch_size {patch} does not fit the adapter, whose finest level has a "
            f"cell of 4 pixels; use a ViT with one of {PATCH_SIZES}"
        )
    return model


def view(model: PreTrainedModel) -> Encoder:
    """View a model of `build_vit` as an encoder."""
    kind = model.config.model_type
    if kind == TIMM:
        from geoseg.models.timm_encoder import TimmEncoder

        return TimmEncoder(model)
    return _VIEWS[kind](model)
