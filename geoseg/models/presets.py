"""Presets: the keys that describe a model before it has weights."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING, Mask2FormerConfig, PreTrainedConfig

import geoseg.models.backbone  # noqa: F401  registers `vit_adapter` with transformers
from geoseg.errors import ConfigError
from geoseg.models.configuration import TIMM, ViTAdapterConfig
from geoseg.models.hub import quiet

DECLARATION = "geoseg"
"""Key under which a configuration declares what Hugging Face has no words for."""

PRETRAINED = "pretrained_backbone"
"""Key of a preset that names the weights of its ViT: a folder or a hub id."""

HEAD = "pretrained_head"
"""Key of a preset that names a Mask2Former whose head its own starts from."""

BACKBONE = "backbone"
"""Key of a preset that names its ViT in short: `timm:vit_large_patch16_dinov3`."""

_NO_FIELDS = {
    "model_type",
    "num_labels",
    "out_features",
    "out_indices",
    DECLARATION,
}


def read_preset(preset: Mapping[str, Any]) -> Mask2FormerConfig:
    """Turn a preset into Mask2Former's configuration.

    `pretrained_backbone` and `pretrained_head` are the caller's to take out.

    Transformers keeps keys that it does not know without a word, so a misspelt one
    would leave a default in place: they are refused here.

    Raises:
        ConfigError: A key is unknown, or a value is of the wrong type or range.
    """
    given = _with_named_backbone(preset)
    _check_keys(given, Mask2FormerConfig, "model")
    try:
        with quiet():
            return Mask2FormerConfig(**given)
    except Exception as error:  # its validation has errors of its own, not ValueError
        raise ConfigError(f"model: {' '.join(str(error).split())}") from error


def _with_named_backbone(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Write out what `backbone` says in short."""
    given = dict(preset)
    named = given.pop(BACKBONE, None)
    if named is None:
        return given
    library, _, architecture = str(named).partition(":")
    kind = ViTAdapterConfig.model_type
    adapter = given.get("backbone_config") or {"model_type": kind}
    if library != "timm" or not architecture:
        raise ConfigError(
            f"model.{BACKBONE} is '{named}'; name a ViT of timm's as "
            "timm:vit_large_patch16_dinov3, or describe another in "
            "backbone_config.backbone_config"
        )
    if adapter.get("model_type") != kind:
        raise ConfigError(
            f"model.{BACKBONE} needs a backbone_config of the type vit_adapter, not "
            f"{adapter.get('model_type')}"
        )
    vit = {
        "model_type": TIMM,
        "architecture": architecture,
        "model_args": {"dynamic_img_size": True},  # Tiles of any size.
    }
    return {**given, "backbone_config": {**adapter, "backbone_config": vit}}


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
