"""Pixels near borders of classes, for boundary IoU.

Cheng, Girshick, Dollar, Berg, Kirillov: "Boundary IoU: Improving Object-Centric Image
Segmentation Evaluation", CVPR 2021. Their measure for one mask is IoU of those pixels
only that lie within a distance d of the mask's contour, inside the mask; distance is
that of their published code, erosions by a 3 x 3 square. The edge of the image is a
contour, as there.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geoseg.evaluation.counts import IGNORE, Indices

SHARE = 0.02
"""Distance over the image's diagonal, as the paper has it for photographs."""

LARGEST_IMAGE = 1024
"""Side of the square whose diagonal is taken for larger scenes, pixels: 2 % of that of
a whole scene would reach across its objects."""


def border_width(shape: tuple[int, int], given: int | None = None) -> int:
    """Return the distance that counts as near, pixels.

    Args:
        shape: Height and width of the scene, pixels.
        given: Distance asked for; None is 2 % of the diagonal, and of large scenes of
            that of 1024 x 1024 pixels, 29 pixels.
    """
    if given is not None:
        return given
    largest = math.hypot(LARGEST_IMAGE, LARGEST_IMAGE)
    return max(1, round(SHARE * min(math.hypot(*shape), largest)))


def near_border(indices: Indices, width: int) -> npt.NDArray[np.bool_]:
    """Tell which pixels have another class within a distance, in a square around them.

    What is no class (`IGNORE`) makes no border: nobody knows what is there. The edge
    of the array does; give a block with a margin of `width` where the scene goes on.

    Args:
        indices: Class of each pixel, shape (height, width), below 254 or `IGNORE`.
        width: The distance, pixels, >= 1.
    """
    # Shifted by one, 0 is free for what is unknown and loses against all classes.
    own = np.where(indices == IGNORE, np.uint8(0), indices + np.uint8(1))
    side = 2 * width + 1
    # An edge that is both: below all classes for the smallest, above for the largest.
    highest = ndimage.maximum_filter(own, side, mode="constant", cval=255)
    lowest = ndimage.minimum_filter(
        np.where(own == 0, np.uint8(255), own), side, mode="constant", cval=0
    )
    near: npt.NDArray[np.bool_] = (own != 0) & ((highest != own) | (lowest != own))
    return near
