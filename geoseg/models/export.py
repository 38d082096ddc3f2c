"""Writing a model as an ordinary Hugging Face folder that also speaks geoseg."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geoseg.models.hub import quiet
from geoseg.models.presets import DECLARATION
from geoseg.types import ClassInfo


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
    hf.config.id2label = {i: entry.name for i, entry in enumerate(classes)}
    hf.config.label2id = {entry.name: i for i, entry in enumerate(classes)}
    declaration = {
        "tile_size": tile_size,
        "resolution": resolution,
        "bands": list(bands),
        "scale": scale or {"uint8": 255.0},
        "classes": [
            {"id": entry.id, "name": entry.name, "color": list(entry.color)}
            for entry in classes
        ],
    }
    setattr(hf.config, DECLARATION, declaration)
    with quiet():
        hf.to(torch.float16).save_pretrained(folder)
    _promise_float32(folder / "config.json")
    (folder / "preprocessor_config.json").write_text(
        json.dumps(_preprocessor(mean, std), indent=2) + "\n"
    )
    return folder


def _promise_float32(path: Path) -> None:
    """Let `from_pretrained` load the model as float32: float16 is for the file only."""
    config = json.loads(path.read_text())
    config["dtype"] = "float32"
    for place in _nested(config):
        place.pop("dtype", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _nested(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    inner = config.get("backbone_config")
    if isinstance(inner, dict):
        yield inner
        yield from _nested(inner)


def _preprocessor(mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
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
