"""Training chips: crops whose every draw is a function of (seed, step, sample)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.data.labelled import LabelledScene
from geoseg.errors import ConfigError

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, what saturation is measured against


@dataclass(frozen=True, slots=True)
class ChipConfig:
    """How chips are cut and varied."""

    size: int = 320
    """Side of a chip, pixels; a multiple of the patch size."""
    scale: tuple[float, float] = (0.6, 1.6)
    """Range of the magnification, drawn log-uniformly."""
    balance: float = 0.5
    """Share of chips centred on a pixel of a class drawn evenly."""
    color: float = 0.25
    """Largest relative change of brightness, contrast and saturation."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: A number makes no chip.
        """
        low, high = self.scale
        if self.size < 1:
            raise ConfigError(f"chips.size is {self.size}; use 1 or more")
        if not 0 < low <= high:
            raise ConfigError(
                f"chips.scale is [{low:g}, {high:g}]; give two numbers above 0, the "
                "smaller one first"
            )
        for name in ("balance", "color"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"chips.{name} is {getattr(self, name)}; use 0 to 1")


class ChipSampler:
    """Draws batches of chips; the same (seed, step) always gives the same batch."""

    def __init__(
        self, scenes: Sequence[LabelledScene], num_classes: int, config: ChipConfig
    ) -> None:
        self.scenes = list(scenes)
        self.num_classes = num_classes
        self.config = config
        areas = np.array([scene.labels.size for scene in scenes], np.float64)
        # Square root: a scene four times as large is drawn twice as often.
        self.weights = np.sqrt(areas) / np.sqrt(areas).sum()
        self.places = [
            [np.flatnonzero(scene.labels == k) for k in range(num_classes)]
            for scene in scenes
        ]

    def batch(
        self, seed: int, step: int, count: int, side: int
    ) -> tuple[Tensor, Tensor]:
        """Draw one batch of `count` chips, `side` pixels wide.

        Returns:
            Images (B, 3, side, side), float32 in 0..1, and labels (B, side, side),
            int64, `geoseg.data.labelled.IGNORE` where unlabelled.
        """
        chips = [
            self._chip(np.random.default_rng((seed, step, sample)), side)
            for sample in range(count)
        ]
        images, labels = zip(*chips, strict=True)
        return torch.stack(images), torch.stack(labels)

    def _chip(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        index = int(rng.choice(len(self.scenes), p=self.weights))
        scene = self.scenes[index]
        height, width = scene.labels.shape
        low, high = np.log(self.config.scale)
        side = round(size / float(np.exp(rng.uniform(low, high))))
        side = min(side, height, width)
        row, col = self._corner(rng, index, side)
        image = torch.from_numpy(
            scene.image[:, row : row + side, col : col + side].astype(np.float32) / 255
        )
        labels = torch.from_numpy(
            scene.labels[row : row + side, col : col + side].astype(np.int64)
        )
        image, labels = _resize(image, labels, size)
        image, labels = _turn(rng, image, labels)
        return _recolor(rng, image, self.config.color), labels

    def _corner(
        self, rng: np.random.Generator, index: int, side: int
    ) -> tuple[int, int]:
        height, width = self.scenes[index].labels.shape
        row = int(rng.integers(0, height - side + 1))
        col = int(rng.integers(0, width - side + 1))
        if rng.random() < self.config.balance:
            places = self.places[index][int(rng.integers(self.num_classes))]
            if len(places):
                center = int(places[int(rng.integers(len(places)))])
                row = min(max(center // width - side // 2, 0), height - side)
                col = min(max(center % width - side // 2, 0), width - side)
        return row, col


def _resize(image: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    if image.shape[-1] == size:
        return image, labels
    image = F.interpolate(
        image[None],
        size=(size, size),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0]
    labels = F.interpolate(
        labels[None, None].float(), size=(size, size), mode="nearest-exact"
    )[0, 0].long()
    return image, labels


def _turn(
    rng: np.random.Generator, image: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    turns = int(rng.integers(4))
    image, labels = torch.rot90(image, turns, (1, 2)), torch.rot90(labels, turns)
    if rng.random() < 0.5:
        image, labels = image.flip(2), labels.flip(1)
    return image.contiguous(), labels.contiguous()


def _recolor(rng: np.random.Generator, image: Tensor, strength: float) -> Tensor:
    if strength == 0:
        return image
    brightness, contrast, saturation = 1 + rng.uniform(-strength, strength, 3)
    cast = 1 + rng.uniform(-strength / 5, strength / 5, (3, 1, 1))
    image = image * torch.from_numpy(cast * brightness).float()
    image = (image - image.mean()) * contrast + image.mean()
    gray = (image * torch.tensor(LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    recolored: Tensor = (image - gray) * saturation + gray
    return recolored.clamp(0, 1)
