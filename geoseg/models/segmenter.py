"""Mask2Former on any backbone: the op put in place, queries made class logits."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as HFAttention,
)

from geoseg.errors import ConfigError, ModelError
from geoseg.models.hub import quiet
from geoseg.models.presets import HEAD, PRETRAINED, read_preset
from geoseg.models.pretrained import load_backbone
from geoseg.models.warm_start import load_head
from geoseg.ops import ms_deform_attn_fused

PROBABILITY_FLOOR = 1e-8
"""Least class score before the logarithm: finite where no query answers."""


def build_mask2former(config: Mapping[str, Any]) -> Mask2FormerForUniversalSegmentation:
    """Build a Mask2Former from a preset's dictionary.

    Args:
        config: Keyword arguments of `Mask2FormerConfig`; `backbone_config` holds those
            of the backbone with its `model_type`. `backbone` may name the ViT instead,
            `timm:ARCHITECTURE`. `pretrained_backbone` may name a checkpoint, a folder
            or a hub id, whose weights the ViT takes, and `pretrained_head` that of a
            Mask2Former whose head this one starts from. Other weights are random.

    Returns:
        The model, its pixel decoder running geoseg's deformable attention.

    Raises:
        ConfigError: The preset has an unknown key or a value that does not fit.
        ModelError: Pretrained weights cannot be had.
    """
    preset = dict(config)
    pretrained, head = preset.pop(PRETRAINED, None), preset.pop(HEAD, None)
    hf_config = read_preset(preset)
    with warnings.catch_warnings(), quiet():
        # HF asks for power-of-two heads, which only its CUDA kernel cares about.
        warnings.filterwarnings("ignore", message="You'd better set embed_dim")
        try:
            model = Mask2FormerForUniversalSegmentation(hf_config)
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error
    if pretrained is not None:
        load_backbone(model.model.pixel_level_module.encoder, pretrained)
    if head is not None:
        load_head(model, head)
    return use_geoseg_ops(model)


def use_geoseg_ops(
    model: Mask2FormerForUniversalSegmentation,
) -> Mask2FormerForUniversalSegmentation:
    """Replace the pixel decoder's attention by geoseg's op, on this instance only."""
    for layer in model.model.pixel_level_module.decoder.encoder.layers:
        layer.self_attn = PixelDecoderAttention.adopt(layer.self_attn)
    return model


class PixelDecoderAttention(HFAttention):
    """HF's deformable attention with its own four linear layers and geoseg's op.

    Queries are the cells of the levels that they sample, all of them real: HF's pixel
    decoder pads nothing. So its masks hide nothing, and reference points need not be
    given.
    """

    @classmethod
    def adopt(cls, module: HFAttention) -> PixelDecoderAttention:
        """Take over the layers of `module`, whose parameters stay where they are."""
        adopted = cls.__new__(cls)
        torch.nn.Module.__init__(adopted)
        adopted.__dict__.update(module.__dict__)
        return adopted

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        position_embeddings: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes_list: list[tuple[int, int]] | None = None,
        level_start_index: Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as HF's module does; arguments and results are HF's.

        Returns:
            The output (B, Q, C) and, if they are asked for, the attention weights
            (B, Q, M, L, P).
        """
        assert encoder_hidden_states is not None
        assert spatial_shapes_list is not None
        if position_embeddings is not None:
            hidden_states = hidden_states + position_embeddings
        points = (*hidden_states.shape[:2], self.n_heads, self.n_levels, self.n_points)
        value = self.value_proj(encoder_hidden_states)
        logits = self.attention_weights(hidden_states)
        attended = ms_deform_attn_fused(
            value.unflatten(2, (self.n_heads, -1)),
            spatial_shapes_list,
            spatial_shapes_list,
            self.sampling_offsets(hidden_states).view(*points, 2),
            logits.view(points),
        )
        weights = None
        if output_attentions:
            weights = logits.view(*points[:3], -1).softmax(-1).view(points)
        return self.output_proj(attended), weights


def query_logits(class_queries_logits: Tensor, masks_queries_logits: Tensor) -> Tensor:
    """Turn a query model's answer into class logits (contract C2).

    logits_k = log(max(sum_q softmax(class)_qk * sigmoid(mask)_q, 1e-8)), normalised
    over the classes, in float32: never infinite, never NaN for finite input.

    Args:
        class_queries_logits: (B, Q, K + 1), the last class means "nothing".
        masks_queries_logits: (B, Q, h, w).

    Returns:
        Log-probabilities, (B, K, h, w), float32.
    """
    with torch.autocast(class_queries_logits.device.type, enabled=False):
        classes = class_queries_logits.float().softmax(-1)[..., :-1]
        masks = masks_queries_logits.float().sigmoid()
        scores = torch.einsum("bqk,bqhw->bkhw", classes, masks)
        log_scores = scores.clamp_min(PROBABILITY_FLOOR).log()
        return log_scores - log_scores.logsumexp(dim=1, keepdim=True)


def class_logits(output: object) -> Tensor:
    """Class logits (B, K, h, w) of any HF segmentation output, semantic or universal.

    Raises:
        ModelError: The output is of neither kind.
    """
    classes = getattr(output, "class_queries_logits", None)
    masks = getattr(output, "masks_queries_logits", None)
    if isinstance(classes, Tensor) and isinstance(masks, Tensor):
        return query_logits(classes, masks)
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.ndim == 4:
        return logits.float()
    raise ModelError(
        f"a {type(output).__name__} holds no per-pixel class logits; use a semantic or "
        "universal segmentation checkpoint"
    )
