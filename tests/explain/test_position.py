"""Positions interpolated as Hugging Face and timm do; rotary ones by distance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import adapter
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from geoseg.errors import ExplainError
from geoseg.explain.position import (
    interpolate_positions,
    learned_positions,
    rotary_angles,
    rotary_similarity,
    table_similarity,
)
from geoseg.explain.vit import find_vit


def table(side: int = 14, extra: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(1, extra + side * side, 8, generator=generator)


def dinov2() -> Any:  # noqa: ANN401 - transformers leaves eval() untyped
    config = Dinov2Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=56,
        patch_size=4,
    )
    return Dinov2Model(config).eval()


@pytest.mark.parametrize("grid", [(45, 45), (9, 20), (14, 15)])
def test_without_antialias_it_is_dinov2s_own(grid: tuple[int, int]) -> None:
    model = dinov2()
    positions = table()
    with torch.no_grad():
        model.embeddings.position_embeddings.copy_(positions)
        tokens = torch.zeros(1, 1 + grid[0] * grid[1], 8)
        expected = model.embeddings.interpolate_pos_encoding(
            tokens, grid[0] * 4, grid[1] * 4
        )
    found = interpolate_positions(positions, grid, extra=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("grid", [(45, 45), (9, 20)])
def test_with_antialias_it_is_timms(grid: tuple[int, int]) -> None:
    layers = pytest.importorskip("timm.layers")
    positions = table(extra=5)
    expected = layers.resample_abs_pos_embed(
        positions, list(grid), num_prefix_tokens=5, antialias=True
    )
    found = interpolate_positions(positions, grid, extra=5, antialias=True)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[:, :5], positions[:, :5])
    plain = interpolate_positions(positions, grid, extra=5)
    assert not torch.allclose(found, plain, atol=1e-3)


def test_the_same_grid_is_left_alone() -> None:
    positions = table()
    assert torch.equal(interpolate_positions(positions, (14, 14), extra=1), positions)


def test_a_table_of_no_square_is_refused() -> None:
    with pytest.raises(ExplainError, match="not that of a square grid"):
        interpolate_positions(table(), (4, 4), extra=0)


def test_a_model_has_a_table_or_rotary_angles() -> None:
    images = torch.zeros(1, 3, 64, 96)
    with_table, rotary = find_vit(dinov2()), find_vit(adapter())
    found = learned_positions(with_table)
    assert found is not None
    assert found[0].shape == (1, 197, 8)
    assert found[1] == 1
    assert rotary_angles(with_table, images) is None
    assert learned_positions(rotary) is None
    angles = rotary_angles(rotary, images)
    assert angles is not None
    assert angles[0].shape == (24, 16)


def test_rotary_positions_are_alike_by_distance_only() -> None:
    vit = find_vit(adapter())
    angles = rotary_angles(vit, torch.zeros(1, 3, 96, 96))
    assert angles is not None
    one = rotary_similarity(*angles, 2 * 6 + 2).view(6, 6)
    other = rotary_similarity(*angles, 3 * 6 + 3).view(6, 6)
    assert one[2, 2] == pytest.approx(1)
    torch.testing.assert_close(one[:5, :5], other[1:, 1:], atol=1e-5, rtol=0)


def test_learned_positions_are_compared_by_their_cosine() -> None:
    positions = table()
    similar = table_similarity(positions, 1, 30)
    first, second = positions[0, 31], positions[0, 61]
    expected = torch.nn.functional.cosine_similarity(first, second, dim=0)
    assert similar[60] == pytest.approx(float(expected), abs=1e-6)
