"""Changes that make new chips of old ones; image and labels move together.

The operators are torchvision's (`transforms.v2.functional`). Their classes would draw
from torch's global generator, and resize masks by `nearest`, which shifts them by half
a pixel; here the numbers come from the caller's generator.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

_CAST = 0.2
"""Largest change of one band beside the others, as a part of that of all."""


def resize(image: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Resize image (C, H, W), float, and labels (H, W), uint8, to `size` squared."""
    if labels.shape == (size, size):
        return image, labels
    image = F.resize(image, [size, size], antialias=True)
    labels = F.resize(
        labels[None], [size, size], interpolation=InterpolationMode.NEAREST_EXACT
    )[0]
    return image, labels


def turn(
    rng: np.random.Generator, image: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn by quarters and mirror: one of the eight ways that a square lies."""
    turns = int(rng.integers(4))
    image, labels = (torch.rot90(one, turns, (-2, -1)) for one in (image, labels))
    if rng.random() < 0.5:
        image, labels = F.horizontal_flip(image), F.horizontal_flip(labels)
    return image.contiguous(), labels.contiguous()


def recolor(rng: np.random.Generator, image: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast and saturation, and give a slight cast.

    Args:
        rng: Where the numbers come from.
        image: (C, H, W), float, mostly 0..1.
        strength: Largest relative change.
    """
    if strength == 0:
        return image
    # torchvision clamps to 0..1. A few pixels of some sensors are above their scale,
    # and decibels and heights are below 0.
    low, high = min(0.0, float(image.min())), max(1.0, float(image.max()))
    span = high - low
    return span * _recolored(rng, (image - low) / span, strength) + low


def _recolored(rng: np.random.Generator, image: Tensor, strength: float) -> Tensor:
    brightness, contrast, saturation = 1 + rng.uniform(-strength, strength, 3)
    cast = 1 + rng.uniform(-1, 1, len(image)) * strength * _CAST
    # Band by band: torchvision knows images of one or three bands only.
    bands = [
        F.adjust_brightness(band[None], float(brightness * gain))
        for band, gain in zip(image, cast, strict=True)
    ]
    image = torch.cat(bands)
    if len(image) != 3:
        return torch.cat([F.adjust_contrast(band[None], contrast) for band in image])
    image = F.adjust_contrast(image, float(contrast))
    recolored: Tensor = F.adjust_saturation(image, float(saturation))
    return recolored
