"""Training runs of a very small model: in this process, and as a program of its own.

    python tests/training_runs.py FOLDER [key=value...] [--kill-at STEP] [--gradients]

trains in FOLDER/out, in as many processes as `devices` says.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import labelled_scenes
import tiny_models
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.data.chips import ChipConfig, ChipSampler
from geoseg.data.labelled import IGNORE, LabelledScene
from geoseg.errors import GeosegWarning
from geoseg.models.export import declare
from geoseg.training.batches import ChipSource
from geoseg.training.config import LoopConfig, LossConfig
from geoseg.training.fit import Outcome, fit
from geoseg.training.logs import RunLog
from geoseg.training.module import SegmentationModule
from geoseg.training.progress import Listener
from geoseg.training.validation import Validation
from geoseg.types import ClassInfo, ModelSpec

CLASSES = tuple(
    ClassInfo(10 * i, name, color)
    for i, (name, color) in enumerate(
        zip(labelled_scenes.CLASSES, labelled_scenes.COLORS, strict=True), start=1
    )
)
TILE = 48


def made_scene(
    name: str, side: int = 90, seed: int = 0, without: int | None = None
) -> LabelledScene:
    """A scene whose colours tell its classes; one of them may have no labels."""
    image, labels = labelled_scenes.draw(side, side, seed=seed)
    if without is not None:
        labels[labels == without] = IGNORE
    return LabelledScene(name, image, labels)


def made_model(*, frozen: bool = False) -> Mask2FormerForUniversalSegmentation:
    """A declared model of three classes; its ViT is trained, unless frozen."""
    keys = tiny_models.adapter_keys(freeze_backbone=frozen)
    model = tiny_models.segmenter(backbone_config=keys, num_labels=3)
    declare(
        model,
        classes=CLASSES,
        mean=tiny_models.MEAN,
        std=tiny_models.STD,
        tile_size=TILE,
        resolution=0.5,
    )
    return model


def loop_config(**changes: Any) -> LoopConfig:  # noqa: ANN401 (fields of all kinds)
    """Four steps of two chips, the last of one larger chip."""
    fields: dict[str, Any] = {
        "steps": 4,
        "batch_size": 2,
        "warmup_steps": 2,
        "final_share": 0.25,
        "final_chip_size": 64,
        "final_batch_size": 1,
        "log_every": 1,
        "validate_every": 2,
        "accelerator": "cpu",
    }
    return LoopConfig(**{**fields, **changes})


def make_module(
    *,
    frozen: bool = False,
    model: Mask2FormerForUniversalSegmentation | None = None,
    scenes: int = 1,
    recipe: dict[str, object] | None = None,
    **changes: Any,  # noqa: ANN401
) -> SegmentationModule:
    """Build what is trained."""
    torch.manual_seed(0)
    chips = ChipSampler(
        # All but the first lack a class: chips have different numbers of masks.
        [made_scene(f"made {i}", seed=i, without=i or None) for i in range(scenes)],
        3,
        ChipConfig(size=48),
    )
    return SegmentationModule(
        model or made_model(frozen=frozen),
        chips,
        loop_config(**changes),
        weights=LossConfig(),
        chip_size=48,
        mean=tiny_models.MEAN,
        std=tiny_models.STD,
        recipe=recipe,
    )


SPEC = ModelSpec(
    name="made",
    tile_size=TILE,
    patch_size=16,
    classes=CLASSES,
    bands=("red", "green", "blue"),
    scale=(("uint8", 255.0),),
    mean=tiny_models.MEAN,
    std=tiny_models.STD,
    resolution=0.5,
    weights_sha256="",
)


def make_validation(folder: Path, log: RunLog, config: LoopConfig) -> Validation:
    """Score on two scenes more."""
    return Validation(
        [made_scene("held out", seed=9), made_scene("another", seed=8)],
        SPEC,
        folder,
        every=config.validate_every,
        patience=config.patience,
        precision=config.precision,
        seen=log,
        looked=log.looked,
    )


def train(
    module: SegmentationModule,
    folder: Path,
    *callbacks: Callback,
    validate: bool = False,
    listener: Listener | None = None,
) -> Outcome:
    """Train in a folder, or go on."""
    folder.mkdir(parents=True, exist_ok=True)
    log = RunLog(folder, module.config.log_every, CLASSES, listener or Listener())
    validation = make_validation(folder, log, module.config) if validate else None
    return fit(module, folder, log=log, validation=validation, callbacks=callbacks)


class WarningChips:
    """Draws chips of another source, and warns of each."""

    def __init__(self, source: ChipSource) -> None:
        self.source = source

    def chip(self, key: Sequence[int], side: int) -> tuple[Tensor, Tensor]:
        warnings.warn(f"chip {key[-1]} is bad", GeosegWarning, stacklevel=1)
        return self.source.chip(key, side)


class KillAt(Callback):
    """Kills the process outright in the middle of a step: gradients are there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_optimizer_step(self, trainer: Any, *_: object) -> None:  # noqa: ANN401
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class KeepGradients(Callback):
    """Holds batch norms in eval mode, and writes the gradients of each step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, _: object, module: nn.Module, *__: object) -> None:
        hold_norms(module)

    def on_before_optimizer_step(
        self,
        trainer: Any,  # noqa: ANN401
        module: nn.Module,
        _: object,
    ) -> None:
        if trainer.is_global_zero:
            name = f"gradients-{trainer.global_step}.pt"
            torch.save(gradients(module), self.folder / name)


def hold_norms(module: nn.Module) -> None:
    """Put batch norms into eval mode."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by name; those of parameters without one are left out."""
    return {
        name: parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }


def main() -> None:
    """Train as asked for on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--gradients", action="store_true")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    changes = dict(setting.split("=") for setting in arguments.settings)
    module = make_module(**{key: json.loads(value) for key, value in changes.items()})
    callbacks: list[Callback] = []
    if arguments.kill_at is not None:
        callbacks.append(KillAt(arguments.kill_at))
    if arguments.gradients:
        callbacks.append(KeepGradients(arguments.folder))
    train(module, arguments.folder / "out", *callbacks, validate=True)


if __name__ == "__main__":
    main()
