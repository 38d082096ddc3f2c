"""The job `geoseg train`: fit a preset to labelled scenes and write a model folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.config import dump
from geoseg.data.chips import ChipConfig, chip_sampler
from geoseg.data.config import DataConfig
from geoseg.data.labelled import LabelledSource
from geoseg.data.survey import Survey
from geoseg.errors import ModelError, OutputError
from geoseg.io.atomic import atomic_path, remove_leftovers
from geoseg.io.lock import exclusive
from geoseg.layout import RUN_YAML
from geoseg.models.export import Declared, declare, save_model
from geoseg.models.fine_tune import start_from, warn_of_other_input
from geoseg.models.presets import HEAD, PRETRAINED
from geoseg.models.registry import find_model, weights_sha256
from geoseg.models.segmenter import build_mask2former
from geoseg.pipelines.train_declared import declared_by, describe
from geoseg.pipelines.train_scenes import (
    TrainingScenes,
    find_scenes,
    left_for_others,
)
from geoseg.training.card import write_card
from geoseg.training.checkpoints import begun_with, check_folder
from geoseg.training.config import LoopConfig, LossConfig
from geoseg.training.fit import Outcome, fit
from geoseg.training.logs import RunLog
from geoseg.training.module import SegmentationModule
from geoseg.training.outputs import writing
from geoseg.training.processes import check_rank, is_first_process
from geoseg.training.progress import Listener
from geoseg.training.validation import Validation
from geoseg.types import ModelSpec

__all__ = [
    "DataConfig",
    "Listener",
    "TrainConfig",
    "Trained",
    "is_first_process",
    "run",
]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything a training run depends on."""

    data: DataConfig
    model: dict[str, Any]
    """Keyword arguments of `Mask2FormerConfig`."""
    out: Path
    """Run folder: checkpoints, logs, and the finished model in `model/`."""
    start_from: str | None = None
    """Model whose weights training starts from, as `geoseg segment --model` takes it;
    None: random ones, and what `model` names."""
    tile_size: int = 720
    """Side of the tiles the finished model asks for, pixels."""
    chips: ChipConfig = field(default_factory=ChipConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    torch_threads: int = 1
    """Threads torch uses."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training."""

    folder: Path
    """The model folder, an ordinary Hugging Face checkpoint."""
    outcome: Outcome


def run(config: TrainConfig, listener: Listener | None = None) -> Trained:
    """Train, or go on training, and write the model folder.

    Args:
        config: The resolved configuration.
        listener: Hears of the progress.

    Raises:
        UsageError: The configuration makes no training, or another run has the folder
            or began it with another recipe.
        TrainingError: The loss is not finite, memory is too small, or the environment
            says that this process is one of others.
        FileOutputError: The disk is full or gone.
    """
    check_rank(config.train.devices)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{config.out} cannot be made ({error.strerror}); set another out"
        ) from error
    listener = listener or Listener()
    if not is_first_process(config.train.devices):  # the first one holds the lock
        return _run_alone(config, listener)
    with exclusive(config.out / ".lock", config.out):
        # Checkpoints that a kill cut short: they are large.
        remove_leftovers(config.out)
        return _run_alone(config, listener)


def _run_alone(config: TrainConfig, listener: Listener) -> Trained:
    torch.set_num_threads(config.torch_threads)
    torch.manual_seed(config.train.seed)
    classes = config.data.table.infos
    begun = begun_with(config.out)
    model = build_mask2former({**_without_start(config), "num_labels": len(classes)})
    if config.start_from is not None and not begun:
        start_from(model, config.start_from, [info.name for info in classes])
    spec = describe(model, config)
    if config.start_from is not None and not begun:
        warn_of_other_input(config.start_from, spec)
    data = config.data
    check_model_folder(config.out, begun)
    loop = config.train
    scenes = find_scenes(data, spec, loop.validation_scenes, listener, loop.devices)
    declared = declared_by(config, scenes)
    declare(model, **declared)
    spec = replace(
        spec,
        bands=tuple(declared["bands"]),
        scale=tuple(declared["scale"].items()),
        chosen=declared["chosen"],
    )
    largest = max(side for _, side in loop.phases(config.chips.size))
    chips = chip_sampler(scenes.trained, data, config.chips, largest=largest)
    recipe = recipe_of(config, scenes) | _start(config, begun)
    check_folder(config.out, recipe)
    if is_first_process(config.train.devices):
        # After the checkpoint was accepted: it tells of the run that is in the folder.
        _write_recipe(config)
    module = SegmentationModule(
        model,
        chips,
        config.train,
        weights=config.loss,
        chip_size=config.chips.size,
        mean=data.mean,
        std=data.std,
        recipe=recipe,
    )
    log = RunLog(config.out, config.train.log_every, classes, listener)
    with left_for_others(scenes, config.train.devices):
        outcome = fit(
            module,
            config.out,
            log=log,
            validation=_validation(config, spec, scenes.judged.sources, log),
            threads=config.torch_threads,
        )
    if is_first_process(config.train.devices):
        card = write_card(
            spec,
            outcome,
            training=[scene.name for scene in scenes.trained.sources],
            validation=[scene.name for scene in scenes.judged.sources],
            recipe=recipe,
        )
        _write_model(config.out, module.average, card, declared)
    return Trained(config.out / "model", outcome)


