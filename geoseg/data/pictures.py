"""Chips and their labels side by side, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from geoseg.data.classes import IGNORE
from geoseg.types import ClassInfo

_GAP = 6
_MARGIN = 12
_TEXT = 14
_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_CHECKS = ((205, 205, 205), (165, 165, 165))
"""Two greys of a chequer-board: no label, as image editors show transparency."""


def draw_chips(
    images: Tensor,
    masks: Sequence[tuple[str, Tensor]],
    classes: Sequence[ClassInfo],
    columns: int = 2,
) -> Image.Image:
    """Draw chips, each beside its masks in the colours of the classes, with a legend.

    Args:
        images: (B, C, H, W), float, 0..1; one band, or the first three are shown.
        masks: Titles, and class indices (B, H, W), `IGNORE` where there is none: for
            example labels and predictions.
        classes: Classes in the order of their indices.
        columns: Chips side by side.

    Returns:
        The picture, RGB.
    """
    count, _, height, width = images.shape
    columns = min(columns, count)
    panels = 1 + len(masks)
    block = panels * (width + _GAP) + _MARGIN
    rows = -(-count // columns)
    top = _MARGIN + _TEXT + _GAP
    legend = _legend(classes, columns * block)
    size = (
        columns * block + _MARGIN,
        top + rows * (height + _GAP) + legend.height + _MARGIN,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column in range(columns):
        for panel, title in enumerate(["image", *(title for title, _ in masks)]):
            left = _MARGIN + column * block + panel * (width + _GAP)
            draw.text((left, _MARGIN - 2), title, _INK, _font())
    for chip in range(count):
        row, column = divmod(chip, columns)
        pictures = [
            _photo(images[chip]),
            *(_painted(m[chip], classes) for _, m in masks),
        ]
        for panel, picture in enumerate(pictures):
            left = _MARGIN + column * block + panel * (width + _GAP)
            place = (left, top + row * (height + _GAP))
            sheet.paste(Image.fromarray(picture), place)
    sheet.paste(legend, (_MARGIN, size[1] - legend.height - _MARGIN // 2))
    return sheet


def _photo(image: Tensor) -> npt.NDArray[np.uint8]:
    """Return an image as (height, width, 3)."""
    bands = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    shown = (bands.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return np.ascontiguousarray(shown.cpu().numpy())


def _painted(mask: Tensor, classes: Sequence[ClassInfo]) -> npt.NDArray[np.uint8]:
    """Return a mask in the colours of the classes, (height, width, 3)."""
    indices = mask.cpu().numpy()
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = [info.color for info in classes]
    painted: npt.NDArray[np.uint8] = table[indices]
    rows, cols = np.indices(indices.shape) // 8
    checks = np.array(_CHECKS, np.uint8)[(rows + cols) % 2]
    painted[indices == IGNORE] = checks[indices == IGNORE]
    return painted


def _legend(classes: Sequence[ClassInfo], width: int) -> Image.Image:
    """Return a line or more of coloured squares with the names of the classes."""
    font, line = _font(), _TEXT + _GAP
    places: list[tuple[int, int]] = []
    left, top = 0, _GAP
    for info in classes:
        needed = _TEXT + _GAP + round(font.getlength(info.name)) + 3 * _GAP
        if left and left + needed > width:
            left, top = 0, top + line
        places.append((left, top))
        left += needed
    picture = Image.new("RGB", (width, top + line), _PAPER)
    draw = ImageDraw.Draw(picture)
    for info, (x, y) in zip(classes, places, strict=True):
        draw.rectangle((x, y, x + _TEXT - 1, y + _TEXT - 1), info.color, _INK)
        draw.text((x + _TEXT + _GAP, y - 1), info.name, _INK, font)
    return picture


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT)
