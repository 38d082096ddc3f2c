"""`geoseg explain`: every kind writes figures and layers that lie in the scene."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasters import ROTATED, write_raster
from tiny_models import CLASSES, MEAN, STD, adapter_keys, save_segmenter, segmenter
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from geoseg.errors import ExplainError, GeosegError
from geoseg.models.export import save_model
from geoseg.pipelines.explain import ExplainConfig, Kind, prepare, run

AT = ROTATED @ (70.5, 60.5)
"""A place in the tile at row 32 and column 48."""

OTHER = (*np.subtract(ROTATED @ (5, 5), 1), *np.add(ROTATED @ (5, 5), 1))
"""A window outside of that tile."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_segmenter(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 96, 130)).astype(np.uint8)
    pixels[:, :, 120:] = 0
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    return str(write_raster(path, pixels, transform=ROTATED, nodata=0))


def explain(
    kind: Kind,
    scene: str,
    model: str,
    out: Path,
    **options: object,
) -> list[str]:
    config = ExplainConfig(kind, scene, out, model=model, **({"at": AT} | options))  # type: ignore[arg-type]
    return [path.name for path in run(config)]


EXPECTED: dict[Kind, list[str]] = {
    "patches": ["patches.png", "patches.gpkg"],
    "attention": ["attention.png", "attention-layers.png", "attention.tif"],
    "sampling": [
        *("sampling.png", "sampling-parts.png", "sampling.gpkg"),
        *("cost.csv", "cost.png"),
    ],
    "position": ["position.png", "position.tif"],
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_kind_writes_its_figures_and_layers(
    tmp_path: Path, scene: str, model: str, kind: Kind
) -> None:
    assert explain(kind, scene, model, tmp_path) == EXPECTED[kind]
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    for path in tmp_path.glob("*.tif"):
        with rasterio.open(path) as dataset:
            # Four patches of 16 pixels, from row 32 and column 48.
            assert dataset.shape == (4, 4)
            corner = np.array(dataset.transform @ (1, 2))
            np.testing.assert_allclose(corner, ROTATED @ (64, 64))


def test_a_tile_is_prepared_without_results_and_only_at_a_place(
    tmp_path: Path, scene: str, model: str
) -> None:
    config = ExplainConfig("features", scene, tmp_path, at=AT, model=model)
    tile = prepare(config)
    assert tile.subject.images.shape[:2] == (1, 3)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ExplainError, match="that of a place"):
        prepare(dataclasses.replace(config, at=None))


def test_masks_are_written_layer_by_layer(
    tmp_path: Path, scene: str, model: str
) -> None:
    names = explain("masks", scene, model, tmp_path, query=3, class_name="road")
    assert names == [
        *("masks.png", "contributions.tif", "query-3.png"),
        *("query-3-layer-0.tif", "query-3-masks.tif"),
    ]
    with rasterio.open(tmp_path / "query-3-layer-0.tif") as dataset:
        attention, region = dataset.read(1), dataset.read(2)
        assert dataset.descriptions[:2] == ("attention", "may look here")
        assert dataset.shape == (2, 2)
    assert (attention[region == 0] == 0).all()
    assert attention.sum() == pytest.approx(1)
    with rasterio.open(tmp_path / "contributions.tif") as dataset:
        bands = dataset.read()
        assert dataset.descriptions[0] == "score"
    assert (bands[1:].sum(0) <= bands[0] + 1e-5).all()


def test_points_lie_where_they_are_sampled(
    tmp_path: Path, scene: str, model: str
) -> None:
    explain("sampling", scene, model, tmp_path, level=1)
    points = geopandas.read_file(tmp_path / "sampling.gpkg", layer="sampling")
    queries = points[points.role == "query"]
    first = queries[queries.part == "interaction 0, extractor"].geometry.iloc[0]
    # Of stride 16: the place is in the cell at row 1, column 1 of the tile.
    assert (first.x, first.y) == pytest.approx(ROTATED @ (48 + 24, 32 + 24))
    sums = points[points.role != "query"].groupby(["part", "head"]).weight.sum()
    assert sums.to_numpy() == pytest.approx(1)


def test_the_patch_of_the_place_is_marked(
    tmp_path: Path, scene: str, model: str
) -> None:
    explain("patches", scene, model, tmp_path)
    patches = geopandas.read_file(tmp_path / "patches.gpkg", layer="patches")
    (own,) = patches[patches.kind == "place"].itertuples()
    assert (own.number, own.row, own.col) == (1 * 4 + 1, 1, 1)
    assert own.geometry.contains(geopandas.points_from_xy([AT[0]], [AT[1]])[0])
    assert patches.geometry.area.to_numpy() == pytest.approx((16 * 0.5) ** 2)