def _write_recipe(config: TrainConfig) -> None:
    final = config.out / RUN_YAML
    with writing(final), atomic_path(final) as path:
        path.write_text(dump(config))


def _without_start(config: TrainConfig) -> dict[str, Any]:
    """Leave out pretrained parts of a model whose weights are all another one's."""
    if config.start_from is None:
        return config.model
    return {k: v for k, v in config.model.items() if k not in (PRETRAINED, HEAD)}


def _start(config: TrainConfig, begun: Mapping[str, object]) -> dict[str, object]:
    """Tell by its weights what the run starts from; its folder may move, or go."""
    if config.start_from is None:
        return {}
    try:
        weights: object = weights_sha256(find_model(config.start_from))
    except ModelError:
        weights = begun.get("start_from")
        if weights is None:
            raise
    return {"start_from": weights}


def _validation(
    config: TrainConfig, spec: ModelSpec, scenes: Sequence[LabelledSource], log: RunLog
) -> Validation | None:
    if not scenes:
        return None
    return Validation(
        scenes,
        spec,
        config.out,
        every=config.train.validate_every,
        patience=config.train.patience,
        precision=config.train.precision,
        seen=log,
        looked=log.looked,
        on_bad=config.data.on_bad,
    )


def _write_model(
    out: Path,
    model: Mask2FormerForUniversalSegmentation,
    card: str,
    declared: Declared,
) -> None:
    # Under its final name only when it is whole; a finished model can be made again
    # from the checkpoint, so an older folder may go first.
    folder, unfinished = out / "model", out / ".model"
    shutil.rmtree(unfinished, ignore_errors=True)
    with writing(folder):
        save_model(model, unfinished, **declared)
        (unfinished / "README.md").write_text(card)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)


def check_model_folder(out: Path, begun: Mapping[str, object]) -> None:
    """Refuse to write where a model is that was not made here.

    Raises:
        OutputError: There is one.
    """
    folder = out / "model"
    if folder.exists() and not begun:
        raise OutputError(
            f"{folder} is there already, and no training in {out} made it; move it "
            "away or set another out"
        )


def recipe_of(config: TrainConfig, scenes: TrainingScenes) -> dict[str, object]:
    """What a run's weights depend on, by dotted key.

    The folders are left out, which may move, and how often is told or saved.
    """
    free = {
        "out",
        "data.root",
        "start_from",
        "train.checkpoint_seconds",
        "train.log_every",
        "train.workers",
    }
    flat = dict(_flatten(yaml.safe_load(dump(config)), ""))
    kept = {key: value for key, value in flat.items() if key not in free}
    parts = {"train": scenes.trained, "validation": scenes.judged}
    return kept | {f"scenes.{part}": _digest(seen) for part, seen in parts.items()}


def _digest(seen: Survey) -> str:
    """Tell scenes that were looked at from others, in few characters.

    By their names, and by how many pixels of each class lie where: other labels have
    other counts. Both in one, since those of other scenes differ anyway.
    """
    names = "\n".join(source.name for source in seen.sources)
    counts = hashlib.sha256()
    for scene in seen.scenes:
        counts.update(scene.counts.tobytes())
    named = hashlib.sha256(names.encode()).hexdigest()[:12]
    return f"{len(seen.sources)} scenes, {named}, labels {counts.hexdigest()[:12]}"


def _flatten(value: object, key: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
