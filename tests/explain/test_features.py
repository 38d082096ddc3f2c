"""Features of whole scenes: one basis, no seams, and places that look the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import torch
from rasters import ROTATED, write_raster
from tiny_models import MEAN, STD, save_segmenter

from geoseg.blending.weights import axis_weights
from geoseg.errors import ExplainError
from geoseg.explain.features import Covariance, SceneFeatures, similarity_to
from geoseg.explain.vit import find_vit
from geoseg.grid import Window
from geoseg.inference import Predictor, PredictorConfig
from geoseg.io.raster import open_scene
from geoseg.models import load_model, read_spec
from geoseg.pipelines.explain import ExplainConfig, run
from geoseg.tiling import TileGrid

TILE, PATCH, STAMP = 64, 16, 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_segmenter(tmp_path_factory.mktemp("model"), tile_size=TILE)


def texture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return soft noise of a patch's size, in the middle of the range of values."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(90, 140, (3, -(-height // 8), -(-width // 8)))
    fine = np.kron(coarse, np.ones((1, 8, 8)))[:, :height, :width]
    return (fine + rng.integers(-8, 8, fine.shape)).astype(np.uint8)


def stamp() -> npt.NDArray[np.uint8]:
    """Return a bright target that nothing else in the scene is like."""
    rng = np.random.default_rng(9)
    pixels = rng.integers(0, 2, (3, STAMP // 4, STAMP // 4)) * 255
    return np.kron(pixels, np.ones((1, 4, 4))).astype(np.uint8)


@pytest.mark.slow
def test_similarity_at_one_stamp_peaks_at_the_other(
    tmp_path: Path, model: Path
) -> None:
    pixels = texture(176, 192)
    places = [(32, 48), (112, 128)]  # Of patches' corners in every tile.
    for row, col in places:
        pixels[:, row : row + STAMP, col : col + STAMP] = stamp()
    scene = write_raster(tmp_path / "scene.tif", pixels, transform=ROTATED)
    row, col = places[0]
    at = ROTATED @ (col + STAMP / 2, row + STAMP / 2)
    config = ExplainConfig(
        "features", str(scene), tmp_path / "out", at=at, model=str(model)
    )
    assert [path.name for path in run(config)] == [
        "features.png",
        "features.tif",
        "similarity.tif",
    ]

    with rasterio.open(tmp_path / "out" / "similarity.tif") as dataset:
        similar = dataset.read(1)
        assert dataset.dtypes == ("float32",)
        transform = dataset.transform
        # Of the rest of the scene, without the stamp itself.
        similar[row - PATCH : row + 2 * PATCH, col - PATCH : col + 2 * PATCH] = -1
        peak = np.unravel_index(similar.argmax(), similar.shape)
        found = np.array(transform @ (peak[1] + 0.5, peak[0] + 0.5))
    other = np.array(ROTATED @ (places[1][1] + STAMP / 2, places[1][0] + STAMP / 2))
    metres = 0.5 * PATCH
    assert np.abs(found - other).max() <= metres
    assert similar[peak] > 0.9


def scene_features(
    tmp_path: Path, model: Path, pixels: npt.NDArray[np.uint8], region: Window | None
) -> SceneFeatures:
    path = write_raster(tmp_path / "scene.tif", pixels)
    spec = read_spec(model)
    scene = open_scene(path, spec, resolution="native")
    loaded = load_model(model)
    predictor = Predictor(
        loaded, spec, PredictorConfig(str(model), spec.weights_sha256, TILE)
    )
    tiles = TileGrid(scene.grid.height, scene.grid.width, TILE, 48, region)
    return SceneFeatures(scene, tiles, predictor, find_vit(loaded))


def test_tiles_are_blended_as_logits_are(tmp_path: Path, model: Path) -> None:
    pixels = texture(100, 120)
    features = scene_features(tmp_path, model, pixels, None)
    basis = features.basis(lambda _: None)
    blended = np.zeros((3, *pixels.shape[1:]), np.float32)
    for window, colors, keep in features.blended(basis.colors, lambda _: None):
        assert keep.all()
        rows, cols = window.slices
        blended[:, rows, cols] = colors
    total, weight_sum = np.zeros(blended.shape), np.zeros(blended.shape[1:])
    for row in (0, 36):
        for col in (0, 48, 56):
            own = np.s_[row : row + TILE, col : col + TILE]
            values = torch.from_numpy(pixels[:, *own].astype(np.float32)) / 255
            mean, std = torch.tensor(MEAN), torch.tensor(STD)
            image = (values - mean[:, None, None]) / std[:, None, None]
            small = torch.from_numpy(basis.colors(features.of(image[None])))
            large = torch.nn.functional.interpolate(
                small[None], size=TILE, mode="bilinear", align_corners=False
            )[0]
            # Hann's window over the overlap, of 16 pixels between tiles 48 apart.
            down = axis_weights((0, 36), 100, TILE, "hann")[row // 36]
            across = axis_weights((0, 48, 56), 120, TILE, "hann")[
                (0, 48, 56).index(col)
            ]
            weight = down[:, None].astype(np.float64) * across
            total[:, *own] += weight * large.numpy()
            weight_sum[own] += weight
    np.testing.assert_allclose(blended, total / weight_sum, atol=1e-4)


@pytest.mark.slow
def test_tiles_leave_no_seams(tmp_path: Path, model: Path) -> None:
    features = scene_features(tmp_path, model, texture(150, 250), None)
    basis = features.basis(lambda _: None)
    blended = np.zeros((3, 150, 250), np.float32)
    for window, colors, _ in features.blended(basis.colors, lambda _: None):
        rows, cols = window.slices
        blended[:, rows, cols] = colors
    steps = np.square(np.diff(blended, axis=2)).mean(axis=(0, 1))
    # The step into the first column of a tile, or out of the last one, and those near
    # it: as far as patches are 16 pixels wide, the same two are interpolated between.
    seams = np.array([col - 1 for col in (48, 64, 96, 112, 144, 160, 186, 208)])
    near = np.mean([steps[seams + by] for by in (-4, -3, -2, 2, 3, 4)], axis=0)
    assert steps[seams].sum() <= 1.1 * near.sum()


def test_a_window_changes_no_similarity(tmp_path: Path, model: Path) -> None:
    pixels = texture(150, 170)
    whole = scene_features(tmp_path, model, pixels, None)
    part = scene_features(tmp_path, model, pixels, Window(40, 30, 70, 90))
    reference = torch.randn(32, generator=torch.Generator().manual_seed(1))

    def filled(features: SceneFeatures) -> npt.NDArray[np.float32]:
        out = np.full((150, 170), np.nan, np.float32)
        compare = similarity_to(reference)
        for window, values, _ in features.blended(compare, lambda _: None):
            out[window.slices] = values[0]
        return out

    inside = Window(40, 30, 70, 90).slices
    cut = filled(part)
    np.testing.assert_array_equal(cut[inside], filled(whole)[inside])
    assert np.isfinite(cut).sum() == 70 * 90


def test_the_basis_is_that_of_all_features_at_once() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 100
    covariance = Covariance(6)
    for start, stop in ((0, 7), (7, 7), (7, 300), (300, 500)):
        covariance.add(features[start:stop])
    basis = covariance.basis()
    expected, vectors = np.linalg.eigh(np.cov(features.T))
    np.testing.assert_allclose(basis.mean, features.mean(0))
    np.testing.assert_allclose(basis.variances, expected[::-1][:3])
    for component, vector in zip(basis.components, vectors.T[::-1], strict=False):
        assert abs(component @ vector) == pytest.approx(1)
        assert component[np.abs(component).argmax()] > 0
    assert basis.total == pytest.approx(expected.sum())


def test_too_little_data_has_no_components() -> None:
    with pytest.raises(ExplainError, match="no three components"):
        Covariance(8).basis()


def test_pixels_without_data_have_no_colour(tmp_path: Path, model: Path) -> None:
    pixels = np.maximum(texture(150, 150), 1)
    pixels[:, :, 100:] = 0
    scene = write_raster(tmp_path / "scene.tif", pixels, nodata=0)
    config = ExplainConfig("features", str(scene), tmp_path / "out", model=str(model))
    run(config)
    with rasterio.open(tmp_path / "out" / "features.tif") as dataset:
        colors = dataset.read()
        assert dataset.nodata == 0
        assert [c.name for c in dataset.colorinterp] == ["red", "green", "blue"]
    assert (colors[:, :, 100:] == 0).all()
    assert (colors[:, :, :100] > 0).all()
