"""Writing a model as an ordinary Hugging Face folder that also speaks geoseg."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack

import torch
from torch import nn
from transformers import PreTrainedModel

from geoseg.io.atomic import share
from geoseg.models.hub import quiet
from geoseg.models.presets import DECLARATION
from geoseg.types import ChosenBands, ClassInfo

_NORMALISATION = ("mean", "std")
"""What a folder keeps in its preprocessor's file instead, where others look for it."""


class Declared(TypedDict):
    """What a model declares for geoseg."""

    classes: Sequence[ClassInfo]
    """Class table in the order of the logits."""
    mean: Sequence[float]
    """Mean per band, 0..1."""
    std: Sequence[float]
    """Standard deviation per band."""
    tile_size: int
    """Side of the model input, pixels."""
    resolution: float | None
    """Ground resolution of the training data, metres per pixel."""
    bands: NotRequired[Sequence[str]]
    """Names of the input bands; red, green, blue if left out."""
    scale: NotRequired[Mapping[str, float]]
    """Per dtype the digital number that means 1.0; 8-bit imagery if left out."""
    chosen: NotRequired[ChosenBands | None]
    """Bands that its training took of its images; all if left out."""


def save_model(model: nn.Module, folder: Path, **declared: Unpack[Declared]) -> Path:
    """Save config, float16 safetensors and a preprocessor that does not resize.

    Args:
        model: An HF segmentation model; changed to float16 in place.
        folder: Where to write; created.
        declared: What it declares.

    Returns:
        `folder`.
    """
    hf: Any = model
    declare(hf, **declared)
    with quiet():
        hf.to(torch.float16).save_pretrained(folder)
    config = written_config(hf)
    for key in _NORMALISATION:
        del config[DECLARATION][key]
    _write(folder / "config.json", config)
    content = preprocessor(declared["mean"], declared["std"])
    _write(folder / "preprocessor_config.json", content)
    for weights in folder.glob("*.safetensors"):
        share(weights)
    return folder


def declare(model: PreTrainedModel, **declared: Unpack[Declared]) -> None:
    """Put into a model's configuration what geoseg has to know; `save_model` does."""
    classes = declared["classes"]
    model.config.id2label = {i: entry.name for i, entry in enumerate(classes)}
    model.config.label2id = {entry.name: i for i, entry in enumerate(classes)}
    declaration: dict[str, Any] = {
        "tile_size": declared["tile_size"],
        "resolution": declared["resolution"],
        "bands": list(declared.get("bands", ("red", "green", "blue"))),
        "scale": dict(declared.get("scale", {"uint8": 255.0})),
        "mean": list(declared["mean"]),
        "std": list(declared["std"]),
        "classes": [
            {"id": entry.id, "name": entry.name, "color": list(entry.color)}
            for entry in classes
        ],
    }
    if (chosen := declared.get("chosen")) is not None:
        declaration["chosen_bands"] = {
            "numbers": list(chosen.numbers),
            "of": [list(kind) for kind in chosen.of],
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
