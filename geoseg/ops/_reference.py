"""The PyTorch reference of multi-scale deformable attention: oracle and fallback."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Do what `ms_deform_attn` does by `grid_sample`; arguments must fit each other.

    As the native operator, it takes a location that is not finite for one outside.
    """
    batch, _, heads, dim = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    # In float32 at least: a bfloat16 x is off by 0.35 px in a level 180 px wide.
    exact = torch.promote_types(value.dtype, torch.float32)
    # grid_sample wants -1..1, and one image per (batch, head).
    grids = 2.0 * sampling_locations.to(exact) - 1.0
    finite = grids.isfinite().all(-1, keepdim=True)
    grids = torch.where(finite, grids, torch.full_like(grids, -3.0))
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


def cell_centres(
    shapes: Sequence[tuple[int, int]], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Centres (x, y) in 0..1 of all cells, level after level, rows first: (S, 2)."""
    points = []
    for height, width in shapes:
        y = (torch.arange(height, dtype=dtype, device=device) + 0.5) / height
        x = (torch.arange(width, dtype=dtype, device=device) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2))
    return torch.cat(points)
