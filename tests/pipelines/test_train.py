"""The job `geoseg train` from a folder of scenes to a model folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import labelled_scenes
import numpy as np
import pytest
import tiny_models
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from geoseg.config import convert
from geoseg.data.config import SplitConfig
from geoseg.errors import (
    ConfigError,
    GeosegWarning,
    ModelError,
    OutputError,
    SceneError,
    TilingError,
)
from geoseg.inference import Predictor, PredictorConfig, TileInput
from geoseg.models import find_model, load_model, read_spec
from geoseg.pipelines.train import TrainConfig, run
from geoseg.training.fit import Outcome, fit
from geoseg.training.progress import Listener


def configuration(tmp_path: Path, **changes: Any) -> TrainConfig:  # noqa: ANN401
    root = tmp_path / "scenes"
    if not root.exists():
        labelled_scenes.write(root, ["one", "two", "unseen"])
    classes = [
        {"id": 10 * i, "name": name, "color": list(color)}
        for i, (name, color) in enumerate(
            zip(labelled_scenes.CLASSES, labelled_scenes.COLORS, strict=True), start=1
        )
    ]
    model = tiny_models.preset(
        backbone_config=tiny_models.adapter_keys(freeze_backbone=False)
    )
    keys: dict[str, Any] = {
        "data": {
            "root": str(root),
            "layout": "parts",
            "split": {"train": ["one", "two"]},
            "classes": classes,
            "ignore": ["#000000"],
            "resolution": 0.5,
            "mean": list(tiny_models.MEAN),
            "std": list(tiny_models.STD),
        },
        "model": model,
        "out": str(tmp_path / "out"),
        "tile_size": 96,
        "chips": {"size": 48},
        "train": {
            "steps": 3,
            "batch_size": 2,
            "final_chip_size": 48,
            "log_every": 1,
            "validate_every": 2,
        },
    }
    keys["data"].update({k: changes.pop(k) for k in [*changes] if k in keys["data"]})
    return convert({**keys, **changes}, TrainConfig)


def test_run_writes_a_folder_that_segment_loads(tmp_path: Path) -> None:
    heard = Heard()
    folder = run(configuration(tmp_path), heard).folder
    assert folder == tmp_path / "out" / "model"
    assert heard.steps == [1, 2, 3]
    assert find_model(str(folder)) == folder
    spec = read_spec(folder)
    assert [entry.id for entry in spec.classes] == [10, 20, 30]
    assert [entry.name for entry in spec.classes] == list(labelled_scenes.CLASSES)
    assert (spec.tile_size, spec.resolution) == (96, 0.5)
    predictor = Predictor(
        load_model(folder), spec, PredictorConfig(str(folder), "", 96)
    )
    image, _ = labelled_scenes.draw(96, 96)
    tile = TileInput(image, np.ones((96, 96), bool))
    (logits,) = predictor.predict([tile], 255.0)
    assert logits.shape == (3, 24, 24)
    assert np.isfinite(logits).all()


def test_a_run_starts_from_the_weights_that_it_is_told(tmp_path: Path) -> None:
    first = run(configuration(tmp_path)).folder
    config = configuration(tmp_path, start_from=str(first), out=str(tmp_path / "next"))
    hardly = dataclasses.replace(config.train, steps=1, learning_rate=1e-9)
    folder = run(dataclasses.replace(config, train=hardly)).folder
    theirs, weights = (dict(load_model(f).named_parameters()) for f in (first, folder))
    for name, value in weights.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-6)


def test_a_run_that_was_begun_needs_its_start_no_more(tmp_path: Path) -> None:
    first = run(configuration(tmp_path)).folder
    config = configuration(tmp_path, start_from=str(first), out=str(tmp_path / "next"))
    made = (run(config).folder / "model.safetensors").read_bytes()
    moved = first.rename(tmp_path / "moved")
    again = dataclasses.replace(config, start_from=str(moved))
    for same in (config, again):
        assert (run(same).folder / "model.safetensors").read_bytes() == made
    other = dataclasses.replace(config, start_from=str(tmp_path / "next" / "model"))
    with pytest.raises(ConfigError, match=r"another recipe \(start_from is"):
        run(other)
    # Neither a new run nor one that began without a start has that from nowhere.
    for out in (tmp_path / "new", configuration(tmp_path).out):
        with pytest.raises(ModelError, match="moved-too"):
            run(dataclasses.replace(other, out=out, start_from="moved-too/"))


def test_what_helps_only_in_training_does_not_ship(tmp_path: Path) -> None:
    folder = run(configuration(tmp_path)).folder
    names = set(load_file(folder / "model.safetensors"))
    built = tiny_models.segmenter(num_labels=3).state_dict()
    assert load_model(folder).state_dict().keys() == built.keys()
    assert len(names) == len(built)  # transformers renames some in the file
    assert not {name for name in names if "classifier" in name}
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert not (tmp_path / "out" / ".model").exists()


def test_finished_run_writes_the_same_model_again(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    first = (run(config).folder / "model.safetensors").read_bytes()
    (tmp_path / "out" / "model" / "config.json").write_text("spoilt")
    heard = Heard()
    folder = run(config, heard).folder
    assert heard.steps == []
    assert (folder / "model.safetensors").read_bytes() == first
    assert json.loads((folder / "config.json").read_text())["num_queries"] == 12


def test_a_run_keeps_its_configuration_and_no_other_goes_on_with_it(
    tmp_path: Path,
) -> None:
    config = configuration(tmp_path)
    folder = run(config).folder
    saved = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())
    assert convert(saved, TrainConfig) == config
    names = (folder / "config.json").read_text()
    other = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, classes=config.data.classes[::-1]),
    )
    with pytest.raises(ConfigError, match=r"begun with .*data\.classes is .*, was "):
        run(other)
    seeded = dataclasses.replace(config.train, seed=1)
    with pytest.raises(ConfigError, match=r"\(train\.seed is 1, was 0\)"):
        run(dataclasses.replace(config, train=seeded))
    assert (folder / "config.json").read_text() == names
    # The data may have moved.
    moved = tmp_path / "moved"
    config.data.root.rename(moved)
    data = dataclasses.replace(config.data, root=moved)
    run(dataclasses.replace(config, data=data))


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path) -> None:
    config = configuration(tmp_path)

    class Another(Listener):
        def step(self, step: int, terms: dict[str, float]) -> None:
            with pytest.raises(OutputError, match="another run writes to"):
                run(config)

    run(config, Another())


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


def test_scenes_that_came_or_went_are_another_run(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    everything = dataclasses.replace(
        config, data=dataclasses.replace(config.data, split=SplitConfig())
    )
    run(everything)
    shutil.rmtree(config.data.root)
    labelled_scenes.write(config.data.root, ["one", "two", "unseen", "new"])
    with pytest.raises(ConfigError, match=r"scenes\.train is '4 scenes, .*', was '3 "):
        run(everything)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_other_labels_are_another_run(tmp_path: Path, part: str) -> None:
    other = {"train": "validation", "validation": "train"}[part]
    config = configuration(tmp_path, split={part: ["two"], other: ["one"]})
    run(config)
    for path in (config.data.root / "two" / "masks").iterdir():
        with Image.open(path) as mask:
            pixels = np.array(mask)
        land, road = labelled_scenes.COLORS[1:]
        was_land, was_road = ((pixels == one).all(-1) for one in (land, road))
        pixels[was_land], pixels[was_road] = road, land
        Image.fromarray(pixels).save(path)
    with pytest.raises(ConfigError, match=r"scenes\.labels is"):
        run(config)


def test_a_model_that_was_not_made_here_stays(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    thesis = config.out / "model" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(OutputError, match=r"no training in .* made it"):
        run(config)
    assert thesis.read_text() == "years of work"


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
    # However large it is: of a training scene this block would not be looked at.
    for name, value in {"BLOCK": 16, "_ONE_BLOCK": 64, "_MOST_BLOCKS": 12}.items():
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
        pytest.raises(ConfigError, match="no validation scene whose labels"),
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


def write_pairs(root: Path, names: list[str]) -> dict[str, Any]:
    """Write scenes of a file each; return how they are found."""
    for number, name in enumerate(names):
        image, labels = labelled_scenes.draw(96, 96, seed=number)
        colors = np.zeros((*labels.shape, 3), np.uint8)
        for index, color in enumerate(labelled_scenes.COLORS):
            colors[labels == index] = color
        for kind, pixels in (("images", image.transpose(1, 2, 0)), ("masks", colors)):
            folder = root / "scenes" / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    return {"images": "images/{stem}.png", "labels": "masks/{stem}.png"}


def test_bands_that_the_model_does_not_take_are_refused(tmp_path: Path) -> None:
    four = {"mean": [0.5] * 4, "std": [0.5] * 4}
    with pytest.raises(ConfigError, match="have 4 numbers, and the model takes 3"):
        run(configuration(tmp_path, **four))


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


class Heard(Listener):
    """Records the steps that a run tells of."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def step(self, step: int, terms: dict[str, float]) -> None:
        self.steps.append(step)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_size": 100}, "tile size 100 .* use 96 or 112"),
        ({"chips": {"size": 50}}, "tile size 50"),
        ({"train": {"final_chip_size": 70}}, "tile size 70"),
    ],
)
def test_sizes_that_hold_no_whole_patches_are_refused_before_training(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TilingError, match=message):
        run(configuration(tmp_path, **changes))
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ()}, "data.classes"),
        ({"mean": (0.1,)}, "data.mean"),
        ({"resolution": 0.0}, "data.resolution"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(configuration(tmp_path).data, **change)
