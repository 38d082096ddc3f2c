"""Finding, describing and loading models: the built-in one, HF folders and hub ids.

Loading never runs code that comes with the weights: safetensors only, and
`trust_remote_code` is always off (contract C12).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    Mask2FormerForUniversalSegmentation,
    PreTrainedConfig,
)

import geoseg.models.backbone  # noqa: F401  registers `vit_adapter` with transformers
from geoseg.errors import GeosegWarning, ModelError, TilingError
from geoseg.models.hub import fetch, quiet
from geoseg.models.presets import DECLARATION
from geoseg.models.segmenter import use_geoseg_ops
from geoseg.tiling import check_tile_size
from geoseg.types import NODATA, ClassInfo, ModelSpec, distinct_color, writable

BUILTIN = "builtin"
"""Name of the model that ships with geoseg."""

PREPROCESSOR = "preprocessor_config.json"
"""File of a model folder that says how pixels become input."""

FALLBACK_TILE = 512
"""Tile size for checkpoints that declare no image size, pixels."""

FALLBACK_DIVISOR = 32
"""Tile divisor for checkpoints without a patch size: the stride of a CNN or Swin."""


def builtin_folder() -> Path:
    """Folder of the model that ships with geoseg."""
    return Path(__file__).parent / BUILTIN


def find_model(name: str) -> Path:
    """Turn `builtin`, a folder or a hub id into a local folder with weights.

    Raises:
        ModelError: There is no such model, or it has no safetensors weights.
    """
    folder = builtin_folder() if name == BUILTIN else Path(name)
    if not folder.is_dir():
        if name == BUILTIN:
            raise ModelError(
                "this installation has no built-in model; install geoseg again, or "
                "name a folder with --model"
            )
        folder = fetch(name, ["*.json", "*.safetensors"])
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json; --model wants a Hugging Face folder, a hub "
            f"id, or '{BUILTIN}'"
        )
    if not weight_files(folder):
        other = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({other[0]} is a pickle; convert it to safetensors)" if other else ""
        raise ModelError(f"{folder} has no *.safetensors weights{hint}")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Weights of a model folder, sorted by name."""
    return sorted(folder.glob("*.safetensors"))


def architecture(folder: Path) -> str:
    """Name of the class of a model folder, as its configuration tells it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("architectures") or [config.get("model_type") or "unknown"]
    return str(names[0])


def weights_sha256(folder: Path) -> str:
    """Hash of all that decides a folder's logits, hexadecimal.

    That is the weights, the configuration, and the preprocessor's mean and standard
    deviation.
    """
    digest = hashlib.sha256()
    for path in [folder / "config.json", folder / PREPROCESSOR, *weight_files(folder)]:
        if path.is_file():
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()


def read_spec(
    folder: Path, *, name: str | None = None, tile_size: int | None = None
) -> ModelSpec:
    """Read what a model declares, without its weights.

    A folder written by geoseg declares everything; of any other checkpoint the class
    names, the normalisation and the image size are taken, and colours are made up.

    Args:
        folder: The model folder.
        name: Name for reports; the folder's by default.
        tile_size: Another tile size than the declared one, pixels.

    Raises:
        ModelError: `config.json` is not that of a model known here.
        TilingError: The tile size is not a multiple of the patch size, or not the one
            size that the model can take.
    """
    config = _read_config(folder)
    try:
        declared = dict(getattr(config, DECLARATION, None) or {})
        size = int(declared.get("tile_size") or _image_size(config) or FALLBACK_TILE)
        classes = _classes(config, declared)
        pixels = _pixels(folder, config, declared)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}: what its JSON files declare for geoseg cannot be used "
            f"({type(error).__name__}: {error}); write the folder again"
        ) from error
    patch = patch_size(config)
    size = tile_size or size
    _check_tile(size, patch, config)
    return ModelSpec(
        name=name or folder.name,
        tile_size=size,
        patch_size=patch,
        classes=classes,
        resolution=declared.get("resolution"),
        weights_sha256=weights_sha256(folder),
        **pixels,
    )


def load_model(folder: Path) -> nn.Module:
    """Load the weights of a model folder as float32, in eval mode, on the CPU.

    Raises:
        ModelError: No segmentation head of transformers fits the configuration, or
            weights are missing.
    """
    config = _read_config(folder)
    kind = _auto_class(config)
    with warnings.catch_warnings(), quiet():
        warnings.filterwarnings("ignore", message="You'd better set embed_dim")
        try:
            model, report = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # a damaged folder breaks it in many ways
            reason = _one_line(error)
            raise ModelError(f"{folder} cannot be loaded: {reason}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{folder} lacks {len(missing)} weights, {missing[0]} first; it is "
            "incomplete or was saved for another architecture"
        )
    if isinstance(model, Mask2FormerForUniversalSegmentation):
        use_geoseg_ops(model)
    frozen: nn.Module = model.eval().requires_grad_(False)
    return frozen


def import_modules(names: Sequence[str]) -> None:
    """Import modules that register a user's own models with transformers.

    Raises:
        ModelError: A module cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ModelError(
                f"model.imports: {name} cannot be imported ({error}); install it where "
                "the workers run"
            ) from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object; write the folder again")
    return content


