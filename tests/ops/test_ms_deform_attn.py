"""Multi-scale deformable attention against loops, HF's function, and differences."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.mask2former import modeling_mask2former

from geoseg.ops import ms_deform_attn, regular_reference_points

Shapes = list[tuple[int, int]]


def loops(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Sample and sum, one point after the other, as the paper's equation reads."""
    batch, _, heads, dim = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    output = value.new_zeros(batch, queries, heads, dim)
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                start = 0
                for level, (height, width) in enumerate(shapes):
                    area = height * width
                    cells = value[b, start : start + area, m].view(height, width, dim)
                    start += area
                    for p in range(points):
                        x, y = locations[b, q, m, level, p].tolist()
                        sample = bilinear(cells, y * height - 0.5, x * width - 0.5)
                        output[b, q, m] += weights[b, q, m, level, p] * sample
    return output.flatten(2)


def bilinear(cells: Tensor, row: float, col: float) -> Tensor:
    """Interpolate between the four cells around (row, col); outside all is zero."""
    height, width, dim = cells.shape
    top, left = math.floor(row), math.floor(col)
    total = cells.new_zeros(dim)
    for r, row_share in ((top, 1 - (row - top)), (top + 1, row - top)):
        for c, col_share in ((left, 1 - (col - left)), (left + 1, col - left)):
            if 0 <= r < height and 0 <= c < width:
                total += row_share * col_share * cells[r, c]
    return total


def draw(
    shapes: Shapes,
    *,
    batch: int = 2,
    queries: int = 3,
    heads: int = 2,
    points: int = 2,
    dim: int = 3,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw value, locations (a third of them outside) and weights in float64."""
    generator = torch.Generator().manual_seed(seed)
    size = sum(height * width for height, width in shapes)
    value = torch.randn(batch, size, heads, dim, generator=generator).double()
    places = (batch, queries, heads, len(shapes), points)
    locations = torch.rand(*places, 2, generator=generator).double() * 1.4 - 0.2
    weights = torch.rand(*places, generator=generator).double()
    return value, locations, weights


level = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(
    shapes=st.lists(level, min_size=1, max_size=3),
    heads=st.integers(1, 3),
    points=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_equals_loops_over_points(
    shapes: Shapes, heads: int, points: int, seed: int
) -> None:
    value, locations, weights = draw(shapes, heads=heads, points=points, seed=seed)
    expected = loops(value, shapes, locations, weights)
    torch.testing.assert_close(
        ms_deform_attn(value, shapes, locations, weights), expected
    )


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.5 / 3, 0.5 / 2, 1.0),  # centre of the first cell
        (2.5 / 3, 1.5 / 2, 6.0),  # centre of the last one
        (0.5, 0.5, 3.5),  # centre of the level
        (0.0, 0.5 / 2, 0.5),  # on the border: half of it lies outside
        (0.0, 0.0, 0.25),  # on the corner
        (-0.5 / 3, 0.5 / 2, 0.0),  # one cell outside
        (5.0, 5.0, 0.0),  # far outside
    ],
)
def test_places_that_can_be_worked_out_by_hand(
    x: float, y: float, expected: float
) -> None:
    value = torch.arange(1.0, 7.0).view(1, 6, 1, 1)
    place = torch.tensor([x, y]).view(1, 1, 1, 1, 1, 2)
    attended = ms_deform_attn(value, [(2, 3)], place, torch.ones(1, 1, 1, 1, 1))
    assert attended.item() == pytest.approx(expected, abs=1e-6)


def test_equals_the_function_of_hugging_face() -> None:
    shapes = [(7, 5), (4, 3), (1, 2)]
    value, locations, weights = (
        tensor.float() for tensor in draw(shapes, queries=11, heads=4, points=4, dim=8)
    )
    expected = modeling_mask2former.multi_scale_deformable_attention(
        value, shapes, locations, weights
    )
    attended = ms_deform_attn(value, shapes, locations, weights)
    torch.testing.assert_close(attended, expected, rtol=1e-6, atol=1e-6)


def test_gradients_equal_finite_differences() -> None:
    shapes = [(3, 2), (1, 2)]
    inputs = [tensor.requires_grad_() for tensor in draw(shapes, batch=1, queries=2)]
    assert torch.autograd.gradcheck(
        lambda value, locations, weights: ms_deform_attn(
            value, shapes, locations, weights
        ),
        inputs,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_values_are_sampled_at_exact_places(dtype: torch.dtype) -> None:
    # A ramp of 180 cells: a place in bfloat16 would be off by a third of a cell.
    ramp = torch.arange(180.0).view(1, 180, 1, 1) / 256
    places = torch.linspace(0.01, 0.99, 97).view(1, 97, 1, 1, 1, 1)
    locations = torch.cat([places, torch.full_like(places, 0.5)], dim=-1)
    weights = torch.ones(1, 97, 1, 1, 1)
    attended = ms_deform_attn(ramp.to(dtype), [(1, 180)], locations, weights)
    exact = ms_deform_attn(ramp.to(dtype).float(), [(1, 180)], locations, weights)
    assert attended.dtype == dtype
    torch.testing.assert_close(attended, exact.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, loc, w: (v[:, :-1], loc, w), "add up to 8"),
        (lambda v, loc, w: (v[:1], loc, w), "sampling_locations has shape"),
        (lambda v, loc, w: (v, loc[:, :, :1], w), "sampling_locations has shape"),
        (lambda v, loc, w: (v, loc[:, :, :, :1], w), "sampling_locations has shape"),
        (lambda v, loc, w: (v, loc[..., :1], w), "sampling_locations has shape"),
        (lambda v, loc, w: (v, loc, w[:, :1]), "attention_weights has shape"),
        (lambda v, loc, w: (v, loc, w[..., :1]), "attention_weights has shape"),
        (lambda v, loc, w: (v[0], loc, w), r"expected \(B, S, M, D\)"),
        (lambda v, loc, w: (v, loc[0], w), r"expected \(B, S, M, D\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: object, message: str) -> None:
    assert callable(change)
    inputs = change(*draw([(3, 2), (1, 2)]))
    with pytest.raises(ValueError, match=message):
        ms_deform_attn(inputs[0], [(3, 2), (1, 2)], inputs[1], inputs[2])


def test_reference_points_are_cell_centres_rows_first() -> None:
    points = regular_reference_points([(2, 3), (1, 1)], torch.device("cpu"))
    assert points.dtype == torch.float32
    expected = [((c + 0.5) / 3, (r + 0.5) / 2) for r in range(2) for c in range(3)]
    torch.testing.assert_close(points, torch.tensor([*expected, (0.5, 0.5)]))
