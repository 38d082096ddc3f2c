"""Tiles of random logits, and blending them with the library or the reference."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest

from geoseg.blending import blend_classes, native
from geoseg.blending.placing import Tiles
from geoseg.grid import Window
from geoseg.tiling import TileGrid
from geoseg.types import BlendSpace, BlendWindow

WINDOWS: tuple[BlendWindow, ...] = get_args(BlendWindow)
SPACES: tuple[BlendSpace, ...] = get_args(BlendSpace)

Pixels = npt.NDArray[np.uint8]
Keep = npt.NDArray[np.bool_]


def draw_tiles(
    grid: TileGrid,
    size: int,
    num_classes: int,
    *,
    dtype: npt.DTypeLike = np.float16,
    seed: int = 0,
) -> Tiles:
    """Unrelated logits for every tile; those of a region as those of the scene."""
    return {
        (i, j): np.random.default_rng((seed, row, col))
        .normal(0, 2, (num_classes, size, size))
        .astype(dtype)
        for (i, row), (j, col) in itertools.product(
            enumerate(grid.rows), enumerate(grid.cols)
        )
    }


def draw_keep(output: Window, seed: int = 0) -> Keep:
    """Two thirds of the pixels, and some rows without any."""
    rng = np.random.default_rng(seed)
    keep = rng.random((output.height, output.width)) < 2 / 3
    keep[rng.random(output.height) < 1 / 4] = False
    return keep


def blend(
    tiles: Tiles,
    grid: TileGrid,
    output: Window | None = None,
    *,
    window: BlendWindow = "hann",
    space: BlendSpace = "logits",
    keep: Keep | None = None,
    reference: bool = False,
    scores: Pixels | None = None,
) -> tuple[Pixels, Pixels]:
    """Blend with the native library, or with the reference."""
    output = output or grid.output
    if keep is None:
        keep = np.ones((output.height, output.width), np.bool_)
    num_classes = next(iter(tiles.values())).shape[0]
    ids = (np.arange(num_classes)[::-1] + 254 - num_classes).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        if reference:
            patch.setattr(native, "library", lambda: None)
        mask, confidence = blend_classes(
            tiles,
            grid,
            output,
            keep=keep,
            ids=ids,
            window=window,
            space=space,
            scores_out=scores,
        )
    assert confidence is not None
    return mask, confidence
