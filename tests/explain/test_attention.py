"""Attention of Hugging Face and timm ViTs, and rollout beside an independent one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny_models import adapter, segmenter
from torch import Tensor, nn
from transformers import (
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    EomtConfig,
    EomtDinov3Config,
    EomtDinov3ForUniversalSegmentation,
    EomtForUniversalSegmentation,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from geoseg.errors import ExplainError
from geoseg.explain.attention import all_weights, capture_attention, explain_attention
from geoseg.explain.rollout import Fusion, Rollout
from geoseg.explain.vit import find_vit

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 16,
}
REGISTERS = tuple(f"register {number}" for number in range(1, 5))

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "dinov3": (
        lambda: DINOv3ViTModel(DINOv3ViTConfig(**SIZES, num_register_tokens=4)),
        ("cls", *REGISTERS),
    ),
    "dinov2": (lambda: Dinov2Model(Dinov2Config(**SIZES)), ("cls",)),
    "dinov2-registers": (
        lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES)),
        ("cls", *REGISTERS),
    ),
    "vit": (lambda: ViTModel(ViTConfig(**SIZES)), ("cls",)),
    "deit": (lambda: DeiTModel(DeiTConfig(**SIZES)), ("cls", "distillation")),
    "adapter": (lambda: adapter(), ("cls", *REGISTERS)),
}


def image(height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, height, width, generator=generator)


@pytest.mark.parametrize("name", MODELS)
def test_features_are_the_patch_tokens_of_any_size(name: str) -> None:
    build, extra = MODELS[name]
    torch.manual_seed(0)
    vit = find_vit(build().eval())
    with torch.inference_mode():
        features = vit.features(image(96, 64))
        whole = vit.run(image(96, 64)).last_hidden_state
    assert features.shape == (32, 6, 4)
    torch.testing.assert_close(features[:, 2, 1], whole[0, len(extra) + 2 * 4 + 1])
    attention = explain_attention(vit.module, image(96, 64))
    assert attention.tokens.shape == (6, 4)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_a_hugging_face_vit_gives_its_weights(name: str) -> None:
    build, extra = MODELS[name]
    torch.manual_seed(0)
    model = build().eval()
    layers = capture_attention(model, image(), all_weights)
    assert len(layers) == find_vit(model).depth
    for weights in layers:
        assert weights.shape == (2, len(extra) + 16, len(extra) + 16)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert explain_attention(model, image()).tokens.extra == extra


def test_the_kernel_is_switched_back() -> None:
    model = segmenter()
    vit: Any = find_vit(model).module.config
    before = vit._attn_implementation
    assert before == "sdpa"
    capture_attention(model, image(), all_weights)
    assert vit._attn_implementation == before


@pytest.mark.parametrize("dinov3", [True, False])
def test_queries_that_join_the_last_layers_are_left_out(dinov3: bool) -> None:
    torch.manual_seed(0)
    kind = {True: EomtDinov3Config, False: EomtConfig}[dinov3]
    build = {
        True: EomtDinov3ForUniversalSegmentation,
        False: EomtForUniversalSegmentation,
    }[dinov3]
    config = kind(
        **SIZES, num_blocks=1, num_queries=7, num_labels=2, num_register_tokens=4
    )
    model = build(config).eval()
    attention = explain_attention(model, image(), (1, 1))
    assert attention.tokens.extra == ("cls", *REGISTERS)
    assert attention.weights.shape == (3, 2, 21)
    sums = attention.weights.sum(-1)
    torch.testing.assert_close(sums[:2], torch.ones(2, 2))
    assert (sums[2] < 0.999).all(), "the last layer looks at queries, too"
    with torch.inference_mode():
        assert find_vit(model).features(image()).shape == (32, 4, 4)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("vit_tiny_patch16_224", ("cls",)),
        ("vit_base_patch16_reg4_gap_256", REGISTERS),
        ("vit_small_patch16_dinov3", ("cls", *REGISTERS)),
    ],
)
def test_timm_vits_give_their_weights(name: str, extra: tuple[str, ...]) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        name, pretrained=False, img_size=64, depth=2, embed_dim=48, num_heads=2
    ).eval()
    fused = [m for m in model.modules() if hasattr(m, "fused_attn")]
    attention = explain_attention(model, image(), (1, 2))
    assert attention.tokens.extra == extra
    assert attention.query == len(extra) + 6
    torch.testing.assert_close(attention.weights.sum(-1), torch.ones(2, 2))
    assert all(module.fused_attn for module in fused)


def test_maps_are_the_weights_of_the_query_row() -> None:
    model = segmenter()
    whole = capture_attention(model, image(96, 64), all_weights)
    attention = explain_attention(model, image(96, 64), (3, 1))
    assert attention.tokens.shape == (6, 4)
    row = 5 + 3 * 4 + 1
    expected = whole[2][1, row, 5:].view(6, 4)
    torch.testing.assert_close(attention.map(2, 1), expected)
    torch.testing.assert_close(attention.shares(2, 1), whole[2][1, row, :5])
    torch.testing.assert_close(
        attention.map(2), whole[2][:, row, 5:].mean(0).view(6, 4)
    )


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("discard", [0.0, 0.6, 0.9])
def test_rollout_equals_an_independent_one(fusion: Fusion, discard: float) -> None:
    layers = capture_attention(segmenter(), image(), all_weights)
    rollout = Rollout(fusion, discard)
    for weights in layers:
        rollout.add(weights)
    expected = rollout_numpy([w.numpy() for w in layers], fusion, discard)
    np.testing.assert_allclose(rollout.weights.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(rollout.weights.sum(-1).numpy(), 1, atol=1e-5)


def rollout_numpy(
    layers: list[npt.NDArray[np.float32]], fusion: Fusion, discard: float
) -> npt.NDArray[np.float64]:
    """Abnar and Zuidema's rollout in float64, entry by entry."""
    count = layers[0].shape[-1]
    joint = np.eye(count)
    for heads in layers:
        matrix = np.empty((count, count))
        for i in range(count):
            for j in range(count):
                values = [float(head[i, j]) for head in heads]
                mean = sum(values) / len(values)
                matrix[i, j] = {"mean": mean, "max": max(values), "min": min(values)}[
                    fusion
                ]
        order = sorted(range(count * count), key=lambda at: matrix.flat[at])
        for at in order[: int(discard * count * count)]:
            if at % count != 0:  # Attention to [CLS] stays.
                matrix.flat[at] = 0
        for i in range(count):
            matrix[i, i] += 1
            matrix[i] /= sum(matrix[i])
        joint = matrix @ joint
    return joint


