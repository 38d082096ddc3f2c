"""The ViTs behind the adapter: tokens, positions, folders, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import tiny_models
import torch
import torch.nn.functional as F
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from transformers import AutoConfig, AutoModel, SegformerImageProcessor

from geoseg.errors import ModelError, TilingError
from geoseg.models import ViTAdapterBackbone, load_model, read_spec
from geoseg.models.encoders import build_vit, view
from geoseg.models.export import save_model

SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
VIT = {"model_type": "vit", "intermediate_size": 64, **SMALL}
DINOV2 = {"model_type": "dinov2", "mlp_ratio": 2, "patch_size": 14, **SMALL}
REGISTERS = {**DINOV2, "model_type": "dinov2_with_registers"}

SHRUNK = {"dynamic_img_size": True, "embed_dim": 32, "depth": 4, "num_heads": 2}
"""What makes any ViT of timm small."""


def timm_keys(architecture: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "model_type": "timm_wrapper",
        "architecture": architecture,
        "model_args": SHRUNK | changes,
    }


TIMM_DINOV3 = timm_keys("vit_small_patch16_dinov3", mlp_ratio=2)
TIMM_VIT = timm_keys("vit_small_patch16_224")
TIMM_DINOV2 = timm_keys("vit_small_patch14_reg4_dinov2", img_size=196)

KINDS = {
    "vit": VIT,
    "dinov2": DINOV2,
    "registers": REGISTERS,
    "timm-dinov3": TIMM_DINOV3,
    "timm-vit": TIMM_VIT,
    "timm-dinov2": TIMM_DINOV2,
}
PREFIXES = dict(zip(KINDS, (1, 1, 5, 5, 1, 5), strict=True))


def encoder(keys: dict[str, Any], seed: int = 0) -> Any:  # noqa: ANN401
    return view(tiny_models.adapter(seed, backbone_config=keys).backbone)


def image(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def taps(vit: Any, pixels: Tensor) -> list[Tensor]:  # noqa: ANN401
    """Run all blocks; return the normed tokens after each."""
    tokens, arguments = vit.begin(pixels)
    found = []
    for block in vit.blocks:
        tokens = block(tokens, **arguments)
        found.append(vit.final_norm(tokens))
    return found


def hugging_face_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's weights of a DINOv3 to those of transformers."""
    plain = {
        "cls_token": "embeddings.cls_token",
        "reg_token": "embeddings.register_tokens",
        "patch_embed.proj": "embeddings.patch_embeddings",
        "attn.proj": "attention.o_proj",
        "gamma_1": "layer_scale1.lambda1",
        "gamma_2": "layer_scale2.lambda1",
        "mlp.fc1": "mlp.up_proj",
        "mlp.fc2": "mlp.down_proj",
        "blocks.": "model.layer.",
    }
    renamed = {}
    for name, value in weights.items():
        for theirs, ours in plain.items():
            name = name.replace(theirs, ours)
        if "attn.qkv." in name:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                key = name.replace("attn.qkv.", f"attention.{part}_proj.")
                renamed[key] = rows
        else:
            renamed[name] = value
    return renamed


# Two libraries, one network


