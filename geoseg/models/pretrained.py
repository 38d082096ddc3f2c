"""Pretrained weights for a freshly built ViT, from a checkpoint of its own library."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

from geoseg.errors import ConfigError, ModelError
from geoseg.models.backbone import ViTAdapterBackbone
from geoseg.models.configuration import TIMM
from geoseg.models.hub import fetch, quiet
from geoseg.models.presets import PRETRAINED

_ARCHITECTURE = (
    "hidden_size",
    "intermediate_size",
    "mlp_ratio",
    "num_hidden_layers",
    "num_attention_heads",
    "num_register_tokens",
    "num_channels",
    "patch_size",
    "hidden_act",
    "use_gated_mlp",
    "use_swiglu_ffn",
    "layer_norm_eps",
    "rope_theta",
    "qkv_bias",
    "query_bias",
    "key_bias",
    "value_bias",
    "proj_bias",
    "mlp_bias",
)
"""What changes a ViT's numbers; two that agree in these take each other's weights."""

_UNUSED = {"dynamic_img_size", "img_size", "in_chans", "num_classes", "global_pool"}
"""Arguments of timm's models that change no number here; of shapes, loading tells."""


def load_backbone(encoder: nn.Module, name: str) -> None:
    """Load pretrained weights into the ViT of a freshly built ViT-Adapter.

    Args:
        encoder: The backbone of a segmentation model.
        name: Folder or hub id of a checkpoint of the same network in safetensors:
            transformers' DINOv3, DINOv2 or ViT, or timm's.

    Raises:
        ConfigError: The backbone has no ViT, or one of another architecture.
        ModelError: There is no such checkpoint, or it is not a whole one of that kind.
    """
    if not isinstance(encoder, ViTAdapterBackbone):
        raise ConfigError(
            f"model.{PRETRAINED} needs a backbone of the type vit_adapter, not "
            f"{type(encoder).__name__}"
        )
    folder = Path(name)
    if not folder.is_dir():
        folder = fetch(name, ["*.json", "*.safetensors"])
    vit: PreTrainedModel = encoder.backbone
    _check_architecture(vit.config, _read_config(folder, vit.config), name)
    vit.load_state_dict(_load(vit, folder))


def _read_config(folder: Path, ours: Any) -> PreTrainedConfig:  # noqa: ANN401
    kind = ours.model_type
    try:
        with quiet():
            content, _ = PreTrainedConfig.get_config_dict(folder)
            if content.get("model_type") != kind:
                raise ValueError(f"it is a '{content.get('model_type')}'")
            config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(content)
            return config
    except Exception as error:  # a damaged folder breaks transformers in many ways
        raise _not_one(folder, kind, error) from error


def _check_architecture(ours: Any, theirs: Any, name: str) -> None:  # noqa: ANN401
    keys = _keys(ours.model_type)
    pairs = [(k, getattr(ours, k, None), getattr(theirs, k, None)) for k in keys]
    pairs.append(("model_args", _arguments(ours), _arguments(theirs)))
    for key, wanted, found in pairs:
        if wanted != found:
            raise ConfigError(
                f"model.backbone_config.backbone_config.{key} is {wanted}, but {name} "
                f"has {found}; describe the same network in the preset"
            )


def _keys(kind: str) -> tuple[str, ...]:
    if kind == TIMM:
        return ("architecture",)
    # Positions that are learned are learned for one grid.
    return _ARCHITECTURE if kind == "dinov3_vit" else (*_ARCHITECTURE, "image_size")


def _arguments(config: Any) -> dict[str, Any]:  # noqa: ANN401
    arguments = getattr(config, "model_args", None) or {}
    return {key: value for key, value in arguments.items() if key not in _UNUSED}


def _load(vit: PreTrainedModel, folder: Path) -> dict[str, torch.Tensor]:
    """Read the weights that `vit` has: no head, and no pooler where it has none."""
    kind: Any = type(vit)
    try:
        with quiet():
            loaded, report = kind.from_pretrained(
                folder,
                config=copy.deepcopy(vit.config),
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # a damaged folder breaks transformers in many ways
        raise _not_one(folder, vit.config.model_type, error) from error
    wanted = vit.state_dict().keys()
    missing = wanted & set(report["missing_keys"])
    if missing:
        raise ModelError(
            f"{folder} lacks weights of {kind.__name__}, {min(missing)} first; it is "
            "incomplete, or describes its network otherwise than the preset"
        )
    weights = loaded.state_dict()
    return {name: weights[name] for name in wanted}


def _not_one(folder: Path, kind: str, error: Exception) -> ModelError:
    return ModelError(
        f"{folder} is not a {kind} checkpoint in safetensors, as this backbone needs: "
        f"{' '.join(str(error).split())[:300]}"
    )
