"""Presets: the shipped ones, their keys, and pretrained backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import tiny_models
import torch
import yaml
from timm.models import save_for_hf
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from geoseg.errors import ConfigError, ModelError
from geoseg.models import build_mask2former
from geoseg.models.encoders import view

PRESETS = sorted((Path(__file__).parents[2] / "configs" / "models").glob("*.yaml"))
FULL = "dinov3-vitl16-sat493m-loveda"


def read(name: str) -> dict[str, Any]:
    """Return the keys of a shipped preset."""
    path = next(path for path in PRESETS if path.stem == name)
    keys: dict[str, Any] = yaml.safe_load(path.read_text())
    return keys


def save_vit(folder: Path, **changes: Any) -> DINOv3ViTModel:  # noqa: ANN401
    """Write a small DINOv3 checkpoint as its authors publish theirs."""
    keys = tiny_models.vit_keys(**changes)
    del keys["model_type"]
    vit = tiny_models.randomized(DINOv3ViTModel(DINOv3ViTConfig(**keys)), seed=5)
    vit.save_pretrained(folder)
    return vit


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_shipped_presets_build(path: Path) -> None:
    keys = {**yaml.safe_load(path.read_text()), "pretrained_backbone": None}
    with torch.device("meta"):
        model = build_mask2former(keys)
    assert model.config.num_queries == keys["num_queries"]


def test_full_preset_is_the_model_that_was_designed() -> None:
    keys = read(FULL)
    with torch.device("meta"):
        model = build_mask2former({**keys, "pretrained_backbone": None})
    assert keys["pretrained_backbone"] == "facebook/dinov3-vitl16-pretrain-sat493m"
    encoder = model.model.pixel_level_module.encoder
    vit = encoder.backbone.config
    assert (vit.hidden_size, vit.num_hidden_layers, vit.num_register_tokens) == (
        1024,
        24,
        4,
    )
    assert encoder.config.interaction_indexes == [4, 11, 17, 23]
    assert not any(p.requires_grad for p in encoder.backbone.parameters())
    assert len(model.model.transformer_module.decoder.layers) == 9
    assert len(model.model.pixel_level_module.decoder.encoder.layers) == 6
    assert model.config.num_queries == 100
    assert model.class_predictor.out_features == 7 + 1


def test_full_preset_declares_loveda() -> None:
    declared = read(FULL)["geoseg"]
    assert declared["tile_size"] == 720
    assert [entry["id"] for entry in declared["classes"]] == list(range(1, 8))
    assert declared["mean"] == [0.430, 0.411, 0.296]
    assert declared["std"] == [0.213, 0.156, 0.143]


# Keys


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_querys": 3}, r"model: there is no key 'num_querys' .*num_queries"),
        ({"num_queries": "3"}, "'num_queries' expected int, got str"),
        (
            {"backbone_config": tiny_models.adapter_keys(use_injektor=True)},
            r"model\.backbone_config: .*'use_injektor' .*use_injector",
        ),
        (
            {"backbone_config": tiny_models.adapter_keys(use_injector="yes")},
            "'use_injector' expected bool",
        ),
        (
            {
                "backbone_config": tiny_models.adapter_keys(
                    backbone_config=tiny_models.vit_keys(layers=3)
                )
            },
            r"backbone_config\.backbone_config: there is no key 'layers'",
        ),
        ({"backbone_config": {"model_type": "vit_adaptor"}}, "'vit_adaptor'; name a"),
        ({"backbone_config": {}}, "model_type is None"),
        (
            {"backbone_config": tiny_models.adapter_keys(interaction_indexes=[0, 4])},
            r"interaction_indexes \[0, 4\] must be four",
        ),
    ],
)
def test_keys_and_values_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_mask2former(tiny_models.preset(**changes))
    assert "\n" not in str(caught.value)


# Pretrained backbones


def test_pretrained_backbone_is_loaded_and_frozen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vit = save_vit(tmp_path)
    capfd.readouterr()
    model = build_mask2former(tiny_models.preset(pretrained_backbone=str(tmp_path)))
    assert capfd.readouterr() == ("", "")
    loaded = model.model.pixel_level_module.encoder.backbone
    for name, value in vit.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.training
    assert not hasattr(model.config, "pretrained_backbone")


def test_pretrained_backbone_of_another_architecture_is_refused(
    tmp_path: Path,
) -> None:
    save_vit(tmp_path, rope_theta=50.0)
    with pytest.raises(ConfigError, match=r"rope_theta is 100\.0, but .* has 50\.0"):
        build_mask2former(tiny_models.preset(pretrained_backbone=str(tmp_path)))


def test_pretrained_backbone_must_be_a_whole_dinov3(tmp_path: Path) -> None:
    tiny_models.save_segmenter(tmp_path / "other")
    with pytest.raises(
        ModelError, match=r"is not a dinov3_vit .*it is a 'mask2former'"
    ):
        build_mask2former(
            tiny_models.preset(pretrained_backbone=str(tmp_path / "other"))
        )
    vit = save_vit(tmp_path / "part")
    weights = vit.state_dict()
    del weights["norm.weight"]
    vit.save_pretrained(tmp_path / "part", state_dict=weights)
    with pytest.raises(ModelError, match=r"lacks weights of DINOv3.*, norm\.weight"):
        build_mask2former(
            tiny_models.preset(pretrained_backbone=str(tmp_path / "part"))
        )


def test_pretrained_backbone_as_a_pickle_is_refused(tmp_path: Path) -> None:
    vit = save_vit(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(vit.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="in safetensors"):
        build_mask2former(tiny_models.preset(pretrained_backbone=str(tmp_path)))


def test_pretrained_backbone_needs_a_vit_adapter(tmp_path: Path) -> None:
    save_vit(tmp_path)
    swin = {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    keys = tiny_models.preset(backbone_config=swin, pretrained_backbone=str(tmp_path))
    with pytest.raises(ConfigError, match="needs a backbone of the type vit_adapter"):
        build_mask2former(keys)


# Other encoders

SHRUNK = {"embed_dim": 32, "depth": 4, "num_heads": 2}


def timm_preset(folder: Path | None = None, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a preset that names a ViT of timm's, made small for tests."""
    vit = {
        "model_type": "timm_wrapper",
        "architecture": "vit_small_patch16_dinov3",
        "model_args": {"dynamic_img_size": True, **SHRUNK, **arguments},
    }
    keys = tiny_models.adapter_keys(backbone_config=vit)
    return tiny_models.preset(
        backbone_config=keys, pretrained_backbone=folder and str(folder)
    )


