"""Which labelled scenes are evaluated on, how they are read, and copies of images."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import labelled_scenes
import numpy as np
import pytest
import rasterio
from affine import Affine
from labelled_rasters import draw, write_scene
from stubs import save_stub

from geoseg.clusters.config import ClusterConfig
from geoseg.data.labelled import LabelledScene
from geoseg.pipelines.evaluate import EvaluateConfig, Watcher, run
from geoseg.pipelines.evaluate_scenes import image_files, open_labelled, readable
from geoseg.pipelines.segment import InputConfig, Listener, ModelConfig, SegmentConfig
from geoseg.types import ClassInfo, EvaluatedPart

CLASSES = [
    {"id": n, "name": f"class {n}", "color": color, "mask": [color]}
    for n, color in enumerate(labelled_scenes.COLORS, 1)
]


@pytest.mark.parametrize(
    ("part", "parts", "found"),
    [
        ("auto", ("train", "validation", "test"), "test"),
        ("auto", ("train", "validation"), "validation"),
        ("auto", ("train",), "train"),
        ("validation", ("train", "validation", "test"), "validation"),
    ],
)
def test_what_was_held_out_goes_first(
    tmp_path: Path, part: EvaluatedPart, parts: tuple[str, ...], found: str
) -> None:
    root = labelled_scenes.write(tmp_path / "scenes", ["train", "validation", "test"])
    data: dict[str, Any] = {"root": str(root), "layout": "parts", "classes": CLASSES}
    data |= {"ignore": ["#000000"], "split": {name: [name] for name in parts}}
    labelled = open_labelled(data, part, [], lambda _: None)
    assert [scene.name for scene in labelled.sources] == [found]
    assert labelled.title == f"scenes ({found})"


def test_all_scenes_can_be_asked_for(tmp_path: Path) -> None:
    """Another folder than that of the training has no part of its split."""
    root = labelled_scenes.write(tmp_path / "new", ["a", "b"])
    shares = {"validation_share": 0.1, "test_share": 0.1}
    data: dict[str, Any] = {"root": str(root), "layout": "parts", "classes": CLASSES}
    data |= {"ignore": ["#000000"], "split": shares}
    notes: list[str] = []
    drawn = open_labelled(data, "auto", [], notes.append)
    assert (len(drawn.sources), drawn.title) == (1, "new (test)")
    assert notes == [
        "1 of 2 scenes are looked at, which the shares of data.split make those of "
        "test; --part all takes all, also what the model has learned from"
    ]
    data["split"] |= {"train": ["elsewhere"], "test": ["north"]}
    every = open_labelled(data, "all", [], notes.append)
    assert [scene.name for scene in every.sources] == ["a", "b"]
    assert every.title == "new (all scenes)"
    assert len(notes) == 1


BGRN = ["blue", "green", "red", "undefined"]


@pytest.mark.parametrize(
    ("bands", "chosen", "told"),
    [
        ((3, 2, 1), None, "blue, green, red, and MODEL takes red, green, blue"),
        ((3, 2, 1), (3, 2, 1), "blue, green, red, and MODEL takes red, green, blue"),
        ((1, 2, 3), (1, 2, 3), "red, green, blue, and MODEL takes blue, green, red"),
        (
            (1, 2, 2),
            (4, 2, 3),
            "red, green, green, and MODEL takes unnamed, green, red",
        ),
        ((1, 2, 3), (3, 2, 1), None),
        ((1, 2, 3), None, None),
        (None, (3, 2, 1), None),
    ],
)
def test_bands_that_declare_other_colours_than_the_model_takes_are_told(
    tmp_path: Path,
    bands: tuple[int, ...] | None,
    chosen: tuple[int, ...] | None,
    told: str | None,
) -> None:
    write_scene(tmp_path / "scenes", "north", *draw(0))  # red, green, blue
    model = save_stub(tmp_path / "model", kind="levels")
    config = json.loads((model / "config.json").read_text())
    if chosen is not None:
        config["geoseg"]["chosen_bands"] = {"numbers": chosen, "of": [BGRN]}
    (model / "config.json").write_text(json.dumps(config))
    data = {"root": str(tmp_path / "scenes"), "ignore": [0], "bands": bands}
    evaluated = EvaluateConfig(
        tmp_path / "out", data, model=ModelConfig(str(model), device="cpu")
    )
    asking = Asking()
    with pytest.raises(Asked):
        run(evaluated, asking)
    notes = [note.replace(str(model), "MODEL") for note in asking.notes]
    where = f"bands {str(bands)[1:-1]} of north are said to be"
    wanted = [f"{where} {told}; see data.bands and input.bands"]
    assert notes == ([] if told is None else wanted)


def test_what_is_left_out_is_told_once(tmp_path: Path) -> None:
    """Whatever parts were looked for first."""
    for name in ("north", "south"):
        write_scene(tmp_path, name, *draw(0, (60, 50)))
    (tmp_path / "masks" / "south.tif").unlink()
    data: dict[str, Any] = {"root": str(tmp_path), "classes": CLASSES, "on_bad": "skip"}
    notes: list[str] = []
    labelled = open_labelled(data, "auto", [], notes.append)
    assert [scene.name for scene in labelled.sources] == ["north"]
    assert len(notes) == 1
    assert "without labels: south" in notes[0]


def test_labels_without_a_meaning_are_told_of_whole_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All values, wherever they lie, as shares of the scene that has them."""
    monkeypatch.setattr("geoseg.data.survey._ONE_BLOCK", 0)
    monkeypatch.setattr("geoseg.data.survey.BLOCK", 64)
    for name in ("east", "north", "south"):
        image, labels = draw(0, (200, 100))
        if name != "south":
            labels[:1, :10], labels[150:] = 77, 99
        write_scene(tmp_path, name, image, labels)
    told = (
        "{}: {} pixels (25.05%) have labels that are not in the class table: "
        "99 (25.00%), 77 (0.05%)"
    )
    table = [ClassInfo(n, f"class {n}", (n, 0, 0)) for n in range(1, 5)]
    data = {"root": str(tmp_path), "ignore": [0]}
    notes: list[str] = []
    labelled = open_labelled(data, "auto", table, notes.append)
    found, failures = readable(labelled, notes.append)
    assert [one.name for one in found.sources] == ["south"]
    assert [one.scene for one in failures] == ["east", "north"]
    for one in failures:
        assert told.format(f"the labels of {one.scene}", 5010) in one.reason
    assert notes == []
    # As no labels they are told of all the same, once.
    data["unknown"] = "ignore"
    labelled = open_labelled(data, "auto", table, notes.append)
    found, failures = readable(labelled, notes.append)
    assert (len(found.sources), failures) == (3, [])
    [note] = notes
    assert note == (
        f"{told.format('the labels of east, north', 10020)}; they count as no labels"
    )


