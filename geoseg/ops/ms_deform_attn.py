"""Multi-scale deformable attention (MSDA), the sampling part of Deformable DETR.

The operator gathers, for each query and head, a few points on each feature level by
bilinear interpolation and sums them with given weights (Zhu et al., "Deformable DETR",
ICLR 2021, equation 3). This file holds the PyTorch reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sample `value` at the given places and sum the samples by weight.

    A point at (x, y) = (0.5 / width, 0.5 / height) is the centre of a level's first
    cell (`align_corners=False`); whatever lies outside a level counts as zero.

    Args:
        value: Feature levels, flattened and concatenated, shape (B, S, M, D).
        spatial_shapes: (height, width) of each of the L levels; their areas sum to S.
        sampling_locations: (x, y) in 0..1 of each level, shape (B, Q, M, L, P, 2).
        attention_weights: Weight of each point, shape (B, Q, M, L, P).

    Returns:
        Attended features, shape (B, Q, M * D), in `value`'s dtype.

    Raises:
        ValueError: The shapes do not fit each other.
    """
    _check_shapes(value, spatial_shapes, sampling_locations, attention_weights)
    batch, _, heads, dim = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    # In float32 at least: a bfloat16 x is off by 0.35 px in a level 180 px wide.
    exact = torch.promote_types(value.dtype, torch.float32)
    # grid_sample wants -1..1, and one image per (batch, head).
    grids = (2.0 * sampling_locations - 1.0).to(exact)
    grids = grids.permute(3, 0, 2, 1, 4, 5)  # (L, B, M, Q, P, 2)
    weights = attention_weights.to(exact).permute(3, 0, 2, 1, 4)
    areas = [height * width for height, width in spatial_shapes]
    output = value.new_zeros(batch * heads, dim, queries, dtype=exact)
    levels = value.to(exact).split(areas, dim=1)
    for level, (height, width) in enumerate(spatial_shapes):
        image = levels[level].permute(0, 2, 3, 1)  # (B, M, D, h * w)
        sampled = F.grid_sample(
            image.reshape(batch * heads, dim, height, width),
            grids[level].reshape(batch * heads, queries, points, 2),
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )  # (B * M, D, Q, P)
        weight = weights[level].reshape(batch * heads, 1, queries, points)
        output = output + (sampled * weight).sum(-1)
    output = output.view(batch, heads * dim, queries)
    return output.transpose(1, 2).contiguous().to(value.dtype)


def regular_reference_points(
    spatial_shapes: Sequence[tuple[int, int]], device: torch.device
) -> Tensor:
    """Centres of all cells of all levels, level after level, rows first.

    Args:
        spatial_shapes: (height, width) of each level.
        device: Where the result lives.

    Returns:
        (x, y) in 0..1, shape (S, 2), float32.
    """
    points = []
    for height, width in spatial_shapes:
        y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2))
    return torch.cat(points)


def _check_shapes(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    if value.ndim != 4 or sampling_locations.ndim != 6:
        raise ValueError(
            f"value has shape {tuple(value.shape)} and sampling_locations "
            f"{tuple(sampling_locations.shape)}; expected (B, S, M, D) and "
            "(B, Q, M, L, P, 2)"
        )
    batch, size, heads, _ = value.shape
    total = sum(height * width for height, width in spatial_shapes)
    if total != size:
        raise ValueError(
            f"value has {size} positions but spatial_shapes {list(spatial_shapes)} "
            f"add up to {total}; flatten exactly these levels"
        )
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    expected = (batch, queries, heads, len(spatial_shapes), points)
    for name, found, wanted in (
        ("sampling_locations", sampling_locations.shape, (*expected, 2)),
        ("attention_weights", attention_weights.shape, expected),
    ):
        if tuple(found) != wanted:
            raise ValueError(f"{name} has shape {tuple(found)}, expected {wanted}")
