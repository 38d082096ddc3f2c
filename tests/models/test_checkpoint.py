"""Lightning checkpoints that are accepted where a model folder is."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from commands import geoseg
from model_folders import one_line_error
from rasters import write_raster
from running import fingerprint, read_band, segment_plainly, smooth_image
from transformers import Mask2FormerForUniversalSegmentation

from geoseg.errors import ModelError, TilingError
from geoseg.inference import PredictorConfig, check_weights
from geoseg.models import find_model, load_model, read_spec
from geoseg.models.checkpoint import checkpoint_payload
from geoseg.models.export import declare
from geoseg.models.registry import architecture, weight_files, weights_sha256


def declared(**changes: Any) -> Mask2FormerForUniversalSegmentation:  # noqa: ANN401
    model = tiny_models.segmenter(**changes)
    declare(
        model,
        classes=tiny_models.CLASSES,
        mean=tiny_models.MEAN,
        std=tiny_models.STD,
        tile_size=64,
        resolution=0.5,
    )
    return model


def content(
    model: Mask2FormerForUniversalSegmentation, prefix: str = "model."
) -> dict[str, Any]:
    """Return what Lightning saves: weights, what it needs itself, and our key."""
    state = {prefix + name: value for name, value in model.state_dict().items()}
    return {
        "state_dict": OrderedDict(state | {"loss.weight": torch.zeros(3)}),
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"best": {"score": torch.tensor(0.5), "path": "a.ckpt"}},
        "global_step": 7,
        "pytorch-lightning_version": "2.6.6",
        "geoseg": checkpoint_payload(model),
    }


def answer(model: Any) -> torch.Tensor:  # noqa: ANN401
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits: torch.Tensor = model(pixel_values=pixels).masks_queries_logits
    return logits


@pytest.fixture
def ckpt(tmp_path: Path) -> Path:
    """A checkpoint without an average."""
    path = tmp_path / "run.ckpt"
    torch.save(content(declared()), path)
    return path


# What is written


def test_payload_is_plain_and_says_what_a_folder_says(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="call declare on it first"):
        checkpoint_payload(tiny_models.segmenter())
    payload = checkpoint_payload(declared())
    assert json.loads(json.dumps(payload)) == payload
    folder = tiny_models.save_segmenter(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    folders = config.pop("geoseg")
    assert payload["config"] == config
    assert payload["declaration"] == folders | {
        "mean": list(tiny_models.MEAN),
        "std": list(tiny_models.STD),
    }


# What is read


def test_checkpoint_declares_what_its_folder_would(ckpt: Path, tmp_path: Path) -> None:
    folder = tiny_models.save_segmenter(tmp_path / "folder")
    assert find_model(str(ckpt)) == ckpt
    found, wanted = read_spec(ckpt, name="a"), read_spec(folder, name="a")
    for field in ("classes", "bands", "scale", "mean", "std", "resolution"):
        assert getattr(found, field) == getattr(wanted, field)
    assert (found.tile_size, found.patch_size) == (64, 16)
    assert read_spec(ckpt).name == "run.ckpt"
    assert architecture(ckpt) == "Mask2FormerForUniversalSegmentation"
    assert weight_files(ckpt) == [ckpt]
    with pytest.raises(TilingError, match=r"700.*688.*704"):
        read_spec(ckpt, tile_size=700)


def test_loaded_checkpoint_is_the_saved_model(ckpt: Path) -> None:
    loaded: Any = load_model(ckpt)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    layer = loaded.model.pixel_level_module.decoder.encoder.layers[0]
    assert type(layer.self_attn).__module__ == "geoseg.models.segmenter"
    assert torch.equal(answer(loaded), answer(declared()))


def test_average_is_preferred_to_the_last_weights(ckpt: Path) -> None:
    average = declared(seed=8)
    saved = content(declared())
    saved["state_dict"].update(content(average, "average.")["state_dict"])
    torch.save(saved, ckpt)
    assert torch.equal(answer(load_model(ckpt)), answer(average))


def test_identity_is_the_content_and_is_checked_on_workers(ckpt: Path) -> None:
    identity = weights_sha256(ckpt)
    moved = ckpt.rename(ckpt.with_name("moved.ckpt"))
    assert weights_sha256(moved) == read_spec(moved).weights_sha256 == identity
    check_weights(PredictorConfig(str(moved), identity, 64))
    torch.save(content(declared(seed=4)), moved)
    assert weights_sha256(moved) != identity
    with pytest.raises(ModelError, match="has other weights on this worker"):
        check_weights(PredictorConfig(str(moved), identity, 64))


# What is refused


def test_pickled_code_is_never_run(ckpt: Path, tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save(content(declared()) | {"callbacks": Planted()}, ckpt)
    for use in (read_spec, load_model):
        message = one_line_error(lambda use=use: use(ckpt))  # type: ignore[misc]
        assert "pickled code is never run" in message
    assert not (tmp_path / "executed").exists()


def test_damaged_and_foreign_files(ckpt: Path) -> None:
    whole = ckpt.read_bytes()
    for damaged in (b"", b"\x80\x02}q\x00.", whole[: len(whole) // 2], b"text" * 99):
        ckpt.write_bytes(damaged)
        assert "run.ckpt" in one_line_error(lambda: read_spec(ckpt))
    saved = content(declared())
    foreign: object
    for foreign in ([1], {"state_dict": {}}, {"geoseg": saved["geoseg"]}):
        torch.save(foreign, ckpt)
        message = one_line_error(lambda: read_spec(ckpt))
        assert "lacks the key" in message
    torch.save(saved | {"geoseg": {"config": {}}}, ckpt)
    assert "does not describe its model" in one_line_error(lambda: read_spec(ckpt))
    torch.save(saved | {"state_dict": {"loss.weight": torch.zeros(1)}}, ckpt)
    assert "holds no weights" in one_line_error(lambda: read_spec(ckpt))


def test_checkpoints_that_do_not_fit_their_description(ckpt: Path) -> None:
    saved = content(declared())
    del saved["state_dict"]["model.class_predictor.bias"]
    torch.save(saved, ckpt)
    message = one_line_error(lambda: load_model(ckpt))
    assert "lacks 1 weights, class_predictor.bias first" in message
    saved["state_dict"]["model.class_predictor.bias"] = torch.zeros(2)
    torch.save(saved, ckpt)
    assert "cannot be loaded" in one_line_error(lambda: load_model(ckpt))
    for key, value in (("mean", [0.5, 0.5]), ("classes", []), ("tile_size", "large")):
        wrong = checkpoint_payload(declared())
        wrong["declaration"][key] = value
        torch.save(saved | {"geoseg": wrong}, ckpt)
        assert "what it declares" in one_line_error(lambda: read_spec(ckpt))
    saved["geoseg"]["config"]["model_type"] = "unheard_of"
    torch.save(saved, ckpt)
    assert "transformers knows" in one_line_error(lambda: read_spec(ckpt))


def test_checkpoint_that_is_not_there_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    message = one_line_error(lambda: find_model(str(tmp_path / "no.ckpt")))
    assert "there is no checkpoint" in message


# A run


def test_masks_of_a_checkpoint_are_those_of_its_folder(tmp_path: Path) -> None:
    model = declared().half().float()  # Folders keep float16.
    torch.save(content(model), tmp_path / "run.ckpt")
    folder = tiny_models.save_segmenter(tmp_path / "folder")
    scene = write_raster(tmp_path / "scene.tif", smooth_image(90, 130))
    for name, path in (("a", tmp_path / "run.ckpt"), ("b", folder)):
        segment_plainly(scene, tmp_path / name, path)
    found, wanted = (tmp_path / name / "scene" for name in "ab")
    assert fingerprint(found) == fingerprint(wanted)
    assert len(np.unique(read_band(found / "classes.tif"))) > 2


@pytest.mark.slow
def test_segment_takes_a_checkpoint_and_says_so(
    ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "scene.tif", smooth_image(90, 130))
    monkeypatch.chdir(tmp_path)
    arguments = ("segment", scene, "-o", "out", "--model", ckpt.name)
    result = geoseg(*arguments, "--workers", "1", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    item = json.loads((tmp_path / "out" / "model.json").read_text())
    properties, weights = item["properties"], item["assets"]["weights"]
    assert properties["mlm:architecture"] == "Mask2FormerForUniversalSegmentation"
    assert properties["geoseg:sha256"] == weights_sha256(ckpt)
    assert weights["mlm:artifact_type"] == "torch.save"
    assert weights["href"] == str(ckpt)
    # Recorded with its whole path: the same call again, from anywhere, finds it.
    monkeypatch.chdir("/")
    again = geoseg("segment", "-c", tmp_path / "out" / "run.yaml")
    assert again.exit_code == 0, again.stderr
