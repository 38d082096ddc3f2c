"""Scenes are split whole, and what the split lets through is told."""

from __future__ import annotations

import warnings
from pathlib import Path

import labelled_files
import numpy as np
import pyproj
import pytest
import rasters
from affine import Affine

from geoseg.data.config import SplitConfig
from geoseg.data.files import open_file_scene
from geoseg.data.labelled import LabelledScene, LabelledSource
from geoseg.data.leaks import warn_of_leaks
from geoseg.data.split import split_names
from geoseg.errors import ConfigError, GeosegWarning

NAMES = [f"{folder}/{number}" for folder in "ab" for number in range(20)]


def test_lists_and_patterns() -> None:
    parts = split_names(
        NAMES, SplitConfig(train=("a/*",), validation=("b/1", "b/2"), test=("b/3",))
    )
    assert parts["train"] == NAMES[:20]
    assert parts["validation"] == ["b/1", "b/2"]
    assert parts["test"] == ["b/3"]
    rest = split_names(NAMES, SplitConfig(test=("b/*",)))
    assert rest == {"train": NAMES[:20], "validation": [], "test": NAMES[20:]}


def test_a_name_with_brackets_means_the_scene_of_this_name_first() -> None:
    names = ["a1", "a2", "a[1]"]
    parts = split_names(names, SplitConfig(test=("a[1]",)))
    assert parts["test"] == ["a[1]"]
    assert split_names(names[:2], SplitConfig(test=("a[1]",)))["test"] == ["a1"]


def test_shares_are_drawn_by_seed_and_name_from_the_training_scenes() -> None:
    config = SplitConfig(train=("a/*",), validation_share=0.2, test_share=0.1)
    parts = split_names(NAMES, config)
    assert [len(parts[part]) for part in ("train", "validation", "test")] == [14, 4, 2]
    assert sorted(name for part in parts.values() for name in part) == sorted(
        NAMES[:20]
    )
    assert split_names(NAMES[::-1], config)["validation"] == parts["validation"][::-1]
    another = split_names(NAMES, SplitConfig(validation_share=0.1, seed=1))
    assert (
        another["validation"]
        != split_names(NAMES, SplitConfig(validation_share=0.1))["validation"]
    )
    # A new scene moves few of the others.
    grown = split_names([*NAMES, "c/1"], SplitConfig(validation_share=0.1))
    before = split_names(NAMES, SplitConfig(validation_share=0.1))
    assert len(set(grown["validation"]) ^ set(before["validation"])) <= 2
    # A share of few scenes is one.
    assert len(split_names(NAMES[:3], SplitConfig(test_share=0.01))["test"]) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            SplitConfig(test=("c/*",)),
            r"split\.test names c/\*, and no scene .* a/0, a/1",
        ),
        (
            SplitConfig(train=("a/*",), test=("a/3",)),
            r"a/3 is in data\.split\.train and",
        ),
        (SplitConfig(test=("*",)), "none of the 40 scenes to train on; change it"),
    ],
)
def test_splits_that_cannot_be_are_refused(config: SplitConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_names(NAMES, config)


def test_a_share_fills_no_part_that_has_names() -> None:
    whole = SplitConfig(("a/*",), ("b/1", "b/2"), ("b/3",), 0.1, 0.1)
    parts = split_names(NAMES, whole)
    assert parts == {
        "train": NAMES[:20],
        "validation": ["b/1", "b/2"],
        "test": ["b/3"],
    }
    drawn = split_names(NAMES, SplitConfig(("a/*",), ("b/1",), (), 0.1, 0.1))
    assert [len(drawn[part]) for part in ("train", "validation", "test")] == [18, 1, 2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SplitConfig(validation_share=0.1, test_share=0.1), r"validation.* or .*test"),
        (
            SplitConfig((), ("a",), (), 0.1, 0.1),
            r"set data\.split\.test_share=0, or add",
        ),
    ],
)
def test_few_scenes_and_shares_are_told_what_to_set(
    config: SplitConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=f"none of the 2 scenes .*{message}"):
        split_names(["a", "b"], config)
    assert split_names(["a", "b", "c"], config)["train"]


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.5, 0.5)])
def test_shares_that_cannot_be_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        SplitConfig(validation_share=shares[0], test_share=shares[1])


def placed(
    path: Path, shift: float, crs: str = rasters.UTM, fill: int = 0
) -> LabelledSource:
    """Write a scene of 100 pixels squared, `shift` pixels to the east of the first."""
    transform = rasters.NORTH_UP @ Affine.translation(shift, 0)
    image = np.full((3, 100, 100), fill, np.uint8)
    path.parent.mkdir(exist_ok=True)
    rasters.write_raster(path, image, transform=transform, crs=crs)
    mask = path.with_suffix(".mask.tif")
    rasters.write_raster(mask, image[0], transform=transform, crs=crs)
    return open_file_scene(path.stem, path, mask, labelled_files.data(path.parent))


def test_overlapping_ground_on_two_sides_is_told(tmp_path: Path) -> None:
    one, twin = placed(tmp_path / "one.tif", 0), placed(tmp_path / "twin.tif", 50)
    near = placed(tmp_path / "near.tif", 75, fill=1)
    touching = placed(tmp_path / "touching.tif", 100, fill=2)
    with pytest.warns(GeosegWarning) as caught:
        warn_of_leaks({"train": [one, twin], "test": [near, touching]})
    (told,) = [str(warning.message) for warning in caught]
    assert told.startswith(
        "scenes on different sides of the split show the same ground"
    )
    assert "one (train) and near (test) (25.0%)" in told
    assert "twin (train) and near (test) (75.0%)" in told
    assert "twin (train) and touching (test) (50.0%)" in told
    assert "one (train) and t" not in told  # within a part, or only side by side


