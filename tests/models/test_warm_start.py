"""A head that starts from a Mask2Former of other classes, on another backbone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    ViTConfig,
    ViTModel,
)

from geoseg.errors import ConfigError, ModelError
from geoseg.models import build_mask2former
from geoseg.models.warm_start import WarmStart, load_head

CLASS_HEAD = ("class_predictor.weight", "class_predictor.bias")


def swin_keys(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return keys of a Mask2Former as published: on Swin, for other classes."""
    keys = tiny_models.preset(num_labels=9, **changes)
    keys["backbone_config"] = {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    return keys


def save_swin(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401
    """Write such a checkpoint with transformers alone; return its weights."""
    config = Mask2FormerConfig(**swin_keys(**changes))
    model = tiny_models.randomized(Mask2FormerForUniversalSegmentation(config), seed=5)
    model.save_pretrained(folder)
    return model.state_dict()


def start(folder: Path, **changes: Any) -> tuple[dict[str, Any], Any, WarmStart]:  # noqa: ANN401
    """Build a model and warm it; return its weights before, itself, and the report."""
    model = tiny_models.segmenter(**changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    return before, model, load_head(model, str(folder))


def test_head_is_taken_and_classes_and_encoder_are_not(tmp_path: Path) -> None:
    theirs = save_swin(tmp_path)
    before, model, result = start(tmp_path)
    after = model.state_dict()
    assert 0.9 < result.share < 1.0
    for name in result.taken:
        assert torch.equal(after[name], theirs[name]), name
    for name in after.keys() - set(result.taken):
        assert torch.equal(after[name], before[name]), name
    assert not any("pixel_level_module.encoder." in name for name in result.taken)
    assert not set(CLASS_HEAD) & {*result.taken, *result.left}
    # What depends on the backbone's widths stays, and is told with both shapes.
    for name, reason in result.left.items():
        assert "input_projections" in name or "adapter_1" in name
        assert "here" in reason
    left = "model.pixel_level_module.decoder.input_projections.0.0.weight"
    assert result.left[left] == "[32, 32, 1, 1] here, [32, 64, 1, 1] there"


def test_deformable_attention_and_queries_are_among_what_is_taken(
    tmp_path: Path,
) -> None:
    save_swin(tmp_path)
    _, model, result = start(tmp_path)
    attention = "model.pixel_level_module.decoder.encoder.layers.0.self_attn"
    for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
        assert f"{attention}.{part}.weight" in result.taken
    assert "model.transformer_module.queries_features.weight" in result.taken
    pixels = torch.zeros(1, 3, 64, 64)
    assert model(pixel_values=pixels).masks_queries_logits.isfinite().all()


def test_other_numbers_of_queries_and_layers_leave_those_alone(tmp_path: Path) -> None:
    save_swin(tmp_path, num_queries=5, decoder_layers=3)
    _, _, result = start(tmp_path, encoder_layers=2)
    queries = "model.transformer_module.queries_embedder.weight"
    assert result.left[queries] == "[12, 32] here, [5, 32] there"
    second = "model.pixel_level_module.decoder.encoder.layers.1.fc1.weight"
    assert result.left[second] == "the checkpoint has none"


def test_equal_class_counts_still_leave_the_class_head(tmp_path: Path) -> None:
    tiny_models.segmenter(seed=8).save_pretrained(tmp_path)
    before, model, result = start(tmp_path)
    assert result.share == 1.0
    assert not result.left
    for name in CLASS_HEAD:
        assert torch.equal(model.state_dict()[name], before[name])


def test_preset_names_the_checkpoint_and_the_log_says_what_came_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = save_swin(tmp_path)
    with caplog.at_level(logging.INFO, "geoseg"):
        model = build_mask2former(tiny_models.preset(pretrained_head=str(tmp_path)))
    name = "model.transformer_module.queries_features.weight"
    assert torch.equal(model.state_dict()[name], theirs[name])
    assert not hasattr(model.config, "pretrained_head")
    summary, *left = [record.getMessage() for record in caplog.records]
    assert summary.startswith(f"the head starts from {tmp_path}: 6")
    assert all(line.startswith("not taken: model.pixel_level") for line in left)
    assert left


# What is refused


def test_checkpoint_that_shares_next_to_nothing_is_refused(tmp_path: Path) -> None:
    save_swin(tmp_path, hidden_dim=64, feature_size=64, mask_feature_size=16)
    model = build_mask2former(tiny_models.preset())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        ModelError, match=r"shares \d% .*model.feature_size 32 -> 64, .*hidden_dim 32"
    ):
        load_head(model, str(tmp_path))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_equal_shapes_of_other_attention_are_refused(tmp_path: Path) -> None:
    save_swin(tmp_path, num_attention_heads=4)
    with pytest.raises(ConfigError, match=r"num_attention_heads is 2, but .* has 4"):
        build_mask2former(tiny_models.preset(pretrained_head=str(tmp_path)))


def test_other_models_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    save_swin(tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    for name in ("vit", "cut", "empty"):
        with pytest.raises(ModelError, match="is not a Mask2Former") as caught:
            build_mask2former(tiny_models.preset(pretrained_head=str(tmp_path / name)))
        assert "\n" not in str(caught.value)
