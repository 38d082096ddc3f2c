"""Inputs of deformable attention for tests, and what comes of them."""

from __future__ import annotations

import torch
from torch import Tensor

from geoseg.ops import ms_deform_attn, use_reference

Shapes = list[tuple[int, int]]
Inputs = tuple[Tensor, Tensor, Tensor]
SHAPES: Shapes = [(5, 7), (1, 1), (3, 2), (1, 9)]


def draw(
    shapes: Shapes = SHAPES,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    queries: int = 17,
    heads: int = 3,
    points: int = 2,
    dim: int = 8,
    seed: int = 0,
) -> Inputs:
    """Draw value, locations (some outside, some on borders) and weights."""
    generator = torch.Generator().manual_seed(seed)
    exact = torch.promote_types(dtype, torch.float32)
    size = sum(height * width for height, width in shapes)
    value = torch.randn(batch, size, heads, dim, generator=generator, dtype=exact)
    places = (batch, queries, heads, len(shapes), points)
    locations = torch.rand(*places, 2, generator=generator, dtype=exact) * 1.6 - 0.3
    borders = torch.tensor([0.0, 1.0, -0.5, 1.5], dtype=exact)
    drawn = torch.randint(4, locations.shape, generator=generator)
    rare = torch.rand(locations.shape, generator=generator) < 0.1
    locations = torch.where(rare, borders[drawn], locations)
    weights = torch.rand(*places, generator=generator, dtype=exact)
    return value.to(dtype), locations, weights


def outcome(inputs: Inputs, shapes: Shapes, *, native: bool) -> list[Tensor]:
    """Return the output and the gradients of a fixed product with it, in float64."""
    value, locations, weights = (t.detach().clone().requires_grad_() for t in inputs)
    if native:
        output = ms_deform_attn(value, shapes, locations, weights)
    else:
        exact = value.to(torch.promote_types(value.dtype, torch.float32))
        with use_reference():
            output = ms_deform_attn(exact, shapes, locations, weights)
    generator = torch.Generator().manual_seed(1)
    factor = torch.randn(output.shape, generator=generator).to(inputs[0].dtype)
    (output * factor.to(output.dtype)).sum().backward()
    grads = [value.grad, locations.grad, weights.grad]
    return [
        tensor.detach().double() for tensor in [output, *grads] if tensor is not None
    ]


def assert_alike(inputs: Inputs, shapes: Shapes) -> None:
    dtype = inputs[0].dtype
    found = outcome(inputs, shapes, native=True)
    expected = outcome(inputs, shapes, native=False)
    forward = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3}[dtype]
    assert len(found) == len(expected) == 4
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        # Gradients add up many products, of bfloat16 rounded once at the end.
        allowed = forward if index == 0 or dtype != torch.bfloat16 else 1e-2
        scale = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        assert one.shape == other.shape
        assert not one.numel() or float((one - other).abs().max()) <= allowed * scale