def save_timm(folder: Path, architecture: str = "vit_small_patch16_dinov3") -> Any:  # noqa: ANN401
    """Write a checkpoint as timm publishes its own: without our prefix, or a type."""
    made: dict[str, Any] = {"num_classes": 3, **SHRUNK}
    vit = tiny_models.randomized(timm.create_model(architecture, **made), seed=5)
    save_for_hf(vit, str(folder), model_args=SHRUNK, safe_serialization=True)
    return vit


def test_backbone_of_timm_is_named_in_short() -> None:
    keys = {**read(FULL), "pretrained_backbone": None}
    keys["backbone"] = "timm:vit_large_patch16_dinov3"
    with torch.device("meta"):
        model = build_mask2former(keys)
    encoder = model.model.pixel_level_module.encoder
    assert (view(encoder.backbone).width, len(view(encoder.backbone).blocks)) == (
        1024,
        24,
    )
    assert encoder.config.backbone_config.architecture == "vit_large_patch16_dinov3"
    assert encoder.config.interaction_indexes == [4, 11, 17, 23]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vit_large_patch16_dinov3"}, "name a ViT of timm's as timm:"),
        ({"backbone": "timm:"}, "name a ViT of timm's as timm:"),
        ({"backbone": "timm:vit_none"}, "no architecture 'vit_none'"),
        (
            {"backbone": "timm:vit_tiny_patch16_224", "backbone_config": {}},
            "interaction_indexes",
        ),
        (
            {
                "backbone": "timm:vit_tiny_patch16_224",
                "backbone_config": {"model_type": "swin"},
            },
            "of the type vit_adapter, not swin",
        ),
        (
            timm_preset(deepth=3),
            "cannot build vit_small_patch16_dinov3 with model_args",
        ),
    ],
)
def test_backbones_named_wrongly_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build_mask2former(tiny_models.preset(**changes))
    assert "\n" not in str(caught.value)


def test_timms_own_checkpoints_are_loaded(tmp_path: Path) -> None:
    vit = save_timm(tmp_path)
    model = build_mask2former(timm_preset(tmp_path))
    loaded = model.model.pixel_level_module.encoder.backbone.timm_model
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, vit.state_dict()[name]), name
    assert not any(p.requires_grad for p in loaded.parameters())
    with pytest.raises(ConfigError, match=r"model_args is .*'num_heads': 4.* but .* 2"):
        build_mask2former(timm_preset(tmp_path, num_heads=4))
    other = tmp_path / "other"
    save_timm(other, "vit_small_patch16_224")
    with pytest.raises(ConfigError, match="architecture is vit_small_patch16_dinov3"):
        build_mask2former(timm_preset(other))
    save_vit(tmp_path / "hf")
    with pytest.raises(ModelError, match=r"not a timm_wrapper .*a 'dinov3_vit'"):
        build_mask2former(timm_preset(tmp_path / "hf"))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (ViTConfig, ViTForImageClassification),
        (Dinov2Config, Dinov2ForImageClassification),
    ],
)
def test_checkpoints_of_classifiers_are_loaded(
    tmp_path: Path, config: type[PreTrainedConfig], kind: type[PreTrainedModel]
) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 56,
    }
    classifier = tiny_models.randomized(kind(config(**sizes)), seed=5)
    classifier.save_pretrained(tmp_path)
    keys = {"model_type": config.model_type, **sizes}

    def preset(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
        adapter = tiny_models.adapter_keys(backbone_config={**keys, **changes})
        return tiny_models.preset(
            backbone_config=adapter, pretrained_backbone=str(tmp_path)
        )

    loaded = build_mask2former(preset()).model.pixel_level_module.encoder.backbone
    weights = classifier.base_model.state_dict()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with pytest.raises(ConfigError, match=r"image_size is 112, but .* has 56"):
        build_mask2former(preset(image_size=112))
