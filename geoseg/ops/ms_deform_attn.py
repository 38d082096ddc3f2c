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

from geoseg.ops._checks import Shapes, as_pairs, check_shapes, check_tensors
from geoseg.ops._library import load_library
from geoseg.ops._reference import cell_centres, ms_deform_attn_reference
from geoseg.ops._registration import register

LIBRARY = load_library()
"""Whether the native library is loaded, and why not."""

_REGISTERED = register() if LIBRARY.loaded else None

_reference_asked = False


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
            float64, bfloat16 or float16; on a CPU the last by the reference only.
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
        RuntimeError: The GPU or its driver is older than what geoseg was built for.
    """
    shapes = as_pairs(spatial_shapes)
    points = {
        "sampling_locations": sampling_locations,
        "attention_weights": attention_weights,
    }
    check_tensors(value, **points)
    check_shapes(value, shapes, **points)
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
    return cell_centres(spatial_shapes, torch.float32, device)


def reference_asked() -> bool:
    """Tell whether this is within `use_reference`."""
    return _reference_asked


def _is_native(value: Tensor) -> bool:
    """Tell whether the native library has a kernel for a value."""
    if not LIBRARY.loaded or _reference_asked:
        return False
    if value.device.type == "cuda":
        return LIBRARY.cuda
    known = (torch.float32, torch.float64, torch.bfloat16)
    return value.device.type in ("cpu", "meta") and value.dtype in known
