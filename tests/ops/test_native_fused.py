"""The fused operator's native CPU kernel: any shape, dtype and instruction set."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from geoseg.ops import LIBRARY, ms_deform_attn_fused, use_reference

pytestmark = pytest.mark.skipif(
    not LIBRARY.loaded, reason=f"native operators are absent: {LIBRARY.reason}"
)

Shapes = list[tuple[int, int]]
Inputs = tuple[Tensor, Tensor, Tensor]
ALLOWED = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3}
"""Of the largest number of the output."""

LEVELS: Shapes = [(5, 7), (1, 1), (3, 2), (1, 9)]
GRID: Shapes = [(3, 4), (1, 1), (4, 1)]


def draw(
    levels: Shapes = LEVELS,
    grid: Shapes = GRID,
    *,
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    heads: int = 3,
    points: int = 2,
    dim: int = 8,
    spread: float = 3.0,
    seed: int = 0,
) -> Inputs:
    """Draw value, offsets (some leave the level) and logits."""
    generator = torch.Generator().manual_seed(seed)
    cells, queries = (sum(h * w for h, w in sides) for sides in (levels, grid))
    shape = (batch, queries, heads, len(levels), points)
    value = torch.randn(batch, cells, heads, dim, generator=generator)
    offsets = torch.randn(*shape, 2, generator=generator) * 3
    logits = torch.randn(shape, generator=generator) * spread
    return value.to(dtype), offsets.to(dtype), logits.to(dtype)


def fused(inputs: Inputs, levels: Shapes = LEVELS, grid: Shapes = GRID) -> Tensor:
    return ms_deform_attn_fused(inputs[0], levels, grid, *inputs[1:])


def assert_alike(
    inputs: Inputs, levels: Shapes = LEVELS, grid: Shapes = GRID
) -> Tensor:
    """Compare with the reference in float32 at least; return the native output."""
    found = fused(inputs, levels, grid)
    dtype = inputs[0].dtype
    exact = inputs[0].to(torch.promote_types(dtype, torch.float32))
    with use_reference():
        expected = fused((exact, *inputs[1:]), levels, grid)
    assert found.dtype == dtype
    assert found.shape == expected.shape
    if expected.numel():
        scale = max(1.0, float(expected.abs().max()))
        assert float((found - expected).abs().max()) <= ALLOWED[dtype] * scale
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dim", [1, 3, 8, 32, 33, 64])
@pytest.mark.parametrize("points", [1, 2, 3])  # 4, 8 and 12 over four levels.
def test_equals_the_reference_for_any_head(
    dtype: torch.dtype, dim: int, points: int
) -> None:
    found = assert_alike(draw(dtype=dtype, dim=dim, points=points))
    assert found.abs().max() > 0.1


@given(
    levels=st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4
    ),
    grid=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4
    ),
    batch=st.integers(0, 3),
    heads=st.integers(1, 4),
    points=st.integers(1, 5),
    dim=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_equals_the_reference_for_any_shape(
    levels: Shapes,
    grid: Shapes,
    batch: int,
    heads: int,
    points: int,
    dim: int,
    dtype: torch.dtype,
    seed: int,
) -> None:
    inputs = draw(
        levels,
        grid,
        dtype=dtype,
        batch=batch,
        heads=heads,
        points=points,
        dim=dim,
        seed=seed,
    )
    assert_alike(inputs, levels, grid)


def test_queries_over_many_values_are_read_where_they_lie() -> None:
    # So few that copying a head's values first would not pay.
    levels, grid = [(60, 50)], [(2, 3)]
    assert_alike(draw(levels, grid), levels, grid)


def test_rows_may_be_cut_anywhere() -> None:
    levels, grid = [(23, 23), (12, 12)], [(23, 23), (12, 12)]
    inputs = draw(levels, grid, heads=6, dim=32, points=4)
    before = torch.get_num_threads()
    try:
        seen = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            seen.append(fused(inputs, levels, grid))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(seen[0], other) for other in seen[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 300.0, 1e30])
def test_softmax_holds_for_any_logits(dtype: torch.dtype, spread: float) -> None:
    # Values tell points apart, so that each weight shows.
    assert_alike(draw(dtype=dtype, spread=spread, points=7))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_do_what_softmax_does(bad: float) -> None:
    value, offsets, logits = draw()
    logits[0, 2, 1, 0, 1] = bad
    logits[1, 3, 2] = bad  # All of one query and head.
    offsets = offsets * 0  # No point leaves its level: NaN weights show.
    found = fused((value, offsets, logits))
    with use_reference():
        expected = fused((value, offsets, logits))
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=1e-5)
    assert found.isnan().any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30])
def test_offsets_that_are_not_finite_reach_nothing(bad: float) -> None:
    value, offsets, logits = draw()
    offsets[0, 2, 1, 0, 1, 0] = bad
    offsets[1, 5, 2, 2, 0, 1] = bad
    found = assert_alike((value, offsets, logits))
    assert found.isfinite().all()


@pytest.mark.parametrize("mixed", [1, 2])
def test_projections_may_be_wider_than_the_value(mixed: int) -> None:
    inputs = list(draw(dtype=torch.bfloat16))
    wide = [tensor.float() if i == mixed else tensor for i, tensor in enumerate(inputs)]
    found = fused((wide[0], wide[1], wide[2]))
    assert torch.equal(found, fused((inputs[0], inputs[1].float(), inputs[2].float())))
    assert torch.equal(found, fused((inputs[0], inputs[1], inputs[2])))


def test_strided_tensors_give_the_same() -> None:
    inputs = draw()
    value, offsets, logits = (t.transpose(1, 2).contiguous() for t in inputs)
    strided = value.transpose(1, 2), offsets.transpose(1, 2), logits.transpose(1, 2)
    assert not any(tensor.is_contiguous() for tensor in strided)
    assert torch.equal(fused(strided), fused(inputs))


def test_without_points_or_channels_nothing_is_read() -> None:
    value, offsets, logits = draw()
    none = fused((value, offsets[..., :0, :], logits[..., :0]))
    assert (none == 0).all()
    assert fused((value[..., :0], offsets, logits)).shape == (2, 17, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_keeps_torch_s_rules(dtype: torch.dtype) -> None:
    value, offsets, logits = draw(dtype=dtype)
    levels, grid = ([side for pair in s for side in pair] for s in (LEVELS, GRID))
    torch.library.opcheck(
        torch.ops.geoseg.ms_deform_attn_fused.default,
        (value, levels, grid, offsets, logits),
    )


def test_compiles_whole_and_at_most_twice_for_three_sizes() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled: Callable[..., Tensor] = torch.compile(
        fused, fullgraph=True, backend=counter
    )
    for size in (4, 6, 7):
        levels, grid = [(size, size + 1)], [(size, size), (1, size)]
        inputs = draw(levels, grid)
        torch.testing.assert_close(
            compiled(inputs, levels, grid), fused(inputs, levels, grid)
        )
    assert counter.frame_count <= 2
    torch._dynamo.reset()


def test_the_raw_operator_guards_its_memory() -> None:
    value, offsets, logits = draw()
    levels, grid = ([side for pair in s for side in pair] for s in (LEVELS, GRID))
    for broken in (
        (value[:, :-1], levels, grid, offsets, logits),
        (value, levels[:-2], grid, offsets, logits),
        (value, levels, grid[:-2], offsets, logits),
        (value, levels, grid[:-1], offsets, logits),
        (value, levels, [-3, -4, *grid[2:]], offsets, logits),
        (value, levels, [1 << 32, 1 << 32, *grid[2:]], offsets, logits),
        (value, levels, grid, offsets, logits[:, :-1]),
        (value[:1], levels, grid, offsets, logits),
        (value.half(), levels, grid, offsets, logits),
    ):
        with pytest.raises(RuntimeError):
            torch.ops.geoseg.ms_deform_attn_fused(*broken)
