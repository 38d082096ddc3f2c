"""The ViT-Adapter backbone: its taps, levels, gradients, and parameter names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig, DINOv3ViTBackbone, DINOv3ViTConfig

from geoseg.errors import TilingError
from geoseg.models import ViTAdapterBackbone, ViTAdapterConfig

ROOT = Path(__file__).parents[2]
FULL = ROOT / "configs" / "models" / "dinov3-vitl16-sat493m-loveda.yaml"


def image(
    height: int = 64, width: int = 96, *, batch: int = 2, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, height, width, generator=generator)


def seen_by_extractors(model: ViTAdapterBackbone, pixels: Tensor) -> list[Tensor]:
    """Run the model; return the patch tokens that each interaction was given."""
    taps: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        taps.append(arguments[2])

    interactions: Any = model.interactions
    hooks = [block.extractor.register_forward_pre_hook(keep) for block in interactions]
    model(pixel_values=pixels)
    for hook in hooks:
        hook.remove()
    return taps


def backward(model: ViTAdapterBackbone) -> None:
    squares = [level.square().mean() for level in levels(model, image())]
    torch.stack(squares).sum().backward()


def levels(model: ViTAdapterBackbone, pixels: Tensor) -> tuple[Tensor, ...]:
    maps: tuple[Tensor, ...] = model(pixel_values=pixels).feature_maps
    return maps


# What it takes from the ViT


def test_tokens_are_cls_then_registers_then_patches() -> None:
    vit = tiny_models.adapter().backbone
    before = image(48, 80, batch=1)
    after = before.clone()
    after[0, :, 16:32, 48:64] += 1.0  # the patch in row 1 and column 3 of 3 x 5
    changed = (vit.embeddings(before) != vit.embeddings(after)).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [1 + 4 + 1 * 5 + 3]


@torch.no_grad()
def test_taps_are_the_final_norm_of_the_blocks_named() -> None:
    model = tiny_models.adapter(
        backbone_config=tiny_models.vit_keys(num_hidden_layers=7),
        interaction_indexes=[0, 2, 3, 5],  # the last block is not needed
    )
    pixels, vit = image(), model.backbone
    hidden = vit(pixels, output_hidden_states=True).hidden_states
    taps = seen_by_extractors(model, pixels)
    for tap, index in zip(taps, [0, 2, 3, 5], strict=True):
        torch.testing.assert_close(tap, vit.norm(hidden[index + 1])[:, 5:])


@torch.no_grad()
def test_taps_are_the_maps_of_hugging_faces_own_backbone() -> None:
    model = tiny_models.adapter()
    keys = tiny_models.vit_keys(out_indices=[1, 2, 3, 4])
    del keys["model_type"]
    reference = DINOv3ViTBackbone(DINOv3ViTConfig(**keys)).eval()
    reference.load_state_dict(model.backbone.state_dict())
    maps = reference(image()).feature_maps
    for tap, wanted in zip(seen_by_extractors(model, image()), maps, strict=True):
        torch.testing.assert_close(tap.transpose(1, 2).unflatten(2, (4, 6)), wanted)


@torch.no_grad()
def test_taps_are_raw_without_feature_norm() -> None:
    model = tiny_models.adapter(feature_norm=False)
    hidden = model.backbone(image(), output_hidden_states=True).hidden_states
    for tap, wanted in zip(seen_by_extractors(model, image()), hidden[1:], strict=True):
        torch.testing.assert_close(tap, wanted[:, 5:])


def test_default_dinov3_has_four_registers() -> None:
    vit: Any = ViTAdapterConfig().backbone_config
    assert vit.num_register_tokens == 4


# Frozen


def test_frozen_vit_stays_in_eval_mode_and_gets_no_gradient() -> None:
    model = tiny_models.adapter().train()
    assert model.training
    assert model.spm.training
    assert not any(module.training for module in model.backbone.modules())
    backward(model)
    for name, parameter in model.named_parameters():
        frozen = name.startswith("backbone.")
        assert parameter.requires_grad is not frozen
        assert (parameter.grad is None) is frozen, name


def test_frozen_features_are_the_same_in_train_mode() -> None:
    model = tiny_models.adapter()
    expected = seen_by_extractors(model, image())
    for _ in range(3):
        found = seen_by_extractors(model.train(), image())
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_thawed_vit_trains_and_jitters_its_coordinates() -> None:
    model = tiny_models.adapter(freeze_backbone=False).train()
    torch.manual_seed(0)
    first, second = (seen_by_extractors(model, image())[-1] for _ in range(2))
    assert not torch.equal(first, second)
    backward(model)
    first_block = model.backbone.model.layer[0]
    assert first_block.attention.v_proj.weight.grad.abs().max() > 0


# Injector


def test_injector_of_a_fresh_model_is_the_identity() -> None:
    keys = tiny_models.adapter_keys(use_injector=True)
    del keys["model_type"]
    fresh = ViTAdapterBackbone(ViTAdapterConfig(**keys))
    fresh.eval()  # type: ignore[no-untyped-call]
    plain = tiny_models.adapter()
    left_over = plain.load_state_dict(fresh.state_dict(), strict=False)
    assert not left_over.missing_keys
    assert all(".injector." in name for name in left_over.unexpected_keys)
    for found, wanted in zip(
        levels(fresh, image()), levels(plain, image()), strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_gradients_flow_through_frozen_blocks_to_the_injector() -> None:
    model = tiny_models.adapter(use_injector=True).train()
    backward(model)
    interactions: Any = model.interactions
    for block in interactions:
        assert block.injector.gamma.grad.abs().max() > 0
        assert block.injector.attn.value_proj.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.backbone.parameters())


def test_injector_changes_the_patches_that_the_blocks_see() -> None:
    with_injector = tiny_models.adapter(use_injector=True)
    without = tiny_models.adapter()
    without.load_state_dict(with_injector.state_dict(), strict=False)
    first = seen_by_extractors(with_injector, image())[0]
    assert not torch.allclose(first, seen_by_extractors(without, image())[0])


# Levels


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (16, [4, 2, 1, 1]),
        (336, [84, 42, 21, 11]),
        (704, [176, 88, 44, 22]),
        (720, [180, 90, 45, 23]),
    ],
)
@torch.no_grad()
def test_level_shapes(side: int, expected: list[int]) -> None:
    model = tiny_models.adapter()
    maps = levels(model, image(side, side, batch=1))
    assert [tuple(level.shape) for level in maps] == [
        (1, 32, size, size) for size in expected
    ]
    assert all(bool(level.isfinite().all()) for level in maps)


@settings(max_examples=15)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([8, 14, 16]))
@torch.no_grad()
def test_every_multiple_of_the_patch_size_works(
    rows: int, cols: int, patch: int
) -> None:
    model = tiny_models.adapter(backbone_config=tiny_models.vit_keys(patch_size=patch))
    height, width = patch * rows, patch * cols
    for stride, level in zip(
        (4, 8, 16, 32), levels(model, image(height, width)), strict=True
    ):
        wanted = (math.ceil(height / stride), math.ceil(width / stride))
        assert tuple(level.shape[2:]) == wanted


@pytest.mark.parametrize("shape", [(700, 720), (720, 700)])
def test_other_sizes_name_the_nearest_valid_ones(shape: tuple[int, int]) -> None:
    with pytest.raises(TilingError, match=r"700.*688.*704"):
        tiny_models.adapter()(pixel_values=torch.zeros(1, 3, *shape))


@torch.no_grad()
def test_out_features_choose_levels() -> None:
    model = tiny_models.adapter()
    chosen = tiny_models.adapter(out_features=["stage2", "stage4"])
    maps, wanted = levels(chosen, image()), levels(model, image())
    torch.testing.assert_close(maps, (wanted[1], wanted[3]))


# Names, shapes, details


def test_names_and_shapes_are_the_published_ones(shared_data: Path) -> None:
    path = shared_data.parent / "published-names.txt"
    if not path.is_file():
        pytest.skip("shared data is absent: published-names.txt")
    keys = yaml.safe_load(FULL.read_text())["backbone_config"]
    del keys["model_type"]
    with torch.device("meta"):
        model = ViTAdapterBackbone(ViTAdapterConfig(**keys))
    ours = {
        name: list(value.shape)
        for name, value in model.state_dict().items()
        if not name.startswith("backbone.")
    }
    prefix = "segmentation_model.0."
    lines = [line.split(" ", 1) for line in path.read_text().splitlines()]
    theirs = {
        name.removeprefix(prefix): yaml.safe_load(shape)
        for name, shape in lines
        if name.startswith(prefix)
    }
    assert len(theirs) == 187
    assert ours == theirs


def test_adapter_norms_have_the_published_epsilon() -> None:
    model = tiny_models.adapter(use_injector=True)
    norms = [m for m in model.interactions.modules() if isinstance(m, nn.LayerNorm)]
    # An extractor has three norms, an injector two; four of each and two extra ones.
    assert len(norms) == 6 * 3 + 4 * 2
    assert {norm.eps for norm in norms} == {1e-6}


def test_levels_end_in_batch_norms() -> None:
    model = tiny_models.adapter()
    for norm in (model.norm1, model.norm2, model.norm3, model.norm4):
        assert type(norm) is nn.BatchNorm2d


@pytest.mark.parametrize(
    "indexes", [[0, 1, 2, 4], [0, 1, 2], [0, 2, 1, 3], [-1, 0, 1, 2]]
)
def test_interaction_indexes_that_do_not_fit_are_refused(indexes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.3: they are zero-based"):
        tiny_models.adapter(interaction_indexes=indexes)


def test_heads_that_do_not_divide_the_values_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide"):
        tiny_models.adapter(deform_num_heads=5)


@torch.no_grad()
def test_it_saves_and_loads_as_hugging_faces_backbones_do(tmp_path: Path) -> None:
    model = tiny_models.adapter()
    model.save_pretrained(tmp_path)
    # AutoBackbone.from_pretrained itself asks the hub first, even about a folder.
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(AutoBackbone.from_config(config), ViTAdapterBackbone)
    loaded = ViTAdapterBackbone.from_pretrained(tmp_path)
    assert not any(p.requires_grad for p in loaded.backbone.parameters())
    torch.testing.assert_close(
        levels(loaded, image()), levels(model, image()), rtol=0, atol=0
    )
