"""The job `geoseg train` from a folder of scenes to a model folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import labelled_scenes
import numpy as np
import pytest
import rasterio
import tiny_models
import torch
import yaml
from affine import Affine
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from rasterio.enums import ColorInterp
from rasters import NORTH_UP, write_raster
from safetensors import SafetensorError
from safetensors.torch import load_file
from trainings import Heard, configuration, write_pairs

import geoseg
from geoseg.config import convert
from geoseg.data.config import SplitConfig
from geoseg.errors import (
    ConfigError,
    FileOutputError,
    ModelError,
    OutputError,
    TilingError,
    TrainingError,
)
from geoseg.inference import Predictor, PredictorConfig, TileInput
from geoseg.io.atomic import atomic_path
from geoseg.models import find_model, load_model, read_spec
from geoseg.pipelines.train import TrainConfig, run
from geoseg.training.progress import Listener
from geoseg.types import ChosenBands


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


def test_a_training_alone_leads_whatever_rank_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in the second task of `srun --ntasks=2`, each with a training of its own.
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
    for name in ranks:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # known since Lightning's import
    folder = run(configuration(tmp_path)).folder
    assert (folder / "model.safetensors").is_file()
    assert (tmp_path / "out/run.yaml").is_file()


@pytest.mark.parametrize(
    ("rank", "size", "told"),
    [("0", None, "WORLD_SIZE is not set"), ("1", "8", "WORLD_SIZE is 8")],
)
def test_a_rank_of_other_processes_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank: str,
    size: str | None,
    told: str,
) -> None:
    # It would wait for them.
    begun = "geoseg.pipelines.train._run_alone"
    monkeypatch.setattr(begun, lambda *_: pytest.fail("the training began"))
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    config = configuration(tmp_path)
    train = dataclasses.replace(
        config.train, devices=2, batch_size=2, final_batch_size=2
    )
    several = dataclasses.replace(config, train=train)
    with pytest.raises(TrainingError, match=f"^LOCAL_RANK is set to '{rank}' .*{told}"):
        run(several)
    assert not config.out.exists()


def test_a_recipe_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    (config.out / "run.yaml").mkdir(parents=True)
    with pytest.raises(FileOutputError, match=r"out/run\.yaml cannot .* \(Is a dir"):
        run(config)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_model_that_cannot_be_written_is_told_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    config = configuration(tmp_path)

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    with monkeypatch.context() as full:
        full.setattr("geoseg.pipelines.train.save_model", fail)
        with pytest.raises(
            FileOutputError, match=r"out/model cannot .*; make room and"
        ):
            run(config)
    assert (run(config).folder / "README.md").is_file()


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
    told = rf"\(scenes\.{part} is '1 scenes, (\w+), labels \w+', was '1 scenes, \1, "
    with pytest.raises(ConfigError, match=told):
        run(config)


def test_a_model_that_was_not_made_here_stays(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    thesis = config.out / "model" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(OutputError, match=r"no training in .* made it"):
        run(config)
    assert thesis.read_text() == "years of work"


def test_bands_that_the_model_does_not_take_are_refused(tmp_path: Path) -> None:
    four = {"mean": [0.5] * 4, "std": [0.5] * 4}
    told = r"have 4 numbers, and the model takes 3 .*num_channels=4"
    with pytest.raises(ConfigError, match=told):
        run(configuration(tmp_path, **four))
    one = {"mean": [0.5], "std": [0.5]}
    with pytest.raises(ConfigError, match=r"\[1, 1, 1\] of images with one, and give"):
        run(configuration(tmp_path, **one))


def test_chosen_bands_are_those_of_the_finished_model(tmp_path: Path) -> None:
    """Four of five, out of order: trained, and run on such images without a word."""
    patterns = write_pairs(tmp_path, ["a", "b"])
    for name in ("a", "b"):
        path = tmp_path / "scenes" / "images" / f"{name}.png"
        with Image.open(path) as picture:
            image = np.array(picture).transpose(2, 0, 1)
        path.unlink()
        digital = np.concatenate([image, image[:2]]).astype(np.uint16)
        write_raster(path.with_suffix(".tif"), digital)
    vit = tiny_models.vit_keys(num_channels=4)
    adapter = tiny_models.adapter_keys(freeze_backbone=False, backbone_config=vit)
    config = configuration(
        tmp_path, model=tiny_models.preset(backbone_config=adapter), split={}
    )
    data = dataclasses.replace(
        config.data,
        layout="pairs",
        images="images/{stem}.tif",
        labels=patterns["labels"],
        bands=(5, 3, 2, 1),
        mean=(0.5,) * 4,
        std=(0.2,) * 4,
        scale=400.0,
    )
    config = dataclasses.replace(config, data=data)
    folder = run(config).folder
    spec = read_spec(folder)
    assert spec.bands == ("band 5", "band 3", "band 2", "band 1")
    assert spec.chosen == ChosenBands((5, 3, 2, 1), (("gray", *["undefined"] * 4),))
    # What means 1.0 is known of the numbers that were seen.
    assert dict(spec.scale) == {"uint16": 400.0}
    scene = tmp_path / "scenes" / "images" / "a.tif"
    geoseg.segment([scene], tmp_path / "maps", model=str(folder))
    assert (tmp_path / "maps" / "a" / "classes.tif").is_file()


def test_scenes_whose_chosen_bands_differ_are_not_trained_together(
    tmp_path: Path,
) -> None:
    patterns = write_pairs(tmp_path, ["a", "b"])
    images = tmp_path / "scenes/images"
    places = {"a": NORTH_UP, "b": NORTH_UP @ Affine.translation(1000, 0)}
    for name, colors in (("a", "red green blue"), ("b", "blue green red")):
        with Image.open(images / f"{name}.png") as picture:
            image = np.array(picture).transpose(2, 0, 1)
        path = write_raster(images / f"{name}.tif", image, transform=places[name])
        with rasterio.open(path, "r+") as dataset:
            dataset.colorinterp = [ColorInterp[color] for color in colors.split()]
    split = {"train": ["a"], "validation": ["b"]}
    config = configuration(tmp_path, layout="pairs", split=split)
    patterns |= {"images": "images/{stem}.tif"}
    data = dataclasses.replace(config.data, **patterns, bands=(3, 2, 1))
    with pytest.raises(
        ConfigError, match=r"band 3 .* b says is red and a says is blue"
    ):
        run(dataclasses.replace(config, data=data))


def test_what_a_killed_run_has_left_is_removed(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    config.out.mkdir()
    final = config.out / "last.ckpt"
    with contextlib.suppress(KeyboardInterrupt), atomic_path(final) as path:
        left = path
        raise KeyboardInterrupt
    left.touch()  # as SIGKILL leaves it
    run(config)
    assert final.is_file()
    assert not left.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_size": 100}, "^tile_size: tile size 100 .* use 96 or 112"),
        ({"chips": {"size": 50}}, r"^chips\.size: tile size 50"),
        ({"train": {"final_chip_size": 70}}, r"^train\.final_chip_size: tile size 70"),
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
        ({"std": (0.2, 0.0, 0.2)}, "deviations above 0"),
        ({"mean": (0.1, float("nan"), 0.2)}, "give numbers"),
        ({"mean": (123.0, 116.0, 103.0)}, "divided by 255.*set data.scale"),
        ({"mean": (1200.0, 1100.0, 900.0), "scale": 1e4}, r"divided by data\.scale, 1"),
        ({"scale": 0.0}, r"data\.scale is 0\.0"),
        ({"bands": (0, 1, 2)}, r"data\.bands are \[0, 1, 2\]; they count from 1"),
        ({"resolution": 0.0}, "data.resolution"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(configuration(tmp_path).data, **change)
