"""Deformable attention from raw projections: equal to the operator that it fuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from geoseg.ops import (
    LIBRARY,
    ms_deform_attn,
    ms_deform_attn_fused,
    regular_reference_points,
    use_reference,
)

SHAPES = [(5, 7), (1, 1), (3, 2)]
GRID = [(9, 10), (2, 3)]
Inputs = tuple[Tensor, Tensor, Tensor]


def draw(dtype: torch.dtype = torch.float32, dim: int = 8) -> Inputs:
    """Draw value, offsets and logits for the queries of GRID."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 42, 3, dim, generator=generator)
    offsets = torch.randn(2, 96, 3, 3, 4, 2, generator=generator) * 3
    logits = torch.randn(2, 96, 3, 3, 4, generator=generator)
    return value.to(dtype), offsets.to(dtype), logits.to(dtype)


def unfused(value: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    centres = regular_reference_points(GRID, torch.device("cpu"))
    sizes = torch.tensor([(7.0, 5.0), (1.0, 1.0), (2.0, 3.0)])
    places = centres[None, :, None, None, None] + offsets.float() / sizes[:, None]
    weights = logits.float().flatten(3).softmax(-1).view(logits.shape)
    return ms_deform_attn(value, SHAPES, places, weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equals_the_operator_that_it_fuses(dtype: torch.dtype) -> None:
    inputs = draw(dtype)
    found = ms_deform_attn_fused(inputs[0], SHAPES, GRID, *inputs[1:])
    expected = unfused(*inputs)
    assert found.dtype == dtype
    allowed = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed * 4)
    with use_reference():
        reference = ms_deform_attn_fused(inputs[0], SHAPES, GRID, *inputs[1:])
    torch.testing.assert_close(found, reference, rtol=0, atol=allowed * 4)


def test_has_the_gradients_of_the_operator_that_it_fuses() -> None:
    found, expected = (
        torch.autograd.grad(call(*inputs).square().sum(), inputs)
        for call in (
            lambda v, o, w: ms_deform_attn_fused(v, SHAPES, GRID, o, w),
            unfused,
        )
        for inputs in [[tensor.requires_grad_() for tensor in draw()]]
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_computes_in_float64_for_a_float64_value() -> None:
    value, offsets, logits = (tensor.double() for tensor in draw())
    found = ms_deform_attn_fused(value, SHAPES, GRID, offsets, logits)
    centres = [
        ((column + 0.5) / width, (row + 0.5) / height)
        for height, width in GRID
        for row in range(height)
        for column in range(width)
    ]
    sizes = torch.tensor([(7.0, 5.0), (1.0, 1.0), (2.0, 3.0)]).double()
    first = torch.tensor(centres, dtype=torch.float64)[None, :, None, None, None]
    weights = logits.flatten(3).softmax(-1).view(logits.shape)
    with use_reference():
        expected = ms_deform_attn(
            value, SHAPES, first + offsets / sizes[:, None], weights
        )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_autocast_reduces_the_value() -> None:
    value, offsets, logits = draw()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        found = ms_deform_attn_fused(value, SHAPES, GRID, offsets, logits)
    expected = unfused(value.bfloat16(), offsets, logits)
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=4e-2)


@pytest.mark.skipif(not LIBRARY.loaded, reason="native operators are absent")
def test_its_shape_is_known_without_data() -> None:
    value, offsets, logits = (tensor.to("meta") for tensor in draw())
    flat = [side for shape in SHAPES for side in shape]
    grid = [side for shape in GRID for side in shape]
    found = torch.ops.geoseg.ms_deform_attn_fused(value, flat, grid, offsets, logits)
    assert found.shape == (2, 96, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, o, w: (v, o[:, :-1], w[:, :-1]), r"query_shapes .* add up to 96"),
        (lambda v, o, w: (v, o, w[..., :1]), "attention_logits has shape"),
        (lambda v, o, w: (v, o[..., :1], w), "sampling_offsets has shape"),
        (lambda v, o, w: (v[:, 1:], o, w), "add up to 42"),
        (lambda v, o, w: (v, o.int(), w), "sampling_offsets is torch.int32"),
        (lambda v, o, w: (v, o, w.to("meta")), "attention_logits is on meta"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: Callable[..., Inputs], message: str
) -> None:
    value, offsets, logits = change(*draw())
    with pytest.raises(ValueError, match=message):
        ms_deform_attn_fused(value, SHAPES, GRID, offsets, logits)


def test_an_empty_level_of_queries_is_refused() -> None:
    value, offsets, logits = draw()
    with pytest.raises(ValueError, match=r"query_shapes .* empty level"):
        ms_deform_attn_fused(value, SHAPES, [(0, 3), (12, 8)], offsets, logits)
