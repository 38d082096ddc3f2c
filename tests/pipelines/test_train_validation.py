"""Which scenes a training is judged by, and what its card says of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import labelled_scenes
import numpy as np
import pytest
import torch
from affine import Affine
from PIL import Image
from rasters import write_raster
from trainings import Heard, configuration, write_pairs

from geoseg.data.sources import open_split
from geoseg.errors import ConfigError, GeosegWarning, SceneError
from geoseg.models import load_model
from geoseg.pipelines.train import run
from geoseg.training.fit import Outcome, fit


def test_the_best_step_ships_with_a_card_that_tells_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    def watched(module: Any, folder: Path, **options: Any) -> Outcome:  # noqa: ANN401
        parts = module.source.scenes, options["validation"].scenes
        one, other = ({scene.name for scene in part} for part in parts)
        seen.append((one, other))
        return fit(module, folder, **options)

    monkeypatch.setattr("geoseg.pipelines.train.fit", watched)
    changes = {"split": {"train": ["one", "two"], "validation": ["unseen"]}}
    config = configuration(tmp_path, **changes)
    trained = run(config)
    outcome = trained.outcome
    assert seen == [({"one", "two"}, {"unseen"})]
    assert outcome.best_step in (2, 3)
    card = (trained.folder / "README.md").read_text()
    assert f"step {outcome.best_step}, the best by mIoU" in card
    assert "| trained on | one, two |\n| validated on | unseen |" in card
    assert "| `train.learning_rate` | `0.0005` |" in card
    best = torch.load(config.out / "best.ckpt", weights_only=True)["state_dict"]
    model = load_model(trained.folder).state_dict()
    name = "class_predictor.weight"
    torch.testing.assert_close(
        model[name], best[f"average.{name}"], rtol=1e-3, atol=1e-4
    )  # float16 in the file


def test_labels_of_validation_scenes_are_looked_at_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = {"train": ["one"], "validation": ["two"]}
    patterns = write_pairs(tmp_path, ["one", "two"])
    config = configuration(tmp_path, split=split, layout="pairs")
    data = dataclasses.replace(config.data, **patterns)
    config = dataclasses.replace(config, data=data)
    path = config.data.root / "masks" / "two.png"
    with Image.open(path) as mask:
        pixels = np.array(mask)
    pixels[3, 55] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    # However large it is.
    for name, value in {"BLOCK": 16, "_ONE_BLOCK": 64, "_STRIP_PIXELS": 512}.items():
        monkeypatch.setattr(f"geoseg.data.survey.{name}", value)
    heard = Heard()
    with pytest.raises(SceneError, match="#010203"):
        run(config, heard)
    assert not heard.steps
    # Left out where that is asked for: nothing is left to be judged by.
    path.write_bytes(path.read_bytes()[:100])
    skip = dataclasses.replace(config, data=dataclasses.replace(data, on_bad="skip"))
    with (
        pytest.warns(GeosegWarning, match="two is left out"),
        pytest.raises(
            ConfigError,
            match=r"none of the 1 validation scenes .* first: .*two\.png cannot",
        ),
    ):
        run(skip, heard)


def test_a_validation_scene_that_cannot_be_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], str]] = []

    def watched(module: Any, folder: Path, **options: Any) -> Outcome:  # noqa: ANN401
        judging = options["validation"]
        seen.append(([scene.name for scene in judging.scenes], judging.on_bad))
        return fit(module, folder, **options)

    monkeypatch.setattr("geoseg.pipelines.train.fit", watched)
    patterns = write_pairs(tmp_path, ["one", "two", "three"])
    split = {"train": ["one"], "validation": ["two", "three"]}
    config = configuration(tmp_path, split=split, layout="pairs")
    data = dataclasses.replace(config.data, **patterns, on_bad="skip")
    path = config.data.root / "masks" / "three.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(GeosegWarning, match="three is left out"):
        outcome = run(dataclasses.replace(config, data=data)).outcome
    assert outcome.best_step in (2, 3)
    assert seen == [(["two"], "skip")]


def test_validation_scenes_are_drawn_evenly_and_as_many_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_scenes.write(tmp_path / "scenes", [f"s{n}" for n in range(7)])
    seen: list[list[str]] = []

    def watched(*arguments: Any, **options: Any) -> Outcome:  # noqa: ANN401
        seen.append([scene.name for scene in options["validation"].scenes])
        raise InterruptedError

    monkeypatch.setattr("geoseg.pipelines.train.fit", watched)
    split = {"train": ["s0"], "validation": [f"s{n}" for n in range(1, 7)]}
    config = configuration(tmp_path, split=split)
    loop = dataclasses.replace(config.train, validation_scenes=4)
    with pytest.raises(InterruptedError):
        run(dataclasses.replace(config, train=loop))
    assert seen == [["s1", "s2", "s4", "s5"]]


def test_the_card_names_what_was_learned_from_and_judged_by(tmp_path: Path) -> None:
    patterns = write_pairs(tmp_path, ["a", "b", "c", "d"])
    split = {"train": ["a", "b"], "validation": ["c", "d"]}
    config = configuration(tmp_path, split=split, layout="pairs")
    data = dataclasses.replace(config.data, **patterns, on_bad="skip")
    path = config.data.root / "masks" / "b.png"
    path.write_bytes(path.read_bytes()[:100])
    loop = dataclasses.replace(config.train, validation_scenes=1)
    heard = Heard()
    with pytest.warns(GeosegWarning, match="b is left out"):
        folder = run(dataclasses.replace(config, data=data, train=loop), heard).folder
    card = (folder / "README.md").read_text()
    # b cannot be read, and d was not drawn.
    assert "| trained on | a |\n| validated on | c |" in card
    assert heard.looked_at == [("training", 9216, 18432), ("validation", 9216, 9216)]


def test_a_validation_image_that_cannot_be_read_is_left_out_of_all(
    tmp_path: Path,
) -> None:
    """Found when training begins: each validation is of the same scenes, and counts."""
    patterns = write_pairs(tmp_path, ["one", "two", "three"])
    split = {"train": ["one"], "validation": ["two", "three"]}
    config = configuration(tmp_path, split=split, layout="pairs")
    data = dataclasses.replace(config.data, **patterns)
    path = config.data.root / "images" / "three.png"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    heard = Heard()
    with pytest.raises(SceneError, match=r"three\.png cannot be read"):
        run(dataclasses.replace(config, data=data), heard)
    assert not heard.steps
    # Labels without a meaning, where they are ignored, do not hide it.
    mask = config.data.root / "masks" / "three.png"
    with Image.open(mask) as colors:
        pixels = np.array(colors)
    pixels[3, 55] = (1, 2, 3)
    Image.fromarray(pixels).save(mask)
    data = dataclasses.replace(data, on_bad="skip", unknown="ignore")
    with pytest.warns(GeosegWarning) as told:
        trained = run(dataclasses.replace(config, data=data), heard)
    assert [str(w.message).startswith("three is left out") for w in told] == [True]
    assert trained.outcome.best_step in (2, 3)
    assert "| validated on | two |" in (trained.folder / "README.md").read_text()


def hide(image: Path) -> None:
    """Give a picture an alpha band that hides all of it."""
    with Image.open(image) as picture:
        pixels = np.array(picture)
    clear = np.zeros(pixels.shape[:2], np.uint8)
    Image.fromarray(np.dstack([pixels, clear])).save(image)


def test_labels_below_images_without_data_judge_nothing(tmp_path: Path) -> None:
    patterns = write_pairs(tmp_path, ["one", "two", "three"])
    split = {"train": ["one"], "validation": ["two", "three"]}
    config = configuration(tmp_path, split=split, layout="pairs")
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, **patterns)
    )
    for name in ("two", "three"):
        hide(config.data.root / "images" / f"{name}.png")
    heard = Heard()
    with pytest.raises(
        ConfigError, match="no pixel of the validation scenes has a label"
    ):
        run(config, heard)
    assert not heard.steps


def test_a_validation_without_a_pixel_that_counts_chooses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patterns = write_pairs(tmp_path, ["one", "two"])
    split = {"train": ["one"], "validation": ["two"]}
    config = configuration(tmp_path, split=split, layout="pairs")
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, **patterns)
    )

    def late(*arguments: Any, **options: Any) -> Outcome:  # noqa: ANN401
        hide(config.data.root / "images" / "two.png")
        # An alpha band is looked for when a scene is opened.
        options["validation"].scenes = open_split(config.data).validation
        return fit(*arguments, **options)

    monkeypatch.setattr("geoseg.pipelines.train.fit", late)
    outcome = run(config).outcome
    assert (outcome.best_step, outcome.best_miou) == (None, None)


@pytest.mark.parametrize(("edge", "told"), [(0.001, "smaller than"), (3.0, "poor")])
def test_scenes_of_another_resolution_are_told_of_before_training(
    tmp_path: Path, edge: float, told: str
) -> None:
    patterns = write_pairs(tmp_path, ["one", "two"])
    split = {"train": ["one"], "validation": ["two"]}
    config = configuration(tmp_path, split=split, layout="pairs")
    path = config.data.root / "images" / "two.png"
    with Image.open(path) as image:
        pixels = np.array(image).transpose(2, 0, 1)
    path.unlink()
    place = Affine(edge, 0, 500000, 0, -edge, 4000000)
    write_raster(path.with_suffix(".tif"), pixels, transform=place, crs="EPSG:32631")
    patterns["images"] = "images/{stem}.*"
    data = dataclasses.replace(config.data, **patterns)
    heard = Heard()
    if told == "poor":
        with pytest.warns(GeosegWarning, match=r"data\.resolution .* poor") as caught:
            run(dataclasses.replace(config, data=data), heard)
        assert len(caught) == 1
        assert len(heard.scores) == 2
        return
    with pytest.raises(SceneError, match=r"two is smaller .*; leave it out"):
        run(dataclasses.replace(config, data=data), heard)
    assert not heard.steps


def test_a_run_that_lost_a_scene_says_so_when_it_goes_on(tmp_path: Path) -> None:
    split = {"train": ["a"], "validation": ["b", "c"]}
    patterns = write_pairs(tmp_path, ["a", "b", "c"])
    config = configuration(tmp_path, split=split, layout="pairs")
    data = dataclasses.replace(config.data, **patterns, on_bad="skip")
    config = dataclasses.replace(config, data=data)
    run(config)
    image = config.data.root / "images" / "c.png"
    image.write_bytes(image.read_bytes()[:-200])
    with (
        pytest.warns(GeosegWarning, match=r"^c is left out"),
        pytest.raises(ConfigError, match=r"\(scenes\.validation is '1 .* was '2 \S+"),
    ):
        run(config)
