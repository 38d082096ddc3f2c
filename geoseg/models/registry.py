"""Finding, describing and loading models: the built-in one, folders, hub ids, `.ckpt`.

Loading never runs code that comes with the weights: safetensors, or checkpoints of
geoseg's own training without pickled code (`checkpoint.py`), and `trust_remote_code` is
always off (contract C12).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    Mask2FormerForUniversalSegmentation,
    PreTrainedConfig,
)

import geoseg.models.backbone  # noqa: F401  registers `vit_adapter` with transformers
from geoseg.errors import GeosegWarning, ModelError, TilingError
from geoseg.models.checkpoint import read_checkpoint
from geoseg.models.configuration import ViTAdapterConfig
from geoseg.models.declaration import read_chosen, read_classes, read_pixels
from geoseg.models.export import preprocessor
from geoseg.models.hub import fetch, quiet
from geoseg.models.presets import DECLARATION
from geoseg.models.segmenter import use_geoseg_ops
from geoseg.tiling import check_tile_size
from geoseg.types import ModelSpec

BUILTIN = "builtin"
"""Name of the model that ships with geoseg."""

CHECKPOINT = ".ckpt"
"""How the names of checkpoints end."""

PREPROCESSOR = "preprocessor_config.json"
"""File of a model folder that says how pixels become input."""

FALLBACK_TILE = 512
"""Tile size for checkpoints that declare no image size, pixels."""

FALLBACK_DIVISOR = 32
"""Tile divisor for checkpoints without a patch size: the stride of a CNN or Swin."""

AutoClass = type[AutoModelForUniversalSegmentation | AutoModelForSemanticSegmentation]
"""What transformers makes a segmentation model of a kind with."""


def builtin_folder() -> Path:
    """Folder of the model that ships with geoseg."""
    return Path(__file__).parent / BUILTIN


def find_model(name: str) -> Path:
    """Turn `builtin`, a folder, a checkpoint or a hub id into a local path of weights.

    Returns:
        A folder, or the file of a checkpoint: a "model folder" below.

    Raises:
        ModelError: There is no such model, or it has no safetensors weights.
    """
    if not name.strip():
        raise ModelError(f"the name of the model is empty; '{BUILTIN}' is ours")
    folder = builtin_folder() if name == BUILTIN else Path(name)
    if folder.is_file():
        return folder
    if folder.suffix == CHECKPOINT and not folder.is_dir():
        raise ModelError(f"there is no checkpoint {folder}; check the path")
    if not folder.is_dir():
        if name == BUILTIN:
            raise ModelError(
                "this installation has no built-in model; install geoseg again, or "
                "name a folder with --model"
            )
        folder = fetch(name, ["*.json", "*.safetensors"])
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} has no config.json; a model is a Hugging Face folder, a hub "
            f"id, a {CHECKPOINT} of geoseg's training, or '{BUILTIN}'"
        )
    if not weight_files(folder):
        other = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" ({other[0]} is a pickle; convert it to safetensors)" if other else ""
        raise ModelError(f"{folder} has no *.safetensors weights{hint}")
    return folder


def weight_files(folder: Path) -> list[Path]:
    """Weights of a model folder, sorted by name; a checkpoint is its own."""
    return [folder] if folder.is_file() else sorted(folder.glob("*.safetensors"))


def architecture(folder: Path) -> str:
    """Name of the class of a model folder, as its configuration tells it."""
    if folder.is_file():
        config = read_checkpoint(folder).config
    else:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("architectures") or [config.get("model_type") or "unknown"]
    return str(names[0])


def weights_sha256(folder: Path) -> str:
    """Hash of all that decides a folder's logits, hexadecimal.

    That is the weights, the configuration, and the preprocessor's mean and standard
    deviation. Of a checkpoint it is all that the file holds, whatever its name.
    """
    if folder.is_file():
        with folder.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
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
        classes = read_classes(config, declared)
        pixels = read_pixels(_preprocessor(folder, declared), config, declared)
        chosen = read_chosen(declared, len(pixels["bands"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}: what it declares for geoseg cannot be used "
            f"({type(error).__name__}: {error}); write it again"
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
        chosen=chosen,
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
            load = _from_checkpoint if folder.is_file() else _from_folder
            model, missing = load(folder, config, kind)
        except Exception as error:  # a damaged folder breaks it in many ways
            reason = _one_line(error)
            raise ModelError(f"{folder} cannot be loaded: {reason}") from error
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} weights, {min(missing)} first; it is "
            "incomplete or was saved for another architecture"
        )
    if isinstance(model, Mask2FormerForUniversalSegmentation):
        use_geoseg_ops(model)
    frozen: nn.Module = model.eval().requires_grad_(False)
    return frozen


def _from_folder(
    folder: Path, config: PreTrainedConfig, kind: AutoClass
) -> tuple[nn.Module, Collection[str]]:
    """Load a folder; return the model and the names of weights that it lacks."""
    loaded: Any = kind.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
    )
    return loaded[0], loaded[1]["missing_keys"]


def _from_checkpoint(
    path: Path, config: PreTrainedConfig, kind: AutoClass
) -> tuple[nn.Module, Collection[str]]:
    """Load a checkpoint; return the model and the names of weights that it lacks."""
    auto: Any = kind
    model: nn.Module = auto.from_config(config, dtype=torch.float32)
    report = model.load_state_dict(read_checkpoint(path).weights, strict=False)
    return model, report.missing_keys


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
    if folder.is_file():
        return _checkpoint_config(folder)
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


def _checkpoint_config(path: Path) -> PreTrainedConfig:
    checkpoint = read_checkpoint(path)
    content = checkpoint.config | {DECLARATION: checkpoint.declaration}
    try:
        with quiet():
            kind = CONFIG_MAPPING[content["model_type"]]
            config: PreTrainedConfig = kind.from_dict(content)
            return config
    except Exception as error:  # like that of a folder
        raise ModelError(
            f"{path} does not describe a model that transformers knows: "
            f"{_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    """The first sentence or so of what transformers says in a paragraph."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _auto_class(config: PreTrainedConfig) -> AutoClass:
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
        if isinstance(candidate, ViTAdapterConfig):
            # Its finest level has a cell of 4 pixels, and blending wants whole ones.
            return math.lcm(getattr(candidate.backbone_config, "patch_size", 16), 4)
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


def _preprocessor(folder: Path, declared: dict[str, Any]) -> dict[str, Any]:
    if folder.is_file():
        return preprocessor(declared["mean"], declared["std"])
    content = _read_json(folder / PREPROCESSOR)
    if not content:
        warnings.warn(
            f"{folder} has no {PREPROCESSOR}: pixels are scaled to 0..1 and not "
            "normalised, which is wrong for most models",
            GeosegWarning,
            stacklevel=3,
        )
    return content
