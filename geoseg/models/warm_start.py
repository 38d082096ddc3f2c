"""A head that starts from another Mask2Former's: of other classes, on another backbone.

Pixel decoder, transformer decoder and queries of a checkpoint trained on COCO or ADE20K
are a better start than random ones, whatever encoder is below them. Cheng et al.,
"Masked-attention Mask Transformer for Universal Image Segmentation", CVPR 2022.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation, PreTrainedConfig

import geoseg.models.backbone  # noqa: F401  a checkpoint may be one of geoseg's
from geoseg.errors import ConfigError, ModelError
from geoseg.models.hub import fetch, quiet
from geoseg.models.presets import HEAD

logger = logging.getLogger(__name__)

LEAST_SHARE = 0.1
"""Share of the head's numbers below which a checkpoint is the wrong one."""

_HEAD, _ENCODER = "model.", "model.pixel_level_module.encoder."
"""Names of the head begin with the first and not with the second; the class head is
neither: its classes are others."""

_WIDTHS = (
    "feature_size",
    "mask_feature_size",
    "hidden_dim",
    "encoder_feedforward_dim",
    "dim_feedforward",
    "encoder_layers",
    "decoder_layers",
    "num_queries",
)
"""What decides the shapes of a head's parameters, the heads of attention apart."""

MEANING = ("num_attention_heads", "activation_function", "pre_norm")
"""What shapes do not show: the same numbers mean something else."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """What a head, or a whole model, took from a checkpoint."""

    taken: tuple[str, ...]
    """Parameters that are the checkpoint's now."""
    left: Mapping[str, str]
    """Parameters that stay as they were, and why."""
    share: float
    """Numbers taken of all that it has, the class head apart."""


def load_head(model: Mask2FormerForUniversalSegmentation, name: str) -> WarmStart:
    """Take the parameters of another Mask2Former's head that fit by name and shape.

    The class head stays as it was made. Deformable attention has the names that
    transformers gives it, in geoseg's models as well.

    Args:
        model: A freshly built model; changed in place.
        name: Folder or hub id of a Mask2Former checkpoint in safetensors.

    Returns:
        What was taken and what was not; it is logged, too.

    Raises:
        ConfigError: Its attention is another, so that equal shapes mean nothing.
        ModelError: There is no such checkpoint, or next to nothing of it fits.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = fetch(name, ["*.json", "*.safetensors"])
    source = _load(folder)
    for key in MEANING:
        wanted, found = getattr(model.config, key), getattr(source.config, key)
        if wanted != found:
            raise ConfigError(
                f"model.{key} is {wanted}, but {name} has {found}: its weights would "
                f"mean nothing here; set it to {found}"
            )
    ours, theirs = _head(model), _head(source)
    result = compare(ours, theirs)
    if result.share < LEAST_SHARE:
        raise ModelError(
            f"{name} shares {result.share:.0%} of its head with this model, too little "
            f"to start from; make them alike: {_differences(model.config, source)}"
        )
    for parameter in result.taken:
        ours[parameter].copy_(theirs[parameter])
    log_start(result, name, "the head")
    return result


def _load(folder: Path) -> Mask2FormerForUniversalSegmentation:
    try:
        with warnings.catch_warnings(), quiet():
            warnings.filterwarnings("ignore", message="You'd better set embed_dim")
            content, _ = PreTrainedConfig.get_config_dict(folder)
            if content.get("model_type") != "mask2former":
                raise ValueError(f"it is a '{content.get('model_type')}'")
            return Mask2FormerForUniversalSegmentation.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
    except Exception as error:  # a damaged folder breaks transformers in many ways
        raise ModelError(
            f"{folder} is not a Mask2Former checkpoint in safetensors, as "
            f"model.{HEAD} needs: {' '.join(str(error).split())[:300]}"
        ) from error


def _head(model: Mask2FormerForUniversalSegmentation) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith(_HEAD) and not name.startswith(_ENCODER)
    }


def compare(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> WarmStart:
    """Tell which of some tensors others have under the same name, in the same shape."""
    taken, left = [], {}
    for name, value in ours.items():
        found = theirs.get(name)
        if found is None:
            left[name] = "the checkpoint has none"
        elif found.shape != value.shape:
            left[name] = f"{list(value.shape)} here, {list(found.shape)} there"
        else:
            taken.append(name)
    count = sum(ours[name].numel() for name in taken)
    share = count / sum(value.numel() for value in ours.values())
    return WarmStart(tuple(taken), left, share)


def _differences(ours: Any, source: Any) -> str:  # noqa: ANN401
    pairs = [(key, getattr(ours, key), getattr(source.config, key)) for key in _WIDTHS]
    return ", ".join(f"model.{key} {a} -> {b}" for key, a, b in pairs if a != b)


def log_start(result: WarmStart, name: str, part: str) -> None:
    """Log what part of a model starts from a checkpoint."""
    logger.info(
        "%s starts from %s: %d of %d parameters, %.0f %% of its numbers",
        part,
        name,
        len(result.taken),
        len(result.taken) + len(result.left),
        100 * result.share,
    )
    for parameter in result.taken:
        logger.debug("taken: %s", parameter)
    for parameter, reason in result.left.items():
        logger.info("not taken: %s (%s)", parameter, reason)
