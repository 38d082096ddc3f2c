"""The whole adapter against a plain second implementation of the published one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pytest
import tiny_models
import torch
import torch.nn.functional as F
from torch import Tensor

from geoseg.models import ViTAdapterBackbone, ViTAdapterConfig

HEADS, POINTS, DIM = 4, 4, 32


class PlainAdapter:
    """The published ViT-Adapter as its paper and weights describe it.

    It works from a state dict by name, takes level sizes by `// 8`, `// 16`, `// 32` as
    the published code does (hence sides divisible by 32), and samples in loops.
    """

    def __init__(self, weights: Mapping[str, Tensor], height: int, width: int) -> None:
        self.weights = weights
        self.sizes = [(height // s, width // s) for s in (8, 16, 32)]
        self.patches = (height // 16, width // 16)

    def __call__(
        self, pixels: Tensor, tap_of: Callable[[int, Tensor], Tensor]
    ) -> list[Tensor]:
        """Return the four levels for an image.

        Args:
            pixels: The image.
            tap_of: The ViT's patch tokens after a group of blocks, given the spatial
                tokens before it.
        """
        c1, c2, c3, c4 = self.spatial_prior(pixels)
        embed = self.weights["level_embed"]
        levels = [c.flatten(2).transpose(1, 2) for c in (c2, c3, c4)]
        tokens = torch.cat([c + e for c, e in zip(levels, embed, strict=True)], dim=1)
        taps = []
        for block in range(4):
            taps.append(tap_of(block, tokens))
            name = f"interactions.{block}.extractor"
            tokens = self.extract(name, tokens, taps[block])
        for extra in range(2):
            name = f"interactions.3.extra_extractors.{extra}"
            tokens = self.extract(name, tokens, taps[3])
        f2, f3, f4 = self.split(tokens)
        f1 = c1 + F.conv_transpose2d(f2, *self.pair("up"), stride=2)
        maps = [tap.transpose(1, 2).unflatten(2, self.patches) for tap in taps]
        levels = [
            f + F.interpolate(m, scale_factor=scale, mode="bilinear")
            for f, m, scale in zip((f1, f2, f3, f4), maps, (4, 2, 1, 0.5), strict=True)
        ]
        return [self.batch_norm(f"norm{i}", f) for i, f in enumerate(levels, start=1)]

    def pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def linear(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.pair(name)
        return x @ weight.T + bias

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.pair(name)
        centered = x - x.mean(-1, keepdim=True)
        variance = centered.square().mean(-1, keepdim=True)
        return centered / (variance + 1e-6).sqrt() * weight + bias

    def batch_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.pair(name)
        mean, variance = (self.weights[f"{name}.running_{k}"] for k in ("mean", "var"))
        scale = weight / (variance + 1e-5).sqrt()
        shift = bias - mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)

    def spatial_prior(self, pixels: Tensor) -> list[Tensor]:
        def conv(place: str, x: Tensor, stride: int) -> Tensor:
            group, index = place.rsplit(".", 1)
            x = F.conv2d(
                x, self.weights[f"spm.{place}.weight"], None, stride, padding=1
            )
            return self.batch_norm(f"spm.{group}.{int(index) + 1}", x).clamp_min(0)

        x = conv("stem.6", conv("stem.3", conv("stem.0", pixels, 2), 1), 1)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        pyramid = [x]
        for name in ("conv2.0", "conv3.0", "conv4.0"):
            pyramid.append(conv(name, pyramid[-1], 2))
        return [
            F.conv2d(level, *self.pair(f"spm.fc{i}"))
            for i, level in enumerate(pyramid, start=1)
        ]

    def extract(self, name: str, tokens: Tensor, tap: Tensor) -> Tensor:
        query = self.layer_norm(f"{name}.query_norm", tokens)
        feature = self.layer_norm(f"{name}.feat_norm", tap)
        tokens = tokens + self.attend(
            f"{name}.attn", query, self.sizes, feature, [self.patches]
        )
        hidden = self.linear(
            f"{name}.ffn.fc1", self.layer_norm(f"{name}.ffn_norm", tokens)
        )
        weight, bias = self.pair(f"{name}.ffn.dwconv.dwconv")
        convolved = [
            F.conv2d(level, weight, bias, padding=1, groups=len(weight))
            for level in self.split(hidden)
        ]
        hidden = torch.cat([c.flatten(2).transpose(1, 2) for c in convolved], dim=1)
        return tokens + self.linear(f"{name}.ffn.fc2", F.gelu(hidden))

    def split(self, tokens: Tensor) -> list[Tensor]:
        unit = tokens.shape[1] // 21  # 4 x 4, 2 x 2 and 1 x 1 of what stride 32 has
        parts = tokens.split([16 * unit, 4 * unit, unit], dim=1)
        return [
            part.transpose(1, 2).unflatten(2, size)
            for part, size in zip(parts, self.sizes, strict=True)
        ]

    def inject(self, name: str, patches: Tensor, tokens: Tensor) -> Tensor:
        query = self.layer_norm(f"{name}.query_norm", patches)
        feature = self.layer_norm(f"{name}.feat_norm", tokens)
        attended = self.attend(
            f"{name}.attn", query, [self.patches], feature, self.sizes
        )
        return patches + self.weights[f"{name}.gamma"] * attended

    def attend(
        self,
        name: str,
        query: Tensor,
        query_sizes: Sequence[tuple[int, int]],
        feature: Tensor,
        sizes: Sequence[tuple[int, int]],
    ) -> Tensor:
        value = self.linear(f"{name}.value_proj", feature)
        areas = [height * width for height, width in sizes]
        maps = [
            cells.view(len(value), *size, HEADS, -1)
            for cells, size in zip(value.split(areas, dim=1), sizes, strict=True)
        ]
        samples = len(sizes) * POINTS
        offsets = self.linear(f"{name}.sampling_offsets", query)
        offsets = offsets.view(*query.shape[:2], HEADS, samples, 2)
        weights = self.linear(f"{name}.attention_weights", query)
        weights = weights.view(*query.shape[:2], HEADS, samples).softmax(-1)
        centres = [
            ((r + 0.5) / height, (c + 0.5) / width)
            for height, width in query_sizes
            for r in range(height)
            for c in range(width)
        ]
        output = query.new_zeros(*query.shape[:2], HEADS, value.shape[-1] // HEADS)
        for b in range(len(query)):
            for q, (y, x) in enumerate(centres):
                for head in range(HEADS):
                    for sample in range(samples):
                        level = sample // POINTS
                        rows, cols = sizes[level]
                        dx, dy = offsets[b, q, head, sample].tolist()
                        row, col = y * rows + dy - 0.5, x * cols + dx - 0.5
                        cell = bilinear(maps[level][b, :, :, head], row, col)
                        output[b, q, head] += weights[b, q, head, sample] * cell
        return self.linear(f"{name}.output_proj", output.flatten(2))


def bilinear(cells: Tensor, row: float, col: float) -> Tensor:
    height, width, _ = cells.shape
    total = torch.zeros_like(cells[0, 0])
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(col), math.floor(col) + 1):
            if 0 <= r < height and 0 <= c < width:
                total += (1 - abs(row - r)) * (1 - abs(col - c)) * cells[r, c]
    return total


def image() -> Tensor:
    return torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def assert_levels(model: ViTAdapterBackbone, expected: Sequence[Tensor]) -> None:
    found = model(pixel_values=image()).feature_maps
    for level, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_equals_the_published_adapter_where_that_works() -> None:
    model = tiny_models.adapter(seed=3)
    hidden = model.backbone(image(), output_hidden_states=True).hidden_states
    plain = PlainAdapter(model.state_dict(), 64, 96)

    def tap_of(block: int, _: Tensor) -> Tensor:
        tap: Tensor = model.backbone.norm(hidden[block + 1])[:, 5:]
        return tap

    assert_levels(model, plain(image(), tap_of))


@torch.no_grad()
def test_equals_the_published_adapter_with_its_injector() -> None:
    model = tiny_models.adapter(seed=3, use_injector=True)
    plain = PlainAdapter(model.state_dict(), 64, 96)
    vit = model.backbone
    rope = vit.rope_embeddings(image())
    hidden = vit.embeddings(image())

    def tap_of(block: int, tokens: Tensor) -> Tensor:
        nonlocal hidden
        name = f"interactions.{block}.injector"
        patches = plain.inject(name, hidden[:, 5:], tokens)
        hidden = torch.cat([hidden[:, :5], patches], dim=1)
        hidden = vit.model.layer[block](hidden, position_embeddings=rope)
        tap: Tensor = vit.norm(hidden)[:, 5:]
        return tap

    assert_levels(model, plain(image(), tap_of))


def test_points_start_on_rays_one_direction_a_head() -> None:
    keys = tiny_models.adapter_keys()
    del keys["model_type"]
    model = ViTAdapterBackbone(ViTAdapterConfig(**keys))
    attention = model.state_dict()
    name = "interactions.2.extractor.attn.sampling_offsets"
    # East, south, west, north; the second, third and fourth point go further.
    steps = torch.tensor([1.0, 2.0, 3.0, 4.0])
    rays = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    expected = rays[:, None, :] * steps[None, :, None]
    bias = attention[f"{name}.bias"].view(HEADS, POINTS, 2)
    torch.testing.assert_close(bias, expected, rtol=0, atol=1e-6)
    assert not attention[f"{name}.weight"].any()
    assert float(attention["level_embed"].std()) == pytest.approx(1, abs=0.3)
