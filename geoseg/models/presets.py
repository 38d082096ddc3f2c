"""Presets: the keys that describe a model before it has weights, and its backbone's."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    Mask2FormerConfig,
    PreTrainedConfig,
)

from geoseg.errors import ConfigError, ModelError
from geoseg.models.backbone import ViTAdapterBackbone
from geoseg.models.hub import fetch, quiet

DECLARATION = "geoseg"
"""Key under which a configuration declares what Hugging Face has no words for."""

PRETRAINED = "pretrained_backbone"
"""Key of a preset that names the weights of its ViT: a folder or a hub id."""

_NO_FIELDS = {
    "model_type",
    "num_labels",
    "out_features",
    "out_indices",
    DECLARATION,
}

_ARCHITECTURE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_register_tokens",
    "num_channels",
    "patch_size",
    "hidden_act",
    "use_gated_mlp",
    "layer_norm_eps",
    "rope_theta",
    "query_bias",
    "key_bias",
    "value_bias",
    "proj_bias",
    "mlp_bias",
)
"""What changes a ViT's numbers; two that agree in these take each other's weights."""


def read_preset(preset: Mapping[str, Any]) -> Mask2FormerConfig:
    """Turn a preset without `pretrained_backbone` into Mask2Former's configuration.

    Transformers keeps keys that it does not know without a word, so a misspelt one
    would leave a default in place: they are refused here.

    Raises:
        ConfigError: A key is unknown, or a value is of the wrong type or range.
    """
    _check_keys(preset, Mask2FormerConfig, "model")
    try:
        with quiet():
            return Mask2FormerConfig(**preset)
    except Exception as error:  # its validation has errors of its own, not ValueError
        raise ConfigError(f"model: {' '.join(str(error).split())}") from error


def load_backbone(encoder: nn.Module, name: str) -> None:
    """Load pretrained DINOv3 weights into the ViT of a freshly built ViT-Adapter.

    Args:
        encoder: The backbone of a segmentation model.
        name: Folder or hub id of a DINOv3 checkpoint with safetensors.

    Raises:
        ConfigError: The backbone has no ViT, or one of another architecture.
        ModelError: There is no such checkpoint, or it is not a whole DINOv3.
    """
    if not isinstance(encoder, ViTAdapterBackbone):
        raise ConfigError(
            f"model.{PRETRAINED} needs a backbone of the type vit_adapter, not "
            f"{type(encoder).__name__}"
        )
    local = Path(name).is_dir()
    folder = Path(name) if local else fetch(name, ["*.json", "*.safetensors"])
    pretrained = _load_vit(folder)
    ours = encoder.config.backbone_config
    for key in _ARCHITECTURE:
        wanted, found = getattr(ours, key), getattr(pretrained.config, key)
        if wanted != found:
            raise ConfigError(
                f"model.backbone_config.backbone_config.{key} is {wanted}, but {name} "
                f"has {found}; describe the same network in the preset"
            )
    encoder.backbone.load_state_dict(pretrained.state_dict())


def _load_vit(folder: Path) -> DINOv3ViTModel:
    try:
        with quiet():
            config, _ = PreTrainedConfig.get_config_dict(folder)
            if config.get("model_type") != DINOv3ViTConfig.model_type:
                raise ValueError(f"it is a '{config.get('model_type')}'")
            loaded: Any = DINOv3ViTModel.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # a damaged folder breaks transformers in many ways
        raise ModelError(
            f"{folder} is not a DINOv3 checkpoint in safetensors: "
            f"{' '.join(str(error).split())}"
        ) from error
    vit: DINOv3ViTModel = loaded[0]
    missing = loaded[1]["missing_keys"]
    if missing:
        raise ModelError(
            f"{folder} lacks weights of DINOv3, {min(missing)} first; it is incomplete"
        )
    return vit


def _check_keys(
    given: Mapping[str, Any], config_class: type[PreTrainedConfig], place: str
) -> None:
    known = {field.name for field in dataclasses.fields(config_class)}
    known |= _NO_FIELDS | set(config_class.attribute_map)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{place}: there is no key '{key}'{hint}")
    inner = given.get("backbone_config")
    if inner is None:
        return
    kind = inner.get("model_type") if isinstance(inner, Mapping) else None
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ConfigError(
            f"{place}.backbone_config: model_type is {kind!r}; name a model type of "
            "transformers, or vit_adapter"
        )
    _check_keys(inner, CONFIG_MAPPING[kind], f"{place}.backbone_config")
