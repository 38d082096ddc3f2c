"""Writing a model as an ordinary Hugging Face folder that also speaks geoseg."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from geoseg.models.hub import quiet
from geoseg.models.presets import DECLARATION
from geoseg.types import ClassInfo

_NORMALISATION = ("mean", "std")
"""What a folder keeps in its preprocessor's file instead, where others look for it."""


def save_model(
    model: nn.Module,
    folder: Path,
    *,
    classes: Sequence[ClassInfo],
    mean: Sequence[float],
    std: Sequence[float],
    tile_size: int,
    resolution: float | None,
    bands: Sequence[str] = ("red", "green", "blue"),
    scale: dict[str, float] | None = None,
) -> Path:
    """Save config, float16 safetensors and a preprocessor that does not resize.

    Args:
        model: An HF segmentation model; changed to float16 in place.
        folder: Where to write; created.
        classes: Class table in the order of the logits.
        mean: Mean per band, 0..1.
        std: Standard deviation per band.
        tile_size: Side of the model input, pixels.
        resolution: Ground resolution of the training data, metres per pixel.
        bands: Names of the input bands.
        scale: Per dtype the digital number that means 1.0; 8-bit imagery by default.

    Returns:
        `folder`.
    """
    hf: Any = model
    declare(
        hf,
        classes=classes,
        mean=mean,
        std=std,
        tile_size=tile_size,
        resolution=resolution,
        bands=bands,
        scale=scale,
    )
    with quiet():
        hf.to(torch.float16).save_pretrained(folder)
    config = written_config(hf)
    for key in _NORMALISATION:
        del config[DECLARATION][key]
    _write(folder / "config.json", config)
    _write(folder / "preprocessor_config.json", preprocessor(mean, std))
    return folder


def declare(
    model: PreTrainedModel,
    *,
    classes: Sequence[ClassInfo],
    mean: Sequence[float],
    std: Sequence[float],
    tile_size: int,
    resolution: float | None,
    bands: Sequence[str] = ("red", "green", "blue"),
    scale: Mapping[str, float] | None = None,
) -> None:
    """Put into a model's configuration what geoseg has to know.

    The arguments are those of `save_model`, which does this too.
    """
    model.config.id2label = {i: entry.name for i, entry in enumerate(classes)}
    model.config.label2id = {entry.name: i for i, entry in enumerate(classes)}
    declaration = {
        "tile_size": tile_size,
        "resolution": resolution,
        "bands": list(bands),
        "scale": dict(scale or {"uint8": 255.0}),
        "mean": list(mean),
        "std": list(std),
        "classes": [
            {"id": entry.id, "name": entry.name, "color": list(entry.color)}
            for entry in classes
        ],
    }
    setattr(model.config, DECLARATION, declaration)


def written_config(model: PreTrainedModel) -> dict[str, Any]:
    """Return a model's configuration as its `config.json` has it.

    It asks for float32: `from_pretrained` would load what is stored as float16 as that.
    """
    config: dict[str, Any] = json.loads(model.config.to_json_string())
    config["architectures"] = [type(model).__name__]
    config["dtype"] = "float32"
    for place in _nested(config):
        place.pop("dtype", None)
    return config


def preprocessor(mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Return the content of `preprocessor_config.json` for a model of geoseg's."""
    return {
        "image_processor_type": "Mask2FormerImageProcessor",
        # Tiles come at their own size: resizing would change the ground resolution.
        "do_resize": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
        "ignore_index": 255,
        "do_reduce_labels": False,
    }


def _nested(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inner = config.get("backbone_config")
    if isinstance(inner, dict):
        yield inner
        yield from _nested(inner)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
