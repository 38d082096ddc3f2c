"""Chips as pictures: what the image shows, what is true, what was predicted."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from geoseg.errors import SceneError
from geoseg.evaluation.counts import Indices
from geoseg.evaluation.matching import ClassPairs
from geoseg.evaluation.scene import PairReader, SceneMasks
from geoseg.grid import Window
from geoseg.io.overview import read_picture
from geoseg.preview.paint import choose_stretch, stretched

UNKNOWN = (214, 214, 218)
"""Colour of what has no label, or no prediction."""


@dataclass(frozen=True, slots=True)
class ChipPictures:
    """One chip as `data:` URLs."""

    image: str | None
    """What was segmented; None if it cannot be read any more."""
    truth: str
    """Labels in the colours of their classes."""
    predicted: str
    """Class mask in the same colours."""


def draw_chip(
    scene: SceneMasks,
    pairs: ClassPairs,
    window: Window,
    bands: Sequence[int] | None = None,
) -> ChipPictures:
    """Draw a chip.

    Args:
        scene: The scene.
        pairs: Classes and their colours.
        window: The chip, pixels of the class mask.
        bands: 1-based bands for red, green, blue; None chooses.
    """
    with PairReader(scene, pairs) as reader:
        truth, predicted = reader.indices(window)
        grid = reader.grid.window(window)
    try:
        picture = read_picture(scene.image, grid, bands, truth.shape)
    except SceneError:  # It moved away since; the figures are of its masks.
        image = None
    else:
        image = _url(stretched(picture, choose_stretch(picture)), "JPEG")
    return ChipPictures(
        image=image, truth=_painted(truth, pairs), predicted=_painted(predicted, pairs)
    )


def _painted(indices: Indices, pairs: ClassPairs) -> str:
    table = np.full((256, 3), UNKNOWN, np.uint8)
    for index, info in enumerate(pairs.columns):
        table[index] = info.color
    return _url(table[indices], "PNG")


def _url(pixels: npt.NDArray[np.uint8], kind: str) -> str:
    stream = io.BytesIO()
    options = {"quality": 88} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(stream, kind, **options)
    encoded = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{encoded}"
