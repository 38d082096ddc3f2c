"""From recipes to scenes and chips, and what is wrong on the way."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import labelled_files
import numpy as np
import pytest
import rasterio
import rasters
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from geoseg.config import compose, convert, override
from geoseg.data.chips import ChipConfig, chip_sampler
from geoseg.data.config import DataConfig
from geoseg.data.labelled import IGNORE
from geoseg.data.sources import open_split
from geoseg.data.survey import survey
from geoseg.errors import ConfigError, GeosegWarning, SceneError


def recipe(name: str, root: Path, *overrides: str) -> DataConfig:
    """Return a part of configs/data for a folder."""
    arguments = [f"data={name}", override("data.root", root), *overrides]
    return convert(compose("train-builtin", arguments)["data"], DataConfig)


def write_loveda(root: Path) -> None:
    """Write a folder as LoveDA is distributed: the test has no masks."""
    for number, place in enumerate(["Train/Urban", "Train/Rural", "Val/Urban"]):
        mask = np.arange(8, dtype=np.uint8).repeat(64).reshape(8, 64).repeat(8, 0)
        mask = np.roll(mask, number, 0)
        labelled_files.save(root / place / f"masks_png/{number}.png", mask)
        image = labelled_files.image_of(mask)
        labelled_files.save(root / place / f"images_png/{number}.png", image)
    labelled_files.save(root / "Test/Urban/images_png/9.png", image)


def test_loveda_as_distributed(tmp_path: Path) -> None:
    write_loveda(tmp_path)
    split = open_split(recipe("loveda", tmp_path))
    assert [scene.name for scene in split.train] == ["Train/Rural/1", "Train/Urban/0"]
    assert [scene.name for scene in split.validation] == ["Val/Urban/2"]
    assert split.test == ()
    scene = split.train[1]
    image, labels, _ = scene.read(scene.grid.whole)
    expected = np.where(image[0] == 0, IGNORE, image[0].astype(int) - 1)
    np.testing.assert_array_equal(labels, expected)


def test_real_loveda(shared_data: Path) -> None:
    root = shared_data / "loveda-sample-nc"
    overrides = ["data.split.train=['*']", "data.split.validation=[]"]
    split = open_split(recipe("loveda", root, *overrides))
    assert [scene.name for scene in split.train] == ["0", "2"]
    for scene in split.train:
        labels = scene.read_labels(scene.grid.whole)
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(root / f"masks_png/{scene.name}.png") as mask,
        ):
            np.testing.assert_array_equal(labels, mask.read(1) - np.uint8(1))
    data = recipe("loveda", root)
    with pytest.warns(GeosegWarning, match="no pixel of the training scenes is barren"):
        seen = survey(split.train, data)
    sampler = chip_sampler(seen, data, ChipConfig(size=128))
    images, labels_drawn = sampler.batch(0, 0, 4, 128)
    assert images.shape == (4, 3, 128, 128)
    assert set(labels_drawn.unique().tolist()) <= {0, 1, 2, 3, 5, 6}


def test_real_polygons_give_the_real_masks(shared_data: Path, tmp_path: Path) -> None:
    # Web-map tiles: their place follows from their names.
    root = shared_data / "oam-kampala-buildings"
    origin, pixel = 20037508.342789244, 40075016.685578488 / 2**21 / 256
    names = sorted(path.stem for path in root.glob("images/*-21.png"))[:6]
    (tmp_path / "images").mkdir()
    for name in names:
        x, y, _ = map(int, re.findall(r"\d+", name))
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(root / f"images/{name}.png") as tile,
        ):
            rasters.write_raster(
                tmp_path / f"images/{name}.tif",
                tile.read([1, 2, 3]),
                crs="EPSG:3857",
                transform=Affine(
                    *(pixel, 0, x * 256 * pixel - origin),
                    *(0, -pixel, origin - y * 256 * pixel),
                ),
            )
    overrides = [override("data.labels", root / "labels.geojson")]
    overrides += ["data.split.validation_share=0", "data.split.test_share=0"]
    scenes = open_split(recipe("geopackage", tmp_path, *overrides)).train
    assert [scene.name for scene in scenes] == names
    differing, buildings = 0, 0
    for scene in scenes:
        labels = scene.read_labels(scene.grid.whole)
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(root / f"masks/{scene.name}.png") as tile,
        ):
            differing += int((labels != tile.read(1)).sum())
        buildings += int((labels == 1).sum())
    assert buildings > 0.1 * 6 * 256**2
    assert differing < 0.003 * 6 * 256**2  # rims: whoever drew them rounded otherwise


def write_scenes(root: Path, count: int = 3) -> None:
    for number in range(count):
        labelled_files.write_pair(root, f"s{number}", seed=number)


def test_a_scene_that_cannot_be_read_ends_it_or_is_left_out(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    (tmp_path / "images/s1.png").write_bytes(b"no picture")
    with pytest.raises(SceneError, match=r"s1\.png cannot be read"):
        open_split(labelled_files.data(tmp_path))
    with pytest.warns(GeosegWarning, match=r"s1 is left out: .*s1\.png cannot be read"):
        split = open_split(labelled_files.data(tmp_path, on_bad="skip"))
    assert [scene.name for scene in split.train] == ["s0", "s2"]
    with (
        pytest.warns(GeosegWarning, match="left out"),
        pytest.raises(ConfigError, match=r"no scene of data\.split\.test can be read"),
    ):
        open_split(labelled_files.data(tmp_path, on_bad="skip", split={"test": ["s1"]}))


def test_only_the_parts_asked_for_are_opened(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    (tmp_path / "images/s1.png").write_bytes(b"no picture")
    config = labelled_files.data(tmp_path, split={"test": ["s1"]})
    split = open_split(config, ("train",))
    assert ([scene.name for scene in split.train], split.test) == (["s0", "s2"], ())
    # Where the others lie counts all the same.
    labelled_files.write_pair(tmp_path, "s1", seed=2)
    with pytest.warns(GeosegWarning, match=r"s1 \(test\) and s2 \(train\)"):
        open_split(config, ("train",))


def sampler_of(root: Path, **changes: Any) -> Any:  # noqa: ANN401
    config = labelled_files.data(root, **changes)
    return chip_sampler(
        survey(open_split(config).train, config), config, ChipConfig(size=16)
    )


def test_scenes_without_any_label_are_refused(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    for number in range(2):
        labelled_files.save(
            tmp_path / f"masks/s{number}.png", np.zeros((40, 50), np.uint8)
        )
    assert len(sampler_of(tmp_path).scenes) == 3  # one of three has some
    labelled_files.save(tmp_path / "masks/s2.png", np.zeros((40, 50), np.uint8))
    with pytest.raises(ConfigError, match=r"scenes has a label; check .*data\.ignore"):
        sampler_of(tmp_path)


def test_labels_without_a_meaning_are_counted_over_all_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    mask = labelled_files.values()
    mask[10:20], mask[30, 0] = 77, 78
    labelled_files.save(tmp_path / "masks/s1.png", mask)
    told = r"labels of s1: 501 pixels \(8\.35%\) .*: 77 \(8\.33%\), 78 \(0\.02%\)"
    with pytest.raises(SceneError, match=told + r"; name them in data\.classes"):
        sampler_of(tmp_path)
    with pytest.warns(GeosegWarning, match=told + "; they count as no labels"):
        sampler = sampler_of(tmp_path, unknown="ignore")
    assert set(sampler.batch(0, 0, 20, 16)[1].unique().tolist()) == {0, 1, 2, IGNORE}


def test_images_that_break_on_the_way_give_way_or_end_it(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    path = tmp_path / "images/s1.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SceneError, match=r"s1\.png cannot be read"):
        sampler_of(tmp_path).batch(0, 0, 20, 16)
    with pytest.warns(GeosegWarning, match=r"s1\.png cannot be read"):
        images, labels = sampler_of(tmp_path, on_bad="skip").batch(0, 0, 20, 16)
    assert len(images) == 20
    assert (labels != IGNORE).any()


def test_masks_that_break_are_left_out_before(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    path = tmp_path / "masks/s1.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SceneError, match=r"masks/s1\.png cannot be read"):
        sampler_of(tmp_path)
    with pytest.warns(GeosegWarning, match="s1 is left out"):
        sampler = sampler_of(tmp_path, on_bad="skip")
    assert [scene.name for scene in sampler.scenes] == ["s0", "s2"]


def test_scenes_finer_than_asked_for_are_reduced_as_segment_does(
    tmp_path: Path,
) -> None:
    # 0.5 m pixels: a chip of 20 pixels shows 80 of them at 2 m, and 20 at 0.6 m.
    steps = np.repeat(np.arange(1, 101, dtype=np.uint8), 2)
    image = np.broadcast_to(steps, (3, 200, 200)).copy()
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    rasters.write_raster(tmp_path / "images/a.tif", image)
    rasters.write_raster(tmp_path / "masks/a.tif", np.ones((200, 200), np.uint8))
    plain = ChipConfig(size=20, scale=(1.0, 1.0), color=0.0)
    for resolution, pixels in ((2.0, 80), (0.6, 20)):
        config = labelled_files.data(tmp_path, resolution=resolution)
        with pytest.warns(GeosegWarning, match="land or road"):
            seen = survey(open_split(config).train, config)
        sampler = chip_sampler(seen, config, plain)
        images, _ = sampler.batch(0, 0, 8, 20)
        spans = (images.amax((1, 2, 3)) - images.amin((1, 2, 3))) * 255
        # UTM is a 2500th off the ground here; half a step at each end is blurred.
        assert float((spans - pixels / 2).abs().max()) <= 3


def test_scenes_too_small_for_the_range_of_magnification_are_told(
    tmp_path: Path,
) -> None:
    write_scenes(tmp_path, 2)  # 40 x 50 pixels
    mask = labelled_files.values(100, 100)
    labelled_files.save(tmp_path / "images/l.png", labelled_files.image_of(mask))
    labelled_files.save(tmp_path / "masks/l.png", mask)
    config = labelled_files.data(tmp_path)
    seen = survey(open_split(config).train, config)
    told = (
        r"2 of 3 training scenes \(s0, s1\) are less than 50 pixels wide or high, "
        r".* set chips\.size and train\.final_chip_size to 80 or less"
    )
    with pytest.warns(GeosegWarning, match=told) as warned:
        chip_sampler(seen, config, ChipConfig(size=100, scale=(0.5, 2.0)))
    assert len(warned) == 1
    fitting = ChipConfig(size=80, scale=(0.5, 2.0))
    chip_sampler(seen, config, fitting)
    with pytest.warns(GeosegWarning, match=told):  # those of the last steps do not fit
        chip_sampler(seen, config, fitting, largest=100)


def test_scenes_coarser_than_the_model_will_say_are_told(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    mask = labelled_files.values(100, 100)
    for name, metres in (("fine", 0.7), ("coarse", 3.0), ("coarser", 10.0)):
        place = Affine(metres, 0, 500_000, 0, -metres, 5_800_000)
        for kind, pixels in (
            ("images", labelled_files.image_of(mask)),
            ("masks", mask),
        ):
            path = tmp_path / kind / f"{name}.tif"
            rasters.write_raster(path, pixels, transform=place)
    config = labelled_files.data(tmp_path, resolution=0.5)
    seen = survey(open_split(config).train, config)
    told = (
        r"2 of 3 training scenes \(coarse, coarser\) have pixels of 3 m or more and "
        r"data\.resolution is 0\.5 m"
    )
    with pytest.warns(GeosegWarning, match=told) as warned:
        chip_sampler(seen, config, ChipConfig(size=40))
    assert len(warned) == 1
    chip_sampler(
        seen, labelled_files.data(tmp_path, resolution=8.0), ChipConfig(size=4)
    )
