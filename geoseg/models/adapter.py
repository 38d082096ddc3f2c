"""Parts of the ViT-Adapter: spatial prior, injector, extractor, interaction block.

Chen et al., "Vision Transformer Adapter for Dense Predictions", ICLR 2023. Parameter
names are those of the published weights. Level sizes are always taken from the feature
maps: at 720 pixels the strides 8, 16 and 32 give 90, 45 and 23 cells, and 23 is not
720 // 32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geoseg.ops import ms_deform_attn_fused

Shapes = Sequence[tuple[int, int]]
"""(height, width) of feature levels."""

NORM_EPS = 1e-6  # what the published adapter was trained with; torch's default is 1e-5


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with its four projections.

    Args:
        dim: Channels of queries and features, C.
        num_heads: Heads, M; must divide `dim * ratio`.
        num_levels: Feature levels sampled, L.
        num_points: Points per head and level, P.
        ratio: Width of the values relative to `dim`.
    """

    def __init__(
        self, dim: int, num_heads: int, num_levels: int, num_points: int, ratio: float
    ) -> None:
        super().__init__()
        value_dim = int(dim * ratio)
        if value_dim % num_heads:
            raise ValueError(
                f"{num_heads} heads do not divide the value width {value_dim} "
                f"(= {dim} * {ratio})"
            )
        self.num_heads, self.num_levels, self.num_points = (
            num_heads,
            num_levels,
            num_points,
        )
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_proj = nn.Linear(dim, value_dim)
        self.output_proj = nn.Linear(value_dim, dim)

    def initial_offsets(self) -> Tensor:
        """Bias that puts the points on rays, one direction a head, shape (M*L*P*2,)."""
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        rays = torch.stack([angles.cos(), angles.sin()], dim=-1)
        rays = rays / rays.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.num_points + 1, dtype=rays.dtype)
        spread = rays[:, None, None, :] * steps[None, None, :, None]
        return spread.expand(-1, self.num_levels, -1, -1).reshape(-1)

    def forward(
        self, query: Tensor, query_shapes: Shapes, feature: Tensor, shapes: Shapes
    ) -> Tensor:
        """Attend from each query to points of `feature` around the query's own place.

        Args:
            query: Tokens, level after level, (B, Q, C).
            query_shapes: (height, width) of the levels whose cells they are.
            feature: Levels, flattened and concatenated, shape (B, S, C).
            shapes: (height, width) of each level.

        Returns:
            (B, Q, C).
        """
        points = (*query.shape[:2], self.num_heads, self.num_levels, self.num_points)
        value = self.value_proj(feature).unflatten(2, (self.num_heads, -1))
        attended = ms_deform_attn_fused(
            value,
            shapes,
            query_shapes,
            self.sampling_offsets(query).view(*points, 2),
            self.attention_weights(query).view(points),
        )
        projected: Tensor = self.output_proj(attended)
        return projected


class DWConv(nn.Module):
    """Depth-wise 3 x 3 convolution over tokens of several levels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

    def forward(self, tokens: Tensor, shapes: Shapes) -> Tensor:
        """Convolve each level on its own grid, (B, S, C) -> (B, S, C)."""
        batch, _, dim = tokens.shape
        areas = [height * width for height, width in shapes]
        levels = [
            self.dwconv(level.transpose(1, 2).reshape(batch, dim, height, width))
            for level, (height, width) in zip(
                tokens.split(areas, dim=1), shapes, strict=True
            )
        ]
        return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)


class ConvFFN(nn.Module):
    """Feed-forward network with a depth-wise convolution in the middle."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = DWConv(hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, tokens: Tensor, shapes: Shapes) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        hidden = F.gelu(self.dwconv(self.fc1(tokens), shapes))
        output: Tensor = self.fc2(hidden)
        return output


