"""Operators that the models share: native kernels, and PyTorch where there are none."""

from geoseg.ops.ms_deform_attn import (
    LIBRARY,
    ms_deform_attn,
    regular_reference_points,
    use_reference,
)

__all__ = ["LIBRARY", "ms_deform_attn", "regular_reference_points", "use_reference"]
