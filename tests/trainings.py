"""Small trainings: their configuration, their data, and who hears of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import labelled_scenes
import numpy as np
import tiny_models
from PIL import Image

from geoseg.config import convert
from geoseg.pipelines.train import TrainConfig
from geoseg.training.progress import Listener, Score


def configuration(tmp_path: Path, **changes: Any) -> TrainConfig:  # noqa: ANN401
    root = tmp_path / "scenes"
    if not root.exists():
        labelled_scenes.write(root, ["one", "two", "unseen"])
    classes = [
        {"id": 10 * i, "name": name, "color": list(color)}
        for i, (name, color) in enumerate(
            zip(labelled_scenes.CLASSES, labelled_scenes.COLORS, strict=True), start=1
        )
    ]
    model = tiny_models.preset(
        backbone_config=tiny_models.adapter_keys(freeze_backbone=False)
    )
    keys: dict[str, Any] = {
        "data": {
            "root": str(root),
            "layout": "parts",
            "split": {"train": ["one", "two"]},
            "classes": classes,
            "ignore": ["#000000"],
            "resolution": 0.5,
            "mean": list(tiny_models.MEAN),
            "std": list(tiny_models.STD),
        },
        "model": model,
        "out": str(tmp_path / "out"),
        "tile_size": 96,
        "chips": {"size": 48},
        "train": {
            "steps": 3,
            "batch_size": 2,
            "final_chip_size": 48,
            "log_every": 1,
            "validate_every": 2,
        },
    }
    keys["data"].update({k: changes.pop(k) for k in [*changes] if k in keys["data"]})
    return convert({**keys, **changes}, TrainConfig)


def write_pairs(root: Path, names: list[str]) -> dict[str, Any]:
    """Write scenes of a file each; return how they are found."""
    for number, name in enumerate(names):
        image, labels = labelled_scenes.draw(96, 96, seed=number)
        colors = np.zeros((*labels.shape, 3), np.uint8)
        for index, color in enumerate(labelled_scenes.COLORS):
            colors[labels == index] = color
        for kind, pixels in (("images", image.transpose(1, 2, 0)), ("masks", colors)):
            folder = root / "scenes" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    return {"images": "images/{stem}.png", "labels": "masks/{stem}.png"}


class Heard(Listener):
    """Records the steps that a run tells of."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.looked_at: list[tuple[str, int, int]] = []
        self.scores: list[Score] = []

    def validated(self, score: Score, best: bool) -> None:
        self.scores.append(score)

    def looked(self, part: str, done: int, total: int) -> None:
        self.looked_at.append((part, done, total))

    def step(self, step: int, terms: dict[str, float]) -> None:
        self.steps.append(step)
