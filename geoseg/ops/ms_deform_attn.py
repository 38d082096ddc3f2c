"""Multi-scale deformable attention (MSDA), the sampling part of Deformable DETR.

The operator gathers, for each query and head, a few points on each feature level by
bilinear interpolation and sums them with given weights (Zhu et al., "Deformable DETR",
ICLR 2021, equation 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from geoseg.ops._library import load_library
from geoseg.ops._reference import ms_deform_attn_reference
from geoseg.ops._registration import register

LIBRARY = load_library()
"""Whether the native library is loaded, and why not."""

_REGISTERED = register() if LIBRARY.loaded else None

_reference_asked = False

Shapes = Sequence[tuple[int, int]]
"""(height, width) of feature levels."""


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Shapes | Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sample `value` at the given places and sum the samples by weight.

    A point at (x, y) = (0.5 / width, 0.5 / height) is the centre of a level's first
    cell (`align_corners=False`); whatever lies outside a level counts as zero. A point
    whose location is NaN or infinite contributes 0 and gets gradient 0.

    Args:
        value: Feature levels, flattened and concatenated, shape (B, S, M, D), float32,
            float64 or bfloat16; float16 by the reference only.
        spatial_shapes: (height, width) of each of the L levels; their areas sum to S.
            A tensor (L, 2) is read on the CPU: on a GPU that waits for the device.
        sampling_locations: (x, y) in 0..1 of each level, shape (B, Q, M, L, P, 2).
            Computed with in float32, or float64 if `value` is.
        attention_weights: Weight of each point, shape (B, Q, M, L, P).

    Returns:
        Attended features, shape (B, Q, M * D), in `value`'s dtype; under autocast, the
        native operator gives that of autocast.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit each other.
    """
    shapes = _as_pairs(spatial_shapes)
    _check_tensors(value, sampling_locations, attention_weights)
    _check_shapes(value, shapes, sampling_locations, attention_weights)
    if not _is_native(value):
        return ms_deform_attn_reference(
            value, shapes, sampling_locations, attention_weights
        )
    exact = torch.promote_types(value.dtype, torch.float32)
    output: Tensor = torch.ops.geoseg.ms_deform_attn(
        value,
        [side for shape in shapes for side in shape],
        sampling_locations.to(exact),
        attention_weights.to(exact),
    )
    return output


@contextmanager
def use_reference() -> Iterator[None]:
    """Take the PyTorch reference within a block, to compare with or to debug."""
    global _reference_asked
    before, _reference_asked = _reference_asked, True
    try:
        yield
    finally:
        _reference_asked = before


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


def _is_native(value: Tensor) -> bool:
    """Tell whether the native library has a kernel for a value."""
    if not LIBRARY.loaded or _reference_asked:
        return False
    if value.device.type == "cuda":
        return LIBRARY.cuda
    known = (torch.float32, torch.float64, torch.bfloat16)
    return value.device.type in ("cpu", "meta") and value.dtype in known


def _as_pairs(spatial_shapes: Shapes | Tensor) -> list[tuple[int, int]]:
    if isinstance(spatial_shapes, Tensor):
        if spatial_shapes.ndim != 2 or spatial_shapes.shape[1] != 2:
            raise ValueError(
                f"spatial_shapes has shape {tuple(spatial_shapes.shape)}, expected "
                "(L, 2): height and width of each level"
            )
        spatial_shapes = spatial_shapes.tolist()
    pairs = [(height, width) for height, width in spatial_shapes]
    for height, width in pairs:
        if height < 1 or width < 1:
            raise ValueError(f"spatial_shapes {pairs} holds an empty level")
    return pairs


def _check_tensors(value: Tensor, locations: Tensor, weights: Tensor) -> None:
    others = {"sampling_locations": locations, "attention_weights": weights}
    for name, tensor in {"value": value, **others}.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}, expected a floating dtype")
        if tensor.device != value.device:
            raise ValueError(
                f"{name} is on {tensor.device}, expected {value.device}, where value is"
            )


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