class Extractor(nn.Module):
    """Spatial tokens query the ViT's patch tokens."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_points: int,
        deform_ratio: float,
        ffn_ratio: float,
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = MSDeformAttn(dim, num_heads, 1, num_points, deform_ratio)
        self.ffn = ConvFFN(dim, int(dim * ffn_ratio))
        self.ffn_norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(
        self,
        spatial: Tensor,
        shapes: Shapes,
        patches: Tensor,
        patch_shape: tuple[int, int],
    ) -> Tensor:
        """Update the spatial tokens, (B, S, C) -> (B, S, C).

        Args:
            spatial: Tokens of the strides 8, 16 and 32, (B, S, C).
            shapes: (height, width) of their levels.
            patches: Patch tokens of the ViT, (B, h * w, C).
            patch_shape: (h, w).
        """
        spatial = spatial + self.attn(
            self.query_norm(spatial), shapes, self.feat_norm(patches), [patch_shape]
        )
        updated: Tensor = spatial + self.ffn(self.ffn_norm(spatial), shapes)
        return updated


class Injector(nn.Module):
    """The ViT's patch tokens query the spatial prior; starts as the identity."""

    def __init__(
        self, dim: int, num_heads: int, num_points: int, deform_ratio: float
    ) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.feat_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = MSDeformAttn(dim, num_heads, 3, num_points, deform_ratio)
        self.gamma = nn.Parameter(torch.zeros(dim))

    def forward(
        self,
        patches: Tensor,
        patch_shape: tuple[int, int],
        spatial: Tensor,
        shapes: Shapes,
    ) -> Tensor:
        """Update the patch tokens, (B, h * w, C) -> (B, h * w, C)."""
        attended: Tensor = self.attn(
            self.query_norm(patches), [patch_shape], self.feat_norm(spatial), shapes
        )
        return patches + self.gamma * attended


class InteractionBlock(nn.Module):
    """Injector (optional), extractor, and two more extractors after the last block."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_points: int,
        deform_ratio: float,
        ffn_ratio: float,
        *,
        use_injector: bool,
        extra_extractors: int,
    ) -> None:
        super().__init__()
        if use_injector:
            self.injector = Injector(dim, num_heads, num_points, deform_ratio)
        self.extractor = Extractor(dim, num_heads, num_points, deform_ratio, ffn_ratio)
        if extra_extractors:
            self.extra_extractors = nn.ModuleList(
                Extractor(dim, num_heads, num_points, deform_ratio, ffn_ratio)
                for _ in range(extra_extractors)
            )

    def extract(
        self,
        spatial: Tensor,
        shapes: Shapes,
        patches: Tensor,
        patch_shape: tuple[int, int],
    ) -> Tensor:
        """Run the block's extractors one after the other, (B, S, C) -> (B, S, C)."""
        extractors = [self.extractor, *getattr(self, "extra_extractors", [])]
        for extractor in extractors:
            spatial = extractor(spatial, shapes, patches, patch_shape)
        return spatial


class SpatialPriorModule(nn.Module):
    """Convolutional pyramid at strides 4, 8, 16 and 32.

    Args:
        channels: Bands of the image, K.
        inplanes: Channels of the stem; the published module has 64.
        dim: Channels of the ViT, D.
    """

    def __init__(self, channels: int, inplanes: int, dim: int) -> None:
        super().__init__()

        def conv(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(inplace=True),
            ]

        self.stem = nn.Sequential(
            *conv(channels, inplanes, 2),
            *conv(inplanes, inplanes, 1),
            *conv(inplanes, inplanes, 1),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*conv(inplanes, 2 * inplanes, 2))
        self.conv3 = nn.Sequential(*conv(2 * inplanes, 4 * inplanes, 2))
        self.conv4 = nn.Sequential(*conv(4 * inplanes, 4 * inplanes, 2))
        self.fc1 = nn.Conv2d(inplanes, dim, kernel_size=1)
        self.fc2 = nn.Conv2d(2 * inplanes, dim, kernel_size=1)
        self.fc3 = nn.Conv2d(4 * inplanes, dim, kernel_size=1)
        self.fc4 = nn.Conv2d(4 * inplanes, dim, kernel_size=1)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, K, H, W) -> four maps (B, D, ., .), strides 4, 8, 16, 32, rounded up."""
        c1 = self.stem(pixel_values)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)
