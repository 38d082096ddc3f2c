"""The job `geoseg train`: fit a preset to labelled scenes and write a model folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from geoseg.data.chips import ChipConfig, ChipSampler
from geoseg.data.labelled import load_part_scenes
from geoseg.models.export import save_model
from geoseg.models.segmenter import build_mask2former
from geoseg.training.loop import LoopConfig, TrainingLoop
from geoseg.training.losses import DenseMask2FormerLoss
from geoseg.types import ClassInfo

logger = logging.getLogger(__name__)

Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class ClassConfig:
    """One class of the class table."""

    id: int
    """Value in class masks."""
    name: str
    """Name in legends."""
    color: tuple[int, int, int]
    """Red, green, blue, 0-255."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the labelled scenes are and which are trained on."""

    root: Path
    """Folder of the labelled scenes."""
    scenes: tuple[str, ...]
    """Scenes to train on; every other scene stays unseen."""
    classes: tuple[ClassConfig, ...]
    """Class table; the order is that of the logits."""
    resolution: float
    """Ground resolution of the scenes, metres per pixel."""
    mean: tuple[float, ...]
    """Mean per band, 0..1."""
    std: tuple[float, ...]
    """Standard deviation per band."""


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
    """
    torch.set_num_threads(config.torch_threads)
    torch.manual_seed(config.train.seed)
    names = [entry.name for entry in config.data.classes]
    model = build_mask2former({**config.model, "num_labels": len(names)})
    scenes = load_part_scenes(config.data.root, config.data.scenes, names)
    sampler = ChipSampler(scenes, len(names), config.chips)
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
    )
    trained = loop.run(progress)
    # Under its final name only when it is whole; a finished model can be made again
    # from the last checkpoint, so an older folder may go first.
    folder, unfinished = config.out / "model", config.out / ".model"
    shutil.rmtree(unfinished, ignore_errors=True)
    save_model(
        trained,
        unfinished,
        classes=[ClassInfo(c.id, c.name, c.color) for c in config.data.classes],
        mean=config.data.mean,
        std=config.data.std,
        tile_size=config.tile_size,
        resolution=config.data.resolution,
    )
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return folder