def test_images_that_lie_in_no_file_are_written_once_and_anew_when_they_change(
    tmp_path: Path,
) -> None:
    image, labels = labelled_scenes.draw(60, 70)
    scene = LabelledScene("a/b", image, labels)
    [path] = map(Path, image_files([scene], tmp_path).values())
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), image)
    before = path.stat()
    assert image_files([scene], tmp_path) == {"a/b": str(path)}
    assert path.stat() == before
    changed = image.copy()
    changed[2, 59, 69] ^= 1
    image_files([LabelledScene("a/b", changed, labels)], tmp_path)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), changed)


class Asked(Exception):
    """Ends an evaluation where masks would be made."""


class Asking(Watcher):
    """Keeps how masks would be made, and what is noted before."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def segmenting(self, name: str, config: SegmentConfig) -> Any:  # noqa: ANN401
        raise Asked(config.input)


def test_images_are_read_as_data_says_where_input_says_nothing(tmp_path: Path) -> None:
    root = tmp_path / "scenes"
    write_scene(root, "north", *draw(0))
    model = save_stub(tmp_path / "model", kind="levels")
    config = EvaluateConfig(
        tmp_path / "out",
        {"root": str(root), "ignore": [0], "bands": [3, 2, 1], "scale": 200.0},
        model=ModelConfig(str(model), device="cpu"),
        input=InputConfig(resolution="native", scale=100.0),
    )
    with pytest.raises(Asked) as asked:
        run(config, Asking())
    wanted = InputConfig(resolution="native", bands=(3, 2, 1), scale=100.0)
    assert asked.value.args == (wanted,)


class Notes(Watcher, Listener):
    """Keeps the notes of making masks."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def segmenting(
        self, name: str, config: SegmentConfig
    ) -> AbstractContextManager[Listener]:
        return nullcontext(self)

    def note(self, message: str) -> None:
        self.seen.append(message)


@pytest.mark.slow
def test_only_images_of_the_users_are_said_to_lie_nowhere(
    tmp_path: Path, scheduler: str
) -> None:
    model = save_stub(tmp_path / "model", kind="levels", num_classes=3)
    parts = labelled_scenes.write(tmp_path / "parts", ["one"])
    pairs = tmp_path / "pairs"
    image, labels = draw(0)
    write_scene(pairs, "north", image, labels % 4, transform=Affine.identity())
    table = [
        {"id": n, "name": f"class {n}", "color": color}
        for n, color in enumerate(labelled_scenes.COLORS, 1)
    ]
    colors = [{**entry, "mask": [entry["color"]]} for entry in table]
    in_parts = {"layout": "parts", "classes": colors, "ignore": ["#000000"]}
    in_pairs = {"layout": "pairs", "classes": table, "ignore": [0]}
    for root, data, told in ((parts, in_parts, 0), (pairs, in_pairs, 1)):
        config = EvaluateConfig(
            tmp_path / f"out-{root.name}",
            {"root": str(root), **data},
            model=ModelConfig(str(model), ("stubs",), device="cpu"),
            cluster=ClusterConfig(scheduler=scheduler, timeout=300),
        )
        watcher = Notes()
        assert run(config, watcher).ok
        assert len(watcher.seen) == told, watcher.seen