def _read_config(folder: Path) -> PreTrainedConfig:
    _read_json(folder / "config.json")  # its errors name the place of a syntax error
    try:
        with quiet():
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            return config
    except Exception as error:  # a damaged configuration breaks it in many ways
        raise ModelError(
            f"{folder}/config.json is not that of a model that transformers knows: "
            f"{_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    """The first sentence or so of what transformers says in a paragraph."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _auto_class(
    config: PreTrainedConfig,
) -> type[AutoModelForUniversalSegmentation | AutoModelForSemanticSegmentation]:
    for kind in (AutoModelForUniversalSegmentation, AutoModelForSemanticSegmentation):
        if type(config) in kind._model_mapping:
            return kind
    raise ModelError(
        f"a '{config.model_type}' checkpoint has no semantic or universal segmentation "
        "head in transformers"
    )


def patch_size(config: PreTrainedConfig) -> int:
    """Pixels that tile sizes must be a multiple of."""
    for candidate in (config, getattr(config, "backbone_config", None)):
        inner = getattr(candidate, "backbone_config", None) or candidate
        patch = getattr(inner, "patch_size", None)
        if isinstance(patch, int) and patch >= 8:
            return patch
    return FALLBACK_DIVISOR


def _image_size(config: PreTrainedConfig) -> int | None:
    size = getattr(config, "image_size", None)
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        return int(size[0])
    return size if isinstance(size, int) else None


def _check_tile(size: int, patch: int, config: PreTrainedConfig) -> None:
    fixed = _image_size(config) if hasattr(config, "num_upscale_blocks") else None
    if fixed is not None and size != fixed:
        raise TilingError(
            f"tile size {size} does not fit: this model takes {fixed} only"
        )
    check_tile_size(size, patch)


def _classes(
    config: PreTrainedConfig, declared: dict[str, Any]
) -> tuple[ClassInfo, ...]:
    labels: dict[Any, str] = config.id2label or {}
    names = [writable(str(labels[index])) for index in sorted(labels)]
    if len(names) > NODATA:
        raise ModelError(
            f"the model has {len(names)} classes; a class mask of 8 bits holds {NODATA}"
        )
    if "classes" not in declared:
        return tuple(
            ClassInfo(i, name, distinct_color(i)) for i, name in enumerate(names)
        )
    table = tuple(
        ClassInfo(int(entry["id"]), writable(str(entry["name"])), _rgb(entry["color"]))
        for entry in declared["classes"]
    )
    ids = {entry.id for entry in table}
    if len(table) != len(names) or len(ids) != len(table):
        raise ValueError(f"{len(names)} logits, but {len(ids)} class ids")
    if not ids <= set(range(NODATA)):
        raise ValueError(f"class ids {sorted(ids)} are not all within 0..{NODATA - 1}")
    return table


def _pixels(
    folder: Path, config: PreTrainedConfig, declared: dict[str, Any]
) -> dict[str, Any]:
    """How pixels become input: `bands`, `scale`, `mean` and `std` of a `ModelSpec`."""
    preprocessor = _read_json(folder / PREPROCESSOR)
    if not preprocessor:
        warnings.warn(
            f"{folder} has no {PREPROCESSOR}: pixels are scaled to 0..1 and not "
            "normalised, which is wrong for most models",
            GeosegWarning,
            stacklevel=3,
        )
    channels = getattr(config, "num_channels", None)
    bands = tuple(declared.get("bands") or _band_names(channels))
    rescale = preprocessor.get("do_rescale", True)
    factor = (preprocessor.get("rescale_factor") or 1 / 255) if rescale else 1.0
    scale = declared.get("scale") or {"uint8": 1 / factor}
    if preprocessor.get("do_flip_channel_order"):
        bands = bands[::-1]  # Trained on BGR, as MobileViT.
    # Absent where it is off: transformers saves the means all the same.
    normalize = preprocessor.get("do_normalize", False)
    mean = tuple((preprocessor.get("image_mean") if normalize else None) or (0.0,))
    std = tuple((preprocessor.get("image_std") if normalize else None) or (1.0,))
    # One number is one for all bands, as transformers has it.
    mean, std = (v * len(bands) if len(v) == 1 else v for v in (mean, std))
    if not len(mean) == len(std) == len(bands):
        raise ValueError(f"{len(bands)} bands, but {len(mean)} means, {len(std)} stds")
    return {
        "bands": bands,
        "scale": tuple((dtype, float(dn)) for dtype, dn in sorted(scale.items())),
        "mean": tuple(map(float, mean)),
        "std": tuple(map(float, std)),
    }


def _band_names(channels: int | None) -> tuple[str, ...]:
    if channels in (None, 3):
        return ("red", "green", "blue")
    return tuple(f"band {index}" for index in range(1, channels + 1))


def _rgb(color: Sequence[int]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in color)
    return red, green, blue
