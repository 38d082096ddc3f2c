"""Multi-scale deformable attention from raw projections, for inference.

The queries of the encoders are the cells of feature levels, so that their reference
points are known, and softmax and locations can be worked out where they are used:
neither is written to memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geoseg.ops._checks import Shapes, as_pairs, check_shapes, check_tensors
from geoseg.ops._library import has_kernel
from geoseg.ops._reference import cell_centres
from geoseg.ops.ms_deform_attn import LIBRARY, ms_deform_attn, reference_asked

_DEVICES = {
    device.lower()
    for device in ("CPU", "CUDA")
    if LIBRARY.loaded and has_kernel("ms_deform_attn_fused", device)
}


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Shapes | Tensor,
    query_shapes: Shapes | Tensor,
    sampling_offsets: Tensor,
    attention_logits: Tensor,
) -> Tensor:
    """Attend from every cell of some levels to points around its own place.

    It is `ms_deform_attn` with weights = softmax of the logits over levels and points
    jointly, and locations = centre of the query's cell + offset / (width, height) of
    the level sampled. Where gradients are needed, or the native library has no kernel
    for the device, it is just that.

    Args:
        value: Feature levels, flattened and concatenated, shape (B, S, M, D).
        spatial_shapes: (height, width) of each of the L levels; their areas sum to S.
            A tensor (L, 2) is read on the CPU: on a GPU that waits for the device.
        query_shapes: (height, width) of the levels whose cells, level after level and
            rows first, are the queries; their areas sum to Q.
        sampling_offsets: (x, y) in cells of the level sampled, shape
            (B, Q, M, L, P, 2). Computed with in float32, or float64 if `value` is.
        attention_logits: Weight of each point before softmax, shape (B, Q, M, L, P).

    Returns:
        Attended features, shape (B, Q, M * D), in `value`'s dtype; under autocast, the
        native operator gives that of autocast.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit each other.
        RuntimeError: The GPU or its driver is older than what geoseg was built for.
    """
    shapes = as_pairs(spatial_shapes)
    grid = as_pairs(query_shapes, "query_shapes")
    points = {
        "sampling_offsets": sampling_offsets,
        "attention_logits": attention_logits,
    }
    check_tensors(value, **points)
    check_shapes(value, shapes, **points)
    _check_queries(sampling_offsets.shape[1], grid)
    if not _is_native(value) or _needs_gradient(value, *points.values()):
        return _unfused(value, shapes, grid, sampling_offsets, attention_logits)
    exact = torch.promote_types(value.dtype, torch.float32)
    offsets, logits = (
        tensor if tensor.dtype == value.dtype else tensor.to(exact)
        for tensor in points.values()
    )
    output: Tensor = torch.ops.geoseg.ms_deform_attn_fused(
        value,
        [side for shape in shapes for side in shape],
        [side for shape in grid for side in shape],
        offsets,
        logits,
    )
    return output


def _check_queries(queries: int, grid: list[tuple[int, int]]) -> None:
    total = sum(height * width for height, width in grid)
    if total != queries:
        raise ValueError(
            f"sampling_offsets has {queries} queries but query_shapes {grid} add up to "
            f"{total}; the queries must be the cells of these levels"
        )


def _unfused(
    value: Tensor,
    shapes: list[tuple[int, int]],
    grid: list[tuple[int, int]],
    offsets: Tensor,
    logits: Tensor,
) -> Tensor:
    exact = torch.promote_types(value.dtype, torch.float32)
    centres = cell_centres(grid, exact, value.device)
    sides = [(width, height) for height, width in shapes]
    sizes = torch.tensor(sides, dtype=exact, device=value.device)
    places = centres[:, None, None, None] + offsets.to(exact) / sizes[:, None]
    weights = logits.to(exact).flatten(3).softmax(-1).view(logits.shape)
    return ms_deform_attn(value, shapes, places, weights)


def _is_native(value: Tensor) -> bool:
    """Tell whether the native library has a kernel for a value."""
    if reference_asked() or value.device.type not in _DEVICES:
        return False
    # The CPU has no kernel for float16.
    return value.device.type != "cpu" or value.dtype != torch.float16


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
