"""Finding, describing and loading models; nothing that comes with weights is run."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from model_folders import edit, one_line_error
from safetensors.torch import load_file, save_file
from transformers import (
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    UperNetConfig,
    UperNetForSemanticSegmentation,
    ViTConfig,
    ViTModel,
)

from geoseg.errors import TilingError
from geoseg.inference import Predictor, PredictorConfig, TileInput
from geoseg.io.style import qml, sld
from geoseg.models import find_model, load_model, query_logits, read_spec
from geoseg.models.registry import builtin_folder, weights_sha256
from geoseg.types import ClassInfo

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def segformer(**changes: Any) -> PreTrainedModel:  # noqa: ANN401
    keys: dict[str, Any] = {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 8, 16, 16],
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": 16,
        "num_labels": 5,
    }
    return SegformerForSemanticSegmentation(SegformerConfig(**{**keys, **changes}))


def upernet() -> PreTrainedModel:
    keys: dict[str, Any] = {
        "backbone_config": {
            "model_type": "convnext",
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 8, 16, 16],
            "out_features": STAGES,
        },
        "hidden_size": 16,
        "auxiliary_channels": 8,
        "auxiliary_in_channels": 16,
        "num_labels": 5,
    }
    return UperNetForSemanticSegmentation(UperNetConfig(**keys))


def eomt() -> PreTrainedModel:
    keys: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_blocks": 1,
        "num_queries": 4,
        "image_size": 64,
        "num_labels": 5,
    }
    return EomtDinov3ForUniversalSegmentation(EomtDinov3Config(**keys))


def mask2former_swin() -> Mask2FormerForUniversalSegmentation:
    swin = {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "out_features": STAGES,
    }
    keys = tiny_models.preset(backbone_config=swin, num_labels=5)
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**keys))


# What saves it, tile size, pixels a cell of its logits.
PUBLISHED: dict[str, tuple[Callable[[], PreTrainedModel], int, int]] = {
    "segformer": (segformer, 512, 4),
    "upernet": (upernet, 512, 1),
    "eomt": (eomt, 64, 4),
    "mask2former": (mask2former_swin, 512, 4),
}


# Any checkpoint of Hugging Face's


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_are_models_too(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build, tile_size, stride = PUBLISHED[name]
    torch.manual_seed(0)
    build().save_pretrained(tmp_path)
    SegformerImageProcessor().save_pretrained(tmp_path)
    capfd.readouterr()
    assert find_model(str(tmp_path)) == tmp_path
    spec = read_spec(tmp_path)
    assert spec.tile_size == tile_size
    assert spec.classes[4].id == 4
    assert len({entry.color for entry in spec.classes}) == 5
    assert dict(spec.scale) == pytest.approx({"uint8": 255.0})
    assert list(spec.mean) == pytest.approx([0.485, 0.456, 0.406])
    size = 64
    small = read_spec(tmp_path, tile_size=size)
    predictor = Predictor(
        load_model(tmp_path), small, PredictorConfig(str(tmp_path), "", size)
    )
    assert capfd.readouterr() == ("", "")
    values = np.random.default_rng(0).integers(0, 256, (3, size, size), np.uint8)
    tile = TileInput(values, np.ones((size, size), bool))
    (logits,) = predictor.predict([tile], 255.0)
    assert logits.shape == (5, size // stride, size // stride)
    assert np.isfinite(logits).all()
    assert np.ptp(logits) > 0


def test_fixed_image_sizes_allow_no_other_tile(tmp_path: Path) -> None:
    eomt().save_pretrained(tmp_path)
    SegformerImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(TilingError, match="80 does not fit: this model takes 64 only"):
        read_spec(tmp_path, tile_size=80)


def test_swin_in_hugging_faces_mask2former_runs_geosegs_op(tmp_path: Path) -> None:
    model = mask2former_swin().train(False)
    model.save_pretrained(tmp_path)
    loaded: Any = load_model(tmp_path)
    layer = loaded.model.pixel_level_module.decoder.encoder.layers[0]
    assert type(layer.self_attn).__module__ == "geoseg.models.segmenter"
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = loaded(pixel_values=pixels), model(pixel_values=pixels)
    torch.testing.assert_close(
        found.masks_queries_logits, wanted.masks_queries_logits, rtol=1e-4, atol=1e-4
    )


# Our own folders


def test_folder_declares_everything(ours: Path) -> None:
    spec = read_spec(ours, name="mine")
    assert spec.name == "mine"
    assert (spec.tile_size, spec.patch_size, spec.resolution) == (64, 16, 0.5)
    assert spec.classes == tiny_models.CLASSES
    assert spec.bands == ("red", "green", "blue")
    assert spec.scale == (("uint8", 255.0),)
    assert (spec.mean, spec.std) == (tiny_models.MEAN, tiny_models.STD)
    assert spec.weights_sha256 == weights_sha256(ours)


def test_loaded_model_is_the_saved_one(ours: Path) -> None:
    saved: Any = tiny_models.segmenter()
    with torch.no_grad():
        for value in saved.state_dict().values():
            value.copy_(value.half() if value.is_floating_point() else value)
    loaded: Any = load_model(ours)
    assert not loaded.training
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, wanted = loaded(pixel_values=pixels), saved(pixel_values=pixels)
    for key in ("class_queries_logits", "masks_queries_logits"):
        torch.testing.assert_close(found[key], wanted[key], rtol=0, atol=0)


def test_plain_from_pretrained_gives_the_logits_of_load_model(ours: Path) -> None:
    plain = Mask2FormerForUniversalSegmentation.from_pretrained(ours).eval()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loaded: Any = load_model(ours)
    with torch.no_grad():
        found, wanted = plain(pixel_values=pixels), loaded(pixel_values=pixels)
    torch.testing.assert_close(
        query_logits(found.class_queries_logits, found.masks_queries_logits),
        query_logits(wanted.class_queries_logits, wanted.masks_queries_logits),
        rtol=1e-4,
        atol=1e-4,
    )


def test_weights_are_stored_as_float16(ours: Path) -> None:
    weights = load_file(ours / "model.safetensors")
    kinds = {value.dtype for value in weights.values() if value.is_floating_point()}
    assert kinds == {torch.float16}


def test_tile_sizes_that_do_not_fit_name_the_nearest(ours: Path) -> None:
    with pytest.raises(TilingError, match=r"700.*688.*704"):
        read_spec(ours, tile_size=700)
    assert read_spec(ours, tile_size=720).tile_size == 720


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"id2label": {"0": "a", "1": "b", "2": "c", "3": "d"}}),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}),
    ],
)
def test_hash_changes_with_what_decides_the_logits(
    ours: Path, file: str, changes: dict[str, Any]
) -> None:
    before = weights_sha256(ours)
    edit(ours / file, **changes)
    assert weights_sha256(ours) != before


def test_hash_changes_with_the_weights_alone(ours: Path) -> None:
    before = weights_sha256(ours)
    weights = load_file(ours / "model.safetensors")
    weights["class_predictor.bias"][0] += 1
    save_file(weights, ours / "model.safetensors", metadata={"format": "pt"})
    assert weights_sha256(ours) != before
    (ours / "README.md").write_text("notes")
    again = weights_sha256(ours)
    (ours / "README.md").unlink()
    assert weights_sha256(ours) == again


# Folders that cannot be used


def test_folder_without_configuration(tmp_path: Path) -> None:
    message = one_line_error(lambda: find_model(str(tmp_path)))
    assert "no config.json; a model is" in message


def test_folder_without_weights(ours: Path) -> None:
    (ours / "model.safetensors").unlink()
    assert "no *.safetensors" in one_line_error(lambda: find_model(str(ours)))


def test_pickled_weights_are_never_read(ours: Path, tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    (ours / "model.safetensors").unlink()
    torch.save({"a": Planted()}, ours / "pytorch_model.bin")
    message = one_line_error(lambda: find_model(str(ours)))
    assert "pytorch_model.bin is a pickle; convert it to safetensors" in message
    one_line_error(lambda: load_model(ours))
    assert not (tmp_path / "executed").exists()
    # Not even one that holds nothing but weights.
    torch.save(tiny_models.segmenter().state_dict(), ours / "pytorch_model.bin")
    one_line_error(lambda: load_model(ours))


@pytest.mark.parametrize("model_type", ["mask2former", "unheard_of"])
def test_code_that_comes_with_a_model_is_never_run(
    ours: Path, tmp_path: Path, model_type: str
) -> None:
    mark = tmp_path / "executed"
    (ours / "planted.py").write_text(
        f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
        "from transformers import Mask2FormerConfig as Config\n"
        "from transformers import Mask2FormerForUniversalSegmentation as Model\n"
    )
    (ours / "__init__.py").write_text(f"open({str(mark)!r}, 'w')\n")
    auto_map = {
        "AutoConfig": "planted.Config",
        "AutoModelForUniversalSegmentation": "planted.Model",
        "AutoModelForSemanticSegmentation": "planted.Model",
        "AutoImageProcessor": "planted.Processor",
    }
    edit(ours / "config.json", auto_map=auto_map, model_type=model_type)
    edit(ours / "preprocessor_config.json", auto_map=auto_map)
    if model_type == "mask2former":  # known: transformers' own code loads it
        find_model(str(ours))
        read_spec(ours)
        load_model(ours)
    else:
        assert one_line_error(lambda: read_spec(ours))
        one_line_error(lambda: load_model(ours))
    assert not mark.exists()


def test_models_that_do_not_segment(tmp_path: Path) -> None:
    ViTModel(
        ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path)
    message = one_line_error(lambda: load_model(tmp_path))
    assert "'vit' checkpoint has no semantic or universal segmentation head" in message


@pytest.mark.parametrize("content", ["{", "[1]", "", '{"model_type": "x"}', "\x00\xff"])
def test_broken_configurations(ours: Path, content: str) -> None:
    (ours / "config.json").write_text(content, encoding="latin-1")
    assert one_line_error(lambda: read_spec(ours))
    assert "config.json" in one_line_error(lambda: load_model(ours))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_queries": "many"},
        {"backbone_config": {"model_type": "unheard_of"}},
        {"geoseg": 5},
        {"geoseg": {"classes": [{"id": 1}]}},
        {"geoseg": {"classes": []}},
        {"geoseg": {"tile_size": "large"}},
    ],
)
def test_configurations_with_wrong_values(ours: Path, changes: dict[str, Any]) -> None:
    edit(ours / "config.json", **changes)
    assert one_line_error(lambda: read_spec(ours))


@pytest.mark.parametrize(
    "ids", [[1, 1, 2, 3], [0, 1, 2, 255], [-1, 0, 1, 2], [1, 2, 3]]
)
def test_class_tables_that_do_not_fit(ours: Path, ids: list[int]) -> None:
    classes = [{"id": i, "name": "a", "color": [0, 0, 0]} for i in ids]
    edit(ours / "config.json", geoseg={"classes": classes})
    assert "class ids" in one_line_error(lambda: read_spec(ours))


def test_damaged_and_incomplete_weights(ours: Path) -> None:
    path = ours / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be loaded" in one_line_error(lambda: load_model(ours))
    path.write_bytes(whole)
    weights = load_file(path)
    del weights["class_predictor.bias"]
    save_file(weights, path, metadata={"format": "pt"})
    message = one_line_error(lambda: load_model(ours))
    assert "lacks 1 weights, class_predictor.bias first" in message
    weights["class_predictor.bias"] = torch.zeros(2)
    save_file(weights, path, metadata={"format": "pt"})
    one_line_error(lambda: load_model(ours))


def test_missing_built_in_model_does_not_ask_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "geoseg.models.registry.builtin_folder", lambda: tmp_path / "no"
    )
    message = one_line_error(lambda: find_model("builtin"))
    assert "no built-in model; install geoseg again" in message
    assert builtin_folder().name == "builtin"


def test_class_names_of_a_copy_stay_in_order(ours: Path, tmp_path: Path) -> None:
    # JSON sorts "10" before "2": with more than ten classes the order would be lost.
    labels = {str(i): f"class {i}" for i in range(12)}
    shutil.copytree(ours, tmp_path / "copy")
    edit(
        tmp_path / "copy" / "config.json",
        id2label=labels,
        label2id={name: int(i) for i, name in labels.items()},
        geoseg=None,
    )
    spec = read_spec(tmp_path / "copy")
    assert [entry.name for entry in spec.classes] == list(labels.values())
    assert spec.classes[10] == ClassInfo(10, "class 10", spec.classes[10].color)


@pytest.mark.parametrize("declared", [False, True])
def test_class_names_hold_no_character_that_styles_cannot(
    ours: Path, tmp_path: Path, declared: bool
) -> None:
    names = ["a\x01b", "\ud83c", "\ud83c\udf33 \uffff"]
    classes = [
        {"id": i, "name": name, "color": [1, 2, 3]} for i, name in enumerate(names)
    ]
    shutil.copytree(ours, tmp_path / "copy")
    edit(
        tmp_path / "copy" / "config.json",
        id2label={str(i): name for i, name in enumerate(names)},
        label2id={name: i for i, name in enumerate(names)},
        geoseg={"classes": classes} if declared else None,
    )
    spec = read_spec(tmp_path / "copy")
    shown = ["a\ufffdb", "\ufffd", "\U0001f333 \ufffd"]
    assert [entry.name for entry in spec.classes] == shown
    for style in (qml(spec.classes), sld(spec.classes, "segments")):
        ET.fromstring(style.encode())