@pytest.mark.slow
def test_a_window_stands_for_its_centre(tmp_path: Path, scene: str, model: str) -> None:
    window = (AT[0] - 4, AT[1] - 4, AT[0] + 4, AT[1] + 4)
    explain("patches", scene, model, tmp_path, at=None, window=window)
    patches = geopandas.read_file(tmp_path / "patches.gpkg", layer="patches")
    assert patches[patches.kind == "place"].number.tolist() == [5]
    explain("masks", scene, model, tmp_path, at=None, window=window)
    # Smaller than a cell of the mask, and between the centres of cells.
    window = (AT[0] - 0.6, AT[1] - 0.6, AT[0] + 0.6, AT[1] + 0.6)
    explain("masks", scene, model, tmp_path, window=window)


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("masks", {"at": None}, "masks are those of a place; give --at X,Y"),
        ("masks", {"at": (0.0, 0.0)}, "lies outside .*scene.tif, which reaches"),
        ("masks", {"at": ROTATED @ (125, 50)}, "holds no data; the nearest place"),
        ("masks", {"class_name": "sea"}, r"no class 'sea'; it has 3 \(water\), 1"),
        ("masks", {"query": 12}, "no query 12; valid is 0 to 11"),
        ("masks", {"window": OTHER}, "no pixel with data in the tile of the place"),
        ("attention", {"layer": 4}, "no layer 4; valid is 0 to 3"),
        ("attention", {"token": "sep"}, "no token 'sep'; it has patch, cls, register"),
        ("attention", {"discard": 1.0}, "give 0 or more and less than 1"),
        ("sampling", {"level": 3}, "no level 3; valid is 0 to 2"),
        ("sampling", {"part": "injector"}, "it has 'interaction 0, extractor'; "),
        ("hue", {}, "'hue' cannot be explained; patches, attention, features"),
    ],
)
def test_what_does_not_exist_is_told_with_what_does(
    tmp_path: Path,
    scene: str,
    model: str,
    kind: Kind,
    options: dict[str, object],
    told: str,
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ExplainError, match=told) as caught:
        explain(kind, scene, model, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists(), "nothing is written"


@pytest.mark.slow
def test_a_vit_alone_is_explained(tmp_path: Path, scene: str) -> None:
    folder = tmp_path / "vit"
    config = Dinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(do_resize=False).save_pretrained(folder)
    model = str(folder)
    assert explain("attention", scene, model, tmp_path / "a", token="cls", layer=1)
    assert explain("position", scene, model, tmp_path / "p")
    assert explain("features", scene, model, tmp_path / "f")
    with rasterio.open(tmp_path / "a" / "attention.tif") as dataset:
        assert dataset.count == 1 + 2 + 2 * 2
    with pytest.raises(ExplainError, match="Dinov2Model has no masked attention"):
        explain("masks", scene, model, tmp_path / "m")
    with pytest.raises(ExplainError, match="Dinov2Model has no deformable attention"):
        explain("sampling", scene, model, tmp_path / "s")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "patch"),
    # Rotary positions, and learned ones.
    [("vit_small_patch16_dinov3", 16), ("vit_small_patch14_reg4_dinov2", 14)],
)
def test_a_vit_of_timm_in_the_adapter_is_explained(
    tmp_path: Path, scene: str, architecture: str, patch: int
) -> None:
    pytest.importorskip("timm")
    small = {"dynamic_img_size": True, "embed_dim": 32, "depth": 4, "num_heads": 2}
    keys = {
        "model_type": "timm_wrapper",
        "architecture": architecture,
        "model_args": small,
    }
    network = segmenter(backbone_config=adapter_keys(backbone_config=keys))
    tile = 4 * 28
    folder = save_model(
        network,
        tmp_path / "model",
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        tile_size=tile,
        resolution=0.5,
    )
    model, side = str(folder), tile // patch
    assert explain("attention", scene, model, tmp_path / "a", token="register 4")
    with rasterio.open(tmp_path / "a" / "attention.tif") as dataset:
        # The scene is lower than the tile, which has this many patches.
        assert dataset.shape == (side, side)
        maps = dataset.read()
    assert len(maps) == 1 + 4 + 4 * 2
    assert (np.nansum(maps, axis=(1, 2)) > 0.1).all()
    with pytest.raises(ExplainError, match=r"patch, cls, .*register 4$"):
        explain("attention", scene, model, tmp_path / "b", token="register 9")
    assert explain("features", scene, model, tmp_path / "f")
    with rasterio.open(tmp_path / "f" / "similarity.tif") as dataset:
        similar = dataset.read(1)
        col, row = ~dataset.transform @ AT
    peak = np.unravel_index(np.nanargmax(similar), similar.shape)
    assert np.abs(np.subtract(peak, (row, col))).max() <= patch
    for kind in ("position", "patches", "sampling", "masks"):
        assert explain(kind, scene, model, tmp_path / kind)


def test_a_file_is_no_folder_for_results(
    tmp_path: Path, scene: str, model: str
) -> None:
    out = tmp_path / "file"
    out.touch()
    with pytest.raises(GeosegError, match="is no folder"):
        explain("patches", scene, model, out)
