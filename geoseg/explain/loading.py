"""Models to be explained: those that segment, and ViTs alone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
)

from geoseg.errors import ModelError
from geoseg.models import load_model
from geoseg.models.hub import quiet

_SEGMENTERS = (AutoModelForUniversalSegmentation, AutoModelForSemanticSegmentation)


def load_explained(folder: Path) -> nn.Module:
    """Load a model folder as float32, in eval mode, on the CPU.

    A checkpoint without a segmentation head is loaded without any head: of a ViT alone
    patches, attention, features and positions can be shown.

    Raises:
        ModelError: The folder cannot be loaded.
    """
    where = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(folder, **where)
        if any(type(config) in kind._model_mapping for kind in _SEGMENTERS):
            return load_model(folder)
        with quiet():
            model: nn.Module = AutoModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, **where
            )
    except ModelError:
        raise
    except Exception as error:  # A damaged folder breaks it in many ways.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{folder} cannot be loaded: {reason}") from error
    return model.eval().requires_grad_(False)