@pytest.mark.parametrize("side", [(48, 80), (720, 720)])
@torch.no_grad()
def test_timm_and_hugging_face_give_the_same_features(side: tuple[int, int]) -> None:
    ours = encoder(TIMM_DINOV3)
    keys = tiny_models.vit_keys(query_bias=False, value_bias=False)
    theirs = encoder(keys, seed=9)
    weights = hugging_face_names(ours.model.timm_model.state_dict())
    left = theirs.model.load_state_dict(weights, strict=False)
    assert left.missing_keys == ["embeddings.mask_token"]
    assert not left.unexpected_keys
    pixels = image(*side)[:1]
    for found, wanted in zip(taps(ours, pixels), taps(theirs, pixels), strict=True):
        assert found.shape == (1, 5 + side[0] * side[1] // 256, 32)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_encoder_runs_as_its_library_does(kind: str) -> None:
    vit = encoder(KINDS[kind])
    pixels = image(vit.patch * 3, vit.patch * 5)
    assert vit.num_prefix_tokens == PREFIXES[kind]
    if "timm" in kind:
        wanted = vit.model.timm_model.forward_features(pixels)
    else:
        asked = {"interpolate_pos_encoding": True} if kind == "vit" else {}
        wanted = vit.model(pixels, **asked).last_hidden_state
    torch.testing.assert_close(taps(vit, pixels)[-1], wanted)
    # The patch in row 1 and column 3 of 3 x 5, and no other token, sees a change there.
    changed, size = pixels.clone(), vit.patch
    changed[:, :, size : 2 * size, 3 * size : 4 * size] += 1.0
    differs = (vit.begin(pixels)[0] != vit.begin(changed)[0]).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [PREFIXES[kind] + 1 * 5 + 3]


# Learned positions, of 14 x 14 patches


@pytest.mark.parametrize("grid", [(14, 14), (7, 9), (28, 7), (45, 45)])
@pytest.mark.parametrize(
    ("kind", "antialias", "places"),
    [
        ("vit", False, "embeddings.position_embeddings"),
        ("dinov2", False, "embeddings.position_embeddings"),
        ("registers", True, "embeddings.position_embeddings"),
        ("timm-vit", True, "timm_model.pos_embed"),
        ("timm-dinov2", True, "timm_model.pos_embed"),
    ],
)
@torch.no_grad()
def test_positions_are_interpolated_as_each_library_does(
    kind: str, antialias: bool, places: str, grid: tuple[int, int]
) -> None:
    keys = dict(KINDS[kind])
    if "timm" not in kind:
        keys["image_size"] = 14 * keys.get("patch_size", 16)
    vit = encoder(keys)
    learned = vit.model.get_parameter(places)
    pixels = image(grid[0] * vit.patch, grid[1] * vit.patch)
    with_positions = vit.begin(pixels)[0]
    before = learned.clone()
    learned.zero_()
    found = (with_positions - vit.begin(pixels)[0])[0]
    extra = before.shape[1] - 14 * 14  # [CLS] of transformers'; timm's DINOv2 has none
    square = before[0, extra:].T.unflatten(1, (14, 14))[None]
    wanted = F.interpolate(square, grid, mode="bicubic", antialias=antialias)
    rest = found[PREFIXES[kind] :]
    torch.testing.assert_close(rest, wanted[0].flatten(1).T, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:extra], before[0, :extra], rtol=0, atol=1e-5)
    # Registers have no place.
    assert not found[extra : PREFIXES[kind]].any()
    theirs = resample_abs_pos_embed(before, list(grid), [14, 14], extra)[0, extra:]
    # Their weights differ: only on the learned grid itself do the libraries agree.
    same = torch.allclose(theirs, rest, rtol=0, atol=1e-3)
    assert same is (antialias or grid == (14, 14))


# As models


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_encoder_has_no_gradients_and_stays_in_eval_mode(kind: str) -> None:
    model = tiny_models.adapter(backbone_config=KINDS[kind]).train()
    assert not any(module.training for module in model.backbone.modules())
    side = 4 * model.patch_size
    maps = model(pixel_values=image(side, side)).feature_maps
    torch.stack([level.square().mean() for level in maps]).sum().backward()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert model.spm.fc1.weight.grad.abs().max() > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["timm-dinov3", "vit"])
