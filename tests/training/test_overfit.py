"""The tiny preset learns four chips by heart."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from geoseg.config import compose, convert, override
from geoseg.data.chips import chip_sampler
from geoseg.data.labelled import LabelledScene
from geoseg.data.sources import open_split
from geoseg.data.survey import survey
from geoseg.models.export import declare
from geoseg.models.segmenter import build_mask2former
from geoseg.pipelines.train import TrainConfig
from geoseg.training.config import LoopConfig, LossConfig
from geoseg.training.fit import fit
from geoseg.training.logs import RunLog
from geoseg.training.module import SegmentationModule
from geoseg.training.progress import Listener, Score
from geoseg.training.validation import Validation
from geoseg.types import ModelSpec

SIDE = 128


class FourChips:
    """The same chips, step after step."""

    def __init__(self, chips: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.chips = chips

    def chip(self, key: Sequence[int], _: int) -> tuple[Tensor, Tensor]:
        return self.chips[key[2] % len(self.chips)]


class Told(Listener):
    """Tells scores, with `pytest -s`, and keeps the last."""

    def __init__(self) -> None:
        self.begun = time.process_time()
        self.miou = 0.0

    def validated(self, score: Score, best: bool) -> None:
        self.miou = score.miou
        seconds = time.process_time() - self.begun
        sys.stdout.write(
            f"step {score.step}: mIoU {score.miou:.3f} after {seconds:.0f} CPU s\n"
        )


@pytest.mark.slow
def test_four_chips_are_learned_by_heart(tmp_path: Path, shared_data: Path) -> None:
    root = shared_data / "dubai-mbrsc"
    plain = compose("train-builtin", [override("data.root", str(root))])
    config = convert(plain, TrainConfig)
    split = open_split(config.data, ("train",))
    sampler = chip_sampler(survey(split.train, config.data), config.data, config.chips)
    chips = [sampler.chip((0, 0, sample), SIDE) for sample in range(4)]
    torch.manual_seed(0)
    classes = config.data.table.infos
    model = build_mask2former({**config.model, "num_labels": len(classes)})
    declaration: dict[str, Any] = {
        "classes": classes,
        "mean": config.data.mean,
        "std": config.data.std,
        "tile_size": SIDE,
        "resolution": 1.0,
    }
    declare(model, **declaration)
    loop = LoopConfig(
        steps=100,
        batch_size=4,
        learning_rate=2e-3,
        warmup_steps=20,
        final_share=0,
        ema_decay=0.9,
        validate_every=25,
        accelerator="cpu",
    )
    module = SegmentationModule(
        model,
        FourChips(chips),
        loop,
        weights=LossConfig(set_weight=0.25),
        chip_size=SIDE,
        mean=config.data.mean,
        std=config.data.std,
    )
    told = Told()
    log = RunLog(tmp_path, 50, classes, told)
    spec = ModelSpec(
        name="four",
        patch_size=16,
        bands=("red", "green", "blue"),
        scale=(("uint8", 255.0),),
        weights_sha256="",
        **declaration,
    )
    validation = Validation(
        [as_scene(f"chip {i}", *chip) for i, chip in enumerate(chips)],
        spec,
        tmp_path,
        every=25,
        patience=None,
        precision="float32",
        seen=log,
        looked=log.looked,
    )
    fit(module, tmp_path, log=log, validation=validation)
    assert told.miou > 0.95


def as_scene(name: str, image: Tensor, labels: Tensor) -> LabelledScene:
    """The chip as a scene of 8 bits."""
    pixels = (image * 255).round().to(torch.uint8).numpy()
    return LabelledScene(name, pixels, labels.numpy().astype(np.uint8))
