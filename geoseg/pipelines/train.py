"""The job `geoseg train`: fit a preset to labelled scenes and write a model folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from geoseg.config import dump
from geoseg.data.chips import ChipConfig, chip_sampler
from geoseg.data.config import DataConfig
from geoseg.data.sources import open_split
from geoseg.errors import OutputError
from geoseg.io.atomic import atomic_path
from geoseg.io.lock import exclusive
from geoseg.models.export import save_model
from geoseg.models.registry import patch_size
from geoseg.models.segmenter import build_mask2former
from geoseg.tiling import check_tile_size
from geoseg.training.loop import LoopConfig, TrainingLoop
from geoseg.training.losses import DenseMask2FormerLoss

Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything a training run depends on."""

    data: DataConfig
    model: dict[str, Any]
    """Keyword arguments of `Mask2FormerConfig`."""
    out: Path
    """Run folder: checkpoints, log, and the finished model in `model/`."""
    tile_size: int = 720
    """Side of the tiles the finished model asks for, pixels."""
    chips: ChipConfig = field(default_factory=ChipConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    pixel_weight: float = 2.0
    """Weight of the per-pixel negative log likelihood."""
    auxiliary_weight: float = 1.0
    """Weight of the auxiliary per-pixel classifier."""
    torch_threads: int = 1
    """Threads torch uses."""


def run(config: TrainConfig, progress: Progress) -> Path:
    """Train, or go on training, and write the model folder.

    Args:
        config: The resolved configuration.
        progress: Called with the step and the loss terms every `train.log_every`.

    Returns:
        The model folder, an ordinary Hugging Face checkpoint.

    Raises:
        UsageError: The configuration makes no training, or another run has the folder
            or began it with another recipe.
    """
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{config.out} cannot be made ({error.strerror}); set another out"
        ) from error
    with exclusive(config.out / ".lock", config.out):
        return _run_alone(config, progress)


def _run_alone(config: TrainConfig, progress: Progress) -> Path:
    torch.set_num_threads(config.torch_threads)
    torch.manual_seed(config.train.seed)
    names = [entry.name for entry in config.data.classes]
    model = build_mask2former({**config.model, "num_labels": len(names)})
    patch = patch_size(model.config)
    for size in (config.chips.size, config.train.final_chip_size, config.tile_size):
        check_tile_size(size, patch)
    scenes = open_split(config.data, ("train",)).train
    sampler = chip_sampler(scenes, config.data, config.chips)
    loss = DenseMask2FormerLoss(
        model.config.mask_feature_size,
        len(names),
        config.pixel_weight,
        config.auxiliary_weight,
    )
    loop = TrainingLoop(
        model,
        loss,
        sampler,
        config.data.mean,
        config.data.std,
        config.train,
        config.out,
        recipe_of(config),
    )
    # After the checkpoint was accepted: it tells of the run that is in the folder.
    with atomic_path(config.out / "run.yaml") as path:
        path.write_text(dump(config))
    trained = loop.run(progress)
    # Under its final name only when it is whole; a finished model can be made again
    # from the last checkpoint, so an older folder may go first.
    folder, unfinished = config.out / "model", config.out / ".model"
    shutil.rmtree(unfinished, ignore_errors=True)
    save_model(
        trained,
        unfinished,
        classes=config.data.table.infos,
        mean=config.data.mean,
        std=config.data.std,
        tile_size=config.tile_size,
        resolution=config.data.resolution,
    )
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder


def recipe_of(config: TrainConfig) -> dict[str, object]:
    """What a run's weights depend on, by dotted key.

    The folders are left out, which may move, and how often is told or saved.
    """
    free = {"out", "data.root", "train.checkpoint_seconds", "train.log_every"}
    flat = dict(_flatten(yaml.safe_load(dump(config)), ""))
    return {key: value for key, value in flat.items() if key not in free}


def _flatten(value: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
