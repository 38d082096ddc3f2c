"""Blended logits of one scene against those of the whole image at once."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from blended import blend_rows
from rasters import write_raster
from running import TILE, load_predictor, plan_job, read_band, smooth_image
from stubs import save_stub

from geoseg.finish import finish_scene
from geoseg.graph import SceneJob, predict_band, run_scene
from geoseg.inference import Predictor
from geoseg.models.registry import load_model
from geoseg.types import BlendWindow

Floats = npt.NDArray[np.float32]


def blended_logits(job: SceneJob, predictor: Predictor) -> Floats:
    """Predict all bands and blend them, shape (K, height, width)."""
    tiles = {
        place: logits
        for band in job.bands
        for place, logits in predict_band(job, band.index, predictor).tiles.items()
    }
    output = job.grid.output
    blocks = blend_rows(tiles, job.grid, output, window=job.window, space=job.space)
    return np.concatenate([values for _, values, _ in blocks], axis=1)


def untiled_logits(model: Path, image: npt.NDArray[np.uint8]) -> Floats:
    """Logits of the whole image at once, upsampled, shape (K, height, width)."""
    pixels = torch.from_numpy(image.astype(np.float32) / 255)[None]
    with torch.inference_mode():
        logits = load_model(model)(pixel_values=pixels).logits
        size = image.shape[1:]
        full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    array: Floats = full[0].numpy()
    return array


def far_from_tile_borders(job: SceneJob, margin: int) -> npt.NDArray[np.bool_]:
    """Pixels farther than `margin` from each tile border inside the scene."""
    grid = job.grid
    axes = []
    for origins, length in ((grid.rows, grid.height), (grid.cols, grid.width)):
        ends = {*origins, *(origin + TILE for origin in origins)} - {0, length}
        axis = np.ones(length, np.bool_)
        for end in ends:
            axis[max(0, end - margin) : end + margin] = False
        axes.append(axis)
    return axes[0][:, None] & axes[1]


@pytest.mark.parametrize("window", ["hann", "linear", "none"])
@pytest.mark.parametrize("shape", [(256, 208), (240, 200), (64, 160)])
def test_tiled_logits_equal_those_of_the_whole_scene(
    tmp_path: Path, shape: tuple[int, int], window: BlendWindow
) -> None:
    image = smooth_image(*shape)
    scene = write_raster(tmp_path / "scene.tif", image)
    model = save_stub(tmp_path / "model", output_stride=4)
    job = plan_job(scene, tmp_path / "out", model, {"tiling": {"window": window}})
    predictor = load_predictor(model)

    expected = untiled_logits(model, image)
    # A tile's outermost source pixels have no neighbour to interpolate with.
    inside = far_from_tile_borders(job, margin=4)
    assert inside.any()
    assert inside[0].any(), "the scene's rim is part of the claim"
    difference = np.abs(blended_logits(job, predictor) - expected)[:, inside]
    assert difference.max() <= 2e-3 * np.ptp(expected)

    finish_scene(job, run_scene(job, predictor))
    mask = read_band(Path(job.out) / "classes.tif")
    second, first = np.sort(expected, axis=0)[-2:]
    clear = inside & (first - second > 0.05)
    assert clear.mean() > 0.3
    assert (mask == expected.argmax(axis=0) + 1)[clear].all()


def mean_step(logits: Floats, rows: list[int], cols: list[int]) -> float:
    """Mean change of logits from the pixel before a line to the one after it."""
    down = [np.abs(logits[:, r] - logits[:, r - 1]).ravel() for r in rows]
    across = [np.abs(logits[:, :, c] - logits[:, :, c - 1]).ravel() for c in cols]
    return float(np.concatenate(down + across).mean())


def tile_lines(origins: tuple[int, ...], window: BlendWindow) -> list[int]:
    """Lines where an image of tiles may show: their borders, or half way between."""
    if window == "none":
        return [(a + b + TILE + 1) // 2 for a, b in itertools.pairwise(origins)]
    ends = {origin + TILE for origin in origins[:-1]}
    return sorted({*origins[1:], *ends})


@pytest.mark.parametrize(("window", "low", "high"), [("hann", 0, 1.1), ("none", 3, 99)])
def test_blending_hides_the_seams_that_tiles_have(
    tmp_path: Path, window: BlendWindow, low: float, high: float
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(544, 544))
    deviation = 40 / 255
    model = save_stub(
        tmp_path / "model",
        kind="seams",
        num_classes=3,
        mean=(128 / 255,) * 3,
        std=(deviation,) * 3,
    )
    job = plan_job(scene, tmp_path / "out", model, {"tiling": {"window": window}})
    logits = blended_logits(job, load_predictor(model))

    rows = tile_lines(job.grid.rows, window)
    cols = tile_lines(job.grid.cols, window)
    others = sorted(set(range(1, 544)) - set(rows) - set(cols))
    draw = np.random.default_rng(1)
    random_rows = draw.choice(others, len(rows), replace=False).tolist()
    random_cols = draw.choice(others, len(cols), replace=False).tolist()
    at_tiles = mean_step(logits, rows, cols)
    ratio = at_tiles / mean_step(logits, random_rows, random_cols)
    assert low <= ratio <= high
