"""Scenes in parts: joined, colours turned into class indices."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import labelled_files
import labelled_scenes
import numpy as np
import pytest
from PIL import Image

from geoseg.config import compose, convert, override
from geoseg.data.classes import ClassConfig, ClassTable, Code
from geoseg.data.config import DataConfig
from geoseg.data.labelled import IGNORE
from geoseg.data.parts import load_part_scene, read_part_index
from geoseg.data.sources import open_split
from geoseg.errors import ConfigError, GeosegWarning, SceneError


def table(*names: str, unknown: bool = False) -> ClassTable:
    """Make a table of some of the classes that made scenes have."""
    colors = dict(zip(labelled_scenes.CLASSES, labelled_scenes.COLORS, strict=True))
    classes = [ClassConfig(i, n, colors[n]) for i, n in enumerate(names, start=1)]
    rest = [color for name, color in colors.items() if name not in names]
    ignore: tuple[Code, ...] = () if unknown else ("#000000", *rest)
    return ClassTable(tuple(classes), ignore)


def test_parts_are_joined_and_colours_become_indices(tmp_path: Path) -> None:
    root = labelled_scenes.write(tmp_path, ["one", "two"])
    every = table(*labelled_scenes.CLASSES)
    scene = load_part_scene(root, "two", every)
    assert scene.name == "two"
    image, labels = labelled_scenes.draw(96, 96, seed=1)
    np.testing.assert_array_equal(scene.labels, labels)
    assert scene.image.shape == (3, 96, 96)
    # JPEG changes colours a little, but not where they are.
    assert np.abs(scene.image.astype(int) - image).mean() < 8
    assert set(np.unique(labels)) == {0, 1, 2, IGNORE}


def test_classes_may_be_chosen_and_ordered(tmp_path: Path) -> None:
    root = labelled_scenes.write(tmp_path, ["one"])
    scene = load_part_scene(root, "one", table("road", "water"))
    _, labels = labelled_scenes.draw(96, 96)
    indices = np.array([1, IGNORE, 0, *[IGNORE] * 253], np.uint8)
    np.testing.assert_array_equal(scene.labels, indices[labels])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no index\.csv; set data\.root"):
        load_part_scene(tmp_path, "one", table("water"))
    root = labelled_scenes.write(tmp_path, ["one"])
    with pytest.raises(ConfigError, match=r"scene nine is not in .*\['one'\]"):
        load_part_scene(root, "nine", table("water"))
    with pytest.raises(SceneError, match=r"in the class table: #\w{6} \(\d+\.\d+%\)"):
        load_part_scene(root, "one", table("water", unknown=True))


def test_colours_without_a_meaning_are_no_labels_with_a_warning(tmp_path: Path) -> None:
    root = labelled_scenes.write(tmp_path, ["one"])
    partial = dataclasses.replace(table("water", unknown=True), unknown="ignore")
    with pytest.warns(GeosegWarning, match=r"\(\d+\.\d+%\).*; they count as no labels"):
        scene = load_part_scene(root, "one", partial)
    assert set(np.unique(scene.labels)) == {0, IGNORE}


def test_real_masks_have_the_pixels_that_were_counted(shared_data: Path) -> None:
    root = shared_data / "dubai-mbrsc"
    composed = compose("train-builtin", [override("data.root", root)])
    table = convert(composed["data"], DataConfig).table
    scene = load_part_scene(root, "tile-1", table)
    with (root / "index.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["scene"] == "tile-1"]
    for index, entry in enumerate(table.classes):
        counted = sum(int(row[f"px_{entry.name}"]) for row in rows)
        assert int((scene.labels == index).sum()) == counted


GOOD = "scene,part,grid_row,grid_col\n"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("part,grid_row,grid_col\np,0,0\n", ConfigError, "line 1: .* column scene"),
        (f"{GOOD}one;a;0;0\n".replace(",", ";"), ConfigError, "column scene .*commas"),
        ("", ConfigError, "line 0: there is no column scene"),
        (GOOD, ConfigError, "names no part"),
        (f"{GOOD}one,a,0,0\none,b,x,0\n", ConfigError, "line 3: invalid literal"),
        (f"{GOOD}one,a,0\n", ConfigError, "line 2: int"),
        (f"{GOOD},a,0,0\n", ConfigError, "line 2: an empty cell"),
        (f"{GOOD}one,a,0,0\none,b,1,1\n", SceneError, "no parts .* row 0, column 1"),
        (f"{GOOD}one,a,0,0\none,b,0,0\n", SceneError, "2 parts .* row 0, column 0"),
    ],
)
def test_an_index_that_says_something_else_is_named(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(error, match=f"index\\.csv.*{message}"):
        load_part_scene(tmp_path, "one", table("water"))


def test_an_index_may_be_of_a_spreadsheet(tmp_path: Path) -> None:
    root = labelled_scenes.write(tmp_path, ["one"])
    text = (root / "index.csv").read_text()
    (root / "index.csv").write_text(text, encoding="utf-8-sig")
    assert read_part_index(root).names == ("one",)


def test_scenes_that_are_left_out_are_in_no_part_of_the_split(tmp_path: Path) -> None:
    root = labelled_scenes.write(tmp_path, ["one", "other", "third"])
    config = settings(root, leave_out=["o*"])
    assert [scene.name for scene in open_split(config).train] == ["third"]


@pytest.mark.parametrize(
    "said", [{"bands": [3, 2, 1]}, {"scale": 200.0}, {"nodata": 0.0}]
)
def test_what_is_of_files_is_not_of_parts(tmp_path: Path, said: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="of files; scenes in parts are red, green"):
        settings(tmp_path, **said)


def settings(root: Path, **changes: Any) -> DataConfig:  # noqa: ANN401 (of a recipe)
    """Return the section `data` for scenes in parts."""
    colors = zip(labelled_scenes.CLASSES, labelled_scenes.COLORS, strict=True)
    classes = [
        {"id": number, "name": name, "color": color, "mask": [color]}
        for number, (name, color) in enumerate(colors, start=1)
    ]
    keys = {"layout": "parts", "classes": classes, "ignore": ["#000000"]}
    return labelled_files.data(root, **keys, **changes)


def test_parts_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    root = labelled_scenes.write(tmp_path, ["one"])
    for path in sorted((root / "one").glob("*/*"))[::4]:
        with Image.open(path) as picture:
            picture.crop((0, 0, 48, 40)).save(path)
    with pytest.raises(SceneError, match="do not fit each other"):
        load_part_scene(root, "one", table(*labelled_scenes.CLASSES))