def test_discarding_never_drops_attention_to_cls() -> None:
    weights = torch.full((1, 4, 4), 0.3)
    weights[:, :, 0] = 0.1
    kept, dropped = Rollout(discard=0.5), Rollout(discard=0.5, keep_first=False)
    for rollout in (kept, dropped):
        rollout.add(weights)
    assert (kept.weights[1:, 0] > 0).all()
    assert (dropped.weights[1:, 0] == 0).all()


def test_windowed_attention_is_refused_in_one_line() -> None:
    config = SwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2]
    )
    with pytest.raises(ExplainError, match=r"explain a plain ViT") as caught:
        explain_attention(SwinModel(config).eval(), image())
    assert "\n" not in str(caught.value)


def test_what_does_not_exist_is_told_with_what_does() -> None:
    model = segmenter()
    attention = explain_attention(model, image())
    with pytest.raises(ExplainError, match=r"no layer 4; valid is 0 to 3"):
        attention.map(4)
    with pytest.raises(ExplainError, match=r"no head 2; valid is 0 to 1"):
        attention.map(0, 2)
    with pytest.raises(ExplainError, match=r"no token 'mask'; it has patch, cls, reg"):
        explain_attention(model, image(), "mask")
    with pytest.raises(ExplainError, match=r"rows are 0 to 3 and columns 0 to 3"):
        explain_attention(model, image(), (4, 0))
    with pytest.raises(ExplainError, match=r"Linear has no vision transformer"):
        explain_attention(nn.Linear(1, 1), image())
