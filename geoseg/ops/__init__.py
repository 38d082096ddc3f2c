"""Operators that the models share; native kernels come behind the same names."""

from geoseg.ops.ms_deform_attn import ms_deform_attn, regular_reference_points

__all__ = ["ms_deform_attn", "regular_reference_points"]
