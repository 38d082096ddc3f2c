"""The native operator at the sizes where its ways part, and at the rims."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from deformable import SHAPES, Shapes, assert_alike, draw, outcome

from geoseg.ops import LIBRARY, ms_deform_attn, use_reference

pytestmark = pytest.mark.skipif(
    not LIBRARY.loaded, reason=f"native operators are absent: {LIBRARY.reason}"
)

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_queries_read_the_values_where_they_are_to_the_same_bits(
    dtype: torch.dtype,
) -> None:
    # Many are worth a copy of each head's values; one is not.
    shapes = [(31, 17), (8, 9)]
    value, locations, weights = draw(
        shapes, dtype=dtype, queries=200, batch=1, dim=37, points=4
    )
    many = ms_deform_attn(value, shapes, locations, weights)
    for query in (0, 99, 199):
        one = slice(query, query + 1)
        few = ms_deform_attn(value, shapes, locations[:, one], weights[:, one])
        assert torch.equal(few, many[:, one])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("points", "queries"), [(85, 3), (100, 5), (1, 700)])
def test_queries_larger_and_smaller_than_a_block(
    dtype: torch.dtype, points: int, queries: int
) -> None:
    shapes = [(4, 5), (3, 2), (2, 2)]
    inputs = draw(shapes, dtype=dtype, points=points, queries=queries, dim=17)
    assert_alike((inputs[0], inputs[1], inputs[2] / points), shapes)


@pytest.mark.parametrize("queries", [1, 200])
def test_values_out_of_reach_are_not_touched(queries: int) -> None:
    # 0 times NaN would be NaN.
    shapes = [(30, 40), (2, 2)]
    value, locations, weights = draw(shapes, batch=1, queries=queries)
    value[:] = math.nan
    locations[:, 0] = -0.5
    found = ms_deform_attn(value, shapes, locations, weights)
    assert (found[:, 0] == 0).all()


def test_what_weighs_nothing_is_read_for_any_number_of_threads() -> None:
    # As in the reference: a value that is not finite must not depend on how it is read.
    value = torch.full((1, 6000, 1, 32), math.nan)
    locations = torch.rand(1, 2000, 1, 1, 1, 2)
    weights = torch.zeros(1, 2000, 1, 1, 1)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found = ms_deform_attn(value, [(60, 100)], locations, weights)
            assert found.isnan().all()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("factor", [math.inf, math.nan])
def test_a_place_that_is_not_finite_gets_no_gradient_of_any_kind(factor: float) -> None:
    value, locations, weights = (t.requires_grad_() for t in draw([(4, 4)], dim=5))
    broken = locations.detach().clone()
    broken[0, 3, 1, 0, 1] = math.nan
    broken.requires_grad_()
    output = ms_deform_attn(value, [(4, 4)], broken, weights)
    grads = torch.autograd.grad(
        output, (broken, weights), torch.full_like(output, factor)
    )
    for grad in grads:
        assert (grad[0, 3, 1, 0, 1] == 0).all()


@pytest.mark.parametrize("length", [1, 2, 15, 16, 256, 4096])
@pytest.mark.parametrize("queries", [1, 5000])
def test_a_place_next_to_the_far_rim_stays_in_its_level(
    length: int, queries: int
) -> None:
    # The cell behind its last one is the first of the next level.
    place = torch.nextafter(torch.tensor(float(length)), torch.tensor(0.0))
    x = ((place.double() + 0.5) / length).float()
    places = torch.stack([x, torch.tensor(0.5)]).expand(1, queries, 1, 2, 1, 2)
    weights = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2, 1).expand(1, queries, 1, 2, 1)
    value = torch.ones(1, length + 1, 1, 3)
    value[:, -1] = 1e30  # the level behind it
    shapes = [(1, length), (1, 1)]
    found = ms_deform_attn(value, shapes, places, weights)
    assert (found.abs() <= 1).all()


@pytest.mark.parametrize("dim", [0, 4])
@pytest.mark.parametrize("points", [0, 2])
@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize("queries", [0, 3])
def test_what_is_empty_gives_zeros_or_nothing(
    dim: int, points: int, heads: int, queries: int
) -> None:
    inputs = draw(dim=dim, points=points, heads=heads, queries=queries)
    found = outcome(inputs, SHAPES, native=True)
    assert found[0].shape == (2, queries, heads * dim)
    for one, tensor in zip(found[1:], inputs, strict=True):
        assert one.shape == tensor.shape
    if not points or not queries:
        assert all((one == 0).all() for one in found)


def test_no_level_at_all_gives_zeros() -> None:
    value, locations, weights = draw([], queries=3)
    assert (ms_deform_attn(value, [], locations, weights) == 0).all()


def huge(shapes: Shapes, heads: int, dim: int) -> torch.Tensor:
    """A value of more than 2^31 elements; pages that nobody touches take no memory."""
    size = sum(height * width for height, width in shapes)
    value = torch.empty(1, size, heads, dim, dtype=torch.bfloat16)
    assert value.numel() > 1 << 31
    return value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shapes", "heads", "dim"),
    [
        ([(1, (1 << 22) + 5)], 8, 64),  # elements
        ([(257, 1 << 23), (1, 3)], 1, 1),  # cells, too
    ],
)
def test_places_beyond_two_to_the_31_are_found(
    shapes: Shapes, heads: int, dim: int
) -> None:
    value = huge(shapes, heads, dim)
    width = shapes[-1][1]
    value[0, -2:] = 3.0
    value[0, -2:, heads // 2] = 5.0
    place = torch.tensor([(width - 1.0) / width, 0.5])
    places = place.expand(1, 1, heads, len(shapes), 1, 2)
    weights = torch.zeros(1, 1, heads, len(shapes), 1)
    weights[:, :, :, -1] = 1.0
    found = ms_deform_attn(value, shapes, places, weights).view(heads, dim)
    # At 2^22 a float32 place knows half cells.
    assert (found[heads // 2] == 5.0).all()
    assert (found[: heads // 2] == 3.0).all()


@pytest.mark.slow
def test_gradients_beyond_two_to_the_31_land_where_they_belong() -> None:
    width, heads, dim = (1 << 22) + 5, 8, 64
    value = huge([(1, width)], heads, dim)
    value[0, -2:] = 1.0
    places = torch.tensor([(width - 1.0) / width, 0.5]).expand(1, 1, heads, 1, 1, 2)
    weights = torch.full((1, 1, heads, 1, 1), 2.0)
    grad = torch.arange(1.0, heads + 1).repeat_interleave(dim).view(1, 1, -1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # Each has the values of a head, and their gradients.
        by_value, _, by_weight = torch.ops.geoseg.ms_deform_attn_backward(
            grad.bfloat16(), value, [1, width], places.contiguous(), weights
        )
    finally:
        torch.set_num_threads(before)
    for head in range(heads):
        assert by_value[0, -2:, head].float().sum() == 2.0 * (head + 1) * dim
        assert by_weight[0, 0, head] == (head + 1) * dim
    assert not by_value[0, : 1 << 16].any()


def test_the_reference_is_taken_within_its_block_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value, locations, weights = draw()
    calls: list[str] = []
    # The package's attribute of that name is the function.
    module = sys.modules["geoseg.ops.ms_deform_attn"]

    def record(*_: object) -> torch.Tensor:
        calls.append("reference")
        return value

    monkeypatch.setattr(module, "ms_deform_attn_reference", record)
    ms_deform_attn(value, SHAPES, locations, weights)
    with use_reference():
        ms_deform_attn(value, SHAPES, locations, weights)
    ms_deform_attn(value, SHAPES, locations, weights)
    assert calls == ["reference"]