def test_ground_is_compared_across_the_date_line(tmp_path: Path) -> None:
    """Scenes of which one, both or none cross it; a pixel is 10 m."""
    start = Affine(10, 0, 0, 0, -10, 8_000_000)
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32701", always_xy=True)
    middle, _ = to_utm.transform(180, -18.1)
    one, other, far = (
        on_fiji(tmp_path / f"{name}.tif", start, middle + east * 10)
        for name, east in (("a", -60), ("b", 10), ("c", 45))
    )
    for first, second, shared in ((one, other, 3), (other, far, 6)):
        with pytest.warns(GeosegWarning, match=rf"\({shared}\d\.\d%\)"):
            warn_of_leaks({"train": [first], "test": [second]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_leaks({"train": [one], "test": [far]})


@pytest.mark.parametrize(
    ("left", "pixel"),
    [(178.0, 0.04), (180.5, 0.04), (-181.0, 0.04), (539.0, 0.04), (-180.0, 3.6)],
)
def test_degrees_may_go_on_beyond_the_date_line_and_around(
    tmp_path: Path, left: float, pixel: float
) -> None:
    scenes = []
    for name, west, side in (("a", left, pixel), ("b", -180.0, 0.04)):
        place = Affine(side, 0, west, 0, -min(side, 0.5), -16)
        image = np.full((3, 100, 100), ord(name), np.uint8)
        file, mask = (
            rasters.write_raster(path, pixels, transform=place, crs="EPSG:4326")
            for path, pixels in (
                (tmp_path / f"{name}.tif", image),
                (tmp_path / f"{name}.mask.tif", image[0]),
            )
        )
        data = labelled_files.data(tmp_path)
        scenes.append(open_file_scene(name, file, mask, data))
    with pytest.warns(GeosegWarning, match=r"a \(train\) and b \(test\)"):
        warn_of_leaks({"train": scenes[:1], "test": scenes[1:]})


def on_fiji(path: Path, start: Affine, left: float) -> LabelledSource:
    """Write a scene of 100 pixels squared whose left edge is given, in metres."""
    place = Affine(start.a, 0, left, 0, start.e, start.f)
    # Other pixels, since equal images are told of, too.
    image = np.full((3, 100, 100), ord(path.stem), np.uint8)
    files = (
        rasters.write_raster(path, image, transform=place, crs="EPSG:32701"),
        rasters.write_raster(
            path.with_suffix(".mask.tif"),
            np.ones((100, 100), np.uint8),
            transform=place,
            crs="EPSG:32701",
        ),
    )
    return open_file_scene(path.stem, *files, labelled_files.data(path.parent))


def test_ground_is_compared_across_coordinate_systems(tmp_path: Path) -> None:
    one = placed(tmp_path / "one.tif", 0)
    same = tmp_path / "same.tif"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_leaks({"train": [one], "test": [placed(same, 0, "EPSG:32632", 1)]})
    lon, lat = pyproj.Transformer.from_crs(
        rasters.UTM, "EPSG:4326", always_xy=True
    ).transform(*(rasters.NORTH_UP @ (50, 0)))
    zone = Affine(0.5 / 68000, 0, lon, 0, -0.5 / 111000, lat)
    image = rasters.write_raster(
        tmp_path / "degrees.tif",
        np.full((3, 100, 100), 9, np.uint8),
        crs="EPSG:4326",
        transform=zone,
    )
    degrees = open_file_scene(
        "degrees",
        image,
        rasters.write_raster(
            tmp_path / "m.tif",
            np.ones((100, 100), np.uint8),
            crs="EPSG:4326",
            transform=zone,
        ),
        labelled_files.data(tmp_path),
    )
    with pytest.warns(GeosegWarning, match=r"one \(train\) and degrees .*\(5\d\.\d%\)"):
        warn_of_leaks({"train": [one], "test": [degrees]})


@pytest.mark.parametrize(
    "crs",
    [
        'LOCAL_CS["site grid",UNIT["metre",1]]',
        "+proj=eqc +R=1737400 +units=m",  # the Moon
    ],
)
def test_ground_that_is_not_of_the_earth_is_not_compared(
    tmp_path: Path, crs: str
) -> None:
    one, same = (placed(tmp_path / f"{n}.tif", 0, crs, n) for n in (1, 2))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warn_of_leaks({"train": [one], "test": [same]})
    assert told == []


def test_equal_images_on_two_sides_are_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 20, 20), np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    memory = [LabelledScene(f"m{i}", noise, labels) for i in range(2)]
    other = LabelledScene("other", noise[:, ::-1], labels)
    sources: list[LabelledSource] = []
    for name in ("a", "b", "c"):
        labelled_files.write_pair(tmp_path, name, seed=int(name == "c"))
        sources.append(
            open_file_scene(
                name,
                tmp_path / f"images/{name}.png",
                tmp_path / f"masks/{name}.png",
                labelled_files.data(tmp_path),
            )
        )
    training = [memory[0], LabelledScene("m2", noise, labels), other, sources[0]]
    with pytest.warns(GeosegWarning, match="show the same image") as caught:
        warn_of_leaks({"train": training, "test": [memory[1], *sources[1:]]})
    (told,) = [str(warning.message) for warning in caught]
    assert told.partition(": ")[2] == (
        "m0 (train) and m1 (test); m2 (train) and m1 (test); a (train) and b (test); "
        "put them in one part"
    )
