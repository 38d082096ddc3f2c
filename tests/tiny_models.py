"""Models of our architecture that are small enough for tests, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.models import ViTAdapterBackbone, ViTAdapterConfig, build_mask2former
from geoseg.models.export import save_model
from geoseg.types import ClassInfo

M = TypeVar("M", bound=nn.Module)

MEAN, STD = (0.430, 0.411, 0.296), (0.213, 0.156, 0.143)

CLASSES = (
    ClassInfo(3, "water", (0, 0, 255)),
    ClassInfo(1, "land", (128, 128, 0)),
    ClassInfo(7, "road", (255, 255, 0)),
    ClassInfo(254, "roof", (255, 0, 0)),
)
"""Ids that are neither dense nor in the order of the logits."""


def vit_keys(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - values of all kinds
    """Return keys of a DINOv3 with four blocks."""
    return {
        "model_type": "dinov3_vit",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_register_tokens": 4,
        "patch_size": 16,
    } | changes


def adapter_keys(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return keys of a ViT-Adapter on that DINOv3."""
    return {
        "model_type": "vit_adapter",
        "backbone_config": vit_keys(),
        "interaction_indexes": [0, 1, 2, 3],
        "conv_inplane": 8,
        "deform_num_heads": 4,
    } | changes


def preset(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return keys of a Mask2Former on that ViT-Adapter."""
    return {
        "backbone_config": adapter_keys(),
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "encoder_feedforward_dim": 48,
        "dim_feedforward": 48,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_attention_heads": 2,
        "num_queries": 12,
        "num_labels": len(CLASSES),
        "train_num_points": 64,
    } | changes


def adapter(seed: int = 0, **changes: Any) -> ViTAdapterBackbone:  # noqa: ANN401
    """Build a ViT-Adapter in eval mode, none of whose weights is zero or one."""
    keys = adapter_keys(**changes)
    del keys["model_type"]
    return randomized(ViTAdapterBackbone(ViTAdapterConfig(**keys)), seed)


def segmenter(
    seed: int = 3,
    **changes: Any,  # noqa: ANN401
) -> Mask2FormerForUniversalSegmentation:
    """Build a Mask2Former in eval mode that finds many classes in any image."""
    model = randomized(build_mask2former(preset(**changes)), seed)
    encoder: Any = model.model.pixel_level_module.encoder
    decoder: Any = model.model.transformer_module
    states: list[torch.Tensor] = []
    hook = model.class_predictor.register_forward_pre_hook(
        lambda _, arguments: states.append(arguments[0])
    )
    with torch.no_grad():
        # Random queries answer all alike: let each be itself rather than what it sees.
        decoder.queries_features.weight.mul_(10)
        for weight in decoder.decoder.layers.parameters():
            weight.mul_(0.3)
        for name, weight in decoder.decoder.mask_predictor.named_parameters():
            weight.mul_(1.3 if "weight" in name else 1)
        side = 64 // encoder.patch_size * encoder.patch_size
        model(pixel_values=torch.zeros(1, 3, side, side))
        hook.remove()
        # Query q is sure of class q, and every fifth one of none.
        queries, classes = states[-1].flatten(0, -2), model.class_predictor.out_features
        wanted = 4 * torch.eye(classes)[torch.arange(len(queries)) % classes]
        model.class_predictor.weight.copy_((torch.linalg.pinv(queries) @ wanted).T)
        model.class_predictor.bias.zero_()
    return model


def randomized(model: M, seed: int) -> M:
    """Draw every weight anew, running statistics too, and set eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            spread = 0.3 if value.ndim < 2 else 1.0 / value[0].numel() ** 0.5
            center = 1.0 if value.ndim < 2 and "norm" in name else 0.0
            value.copy_(center + spread * torch.randn(value.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()


def save_segmenter(folder: Path, *, tile_size: int = 64, seed: int = 3) -> Path:
    """Write such a Mask2Former as a model folder."""
    return save_model(
        segmenter(seed),
        folder,
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        tile_size=tile_size,
        resolution=0.5,
    )
