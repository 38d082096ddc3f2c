"""The ViTs that the adapter reads, run block by block.

Each is the library's own model under its own parameter names, with what the adapter has
to know on top: which tokens are patches, and how a forward pass begins and ends. DINOv3
rotates its queries and keys; ViT and DINOv2 have learned position embeddings, which
transformers interpolates bicubically to the grid at hand, without antialiasing (timm's
are in `timm_encoder.py`, with it).
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from torch import Tensor, nn
from transformers import (
    Dinov2Model,
    Dinov2WithRegistersModel,
    DINOv3ViTModel,
    ViTConfig,
    ViTModel,
)

from geoseg.models.configuration import TIMM

PATCH_SIZES = (8, 14, 16)
"""Patches that the adapter's strides 4 to 32 were tried with, pixels."""


class Encoder(Protocol):
    """A ViT whose tokens are [CLS, registers, patches]; a module, too."""

    config: Any

    @property
    def width(self) -> int:
        """Channels of a token, D."""

    @property
    def patch(self) -> int:
        """Side of a patch, pixels; whatever its configuration holds."""

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches."""

    @property
    def blocks(self) -> nn.ModuleList:
        """Transformer blocks, in order."""

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Tokens that enter the first block, and what each block is called with.

        Args:
            pixel_values: Normalised image, (B, 3, H, W), multiples of the patch size.

        Returns:
            Tokens (B, prefix + h * w, D), patches row by row; keyword arguments.
        """

    def final_norm(self, tokens: Tensor) -> Tensor:
        """Apply the norm that follows the last block, (B, N, D) -> (B, N, D)."""


class _HuggingFace:
    """What a configuration of transformers' tells."""

    config: Any

    @property
    def width(self) -> int:
        return int(self.config.hidden_size)

    @property
    def patch(self) -> int:
        return cast(int, self.config.patch_size)

    @property
    def num_prefix_tokens(self) -> int:
        return 1 + getattr(self.config, "num_register_tokens", 0)


class DINOv3Encoder(_HuggingFace, DINOv3ViTModel):
    """DINOv3: rotary positions, made for the grid at hand."""

    @property
    def blocks(self) -> nn.ModuleList:
        """See `Encoder`."""
        return cast(nn.ModuleList, self.model.layer)

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """See `Encoder`."""
        rope = self.rope_embeddings(pixel_values)
        return self.embeddings(pixel_values), {"position_embeddings": rope}

    def final_norm(self, tokens: Tensor) -> Tensor:
        """See `Encoder`."""
        return cast(Tensor, self.norm(tokens))


class ViTEncoder(_HuggingFace, ViTModel):
    """ViT, without the pooler."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config, add_pooling_layer=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """See `Encoder`."""
        return self.layers

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """See `Encoder`."""
        return self.embeddings(pixel_values, interpolate_pos_encoding=True), {}

    def final_norm(self, tokens: Tensor) -> Tensor:
        """See `Encoder`."""
        return cast(Tensor, self.layernorm(tokens))


class _DINOv2(_HuggingFace):
    encoder: Any
    embeddings: Any
    layernorm: Any

    @property
    def blocks(self) -> nn.ModuleList:
        """See `Encoder`."""
        return cast(nn.ModuleList, self.encoder.layer)

    def begin(self, pixel_values: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """See `Encoder`."""
        return self.embeddings(pixel_values), {}

    def final_norm(self, tokens: Tensor) -> Tensor:
        """See `Encoder`."""
        return cast(Tensor, self.layernorm(tokens))


class DINOv2Encoder(_DINOv2, Dinov2Model):
    """DINOv2, whose published patches are of 14 pixels."""


class DINOv2RegistersEncoder(_DINOv2, Dinov2WithRegistersModel):
    """DINOv2 with registers; transformers antialiases this one's positions."""


_ENCODERS: dict[str, type[nn.Module]] = {
    "dinov3_vit": DINOv3Encoder,
    "vit": ViTEncoder,
    "dinov2": DINOv2Encoder,
    "dinov2_with_registers": DINOv2RegistersEncoder,
}


def build_encoder(config: Any) -> Encoder:  # noqa: ANN401 - any model's
    """Build the ViT that a configuration of transformers' describes, random weights.

    Raises:
        ModelError: It is timm's, and timm is not installed.
        ValueError: It is of no kind known here, or its patches do not fit the adapter.
    """
    kind = getattr(config, "model_type", config)
    if kind == TIMM:
        # Here: its import takes a second, and few models need it.
        from geoseg.models.timm_encoder import TimmEncoder

        encoder: Encoder = TimmEncoder(config)
    elif kind in _ENCODERS:
        encoder = cast(Encoder, _ENCODERS[str(kind)](config))
    else:
        known = ", ".join(_ENCODERS)
        raise ValueError(f"backbone_config must be a {known} or {TIMM}, not {kind}")
    if encoder.patch not in PATCH_SIZES:
        raise ValueError(
            f"patch_size {encoder.patch} does not fit the adapter, whose finest level "
            f"has a cell of 4 pixels; use a ViT with one of {PATCH_SIZES}"
        )
    return encoder
