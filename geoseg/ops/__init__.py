"""Operators that the models share: native kernels, and PyTorch where there are none."""

from geoseg.ops.ms_deform_attn import (
    LIBRARY,
    ms_deform_attn,
    regular_reference_points,
    use_reference,
)
from geoseg.ops.ms_deform_attn_fused import ms_deform_attn_fused

__all__ = [
    "LIBRARY",
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "regular_reference_points",
    "use_reference",
]
