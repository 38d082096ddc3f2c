"""Pictures of chips: image, labels and others side by side, in class colours."""

from __future__ import annotations

import numpy as np
import torch

from geoseg.data.labelled import IGNORE
from geoseg.data.pictures import draw_chips
from geoseg.types import ClassInfo

CLASSES = (ClassInfo(3, "water", (10, 20, 200)), ClassInfo(5, "road", (250, 10, 30)))


def test_chips_are_shown_with_each_mask_and_a_legend() -> None:
    images = torch.full((3, 3, 40, 40), 0.2)
    images[:, 1] = 0.6
    labels = torch.zeros(3, 40, 40, dtype=torch.int64)
    labels[:, :20] = 1
    labels[:, 30:] = IGNORE
    predicted = torch.ones_like(labels)
    sheet = draw_chips(images, [("labels", labels), ("model", predicted)], CLASSES)
    pixels = np.asarray(sheet).reshape(-1, 3)
    counts = {
        tuple(c): int((pixels == c).all(1).sum()) for c in np.unique(pixels, axis=0)
    }
    assert counts[51, 153, 51] == 3 * 1600
    assert counts[10, 20, 200] >= 3 * 400  # water in labels, and the legend
    assert counts[250, 10, 30] >= 3 * (800 + 1600)
    # No label is shown as what no class can be taken for.
    assert counts[205, 205, 205] + counts[165, 165, 165] >= 3 * 400
    # Two columns of three panels, two rows.
    assert sheet.width > 6 * 40
    assert sheet.height > 2 * 40


def test_images_of_any_number_of_bands_are_shown() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    for bands in (1, 2, 4):
        sheet = draw_chips(torch.zeros(1, bands, 8, 8), [("labels", labels)], CLASSES)
        assert sheet.mode == "RGB"