def test_injector_works_with_every_encoder(kind: str) -> None:
    model = tiny_models.adapter(backbone_config=KINDS[kind], use_injector=True).train()
    maps = model(pixel_values=image(64, 96)).feature_maps
    torch.stack([level.square().mean() for level in maps]).sum().backward()
    interactions: Any = model.interactions
    assert all(block.injector.gamma.grad.abs().max() > 0 for block in interactions)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_segmenter_is_an_ordinary_folder(kind: str, tmp_path: Path) -> None:
    keys = tiny_models.adapter_keys(backbone_config=KINDS[kind])
    model = tiny_models.segmenter(backbone_config=keys)
    tile = 112
    folder = save_model(
        model,
        tmp_path,
        classes=tiny_models.CLASSES,
        mean=tiny_models.MEAN,
        std=tiny_models.STD,
        tile_size=tile,
        resolution=None,
    )
    model.float()  # As it was written: rounded to float16.
    assert read_spec(folder).patch_size == {16: 16, 14: 28}[patch_of(kind)]
    loaded: Any = load_model(folder)
    again: Any = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    assert type(again.pixel_level_module.encoder) is ViTAdapterBackbone
    pixels = image(tile, tile)
    found, wanted = loaded(pixel_values=pixels), model(pixel_values=pixels)
    for key in ("class_queries_logits", "masks_queries_logits"):
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-4, atol=1e-5)
    # Blending wants a side that divides the tile's.
    assert found["masks_queries_logits"].shape[2:] == (tile // 4, tile // 4)


def patch_of(kind: str) -> int:
    return 14 if "dinov2" in kind or kind == "registers" else 16


def test_patches_of_14_ask_for_tiles_that_levels_divide(tmp_path: Path) -> None:
    keys = tiny_models.adapter_keys(backbone_config=DINOV2)
    tiny_models.segmenter(backbone_config=keys).save_pretrained(tmp_path)
    SegformerImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(TilingError, match=r"720 .*use 700 or 728"):
        read_spec(tmp_path, tile_size=720)
    assert read_spec(tmp_path, tile_size=728).patch_size == 28


# What is refused


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "swin"}, "must be a dinov3_vit, vit, .*timm_wrapper, not swin"),
        ({**VIT, "patch_size": 32}, r"patch_size 32 does not fit .*\(8, 14, 16\)"),
        (timm_keys("vit_small_patch32_224"), "patch_size 32 does not fit"),
        ({"model_type": "timm_wrapper", "architecture": "resnet18"}, "is a ResNet"),
        (timm_keys("vit_tiny_of_mine"), "has no architecture 'vit_tiny_of_mine'"),
        (timm_keys("vit_small_patch16_224", dynamic_img_size=False), "one image size"),
        (timm_keys("vit_small_patch16_224", global_pool="avg"), "after pooling"),
        (timm_keys("vit_small_patch16_rope_mixed_224"), "one rotary embedding"),
    ],
)
def test_other_encoders_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_models.adapter(backbone_config=keys)


def test_without_timm_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    tiny_models.segmenter(
        backbone_config=tiny_models.adapter_keys(backbone_config=TIMM_DINOV3)
    ).save_pretrained(folder)
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "geoseg.models.timm_encoder")
    with pytest.raises(ModelError, match=r"pip install 'geoseg\[timm\]'"):
        load_model(folder)


def test_modules_of_timm_are_the_librarys_own() -> None:
    vit = build_vit(tiny_models.adapter(backbone_config=TIMM_VIT).backbone.config)
    made: dict[str, Any] = {"num_classes": 0, **SHRUNK}
    theirs = timm.create_model("vit_small_patch16_224", **made)
    names = {f"timm_model.{name}" for name in theirs.state_dict()}
    assert set(vit.state_dict()) == names


@pytest.mark.parametrize(
    ("keys", "name"), [(tiny_models.vit_keys(), "num_channels"), (TIMM_DINOV3, None)]
)
def test_images_may_have_more_bands(keys: dict[str, Any], name: str | None) -> None:
    """The convolutional branch takes as many as the ViT does."""
    five = keys | {name: 5} if name else timm_keys(keys["architecture"], in_chans=5)
    model: Any = tiny_models.adapter(backbone_config=five)
    model.eval()
    pixels = torch.cat([image(64, 96), image(64, 96)], 1)[:, :5]
    with torch.no_grad():
        plain = model(pixels).feature_maps
        for band in range(5):
            changed = pixels.clone()
            changed[:, band] += 1
            other = model(changed).feature_maps
            assert not any(torch.equal(a, b) for a, b in zip(plain, other, strict=True))
